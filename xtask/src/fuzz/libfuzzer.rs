//! libFuzzer: built on stable Rust, because LLVM's instrumentation is asked for by flags of code generation, as cargo-fuzz does, and its
//! command line and messages.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::{
    build, debian,
    fuzz::{committed, folder},
    process,
};

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
/// Bytes of an input that is kept at most.
const MAX_KEPT_BYTES: u32 = 4 << 10;
/// Seconds of one input at most. Each target has a limit of CPU time of its own below this one.
const TIMEOUT_S: u32 = 120;
/// Megabytes of the process at most. Each target has a limit of its own below this one.
const MEMORY_MB: u32 = 2048;
/// Seconds of a step that makes an input that fails smaller.
const STEP_S: u32 = 10;
/// libFuzzer's exit codes: after Ctrl-C, and for an input that fails.
const INTERRUPTED: i32 = 72;

/// The fuzzer of all targets.
pub(super) struct Fuzzer {
    binary: PathBuf,
    /// processes at a time
    pub(super) jobs: usize,
}

/// What inputs reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Coverage {
    /// counters of branches
    pub(super) edges: u64,
    /// inputs that are needed for that
    pub(super) inputs: u64,
}

/// A run until the first input that fails, or the end of the time.
pub(super) struct Round {
    pub(super) executions: u64,
    pub(super) is_interrupted: bool,
}

/// A line that libFuzzer prints after each of its processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) executions: u64,
    pub(super) coverage: Coverage,
}

impl Fuzzer {
    /// Builds the fuzzer with counters of coverage in every crate.
    pub(super) fn build(jobs: usize) -> Result<Self> {
        debian::install(&NEEDS)?;
        let mut cargo = build::cargo(["build", "--quiet", "--locked", "--profile", "fuzz", "--package", "fuzz"]);
        // With --target, the flags do not reach build scripts and procedural macros.
        cargo.args(["--features", "libfuzzer", "--target", build::TARGET, "--target-dir"]).arg(folder());
        cargo.env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\x1f")).env_remove("RUSTFLAGS");
        process::run(&mut cargo, "build the fuzzer")?;
        Ok(Self { binary: folder().join(build::TARGET).join("fuzz/fuzz"), jobs })
    }

    /// The words of a shell that run one input.
    pub(super) fn reproduction(&self, target: &str, input: &Path) -> String {
        let from_root = |path: &Path| path.strip_prefix(build::root()).unwrap_or(path).display().to_string();
        format!("VMENTRY_FUZZ_TARGET={target} {} {}", from_root(&self.binary), from_root(input))
    }

    /// libFuzzer for a target, with limits of one input and a folder for temporary files, which it leaves there when it is killed.
    fn command(&self, target: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.current_dir(build::root()).env("VMENTRY_FUZZ_TARGET", target).env("TMPDIR", scratch());
        command.stdin(Stdio::null());
        command.args([
            format!("-timeout={TIMEOUT_S}"),
            format!("-report_slow_units={TIMEOUT_S}"),
            format!("-rss_limit_mb={MEMORY_MB}"),
        ]);
        command
    }

    /// Runs one input, or does something else with it. Returns what libFuzzer and a panic print, and whether the input fails.
    pub(super) fn output(&self, target: &str, arguments: &[String]) -> Result<(String, bool)> {
        let command = &mut self.command(target);
        let output = command.args(arguments).output().with_context(|| format!("run {}", self.binary.display()))?;
        Ok((String::from_utf8_lossy(&output.stderr).into_owned(), !output.status.success()))
    }

    /// Runs the inputs of folders, to learn what they reach. None where one of them fails.
    pub(super) fn coverage(&self, target: &str, folders: &[&Path]) -> Result<Option<Coverage>> {
        let mut arguments = vec!["-runs=0".into(), format!("-max_len={MAX_BYTES}"), prefix(target)];
        arguments.extend(folders.iter().map(|folder| folder.display().to_string()));
        let (text, is_failure) = self.output(target, &arguments)?;
        if is_failure {
            return Ok(None);
        }
        let line = text.lines().find(|line| line.contains("INITED"));
        let coverage = line.and_then(Coverage::of_line).unwrap_or_default();
        ensure!(coverage.edges > 0, "fuzz {target}: nothing counts the edges that inputs reach:\n{text}");
        Ok(Some(coverage))
    }

