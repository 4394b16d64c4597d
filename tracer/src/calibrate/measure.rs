//! The whole of a calibration, step by step: every exit under every policy there is, then what control writes cost.

use anyhow::Result;
use tracer_common::Isa;

use super::{
    bench::{Bench, Traced},
    exits::Exit,
    sample::Sample,
    summary::{Distribution, ExitCost, Round, WriteCost, entries_after, mean_of_medians, median},
};
use crate::{
    guest::{
        GuestHost,
        calibration::{Program, Step},
    },
    host::policy::Restore,
    model::policy::Policy,
};

/// Rounds of an experiment: of 12 medians, the third and the tenth hold the true one with 96 %.
const ROUNDS: usize = 12;
/// Iterations of a window at least and at most.
const WINDOW: std::ops::RangeInclusive<u64> = 40..=500;

/// How the execution controls get written.
const BY_DEBUG_REGISTER: &str = "provoked by a guest that accesses a debug register: KVM writes the execution controls at the exit \
                                 after it. Entries after the first CPUID since then against those after the second; the VMWRITE \
                                 itself is not in the entry";
/// How the pin controls get written.
const BY_POLICY: &str = "provoked by a TSC deadline armed and cancelled, under the hard policy against the soft one, by turns (ABBA). The VMWRITE and what \
                         it does to the VM entry are both in the entry; so is, under both policies, one of the timer's value";

/// What to measure.
pub struct Plan {
    /// the exits
    pub exits: Vec<Exit>,
    /// samples of each, traced, and as many untraced
    pub samples: u64,
    /// what decides how the guest exits
    pub host: GuestHost,
    /// whose exit reasons they are
    pub isa: Isa,
    /// the timer policy in force
    pub policy: Policy,
    /// why the policies cannot be switched; none where they can
    pub one_policy: Option<String>,
}

/// What was measured so far.
#[derive(Default)]
pub struct Measured {
    /// by policy and exit
    pub exits: Vec<ExitCost>,
    /// by control
    pub writes: Vec<WriteCost>,
    /// TSC frequency against CLOCK_MONOTONIC, kHz
    pub khz: f64,
    /// largest bound of the clocks' error, cycles
    pub clock_error: f64,
}

/// Measures all of it, or as much as there is time for before the bench is stopped. `say` is told what is under way.
pub fn all(bench: &mut Bench<'_>, plan: &Plan, measured: &mut Measured, say: &dyn Fn(String)) -> Result<()> {
    let result = measure(bench, plan, measured, say);
    measured.khz = bench.khz().unwrap_or(0.0);
    result
}

fn measure(bench: &mut Bench<'_>, plan: &Plan, measured: &mut Measured, say: &dyn Fn(String)) -> Result<()> {
    if let Some(why) = &plan.one_policy {
        exits(bench, plan, plan.policy, measured, say)?;
        measured.writes.push(WriteCost::unavailable("pin", BY_POLICY, why.clone()));
    } else {
        let switch = Restore::after(Policy::Soft)?;
        exits(bench, plan, Policy::Soft, measured, say)?;
        switch.switch(Policy::Hard)?;
        exits(bench, plan, Policy::Hard, measured, say)?;
        say("pin-control writes".into());
        let cost = pin_writes(bench, plan, &switch, measured)?;
        switch.restore()?;
        measured.writes.push(cost);
    }
    say("execution-control writes".into());
    let cost = exec_writes(bench, plan, measured)?;
    measured.writes.push(cost);
    Ok(())
}

