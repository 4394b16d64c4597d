//! The command `vmentry`: parses, runs, and prints an error once.

use std::{
    io::{IsTerminal, stdout},
    process::ExitCode,
};

use anyhow::Result;
use clap::{CommandFactory, Parser};
use vmentry::{
    commands::{
        self,
        args::{Cli, Command, LiveArgs},
        usage::{self, WrongCommandLine},
    },
    output, say,
};

fn main() -> ExitCode {
    output::survive_file_size_limit();
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            say!("vmentry: {error:#}");
            let is_usage = error.downcast_ref::<WrongCommandLine>().is_some();
            if is_usage { ExitCode::from(usage::EXIT_CODE) } else { ExitCode::FAILURE }
        }
    }
}

/// Without a command: the live view on a terminal, else the help.
fn run(command: Option<Command>) -> Result<ExitCode> {
    match command {
        Some(command) => commands::run(&command),
        None if stdout().is_terminal() => commands::run(&Command::Live(LiveArgs::default())),
        None => {
            output::print(&Cli::command().render_help().to_string())?;
            Ok(ExitCode::from(2))
        }
    }
}
