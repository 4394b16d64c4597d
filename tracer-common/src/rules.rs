//! The decisions of the programs, as pure functions.

/// Why a VMX-preemption timer ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimerCause {
    /// the guest's timer was due
    Deadline,
    /// KVM asked for an exit before the first guest instruction
    Immediate,
    /// the timer was soft-disabled and ran out all the same
    Spurious,
    /// this kernel does not tell
    Unknown,
}

impl TimerCause {
    /// Every cause.
    pub const ALL: [TimerCause; 4] =
        [TimerCause::Deadline, TimerCause::Immediate, TimerCause::Spurious, TimerCause::Unknown];

    /// The cause, from the timer's soft-disabled state and from kvm_entry's `force_immediate_exit`. KVM looks at them in
    /// this order (`handle_fastpath_preemption_timer`, commit 804939ea20).
    #[must_use]
    pub const fn of(soft_disabled: Option<bool>, immediate: Option<bool>) -> Self {
        match (soft_disabled, immediate) {
            (Some(true), _) => Self::Spurious,
            (Some(false), Some(true)) => Self::Immediate,
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
            Self::Unknown => "unknown",
        }
    }
}

/// What a kvm_entry says about the state kept under its vCPU's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// the first entry of a new vCPU: nothing happened before it
    Born,
    /// a vCPU that ran before it was first seen, or took a dead one's address: its past is unknown
    Stranger,
    /// the vCPU that was seen before
    Same,
}

/// Tells whether the state kept for an address still belongs to the vCPU there. `exits` is its `stat.exits` now (none where
/// the kernel has no such field), `last` what it was at the previous kvm_entry seen (none without state).
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

/// Pin-control writes that one look at the shadow reveals: KVM writes the field only when its shadow differs. `last` is the
/// shadow at the previous look; without one, a VMCS of a vCPU that was seen from its birth starts at 0 ("first seen, not 0" is
/// one write), and of any other nothing is known.
///
/// Two writes between two looks that cancel out are missed.
#[must_use]
#[inline(always)]
pub const fn pin_writes(last: Option<u32>, now: u32, seen_from_birth: bool) -> Option<u8> {
    match last {
        Some(last) => Some((last != now) as u8),
        None if seen_from_birth => Some((now != 0) as u8),
        None => None,
    }
}

/// [`Slot::TscToNs`](crate::Slot::TscToNs) of a TSC of so many kHz; none where it would not fit.
#[must_use]
pub const fn tsc_to_ns_factor(khz: u32) -> Option<u32> {
    if khz == 0 {
        return None;
    }
    let factor = ((1_000_000_u64 << 22) + khz as u64 / 2) / khz as u64;
    if factor <= u32::MAX as u64 { Some(factor as u32) } else { None }
}

/// TSC cycles as ns; true to a millionth up to 4 GHz.
#[must_use]
#[inline(always)]
pub const fn tsc_to_ns(cycles: u32, factor: u32) -> u64 {
    (cycles as u64 * factor as u64) >> 22
}

/// ns of VM entry and VM exit: `total` cycles from right before the one to right after the other, less `guest` cycles between them.
/// The guest's count is by 2^rate cycles: none where it is above the total. Stays at `u32::MAX`.
#[must_use]
#[inline(always)]
pub const fn transition_ns(total: u64, guest: u64, factor: u32) -> Option<u32> {
    let Some(cycles) = total.checked_sub(guest) else { return None };
    let cycles = if cycles > u32::MAX as u64 { u32::MAX } else { cycles as u32 };
    let ns = tsc_to_ns(cycles, factor);
    Some(if ns > u32::MAX as u64 { u32::MAX } else { ns as u32 })
}

/// The VMCS controls whose writes KVM shadows, in the order of their lanes: SDM names and encodings (vol. 3, appendix B).
pub const CONTROLS: [(&str, u32); 6] = [
    ("pin", 0x4000),
    ("exec", 0x4002),
    ("secondary", 0x401e),
    ("tertiary", 0x2034),
    ("vm_entry", 0x4012),
    ("vm_exit", 0x400c),
];

