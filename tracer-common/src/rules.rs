//! The decisions of the programs, as pure functions.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::low32;

/// Why a VMX-preemption timer expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimerCause {
    /// the guest's timer reached its deadline; where deadlines cannot be read, it may have been early
    Deadline,
    /// KVM forced an exit before the first guest instruction
    Immediate,
    /// the timer was soft-disabled and expired nevertheless
    Spurious,
    /// the guest's timer expired before its deadline, by more than [`EARLY_MARGIN_NS`](crate::clock::EARLY_MARGIN_NS): erratum EMR158
    Early,
    /// cannot be read on this kernel
    Unknown,
}

impl TimerCause {
    /// Every cause.
    pub const ALL: [TimerCause; 5] =
        [TimerCause::Deadline, TimerCause::Immediate, TimerCause::Spurious, TimerCause::Early, TimerCause::Unknown];

    /// The cause, from the timer's soft-disabled state, kvm_entry's `force_immediate_exit`, and whether the deadline was read and not due.
    /// KVM checks the first two in this order (`handle_fastpath_preemption_timer`, commit 804939ea20).
    #[must_use]
    pub const fn of(soft_disabled: Option<bool>, immediate: Option<bool>, is_early: bool) -> Self {
        match (soft_disabled, immediate) {
            (Some(true), _) => Self::Spurious,
            (Some(false), Some(true)) => Self::Immediate,
            (Some(false), Some(false)) if is_early => Self::Early,
            (Some(false), Some(false)) => Self::Deadline,
            _ => Self::Unknown,
        }
    }

    /// Lower-case name, as in reports and files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Immediate => "immediate",
            Self::Spurious => "spurious",
            Self::Early => "early",
            Self::Unknown => "unknown",
        }
    }
}

/// Relation between a vCPU at its kvm_entry and the state kept for its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// the first entry of a new vCPU: its past is empty
    Born,
    /// a vCPU that ran before it was first seen, or that reuses the address of a dead one: its past is unknown
    Stranger,
    /// the vCPU that the state belongs to
    Same,
}

/// Decides whether the state kept for an address still belongs to the vCPU there. `exits` is its `stat.exits` now (none where the kernel
/// has no such field), `last` the value at the previous kvm_entry seen (none without one).
#[must_use]
#[inline(always)]
pub const fn age(exits: Option<u64>, last: Option<u64>) -> Age {
    match (exits, last) {
        (Some(0), _) => Age::Born,
        (Some(now), Some(before)) if now >= before => Age::Same,
        (None, Some(_)) => Age::Same,
        _ => Age::Stranger,
    }
}

/// Pin-control writes since the shadow was last read: 1 where it has changed, because KVM writes the field only when its shadow differs.
/// `last` is the shadow when last read. Without it the VMCS of a vCPU that was seen from its birth starts at 0 (a first value other than
/// 0 is one write); for any other vCPU the result is none, not known.
///
/// Misses two writes between two reads that cancel each other out.
#[must_use]
#[inline(always)]
pub const fn pin_writes(last: Option<u32>, now: u32, seen_from_birth: bool) -> Option<u8> {
    match last {
        Some(last) => Some((last != now) as u8),
        None if seen_from_birth => Some((now != 0) as u8),
        None => None,
    }
}

/// ns per TSC cycle times 2^22, for a TSC frequency in kHz ([`Slot::TscToNs`](crate::Slot::TscToNs)); none where it does not fit.
#[must_use]
pub const fn tsc_to_ns_factor(khz: u32) -> Option<u32> {
    if khz == 0 {
        return None;
    }
    let factor = ((1_000_000_u64 << 22) + khz as u64 / 2) / khz as u64;
    if factor <= u32::MAX as u64 { Some(low32(factor)) } else { None }
}

/// TSC cycles as ns, accurate to 1 ppm up to 4 GHz.
#[inline(always)]
const fn tsc_to_ns(cycles: u32, factor: u32) -> u64 {
    (cycles as u64 * factor as u64) >> 22
}

/// VM-entry plus VM-exit, ns: `total` TSC cycles from right before the VM-entry to right after the VM-exit, minus the guest's `guest`
/// cycles. These are counted in steps of 2^rate: none where they exceed the total. Saturates at `u32::MAX`.
#[must_use]
#[inline(always)]
pub const fn transition_ns(total: u64, guest: u64, factor: u32) -> Option<u32> {
    let Some(cycles) = total.checked_sub(guest) else { return None };
    Some(saturating_u32(tsc_to_ns(saturating_u32(cycles), factor)))
}

#[inline(always)]
const fn saturating_u32(value: u64) -> u32 {
    if value > u32::MAX as u64 { u32::MAX } else { low32(value) }
}

