//! The limits of recordings. A reader refuses what is over them.

pub(super) use crate::model::interval::MAX_SERIES;

/// Most bytes of a line. A histogram with every possible bucket takes 700 KiB.
pub(crate) const MAX_LINE: u64 = 4 << 20;
/// Highest sum of all counts of a recording: f64 and sums of counts stay exact.
pub(crate) const MAX_COUNTS: u64 = 1 << 53;
/// Most buckets of an interval: 200 MB of memory. A line of a few hundred bytes could expand to a megabyte.
pub(crate) const MAX_BUCKETS: usize = 8 << 20;
