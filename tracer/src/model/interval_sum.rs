//! Adds intervals up: the same sums as [`Interval::merge`], at a fraction of its time, for thousands of intervals.

use std::collections::{HashMap, hash_map::Entry};

use super::{
    budget::Budget,
    figures::Figure,
    interval::Interval,
    running_histogram::RunningHistogram,
    series::{Key, Series},
};

/// A sum of intervals with the same numbering of VMs.
#[derive(Default)]
pub(crate) struct IntervalSum {
    /// all but the series
    counts: Interval,
    series: HashMap<Key, SeriesSum>,
    held: usize,
}

struct SeriesSum {
    distributions: [RunningHistogram; Figure::ALL.len()],
    budget: Budget,
}

impl IntervalSum {
    /// Adds an interval, each series under the key that `kept` makes of its own.
    pub(crate) fn add(&mut self, mut interval: Interval, kept: impl Fn(Key) -> Key) {
        self.counts.merge_counts(&interval, self.series.is_empty());
        for (key, series) in interval.series.drain(..) {
            self.held += match self.series.entry(kept(key)) {
                Entry::Vacant(place) => place.insert(SeriesSum::of(series)).held(),
                Entry::Occupied(known) => known.into_mut().add(&series),
            };
        }
    }

    /// Memory of its histograms, in buckets: not fewer than the sum will have.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// The sum.
    pub(crate) fn finish(self) -> Interval {
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
    use crate::model::interval::tests::{event, vm};

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
        let (mut sum, mut merged) = (IntervalSum::default(), Interval::default());
        for interval in [interval(1_000, 1), interval(2_000, 3), interval(3_000, 2), interval(40_000, 3)] {
            merged.merge(&interval);
            sum.add(interval, |key| key);
        }
        assert!(sum.series.values().any(|s| matches!(s.distributions[0], RunningHistogram::Dense(_))));
        let held = sum.held();
        assert!(held >= merged.buckets() && held < 4 * merged.buckets(), "{held} of {}", merged.buckets());
        assert_eq!(sum.finish(), merged);
    }
}
