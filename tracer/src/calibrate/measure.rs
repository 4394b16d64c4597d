//! Measures a whole calibration: every exit under each policy, then the cost of control writes.

use std::ops::RangeInclusive;

use anyhow::Result;
use tracer_common::Isa;

use super::{
    bench::{Bench, Traced},
    exits::Exit,
    sample::{Excluded, Sample},
    summary::{CostRound, Distribution, ExitCost, ExitSource, WriteCost, entries_after, mean_of_medians, median},
};
use crate::{
    guest::{
        GuestHost,
        calibration::{CalibrationProgram, Step},
    },
    host::policy::Restore,
    model::policy::Policy,
};

/// Rounds of an experiment. The third and the tenth of 12 medians contain the true median with 96 %.
const ROUNDS: u32 = 12;
/// Iterations of a window.
const WINDOW: RangeInclusive<u64> = 40..=500;

/// How execution-control writes are caused.
const BY_DEBUG_REGISTER: &str = "caused by a guest that accesses a debug register: KVM writes the execution controls at the exit after \
                                 the access. Entries after the first CPUID since then are compared with those after the second; the \
                                 VMWRITE itself is not part of the entry";
/// How pin-control writes are caused.
const BY_POLICY: &str = "caused by a guest that arms and cancels a TSC deadline, under the hard policy and the soft one alternately \
                         (ABBA). The VMWRITE and its effect on the VM entry are both part of the entry. Under both policies, so is a \
                         write of the timer's value";

/// The exits to measure, and the guest that makes them.
pub(crate) struct CalibrationPlan {
    /// the exits to measure
    pub(crate) exits: Vec<Exit>,
    /// samples of each exit, traced and again untraced
    pub(crate) samples: u64,
    /// the properties of the host that decide how the guest exits
    pub(crate) host: GuestHost,
    /// the ISA of the exit reasons
    pub(crate) isa: Isa,
    /// the timer policy in force
    pub(crate) policy: Policy,
    /// the reason why policies cannot be switched; none if they can
    pub(crate) one_policy: Option<String>,
}

/// The results so far.
#[derive(Default)]
pub(crate) struct Measured {
    /// by policy and exit
    pub(crate) exits: Vec<ExitCost>,
    /// by control
    pub(crate) writes: Vec<WriteCost>,
    /// TSC frequency relative to CLOCK_MONOTONIC, kHz
    pub(crate) khz: f64,
    /// largest bound of the clocks' error, cycles
    pub(crate) clock_error: f64,
}

/// Measures everything in the plan, or as much as is complete when the bench is stopped. Calls `announce` with each next step.
pub(crate) fn all(
    bench: &mut Bench<'_>,
    plan: &CalibrationPlan,
    measured: &mut Measured,
    announce: &dyn Fn(String),
) -> Result<()> {
    let result = measure(bench, plan, measured, announce);
    measured.khz = bench.khz().unwrap_or(0.0);
    result
}

fn measure(
    bench: &mut Bench<'_>,
    plan: &CalibrationPlan,
    measured: &mut Measured,
    announce: &dyn Fn(String),
) -> Result<()> {
    if let Some(why) = &plan.one_policy {
        exits(bench, plan, plan.policy, measured, announce)?;
        measured.writes.push(WriteCost::unavailable("pin", BY_POLICY, why.clone()));
    } else {
        let switch = Restore::after(Policy::Soft)?;
        exits(bench, plan, Policy::Soft, measured, announce)?;
        switch.switch(Policy::Hard)?;
        exits(bench, plan, Policy::Hard, measured, announce)?;
        announce("pin-control writes".into());
        let cost = pin_writes(bench, plan, &switch, measured)?;
        switch.restore()?;
        measured.writes.push(cost);
    }
    announce("execution-control writes".into());
    let cost = exec_writes(bench, plan, measured)?;
    measured.writes.push(cost);
    Ok(())
}

fn exits(
    bench: &mut Bench<'_>,
    plan: &CalibrationPlan,
    policy: Policy,
    measured: &mut Measured,
    announce: &dyn Fn(String),
) -> Result<()> {
    for exit in &plan.exits {
        announce(match plan.one_policy {
            Some(_) => exit.name().to_owned(),
            None => format!("{} ({})", exit.name(), policy.name()),
        });
        let cost = match exit.unavailable(plan.host) {
            Some(why) => ExitCost::unavailable(exit.name(), policy, why),
            None => self::exit(bench, plan, *exit, policy, measured)?,
        };
        measured.exits.push(cost);
    }
    Ok(())
}

