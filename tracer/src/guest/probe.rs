//! Tries whether far timers fire early, as Intel's erratum EMR158 has it: a guest arms timers that are due minutes later, a few milliseconds
//! beyond the distance at which the CPU's timer would begin anew.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kvm_bindings::{KVM_MP_STATE_RUNNABLE, kvm_mp_state};
use serde::Serialize;

use super::expectation::{self, Expectation};
use super::guest_host::GuestHost;
use super::image::{self, ExerciseProgram, FarTimer, Parameters};
use super::intervention::Intervention;
use super::kick;
use super::machine::{self, Machine, start_in_protected_mode};
use super::outcome::counted;
use super::vcpu::{self, End};
use super::verdict::{self, Attempt, Verdict};
use crate::host::roots::Roots;
use crate::host::tracepoint_count::TracepointCount;
use crate::model::knowledge::Unknown;

/// Timers of a probe that was not asked for a number: one at each offset.
pub(crate) const TIMERS: usize = OFFSETS_MS.len();
/// Distances of the deadlines behind the limit, ms, in turn.
const OFFSETS_MS: [u32; 3] = [5, 20, 35];
/// Time after which a guest gives up a timer, ms: with the offsets, a fifth of a second for three.
const WAIT_MS: u32 = 60;
/// The time that one timer may take, which an emulated CPU needs.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time between two kicks of a vCPU that must stop: one before KVM_RUN is lost.
const KICK_EVERY: Duration = Duration::from_millis(10);

/// The timers to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProbePlan {
    /// TSC cycles from arming a timer to the deadline at which it would fire at once: 2^32 crystal ticks
    pub(crate) limit: u64,
    /// timers, at least 1
    pub(crate) timers: usize,
}

/// The verdict, and what it follows from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ProbeOutcome {
    /// whether timers fire early here
    #[serde(flatten)]
    pub(crate) verdict: Verdict,
    /// the distance at which an early timer would fire at once, TSC cycles; null where no timer was tried
    pub(crate) limit: Option<u64>,
    /// TSC frequency, kHz; null where no timer was tried
    pub(crate) tsc_khz: Option<u32>,
    /// the timers that were tried
    pub(crate) timers: Vec<Attempt>,
    /// process id of the VM, which is this process
    pub(crate) tgid: u32,
    /// the exits that a tracer must count
    pub(crate) expects: Vec<Expectation>,
}

impl ProbeOutcome {
    /// No timer was tried, for this reason.
    pub(crate) fn not_tried(why: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::unknown(why),
            limit: None,
            tsc_khz: None,
            timers: Vec::new(),
            tgid: std::process::id(),
            expects: Vec::new(),
        }
    }
}

/// The machine that tries timers.
struct Trial {
    machine: Machine,
    /// see [`ProbePlan::limit`]
    limit: u64,
    tsc_khz: u32,
    /// timers that KVM armed on the preemption timer in this thread, or why they cannot be counted
    armed: Result<TracepointCount, Unknown>,
}

/// Runs the guest in this thread.
pub(crate) fn probe(plan: &ProbePlan) -> Result<ProbeOutcome> {
    let machine = Machine::new(&machine::open_kvm()?, 1)?;
    let tsc_khz = machine.vcpus[0].get_tsc_khz().context("ask KVM for the TSC frequency")?;
    let armed = TracepointCount::start(&Roots::default().sys, "kvm/kvm_hv_timer_state", "hv_timer_in_use == 1");
    let mut trial = Trial { machine, limit: plan.limit, tsc_khz, armed };
    let timers = watched(PATIENCE, |stop, progress| {
        let mut timers = Vec::new();
        for offset_ms in OFFSETS_MS.into_iter().cycle().take(plan.timers) {
            timers.push(trial.attempt(offset_ms, stop)?);
            // The receiver lives as long as this function runs.
            let _ = progress.send(());
        }
        Ok(timers)
    })?;
    let why_unseen = match &trial.armed {
        Ok(_) => "the kernel does not tell the count of kvm_hv_timer_state".to_owned(),
        Err(why) => format!("no timer fired, and whether KVM armed the preemption timer was not seen: {why}"),
    };
    let extension = GuestHost::probe(Path::new("/sys")).extension;
    Ok(ProbeOutcome {
        verdict: verdict::judge(&timers, &why_unseen),
        limit: Some(plan.limit),
        tsc_khz: Some(tsc_khz),
        tgid: std::process::id(),
        expects: expectation::of_far_timers(timers.len() as u64, verdict::count_early(&timers), extension),
        timers,
    })
}

