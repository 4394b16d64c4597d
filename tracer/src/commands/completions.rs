//! `vmentry completions`: what a shell needs to complete command lines, and the man pages for packages. The shell asks the program itself
//! for candidates, so that names of running VMs are among them.

mod bash;

use std::{env, fs, io::Write, path::Path, process::ExitCode};

use anyhow::{Context, Result, anyhow};
use clap::{Arg, CommandFactory};
use clap_complete::{
    ArgValueCompleter, CompleteEnv, Shell,
    env::{EnvCompleter, Fish, Shells, Zsh},
};

use crate::{
    commands::args::{Cli, CompletionsArgs, ManArgs, candidates::list},
    output::{self, shown},
    say,
};

/// The variable by which a shell asks for candidates.
const ASKED_BY: &str = "COMPLETE";
const NAME: &str = "vmentry";
/// The shells whose completions are tested.
const SHELLS: Shells = Shells(&[&bash::Bash, &Zsh, &Fish]);

/// Prints candidates and ends the process, if a shell asks for them. Another program's variable of the same name is none of its business.
pub fn answer_shell() {
    let asked_by = env::var_os(ASKED_BY).unwrap_or_default();
    let shell = Path::new(&asked_by).file_stem().unwrap_or_default().to_string_lossy();
    if SHELLS.completer(&shell).is_some() {
        CompleteEnv::with_factory(command).var(ASKED_BY).shells(SHELLS).complete();
    }
}

/// The command line, whose lists are completed as a whole: what stands in them is not offered again.
fn command() -> clap::Command {
    let whole = |arg: Arg| {
        if arg.get_value_delimiter().is_none() || arg.get::<ArgValueCompleter>().is_some() {
            return arg.value_delimiter(None);
        }
        let names: Vec<_> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        arg.value_delimiter(None).add(list(move || names.clone()))
    };
    Cli::command().mut_subcommands(|command| command.mut_args(whole))
}

/// Prints the definitions for a shell.
pub(super) fn run(args: &CompletionsArgs) -> Result<ExitCode> {
    let shell: &dyn EnvCompleter = match args.shell {
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
        _ => &bash::Bash,
    };
    let mut text = Vec::new();
    shell.write_registration(ASKED_BY, NAME, NAME, NAME, &mut text).context("write completions")?;
    output::print(&String::from_utf8(text)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the man pages into a folder, which it creates: one for each command.
pub(super) fn write_man_pages(args: &ManArgs) -> Result<ExitCode> {
    let failed = |path: &Path| format!("write man pages into {}", shown(path));
    fs::create_dir_all(&args.folder)
        .map_err(|error| anyhow!("{}: {}", failed(&args.folder), output::explain(&args.folder, &error)))?;
    let mut vmentry = Cli::command().disable_help_subcommand(true);
    vmentry.build();
    let commands: Vec<_> = vmentry.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    for mut command in [vmentry].into_iter().chain(commands) {
        // That of the help, which says where a file may be repeated, and has no list of all options.
        let usage = command.render_usage().to_string();
        let command = command.override_usage(usage.trim_start_matches("Usage: ").to_owned());
        let man = clap_mangen::Man::new(command).source(concat!("vmentry ", env!("CARGO_PKG_VERSION")));
        let mut file = output::WholeFile::create(&args.folder.join(man.get_filename()), args.overwrite)?;
        let mut page = Vec::new();
        let rendered = man.render(&mut page);
        let page = in_sections(&String::from_utf8_lossy(&page));
        let written = rendered.and_then(|()| file.write_all(page.as_bytes())).and_then(|()| file.take_place());
        written.with_context(|| failed(&args.folder))?;
    }
    say!("man pages are in {}", shown(&args.folder));
    Ok(ExitCode::SUCCESS)
}

/// A man page whose section EXTRA, the end of the help, is split by its paragraphs: examples, exit codes, and the rest as notes.
fn in_sections(page: &str) -> String {
    const EXTRA: &str = ".SH EXTRA\n";
    let Some((before, extra)) = page.split_once(EXTRA) else { return page.to_owned() };
    let (extra, after) = extra.find("\n.SH ").map_or((extra, ""), |at| extra.split_at(at + 1));
    let sections = [("NOTES", None), ("EXAMPLES", Some("Examples:")), ("EXIT STATUS", Some("Exit codes"))];
    let mut split = before.to_owned();
    for (title, begin) in sections {
        let is_here = |paragraph: &&str| match begin {
            Some(begin) => paragraph.starts_with(begin),
            None => sections.iter().all(|(_, other)| other.is_none_or(|other| !paragraph.starts_with(other))),
        };
        let own: Vec<_> = extra.trim_end().split("\n\n").filter(is_here).collect();
        if !own.is_empty() {
            let text = own.join("\n\n");
            // As it stands, in the 80 columns that the help has.
            let text = text.strip_prefix("Examples:\n").unwrap_or(&text);
            split += &format!(".SH {title}\n.nf\n.in 2n\n{text}\n.in\n.fi\n");
        }
    }
    split + after
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_exit_codes_and_notes_have_a_section_each() {
        let extra = "Conditions: x>1,\ny=2\n\nExamples:\n  vmentry a\n  vmentry b\n\nExit codes: 0 done\n";
        let page = format!(".SH NAME\nx\n.SH EXTRA\n{extra}.SH VERSION\nv1\n");
        let split = in_sections(&page);
        assert_eq!(
            split,
            ".SH NAME\nx\n.SH NOTES\n.nf\n.in 2n\nConditions: x>1,\ny=2\n.in\n.fi\n\
             .SH EXAMPLES\n.nf\n.in 2n\n  vmentry a\n  vmentry b\n.in\n.fi\n\
             .SH EXIT STATUS\n.nf\n.in 2n\nExit codes: 0 done\n.in\n.fi\n.SH VERSION\nv1\n"
        );
        assert_eq!(in_sections(".SH NAME\nx\n"), ".SH NAME\nx\n");
    }
}