/// Measures one exit: untraced, traced, traced, untraced, so that a drift affects both alike.
fn exit(
    bench: &mut Bench<'_>,
    plan: &CalibrationPlan,
    exit: Exit,
    policy: Policy,
    measured: &mut Measured,
) -> Result<ExitCost> {
    let program = exit.program(plan.host);
    let reasons = exit.reasons(plan.isa);
    let halves = [plan.samples / 2, plan.samples - plan.samples / 2];
    let first = bench.untraced(program, halves[0])?;
    let mut traced = Traced::default();
    for half in halves {
        let Traced { samples, round_trips, immediate } = bench.traced(program, half, &reasons)?;
        traced.samples.add(samples);
        traced.round_trips.extend(round_trips);
        traced.immediate.extend(immediate);
    }
    let last = bench.untraced(program, halves[1])?;
    let untraced = [first.round_trips, last.round_trips].concat();

    measured.clock_error = measured.clock_error.max(traced.samples.clock_error);
    if exit == Exit::Immediate {
        // The samples are of the port write, and after it the guest first runs an interrupt handler, without a stamp.
        traced.samples.discard();
    }
    let khz = bench.khz().unwrap_or(0.0);
    let stopwatch = traced.samples.samples.iter().filter_map(|s| s.stopwatch_ns).map(|ns| f64::from(ns) * khz / 1e6);
    let transition = Distribution::of(stopwatch).or_else(|| Distribution::of(traced.immediate.iter().copied()));
    let source = ExitSource { samples: &traced.samples, traced: &traced.round_trips, untraced: &untraced };
    let mut cost = ExitCost::of(exit.name(), policy, source);
    cost.transition = transition;
    cost.waits = exit == Exit::Hlt;
    // Only of an exit that is all that an iteration does.
    cost.per_iteration =
        exit.unit_test().map(|_| (first.cycles + last.cycles) as f64 / (first.iterations + last.iterations) as f64);
    Ok(cost)
}

/// An experiment that compares VM entries after a control write with entries without one.
#[derive(Default)]
struct Experiment {
    rounds: Vec<CostRound>,
    /// VM-entry latencies after a write, cycles
    dirty: Vec<f64>,
    /// VM-entry latencies without a write, cycles
    clean: Vec<f64>,
    /// entries with a write where none was expected, or the reverse
    unexpected: u64,
    excluded: Excluded,
}

impl Experiment {
    /// Runs a traced window and returns its samples.
    fn trace(
        &mut self,
        bench: &mut Bench<'_>,
        program: CalibrationProgram,
        window: u64,
        measured: &mut Measured,
    ) -> Result<Vec<Sample>> {
        let traced = bench.traced(program, window, &[])?;
        measured.clock_error = measured.clock_error.max(traced.samples.clock_error);
        self.excluded.add(traced.samples.excluded);
        Ok(traced.samples.samples)
    }

    fn cost(self, control: &'static str, how: &'static str, none_seen: &str) -> WriteCost {
        if self.rounds.is_empty() {
            return WriteCost::unavailable(control, how, none_seen.into());
        }
        let Self { rounds, dirty, clean, unexpected, excluded } = self;
        WriteCost { unexpected, excluded, ..WriteCost::of(control, how, &rounds, &dirty, &clean) }
    }
}

/// Iterations of each of `windows` windows per round.
fn window(plan: &CalibrationPlan, windows: u64) -> u64 {
    (plan.samples / (windows * u64::from(ROUNDS))).clamp(*WINDOW.start(), *WINDOW.end())
}

