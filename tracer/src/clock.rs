//! The clock of the events, and what ties it to the wall.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// CLOCK_MONOTONIC in ns: the clock of `bpf_ktime_get_ns`.
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec; CLOCK_MONOTONIC always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The same moment on both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// CLOCK_MONOTONIC, ns
    pub monotonic_ns: u64,
    /// CLOCK_REALTIME, ns after 1970
    pub unix_ns: u64,
}

impl Anchor {
    /// This moment.
    pub fn now() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { monotonic_ns: monotonic_ns(), unix_ns: unix.as_nanos() as u64 }
    }

    /// A moment of CLOCK_MONOTONIC as ns after 1970.
    pub fn to_unix_ns(self, monotonic_ns: u64) -> u64 {
        self.unix_ns.saturating_add(monotonic_ns).saturating_sub(self.monotonic_ns)
    }
}
