//! The watch over running vCPUs: it notices the hung ones, stops all at the first failure, and checks what they did.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::image::{self, Progress};
use super::kick;
use super::memory::Memory;
use super::outcome::{VcpuOutcome, counted};
use super::run::Plan;
use super::scenario::Scenario;
use super::vcpu::{End, Run};

/// How long a guest may show no progress before it counts as hung, the time of one iteration not included.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time for one unit of delta, generously: 10 cycles of a TSC of 100 MHz.
const DELTA_UNIT: Duration = Duration::from_nanos(100);
/// How often progress is looked at: rarely, so as not to disturb a run that is measured.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often a vCPU that must stop is kicked: a kick between its check of the flag and KVM_RUN is lost.
const KICK_EVERY: Duration = Duration::from_millis(10);

/// What a vCPU's thread tells the watch.
#[derive(Debug)]
pub enum Report {
    /// It is about to run the vCPU.
    Started {
        /// The vCPU's id.
        vcpu: usize,
        /// The thread's id.
        tid: u32,
    },
    /// It has run the vCPU.
    Ended {
        /// The vCPU's id.
        vcpu: usize,
        /// How that went.
        end: Result<End>,
    },
}

/// Follows the vCPUs of one machine.
#[derive(Debug)]
pub struct Watch<'a> {
    memory: &'a Memory,
    plan: Plan,
    /// Tells the vCPUs' threads to stop.
    stop: &'a AtomicBool,
    vcpus: Vec<Watched>,
    /// The first failure; none while all is well.
    failure: Option<anyhow::Error>,
}

#[derive(Debug)]
struct Watched {
    /// None before its thread has started.
    tid: Option<u32>,
    state: State,
    progress: Progress,
    progress_since: Instant,
}

#[derive(Debug)]
enum State {
    Running,
    Hung(Duration),
    Done(Run),
    Stopped,
}

impl<'a> Watch<'a> {
    /// A watch over as many vCPUs as the plan has; `stop` is what their threads obey.
    pub fn new(memory: &'a Memory, plan: Plan, stop: &'a AtomicBool) -> Self {
        let watched = |_| Watched {
            tid: None,
            state: State::Running,
            progress: Progress::default(),
            progress_since: Instant::now(),
        };
        Self { memory, plan, stop, vcpus: (0..plan.vcpus).map(watched).collect(), failure: None }
    }

