//! `vmentry exercise`: runs the built-in guest, which makes a known number of exits, to validate a tracer.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    commands::{
        args::{ExerciseArgs, Format, Work},
        early,
        usage::refuse,
    },
    guest::{self, ExercisePlan, Scenario, probe},
    host::facts,
    output,
};

/// Repetitions by each vCPU where none are asked for.
const COUNT: u64 = 100;

/// Runs the guest and prints its exits and the counts that a tracer must show.
pub(super) fn run(args: &ExerciseArgs) -> Result<ExitCode> {
    match args.work {
        Work::Scenario(scenario) => of_scenario(scenario, args),
        Work::EarlyTimers => early_timers(args),
    }
}

fn of_scenario(scenario: Scenario, args: &ExerciseArgs) -> Result<ExitCode> {
    if args.limit.is_some() {
        return refuse(format!("exercise {scenario}: --limit is for early only: leave it out"));
    }
    let count = args.count.map_or(COUNT, u64::from);
    let plan = ExercisePlan { scenario, count, vcpus: args.vcpus, delta: args.delta };
    name_this_vm(scenario.name());
    let outcome = guest::run(&plan)?;
    output::print(&match args.format() {
        Format::Text => format!("{outcome}\n"),
        Format::Json => serde_json::to_string_pretty(&outcome)? + "\n",
    })?;
    Ok(ExitCode::SUCCESS)
}

fn early_timers(args: &ExerciseArgs) -> Result<ExitCode> {
    if args.vcpus != 1 || args.delta.is_some() {
        return refuse("exercise early: it has one vCPU and distances of its own: leave out --vcpus and --delta");
    }
    if args.count.is_some_and(|count| (count as usize) < probe::TIMERS) {
        return refuse(format!("exercise early: --count: at least {}, one timer at each distance", probe::TIMERS));
    }
    name_this_vm("early");
    let timers = args.count.map_or(probe::TIMERS, |count| count as usize);
    let outcome = early::probe(&facts::gather(true), timers, args.limit)?;
    output::print(&match args.format() {
        Format::Text => format!("{outcome}\n"),
        Format::Json => serde_json::to_string_pretty(&outcome)? + "\n",
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Reports name VMs by their process, which would be called "vmentry".
fn name_this_vm(name: &str) {
    let _ = std::fs::write("/proc/self/comm", name);
}
