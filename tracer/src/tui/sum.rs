//! Sums of a row's series over a window.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tracer_common::{Isa, rules::TimerCause};

use super::{
    columns::{COLUMNS, Derivation, Values},
    filter::Matcher,
    history::Slice,
    node::Node,
    series_sum::SeriesSum,
};
use crate::model::series::{EntryKind, Series};

/// Sums that are remembered, at most.
const MAX_SUMS: usize = 4096;

/// Remembers sums of single intervals: a window shares all its intervals but one with the next window.
#[derive(Debug, Default)]
pub struct SumCache {
    /// by number of the interval
    sums: HashMap<(u64, Node), Sum>,
    slice: SeriesSum,
    window: SeriesSum,
}

impl SumCache {
    /// Forgets all sums but those of these intervals.
    pub fn keep<'a>(&mut self, slices: impl Iterator<Item = &'a Arc<Slice>>) {
        let numbers: HashSet<u64> = slices.map(|s| s.number).collect();
        self.sums.retain(|(number, _), _| numbers.contains(number));
    }
}

/// A node's sums over a window.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    /// seconds of observation
    pub seconds: f64,
    /// all its distributions, merged
    pub series: Series,
    /// entries with pin-control writes
    pub dirty: u64,
    /// entries whose pin-control writes are known
    pub known: u64,
    /// timer exits in the order of [`TimerCause::ALL`]
    pub timer_exits: [u64; 4],
    /// every exit was one of VMX
    pub vmx: bool,
}

impl Sum {
    /// Sums a node's series up.
    pub fn of(slices: &[Arc<Slice>], node: Node, matcher: &Matcher, cache: &mut SumCache) -> Self {
        if let [slice] = slices {
            return Self::of_slice(slice, node, matcher, &mut cache.slice);
        }
        let mut sum = Self { vmx: true, ..Self::default() };
        for slice in slices {
            if let Some(part) = cache.sums.get(&(slice.number, node)) {
                sum.add(part, &mut cache.window);
                continue;
            }
            let part = Self::of_slice(slice, node, matcher, &mut cache.slice);
            sum.add(&part, &mut cache.window);
            if cache.sums.len() < MAX_SUMS {
                cache.sums.insert((slice.number, node), part);
            }
        }
        sum.series = cache.window.take();
        sum
    }

    fn of_slice(slice: &Slice, node: Node, matcher: &Matcher, sums: &mut SeriesSum) -> Self {
        let mut sum = Self { vmx: true, seconds: slice.interval.length_ns as f64 / 1e9, ..Self::default() };
        for (key, entries) in node.keys(slice).filter(|(key, _)| matcher.passes(key)) {
            if let Some(series) = slice.interval.series.get(key) {
                sums.add(series);
            }
            sum.vmx &= key.isa == Isa::Vmx;
            if key.entry != EntryKind::Unknown {
                sum.known += entries;
                sum.dirty += if key.entry == EntryKind::Dirty { *entries } else { 0 };
            }
            if let Some(at) = key.cause.and_then(|c| TimerCause::ALL.iter().position(|&a| a == c)) {
                sum.timer_exits[at] += entries;
            }
        }
        sum.series = sums.take();
        sum
    }

    /// Adds another's counts, and its distributions to `sums`.
    fn add(&mut self, other: &Self, sums: &mut SeriesSum) {
        sums.add(&other.series);
        self.seconds += other.seconds;
        self.dirty += other.dirty;
        self.known += other.known;
        self.vmx &= other.vmx;
        for (mine, theirs) in self.timer_exits.iter_mut().zip(other.timer_exits) {
            *mine += theirs;
        }
    }

    /// Timer exits of a cause; none if an exit's cause is unknown.
    pub(super) fn timer_exits(&self, cause: TimerCause) -> Option<f64> {
        let of = |c| TimerCause::ALL.iter().zip(self.timer_exits).find(|(a, _)| **a == c).map_or(0, |(_, n)| n);
        (self.vmx && self.series.entries() > 0 && of(TimerCause::Unknown) == 0).then(|| of(cause) as f64)
    }

    /// The values of all columns.
    pub fn values(&self) -> Values {
        COLUMNS.map(|column| match column.of {
            Derivation::Stat(figure, stat) => stat.of(&self.series[figure]),
            Derivation::Sum(of) => of(self),
        })
    }
}
