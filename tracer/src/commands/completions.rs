//! `vmentry completions`: what a shell needs to complete command lines, and the man pages for packages. The shell asks the program itself
//! for candidates, so that names of running VMs are among them.

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::{
    CompleteEnv, Shell,
    env::{self, EnvCompleter},
};

use crate::{
    commands::args::{Cli, CompletionsArgs, ManArgs},
    output::{self, shown},
    say,
};

/// The variable by which a shell asks for candidates.
const ASKED_BY: &str = "COMPLETE";
const NAME: &str = "vmentry";

/// Prints candidates and ends the process, if a shell asks for them.
pub fn answer_shell() {
    CompleteEnv::with_factory(Cli::command).complete();
}

/// Prints the definitions for a shell.
pub(super) fn run(args: &CompletionsArgs) -> Result<ExitCode> {
    let shell: &dyn EnvCompleter = match args.shell {
        Shell::Zsh => &env::Zsh,
        Shell::Fish => &env::Fish,
        _ => &env::Bash,
    };
    let mut text = Vec::new();
    shell.write_registration(ASKED_BY, NAME, NAME, NAME, &mut text).context("write completions")?;
    output::print(&String::from_utf8(text)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the man pages into a folder, which it creates: one for each command.
pub(super) fn write_man_pages(args: &ManArgs) -> Result<ExitCode> {
    let failed = |path: &Path| format!("write man pages into {}", shown(path));
    fs::create_dir_all(&args.folder).with_context(|| failed(&args.folder))?;
    let mut vmentry = Cli::command().disable_help_subcommand(true);
    vmentry.build();
    let commands: Vec<_> = vmentry.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    for command in [vmentry].into_iter().chain(commands) {
        let man = clap_mangen::Man::new(command);
        let mut file = output::WholeFile::create(&args.folder.join(man.get_filename()), args.overwrite)?;
        man.render(&mut file).and_then(|()| file.take_place()).with_context(|| failed(&args.folder))?;
    }
    say!("man pages are in {}", shown(&args.folder));
    Ok(ExitCode::SUCCESS)
}
