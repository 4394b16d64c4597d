//! The limits of recordings, of writer and reader alike. Nothing in a file is taken on trust.

pub use crate::model::interval::MAX_SERIES;

/// Bytes of a line at most: a histogram with every bucket there is takes 700 KiB.
pub const MAX_LINE: u64 = 4 << 20;
/// All counts of a recording together: more is not counted in a human's life, and sums of these need no care.
pub(crate) const MAX_COUNTS: u64 = 1 << 53;
/// Buckets of an interval's histograms: 200 MB of memory. A line of a few hundred bytes could make a megabyte of them.
pub(crate) const MAX_BUCKETS: usize = 8 << 20;
