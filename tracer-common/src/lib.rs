//! What the kernel and the user side share: the event, the loader's globals, the counters, and the rules
//! that decide. No I/O, no allocation; the user side decodes bytes, it never casts them.

#![no_std]

pub mod config;
pub mod counters;
pub mod event;
pub mod in_kernel_series;
pub mod rules;
pub mod state;

pub use config::{Config, Region, Slot};
pub use counters::Counters;
pub use event::{Event, Flags, Outline, Record, StampedEvent, StampedRecord};

/// Whose exit codes an exit reason is, as kvm_exit's `isa` argument says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Isa {
    /// Neither VMX nor SVM: the exit reason is not read.
    Other = 0,
    /// `KVM_ISA_VMX`
    Vmx = 1,
    /// `KVM_ISA_SVM`
    Svm = 2,
}

impl Isa {
    /// From the tracepoint's argument or an event's byte.
    #[must_use]
    #[inline(always)]
    pub const fn from_raw(raw: u32) -> Self {
        match raw {
            1 => Self::Vmx,
            2 => Self::Svm,
            _ => Self::Other,
        }
    }
}

/// Basic VMX exit reason of a VMX-preemption-timer exit (SDM vol. 3, appendix C).
pub const VMX_PREEMPTION_TIMER: u32 = 52;

/// `kvm_arch.vm_type` of a TDX guest (`KVM_X86_TDX_VM`, Linux 6.16): its vCPUs are no `struct vcpu_vmx`.
pub const VM_TYPE_TDX: u8 = 5;
