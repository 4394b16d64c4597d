//! The limits of recordings, in one table: the writer keeps them, the reader refuses what is over them.

use std::fmt;

use anyhow::{Result, ensure};

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
    /// series in the lines up to an interval's last one, as the writer makes them: their sums of times are in that line
    pub(super) written_series: usize,
    /// buckets of an interval that is joined from its parts
    pub(super) joined: usize,
    /// bytes of a recording without an index: its intervals are found at once
    pub(super) unindexed: u64,
    /// places of an index
    pub(super) places: usize,
}

/// The limits of every recording.
pub(super) const LIMITS: Limits = Limits {
    // A histogram with every possible bucket takes 700 KiB.
    line: 4 << 20,
    // f64 and sums of counts stay exact.
    counts: 1 << 53,
    // 64 MB of memory. A line of a few hundred bytes could expand to a megabyte.
    buckets: 8 << 20,
    series: MAX_SERIES,
    // Six numbers of 20 digits each are 2 MB.
    written_series: 16_384,
    // Half a gigabyte: every series of an interval with a thousand.
    joined: 64 << 20,
    unindexed: 8 << 20,
    // An index of 700 kB, of each second of four hours, or of each eighth of a day and a half.
    places: 16_384,
};

/// Bytes of a bucket in memory: its number and its count.
const BUCKET_BYTES: u64 = 8;

/// Buckets that are advised at least, 8 MB.
const LEAST_ADVISED: u64 = 1_000_000;

/// Most histogram buckets of recordings that a command keeps in memory, as `--max-buckets` sets it.
///
/// The largest honest recording: 1024 vCPUs with 12 exit reasons that are frequent, each with guest and host times in 2500 buckets, are
/// 61 million. A line of 250 bytes can hold a histogram of 56 320 buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxBuckets(pub u64);

impl Default for MaxBuckets {
    fn default() -> Self {
        Self(64 << 20)
    }
}

impl fmt::Display for MaxBuckets {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl MaxBuckets {
    /// Fails if `held` buckets are more than the limit, now that `line` of a recording was read.
    pub(crate) fn check(self, held: usize, line: u64) -> Result<()> {
        let Self(most) = self;
        ensure!(
            held as u64 <= most,
            "line {line}: the histograms up to here have more than {most} buckets, which take {}: \
             --max-buckets {} raises the limit, and fewer recordings at a time stay below it",
            match most.saturating_mul(BUCKET_BYTES) {
                bytes if bytes < 1 << 20 => format!("{bytes} bytes"),
                bytes => format!("{} MiB", bytes >> 20),
            },
            most.saturating_mul(2).max(LEAST_ADVISED)
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_far_too_low_is_raised_at_once() {
        let said = |most| MaxBuckets(most).check(usize::MAX, 7).unwrap_err().to_string();
        assert!(said(1).contains("8 bytes: --max-buckets 1000000 "), "{}", said(1));
        assert!(said(2_000_000).contains("15 MiB: --max-buckets 4000000 "), "{}", said(2_000_000));
    }
}
