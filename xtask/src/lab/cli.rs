//! `cargo xtask lab`.

use crate::debian::{self, Offered};
use crate::lab::tested::{self, Row};
use crate::lab::{self, Cpu, Kernel, Machine};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Run a script, or a shell, under a real kernel with KVM in an emulated machine
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask lab -- vmentry check
  cargo xtask lab --kernel 6.1 --add ./guest -- 'vmentry record -o $OUT/run & guest; wait'
  cargo xtask lab --cpu amd --timeout 60 -- ./script.sh
  cargo xtask lab shell
  cargo xtask lab kernels

Counts in the machine are exact; its times say nothing about real hardware.")]
pub(crate) struct Arguments {
    /// intel (VMX: kvm_intel in Bochs) or amd (SVM: kvm_amd in QEMU)
    #[arg(long, value_enum, default_value = "intel", hide_possible_values = true)]
    cpu: Cpu,
    /// A kernel series that Debian offers in any of its suites, such as 6.1 or 6.18
    #[arg(long, value_name = "SERIES", default_value = "6.12")]
    kernel: Kernel,
    /// Load this kvm-intel.ko (or kvm-amd.ko) instead of the distribution's
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,
    /// Parameters of that module, e.g. "preemption_timer=0"
    #[arg(long, value_name = "PARAMETERS", default_value = "", hide_default_value = true)]
    module_parameters: String,
    /// Processors of the machine; more than one takes Bochs twice the time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    processors: u8,
    /// MiB of memory [default: 512 for intel, 1024 for amd]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(256..=3072))]
    memory: Option<u32>,
    /// Add a static program, or any file, to the machine's PATH; may be repeated
    #[arg(long, value_name = "FILE")]
    add: Vec<PathBuf>,
    /// Add the files of a folder to the machine, each at its path below the folder; may be repeated
    #[arg(long, value_name = "DIR")]
    tree: Vec<PathBuf>,
    /// Folder of output, console.log and the files that the script leaves in $OUT [default: target/lab/CPU-KERNEL]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Seconds after which the machine is stopped
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// Print the time of each step
    #[arg(long, short)]
    verbose: bool,
    /// "shell" opens a shell in the machine, with this terminal as its console; "kernels" lists the series
    #[arg(value_enum, value_name = "shell|kernels", hide_possible_values = true)]
    task: Option<Task>,
    /// A shell line, or the path of a script
    #[arg(last = true, value_name = "SCRIPT", required_unless_present = "task", conflicts_with = "task")]
    script: Vec<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Task {
    Shell,
    Kernels,
}

/// Runs the script or the shell, and returns its exit code.
pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    let machine = Machine {
        cpu: arguments.cpu,
        kernel: arguments.kernel,
        module: arguments.module,
        module_parameters: arguments.module_parameters,
        processors: arguments.processors,
        memory: arguments.memory,
        counts_instructions: false,
        add: arguments.add,
        trees: arguments.tree,
        out: arguments.out,
        timeout: Duration::from_secs(arguments.timeout),
        quiet: false,
        verbose: arguments.verbose,
    };
    let outcome = match arguments.task {
        Some(Task::Kernels) => return list_kernels().map(|()| ExitCode::SUCCESS),
        Some(Task::Shell) => lab::shell(&machine)?,
        None => lab::run(&machine, &script(&arguments.script)?)?,
    };
    let lab::Outcome { exit_code, output_path, out_dir, seconds } = outcome;
    let (output, files) = (output_path.display(), out_dir.display());
    eprintln!("exit code {exit_code} after {seconds:.0} s; output in {output}, files in {files}");
    Ok(ExitCode::from(exit_code))
}

/// Prints the series that Debian offers, and the last test of each.
fn list_kernels() -> Result<()> {
    let rows = tested::rows()?;
    println!("{:<7} {:<20} {:<19} LAST TESTED (cargo xtask kernels)", "SERIES", "PACKAGE", "SUITE");
    for Offered { kernel, version, suite, .. } in debian::kernels()? {
        let of_kernel = rows.iter().filter(|row| row.kernel == kernel);
        let tests: Vec<_> = of_kernel.map(|row| last_test(row, &version)).collect();
        let tests = if tests.is_empty() { "never".to_owned() } else { tests.join(", ") };
        println!("{:<7} {version:<20} {suite:<19} {tests}", kernel.series());
    }
    Ok(())
}

fn last_test(row: &Row, newest: &str) -> String {
    let result = if row.is_good() {
        "ok"
    } else if row.cells.is_empty() {
        row.note.split(':').next().unwrap_or_default()
    } else {
        tested::FAILED
    };
    let version = if row.version == newest { String::new() } else { format!(" ({})", row.version) };
    format!("{} {result} {}{version}", row.cpu.name(), row.date)
}

/// Returns the script: the content of the file if the only word is its path, else the words.
fn script(words: &[String]) -> Result<String> {
    match words {
        [path] if Path::new(path).is_file() => fs::read_to_string(path).with_context(|| format!("read script {path}")),
        words => Ok(words.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn a_script_follows_two_dashes_and_a_shell_needs_none() {
        let line = |words: &str| Line::try_parse_from(words.split(' ')).map(|line| line.arguments);
        assert_eq!(line("lab --cpu amd -- vmentry check").unwrap().script, ["vmentry", "check"]);
        assert!(line("lab --kernel 6.1 shell").unwrap().task.is_some());
        assert!(line("lab shell --kernel 6.1").unwrap().task.is_some());
        assert!(line("lab").is_err());
        assert!(line("lab shell -- true").is_err());
        assert!(line("lab --kernel newest -- true").is_err());
    }

    #[test]
    fn a_script_is_a_shell_line_or_the_content_of_a_file() {
        assert_eq!(script(&["uname".into(), "-r".into()]).unwrap(), "uname -r");
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        assert_eq!(script(&[file.into()]).unwrap(), include_str!("../../Cargo.toml"));
    }
}
