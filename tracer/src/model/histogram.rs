//! A sparse histogram with the buckets of an HDR histogram of three significant digits: a few hundred bytes a series, where
//! `hdrhistogram` keeps tens of kilobytes. Merging is exact.

/// Sub-buckets of HDR's first bucket at three significant digits: values below are exact.
const SUB_BUCKETS: u64 = 2048;
const HALF: u64 = SUB_BUCKETS / 2;
const HALF_BITS: u32 = HALF.trailing_zeros();

/// Significant decimal digits that every bucket keeps: a value is known to 0.1 %.
pub(crate) const DIGITS: u8 = 3;

/// Number of buckets that values of 64 bits have.
pub(crate) const BUCKETS: u32 = (65 - HALF_BITS) << HALF_BITS;

/// Counts of values by bucket. Values are `u64` of any unit; every statistic is a bound of a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// buckets that hold values, ascending
    counts: Vec<Count>,
    total: u64,
}

/// A bucket that holds values, in 16 bits, and how many, in 48: half the memory of two numbers. A count ends at 2^48 - 1, which is nine
/// years of a million exits a second in one bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Count(u64);

impl Count {
    const BITS: u32 = 48;
    /// Highest count of a bucket.
    pub(crate) const MOST: u64 = (1 << Self::BITS) - 1;

    /// `n` values of a bucket below [`BUCKETS`].
    #[inline]
    pub(crate) fn new(bucket: u32, n: u64) -> Self {
        debug_assert!(bucket < BUCKETS);
        Self(Self::least_of(bucket) | n.min(Self::MOST))
    }

    /// Up to [`Self::MOST`] values of any bucket; of one that is not below [`BUCKETS`], any count.
    #[inline]
    pub(crate) fn in_any(bucket: u64, n: u64) -> Self {
        debug_assert!(n <= Self::MOST);
        Self(bucket << Self::BITS | n)
    }

    /// Number of the bucket.
    #[inline]
    pub(crate) fn bucket(self) -> u32 {
        (self.0 >> Self::BITS) as u32
    }

    /// Number of values in it.
    #[inline]
    pub(crate) fn n(self) -> u64 {
        self.0 & Self::MOST
    }

    /// What every count of a bucket is at least, and every one of the buckets before is below.
    #[inline]
    fn least_of(bucket: u32) -> u64 {
        u64::from(bucket) << Self::BITS
    }

    #[inline]
    fn add(&mut self, n: u64) {
        *self = Self::new(self.bucket(), self.n().saturating_add(n));
    }
}

const _: () = assert!(BUCKETS <= 1 << 16);

/// Number of the value's bucket: HDR's flattened counts index.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the result is below BUCKETS")]
pub(crate) fn bucket(value: u64) -> u32 {
    let doubling = 63 - (value | (SUB_BUCKETS - 1)).leading_zeros() - HALF_BITS;
    let sub = value >> doubling;
    ((u64::from(doubling) << HALF_BITS) + sub) as u32
}

/// Lowest value and width of a bucket.
fn range(bucket: u32) -> (u64, u64) {
    let bucket = u64::from(bucket);
    let doubling = (bucket >> HALF_BITS).saturating_sub(1);
    let sub = bucket - (doubling << HALF_BITS);
    (sub << doubling, 1 << doubling)
}

impl Histogram {
    /// Counts one value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts `n` equal values.
    pub fn record_n(&mut self, value: u64, n: u64) {
        self.record_bucket(bucket(value), n);
    }

    /// Counts `n` values of a bucket, by HDR's flattened counts index below [`BUCKETS`].
    pub(crate) fn record_bucket(&mut self, bucket: u32, n: u64) {
        debug_assert!(bucket < BUCKETS);
        if n > 0 {
            // partition_point instead of binary_search: half of the instructions.
            let least = Count::least_of(bucket);
            let at = self.counts.partition_point(|c| c.0 < least);
            match self.counts.get_mut(at) {
                Some(count) if count.bucket() == bucket => count.add(n),
                _ => self.counts.insert(at, Count::new(bucket, n)),
            }
            self.total = self.total.saturating_add(n);
        }
    }

