//! The commands: arguments, I/O, signals, exit codes. They import every other room, share `child`, `comparison`, `damaged`,
//! `descendants`, `document`, `early`, `following`, `privileges`, `progress`, `session`, `topics`, `usage`, `user` and `vm_labels`, and
//! never import each other.

pub mod args;
pub mod check;
pub mod completions;
mod usage;

mod ab;
mod calibrate;
mod child;
mod compare;
mod comparison;

mod damaged;
mod descendants;
mod document;
mod early;
#[cfg(test)]
mod every_output;
mod exercise;
mod export;
mod following;
mod help;
mod listening;
mod live;
mod merge;
mod policy;
mod privileges;
mod progress;
mod record;
mod report;
mod session;
mod survey;
mod topics;
mod user;
mod vm_labels;
mod window_parts;

use std::process::ExitCode;

use anyhow::Result;

use args::Command;
pub use usage::parse;

/// The exit code of a command that failed.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    if let Some(not_started) = error.downcast_ref::<child::NotStarted>() {
        return ExitCode::from(not_started.code);
    }
    if error.is::<usage::WrongCommandLine>() { ExitCode::from(usage::EXIT_CODE) } else { ExitCode::FAILURE }
}

/// Runs a command; an error is the caller's to print.
pub fn run(command: &Command) -> Result<ExitCode> {
    match command {
        Command::Check(args) => check::run(args),
        Command::Live(args) => live::run(args),
        Command::Record(args) => record::run(args),
        Command::Report(args) => report::run(args),
        Command::Ab(args) => ab::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Merge(args) => merge::run(args),
        Command::Export(args) => export::run(args),
        Command::Policy(args) => policy::run(args),
        Command::Calibrate(args) => calibrate::run(args),
        Command::Survey(args) => survey::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => completions::write_man_pages(args),
        Command::Help(args) => help::run(args),
        Command::Exercise(args) => exercise::run(args),
    }
}
