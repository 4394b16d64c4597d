//! Adds intervals up: the same sums as [`Interval::merge`], at a fraction of its time, for thousands of intervals.

use std::collections::{HashMap, hash_map::Entry};

use indexmap::IndexMap;

use super::{
    budget::Budget,
    figures::Figure,
    interval::Interval,
    running_histogram::RunningHistogram,
    series::{Key, Series},
};

/// Histogram buckets of intervals that are added together: a sum is read from memory for all of them at once, 8 MB.
const AT_ONCE: usize = 1 << 20;

/// A sum of intervals with the same numbering of VMs.
pub(crate) struct IntervalSum {
    /// the key under which a series is added
    kept: fn(Key) -> Key,
    /// all but the series
    counts: Interval,
    series: HashMap<Key, SeriesSum>,
    held: usize,
    /// series of intervals that are to be added, and their histogram buckets
    pending: Vec<IndexMap<Key, Series>>,
    pending_buckets: usize,
}

struct SeriesSum {
    distributions: [RunningHistogram; Figure::ALL.len()],
    budget: Budget,
}

impl IntervalSum {
    /// A sum that has each series under the key that `kept` makes of its own.
    pub(crate) fn new(kept: fn(Key) -> Key) -> Self {
        let (counts, series, pending) = Default::default();
        Self { kept, counts, series, held: 0, pending, pending_buckets: 0 }
    }

    /// Adds an interval.
    pub(crate) fn add(&mut self, interval: Interval) {
        self.counts.merge_counts(&interval, self.series.is_empty() && self.pending.is_empty());
        self.pending_buckets += interval.buckets();
        if !interval.series.is_empty() {
            self.pending.push(interval.series);
        }
        if self.pending_buckets > AT_ONCE {
            self.add_pending();
        }
    }

    fn add_pending(&mut self) {
        self.pending_buckets = 0;
        let mut pending = std::mem::take(&mut self.pending).into_iter();
        while let Some(interval) = pending.next() {
            // Those that were added with an interval before are empty.
            for (key, series) in interval.into_iter().filter(|(_, series)| !series.is_empty()) {
                let sum = match self.series.entry((self.kept)(key)) {
                    Entry::Vacant(place) => {
                        let sum = place.insert(SeriesSum::of(series));
                        self.held += sum.held();
                        sum
                    }
                    Entry::Occupied(known) => {
                        let sum = known.into_mut();
                        self.held += sum.add(&series);
                        sum
                    }
                };
                for later in pending.as_mut_slice() {
                    if let Some(series) = later.get_mut(&key) {
                        self.held += sum.add(&std::mem::take(series));
                    }
                }
            }
        }
    }

    /// Memory of its histograms, in buckets: not fewer than the sum will have.
    pub(crate) fn held(&self) -> usize {
        self.held + self.pending_buckets
    }

    /// [`Self::held`] when it is as small as it can be.
    pub(crate) fn least_held(&mut self) -> usize {
        self.add_pending();
        self.held
    }

    /// The sum.
    pub(crate) fn finish(mut self) -> Interval {
        self.add_pending();
        let Self { mut counts, series, .. } = self;
        counts.series = series.into_iter().map(|(key, series)| (key, series.finish())).collect();
        counts
    }
}

impl SeriesSum {
    fn of(series: Series) -> Self {
        let budget = series.budget;
        Self { distributions: series.into_distributions().map(RunningHistogram::from), budget }
    }

    /// Adds a series; returns by how much [`Self::held`] grew.
    fn add(&mut self, series: &Series) -> usize {
        self.budget.merge(&series.budget);
        let each = self.distributions.iter_mut().zip(Figure::ALL);
        each.map(|(sum, figure)| {
            let before = sum.held();
            sum.merge(&series[figure]);
            sum.held() - before
        })
        .sum()
    }

    fn held(&self) -> usize {
        self.distributions.iter().map(RunningHistogram::held).sum()
    }

    fn finish(self) -> Series {
        Series::of(self.distributions.map(RunningHistogram::finish), self.budget)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        accumulator::Accumulator,
        interval::tests::{event, vm},
    };

    fn interval(start_ns: u64, vms: u32) -> Interval {
        let mut interval = Interval { length_ns: 1_000, ..Interval::starting(start_ns) };
        for n in 0..12_000 {
            let ns = 20_000 + (start_ns + u64::from(n) * 7_919) % 40_000;
            interval.record(&event(n % 3, 10 + n % 2, ns, u8::from(n % 2 == 1)), &vm(n % vms));
        }
        interval.totals.entries = 12_000;
        interval
    }

    #[test]
    fn a_sum_is_what_merging_makes_and_takes_at_least_the_memory_of_its_buckets() {
        let (mut sum, mut merged) = (IntervalSum::new(|key| key), Interval::default());
        for (n, interval) in
            [interval(1_000, 1), interval(2_000, 3), interval(3_000, 2), interval(40_000, 3)].into_iter().enumerate()
        {
            merged.merge(&interval);
            sum.add(interval);
            assert!(sum.held() >= merged.buckets(), "after {n}");
        }
        let held = sum.least_held();
        assert!(sum.series.values().any(|s| matches!(s.distributions[0], RunningHistogram::Dense(_))));
        assert!(held >= merged.buckets() && held < 4 * merged.buckets(), "{held} of {}", merged.buckets());
        assert_eq!(sum.finish(), merged);
    }

    #[test]
    fn intervals_that_have_too_many_buckets_to_wait_are_added_and_keys_can_become_one() {
        let mut sum = IntervalSum::new(|key| Key { vm: 0, vcpu: 0, ..key });
        let wide = |start_ns| {
            let mut seen = Accumulator::of(Interval { length_ns: 1_000, ..Interval::starting(start_ns) });
            for n in 0..30_000 {
                seen.record(&event(n % 7, 10, 2_000 + u64::from(n) * 50, 0), &vm(n % 3));
            }
            seen.finish()
        };
        let (one, mut all) = (wide(1), Series::default());
        for n in 0..40 {
            one.series.values().for_each(|series| all.merge(series));
            sum.add(wide(n));
            assert!(sum.pending_buckets <= AT_ONCE);
        }
        assert!(sum.held > 0, "some were added: {}", one.buckets());
        assert_eq!(sum.finish().series.values().collect::<Vec<_>>(), [&all]);
    }
}
