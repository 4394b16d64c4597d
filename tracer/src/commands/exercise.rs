//! `vmentry exercise`: runs the built-in guest, which makes a known number of exits, to validate a tracer.

use anyhow::Result;

use crate::{
    commands::args::{ExerciseArgs, Format},
    guest, output,
};

/// Runs the guest and prints its exits and the counts that a tracer must show.
pub fn run(args: &ExerciseArgs) -> Result<()> {
    let plan = guest::ExercisePlan {
        scenario: args.scenario,
        count: args.count,
        vcpus: args.vcpus,
        delta: args.delta.unwrap_or(args.scenario.default_delta()),
    };
    // Reports name VMs by their process. Without a name of its own it would be one more "vmentry".
    let _ = std::fs::write("/proc/self/comm", plan.scenario.name());
    let outcome = guest::run(&plan)?;
    match args.format {
        Format::Text => output::print(&format!("{outcome}\n")),
        Format::Json => output::print(&(serde_json::to_string_pretty(&outcome)? + "\n")),
    }
}