    /// Notes a failure and makes all vCPUs stop. Only the first failure is kept: later ones may follow from it.
    pub fn fail(&mut self, error: anyhow::Error) {
        self.failure.get_or_insert(error);
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Takes reports until no thread can send any more, then says what each vCPU did. Call [`kick::prepare`] before.
    pub fn until_all_ended(mut self, reports: &Receiver<Report>) -> Result<Vec<VcpuOutcome>> {
        loop {
            let stopping = self.stop.load(Ordering::Relaxed);
            let pause = if stopping { KICK_EVERY } else { LOOK_EVERY };
            match reports.recv_timeout(pause) {
                Ok(report) => self.take(report),
                Err(RecvTimeoutError::Timeout) if stopping => self.kick(),
                Err(RecvTimeoutError::Timeout) => self.look(Instant::now()),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        match self.failure {
            Some(failure) => Err(failure),
            None => self.outcomes(),
        }
    }

    fn take(&mut self, report: Report) {
        match report {
            Report::Started { vcpu, tid } => {
                self.vcpus[vcpu].tid = Some(tid);
                self.vcpus[vcpu].progress_since = Instant::now();
            }
            Report::Ended { vcpu, end } => {
                let state = match &end {
                    Ok(End::Done(run)) => State::Done(*run),
                    _ => State::Stopped,
                };
                let before = std::mem::replace(&mut self.vcpus[vcpu].state, state);
                let failure = match (end, before) {
                    (Err(error), _) => error,
                    (Ok(End::Stopped { location }), State::Hung(time)) => {
                        anyhow!("hung for {:.1} s at {location}", time.as_secs_f64())
                    }
                    // Done; or stopped because of another vCPU, whose failure this is.
                    _ => return,
                };
                self.fail(failure.context(self.tale(vcpu)));
            }
        }
    }

    /// "vcpu 0: 22 of 23 timers done, 22 interrupts taken"
    fn tale(&self, vcpu: usize) -> String {
        let progress = self.progress(vcpu);
        let work = counted(self.plan.count, self.plan.scenario.work());
        let mut tale = format!("vcpu {vcpu}: {} of {work} done", progress.iterations);
        if self.plan.scenario.has_timers() || self.plan.scenario == Scenario::Immediate {
            let interrupts = counted(progress.interrupts.into(), "interrupt");
            tale += &format!(", {interrupts} taken");
        }
        if self.plan.scenario == Scenario::Immediate {
            let nmis = counted(progress.nmis.into(), "NMI");
            tale += &format!(", {nmis} taken");
        }
        if let Some(step) = progress.steps.last() {
            tale += &format!(", last step {step}");
        }
        tale
    }

    /// The block is inside the memory by the plan's own count of vCPUs; a wrong one would show as no progress.
    fn progress(&self, vcpu: usize) -> Progress {
        image::read_progress(self.memory, vcpu as u32).unwrap_or_default()
    }

    fn look(&mut self, now: Instant) {
        let patience = patience(self.plan);
        for id in 0..self.vcpus.len() {
            let progress = self.progress(id);
            let vcpu = &mut self.vcpus[id];
            if !matches!(vcpu.state, State::Running) || vcpu.tid.is_none() {
                continue;
            }
            if progress != vcpu.progress {
                vcpu.progress = progress;
                vcpu.progress_since = now;
            }
            let quiet = now.saturating_duration_since(vcpu.progress_since);
            if quiet > patience {
                vcpu.state = State::Hung(quiet);
                self.stop.store(true, Ordering::Relaxed);
            }
        }
    }

    fn kick(&self) {
        for vcpu in &self.vcpus {
            if let (Some(tid), State::Running | State::Hung(_)) = (vcpu.tid, &vcpu.state) {
                kick::send(tid);
            }
        }
    }

    fn outcomes(&self) -> Result<Vec<VcpuOutcome>> {
        let outcome = |id: usize, vcpu: &Watched| {
            let tid = vcpu.tid.context("its thread never started")?;
            let State::Done(run) = vcpu.state else {
                return Err(anyhow!("its thread ended without a report"));
            };
            let progress = image::read_progress(self.memory, id as u32)?;
            check(self.plan, progress)?;
            Ok(VcpuOutcome {
                vcpu: id as u32,
                tid,
                user_exits: run.user_exits,
                interrupts: progress.interrupts.into(),
                nmis: progress.nmis.into(),
                guest_tsc: progress.last_tsc.wrapping_sub(progress.first_tsc),
                run_ns: run.run_ns,
                cpu_ns: run.cpu_ns,
            })
        };
        (self.vcpus.iter().enumerate())
            .map(|(id, vcpu)| outcome(id, vcpu).with_context(|| format!("vcpu {id}")))
            .collect()
    }
}

/// How long an iteration may take; that of `nested-armed` does not wait for its timer.
fn patience(plan: Plan) -> Duration {
    match plan.scenario {
        Scenario::NestedArmed => PATIENCE,
        _ => PATIENCE + DELTA_UNIT * plan.delta,
    }
}

/// Whether a guest that came to its end did all of its work.
fn check(plan: Plan, progress: Progress) -> Result<()> {
    let Plan { scenario, count, delta, .. } = plan;
    let done = u64::from(progress.iterations);
    if scenario.is_nested() && done < count {
        bail!("{}; {done} of {} done", progress.steps, counted(count, scenario.work()));
    }
    ensure!(done == count, "guest did {done} of {}", counted(count, scenario.work()));
    let injected = scenario == Scenario::Immediate;
    if injected || scenario.has_timers() {
        let kind = if injected { "injected" } else { "timer" };
        let taken = u64::from(progress.interrupts);
        ensure!(taken == count, "guest took {taken} of {}", counted(count, &format!("{kind} interrupt")));
    }
    if injected {
        let taken = u64::from(progress.nmis);
        ensure!(taken == count, "guest took {taken} of {}", counted(count, "NMI"));
    }
    if scenario == Scenario::NestedArmed {
        let took = progress.last_tsc.wrapping_sub(progress.first_tsc);
        ensure!(
            took < u64::from(delta),
            "guest took {took} TSC cycles, but its timer expired after {delta}: use a smaller --count or a \
             larger --delta"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::hypervisor::{Stage, Steps};
    use super::*;
    use std::sync::mpsc;

    const PLAN: Plan = Plan { scenario: Scenario::TscDeadline, count: 23, vcpus: 2, delta: 200_000 };
    const ALL_DONE: Progress = Progress {
        iterations: 23,
        interrupts: 23,
        nmis: 0,
        first_tsc: 0,
        last_tsc: 0,
        steps: Steps { stage: 0, instruction_error: 0, exit_reason: 0 },
    };

    fn memory() -> Memory {
        Memory::new(image::memory_size(PLAN.vcpus)).unwrap()
    }

    fn done() -> Result<End> {
        Ok(End::Done(Run { user_exits: 1, run_ns: 5, cpu_ns: 4 }))
    }

    fn stopped() -> Result<End> {
        let location = "RIP 0x1080".into();
        Ok(End::Stopped { location })
    }

    #[test]
    fn a_guest_that_missed_an_interrupt_is_an_error() {
        check(PLAN, ALL_DONE).unwrap();
        let short = Progress { interrupts: 22, ..ALL_DONE };
        let error = check(PLAN, short).unwrap_err().to_string();
        assert_eq!(error, "guest took 22 of 23 timer interrupts");
    }

    #[test]
    fn a_guest_that_did_not_do_its_work_is_an_error() {
        let short = Progress { iterations: 1, ..ALL_DONE };
        let error = check(PLAN, short).unwrap_err().to_string();
        assert_eq!(error, "guest did 1 of 23 timers");
    }

    #[test]
    fn nmis_count_for_immediate_exits_only() {
        let plan = Plan { scenario: Scenario::Immediate, ..PLAN };
        let error = check(plan, ALL_DONE).unwrap_err().to_string();
        assert_eq!(error, "guest took 0 of 23 NMIs");
    }

    #[test]
    fn a_hypervisor_that_failed_is_told_by_its_last_step() {
        let plan = Plan { scenario: Scenario::Nested, ..PLAN };
        check(plan, ALL_DONE).unwrap();
        let steps = Steps { stage: Stage::Vmresume as u32, instruction_error: 5, exit_reason: 18 };
        let short = Progress { iterations: 2, steps, ..ALL_DONE };
        let error = check(plan, short).unwrap_err().to_string();
        assert_eq!(error, "VMRESUME failed in stage 6: VM-instruction error 5; 2 of 23 L2 exits done");
    }

    #[test]
    fn a_timer_that_expired_before_the_end_was_not_armed_all_the_time() {
        let plan = Plan { scenario: Scenario::NestedArmed, ..PLAN };
        check(plan, Progress { last_tsc: 199_999, ..ALL_DONE }).unwrap();
        let error = check(plan, Progress { last_tsc: 200_000, ..ALL_DONE }).unwrap_err().to_string();
        assert!(error.starts_with("guest took 200000 TSC cycles, but its timer expired after 200000"), "{error}");
    }

    #[test]
    fn an_armed_timer_does_not_make_the_watch_wait() {
        let plan = Plan { scenario: Scenario::NestedArmed, delta: u32::MAX, ..PLAN };
        assert_eq!(patience(plan), PATIENCE);
    }

    #[test]
    fn a_hung_guest_stops_all_and_is_the_one_reported() {
        let (memory, stop) = (memory(), AtomicBool::new(false));
        let mut watch = Watch::new(&memory, PLAN, &stop);
        // No such thread: a kick goes nowhere.
        let tid = u32::MAX >> 1;
        watch.take(Report::Started { vcpu: 0, tid });
        watch.take(Report::Started { vcpu: 1, tid });
        let start = Instant::now();
        watch.look(start);
        assert!(!stop.load(Ordering::Relaxed));

        // vCPU 0 gets on, vCPU 1 does not.
        let iterations = image::parameter_block(0) + 0x10;
        memory.write_u32(iterations, 5).unwrap();
        watch.look(start + PATIENCE + Duration::from_secs(5));
        assert!(stop.load(Ordering::Relaxed));

        let (sender, reports) = mpsc::channel();
        for vcpu in [0, 1] {
            let end = stopped();
            sender.send(Report::Ended { vcpu, end }).unwrap();
        }
        drop(sender);
        let error = format!("{:#}", watch.until_all_ended(&reports).unwrap_err());
        assert!(error.starts_with("vcpu 1: 0 of 23 timers done, 0 interrupts taken: hung for 15"), "{error}");
        assert!(error.ends_with("at RIP 0x1080"), "{error}");
    }

    #[test]
    fn a_failed_vcpu_stops_the_others_and_its_error_is_kept() {
        let (memory, stop) = (memory(), AtomicBool::new(false));
        let watch = Watch::new(&memory, PLAN, &stop);
        let (sender, reports) = mpsc::channel();
        let end = Err(anyhow!("guest shut down"));
        sender.send(Report::Ended { vcpu: 0, end }).unwrap();
        let end = stopped();
        sender.send(Report::Ended { vcpu: 1, end }).unwrap();
        drop(sender);
        let error = format!("{:#}", watch.until_all_ended(&reports).unwrap_err());
        assert!(stop.load(Ordering::Relaxed));
        assert!(error.starts_with("vcpu 0: "), "{error}");
        assert!(error.ends_with(": guest shut down"), "{error}");
    }

    #[test]
    fn a_thread_that_vanished_is_an_error() {
        let (memory, stop) = (memory(), AtomicBool::new(false));
        let watch = Watch::new(&memory, PLAN, &stop);
        let (sender, reports) = mpsc::channel();
        sender.send(Report::Started { vcpu: 0, tid: 1 }).unwrap();
        drop(sender);
        let error = format!("{:#}", watch.until_all_ended(&reports).unwrap_err());
        assert_eq!(error, "vcpu 0: its thread ended without a report");
    }

    #[test]
    fn each_vcpu_that_did_its_work_is_reported_with_its_own_figures() {
        let (memory, stop) = (memory(), AtomicBool::new(false));
        let watch = Watch::new(&memory, PLAN, &stop);
        let (sender, reports) = mpsc::channel();
        for vcpu in [0, 1] {
            let block = image::parameter_block(vcpu);
            memory.write_u32(block + 0x10, 23).unwrap();
            memory.write_u32(block + 0x14, 23).unwrap();
            memory.write_u32(block + 0x20, 100).unwrap();
            memory.write_u32(block + 0x28, 107 + vcpu).unwrap();
            let vcpu = vcpu as usize;
            let tid = 200 + vcpu as u32;
            sender.send(Report::Started { vcpu, tid }).unwrap();
            let end = done();
            sender.send(Report::Ended { vcpu, end }).unwrap();
        }
        drop(sender);
        let outcomes = watch.until_all_ended(&reports).unwrap();
        let figures: Vec<_> = outcomes.iter().map(|o| (o.tid, o.guest_tsc)).collect();
        assert_eq!(figures, [(200, 7), (201, 8)]);
        assert_eq!(outcomes[1].interrupts, 23);
    }
}
