//! What the programs remember of a vCPU between its hooks.

use crate::{Flags, Outline, rules::Writes};

/// States that are kept, in sets: beyond, the vCPU of its set that was entered longest ago is forgotten.
pub const MAX_STATES: usize = 1 << SET_BITS << WAY_BITS;
/// Sets, as a power of two.
pub const SET_BITS: u32 = 10;
/// Places of a set, as a power of two.
pub const WAY_BITS: u32 = 4;

/// Where a vCPU is, as far as the programs saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Phase(pub u8);

impl Phase {
    /// no kvm_entry was seen yet
    pub const NEW: Self = Self(0);
    /// between kvm_entry and kvm_exit
    pub const OPEN: Self = Self(1);
    /// after a kvm_exit
    pub const CLOSED: Self = Self(2);
    /// of a TDX guest, which is left out
    pub const TDX: Self = Self(3);
}

/// A vCPU's state: two cache lines, of which the second is for VMX.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct VcpuState {
    /// address of the `struct kvm_vcpu` that it belongs to; 0 for none. Claimed by a compare-and-exchange, for CPUs may want the same place
    pub vcpu: u64,
    /// the open round's kvm_entry
    pub entry_ns: u64,
    /// previous kvm_exit, 0 for none
    pub exit_ns: u64,
    /// `stat.exits` at the last kvm_entry
    pub exits: u64,
    /// address of `struct kvm`
    pub kvm: u64,
    /// as [`Tally::who`](crate::in_kernel_series::Tally::who)
    pub who: u64,
    /// how the last round went
    pub previous: Outline,
    /// flags of the open round
    pub flags: Flags,
    /// pin-control writes of the open round, by the shadow method
    pub shadow_pin_writes: u8,
    /// where it is
    pub phase: Phase,
    /// 1 when the vCPU's first entry was seen
    pub from_birth: u8,
    /// bit 0 and 1: which of `last_pin` is valid
    pub pin_seen: u8,
    reserved: [u8; 2],
    /// the VMCS of the open round
    pub loaded_vmcs: u64,
    /// shadow at the open round's kvm_entry
    pub pin_entry: u32,
    /// the same of the primary execution controls, for the calibration guest
    pub exec_entry: u32,
    /// last look at the shadow, of vmcs01 and vmcs02
    pub last_pin: [u32; 2],
    /// VM entry and VM exit of the open round by the stopwatch
    pub transition_ns: u32,
    /// one more than the place of the last round's series in TALLIES; 0 for none
    pub tally: u32,
    /// writes to the controls of vmcs01 and vmcs02 since the last kvm_exit of each
    pub writes: [Writes; 2],
    unused: [u64; 2],
}

impl VcpuState {
    /// Bytes of a state.
    pub const SIZE: usize = 128;

    /// Forgets everything but whose it is.
    #[inline(always)]
    pub fn reset(&mut self) {
        *self = Self {
            vcpu: self.vcpu,
            entry_ns: 0,
            exit_ns: 0,
            exits: 0,
            kvm: 0,
            who: 0,
            previous: Outline(0),
            loaded_vmcs: 0,
            flags: Flags::NONE,
            shadow_pin_writes: 0,
            phase: Phase::NEW,
            from_birth: 0,
            pin_seen: 0,
            reserved: [0; 2],
            pin_entry: 0,
            exec_entry: 0,
            last_pin: [0; 2],
            transition_ns: 0,
            tally: 0,
            writes: [Writes(0); 2],
            unused: [0; 2],
        };
    }

    /// The shadow at the last look at this level's VMCS.
    #[inline(always)]
    #[must_use]
    pub const fn last_pin(&self, l2: bool) -> Option<u32> {
        if l2 {
            if self.pin_seen & 2 != 0 { Some(self.last_pin[1]) } else { None }
        } else if self.pin_seen & 1 != 0 {
            Some(self.last_pin[0])
        } else {
            None
        }
    }

    /// Keeps what was seen at a look.
    #[inline(always)]
    pub const fn set_last_pin(&mut self, l2: bool, pin: u32) {
        if l2 {
            self.last_pin[1] = pin;
            self.pin_seen |= 2;
        } else {
            self.last_pin[0] = pin;
            self.pin_seen |= 1;
        }
    }
}

const _: () = assert!(size_of::<VcpuState>() == VcpuState::SIZE);