macro_rules! controls {
    ($($(#[$doc:meta])* $control:ident = $encoding:literal $name:literal,)+) => {
        /// A VMCS control whose shadow KVM keeps, by its SDM name and encoding (vol. 3, appendix B). Its number is its lane in [`Writes`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Control { $($(#[$doc])* $control,)+ }

        impl Control {
            /// Every control, in the order of the lanes.
            pub const ALL: [Control; [$($encoding,)+].len()] = [$(Self::$control,)+];

            /// Name in reports and files.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$control => $name,)+ }
            }

            /// Encoding of the VMCS field.
            #[must_use]
            pub const fn encoding(self) -> u32 {
                match self { $(Self::$control => $encoding,)+ }
            }

            /// The control of a VMCS field; none for every other field.
            #[must_use]
            #[inline(always)]
            pub const fn from_encoding(field: u32) -> Option<Self> {
                match field { $($encoding => Some(Self::$control),)+ _ => None }
            }
        }
    };
}

controls! {
    /// pin-based VM-execution controls
    Pin = 0x4000 "pin",
    /// primary processor-based VM-execution controls
    Exec = 0x4002 "exec",
    /// secondary processor-based VM-execution controls
    Secondary = 0x401e "secondary",
    /// tertiary processor-based VM-execution controls
    Tertiary = 0x2034 "tertiary",
    /// VM-entry controls
    VmEntry = 0x4012 "vm_entry",
    /// VM-exit controls
    VmExit = 0x400c "vm_exit",
}

/// Counts of the control writes of one round, a byte per [`Control`]; a count saturates at 255.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(transparent)]
pub struct Writes(pub u64);

impl Writes {
    /// With one more write to a control.
    #[must_use]
    #[inline(always)]
    pub const fn plus(self, control: Control) -> Self {
        let shift = control as u32 * 8;
        if (self.0 >> shift) & 0xff == 0xff { self } else { Self(self.0 + (1 << shift)) }
    }

    /// Writes to a control.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "takes the control's byte")]
    pub const fn of(self, control: Control) -> u8 {
        (self.0 >> (control as u32 * 8)) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_soft_disabled_timer_is_spurious_whatever_else_holds() {
        for immediate in [None, Some(false), Some(true)] {
            assert_eq!(TimerCause::of(Some(true), immediate, false), TimerCause::Spurious);
        }
    }

    #[test]
    fn a_cause_that_cannot_be_read_is_unknown() {
        assert_eq!(TimerCause::of(None, Some(true), false), TimerCause::Unknown);
        assert_eq!(TimerCause::of(Some(false), None, true), TimerCause::Unknown);
        assert_eq!(TimerCause::of(Some(false), Some(true), true), TimerCause::Immediate);
        assert_eq!(TimerCause::of(Some(false), Some(false), false), TimerCause::Deadline);
        assert_eq!(TimerCause::of(Some(false), Some(false), true), TimerCause::Early);
    }

    #[test]
    fn a_state_stays_with_its_address_only_while_the_exits_do_not_decrease() {
        assert_eq!(age(Some(0), None), Age::Born);
        assert_eq!(age(Some(0), Some(17)), Age::Born);
        assert_eq!(age(Some(5), None), Age::Stranger);
        assert_eq!(age(Some(5), Some(17)), Age::Stranger);
        assert_eq!(age(Some(18), Some(17)), Age::Same);
        assert_eq!(age(Some(17), Some(17)), Age::Same);
        assert_eq!(age(None, None), Age::Stranger);
        assert_eq!(age(None, Some(17)), Age::Same);
    }

    #[test]
    fn a_first_shadow_other_than_zero_is_one_write_only_for_a_vcpu_seen_from_birth() {
        assert_eq!(pin_writes(None, 0x7f, true), Some(1));
        assert_eq!(pin_writes(None, 0, true), Some(0));
        assert_eq!(pin_writes(None, 0x7f, false), None);
        assert_eq!(pin_writes(Some(0x3f), 0x7f, false), Some(1));
        assert_eq!(pin_writes(Some(0x7f), 0x7f, false), Some(0));
    }

    #[test]
    #[expect(clippy::cast_precision_loss, reason = "less than 2^53 ns")]
    fn cycles_convert_to_nanoseconds_within_1_ppm() {
        for khz in [100_000, 1_000_000, 2_399_997, 4_000_000] {
            let factor = tsc_to_ns_factor(khz).unwrap();
            let ns = tsc_to_ns(3_000_000_000, factor);
            let exact = 3e15 / f64::from(khz);
            assert!((ns as f64 - exact).abs() <= exact / 1e6, "{khz} kHz: {ns} instead of {exact}");
        }
        assert_eq!((tsc_to_ns_factor(0), tsc_to_ns_factor(1)), (None, None));
    }

    #[test]
    fn a_transition_is_the_total_without_the_guests_cycles() {
        let factor = tsc_to_ns_factor(1_000_000).unwrap();
        assert_eq!(transition_ns(5_000_700, 5_000_000, factor), Some(700));
        assert_eq!(transition_ns(31, 32, factor), None, "the guest's cycles are counted in steps of 2^rate");
        assert_eq!(transition_ns(u64::MAX, 0, factor), Some(u32::MAX));
    }

    #[test]
    fn controls_are_counted_separately_and_never_overflow_into_each_other() {
        use Control::{Exec, Pin, Secondary, VmExit};
        let mut writes = Writes::default();
        for _ in 0..300 {
            writes = writes.plus(Pin);
        }
        writes = writes.plus(Exec).plus(VmExit).plus(VmExit);
        assert_eq!([Pin, Exec, Secondary, VmExit].map(|control| writes.of(control)), [255, 1, 0, 2]);
        for (lane, control) in Control::ALL.into_iter().enumerate() {
            assert_eq!((Control::from_encoding(control.encoding()), control as usize), (Some(control), lane));
        }
        assert_eq!(Control::from_encoding(0x482e), None);
    }
}