    /// From counts in ascending order of buckets, none of them 0.
    pub(crate) fn from_ascending(counts: Vec<Count>) -> Self {
        debug_assert!(counts.is_sorted_by(|a, b| a.bucket() < b.bucket()));
        // No more than there are buckets: the sum of counts of 48 bits fits.
        let total = counts.iter().map(|c| c.n()).sum();
        Self { counts, total }
    }

    /// Adds another's counts: exact, associative and commutative.
    pub fn merge(&mut self, other: &Histogram) {
        if self.counts.is_empty() {
            self.counts.clone_from(&other.counts);
            self.total = other.total;
            return;
        }
        if other.counts.len() < self.counts.len() / 8 {
            self.merge_few(&other.counts);
        } else {
            self.merge_many(&other.counts);
        }
        self.total = self.total.saturating_add(other.total);
    }

    /// Adds counts in one pass over both, and new buckets in another, from the end, so that nothing is copied where all are known.
    fn merge_many(&mut self, many: &[Count]) {
        let (mut at, mut new) = (0, 0);
        for count in many {
            while self.counts.get(at).is_some_and(|c| c.bucket() < count.bucket()) {
                at += 1;
            }
            match self.counts.get_mut(at) {
                Some(known) if known.bucket() == count.bucket() => known.add(count.n()),
                _ => new += 1,
            }
        }
        let mut from = self.counts.len();
        let mut to = from + new;
        self.counts.resize(to, Count(0));
        for &count in many.iter().rev() {
            // All new ones have their places: the rest stays where it is.
            if from == to {
                break;
            }
            while from > 0 && self.counts[from - 1].bucket() > count.bucket() {
                (from, to) = (from - 1, to - 1);
                self.counts[to] = self.counts[from];
            }
            if from == 0 || self.counts[from - 1].bucket() != count.bucket() {
                to -= 1;
                self.counts[to] = count;
            }
        }
    }

    /// Adds a few counts to many, without a copy of the many. New buckets take their places in one pass from the end: moving what is
    /// behind each of them would be quadratic.
    fn merge_few(&mut self, few: &[Count]) {
        let mut new = Vec::new();
        for &count in few {
            let least = Count::least_of(count.bucket());
            let at = self.counts.partition_point(|c| c.0 < least);
            match self.counts.get_mut(at) {
                Some(known) if known.bucket() == count.bucket() => known.add(count.n()),
                _ => new.push((at, count)),
            }
        }
        let mut end = self.counts.len();
        self.counts.resize(end + new.len(), Count(0));
        for (before, (at, count)) in new.into_iter().enumerate().rev() {
            self.counts.copy_within(at..end, at + before + 1);
            self.counts[at + before] = count;
            end = at;
        }
    }

    /// Its counts, in ascending order of buckets.
    pub(crate) fn counts(&self) -> &[Count] {
        &self.counts
    }

    /// Number of buckets that hold values.
    pub(crate) fn len(&self) -> usize {
        self.counts.len()
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// Lowest value of the lowest bucket that holds one; none when empty.
    pub fn min(&self) -> Option<u64> {
        self.counts.first().map(|c| range(c.bucket()).0)
    }

    /// Highest value of the highest bucket that holds one; none when empty.
    pub fn max(&self) -> Option<u64> {
        self.counts.last().map(|c| highest(c.bucket()))
    }

    /// Sum of the buckets' lowest values: exact of values below 2048, such as counts of writes.
    pub fn sum(&self) -> u64 {
        self.buckets().map(|(low, _, n)| low.saturating_mul(n)).fold(0, u64::saturating_add)
    }

    /// Mean of the buckets' middles; none when empty.
    pub fn mean(&self) -> Option<f64> {
        let sum: f64 = self.buckets().map(|(low, width, n)| (low + width / 2) as f64 * n as f64).sum();
        (self.total > 0).then(|| sum / self.total as f64)
    }

    /// Highest value of the bucket that holds the quantile, `0.0..=1.0`, as HDR histograms define it; none when empty.
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and the number of values"
        )]
        let wanted = ((quantile.clamp(0.0, 1.0) * self.total as f64).ceil() as u64).max(1);
        let mut seen = 0u64;
        let reached = self.counts.iter().find(|count| {
            seen = seen.saturating_add(count.n());
            seen >= wanted
        });
        // None where a count has ended below the number of values.
        reached.or(self.counts.last()).map(|count| highest(count.bucket()))
    }

    /// Buckets that hold values, ascending: lowest value, width, count.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        self.counts.iter().map(|count| {
            let (low, width) = range(count.bucket());
            (low, width, count.n())
        })
    }
}

