//! Measures the VM-entry latency itself, with a guest that stamps the TSC before each VM exit and after each VM entry.
//!
//! One thread, pinned to a CPU, runs the guest and reads the clocks; the programs on kvm_entry and kvm_exit write the guest's stamps
//! into their records. `sample`, `summary`, `text` and `json` are pure.

pub(crate) mod affinity;
mod bench;
pub(crate) mod exits;
pub(crate) mod json;
pub(crate) mod measure;
mod sample;
pub(crate) mod suitability;
mod summary;
pub(crate) mod text;

use std::{sync::atomic::AtomicBool, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use tokio::sync::mpsc;

use crate::{guest::deadline::LEAST_CYCLES, host::machine::Host, kernel::tracer::Tracer};
use affinity::pin_to;
pub(crate) use bench::RING_BYTES;
use bench::{Bench, Settings};
use measure::{CalibrationPlan, Measured};

/// Round trips from which the distance of the timers of `hlt` and `tsc-deadline` follows.
const ROUND_TRIPS: u64 = 32;
/// Tolerated relative difference of the guest's and the host's TSC frequency. KVM itself knows the host's to about 250 ppm.
const SAME_FREQUENCY: f64 = 1e-3;

/// A calibration: the results, and where they were measured.
pub(crate) struct Calibration {
    /// the host
    pub(crate) host: Host,
    /// the CPU that the guest was pinned to
    pub(crate) cpu: u32,
    /// requested samples of each exit
    pub(crate) samples: u64,
    /// loop instructions between the guest's stamps
    pub(crate) work: u32,
    /// the kernel's clock source, e.g. "tsc"
    pub(crate) clocksource: String,
    /// the limits of the figures on this host
    pub(crate) caveats: Vec<String>,
    /// the results
    pub(crate) measured: Measured,
    /// the signal or event that ended it before it was complete; none if it is complete
    pub(crate) stopped_by: Option<&'static str>,
}

/// A message from the thread that measures.
pub(crate) enum Update {
    /// a run of the guest has ended
    Alive,
    /// the next measurement begins
    Next(String),
}

/// The work of the thread that measures.
pub(crate) struct Job {
    /// exits and policies
    pub(crate) plan: CalibrationPlan,
    /// CPU to pin the thread to
    pub(crate) cpu: u32,
    /// loop instructions between the guest's stamps
    pub(crate) work: u32,
}

/// Measures in this thread, which is then pinned. The programs are detached and the policy is restored on return, also on an error.
pub(crate) fn measure_here(
    tracer: Tracer,
    job: &Job,
    stop: &AtomicBool,
    updates: &mpsc::UnboundedSender<Update>,
) -> (Measured, Result<()>) {
    let Job { plan, cpu, work } = job;
    let mut measured = Measured::default();
    // Measuring continues without a receiver.
    let send = |update| drop(updates.send(update));
    let alive = || send(Update::Alive);
    let announce = |step| send(Update::Next(step));
    let result = (|| {
        pin_to(*cpu)?;
        let settings = Settings { work: *work, delta: LEAST_CYCLES, far: 0 };
        let mut bench = Bench::new(tracer, *cpu, settings, stop, &alive)?;
        bench.read_clocks();
        thread::sleep(Duration::from_millis(100));
        bench.read_clocks();
        let (guest, host) = (bench.guest_khz()?, bench.khz().context("compare the clocks")?);
        ensure!(
            (f64::from(guest) / host - 1.0).abs() < SAME_FREQUENCY,
            "the guest's TSC runs at {guest} kHz and the host's at {host:.0} kHz: this KVM scales it, or the host's is not stable"
        );
        bench.set_far(guest);
        bench.set_delta(ROUND_TRIPS)?;
        measure::all(&mut bench, plan, &mut measured, &announce)
    })();
    (measured, result)
}
