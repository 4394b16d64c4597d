//! Sums of one VM, which become samples.

use std::{borrow::Cow, collections::BTreeMap};

use super::{
    distribution::Distribution,
    family::{Labels, Sample, Value},
    metrics::{self, Metric},
};
use crate::model::{
    budget::Budget,
    figures::Figure,
    knowledge::TimerExits,
    series::{EntryKind, Key, Level, Series},
};

/// Name of an exit reason.
pub(super) type Reason = Cow<'static, str>;
/// A VM's histogram: level, exit reason, figure of [`HISTOGRAMS`], and, if the figure has histograms of its own for each, clean or dirty. In
/// this order, because a series needs all histograms of its exit reason.
pub(super) type Place = (Level, Reason, Figure, Option<EntryKind>);

/// A figure that is exported as a histogram.
pub(super) struct Exported {
    pub(super) figure: Figure,
    pub(super) metric: &'static Metric,
}

/// The figures that are exported as histograms.
pub(super) const HISTOGRAMS: [Exported; 2] = [
    Exported { figure: Figure::EntryToExit, metric: &metrics::ENTRY_TO_EXIT },
    Exported { figure: Figure::ExitToEntry, metric: &metrics::EXIT_TO_ENTRY },
];

/// The histograms that a series counts in.
pub(super) fn places(key: &Key, reason: &Reason, series: &Series) -> impl Iterator<Item = Place> {
    let figures = HISTOGRAMS.iter().map(|h| h.figure).filter(|figure| series[*figure].count() > 0);
    figures.map(|figure| {
        // Clean and dirty entries are kept apart; a handled exit is neither.
        let entry = (!figure.counts_exits()).then_some(key.entry);
        (key.level, reason.clone(), figure, entry)
    })
}

/// Durations since a moment.
#[derive(Debug)]
pub(super) struct Durations {
    /// start of counting, ns since the epoch
    created_ns: u64,
    distribution: Distribution,
}

impl Durations {
    /// As a sample.
    pub(super) fn sample<'a>(&'a self, labels: Labels<'a>) -> Sample<'a> {
        Sample { labels, value: Value::Histogram(&self.distribution), created_ns: Some(self.created_ns) }
    }
}

/// One VM's sums.
#[derive(Debug, Default)]
pub(super) struct Sums {
    /// start of counting, ns since the epoch
    pub(super) created_ns: u64,
    /// time of the last interval with an entry, CLOCK_MONOTONIC, ns
    pub(super) last_entry_ns: u64,
    pub(super) entries: BTreeMap<(Level, EntryKind), u64>,
    /// number of writes, and of entries whose writes are known
    pub(super) pin_writes: BTreeMap<Level, (u64, u64)>,
    pub(super) timer_exits: TimerExits,
    pub(super) histograms: BTreeMap<Place, Durations>,
    /// times, by the exit reason
    pub(super) budgets: BTreeMap<Reason, Budget>,
    /// exits by what they were about, at most [`MOST_DETAILS`] and "other" of an exit reason
    pub(super) details: BTreeMap<Reason, BTreeMap<String, DetailSum>>,
}

/// Details of an exit reason that have samples of their own.
const MOST_DETAILS: usize = 10;
/// The details beyond them.
const OTHER_DETAILS: &str = "other";

/// Exits of one detail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DetailSum {
    pub(super) exits: u64,
    /// host time, ns
    pub(super) host_ns: u64,
}

impl Sums {
    /// Adds a series that was counted since `created_ns`, ns since the epoch.
    pub(super) fn add(&mut self, key: &Key, reason: &Reason, series: &Series, created_ns: u64) {
        let entries = series.entries();
        if entries > 0 {
            grow(self.entries.entry((key.level, key.entry)).or_default(), entries);
        }
        for place in places(key, reason, series) {
            let values = &series[place.2];
            let sum_ns = if place.2.counts_exits() { series.budget.host_ns } else { series.budget.guest_ns };
            let new = || Durations { created_ns, distribution: Distribution::default() };
            self.histograms.entry(place).or_insert_with(new).distribution.add(values, sum_ns);
        }
        if series[Figure::PinWrites].count() > 0 {
            let (writes, known) = self.pin_writes.entry(key.level).or_default();
            grow(writes, series[Figure::PinWrites].sum());
            grow(known, series[Figure::PinWrites].count());
        }
        self.timer_exits.count(key, entries);
        self.budgets.entry(reason.clone()).or_default().merge(&series.budget);
        if let Some(detail) = key.detail {
            let details = self.details.entry(reason.clone()).or_default();
            let name = detail.to_string();
            let has_place = details.contains_key(&name) || details.len() < MOST_DETAILS;
            let sum = details.entry(if has_place { name } else { OTHER_DETAILS.into() }).or_default();
            grow(&mut sum.exits, series[Figure::ExitToEntry].count());
            grow(&mut sum.host_ns, series.budget.host_ns);
        }
    }

    /// Forgets a histogram, and everything of its exit reason with the last one.
    pub(super) fn forget(&mut self, place: &Place) {
        self.histograms.remove(place);
        let (_, reason, ..) = place;
        if self.histograms.keys().all(|(_, other, ..)| other != reason) {
            self.budgets.remove(reason);
            self.details.remove(reason);
        }
    }

    /// Number of entries.
    pub(super) fn all_entries(&self) -> u64 {
        self.entries.values().fold(0, |sum, n| sum.saturating_add(*n))
    }
}

pub(super) fn grow(mine: &mut u64, more: u64) {
    *mine = mine.saturating_add(more);
}
