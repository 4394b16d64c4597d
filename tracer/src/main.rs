//! The command `vmentry`: parses, runs, and prints an error once.

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser};
use vmentry::{
    commands::{
        ab,
        args::{Cli, Command, LiveArgs},
        calibrate, check, compare, exercise, export, live, merge, policy, record, report,
    },
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
        Command::Check(args) => check::run(args),
        Command::Live(args) => live::run(args),
        Command::Record(args) => record::run(args),
        Command::Report(args) => report::run(args).map(|()| ExitCode::SUCCESS),
        Command::Ab(args) => ab::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Merge(args) => merge::run(args).map(|()| ExitCode::SUCCESS),
        Command::Export(args) => export::run(args),
        Command::Policy(args) => policy::run(args),
        Command::Calibrate(args) => calibrate::run(args),
        Command::Exercise(args) => exercise::run(args).map(|()| ExitCode::SUCCESS),
    }
}