fn highest(bucket: u32) -> u64 {
    let (low, width) = range(bucket);
    low + (width - 1)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// xorshift: values of every magnitude.
    pub(crate) fn values(seed: u64, n: usize) -> Vec<u64> {
        let mut x = seed;
        (0..n)
            .map(|i| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                x >> (20 + i % 44)
            })
            .collect()
    }

    pub(crate) fn of(values: &[u64]) -> Histogram {
        let mut h = Histogram::default();
        values.iter().for_each(|&v| h.record(v));
        h
    }

    #[test]
    fn every_figure_equals_the_hdrhistogram_crates() {
        let values = values(7, 20_000);
        let ours = of(&values);
        let mut hdr = hdrhistogram::Histogram::<u64>::new(DIGITS).unwrap();
        values.iter().for_each(|&v| hdr.record(v).unwrap());
        for q in [0.0, 0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 0.9999, 1.0] {
            assert_eq!(ours.quantile(q), Some(hdr.value_at_quantile(q)), "quantile {q}");
        }
        assert_eq!(ours.min(), Some(hdr.min()));
        assert_eq!(ours.max(), Some(hdr.max()));
        assert_eq!(ours.count(), hdr.len());
        assert!((ours.mean().unwrap() / hdr.mean() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn each_value_lies_in_its_bucket_and_within_a_thousandth() {
        for v in (0..5000).chain(values(3, 5000)).chain([u64::MAX, u64::MAX / 2, 1 << 63]) {
            let (low, width) = range(bucket(v));
            assert!(low <= v && v - low < width, "{v} not in {low}+{width}");
            assert!(bucket(v) < BUCKETS);
            assert!(width == 1 || width <= v / 1000, "{v}: bucket of {width}");
        }
    }

    #[test]
    fn the_last_bucket_is_that_of_the_highest_value() {
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn merging_is_exact_in_any_order() {
        // The third is so small that it takes its places among the buckets of the others.
        let (a, b, c) = (values(1, 999), values(2, 1001), values(5, 17));
        let whole = of(&[a.clone(), b.clone(), c.clone()].concat());
        let mut left = of(&a);
        left.merge(&of(&b));
        left.merge(&of(&c));
        let mut right = of(&c);
        right.merge(&of(&b));
        right.merge(&of(&a));
        assert_eq!(left, whole);
        assert_eq!(right, whole);
    }

    #[test]
    fn a_count_ends_at_48_bits_and_stays_in_its_bucket() {
        let mut h = Histogram::default();
        h.record_n(u64::MAX, u64::MAX);
        h.record_n(u64::MAX, 1);
        h.record(7);
        assert_eq!(h.buckets().map(|(.., n)| n).collect::<Vec<_>>(), [1, (1 << 48) - 1]);
        assert_eq!((h.min(), h.max(), h.quantile(1.0)), (Some(7), Some(u64::MAX), Some(u64::MAX)));
    }

    #[test]
    fn an_empty_histogram_knows_nothing() {
        let h = Histogram::default();
        assert_eq!((h.min(), h.max(), h.quantile(0.5), h.mean()), (None, None, None, None));
    }
}
