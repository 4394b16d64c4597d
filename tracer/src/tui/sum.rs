//! Sums of a row's series over a window.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tracer_common::rules::TimerCause;

use super::{
    columns::{COLUMNS, Derivation, Per, Values},
    filter::Matcher,
    history::Slice,
    node::Node,
    series_sum::SeriesSum,
    weight::{Weight, Whole},
};
use crate::model::{
    budget::Phase,
    figures::{Column, Figure},
    knowledge::{Knowledge, Shown, TimerExits, Unknown},
    series::{EntryKind, Series},
};

/// Sums that are remembered, at most.
const MAX_SUMS: usize = 4096;
/// Their histogram buckets at most: 256 MB.
const MAX_SUM_BUCKETS: usize = 16 << 20;

/// Remembers sums of single intervals: a window shares all its intervals but one with the next window.
#[derive(Debug, Default)]
pub(super) struct SumCache {
    /// by number of the interval
    sums: HashMap<(u64, Node), Part>,
    /// histogram buckets of `sums`
    buckets: usize,
    slice: SeriesSum,
    window: SeriesSum,
}

impl SumCache {
    /// Forgets all sums but those of these intervals.
    pub(super) fn keep<'a>(&mut self, slices: impl Iterator<Item = &'a Arc<Slice>>) {
        let numbers: HashSet<u64> = slices.map(|s| s.number).collect();
        self.sums.retain(|(number, _), _| numbers.contains(number));
        self.buckets = self.sums.values().map(|part| part.series.buckets()).sum();
    }
}

/// A node's sums over some intervals, whether their figures are known or not.
#[derive(Clone, Debug, Default)]
struct Part {
    seconds: f64,
    series: Series,
    weight: Weight,
    dirty: u64,
    kind_known: u64,
    timer_exits: TimerExits,
}

/// A node's sums over a window, as far as they are known.
#[derive(Clone, Debug)]
pub struct Sum {
    /// seconds of observation
    pub seconds: f64,
    /// all its distributions, merged
    pub series: Shown,
    weight: Weight,
    /// share of the entries with pin-control writes among those whose writes are known; none where they are known of no entry
    pub dirty: Option<f64>,
    /// in the order of [`TimerCause::ALL`]
    timer_exits: [Result<u64, Unknown>; TimerCause::ALL.len()],
}

impl Sum {
    /// Sums a node's series up.
    pub(super) fn of(
        slices: &[Arc<Slice>],
        node: Node,
        matcher: &Matcher,
        cache: &mut SumCache,
        knowledge: &Knowledge,
    ) -> Self {
        let part = Part::of(slices, node, matcher, cache);
        Part { weight: node.weigh(part.weight), ..part }.show(knowledge)
    }

    /// Timer exits of a cause; the reason where their number is not known.
    pub(super) fn timer_exits(&self, cause: TimerCause) -> Result<u64, &Unknown> {
        self.timer_exits[cause as usize].as_ref().copied()
    }

    /// The values of all columns; shares are of the whole window.
    pub(super) fn values(&self, whole: &Whole) -> Values {
        let share = |mine: u64, all: u64| (all > 0).then(|| 100.0 * mine as f64 / all as f64);
        COLUMNS.map(|column| match column.of {
            Derivation::Stat(figure, stat) => Column::Stat(figure, stat).value(&self.series),
            Derivation::Weight(of, Per::Second) => (self.seconds > 0.0).then(|| of(&self.weight) as f64 / self.seconds),
            Derivation::Weight(of, Per::HostTime) => {
                let knows = [Phase::Polled, Phase::Idle].into_iter().all(|phase| self.series.phase(phase).is_some());
                share(of(&self.weight), self.weight.host_ns).filter(|_| knows)
            }
            Derivation::Weight(of, Per::WholeHostTime) => {
                share(of(&self.weight), of(&whole.weight)).filter(|_| self.weight.handled > 0)
            }
            Derivation::Weight(of, Per::Whole) => share(of(&self.weight), of(&whole.weight)),
            Derivation::Dirty => self.dirty.map(|share| 100.0 * share),
            Derivation::Timer(cause) => self.timer_exits(cause).ok().map(|n| n as f64),
        })
    }
}

impl Part {
    fn of(slices: &[Arc<Slice>], node: Node, matcher: &Matcher, cache: &mut SumCache) -> Self {
        if let [slice] = slices {
            return Self::of_slice(slice, node, matcher, &mut cache.slice);
        }
        let mut sum = Self::default();
        for slice in slices {
            if let Some(part) = cache.sums.get(&(slice.number, node)) {
                sum.add(part, &mut cache.window);
                continue;
            }
            let part = Self::of_slice(slice, node, matcher, &mut cache.slice);
            sum.add(&part, &mut cache.window);
            if cache.sums.len() < MAX_SUMS && cache.buckets < MAX_SUM_BUCKETS {
                cache.buckets += part.series.buckets();
                cache.sums.insert((slice.number, node), part);
            }
        }
        sum.series = cache.window.take();
        sum
    }

    fn of_slice(slice: &Slice, node: Node, matcher: &Matcher, sums: &mut SeriesSum) -> Self {
        let mut sum = Self { seconds: slice.interval.length_ns as f64 / 1e9, ..Self::default() };
        for (key, weight) in node.keys(slice).filter(|(key, _)| matcher.passes(key)) {
            if let Some(series) = slice.interval.series.get(key) {
                sums.add(series);
            }
            sum.weight.add(weight);
            if key.entry != EntryKind::Unknown {
                sum.kind_known += weight.exits;
                sum.dirty += if key.entry == EntryKind::Dirty { weight.exits } else { 0 };
            }
            sum.timer_exits.count(key, weight.exits);
        }
        sum.series = sums.take();
        sum
    }

    /// Adds another's counts, and its distributions to `sums`.
    fn add(&mut self, other: &Self, sums: &mut SeriesSum) {
        sums.add(&other.series);
        self.seconds += other.seconds;
        self.weight.add(&other.weight);
        self.dirty += other.dirty;
        self.kind_known += other.kind_known;
        self.timer_exits.merge(&other.timer_exits);
    }

    fn show(self, knowledge: &Knowledge) -> Sum {
        let Self { seconds, series, weight, dirty, kind_known, timer_exits } = self;
        let kinds = kind_known > 0 && knowledge.figure(Figure::PinWrites).is_ok();
        Sum {
            seconds,
            series: knowledge.show(series),
            weight,
            dirty: kinds.then(|| dirty as f64 / kind_known as f64),
            timer_exits: TimerCause::ALL.map(|cause| timer_exits.of(cause, knowledge)),
        }
    }
}
