//! The intervals of the last ten minutes; older ones are kept merged, for the window since the start. VMs that ended are left out of
//! that when there are too many.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, OnceLock},
};

use tracer_common::Isa;

use super::weight::{Weight, Whole};
use crate::model::{
    interval::{Interval, MAX_SERIES},
    series::Key,
};

/// Time for which intervals are kept, ns.
pub(super) const KEPT_NS: u64 = 600_000_000_000;
/// Series that are kept, at most, whatever their age.
const KEPT_SERIES: usize = 2_000_000;

/// Intervals that may come before those that are kept, after a jump.
const EARLIER: u64 = 1 << 20;

/// Series after which the rest waits for the next frame, when intervals are merged into the sum since the start. They take up to 3 µs each.
const MERGED_AT_ONCE: usize = 16_384;

/// Most of what is kept, whatever its age, and of what is done for a frame.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// series of all intervals
    kept_series: usize,
    /// histogram buckets of all intervals
    kept_buckets: usize,
    /// series since the start
    whole_series: usize,
    /// histogram buckets since the start
    whole_buckets: usize,
    /// series after which no further interval is merged for a frame
    merged_at_once: usize,
}

impl Default for Limits {
    /// Half a gigabyte for the intervals, a quarter for the sum since the start.
    fn default() -> Self {
        Self {
            kept_series: KEPT_SERIES,
            kept_buckets: 64 << 20,
            whole_series: 4 * MAX_SERIES,
            whole_buckets: 32 << 20,
            merged_at_once: MERGED_AT_ONCE,
        }
    }
}

/// An interval and its keys in order.
#[derive(Clone, Debug, Default)]
pub struct Slice {
    /// number of the interval since the start; of a merge, that of its last interval
    pub number: u64,
    /// the interval
    pub interval: Interval,
    /// its keys, ascending, with their weight
    pub keys: Vec<(Key, Weight)>,
    /// buckets of its histograms
    buckets: usize,
    /// places in `keys`, by instruction set and exit reason, as soon as these are asked for
    by_reason: OnceLock<Vec<usize>>,
    /// all its keys, as soon as this is asked for
    whole: OnceLock<Whole>,
}

impl Slice {
    fn new(number: u64, interval: Interval) -> Self {
        let mut slice = Self { number, buckets: interval.buckets(), interval, ..Self::default() };
        slice.order();
        slice
    }

    fn order(&mut self) {
        self.keys.clear();
        self.keys.extend(self.interval.series.iter().map(|(k, s)| (*k, Weight::of(k, s))));
        self.keys.sort_unstable_by_key(|(key, _)| *key);
    }

    /// Adds the interval and the keys of another slice; the number stays.
    fn merge(&mut self, other: &Self) {
        self.buckets += self.interval.grow(&other.interval);
        let mut new = Vec::new();
        let mut at = 0;
        for (key, weight) in &other.keys {
            at += self.keys[at..].iter().take_while(|(known, _)| known < key).count();
            match self.keys.get_mut(at) {
                Some((known, sum)) if known == key => sum.add(weight),
                _ => new.push((*key, *weight)),
            }
        }
        if !new.is_empty() {
            self.keys.append(&mut new);
            // Two parts that are in order: that takes a pass.
            self.keys.sort_by_key(|(key, _)| *key);
        }
        self.forget();
    }

    /// Forgets what was asked for, because it has changed.
    fn forget(&mut self) {
        self.by_reason.take();
        self.whole.take();
    }

    /// All its keys, whatever the filter.
    pub(super) fn whole(&self) -> &Whole {
        self.whole.get_or_init(|| Whole::of_keys(self.keys.iter()))
    }

    /// The keys of an exit reason, ascending: those of a VM, or of all.
    pub(super) fn of_reason(
        &self,
        isa: Isa,
        reason: Option<u32>,
        vm: Option<u32>,
    ) -> impl Iterator<Item = &(Key, Weight)> {
        let key = |at: &usize| &self.keys[*at].0;
        // Keys of a reason stay in their order, so that those of a VM are neighbours.
        let order = self.by_reason.get_or_init(|| {
            let mut order: Vec<usize> = (0..self.keys.len()).collect();
            order.sort_by_key(|at| (key(at).isa, key(at).reason));
            order
        });
        let of = |key: &Key| (key.isa, key.reason, vm.map(|_| key.vm));
        let from = order.partition_point(|at| of(key(at)) < (isa, reason, vm));
        let to = order.partition_point(|at| of(key(at)) <= (isa, reason, vm));
        order[from..to].iter().map(|at| &self.keys[*at])
    }
}

