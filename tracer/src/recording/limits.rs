//! The limits of recordings, in one table: the writer keeps them, the reader refuses what is over them.

use crate::model::interval::MAX_SERIES;

/// Most that a recording may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// bytes of a line with its end
    pub(super) line: u64,
    /// sum of all counts of a recording
    pub(super) counts: u64,
    /// buckets in the lines up to an interval's last one
    pub(super) buckets: usize,
    /// series in the lines up to an interval's last one
    pub(super) series: usize,
}

/// The limits of every recording.
pub(super) const LIMITS: Limits = Limits {
    // A histogram with every possible bucket takes 700 KiB.
    line: 4 << 20,
    // f64 and sums of counts stay exact.
    counts: 1 << 53,
    // 200 MB of memory. A line of a few hundred bytes could expand to a megabyte.
    buckets: 8 << 20,
    series: MAX_SERIES,
};
