//! Reads the series that the programs count, every 10 ms, while two vCPUs on two CPUs make rounds as fast as they can, for ten minutes: fails
//! where the counts of a look do not belong together, or the sums at the end are not exact. Needs root: `cargo xtask bench series`.

#![allow(clippy::unwrap_used, reason = "a benchmark: an error ends it")]

#[path = "../tests/bed/mod.rs"]
mod bed;

use std::time::Duration;

use bed::busy::look_at_busy_series;

fn main() {
    // `cargo test` runs benches too, to see that they work.
    let is_bench = std::env::args().any(|a| a == "--bench");
    let seconds = std::env::var("STRESS_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(600);
    let length = Duration::from_secs(if is_bench { seconds } else { 1 });
    let looks = look_at_busy_series(length);
    println!(
        "{} rounds, {} looks, {} of them with growth; {} growths torn",
        looks.rounds, looks.intervals, looks.grown, looks.torn
    );
    looks.check();
    assert!(!is_bench || looks.grown > looks.intervals * 9 / 10, "the reader finds too few moments between two rounds");
}
