//! `cargo xtask fuzz`: everything that reads bytes of strangers under libFuzzer, guided by coverage. Stable Rust: LLVM's instrumentation
//! is asked for by flags of code generation, as cargo-fuzz does.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{build, debian, process};

/// libFuzzer is C++, and compiled by cargo.
const NEEDS: [debian::Need; 1] = [("c++", "g++")];
/// Flags of cargo-fuzz 0.13 for its `--sanitizer none`.
const RUSTFLAGS: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
];
/// Bytes of an input at most.
const MAX_BYTES: u32 = 32 << 10;
/// Seconds of one input at most. Each target has a limit of CPU time of its own below this one.
const TIMEOUT_S: u32 = 120;
/// Megabytes of the process at most. Each target has a limit of its own below this one.
const MEMORY_MB: u32 = 2048;

/// Fuzz everything that reads bytes of strangers (recordings, BTF, /proc, expressions, requests), guided by coverage
#[derive(Args)]
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

/// Runs every target for its share of the time. Fails with the inputs that failed.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let targets = targets(&arguments.targets)?;
    let binary = build()?;
    let jobs = arguments.jobs.map_or_else(|| std::thread::available_parallelism().map_or(1, Into::into), usize::from);
    let seconds = (arguments.minutes * 60 / u32::try_from(targets.len())?).max(10);
    let mut failed = Vec::new();
    for target in &targets {
        eprintln!("\n== {target}: {seconds} s, {jobs} at a time");
        failed.extend(fuzz(&binary, target, seconds, jobs)?);
        if arguments.keep {
            keep(&binary, target)?;
        }
    }
    ensure!(
        failed.is_empty(),
        "{} inputs fail:\n{}\n  -> run one again: VMENTRY_FUZZ_TARGET=TARGET {} FILE; mend, then commit it to fuzz/corpus/TARGET",
        failed.len(),
        failed.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join("\n"),
        binary.display()
    );
    Ok(())
}

fn committed(target: &str) -> PathBuf {
    build::root().join("fuzz/corpus").join(target)
}

/// The folder of everything that is made here.
fn folder() -> PathBuf {
    build::target_dir().join("fuzz")
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

/// Builds the fuzzer with counters of coverage in every crate.
fn build() -> Result<PathBuf> {
    debian::install(&NEEDS)?;
    let mut cargo = build::cargo(["build", "--quiet", "--locked", "--profile", "fuzz", "--package", "fuzz"]);
    // With --target, the flags do not reach build scripts and procedural macros.
    cargo.args(["--features", "libfuzzer", "--target", build::TARGET, "--target-dir"]).arg(folder());
    cargo.env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\x1f")).env_remove("RUSTFLAGS");
    process::run(&mut cargo, "build the fuzzer")?;
    Ok(folder().join(build::TARGET).join("fuzz/fuzz"))
}

/// Fuzzes a target, beginning with the committed inputs and those of earlier runs. Returns the inputs that fail.
fn fuzz(binary: &PathBuf, target: &str, seconds: u32, jobs: usize) -> Result<Vec<PathBuf>> {
    let (found, failed) = (folder().join("corpus").join(target), folder().join("failed").join(target));
    for folder in [&found, &failed] {
        fs::create_dir_all(folder).with_context(|| format!("create folder {}", folder.display()))?;
    }
    let mut command = Command::new(binary);
    command.env("VMENTRY_FUZZ_TARGET", target).arg(&found).arg(committed(target));
    command.args([
        format!("-fork={jobs}"),
        format!("-max_total_time={seconds}"),
        format!("-max_len={MAX_BYTES}"),
        format!("-timeout={TIMEOUT_S}"),
        format!("-rss_limit_mb={MEMORY_MB}"),
        format!("-artifact_prefix={}/", failed.display()),
    ]);
    // A failure is not the end: the others are looked for as long as there is time.
    command.args(["-ignore_crashes=1", "-ignore_ooms=1", "-ignore_timeouts=1"]);
    let status = command.status().with_context(|| format!("run {}", binary.display()))?;
    let entries = fs::read_dir(&failed).with_context(|| format!("read folder {}", failed.display()))?;
    let failed: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    ensure!(status.success() || !failed.is_empty(), "fuzz {target}: {status}");
    Ok(failed)
}

/// Adds the inputs that reach more to the committed ones.
fn keep(binary: &PathBuf, target: &str) -> Result<()> {
    let mut merge = Command::new(binary);
    merge.env("VMENTRY_FUZZ_TARGET", target).args(["-merge=1", "-max_len=4096"]);
    merge.arg(committed(target)).arg(folder().join("corpus").join(target));
    process::run(&mut merge, &format!("keep the inputs of {target}"))
}