/// All intervals seen.
#[derive(Debug, Default)]
pub(super) struct History {
    kept: VecDeque<Arc<Slice>>,
    kept_ns: u64,
    kept_series: usize,
    kept_buckets: usize,
    next: u64,
    /// The merge of all intervals before number `merged`. The others are merged only when it is shown.
    whole: Arc<Slice>,
    merged: u64,
    /// by VM: number of the last interval with a series of it that is in `whole`
    last_seen: HashMap<u32, u64>,
    /// series that `whole` is without
    left_out: usize,
    /// number of the first interval
    first: u64,
    /// the lowest number that no interval had before
    unused: u64,
    limits: Limits,
}

impl History {
    /// A history without intervals whose numbers go on: no two intervals ever share a number.
    pub(super) fn emptied(&self) -> Self {
        Self::from(self.next, self.next, self.limits)
    }

    /// The same, with numbers for intervals before the next one.
    pub(super) fn emptied_for_earlier(&self) -> Self {
        Self::from(self.next + EARLIER, self.next, self.limits)
    }

    fn from(next: u64, unused: u64, limits: Limits) -> Self {
        Self { next, merged: next, first: next, unused, limits, ..Self::default() }
    }

    /// Adds an interval before all others. Returns whether there is room for it, and a number.
    pub(super) fn push_earlier(&mut self, interval: Interval) -> bool {
        let is_first = self.kept.front().map_or(self.next, |slice| slice.number) == self.first;
        if !is_first || self.first == self.unused {
            return false;
        }
        let slice = Slice::new(self.first - 1, interval);
        let (series, length_ns) = (slice.interval.series.len(), slice.interval.length_ns);
        self.kept_ns = self.kept_ns.saturating_add(length_ns);
        self.kept_series += series;
        self.kept_buckets += slice.buckets;
        if self.is_full() {
            self.kept_ns = self.kept_ns.saturating_sub(length_ns);
            self.kept_series -= series;
            self.kept_buckets -= slice.buckets;
            return false;
        }
        if self.merged == self.first {
            self.merged = slice.number;
        } else {
            Arc::make_mut(&mut self.whole).merge(&slice);
            for vm in slice.interval.vms.keys() {
                self.last_seen.entry(*vm).or_insert(slice.number);
            }
            self.leave_out();
        }
        self.first = slice.number;
        self.kept.push_front(Arc::new(slice));
        true
    }

    /// Adds an interval.
    pub(super) fn push(&mut self, interval: Interval) {
        self.kept_ns = self.kept_ns.saturating_add(interval.length_ns);
        let slice = Slice::new(self.next, interval);
        self.kept_series += slice.interval.series.len();
        self.kept_buckets += slice.buckets;
        self.kept.push_back(Arc::new(slice));
        self.next += 1;
        while self.kept.len() > 1 && self.is_full() {
            if let Some(oldest) = self.kept.pop_front() {
                self.kept_ns = self.kept_ns.saturating_sub(oldest.interval.length_ns);
                self.kept_series -= oldest.interval.series.len();
                self.kept_buckets -= oldest.buckets;
                if oldest.number >= self.merged {
                    self.add_to_whole(&oldest);
                }
            }
        }
    }

    fn is_full(&self) -> bool {
        self.kept_ns > KEPT_NS
            || self.kept_series > self.limits.kept_series
            || self.kept_buckets > self.limits.kept_buckets
    }

    /// Merges the next interval into the sum since the start.
    fn add_to_whole(&mut self, slice: &Slice) {
        let whole = Arc::make_mut(&mut self.whole);
        whole.merge(slice);
        whole.number = slice.number;
        self.merged = slice.number + 1;
        self.last_seen.extend(slice.interval.vms.keys().map(|vm| (*vm, slice.number)));
        self.leave_out();
    }

