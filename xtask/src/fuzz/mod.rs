//! `cargo xtask fuzz`: everything that reads bytes of strangers under libFuzzer, guided by coverage.

mod finds;
mod libfuzzer;
mod target;

use std::{fs, path::PathBuf, thread, time::Duration};

use anyhow::{Context, Result, ensure};
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
    /// Minutes for all targets together; half of them for recordings
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    minutes: u32,
    /// Processes at a time; one per CPU without it
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Afterwards, copy the inputs that reach code which no committed input reaches to fuzz/corpus
    #[arg(long)]
    keep: bool,
}

/// The target with most of the code gets half of the time.
const LARGEST: &str = "recording";

/// Runs every target for its share of the time. Fails with the inputs that fail.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let targets = targets(&arguments.targets)?;
    let jobs = arguments.jobs.map_or_else(|| thread::available_parallelism().map_or(1, Into::into), usize::from);
    eprintln!("building the fuzzer (some minutes, the first time)");
    let fuzzer = Fuzzer::build(jobs)?;
    libfuzzer::ignore_interrupts();
    let mut outcomes = Vec::new();
    let result = fuzz_all(&fuzzer, &targets, arguments, &mut outcomes);
    summarize(&outcomes);
    result?;
    let finds: Vec<_> = outcomes.iter().flat_map(|(_, outcome)| &outcome.finds).collect();
    for find in &finds {
        eprintln!("\n{find}");
    }
    ensure!(
        finds.is_empty(),
        "fuzz: {} inputs fail; mend each cause, then commit its input to fuzz/corpus/TARGET, where `cargo test -p fuzz` runs it",
        finds.len()
    );
    ensure!(outcomes.iter().all(|(_, outcome)| !outcome.is_interrupted), "fuzz: interrupted");
    Ok(())
}

/// Fuzzes one target after the other, until an interrupt.
fn fuzz_all(
    fuzzer: &Fuzzer,
    targets: &[String],
    arguments: &Arguments,
    outcomes: &mut Vec<(String, Outcome)>,
) -> Result<()> {
    let others = targets.iter().filter(|&target| target != LARGEST).count();
    let shares = |target: &str| if target == LARGEST { others.max(1) } else { 1 };
    let all: usize = targets.iter().map(|target| shares(target)).sum();
    let seconds = 60 * usize::try_from(arguments.minutes)?;
    for (at, target) in targets.iter().enumerate() {
        let time = seconds * shares(target) / all;
        eprintln!("\n{target} ({} of {}): {time} s, {} at a time", at + 1, targets.len(), fuzzer.jobs);
        let outcome = target::fuzz(fuzzer, target, Duration::from_secs(time as u64))?;
        let is_interrupted = outcome.is_interrupted;
        outcomes.push((target.clone(), outcome));
        if is_interrupted {
            break;
        }
        if arguments.keep {
            eprintln!("  {} inputs copied to fuzz/corpus/{target}", fuzzer.keep(target)?);
        }
    }
    Ok(())
}

/// Prints what each target did.
fn summarize(outcomes: &[(String, Outcome)]) {
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
