//! `cargo xtask bench startup`: processor time of short commands and size of the binary, beside those of an earlier commit in one run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{build, process};

/// Measure the processor time of short commands (record and check as root) and the binary's size, beside an earlier commit's
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Commit to compare with; its release binary is built in target/startup, once
    #[arg(long, value_name = "COMMIT", default_value = "b405bf2")]
    against: String,
    /// Binary to compare with, instead of a commit's
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Runs of each command and binary
    #[arg(long, value_name = "N", default_value_t = 41, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
}

/// Commands that do little besides starting. `FILE` is a small recording, `OUT` a file to write.
const COMMANDS: [&str; 7] = [
    "--version",
    "record --help",
    "report FILE",
    // Since November 2026, it also loads the programs and runs a guest, unless told not to.
    "check --format json",
    "check --format json --no-proof",
    "record --duration 10ms --overwrite -o OUT",
    // Refused: no process has this number.
    "record --pid 4194304 -o OUT",
];

/// Flag that the earlier binary need not know, because it does without what the flag turns off.
const NEW_FLAG: &str = "--no-proof";

/// A committed recording that both binaries read.
const RECORDING: &str = "tracer/tests/data/lab.hlog";

/// Runs the benchmark.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let before = match &arguments.baseline {
        Some(file) => fs::canonicalize(file).with_context(|| format!("find {}", file.display()))?,
        None => built(&arguments.against)?,
    };
    build::run_cargo(&["build", "--quiet", "--release", "--package", "vmentry"])?;
    let now = build::target_dir().join("release/vmentry");
    let megabytes = |binary: &Path| fs::metadata(binary).map(|file| file.len() as f64 / 1e6);
    let (old, new) = (megabytes(&before)?, megabytes(&now)?);
    println!("size of the release binary: {old:.1} MB before, {new:.1} MB now, ratio {:.2}", new / old);
    println!("{:<44} {:>10} {:>10} {:>8}", "processor time, ms, median", "before", "now", "ratio");
    for command in COMMANDS {
        let mut all = [Vec::new(), Vec::new()];
        for _ in 0..arguments.runs {
            // Alternately, so that other load on this machine hits both.
            let without = command.replace(&format!(" {NEW_FLAG}"), "");
            for (binary, command, of) in [(&before, without.as_str(), 0), (&now, command, 1)] {
                all[of].push(cpu_ms(binary, command)?);
            }
        }
        let [old, new] = all.map(median);
        println!("{command:<44} {old:>10.2} {new:>10.2} {:>8.2}", new / old);
    }
    Ok(())
}

/// The release binary of a commit.
fn built(commit: &str) -> Result<PathBuf> {
    let folder = build::target_dir().join("startup").join(commit);
    let binary = folder.join("target/release/vmentry");
    if !binary.is_file() {
        if !folder.join("Cargo.toml").is_file() {
            let mut git = Command::new("git");
            git.current_dir(build::root()).args(["worktree", "add", "--detach"]).arg(&folder).arg(commit);
            process::run(&mut git, &format!("check {commit} out"))?;
        }
        let mut cargo = build::cargo(["build", "--quiet", "--release", "--package", "vmentry"]);
        process::run(cargo.current_dir(&folder), &format!("build vmentry of {commit}"))?;
    }
    ensure!(binary.is_file(), "build vmentry of {commit}: cargo has not made {}", binary.display());
    Ok(binary)
}

/// Processor time of a command of a binary, ms. It may fail: a refusal is a command, too.
fn cpu_ms(binary: &Path, command: &str) -> Result<f64> {
    let out = build::target_dir().join("startup.hlog");
    let argument = |word: &str| match word {
        "FILE" => build::root().join(RECORDING),
        "OUT" => out.clone(),
        word => word.into(),
    };
    let mut child = Command::new(binary);
    child.args(command.split(' ').map(argument)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let before = children_ms();
    child.status().with_context(|| format!("run {}", binary.display()))?;
    Ok(children_ms() - before)
}

/// Processor time of the programs that this process has waited for, ms.
fn children_ms() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a local that outlives the call; the call cannot fail with it.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) };
    // SAFETY: the call has filled it in, and zeros are valid, too.
    let usage = unsafe { usage.assume_init() };
    let ms = |time: libc::timeval| time.tv_sec as f64 * 1e3 + time.tv_usec as f64 / 1e3;
    ms(usage.ru_utime) + ms(usage.ru_stime)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
