//! The command `vmentry`: parses, runs, and prints an error once.

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser};
use vmentry::{
    calibrate,
    commands::{
        ab,
        args::{CheckArgs, Cli, Command, ExerciseArgs, Format, LiveArgs},
        compare, export, live, merge, overhead, record, report,
    },
    guest,
    host::{facts, policy},
    output, say,
};

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            say!("vmentry: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    let Some(command) = &cli.command else {
        if live::is_wanted() {
            return live::run(&LiveArgs::default());
        }
        output::print(&Cli::command().render_help().to_string())?;
        return Ok(ExitCode::from(2));
    };
    match command {
        Command::Check(args) => check(args),
        Command::Live(args) => live::run(args),
        Command::Record(args) => record::run(args),
        Command::Report(args) => report::run(args).map(|()| ExitCode::SUCCESS),
        Command::Ab(args) => ab::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Merge(args) => merge::run(args).map(|()| ExitCode::SUCCESS),
        Command::Export(args) => export::run(args),
        Command::Policy(args) => policy::run(args),
        Command::Calibrate(args) => calibrate::run(args),
        Command::Exercise(args) => exercise(args).map(|()| ExitCode::SUCCESS),
    }
}

fn check(args: &CheckArgs) -> Result<ExitCode> {
    let facts = facts::gather(true);
    let problems = facts.problems();
    let overhead = if args.overhead { Some(overhead::measure(&facts)?) } else { None };
    match args.format {
        Format::Text => {
            let overhead = overhead.map(|o| overhead::text(&o, facts.host.caveat().as_deref())).unwrap_or_default();
            output::print(&(facts::text(&facts, &problems) + &overhead))?;
        }
        Format::Json => {
            let mut json = facts::json(&facts, &problems);
            if let Some(overhead) = overhead {
                json["overhead"] = serde_json::to_value(overhead)?;
            }
            output::print(&(serde_json::to_string_pretty(&json)? + "\n"))?;
        }
    }
    Ok(if facts::has_errors(&problems) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn exercise(args: &ExerciseArgs) -> Result<()> {
    let plan = guest::Plan {
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
