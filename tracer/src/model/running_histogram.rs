//! A histogram that is being filled: sparse while it has few values, dense pages of buckets once it has many.

use super::histogram::{BUCKETS, Count, Histogram, bucket};

/// A histogram that is being filled, one value at a time.
pub(crate) enum RunningHistogram {
    /// fewer than [`MANY`] values: as small as they need
    Sparse(Histogram),
    /// [`MANY`] values or more: as fast as can be
    Dense(Box<DenseHistogram>),
}

/// Number of values from which on memory is spent for speed. Benches/collect.rs: dense from the start costs speed with thousands of
/// small series. Up to so many values, a sparse histogram is no larger than a dense one of values that spread over a decade.
const MANY: u64 = 1024;

/// Number of buckets from which on a histogram to which others are added may have pages.
const MANY_BUCKETS: usize = 512;
/// Buckets with values that a page must have on average then.
const FILLED: usize = PAGE_MEMORY / 4;

impl Default for RunningHistogram {
    fn default() -> Self {
        Self::Sparse(Histogram::default())
    }
}

impl From<Histogram> for RunningHistogram {
    fn from(counted: Histogram) -> Self {
        Self::Sparse(counted)
    }
}

impl RunningHistogram {
    /// Counts one value.
    #[inline(always)]
    pub(crate) fn record(&mut self, value: u64) {
        match self {
            Self::Dense(dense) => dense.record(value),
            Self::Sparse(_) => self.record_sparse(value),
        }
    }

    #[cold]
    fn record_sparse(&mut self, value: u64) {
        if let Self::Sparse(sparse) = self {
            sparse.record(value);
            if sparse.count() >= MANY {
                *self = Self::Dense(Box::new(DenseHistogram::with(std::mem::take(sparse))));
            }
        }
    }

    /// Adds a histogram's counts.
    pub(crate) fn merge(&mut self, other: &Histogram) {
        match self {
            Self::Dense(dense) => dense.merge(other),
            Self::Sparse(sparse) => {
                sparse.merge(other);
                if sparse.len() >= MANY_BUCKETS && sparse.len() >= FILLED * pages_of(sparse) {
                    let mut dense = DenseHistogram::with(Histogram::default());
                    dense.merge(sparse);
                    *self = Self::Dense(Box::new(dense));
                }
            }
        }
    }

    /// Memory that it takes, in buckets of a [`Histogram`]: where histograms were merged, not fewer than [`Self::finish`] returns.
    pub(crate) fn held(&self) -> usize {
        match self {
            Self::Sparse(sparse) => sparse.len(),
            Self::Dense(dense) => dense.flushed.len() + dense.merged.max((dense.pages.len() - 1) * PAGE_MEMORY),
        }
    }

    /// Everything that was counted.
    pub(crate) fn finish(self) -> Histogram {
        match self {
            Self::Sparse(sparse) => sparse,
            Self::Dense(dense) => dense.finish(),
        }
    }
}

/// Number of pages that a histogram's buckets are in.
fn pages_of(histogram: &Histogram) -> usize {
    histogram.counts().chunk_by(|a, b| a.bucket() as usize / PAGE == b.bucket() as usize / PAGE).count()
}

/// Buckets of a page.
const PAGE: usize = 128;
/// Buckets of a [`Histogram`] that take as much memory as a page.
const PAGE_MEMORY: usize = PAGE * size_of::<u32>() / size_of::<Count>();
const PAGES: usize = BUCKETS as usize / PAGE;
const _: () = assert!(BUCKETS.is_multiple_of(128) && PAGES < u16::MAX as usize);

/// Pages of counters for the buckets near those that hold values: a value is counted without a search.
pub(crate) struct DenseHistogram {
    /// values counted before the last [`DenseHistogram::flush`]
    flushed: Histogram,
    /// index of each bucket's page in `pages`; 0 for none
    page_of: [u16; PAGES],
    /// the first page is a placeholder for buckets without a page: its counts stay 0
    pages: Vec<[u32; PAGE]>,
    /// buckets of the pages that got their first values by [`DenseHistogram::merge`]
    merged: usize,
}

impl DenseHistogram {
    fn with(flushed: Histogram) -> Self {
        Self { flushed, page_of: [0; PAGES], pages: vec![[0; PAGE]], merged: 0 }
    }

    #[inline]
    fn record(&mut self, value: u64) {
        let bucket = bucket(value) as usize;
        let page = usize::from(self.page_of[bucket / PAGE]);
        let count = &mut self.pages[page][bucket % PAGE];
        *count += 1;
        // The slow path: the bucket has no page yet, or its counter is full.
        if page == 0 || *count == u32::MAX {
            *count -= 1;
            self.record_in_new_page(bucket);
        }
    }

