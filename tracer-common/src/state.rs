//! The state that the programs keep of each vCPU between its hooks.

use crate::{
    Flags, Outline,
    detail::RawDetail,
    host_time::{Parts, Sums},
    rules::Writes,
};

/// vCPUs whose state is kept. They are kept in sets: a new vCPU in a full set evicts the vCPU of that set that was entered longest ago.
pub const MAX_STATES: usize = 1 << SET_BITS << WAY_BITS;
/// Sets, as a power of two.
const SET_BITS: u32 = 10;
/// Places of a set, as a power of two.
pub const WAY_BITS: u32 = 4;

/// The set of a vCPU, by its address: the highest bits of the product depend on all bits of the address.
#[must_use]
#[inline(always)]
pub const fn set_of(vcpu: u64) -> u64 {
    vcpu.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SET_BITS)
}

/// Whether a vCPU's round is open; 0 before its first kvm_entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Phase(pub u8);

impl Phase {
    /// between kvm_entry and kvm_exit
    pub const OPEN: Self = Self(1);
    /// after a kvm_exit
    pub const CLOSED: Self = Self(2);
}

/// Owner of a place of STATES: none, a vCPU by the address of its `struct kvm_vcpu`, or a hook that is filling the place in.
///
/// The identity of a vCPU (`kvm`, `who`, `from_birth`) is written only while the owner is [`Owner::CLAIMED`], so that it always belongs to
/// the owner that is written after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Owner(pub u64);

impl Owner {
    /// the place is free
    pub const NONE: Self = Self(0);
    /// a hook fills the place in; nobody else takes it until then
    pub const CLAIMED: Self = Self(4);
    /// mark of a vCPU of a TDX guest, which is not traced
    const TD: u64 = 1;
    /// mark of a vCPU whose identity is not known yet: no kvm_entry was seen
    const NEW: u64 = 2;

    /// The vCPU at an address.
    #[must_use]
    #[inline(always)]
    pub const fn vcpu(address: u64) -> Self {
        Self(address)
    }

    /// The vCPU of a TDX guest at an address. Differs from [`Self::vcpu`], so that the usual path needs no check of its own.
    #[must_use]
    #[inline(always)]
    pub const fn td_vcpu(address: u64) -> Self {
        Self(address | Self::TD)
    }

    /// The vCPU at an address, before its first kvm_entry.
    #[must_use]
    #[inline(always)]
    pub const fn new_vcpu(address: u64) -> Self {
        Self(address | Self::NEW)
    }

    /// True for the vCPU at this address, marked or not.
    #[must_use]
    #[inline(always)]
    pub const fn is_at(self, address: u64) -> bool {
        self.0 & !(Self::TD | Self::NEW) == address
    }

    /// True for a vCPU of a TDX guest.
    #[must_use]
    #[inline(always)]
    pub const fn is_td(self) -> bool {
        self.0 & Self::TD != 0
    }

    /// True for a vCPU before its first kvm_entry.
    #[must_use]
    #[inline(always)]
    pub const fn is_new(self) -> bool {
        self.0 & Self::NEW != 0
    }
}

/// State of one vCPU: four cache lines, of which the second is for VMX, the third for the parts of the host time, and the fourth for exits that
/// are long or looked at closely. All zeros is a free place.
///
/// A state may be evicted while a hook of its vCPU still runs on another CPU, and then writes into the state of the new owner.
/// See `tracer-ebpf/src/states.rs` for the guarantees that hold then.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct VcpuState {
    /// the vCPU that the state belongs to
    pub owner: Owner,
    /// kvm_entry of the open round, or of the last one; when the place was claimed, where there was none
    pub entry_ns: u64,
    /// previous kvm_exit; 0 where none was seen
    pub exit_ns: u64,
    /// `stat.exits` at the last kvm_entry
    pub exits: u64,
    /// address of `struct kvm`
    pub kvm: u64,
    /// the VMM's process in the high half, KVM's number of the vCPU in the low half
    pub who: u64,
    /// outline of the last round
    pub previous: Outline,
    /// flags of the open round
    pub flags: Flags,
    /// pin-control writes of the open round, by the shadow method
    pub shadow_pin_writes: u8,
    /// whether a round is open
    pub phase: Phase,
    /// 1 when the vCPU's first entry was seen
    pub from_birth: u8,
    /// bits 0 and 1: which of `last_pin` is valid
    pub pin_seen: u8,
    reserved: [u8; 2],
    /// VMCS of the open round
    pub loaded_vmcs: u64,
    /// shadow of the pin controls at the open round's kvm_entry
    pub pin_entry: u32,
    /// shadow of the primary execution controls at the open round's kvm_entry, for the calibration guest
    pub exec_entry: u32,
    /// shadow of the pin controls when last read, of vmcs01 and vmcs02
    pub last_pin: [u32; 2],
    /// VM-entry plus VM-exit of the open round by the stopwatch, ns
    pub transition_ns: u32,
    /// one more than the place of the last round's series in SERIES; 0 for none
    pub series: u32,
    /// writes to the controls of vmcs01 and vmcs02 since the last kvm_exit of each
    pub writes: [Writes; 2],
    /// SVM: the vmcb on which L1 runs
    pub vmcb01: u64,
    /// the first return of KVM_RUN before the open round, 0 for none; valid with [`Flags::PHASES`]
    pub parts_returned_ns: u64,
    /// the thread that runs the vCPU: address of its `task_struct`; 0 before its first kvm_entry
    pub task: u64,
    /// how often that thread had been given a CPU at the last kvm_entry; on SVM, at the last kvm_exit
    pub runs: u64,
    /// the part of `sums.polled_ns` that found work
    pub polled_with_success_ns: u64,
    /// sums at the last kvm_entry; on SVM, the delay at the last kvm_exit
    pub sums: Sums,
    /// first return of KVM_RUN since the last kvm_exit; 0 for none
    pub returned_ns: u64,
    /// sums at that return
    pub returned: Sums,
    /// parts of the host time before the open round; valid with [`Flags::PHASES`]
    pub parts: Parts,
    /// more about the last exit; while KVM handles it, its source alone where the value is not read yet
    pub detail: RawDetail,
    /// outcomes of faults of nested paging at the last exit of that kind: 16 bits each of four counts
    pub outcomes: u64,
}

impl VcpuState {
    /// Bytes of a state.
    pub const SIZE: usize = 256;
}

const _: () = assert!(size_of::<VcpuState>() == VcpuState::SIZE);
