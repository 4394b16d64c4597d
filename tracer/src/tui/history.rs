//! The intervals of the last ten minutes; older ones are kept merged, for the window since the start.

use std::{collections::VecDeque, sync::Arc};

use crate::model::{interval::Interval, series::Key};

/// Time for which intervals are kept, ns.
pub(super) const KEPT_NS: u64 = 600_000_000_000;
/// Series that are kept, at most, whatever their age: about a gigabyte.
pub(super) const KEPT_SERIES: usize = 2_000_000;

/// An interval and its keys in order.
#[derive(Clone, Debug, Default)]
pub struct Slice {
    /// number of the interval since the start; of a merge, that of its last interval
    pub number: u64,
    /// the interval
    pub interval: Interval,
    /// its keys, ascending, with their entries
    pub keys: Vec<(Key, u64)>,
}

impl Slice {
    fn new(number: u64, interval: Interval) -> Self {
        let mut slice = Self { number, interval, keys: Vec::new() };
        slice.order();
        slice
    }

    fn order(&mut self) {
        self.keys.clear();
        self.keys.extend(self.interval.series.iter().map(|(k, s)| (*k, s.entries())));
        self.keys.sort_unstable();
    }
}

/// All intervals seen.
#[derive(Debug, Default)]
pub(super) struct History {
    kept: VecDeque<Arc<Slice>>,
    kept_ns: u64,
    kept_series: usize,
    next: u64,
    /// The merge of all intervals before number `merged`. The others are merged only when it is shown.
    whole: Arc<Slice>,
    merged: u64,
    /// number of the first interval
    first: u64,
}

impl History {
    /// A history without intervals whose numbers go on: no two intervals ever share a number.
    pub(super) fn emptied(&self) -> Self {
        Self { next: self.next, merged: self.next, first: self.next, ..Self::default() }
    }

    /// Adds an interval.
    pub(super) fn push(&mut self, interval: Interval) {
        self.kept_ns = self.kept_ns.saturating_add(interval.length_ns);
        self.kept_series += interval.series.len();
        self.kept.push_back(Arc::new(Slice::new(self.next, interval)));
        self.next += 1;
        while self.kept.len() > 1 && (self.kept_ns > KEPT_NS || self.kept_series > KEPT_SERIES) {
            if let Some(oldest) = self.kept.pop_front() {
                self.kept_ns = self.kept_ns.saturating_sub(oldest.interval.length_ns);
                self.kept_series -= oldest.interval.series.len();
                if oldest.number >= self.merged {
                    let whole = Arc::make_mut(&mut self.whole);
                    whole.interval.merge(&oldest.interval);
                    whole.keys.clear();
                    self.merged = oldest.number + 1;
                }
            }
        }
    }

    /// Number of the newest interval; none before the first.
    pub(super) fn newest(&self) -> Option<u64> {
        self.kept.back().map(|s| s.number)
    }

    /// Number of the oldest interval that is kept.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.kept.front().map(|s| s.number)
    }

    /// How many intervals there were up to a number, with that one.
    pub(super) fn count_to(&self, number: u64) -> u64 {
        (number + 1).saturating_sub(self.first)
    }

    /// The intervals that are kept, oldest first.
    pub(super) fn slices(&self) -> impl DoubleEndedIterator<Item = &Arc<Slice>> {
        self.kept.iter()
    }

    /// The intervals of the last `seconds` up to number `end`, oldest first: at least one, if there is one.
    pub(super) fn window(&self, seconds: f64, end: u64) -> Vec<Arc<Slice>> {
        let mut taken = 0.0;
        let mut slices: Vec<_> = self
            .kept
            .iter()
            .rev()
            .skip_while(|s| s.number > end)
            .take_while(|s| {
                let length = s.interval.length_ns as f64 / 1e9;
                // An interval belongs to the window when most of it does.
                let inside = taken == 0.0 || taken + length / 2.0 <= seconds;
                taken += length.max(f64::MIN_POSITIVE);
                inside
            })
            .cloned()
            .collect();
        slices.reverse();
        slices
    }

    /// The merge of all intervals up to number `end`, and of later ones that were merged before.
    pub(super) fn since_start(&mut self, end: u64) -> Arc<Slice> {
        let pending: Vec<_> =
            self.kept.iter().filter(|s| s.number >= self.merged && s.number <= end).cloned().collect();
        if !pending.is_empty() || self.whole.keys.is_empty() {
            let whole = Arc::make_mut(&mut self.whole);
            pending.iter().for_each(|s| whole.interval.merge(&s.interval));
            whole.order();
            self.merged = self.merged.max(pending.last().map_or(0, |s| s.number + 1));
            whole.number = self.merged.saturating_sub(1);
        }
        Arc::clone(&self.whole)
    }
}
