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
}
