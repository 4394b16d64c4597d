//! A distribution of durations in Prometheus's buckets: classic ones with fixed bounds, and native ones that grow by 2^(1/32). Both hold
//! every value, so that their counts and sums equal the recording's.

use std::collections::BTreeMap;

use crate::model::histogram::Histogram;

/// There are 2^SCHEMA native buckets per doubling; each is 2.2 % wide.
pub(crate) const SCHEMA: i32 = 5;
/// Values up to this many seconds are in the zero bucket: only 0 itself. The default of Prometheus's own clients.
pub(crate) const ZERO_THRESHOLD_S: f64 = f64::from_bits(0x37f0_0000_0000_0000);

/// Upper bounds of the classic buckets: in ns, and in seconds as Prometheus writes them, so that text and protobuf give the same series.
pub(crate) const BOUNDS: [(u64, &str); 25] = [
    (100, "1e-07"),
    (200, "2e-07"),
    (500, "5e-07"),
    (1_000, "1e-06"),
    (2_000, "2e-06"),
    (5_000, "5e-06"),
    (10_000, "1e-05"),
    (20_000, "2e-05"),
    (50_000, "5e-05"),
    (100_000, "0.0001"),
    (200_000, "0.0002"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_000_000, "0.002"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (20_000_000, "0.02"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (200_000_000, "0.2"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1.0"),
    (2_000_000_000, "2.0"),
    (5_000_000_000, "5.0"),
    (10_000_000_000, "10.0"),
];

/// Durations. The middle of a [`Histogram`]'s bucket, 0.1 % wide, counts for all of it: values within 0.05 % of a bound may be in the
/// wrong bucket here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Distribution {
    count: u64,
    /// sum of the values, ns
    sum_ns: u128,
    zeros: u64,
    /// by bound, not cumulative; values above the last one are in `count` only
    classic: [u64; BOUNDS.len()],
    /// count by native index: values in (2^((i-1)/32), 2^(i/32)] seconds
    native: BTreeMap<i16, u64>,
}

impl Distribution {
    /// Adds values with their exact sum, ns.
    pub(crate) fn add(&mut self, histogram: &Histogram, sum_ns: u64) {
        self.sum_ns = self.sum_ns.saturating_add(sum_ns.into());
        for (low, width, n) in histogram.buckets() {
            let middle = low + width / 2;
            self.count = self.count.saturating_add(n);
            let bound = BOUNDS.partition_point(|&(bound, _)| bound < middle);
            if let Some(count) = self.classic.get_mut(bound) {
                *count = count.saturating_add(n);
            }
            let native = if middle == 0 { &mut self.zeros } else { self.native.entry(native(middle)).or_default() };
            *native = native.saturating_add(n);
        }
    }

    /// Number of values.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Sum of the values, seconds.
    pub(crate) fn sum_s(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }

    /// Number of values that are 0.
    pub(crate) fn zeros(&self) -> u64 {
        self.zeros
    }

    /// Number of values up to each bound, by [`BOUNDS`].
    pub(crate) fn cumulative(&self) -> impl Iterator<Item = u64> {
        self.classic.iter().scan(0u64, |sum, n| {
            *sum = sum.saturating_add(*n);
            Some(*sum)
        })
    }

    /// Native buckets that hold values: index and count, ascending.
    pub(crate) fn native(&self) -> impl Iterator<Item = (i32, u64)> {
        self.native.iter().map(|(&i, &n)| (i32::from(i), n))
    }
}

/// Index of the native bucket of a duration above 0, within -957..=1092.
#[expect(clippy::cast_possible_truncation, reason = "64 bits of ns give indices that fit")]
fn native(ns: u64) -> i16 {
    ((ns as f64 / 1e9).log2() * f64::from(1 << SCHEMA)).ceil() as i16
}

#[cfg(test)]
pub(crate) mod tests {
    //! Tests, and synthetic values for other modules.

    use super::*;
    use crate::model::number::truncated_u64;

    /// The distribution of these values, ns.
    pub(crate) fn of(values: &[u64]) -> Distribution {
        let mut distribution = Distribution::default();
        let sum_ns = values.iter().fold(0, |sum: u64, v| sum.saturating_add(*v));
        distribution.add(&histogram(values), sum_ns);
        distribution
    }

    fn histogram(values: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        values.iter().for_each(|&v| histogram.record(v));
        histogram
    }

    /// Values of every magnitude.
    fn spread() -> Vec<u64> {
        (0..4000).map(|i| truncated_u64(1.011f64.powi(i % 3900))).chain([0, 1, u64::MAX]).collect()
    }

    #[test]
    fn classic_and_native_buckets_hold_every_value_and_the_sum_is_exact() {
        let histogram = histogram(&spread());
        let mut distribution = Distribution::default();
        distribution.add(&histogram, 1_234_567_891);
        assert_eq!(distribution.count(), histogram.count());
        let native: u64 = distribution.native().map(|(_, n)| n).sum();
        assert_eq!(native + distribution.zeros(), histogram.count());
        assert_eq!(distribution.sum_s(), 1.234_567_891);
        let above = spread().iter().filter(|v| **v > 10_000_000_000).count() as u64;
        assert_eq!(distribution.cumulative().last(), Some(histogram.count() - above));
    }

    #[test]
    fn a_native_bucket_has_its_values_within_its_bounds() {
        for ns in spread().into_iter().filter(|v| *v > 0) {
            let (index, seconds) = (f64::from(native(ns)), ns as f64 / 1e9);
            let (low, high) = (((index - 1.0) / 32.0).exp2(), (index / 32.0).exp2());
            assert!(low * (1.0 - 1e-12) < seconds && seconds <= high * (1.0 + 1e-12), "{ns}: {low}..{high}");
        }
        assert_eq!(native(1_000_000_000), 0);
        assert!((-957..=1092).contains(&native(1)) && (-957..=1092).contains(&native(u64::MAX)));
    }

    #[test]
    fn bounds_are_inclusive_and_their_text_equals_their_value() {
        assert_eq!(of(&[100]).cumulative().next(), Some(1));
        assert_eq!(of(&[101]).cumulative().next(), Some(0));
        for (ns, text) in BOUNDS {
            assert_eq!(text.parse::<f64>(), Ok(ns as f64 / 1e9));
        }
        assert_eq!(ZERO_THRESHOLD_S, 2.938735877055719e-39);
    }
}