    fn merge(&mut self, other: &Histogram) {
        // Page by page, because neighbours mostly share one.
        for counts in other.counts().chunk_by(|a, b| a.bucket() as usize / PAGE == b.bucket() as usize / PAGE) {
            let bucket = counts[0].bucket() as usize;
            let page = match usize::from(self.page_of[bucket / PAGE]) {
                0 => self.new_page(bucket),
                page => page,
            };
            let page = &mut self.pages[page];
            for count in counts {
                let place = &mut page[count.bucket() as usize % PAGE];
                self.merged += usize::from(*place == 0);
                match u32::try_from(u64::from(*place) + count.n()) {
                    Ok(sum) => *place = sum,
                    Err(_) => self.flushed.record_bucket(count.bucket(), count.n()),
                }
            }
        }
    }

    #[cold]
    fn record_in_new_page(&mut self, bucket: usize) {
        if self.page_of[bucket / PAGE] > 0 {
            self.flush();
        }
        let page = self.new_page(bucket);
        self.pages[page][bucket % PAGE] = 1;
    }

    /// Begins the page of a bucket that has none.
    #[cold]
    fn new_page(&mut self, bucket: usize) -> usize {
        let page = self.pages.len();
        #[expect(clippy::cast_possible_truncation, reason = "there are at most PAGES + 1 pages, which is below 2^16")]
        let number = page as u16;
        self.page_of[bucket / PAGE] = number;
        self.pages.push([0; PAGE]);
        page
    }

    /// Moves all counts from the pages into `flushed`.
    fn flush(&mut self) {
        let mut counts = Vec::new();
        for (first, &page) in (0..BUCKETS).step_by(PAGE).zip(&self.page_of) {
            if page > 0 {
                let page = (first..).zip(self.pages[usize::from(page)]);
                counts.extend(page.filter(|(_, n)| *n > 0).map(|(bucket, n)| Count::new(bucket, n.into())));
            }
        }
        self.flushed.merge(&Histogram::from_ascending(counts));
        self.page_of = [0; PAGES];
        self.pages.truncate(1);
        self.merged = 0;
    }

    fn finish(mut self) -> Histogram {
        self.flush();
        self.flushed
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::histogram::tests::{of, values},
        *,
    };

    #[test]
    fn a_running_histogram_counts_the_same_as_a_plain_one() {
        let values: Vec<_> = values(11, 5000).into_iter().chain([0, u64::MAX, u64::MAX, 1 << 63]).collect();
        let many = usize::try_from(MANY).unwrap();
        for n in [0, 1, many - 1, many, many + 1, values.len()] {
            let mut running = RunningHistogram::default();
            values[..n].iter().for_each(|&v| running.record(v));
            assert_eq!(running.finish(), of(&values[..n]), "{n} values");
        }
        let mut dense = DenseHistogram::with(Histogram::default());
        for part in values.chunks(777) {
            part.iter().for_each(|&v| dense.record(v));
            dense.flush();
        }
        assert_eq!(dense.finish(), of(&values));
    }

    #[test]
    fn histograms_that_are_added_count_the_same_with_pages_and_without() {
        // Of every magnitude, which stays sparse, and within two doublings, which gets pages.
        let near = |seed| values(seed, 3_000).into_iter().map(|v| 4_096 + v % 8_192).collect::<Vec<_>>();
        for (parts, is_dense) in [([values(3, 3_000), values(4, 700)], false), ([near(3), near(4)], true)] {
            let mut running = RunningHistogram::default();
            parts.iter().for_each(|part| running.merge(&of(part)));
            assert_eq!(matches!(running, RunningHistogram::Dense(_)), is_dense);
            let held = running.held();
            let whole = running.finish();
            assert!(held >= whole.len(), "{held} of {}", whole.len());
            assert_eq!(whole, of(&parts.concat()));
        }
        let mut full = Histogram::default();
        full.record_n(5_000, u32::MAX.into());
        let mut dense = DenseHistogram::with(Histogram::default());
        (0..3).for_each(|_| dense.merge(&full));
        assert_eq!(dense.finish().count(), 3 * u64::from(u32::MAX));
    }

    #[test]
    fn a_full_counter_is_flushed_and_loses_nothing() {
        let mut dense = DenseHistogram::with(Histogram::default());
        dense.record(7);
        dense.pages[1][7] = u32::MAX - 1;
        (0..3).for_each(|_| dense.record(7));
        assert_eq!(dense.finish().count(), u64::from(u32::MAX) + 2);
    }
}
