//! `vmentry ab --restore`: puts back what a killed `vmentry ab` left switched.

use std::{fmt::Write as _, process::ExitCode};

use anyhow::{Context, Result, anyhow};
use clap::Parser;

use crate::{
    commands::{
        args::{AbArgs, Cli, Command},
        usage::refuse,
    },
    host::{
        policy,
        roots::Roots,
        setting::{self, note},
    },
    output::{self, MAX_TEXT, printable},
    say,
};

/// Restores, says for each file what it did, and fails if something is not restored.
pub(super) fn run(args: &AbArgs) -> Result<ExitCode> {
    if !is_alone(args) {
        return refuse("--restore: name the COMMAND that restores what --arm's commands switch, or give nothing else");
    }
    let Done { lines, failures } = restore(&Roots::default());
    output::print(&lines)?;
    for failure in &failures {
        say!("vmentry: {failure:#}");
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether nothing else was given. The command line's rules cannot tell it from --restore COMMAND, which needs other options.
fn is_alone(args: &AbArgs) -> bool {
    let alone = Cli::try_parse_from(["vmentry", "ab", "--restore"]).ok().and_then(|line| line.command);
    matches!(alone, Some(Command::Ab(alone)) if alone == *args)
}

/// What was restored, one line each, and what could not be.
#[derive(Debug, Default)]
struct Done {
    lines: String,
    failures: Vec<anyhow::Error>,
}

fn restore(roots: &Roots) -> Done {
    let mut done = Done::default();
    let policy = policy::restore_left_behind(roots).transpose();
    done.add("timer policy", policy);
    match note::to_restore(roots) {
        Err(error) => done.failures.push(error),
        Ok(None) => {}
        Ok(Some(note)) => {
            match setting::restore_left_behind(roots, &note) {
                Ok(files) => {
                    let failed = files.iter().find(|(_, result)| result.is_err()).map(|(file, _)| file.clone());
                    files.into_iter().for_each(|(file, result)| done.add(&file, Some(result)));
                    let note = output::shown(&note::path(roots));
                    // The value may be one that the kernel refuses: then no second try helps.
                    done.failures.extend(failed.map(|file| {
                        anyhow!(
                            "{note} stays\n  -> try again, or write a value to {file} yourself, and then: rm {note}"
                        )
                    }));
                }
                Err(error) => done.failures.push(error),
            }
            // A file that others might have written must not have its commands run.
            if let Some(command) = &note.command {
                done.failures.push(anyhow!(
                    "a command restores this setting, which 'vmentry ab' does not run from a note\n  -> type: {}\n  -> and then, so that \
                     it is forgotten: rm {}",
                    printable(command, MAX_TEXT),
                    output::shown(&note::path(roots))
                ));
            }
        }
    }
    if done.lines.is_empty() && done.failures.is_empty() {
        done.lines = "nothing to restore\n".into();
    }
    done
}

impl Done {
    fn add(&mut self, what: &str, result: Option<Result<String>>) {
        match result {
            None => {}
            Some(Ok(how)) => {
                let _ = writeln!(self.lines, "{what}: {how}");
            }
            Some(Err(error)) => {
                self.failures.extend(Err::<(), _>(error).with_context(|| format!("{what}: NOT RESTORED")).err())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::roots::made_up::Folder;

    const SETTING: &str = "run/vmentry-setting.json";

    fn host() -> Folder {
        let mut host = Folder::new();
        let base = host.roots.run.parent().unwrap().canonicalize().unwrap();
        (host.roots.sys, host.roots.run) = (base.join("sys"), base.join("run"));
        host
    }

    fn note(host: &Folder, files: &[(&str, &str)], command: &str) {
        let file = |(file, value): &(&str, &str)| {
            format!(r#"{{"file":"{}","value":"{value}"}}"#, output::shown(&host.roots.sys.join(file)))
        };
        let files = files.iter().map(file).collect::<Vec<_>>().join(",");
        host.write(SETTING, format!(r#"{{"pid":0,"start_ticks":0,"files":[{files}],"command":{command}}}"#));
    }

    #[test]
    fn values_and_the_policy_are_put_back_and_each_is_named() {
        let host = host();
        assert_eq!(restore(&host.roots).lines, "nothing to restore\n");
        host.write("sys/a", "0\n");
        note(&host, &[("a", "5"), ("gone", "6")], "null");
        host.write("sys/module/kvm_intel/parameters/preemption_timer_policy", "soft\n");
        host.write("sys/module/kvm_intel/initstate", "live\n");
        host.write("run/vmentry-policy.json", r#"{"pid":0,"start_ticks":0,"before":"hard"}"#);
        let Done { lines, failures } = restore(&host.roots);
        assert!(failures.is_empty(), "{failures:?}");
        let lines: Vec<_> = lines.lines().collect();
        assert_eq!(lines[0], "timer policy: soft -> hard");
        assert!(lines[1].ends_with("/sys/a: 0 -> 5") && lines[2].ends_with("/sys/gone: gone: nothing to restore"));
        assert_eq!((host.read("sys/a").as_str(), host.has(SETTING)), ("5", false));
        assert_eq!(restore(&host.roots).lines, "nothing to restore\n");
    }

    #[test]
    fn a_failed_write_keeps_the_note_and_does_not_stop_the_others() {
        let host = host();
        host.write("sys/folder/x", "0\n");
        host.write("sys/b", "0\n");
        note(&host, &[("folder", "5"), ("b", "6")], "null");
        let Done { lines, failures } = restore(&host.roots);
        assert!(failures[0].to_string().contains("/sys/folder: NOT RESTORED") && lines.contains("/sys/b: 0 -> 6"));
        let out = failures[1].to_string();
        assert!(out.contains("/sys/folder yourself, and then: rm ") && out.ends_with(SETTING), "{out}");
        assert!(host.has(SETTING));
    }

    #[test]
    fn a_command_of_a_note_is_shown_and_never_run() {
        let host = host();
        let proof = host.roots.run.join("proof");
        note(&host, &[], &format!(r#""touch {}""#, output::shown(&proof)));
        let Done { failures, .. } = restore(&host.roots);
        let said = failures[0].to_string();
        assert!(said.contains("type: touch ") && said.contains("rm ") && said.ends_with(SETTING), "{said}");
        assert!(!proof.exists() && host.has(SETTING), "nothing is restored yet, so the note stays");
    }
}
