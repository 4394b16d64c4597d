//! Watches running vCPUs: detects a hung one, stops all at the first failure, and checks that each did its work.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::image::{self, GuestProgress};
use super::kick;
use super::memory::Memory;
use super::outcome::{VcpuOutcome, counted};
use super::run::ExercisePlan;
use super::scenario::Scenario;
use super::vcpu::{End, RunTotals};

/// How long a guest may make no progress before it counts as hung, plus the time of one iteration.
const PATIENCE: Duration = Duration::from_secs(10);
/// A generous time for one unit of delta: 10 cycles of a 100 MHz TSC.
const DELTA_UNIT: Duration = Duration::from_nanos(100);
/// Time between checks of the progress: long, so that a run being measured is hardly disturbed.
const CHECK_EVERY: Duration = Duration::from_millis(500);
/// Time between kicks of a vCPU that must stop. It is kicked repeatedly because a kick between its check of `stop` and KVM_RUN
/// is lost.
const KICK_EVERY: Duration = Duration::from_millis(10);

/// A message from a vCPU's thread to the watch.
#[derive(Debug)]
pub(crate) enum VcpuReport {
    /// The thread is about to run the vCPU.
    Started {
        /// The vCPU's id.
        vcpu: u32,
        /// Thread id.
        tid: u32,
    },
    /// The thread has run the vCPU.
    Ended {
        /// The vCPU's id.
        vcpu: u32,
        /// How the run ended.
        end: Result<End>,
    },
}

/// Follows the vCPUs of one machine.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    memory: &'a Memory,
    plan: ExercisePlan,
    /// Set to make the vCPUs' threads stop.
    stop: &'a AtomicBool,
    vcpus: Vec<Watched>,
    /// The first failure; none so far.
    failure: Option<anyhow::Error>,
}

#[derive(Debug)]
struct Watched {
    /// None until its thread has started.
    tid: Option<u32>,
    state: State,
    progress: GuestProgress,
    progress_since: Instant,
}

#[derive(Debug)]
enum State {
    Running,
    Hung(Duration),
    Done(RunTotals),
    Stopped,
}

impl<'a> Watch<'a> {
    /// Watches the plan's vCPUs, whose threads end when `stop` is set.
    pub(crate) fn new(memory: &'a Memory, plan: ExercisePlan, stop: &'a AtomicBool) -> Self {
        let watched = |_| Watched {
            tid: None,
            state: State::Running,
            progress: GuestProgress::default(),
            progress_since: Instant::now(),
        };
        Self { memory, plan, stop, vcpus: (0..plan.vcpus).map(watched).collect(), failure: None }
    }