    /// Leaves VMs out of the sum since the start if it is too large: those first that had no entry for the longest time, until a
    /// quarter is free.
    fn leave_out(&mut self) {
        let (mut series, mut buckets) = (self.whole.interval.series.len(), self.whole.buckets);
        if series <= self.limits.whole_series && buckets <= self.limits.whole_buckets {
            return;
        }
        let whole = Arc::make_mut(&mut self.whole);
        let mut of_vm: HashMap<u32, (usize, usize)> = HashMap::new();
        for (key, series) in &whole.interval.series {
            let (number, buckets) = of_vm.entry(key.vm).or_default();
            *number += 1;
            *buckets += series.buckets();
        }
        let mut longest_silent: Vec<_> = self.last_seen.iter().map(|(vm, number)| (*number, *vm)).collect();
        longest_silent.sort_unstable();
        let mut gone = HashSet::new();
        for (_, vm) in longest_silent {
            if series <= self.limits.whole_series / 4 * 3 && buckets <= self.limits.whole_buckets / 4 * 3 {
                break;
            }
            let (its_series, its_buckets) = of_vm.get(&vm).copied().unwrap_or_default();
            (series, buckets) = (series - its_series, buckets - its_buckets);
            self.left_out += its_series;
            gone.insert(vm);
        }
        whole.buckets = buckets;
        whole.interval.series.retain(|key, _| !gone.contains(&key.vm));
        whole.interval.vms.retain(|vm, _| !gone.contains(vm));
        whole.keys.retain(|(key, _)| !gone.contains(&key.vm));
        whole.forget();
        self.last_seen.retain(|vm, _| !gone.contains(vm));
    }