fn exits(
    bench: &mut Bench<'_>,
    plan: &Plan,
    policy: Policy,
    measured: &mut Measured,
    say: &dyn Fn(String),
) -> Result<()> {
    for exit in &plan.exits {
        say(match plan.one_policy {
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

/// Untraced, traced, traced, untraced: a drift counts for both alike.
fn exit(bench: &mut Bench<'_>, plan: &Plan, exit: Exit, policy: Policy, measured: &mut Measured) -> Result<ExitCost> {
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
        // The port write is not what is meant, and the guest's first instruction after it is an interrupt handler's.
        traced.samples.samples.clear();
        traced.samples.apart = Default::default();
        (traced.samples.consistent, traced.samples.inconsistent) = (0, 0);
    }
    let khz = bench.khz().unwrap_or(0.0);
    let stopwatch = traced.samples.samples.iter().filter_map(|s| s.stopwatch_ns).map(|ns| f64::from(ns) * khz / 1e6);
    let transition = Distribution::of(stopwatch).or_else(|| Distribution::of(traced.immediate.iter().copied()));
    let mut cost = ExitCost::of(exit.name(), policy, &traced.samples, &traced.round_trips, &untraced);
    cost.transition = transition;
    cost.waits = exit == Exit::Hlt;
    // Of exits that are all that an iteration does.
    cost.per_iteration =
        exit.unit_test().map(|_| (first.cycles + last.cycles) as f64 / (first.iterations + last.iterations) as f64);
    Ok(cost)
}

/// Entries after the first CPUID since an access to a debug register against those after the second; the third is the control.
fn exec_writes(bench: &mut Bench<'_>, plan: &Plan, measured: &mut Measured) -> Result<WriteCost> {
    let unavailable = |why: &str| Ok(WriteCost::unavailable("exec", BY_DEBUG_REGISTER, why.into()));
    if plan.isa != Isa::Vmx {
        return unavailable("only VMX has execution controls in a VMCS");
    }
    let window = (plan.samples / ROUNDS as u64).clamp(*WINDOW.start(), *WINDOW.end());
    let (mut rounds, mut dirty, mut clean) = (Vec::new(), Vec::new(), Vec::new());
    let (mut unexpected, mut apart) = (0, super::sample::Apart::default());
    for _ in 0..ROUNDS {
        let traced = bench.traced(Program::Debug, window, &[])?;
        measured.clock_error = measured.clock_error.max(traced.samples.clock_error);
        apart.add(traced.samples.apart);
        let samples = &traced.samples.samples;
        let written = |s: &Sample| s.exec_written == Some(true) && s.pin_writes.unwrap_or(0) == 0;
        let unwritten = |s: &Sample| s.exec_written == Some(false) && s.pin_writes.unwrap_or(0) == 0;
        let first = entries_after(samples, Step::After, written);
        let second = entries_after(samples, Step::After2, unwritten);
        let third = entries_after(samples, Step::After3, unwritten);
        let after = samples.iter().filter(|s| s.step != Step::Debug).count();
        unexpected += (after - first.len() - second.len() - third.len()) as u64;
        let medians = [&first, &second, &third].map(|values| median(values.iter().copied()));
        if let [Some(dirty), Some(clean), control] = medians {
            rounds.push(Round { dirty, clean, control, untraced: None });
        }
        dirty.extend(first);
        clean.extend(second);
    }
    if rounds.is_empty() {
        return unavailable(
            "no write was seen where one was provoked: controls_shadow.exec is not in this kernel's BTF, or KVM handles debug \
             registers in another way",
        );
    }
    Ok(WriteCost { unexpected, apart, ..WriteCost::of("exec", BY_DEBUG_REGISTER, &rounds, &dirty, &clean) })
}

/// Entries after a timer was armed or cancelled, soft, hard, hard, soft; untraced first.
fn pin_writes(bench: &mut Bench<'_>, plan: &Plan, switch: &Restore, measured: &mut Measured) -> Result<WriteCost> {
    let turns = [Policy::Soft, Policy::Hard, Policy::Hard, Policy::Soft];
    let window = (plan.samples / (2 * ROUNDS as u64)).clamp(*WINDOW.start(), *WINDOW.end());
    let (mut rounds, mut dirty, mut clean) = (Vec::new(), Vec::new(), Vec::new());
    let (mut unexpected, mut apart) = (0, super::sample::Apart::default());
    for _ in 0..ROUNDS {
        // Round trips in the order of the exits: armed, CPUID, cancelled, CPUID.
        let mut trips = [[Vec::new(), Vec::new()], [Vec::new(), Vec::new()]];
        for policy in turns {
            switch.switch(policy)?;
            let untraced = bench.untraced(Program::Toggle, window)?;
            for (n, cycles) in untraced.round_trips.iter().enumerate() {
                if n % 2 == 0 {
                    trips[usize::from(policy == Policy::Hard)][n % 4 / 2].push(f64::from(*cycles));
                }
            }
        }
        let mut entries = [[Vec::new(), Vec::new()], [Vec::new(), Vec::new()]];
        let mut others = [Vec::new(), Vec::new()];
        for policy in turns {
            switch.switch(policy)?;
            let hard = policy == Policy::Hard;
            let traced = bench.traced(Program::Toggle, window, &[])?;
            measured.clock_error = measured.clock_error.max(traced.samples.clock_error);
            apart.add(traced.samples.apart);
            for sample in &traced.samples.samples {
                let writes = sample.pin_writes.map(|writes| writes > 0);
                let kind = match sample.step {
                    Step::Arm => 0,
                    Step::Cancel => 1,
                    // No write under either policy: what the switch alone does.
                    _ if writes == Some(false) => {
                        others[usize::from(hard)].push(sample.entry_latency);
                        continue;
                    }
                    _ => {
                        unexpected += 1;
                        continue;
                    }
                };
                if writes == Some(hard) {
                    entries[usize::from(hard)][kind].push(sample.entry_latency);
                } else {
                    unexpected += 1;
                }
            }
        }
        let [soft, hard] = entries.each_ref().map(|[armed, cancelled]| mean_of_medians(armed, cancelled));
        let [soft_trip, hard_trip] = trips.each_ref().map(|[armed, cancelled]| mean_of_medians(armed, cancelled));
        let [soft_other, hard_other] = others.map(median);
        if let (Some(clean), Some(dirty)) = (soft, hard) {
            // As if it were a write's: the same clean entries, shifted by what the entries without writes differ by.
            let control = hard_other.zip(soft_other).map(|(hard, soft)| clean * hard / soft);
            rounds.push(Round { dirty, clean, control, untraced: hard_trip.zip(soft_trip) });
        }
        let [soft, hard] = entries;
        clean.extend(soft.concat());
        dirty.extend(hard.concat());
    }
    if rounds.is_empty() {
        return Ok(WriteCost::unavailable(
            "pin",
            BY_POLICY,
            "no pin-control write was seen under the hard policy".into(),
        ));
    }
    Ok(WriteCost { unexpected, apart, ..WriteCost::of("pin", BY_POLICY, &rounds, &dirty, &clean) })
}
