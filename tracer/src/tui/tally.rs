//! Adds up many histograms at once: a window's rows are sums of tens of thousands, too many for merging one by one.

use crate::model::{histogram::Histogram, interval::Series};

/// Buckets of one width: HDR's at three significant digits.
const OF_A_WIDTH: usize = 2048;

/// A sum of histograms, to be used again for the next one.
#[derive(Debug, Default)]
struct Sums {
    /// By bucket: all of width 1, all of width 2, all of width 4, and so on.
    counts: Vec<u64>,
    touched: Vec<u32>,
}

impl Sums {
    fn add(&mut self, histogram: &Histogram) {
        for (low, width, count) in histogram.buckets() {
            let doubling = width.trailing_zeros();
            let at = doubling as usize * OF_A_WIDTH + (low >> doubling) as usize;
            if at >= self.counts.len() {
                self.counts.resize(at + 1, 0);
            }
            if self.counts[at] == 0 {
                self.touched.push(at as u32);
            }
            self.counts[at] += count;
        }
    }

    fn take(&mut self) -> Histogram {
        let mut histogram = Histogram::default();
        self.touched.sort_unstable();
        for at in self.touched.drain(..) {
            let at = at as usize;
            let low = ((at % OF_A_WIDTH) as u64) << (at / OF_A_WIDTH);
            histogram.record_n(low, std::mem::take(&mut self.counts[at]));
        }
        histogram
    }
}

/// A sum of series, to be used again for the next one.
#[derive(Debug, Default)]
pub struct Tally {
    entry_to_exit: Sums,
    exit_to_entry: Sums,
    pin_writes: Sums,
    transition: Sums,
}

impl Tally {
    /// Adds a series.
    pub fn add(&mut self, series: &Series) {
        self.entry_to_exit.add(&series.entry_to_exit);
        self.exit_to_entry.add(&series.exit_to_entry);
        self.pin_writes.add(&series.pin_writes);
        self.transition.add(&series.transition);
    }

    /// The sum; begins anew.
    pub fn take(&mut self) -> Series {
        Series {
            entry_to_exit: self.entry_to_exit.take(),
            exit_to_entry: self.exit_to_entry.take(),
            pin_writes: self.pin_writes.take(),
            transition: self.transition.take(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_the_merge_and_leaves_nothing_behind() {
        let mut tally = Tally::default();
        for seed in [1u64, 7] {
            let mut merged = Series::default();
            for n in 0..50u64 {
                let mut series = Series::default();
                (0..60).for_each(|i| series.entry_to_exit.record((n * 977 + seed) << i >> (i % 7)));
                series.exit_to_entry.record_n(u64::MAX - n, n);
                series.pin_writes.record(n % 3);
                merged.merge(&series);
                tally.add(&series);
            }
            assert_eq!(tally.take(), merged);
        }
        assert_eq!(tally.take(), Series::default());
    }
}