    /// Fuzzes a target, beginning with the inputs of folders; new ones go to the first.
    pub(super) fn run(
        &self,
        target: &str,
        folders: &[&Path],
        time: Duration,
        mut progress: impl FnMut(Progress),
    ) -> Result<Round> {
        let mut command = self.command(target);
        command.env("VMENTRY_FUZZ_FAST_ONLY", "1").args([
            format!("-fork={}", self.jobs),
            format!("-max_total_time={}", time.as_secs().max(1)),
            format!("-max_len={MAX_BYTES}"),
            "-ignore_ooms=0".into(),
            "-ignore_timeouts=0".into(),
            prefix(target),
        ]);
        // SAFETY: between fork and exec, the closure makes one system call and allocates nothing.
        unsafe {
            // An end of this process that libFuzzer does not see, unlike Ctrl-C, is its end, too.
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
        }
        let mut child = command.args(folders).stderr(Stdio::piped()).spawn()?;
        let mut log = File::options().append(true).create(true).open(log(target)).context("write log")?;
        let mut last = Progress::default();
        for line in BufReader::new(child.stderr.take().context("read libFuzzer's messages")?).lines() {
            let line = line.context("read libFuzzer's messages")?;
            writeln!(log, "{line}").context("write log")?;
            if let Some(now) = Progress::of_line(&line) {
                last = now;
                progress(now);
            }
        }
        let status = child.wait().context("wait for libFuzzer")?;
        Ok(Round { executions: last.executions, is_interrupted: status.code() == Some(INTERRUPTED) })
    }

    /// Copies the inputs that reach edges which no committed one does to the committed ones. Returns how many.
    pub(super) fn keep(&self, target: &str) -> Result<usize> {
        let (committed, found) = (committed(target), folder().join("corpus").join(target));
        let inputs = || fs::read_dir(&committed).map(Iterator::count).context("read the committed inputs");
        let before = inputs()?;
        // Without counters: how often an edge is passed does not make an input worth keeping.
        let mut arguments: Vec<_> = ["-merge=1", "-use_counters=0", "-set_cover_merge=1"].map(Into::into).into();
        arguments.extend([format!("-max_len={MAX_KEPT_BYTES}"), prefix(target)]);
        arguments.extend([&committed, &found].map(|folder| folder.display().to_string()));
        let (text, is_failure) = self.output(target, &arguments)?;
        ensure!(!is_failure, "keep the inputs of {target}:\n{text}");
        Ok(inputs()? - before)
    }

    /// Makes an input that fails smaller, step by step. The smallest one becomes another file beside it.
    pub(super) fn shrink(&self, target: &str, input: &Path) -> Result<()> {
        let mut arguments: Vec<_> = ["-minimize_crash=1".into(), format!("-max_total_time={STEP_S}")].into();
        let smallest = input.with_file_name(format!("smallest-of-{}", input.file_name().unwrap_or_default().display()));
        arguments.extend([format!("-exact_artifact_path={}", smallest.display()), input.display().to_string()]);
        self.output(target, &arguments).map(drop)
    }
}

/// The option for the folder of inputs that fail.
fn prefix(target: &str) -> String {
    format!("-artifact_prefix={}/", failed(target).display())
}

/// The folder of a target's inputs that fail.
pub(super) fn failed(target: &str) -> PathBuf {
    folder().join("failed").join(target)
}

/// The file of everything that libFuzzer says while it fuzzes a target.
pub(super) fn log(target: &str) -> PathBuf {
    folder().join("log").join(target)
}

/// The folder for temporary files.
pub(super) fn scratch() -> PathBuf {
    folder().join("tmp")
}

/// Ctrl-C reaches libFuzzer's processes, which end and are waited for, but no longer this one.
pub(super) fn ignore_interrupts() {
    // SAFETY: ignoring a signal runs no code in its handler.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
}

impl Coverage {
    /// From a line such as `#36 INITED cov: 4128 ft: 13200 corp: 31/150Kb exec/s: 0 rss: 64Mb`.
    fn of_line(line: &str) -> Option<Self> {
        Some(Self { edges: number(line, "cov: ")?, inputs: number(line, "corp: ")? })
    }
}

impl Progress {
    /// From a line such as `#9030: cov: 4180 ft: 13300 corp: 33 exec/s: 450 oom/timeout/crash: 0/0/0 time: 22s job: 6 dft_time: 0`.
    fn of_line(line: &str) -> Option<Self> {
        let executions = line.contains(" job: ").then(|| number(line, "#"))??;
        Some(Self { executions, coverage: Coverage::of_line(line)? })
    }
}

/// The number behind some text.
fn number(line: &str, before: &str) -> Option<u64> {
    let rest = line.split_once(before)?.1;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_libfuzzer_are_understood() {
        let line =
            "#9030: cov: 4180 ft: 13300 corp: 33 exec/s: 450 oom/timeout/crash: 0/0/0 time: 22s job: 6 dft_time: 0";
        let coverage = Coverage { edges: 4180, inputs: 33 };
        assert_eq!(Progress::of_line(line), Some(Progress { executions: 9030, coverage }));
        let line = "#36\tINITED cov: 4128 ft: 13200 corp: 31/150Kb exec/s: 0 rss: 64Mb";
        assert_eq!(Progress::of_line(line), None);
        assert_eq!(Coverage::of_line(line), Some(Coverage { edges: 4128, inputs: 31 }));
    }
}
