//! A histogram that is being filled: sparse while it has few values, dense pages of buckets once it has many.

use super::histogram::{BUCKETS, Histogram, bucket};

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

impl Default for RunningHistogram {
    fn default() -> Self {
        Self::Sparse(Histogram::default())
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

    /// Everything that was counted.
    pub(crate) fn finish(self) -> Histogram {
        match self {
            Self::Sparse(sparse) => sparse,
            Self::Dense(dense) => dense.finish(),
        }
    }
}

/// Buckets of a page.
const PAGE: usize = 128;
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
}

impl DenseHistogram {
    fn with(flushed: Histogram) -> Self {
        Self { flushed, page_of: [0; PAGES], pages: vec![[0; PAGE]] }
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

    #[cold]
    fn record_in_new_page(&mut self, bucket: usize) {
        if self.page_of[bucket / PAGE] > 0 {
            self.flush();
        }
        #[expect(clippy::cast_possible_truncation, reason = "there are at most PAGES + 1 pages, which is below 2^16")]
        let page = self.pages.len() as u16;
        self.page_of[bucket / PAGE] = page;
        self.pages.push([0; PAGE]);
        if let Some(page) = self.pages.last_mut() {
            page[bucket % PAGE] = 1;
        }
    }

    /// Moves all counts from the pages into `flushed`.
    fn flush(&mut self) {
        let mut counts = Vec::new();
        for (first, &page) in (0..BUCKETS).step_by(PAGE).zip(&self.page_of) {
            if page > 0 {
                let page = (first..).zip(self.pages[usize::from(page)]);
                counts.extend(page.filter(|(_, n)| *n > 0).map(|(bucket, n)| (bucket, u64::from(n))));
            }
        }
        self.flushed.merge(&Histogram::from_ascending(counts));
        self.page_of = [0; PAGES];
        self.pages.truncate(1);
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
    fn a_full_counter_is_flushed_and_loses_nothing() {
        let mut dense = DenseHistogram::with(Histogram::default());
        dense.record(7);
        dense.pages[1][7] = u32::MAX - 1;
        (0..3).for_each(|_| dense.record(7));
        assert_eq!(dense.finish().count(), u64::from(u32::MAX) + 2);
    }
}
