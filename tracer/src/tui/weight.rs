//! The weight of a series: the counts and sums that rows are sorted by and shares are made of, without a look at distributions.

use std::sync::Arc;

use super::{filter::Matcher, history::Slice};
use crate::model::{
    budget::Budget,
    figures::Figure,
    knowledge::{Knowledge, Subject, TimerExits},
    series::{EntryKind, Key, Series},
};

/// Counts and sums of one or more series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// exits
    pub exits: u64,
    /// those that were followed by another entry, and so have a host time
    pub handled: u64,
    /// those of them whose detail is known
    pub detailed: u64,
    /// host time, ns
    pub host_ns: u64,
    /// of the host time: polled and idle, ns
    pub halted_ns: u64,
    /// entries whose transition is known
    pub transitions: u64,
}

impl Weight {
    /// Of a key's series.
    pub(super) fn of(key: &Key, series: &Series) -> Self {
        let Budget { host_ns, polled_ns, idle_ns, .. } = series.budget;
        let handled = series[Figure::ExitToEntry].count();
        Self {
            exits: series.entries(),
            handled,
            detailed: if key.detail.is_some() { handled } else { 0 },
            host_ns,
            halted_ns: polled_ns.saturating_add(idle_ns),
            transitions: series[Figure::Transition].count(),
        }
    }

    /// Adds another's.
    pub(super) fn add(&mut self, other: &Self) {
        let add = |mine: &mut u64, more: u64| *mine = mine.saturating_add(more);
        add(&mut self.exits, other.exits);
        add(&mut self.handled, other.handled);
        add(&mut self.detailed, other.detailed);
        add(&mut self.host_ns, other.host_ns);
        add(&mut self.halted_ns, other.halted_ns);
        add(&mut self.transitions, other.transitions);
    }
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
        for slice in slices {
            if matcher.passes_all() {
                whole.merge(slice.whole());
            } else {
                whole.merge(&Self::of_keys(slice.keys.iter().filter(|(key, _)| matcher.passes(key))));
            }
        }
        if knowledge.figure(Figure::PinWrites).is_err() {
            (whole.knows_writes, whole.dirty) = (false, 0);
        }
        if knowledge.known(Subject::Times).is_err() {
            whole.weight.host_ns = 0;
        }
        whole
    }

    /// Of some keys.
    pub(super) fn of_keys<'a>(keys: impl Iterator<Item = &'a (Key, Weight)>) -> Self {
        let mut whole = Self::default();
        for (key, weight) in keys {
            whole.weight.add(weight);
            whole.timer_exits.count(key, weight.exits);
            whole.knows_writes |= key.entry != EntryKind::Unknown;
            whole.dirty += if key.entry == EntryKind::Dirty { weight.exits } else { 0 };
        }
        whole
    }

    fn merge(&mut self, other: &Self) {
        self.weight.add(&other.weight);
        self.timer_exits.merge(&other.timer_exits);
        self.knows_writes |= other.knows_writes;
        self.dirty = self.dirty.saturating_add(other.dirty);
    }
}