    /// Series of VMs that the sum since the start is without; they had no entry for the longest time.
    pub(super) fn left_out(&self) -> usize {
        self.left_out
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

    /// The merge of the intervals up to number `end`, and of later ones that were merged before. So that the screen never stands still, one
    /// call merges intervals of some [`MERGED_AT_ONCE`] series; [`Self::is_behind`] says whether more are left.
    pub(super) fn since_start(&mut self, end: u64) -> Arc<Slice> {
        let mut series = 0;
        let pending = self.kept.iter().filter(|s| s.number >= self.merged && s.number <= end);
        let pending = pending.take_while(|slice| {
            let has_room = series < self.limits.merged_at_once;
            series += slice.interval.series.len();
            has_room
        });
        let pending: Vec<_> = pending.cloned().collect();
        pending.iter().for_each(|slice| self.add_to_whole(slice));
        Arc::clone(&self.whole)
    }

    /// Whether [`Self::since_start`] has not merged all intervals up to number `end` yet.
    pub(super) fn is_behind(&self, end: u64) -> bool {
        self.kept.iter().any(|s| s.number >= self.merged && s.number <= end)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::interval::{
        Vm,
        tests::{event, vm},
    };

    /// A second in which these VMs have an entry each.
    fn interval(vms: impl IntoIterator<Item = u32>) -> Interval {
        let mut interval = Interval { length_ns: 1_000_000_000, ..Interval::default() };
        vms.into_iter().for_each(|id| interval.record(&event(0, 10, 900, 0), &vm(id)));
        interval
    }

    /// Whether keys and buckets are those of the interval, although they grew with it.
    fn is_in_order(slice: &Slice) -> bool {
        let new = Slice::new(slice.number, slice.interval.clone());
        (&slice.keys, slice.buckets) == (&new.keys, new.buckets)
    }

    #[test]
    fn vms_that_ended_are_left_out_of_the_sum_when_there_are_too_many_and_counted() {
        let limits = Limits { whole_series: 100, ..Limits::default() };
        let mut history = History { limits, ..History::default() };
        for n in 0..1000 {
            // One VM lives on; the others end after a second.
            history.push(interval([0, n + 1]));
            let whole = history.since_start(n.into());
            assert!(whole.interval.series.len() <= 100 && whole.interval.vms.len() <= 100);
            assert!(is_in_order(&whole));
            assert_eq!(whole.interval.series.len() + history.left_out(), n as usize + 2);
            let entries =
                |id: u32| whole.interval.series.iter().find(|(key, _)| key.vm == id).map(|(_, s)| s.entries());
            assert_eq!((entries(0), entries(n + 1)), (Some(u64::from(n) + 1), Some(1)));
        }
        assert!(history.left_out() > 0 && history.last_seen.len() <= 100);
    }

    #[test]
    fn earlier_intervals_come_before_all_others_and_into_the_sum_since_the_start() {
        let mut history = History::default().emptied_for_earlier();
        history.push(interval([0, 1]));
        let newest = history.newest().unwrap();
        let entries = |whole: &Arc<Slice>| whole.interval.series.values().map(|series| series.entries()).sum::<u64>();
        // Before the sum is made, and after.
        assert!(history.push_earlier(interval([0])));
        assert_eq!(entries(&history.since_start(newest)), 3);
        assert!(history.push_earlier(interval([0, 1, 2, 3])));
        history.push(interval([1]));
        assert_eq!(entries(&history.since_start(newest + 1)), 8);
        assert!(is_in_order(&history.since_start(newest + 1)));
        assert_eq!(history.count_to(newest + 1), 4);
        let numbers: Vec<_> = history.slices().map(|slice| slice.number).collect();
        assert_eq!(numbers, [newest - 2, newest - 1, newest, newest + 1]);
        assert_eq!(history.window(2.0, newest).len(), 2);
        // Not of a user who forgets all, nor where older ones are gone.
        let mut emptied = history.emptied();
        emptied.push(interval([0]));
        assert!(!emptied.push_earlier(interval([0])));
        let long = Interval { length_ns: KEPT_NS, ..interval([0]) };
        assert!(!history.push_earlier(long.clone()));
        history.push(long);
        assert!(!history.push_earlier(interval([0])));
        assert_eq!(history.slices().count(), 1);
        assert_eq!(entries(&history.since_start(newest + 2)), 9);
    }

    #[test]
    fn a_vm_that_alone_is_too_large_is_left_out_too() {
        let limits = Limits { whole_buckets: 50, ..Limits::default() };
        let mut history = History { limits, ..History::default() };
        let wide = |seed: u64| {
            let mut interval = interval([]);
            (0..30)
                .for_each(|n| interval.record(&event(0, 10, 1000 + (2 * n + seed) * 8, 0), &Arc::new(Vm::default())));
            interval
        };
        history.push(wide(0));
        history.push(wide(1));
        assert!(history.since_start(1).interval.buckets() <= 50);
        assert_eq!(history.left_out(), 1);
    }

    #[test]
    fn a_frame_merges_so_many_series_and_the_next_ones_catch_up() {
        let limits = Limits { merged_at_once: 10, ..Limits::default() };
        let mut history = History { limits, ..History::default() };
        (0..30).for_each(|_| history.push(interval(0..4)));
        let entries = |whole: &Arc<Slice>| whole.interval.series.values().map(|series| series.entries()).sum::<u64>();
        let mut frames = Vec::new();
        while history.is_behind(29) {
            frames.push(entries(&history.since_start(29)));
        }
        assert_eq!(frames, (1..=10).map(|frame| frame * 3 * 4).collect::<Vec<_>>());
        assert_eq!(entries(&history.since_start(29)), 120);
        assert!(is_in_order(&history.since_start(29)));
        // At least one, however large it is.
        history.push(interval(0..1000));
        assert_eq!((entries(&history.since_start(30)), history.is_behind(30)), (1120, false));
    }

    #[test]
    fn intervals_of_many_buckets_are_kept_for_a_shorter_time_and_stay_in_the_sum() {
        let limits = Limits { kept_buckets: 100, ..Limits::default() };
        let mut history = History { limits, ..History::default() };
        (0..1000).for_each(|_| history.push(interval(0..5)));
        assert!(history.kept_buckets <= 100 && history.slices().count() < 50);
        assert_eq!(history.since_start(999).interval.series.values().map(|s| s.entries()).sum::<u64>(), 5000);
    }
}
