//! The command `vmentry`: parses, runs, and prints an error once.

use std::{
    io::{IsTerminal, stdout},
    process::ExitCode,
};

use anyhow::Result;
use clap::CommandFactory;
use vmentry::{
    commands::{
        self,
        args::{Cli, Command, LiveArgs},
        completions::answer_shell,
    },
    output, say,
};

fn main() -> ExitCode {
    output::survive_file_size_limit();
    answer_shell();
    let command = match commands::parse() {
        Ok(Cli { command }) => command,
        Err(code) => return code,
    };
    match run(command) {
        Ok(code) => code,
        Err(error) => {
            say!("vmentry: {error:#}");
            commands::exit_code(&error)
        }
    }
}

/// Without a command: the live view on a terminal, else the help, on standard error.
fn run(command: Option<Command>) -> Result<ExitCode> {
    match command {
        Some(command) => commands::run(&command),
        None if stdout().is_terminal() => commands::run(&Command::Live(LiveArgs::default())),
        None => {
            // As clap does where an argument is missing.
            say!("{}", Cli::command().render_help());
            Ok(ExitCode::from(2))
        }
    }
}