impl Trial {
    /// Arms one timer, waits for it, and disarms it.
    fn attempt(&mut self, offset_ms: u32, stop: &AtomicBool) -> Result<Attempt> {
        self.prepare(offset_ms)?;
        let before = self.armed();
        match vcpu::run_to_end(&mut self.machine.vcpus[0], 0, Intervention::None, stop)? {
            End::Done(_) => {}
            End::Stopped { location } => bail!("hung for {} s at {location}", PATIENCE.as_secs()),
        }
        let fired = image::read_progress(&self.machine.memory, 0)?.interrupts > 0;
        let waited = image::read_waited(&self.machine.memory, 0)?;
        Ok(Attempt {
            offset_ns: u64::from(offset_ms) * 1_000_000,
            after_ns: fired.then(|| nanoseconds(waited, self.tsc_khz)),
            armed: before.zip(self.armed()).map(|(before, after)| after > before),
        })
    }

    /// Sets the vCPU to the beginning of its program.
    fn prepare(&self, offset_ms: u32) -> Result<()> {
        let cycles = |ms: u32| u64::from(self.tsc_khz) * u64::from(ms);
        let wait = u32::try_from(cycles(WAIT_MS)).context("use a TSC of more than 70 GHz")?;
        let memory = &self.machine.memory;
        image::reset_progress(memory, 0)?;
        image::write_far_timer(memory, 0, FarTimer { far: self.limit.saturating_add(cycles(offset_ms)), wait })?;
        let parameters = Parameters { program: ExerciseProgram::FarTimer, count: 1, delta: 1, round_trips: 0 };
        image::write_parameters(memory, 0, parameters)?;
        let vcpu = &self.machine.vcpus[0];
        start_in_protected_mode(vcpu, 0)?;
        vcpu.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE }).context("make the vCPU runnable")
    }

    /// Timers that KVM has armed on the preemption timer so far.
    fn armed(&self) -> Option<u64> {
        self.armed.as_ref().ok()?.read()
    }
}

/// ns of TSC cycles.
fn nanoseconds(cycles: u64, tsc_khz: u32) -> u64 {
    u64::try_from(u128::from(cycles) * 1_000_000 / u128::from(tsc_khz.max(1))).unwrap_or(u64::MAX)
}

/// Runs `work` in this thread, and stops its vCPU when it sends no progress for as long as `patience`.
fn watched<T>(patience: Duration, work: impl FnOnce(&AtomicBool, &mpsc::Sender<()>) -> Result<T>) -> Result<T> {
    kick::prepare()?;
    let (stop, tid) = (AtomicBool::new(false), kick::this_thread());
    thread::scope(|scope| {
        let (sender, progress) = mpsc::channel();
        let stop = &stop;
        scope.spawn(move || {
            let mut pause = patience;
            loop {
                match progress.recv_timeout(pause) {
                    Ok(()) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                    Err(RecvTimeoutError::Timeout) => {
                        stop.store(true, Ordering::Relaxed);
                        kick::send(tid);
                        pause = KICK_EVERY;
                    }
                }
            }
        });
        let result = work(stop, &sender);
        drop(sender);
        result
    })
}

impl fmt::Display for ProbeOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Attempt { offset_ns, after_ns, .. } in &self.timers {
            let ms = |ns: u64| ns as f64 / 1e6;
            write!(f, "exercise early: a timer {:.0} ms beyond the limit: ", ms(*offset_ns))?;
            match after_ns {
                Some(after) => writeln!(f, "interrupt after {:.3} ms", ms(*after))?,
                None => writeln!(f, "no interrupt within {WAIT_MS} ms")?,
            }
        }
        write!(f, "exercise early: {}", self.verdict_text())?;
        let expects: Vec<_> = self.expects.iter().map(Expectation::to_string).collect();
        if !expects.is_empty() {
            write!(f, "\nexercise early: a tracer should see: {}", expects.join(", "))?;
        }
        Ok(())
    }
}

