//! `vmentry calibrate`: the VM-entry latency itself, from a guest that stamps the TSC on both sides of every VM entry.
//!
//! One thread, pinned to a CPU, runs the guest and looks at the clocks; the programs on kvm_entry and kvm_exit write the guest's
//! stamps into their records. What is here does the I/O; `mapping`, `sample`, `summary`, `text` and `json` are pure.

pub(crate) mod affinity;
mod bench;
pub mod exits;
pub(crate) mod json;
pub mod mapping;
pub(crate) mod measure;
pub mod sample;
pub(crate) mod suitability;
pub mod summary;
pub(crate) mod text;

use std::{sync::atomic::AtomicBool, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use tokio::sync::mpsc;

use crate::{host::machine::Host, kernel::tracer::Tracer};
use affinity::pin_to;
pub(crate) use bench::RING_BYTES;
use bench::{Bench, Settings};
use measure::{Measured, Plan};

/// TSC cycles until the timers of `hlt` and `tsc-deadline`.
const DELTA: u32 = 200_000;
/// How far the guest's TSC frequency may be from the host's: KVM itself knows the host's to some 250 ppm.
const SAME_FREQUENCY: f64 = 1e-3;

/// A calibration: what was measured, and where.
pub struct Calibration {
    /// the host
    pub host: Host,
    /// the CPU that the guest was pinned to
    pub cpu: u32,
    /// samples of each exit that were asked for
    pub samples: u64,
    /// loop instructions between the guest's stamps
    pub work: u32,
    /// the kernel's clock source, e.g. "tsc"
    pub clocksource: String,
    /// what makes the figures worth less
    pub caveats: Vec<String>,
    /// the figures
    pub measured: Measured,
    /// what ended it before it was complete; none where it is complete
    pub stopped: Option<&'static str>,
}

/// What the thread that measures tells.
pub(crate) enum Message {
    /// a run of the guest has ended
    Alive,
    /// what is measured next
    Now(String),
}

/// What the thread that runs the guest is asked to measure.
pub(crate) struct Job {
    /// exits and policies
    pub(crate) plan: Plan,
    /// CPU to pin the thread to
    pub(crate) cpu: u32,
    /// loop instructions between the guest's stamps
    pub(crate) work: u32,
}

/// The thread that measures. Whatever happens, the programs are detached and the policy is restored when it ends.
pub(crate) fn measure_here(
    tracer: Tracer,
    job: &Job,
    stop: &AtomicBool,
    sender: &mpsc::UnboundedSender<Message>,
) -> (Measured, Result<()>) {
    let Job { plan, cpu, work } = job;
    let mut measured = Measured::default();
    // A receiver that is gone has stopped listening, not measuring.
    let tell = |message| drop(sender.send(message));
    let alive = || tell(Message::Alive);
    let say = |what| tell(Message::Now(what));
    let result = (|| {
        pin_to(*cpu)?;
        let settings = Settings { work: *work, delta: DELTA, far: 0 };
        let mut bench = Bench::new(tracer, *cpu, settings, stop, &alive)?;
        bench.look()?;
        thread::sleep(Duration::from_millis(100));
        bench.look()?;
        let (guest, host) = (f64::from(bench.guest_khz()?), bench.khz().context("compare the clocks")?);
        ensure!(
            (guest / host - 1.0).abs() < SAME_FREQUENCY,
            "the guest's TSC runs at {guest:.0} kHz and the host's at {host:.0} kHz: this KVM scales it, or the host's is not stable"
        );
        bench.set_far(guest);
        measure::all(&mut bench, plan, &mut measured, &say)
    })();
    (measured, result)
}
