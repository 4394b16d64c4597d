//! `vmentry exercise`: runs the built-in guest, which makes a known number of exits, to validate a tracer.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    commands::args::{ExerciseArgs, Format},
    guest, output,
};

/// Runs the guest and prints its exits and the counts that a tracer must show.
pub(super) fn run(args: &ExerciseArgs) -> Result<ExitCode> {
    let plan = guest::ExercisePlan { scenario: args.scenario, count: args.count, vcpus: args.vcpus, delta: args.delta };
    // Reports name VMs by their process, which would be called "vmentry".
    let _ = std::fs::write("/proc/self/comm", plan.scenario.name());
    let outcome = guest::run(&plan)?;
    output::print(&match args.format {
        Format::Text => format!("{outcome}\n"),
        Format::Json => serde_json::to_string_pretty(&outcome)? + "\n",
    })?;
    Ok(ExitCode::SUCCESS)
}
