//! Adds up many histograms at once: the rows of a window are sums of tens of thousands, which merging one by one takes too long for.

use crate::model::{budget::Budget, figures::Figure, histogram::Histogram, series::Series};

/// Buckets of one width: HDR's at three significant digits.
const OF_A_WIDTH: usize = 2048;

/// A sum of histograms; its memory is used again for the next sum.
#[derive(Debug, Default)]
struct HistogramSum {
    /// By bucket: all of width 1, all of width 2, all of width 4, and so on.
    counts: Vec<u64>,
    touched: Vec<usize>,
}

impl HistogramSum {
    fn add(&mut self, histogram: &Histogram) {
        for (low, width, count) in histogram.buckets() {
            let doubling = width.trailing_zeros();
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a bucket's place among those of its width is below OF_A_WIDTH"
            )]
            let at = doubling as usize * OF_A_WIDTH + (low >> doubling) as usize;
            if at >= self.counts.len() {
                self.counts.resize(at + 1, 0);
            }
            if self.counts[at] == 0 {
                self.touched.push(at);
            }
            self.counts[at] += count;
        }
    }

    fn take(&mut self) -> Histogram {
        let mut histogram = Histogram::default();
        self.touched.sort_unstable();
        for at in self.touched.drain(..) {
            let low = ((at % OF_A_WIDTH) as u64) << (at / OF_A_WIDTH);
            histogram.record_n(low, std::mem::take(&mut self.counts[at]));
        }
        histogram
    }
}

/// A sum of series; its memory is used again for the next sum.
#[derive(Debug, Default)]
pub(super) struct SeriesSum {
    sums: [HistogramSum; Figure::ALL.len()],
    budget: Budget,
}

impl SeriesSum {
    /// Adds a series.
    pub(super) fn add(&mut self, series: &Series) {
        for (sums, figure) in self.sums.iter_mut().zip(Figure::ALL) {
            sums.add(&series[figure]);
        }
        self.budget.merge(&series.budget);
    }

    /// Returns the sum and begins a new one.
    pub(super) fn take(&mut self) -> Series {
        let mut sum = Series::from_fn(|figure| self.sums[figure as usize].take());
        sum.budget = std::mem::take(&mut self.budget);
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_the_merge_and_leaves_nothing_behind() {
        let mut sum = SeriesSum::default();
        for seed in [1u64, 7] {
            let mut merged = Series::default();
            for n in 0..50u64 {
                let mut series = Series::default();
                (0..60).for_each(|i| series[Figure::EntryToExit].record((n * 977 + seed) << i >> (i % 7)));
                series[Figure::ExitToEntry].record_n(u64::MAX - n, n);
                series[Figure::PinWrites].record(n % 3);
                merged.merge(&series);
                sum.add(&series);
            }
            assert_eq!(sum.take(), merged);
        }
        assert_eq!(sum.take(), Series::default());
    }
}
