//! The weight of a series: the counts and sums that rows are sorted by and shares are made of, without a look at distributions.

use std::sync::Arc;

use super::{filter::Matcher, history::Slice};
use crate::model::{
    figures::Figure,
    histogram::Histogram,
    knowledge::{Knowledge, TimerExits},
    series::{EntryKind, Series},
};

/// Counts and sums of one or more series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// exits
    pub exits: u64,
    /// host time, ns
    pub host_ns: u64,
    /// entries whose transition is known
    pub transitions: u64,
}

impl Weight {
    /// Of a series.
    pub(super) fn of(series: &Series) -> Self {
        Self {
            exits: series.entries(),
            host_ns: total_ns(&series[Figure::ExitToEntry]),
            transitions: series[Figure::Transition].count(),
        }
    }

    /// Adds another's.
    pub(super) fn add(&mut self, other: &Self) {
        self.exits = self.exits.saturating_add(other.exits);
        self.host_ns = self.host_ns.saturating_add(other.host_ns);
        self.transitions = self.transitions.saturating_add(other.transitions);
    }
}

/// The sum of times, ns, to the precision of buckets.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and `as` saturates")]
pub(super) fn total_ns(times: &Histogram) -> u64 {
    times.mean().map_or(0, |mean| (mean * times.count() as f64) as u64)
}

/// Everything in a window that passes the filter: shares are of it, and a column without values in it is not shown.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Whole {
    /// counts and sums
    pub(super) weight: Weight,
    /// timer exits by cause
    pub(super) timer_exits: TimerExits,
    /// whether the pin-control writes of some entry are known
    pub(super) knows_writes: bool,
    /// entries with pin-control writes
    pub(super) dirty: u64,
}

impl Whole {
    /// Of a window.
    pub(super) fn of(slices: &[Arc<Slice>], matcher: &Matcher, knowledge: &Knowledge) -> Self {
        let mut whole = Self::default();
        for (key, weight) in slices.iter().flat_map(|slice| &slice.keys).filter(|(key, _)| matcher.passes(key)) {
            whole.weight.add(weight);
            whole.timer_exits.count(key, weight.exits);
            whole.knows_writes |= key.entry != EntryKind::Unknown;
            whole.dirty += if key.entry == EntryKind::Dirty { weight.exits } else { 0 };
        }
        if knowledge.figure(Figure::PinWrites).is_err() {
            (whole.knows_writes, whole.dirty) = (false, 0);
        }
        if knowledge.figure(Figure::ExitToEntry).is_err() {
            whole.weight.host_ns = 0;
        }
        whole
    }
}
