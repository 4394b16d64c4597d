//! `cargo xtask fuzz`: everything that reads bytes of strangers under libFuzzer, guided by coverage.

mod finds;
mod libfuzzer;
mod target;

use std::{fs, path::PathBuf, thread, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::{
    build,
    fuzz::{
        libfuzzer::{Coverage, Fuzzer},
        target::Outcome,
    },
};

/// Fuzz everything that reads bytes of strangers (recordings, BTF, /proc, expressions, requests), guided by coverage
#[derive(Args)]
#[command(after_help = "\
Builds the fuzzer first, which takes some minutes. Ctrl-C ends the fuzzing, and the summary is still printed.

Below target/fuzz:
  failed/TARGET   inputs that fail; kept until they pass
  corpus/TARGET   inputs that reach code which no other reaches; the next run begins with them
  log/TARGET      everything that libFuzzer said

Examples:
  cargo xtask fuzz                             an hour, all targets, every CPU
  nice cargo xtask fuzz recording --minutes 5 --jobs 1
  cargo test -p fuzz                           the committed inputs and changes of them, in seconds, without libFuzzer")]
pub(crate) struct Arguments {
    /// Targets, the folders of fuzz/corpus; all without any
    targets: Vec<String>,
    /// Minutes for all targets together
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    minutes: u32,
    /// Processes at a time; one per CPU without it
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Afterwards, copy the inputs that reach code which no committed input reaches to fuzz/corpus
    #[arg(long)]
    keep: bool,
}

/// Runs every target for its share of the time. Fails with the inputs that fail.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let targets = targets(&arguments.targets)?;
    let jobs = arguments.jobs.map_or_else(|| thread::available_parallelism().map_or(1, Into::into), usize::from);
    let time = (Duration::from_secs(60) * arguments.minutes) / u32::try_from(targets.len())?;
    eprintln!("building the fuzzer (some minutes, the first time)");
    let fuzzer = Fuzzer::build(jobs)?;
    libfuzzer::ignore_interrupts();
    let mut outcomes = Vec::new();
    for (at, target) in targets.iter().enumerate() {
        eprintln!("\n{target} ({} of {}): {} s, {jobs} at a time", at + 1, targets.len(), time.as_secs());
        let outcome = target::fuzz(&fuzzer, target, time)?;
        let is_interrupted = outcome.is_interrupted;
        outcomes.push((target, outcome));
        if is_interrupted {
            break;
        }
        if arguments.keep {
            eprintln!("  {} inputs copied to fuzz/corpus/{target}", fuzzer.keep(target)?);
        }
    }
    summarize(&outcomes);
    let finds: Vec<_> = outcomes.iter().flat_map(|(_, outcome)| &outcome.finds).collect();
    for find in &finds {
        eprintln!("\n{find}");
    }
    ensure!(
        finds.is_empty(),
        "fuzz: {} inputs fail; mend each cause, then commit its input to fuzz/corpus/TARGET, where `cargo test -p fuzz` runs it",
        finds.len()
    );
    if outcomes.iter().any(|(_, outcome)| outcome.is_interrupted) {
        bail!("fuzz: interrupted");
    }
    Ok(())
}

/// Prints what each target did.
fn summarize(outcomes: &[(&String, Outcome)]) {
    let edges = |coverage: Option<Coverage>| coverage.map_or_else(|| "n/a".into(), |c| c.edges.to_string());
    eprintln!("\ntarget       executions  a second  edges: committed       now  inputs  finds");
    for (target, outcome) in outcomes {
        let Outcome { executions, elapsed, committed, now, finds, .. } = outcome;
        eprintln!(
            "{target:<12} {executions:>10} {:>9} {:>17} {:>9} {:>7} {:>6}",
            executions / elapsed.as_secs().max(1),
            edges(*committed),
            edges(*now),
            now.map_or_else(|| "n/a".into(), |c| c.inputs.to_string()),
            finds.len()
        );
    }
    eprintln!(
        "edges: branches of all crates that the committed inputs reach, and that all inputs reach now; n/a: an input fails"
    );
}

/// The folder of everything that is made here.
fn folder() -> PathBuf {
    build::target_dir().join("fuzz")
}

/// The folder of a target's committed inputs.
fn committed(target: &str) -> PathBuf {
    build::root().join("fuzz/corpus").join(target)
}

/// The wanted targets; all without any.
fn targets(wanted: &[String]) -> Result<Vec<String>> {
    let folder = build::root().join("fuzz/corpus");
    let entries = fs::read_dir(&folder).with_context(|| format!("read folder {}", folder.display()))?;
    let mut all: Vec<_> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    all.sort();
    for target in wanted {
        ensure!(all.contains(target), "fuzz {target}: there is no such target (there are: {})", all.join(", "));
    }
    Ok(if wanted.is_empty() { all } else { wanted.to_vec() })
}