/// Lane of a VMCS field in [`Writes`]; none for every other field.
#[must_use]
#[inline(always)]
pub const fn lane(field: u32) -> Option<u32> {
    match field {
        0x4000 => Some(0),
        0x4002 => Some(1),
        0x401e => Some(2),
        0x2034 => Some(3),
        0x4012 => Some(4),
        0x400c => Some(5),
        _ => None,
    }
}

/// Counts of control writes of one round, a byte each; a count stays at 255.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Writes(pub u64);

impl Writes {
    /// With one more write of a lane, 0 to 7.
    #[must_use]
    #[inline(always)]
    pub const fn plus(self, lane: u32) -> Self {
        let shift = (lane & 7) * 8;
        if (self.0 >> shift) & 0xff == 0xff { self } else { Self(self.0 + (1 << shift)) }
    }

    /// Writes of a lane, 0 to 7.
    #[must_use]
    #[inline(always)]
    pub const fn of(self, lane: u32) -> u8 {
        (self.0 >> ((lane & 7) * 8)) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_soft_disabled_timer_is_spurious_whatever_else_holds() {
        for immediate in [None, Some(false), Some(true)] {
            assert_eq!(TimerCause::of(Some(true), immediate), TimerCause::Spurious);
        }
    }

    #[test]
    fn a_cause_that_cannot_be_told_is_unknown() {
        assert_eq!(TimerCause::of(None, Some(true)), TimerCause::Unknown);
        assert_eq!(TimerCause::of(Some(false), None), TimerCause::Unknown);
        assert_eq!(TimerCause::of(Some(false), Some(true)), TimerCause::Immediate);
        assert_eq!(TimerCause::of(Some(false), Some(false)), TimerCause::Deadline);
    }

    #[test]
    fn an_address_is_trusted_only_while_its_exits_grow() {
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
    fn the_first_look_counts_one_write_for_a_vmcs_seen_from_birth_only() {
        assert_eq!(pin_writes(None, 0x7f, true), Some(1));
        assert_eq!(pin_writes(None, 0, true), Some(0));
        assert_eq!(pin_writes(None, 0x7f, false), None);
        assert_eq!(pin_writes(Some(0x3f), 0x7f, false), Some(1));
        assert_eq!(pin_writes(Some(0x7f), 0x7f, false), Some(0));
    }

    #[test]
    fn cycles_are_true_to_a_millionth_in_nanoseconds() {
        for khz in [100_000, 1_000_000, 2_399_997, 4_000_000] {
            let factor = tsc_to_ns_factor(khz).unwrap();
            let ns = tsc_to_ns(3_000_000_000, factor);
            let exact = 3e15 / f64::from(khz);
            assert!((ns as f64 - exact).abs() <= exact / 1e6, "{khz} kHz: {ns} instead of {exact}");
        }
        assert_eq!((tsc_to_ns_factor(0), tsc_to_ns_factor(1)), (None, None));
    }

    #[test]
    fn a_transition_is_what_the_guest_did_not_run() {
        let factor = tsc_to_ns_factor(1_000_000).unwrap();
        assert_eq!(transition_ns(5_000_700, 5_000_000, factor), Some(700));
        assert_eq!(transition_ns(31, 32, factor), None, "the guest's count is by 2^rate cycles");
        assert_eq!(transition_ns(u64::MAX, 0, factor), Some(u32::MAX));
    }

    #[test]
    fn lanes_are_counted_apart_and_never_overflow_into_each_other() {
        let mut writes = Writes::default();
        for _ in 0..300 {
            writes = writes.plus(0);
        }
        writes = writes.plus(1).plus(5).plus(5);
        assert_eq!([0, 1, 2, 5].map(|l| writes.of(l)), [255, 1, 0, 2]);
        for (at, (_, field)) in CONTROLS.iter().enumerate() {
            assert_eq!(lane(*field), Some(at as u32));
        }
        assert_eq!(lane(0x482e), None);
    }
}
