//! Shared by the eBPF programs and user space: the event and its record, the state, the counters, the loader's constants, and the pure
//! rules. No I/O, no allocation, no unsafe: user space decodes bytes by zerocopy's checked reads.

#![no_std]
#![forbid(unsafe_code)]
#![warn(
    clippy::cast_lossless,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss
)]

pub mod clock;
pub mod config;
pub mod counters;
pub mod detail;
pub mod event;
pub mod host_time;
pub mod in_kernel_series;
pub mod rules;
pub mod state;

pub use config::{Config, Region, Slot};
pub use counters::Counters;
pub use event::{Event, Flags, Outline, Record, ShortRecord, StampedEvent, StampedRecord};

/// The instruction set that an exit reason belongs to, as in kvm_exit's `isa` argument.
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
    /// Each one.
    pub const ALL: [Self; 3] = [Self::Other, Self::Vmx, Self::Svm];

    /// Name in files: "vmx", "svm", or "other".
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Vmx => "vmx",
            Self::Svm => "svm",
        }
    }

    /// From the tracepoint's argument or an event's byte.
    #[must_use]
    #[inline(always)]
    pub(crate) const fn from_raw(raw: u32) -> Self {
        match raw {
            1 => Self::Vmx,
            2 => Self::Svm,
            _ => Self::Other,
        }
    }
}

/// Basic VMX exit reason of a VMX-preemption-timer exit (SDM vol. 3, appendix C).
pub const VMX_PREEMPTION_TIMER: u32 = 52;

/// `kvm_arch.vm_type` of a TDX guest (`KVM_X86_TDX_VM`, Linux 6.16): its vCPUs are not `struct vcpu_vmx`.
pub const VM_TYPE_TDX: u8 = 5;

/// The low half of a word.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "drops the high half")]
pub(crate) const fn low32(word: u64) -> u32 {
    word as u32
}

/// The high half of a word.
#[inline(always)]
pub(crate) const fn high32(word: u64) -> u32 {
    low32(word >> 32)
}