/// Compares entries after the first CPUID since an access to a debug register with those after the second. Those after the third
/// are the control.
fn exec_writes(bench: &mut Bench<'_>, plan: &CalibrationPlan, measured: &mut Measured) -> Result<WriteCost> {
    if plan.isa != Isa::Vmx {
        let why = "only VMX has execution controls in a VMCS".into();
        return Ok(WriteCost::unavailable("exec", BY_DEBUG_REGISTER, why));
    }
    let mut experiment = Experiment::default();
    for _ in 0..ROUNDS {
        let samples = experiment.trace(bench, CalibrationProgram::Debug, window(plan, 1), measured)?;
        let written = |s: &Sample| s.exec_written == Some(true) && s.pin_writes.unwrap_or(0) == 0;
        let unwritten = |s: &Sample| s.exec_written == Some(false) && s.pin_writes.unwrap_or(0) == 0;
        let first = entries_after(&samples, Step::After, written);
        let second = entries_after(&samples, Step::After2, unwritten);
        let third = entries_after(&samples, Step::After3, unwritten);
        let after = samples.iter().filter(|s| s.step != Step::Debug).count();
        experiment.unexpected += (after - first.len() - second.len() - third.len()) as u64;
        let medians = [&first, &second, &third].map(|values| median(values.iter().copied()));
        if let [Some(dirty), Some(clean), control] = medians {
            experiment.rounds.push(CostRound { dirty, clean, control, untraced: None });
        }
        experiment.dirty.extend(first);
        experiment.clean.extend(second);
    }
    Ok(experiment.cost(
        "exec",
        BY_DEBUG_REGISTER,
        "no write was seen where one was caused: controls_shadow.exec is not in this kernel's BTF, or KVM handles debug registers in \
         another way",
    ))
}

/// Policies in the order of a round's windows.
const ABBA: [Policy; 4] = [Policy::Soft, Policy::Hard, Policy::Hard, Policy::Soft];

/// Values by policy (soft, hard) and timer access (armed, cancelled).
type ByPolicy = [[Vec<f64>; 2]; 2];

/// Compares entries after a timer was armed or cancelled under the hard policy with those under the soft one.
fn pin_writes(
    bench: &mut Bench<'_>,
    plan: &CalibrationPlan,
    switch: &Restore,
    measured: &mut Measured,
) -> Result<WriteCost> {
    let window = window(plan, 2);
    let mut experiment = Experiment::default();
    for _ in 0..ROUNDS {
        let trips = toggle_untraced(bench, switch, window)?;
        let mut entries = ByPolicy::default();
        // Entries without a write under either policy, which show the effect of the switch alone.
        let mut others = [Vec::new(), Vec::new()];
        for policy in ABBA {
            switch.switch(policy)?;
            let hard = policy == Policy::Hard;
            for sample in experiment.trace(bench, CalibrationProgram::Toggle, window, measured)? {
                let written = sample.pin_writes.map(|writes| writes > 0);
                let values = match sample.step {
                    Step::Arm if written == Some(hard) => &mut entries[usize::from(hard)][0],
                    Step::Cancel if written == Some(hard) => &mut entries[usize::from(hard)][1],
                    Step::Arm | Step::Cancel => {
                        experiment.unexpected += 1;
                        continue;
                    }
                    _ if written == Some(false) => &mut others[usize::from(hard)],
                    _ => {
                        experiment.unexpected += 1;
                        continue;
                    }
                };
                values.push(sample.entry_latency);
            }
        }
        experiment.rounds.extend(policy_round(&entries, others, &trips));
        let [soft, hard] = entries;
        experiment.clean.extend(soft.concat());
        experiment.dirty.extend(hard.concat());
    }
    Ok(experiment.cost("pin", BY_POLICY, "no pin-control write was seen under the hard policy"))
}

/// Round trips of timers that are armed and cancelled without any program attached.
fn toggle_untraced(bench: &mut Bench<'_>, switch: &Restore, window: u64) -> Result<ByPolicy> {
    let mut trips = ByPolicy::default();
    for policy in ABBA {
        switch.switch(policy)?;
        let untraced = bench.untraced(CalibrationProgram::Toggle, window)?;
        // Round trips are listed in the order of the exits: armed, CPUID, cancelled, CPUID.
        for (n, cycles) in untraced.round_trips.iter().enumerate() {
            if n % 2 == 0 {
                trips[usize::from(policy == Policy::Hard)][n % 4 / 2].push(f64::from(*cycles));
            }
        }
    }
    Ok(trips)
}

/// The medians of a round; none if either policy has no entries.
fn policy_round(entries: &ByPolicy, others: [Vec<f64>; 2], trips: &ByPolicy) -> Option<CostRound> {
    let [soft, hard] = entries.each_ref().map(|[armed, cancelled]| mean_of_medians(armed, cancelled));
    let [soft_trip, hard_trip] = trips.each_ref().map(|[armed, cancelled]| mean_of_medians(armed, cancelled));
    let [soft_other, hard_other] = others.map(median);
    let (clean, dirty) = (soft?, hard?);
    // The clean entries, scaled by the ratio between the policies of entries without a write.
    let control = hard_other.zip(soft_other).map(|(hard, soft)| clean * hard / soft);
    Some(CostRound { dirty, clean, control, untraced: hard_trip.zip(soft_trip) })
}