impl ProbeOutcome {
    /// Whether it was seen that KVM did not arm the preemption timer for each timer.
    pub(crate) fn is_unarmed(&self) -> bool {
        verdict::is_unarmed(&self.timers)
    }

    /// The verdict for people, on one line.
    pub(crate) fn verdict_text(&self) -> String {
        let tried = counted(self.timers.len() as u64, "timer");
        match (&self.verdict, self.limit.zip(self.tsc_khz)) {
            (Verdict::Yes, Some((limit, khz))) => format!(
                "yes: {} of {tried} fired {:.1} s early",
                verdict::count_early(&self.timers),
                nanoseconds(limit, khz) as f64 / 1e9
            ),
            (Verdict::Yes, None) => "yes".into(),
            (Verdict::No, _) => format!("no: KVM armed the preemption timer for {tried}, and none fired early"),
            (Verdict::Unknown { why }, _) => format!("unknown: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::thread::{NanosleepRelativeResult, Timespec, nanosleep};

    use super::*;

    fn outcome(verdict: Verdict, after_ms: [Option<u64>; 3]) -> ProbeOutcome {
        let timers = OFFSETS_MS.into_iter().zip(after_ms).map(|(offset, after)| Attempt {
            offset_ns: u64::from(offset) * 1_000_000,
            after_ns: after.map(|ms| ms * 1_000_000),
            armed: Some(true),
        });
        // 2^32 ticks of a crystal of 25 MHz, at 2.0 GHz.
        ProbeOutcome {
            verdict,
            limit: Some(80 << 32),
            tsc_khz: Some(2_000_000),
            timers: timers.collect(),
            ..ProbeOutcome::not_tried("")
        }
    }

    #[test]
    fn text_has_a_line_for_each_timer_and_one_for_the_verdict() {
        assert_eq!(
            outcome(Verdict::Yes, [Some(4), None, Some(33)]).to_string(),
            "exercise early: a timer 5 ms beyond the limit: interrupt after 4.000 ms\n\
             exercise early: a timer 20 ms beyond the limit: no interrupt within 60 ms\n\
             exercise early: a timer 35 ms beyond the limit: interrupt after 33.000 ms\n\
             exercise early: yes: 2 of 3 timers fired 171.8 s early"
        );
        let no = outcome(Verdict::No, [None; 3]).verdict_text();
        assert_eq!(no, "no: KVM armed the preemption timer for 3 timers, and none fired early");
        assert_eq!(ProbeOutcome::not_tried("no VMX").to_string(), "exercise early: unknown: no VMX");
    }

    #[test]
    fn json_has_verdict_reason_and_timers() {
        let json = serde_json::to_value(outcome(Verdict::Yes, [Some(4), None, Some(33)])).unwrap();
        assert_eq!((&json["verdict"], &json["timers"][0]["after_ns"]), (&"yes".into(), &4_000_000.into()));
        assert!(json["timers"][1]["after_ns"].is_null());
        let json = serde_json::to_value(ProbeOutcome::not_tried("no VMX")).unwrap();
        assert_eq!((&json["verdict"], &json["why"]), (&"unknown".into(), &"no VMX".into()));
    }

    #[test]
    fn a_guest_that_makes_no_progress_is_stopped_and_kicked() {
        let patience = Duration::from_millis(50);
        let stopped = watched(patience, |stop, progress| {
            progress.send(()).unwrap();
            // As a vCPU in KVM_RUN, this returns early only if a signal interrupts it.
            let slept = nanosleep(&Timespec { tv_sec: 20, tv_nsec: 0 });
            Ok((stop.load(Ordering::Relaxed), matches!(slept, NanosleepRelativeResult::Interrupted(_))))
        });
        assert_eq!(stopped.unwrap(), (true, true));
        let quick = watched(Duration::from_secs(20), |stop, _| Ok(stop.load(Ordering::Relaxed)));
        assert!(!quick.unwrap());
    }
}