    /// Notes a failure and stops all vCPUs. Only the first failure is kept, because later ones may be its consequences.
    pub(crate) fn fail(&mut self, error: anyhow::Error) {
        self.failure.get_or_insert(error);
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Receives reports until every thread has ended, and returns the outcome of each vCPU. Call [`kick::prepare`] before.
    pub(crate) fn until_all_ended(mut self, reports: &Receiver<VcpuReport>) -> Result<Vec<VcpuOutcome>> {
        loop {
            let stopping = self.stop.load(Ordering::Relaxed);
            let pause = if stopping { KICK_EVERY } else { CHECK_EVERY };
            match reports.recv_timeout(pause) {
                Ok(report) => self.take(report),
                Err(RecvTimeoutError::Timeout) if stopping => self.kick(),
                Err(RecvTimeoutError::Timeout) => self.check_progress(Instant::now()),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        match self.failure {
            Some(failure) => Err(failure),
            None => self.outcomes(),
        }
    }

    fn take(&mut self, report: VcpuReport) {
        match report {
            VcpuReport::Started { vcpu, tid } => {
                self.vcpus[vcpu as usize].tid = Some(tid);
                self.vcpus[vcpu as usize].progress_since = Instant::now();
            }
            VcpuReport::Ended { vcpu, end } => {
                let state = match &end {
                    Ok(End::Done(run)) => State::Done(*run),
                    _ => State::Stopped,
                };
                let before = std::mem::replace(&mut self.vcpus[vcpu as usize].state, state);
                let failure = match (end, before) {
                    (Err(error), _) => error,
                    (Ok(End::Stopped { location }), State::Hung(time)) => {
                        anyhow!("hung for {:.1} s at {location}", time.as_secs_f64())
                    }
                    // The vCPU is done, or was stopped because of the failure of another one.
                    _ => return,
                };
                self.fail(failure.context(self.describe_progress(vcpu)));
            }
        }
    }

    /// "vcpu 0: 22 of 23 timers done, 22 interrupts taken"
    fn describe_progress(&self, vcpu: u32) -> String {
        let progress = self.progress(vcpu);
        let work = counted(self.plan.count, self.plan.scenario.work());
        let mut text = format!("vcpu {vcpu}: {} of {work} done", progress.iterations);
        let taken = [
            (self.plan.scenario.interrupts(), progress.interrupts, "interrupt"),
            (self.plan.scenario.nmis(), progress.nmis, "NMI"),
        ];
        for (_, taken, noun) in taken.into_iter().filter(|(each, ..)| *each > 0) {
            text += &format!(", {} taken", counted(taken.into(), noun));
        }
        if let Some(step) = progress.steps.last() {
            text += &format!(", last step {step}");
        }
        text
    }

    /// The vCPU's parameter block lies in the memory, which was sized for the plan's vCPUs. If it could not be read, this would
    /// look like no progress.
    fn progress(&self, vcpu: u32) -> GuestProgress {
        image::read_progress(self.memory, vcpu).unwrap_or_default()
    }

    fn check_progress(&mut self, now: Instant) {
        let patience = patience(self.plan);
        for id in 0..self.plan.vcpus {
            let progress = self.progress(id);
            let vcpu = &mut self.vcpus[id as usize];
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
        let outcome = |id: u32, vcpu: &Watched| {
            let tid = vcpu.tid.context("its thread never started")?;
            let State::Done(run) = vcpu.state else {
                return Err(anyhow!("its thread ended without a report"));
            };
            let progress = image::read_progress(self.memory, id)?;
            check(self.plan, progress)?;
            Ok(VcpuOutcome {
                vcpu: id,
                tid,
                user_exits: run.user_exits,
                interrupts: progress.interrupts.into(),
                nmis: progress.nmis.into(),
                guest_tsc: progress.last_tsc.wrapping_sub(progress.first_tsc),
                run_ns: run.run_ns,
                cpu_ns: run.cpu_ns,
                user_ns: run.user_ns,
                statistics: run.statistics,
            })
        };
        (0..).zip(&self.vcpus).map(|(id, vcpu)| outcome(id, vcpu).with_context(|| format!("vcpu {id}"))).collect()
    }
}

/// How long an iteration may take. One of `nested-armed` does not wait for its timer.
fn patience(plan: ExercisePlan) -> Duration {
    match plan.scenario {
        Scenario::NestedArmed => PATIENCE,
        _ => PATIENCE + DELTA_UNIT * plan.first_delta(),
    }
}

/// Checks that a guest that has ended did all of its work.
fn check(plan: ExercisePlan, progress: GuestProgress) -> Result<()> {
    let (ExercisePlan { scenario, count, .. }, delta) = (plan, plan.first_delta());
    let done = u64::from(progress.iterations);
    if scenario.is_nested() && done < count {
        bail!("{}; {done} of {} done", progress.steps, counted(count, scenario.work()));
    }
    ensure!(done == count, "guest did {done} of {}", counted(count, scenario.work()));
    let noun = if scenario.has_timers() { "timer interrupt" } else { "interrupt" };
    for (each, taken, noun) in
        [(scenario.interrupts(), progress.interrupts, noun), (scenario.nmis(), progress.nmis, "NMI")]
    {
        let (wanted, taken) = (each * count, u64::from(taken));
        ensure!(each == 0 || taken == wanted, "guest took {taken} of {}", counted(wanted, noun));
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

    const PLAN: ExercisePlan =
        ExercisePlan { scenario: Scenario::TscDeadline, count: 23, vcpus: 2, delta: Some(200_000) };
    const ALL_DONE: GuestProgress = GuestProgress {
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
        Ok(End::Done(RunTotals { user_exits: 1, run_ns: 5, cpu_ns: 4, user_ns: 0, statistics: None }))
    }

    fn stopped() -> Result<End> {
        let location = "RIP 0x1080".into();
        Ok(End::Stopped { location })
    }

    #[test]
    fn a_guest_that_missed_an_interrupt_is_an_error() {
        check(PLAN, ALL_DONE).unwrap();
        let short = GuestProgress { interrupts: 22, ..ALL_DONE };
        let error = check(PLAN, short).unwrap_err().to_string();
        assert_eq!(error, "guest took 22 of 23 timer interrupts");
    }

    #[test]
    fn a_guest_that_did_not_do_its_work_is_an_error() {
        let short = GuestProgress { iterations: 1, ..ALL_DONE };
        let error = check(PLAN, short).unwrap_err().to_string();
        assert_eq!(error, "guest did 1 of 23 timers");
    }

    #[test]
    fn nmis_count_for_immediate_exits_only() {
        let plan = ExercisePlan { scenario: Scenario::Immediate, ..PLAN };
        let error = check(plan, ALL_DONE).unwrap_err().to_string();
        assert_eq!(error, "guest took 0 of 23 NMIs");
    }

    #[test]
    fn a_failed_hypervisor_is_reported_by_its_last_step() {
        let plan = ExercisePlan { scenario: Scenario::Nested, ..PLAN };
        check(plan, ALL_DONE).unwrap();
        let steps = Steps { stage: Stage::Vmresume as u32, instruction_error: 5, exit_reason: 18 };
        let short = GuestProgress { iterations: 2, steps, ..ALL_DONE };
        let error = check(plan, short).unwrap_err().to_string();
        assert_eq!(error, "VMRESUME failed in stage 6: VM-instruction error 5; 2 of 23 L2 exits done");
    }

    #[test]
    fn a_timer_that_expired_before_the_end_is_an_error() {
        let plan = ExercisePlan { scenario: Scenario::NestedArmed, ..PLAN };
        check(plan, GuestProgress { last_tsc: 199_999, ..ALL_DONE }).unwrap();
        let error = check(plan, GuestProgress { last_tsc: 200_000, ..ALL_DONE }).unwrap_err().to_string();
        assert!(error.starts_with("guest took 200000 TSC cycles, but its timer expired after 200000"), "{error}");
    }

    #[test]
    fn the_far_timer_of_nested_armed_does_not_extend_the_patience() {
        let plan = ExercisePlan { scenario: Scenario::NestedArmed, delta: None, ..PLAN };
        assert_eq!(patience(plan), PATIENCE);
    }

    #[test]
    fn a_hung_vcpu_stops_all_and_is_the_one_reported() {
        let (memory, stop) = (memory(), AtomicBool::new(false));
        let mut watch = Watch::new(&memory, PLAN, &stop);
        // There is no such thread, so a kick has no effect.
        let tid = u32::MAX >> 1;
        watch.take(VcpuReport::Started { vcpu: 0, tid });
        watch.take(VcpuReport::Started { vcpu: 1, tid });
        let start = Instant::now();
        watch.check_progress(start);
        assert!(!stop.load(Ordering::Relaxed));

        // vCPU 0 makes progress, vCPU 1 does not.
        let iterations = image::parameter_block(0) + 0x10;
        memory.write_u32(iterations, 5).unwrap();
        watch.check_progress(start + PATIENCE + Duration::from_secs(5));
        assert!(stop.load(Ordering::Relaxed));

        let (sender, reports) = mpsc::channel();
        for vcpu in [0, 1] {
            let end = stopped();
            sender.send(VcpuReport::Ended { vcpu, end }).unwrap();
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
        sender.send(VcpuReport::Ended { vcpu: 0, end }).unwrap();
        let end = stopped();
        sender.send(VcpuReport::Ended { vcpu: 1, end }).unwrap();
        drop(sender);
        let error = format!("{:#}", watch.until_all_ended(&reports).unwrap_err());
        assert!(stop.load(Ordering::Relaxed));
        assert!(error.starts_with("vcpu 0: "), "{error}");
        assert!(error.ends_with(": guest shut down"), "{error}");
    }

    #[test]
    fn a_thread_that_ends_without_a_report_is_an_error() {
        let (memory, stop) = (memory(), AtomicBool::new(false));
        let watch = Watch::new(&memory, PLAN, &stop);
        let (sender, reports) = mpsc::channel();
        sender.send(VcpuReport::Started { vcpu: 0, tid: 1 }).unwrap();
        drop(sender);
        let error = format!("{:#}", watch.until_all_ended(&reports).unwrap_err());
        assert_eq!(error, "vcpu 0: its thread ended without a report");
    }

    #[test]
    fn each_vcpu_is_reported_with_its_own_figures() {
        let (memory, stop) = (memory(), AtomicBool::new(false));
        let watch = Watch::new(&memory, PLAN, &stop);
        let (sender, reports) = mpsc::channel();
        for vcpu in [0, 1] {
            let block = image::parameter_block(vcpu);
            memory.write_u32(block + 0x10, 23).unwrap();
            memory.write_u32(block + 0x14, 23).unwrap();
            memory.write_u32(block + 0x20, 100).unwrap();
            memory.write_u32(block + 0x28, 107 + vcpu).unwrap();
            let tid = 200 + vcpu;
            sender.send(VcpuReport::Started { vcpu, tid }).unwrap();
            let end = done();
            sender.send(VcpuReport::Ended { vcpu, end }).unwrap();
        }
        drop(sender);
        let outcomes = watch.until_all_ended(&reports).unwrap();
        let figures: Vec<_> = outcomes.iter().map(|o| (o.tid, o.guest_tsc)).collect();
        assert_eq!(figures, [(200, 7), (201, 8)]);
        assert_eq!(outcomes[1].interrupts, 23);
    }
}
