//! `cargo xtask test`: everything a contributor runs. What cannot run here is skipped with the reason, never passed.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::{
    build::{self, ebpf},
    dashboards, debian,
    lab::{self, Cpu, Kernel, Machine},
    packaging,
    patches::{self, Flavour},
    prometheus, rooms,
    witness::{self, companion, counts, experiment, stopwatch},
};

/// Arguments of `test`.
#[derive(Args)]
pub struct Arguments {
    /// Leave the static binary, its package and the emulated machines out
    #[arg(long)]
    fast: bool,
    /// Only the steps whose name contains this, e.g. "lab amd"
    #[arg(long, value_name = "NAME", conflicts_with = "fast")]
    only: Option<String>,
}

enum Outcome {
    Passed,
    Skipped(String),
}

type Step = (&'static str, fn() -> Result<Outcome>);

const STEPS: &[Step] = &[
    ("format", || cargo(&["fmt", "--all", "--check"])),
    ("clippy", || cargo(&["clippy", "--quiet", "--all-targets", "--", "-D", "warnings"])),
    ("rooms", || rooms::check().map(|()| Outcome::Passed)),
    ("unit and command-line tests", || cargo(&["test", "--quiet"])),
    ("method of comparisons", || cargo(&["bench", "--quiet", "--package", "vmentry", "--bench", "method"])),
    ("clippy of the kernel side", || ebpf::clippy().map(|()| Outcome::Passed)),
    ("committed objects against source", || ebpf::check_committed().map(|()| Outcome::Passed)),
    ("bpftool loads the object", bpftool),
    ("programs on the running kernel", programs),
    ("recorder on the running kernel", recorder),
    ("exporter with the service's capabilities", as_service),
    ("dashboards against the table of metrics", || dashboards::check().map(|()| Outcome::Passed)),
    ("prometheus", || prometheus::run().map(|()| Outcome::Passed)),
];

const LABS: &[Step] = &[
    ("debian package and service", || packaging::check().map(|()| Outcome::Passed)),
    ("companion patches", || patches::check_all().map(|()| Outcome::Passed)),
    ("lab amd 6.12", || in_lab(Cpu::Amd, Kernel::V6_12)),
    ("lab intel 6.12", || in_lab(Cpu::Intel, Kernel::V6_12)),
    ("lab intel 6.1", || in_lab(Cpu::Intel, Kernel::V6_1)),
    ("lab companion 6.12", || with_companion(Kernel::V6_12)),
    ("lab companion 6.1", || with_companion(Kernel::V6_1)),
    ("lab stopwatch 6.12", || with_stopwatch(Kernel::V6_12)),
    ("lab stopwatch 6.1", || with_stopwatch(Kernel::V6_1)),
    ("lab experiment 6.12", || in_experiment(Kernel::V6_12)),
];

/// Runs every step, the later ones also when an earlier one failed.
pub fn run(arguments: &Arguments) -> Result<()> {
    let labs = if arguments.fast { &[] } else { LABS };
    let (mut passed, mut failed, mut skipped) = (0, Vec::new(), Vec::new());
    let wanted = |name: &str| arguments.only.as_deref().is_none_or(|only| name.contains(only));
    for (name, step) in STEPS.iter().chain(labs).filter(|(name, _)| wanted(name)) {
        eprintln!("\n== {name}");
        let start = Instant::now();
        let result = step();
        let seconds = start.elapsed().as_secs();
        match result {
            Ok(Outcome::Passed) => {
                eprintln!("== {name}: passed in {seconds} s");
                passed += 1;
            }
            Ok(Outcome::Skipped(why)) => {
                eprintln!("== {name}: SKIPPED: {why}");
                skipped.push(format!("SKIPPED {name}: {why}"));
            }
            Err(error) => {
                eprintln!("== {name}: FAILED: {error:#}");
                failed.push(format!("FAILED  {name}: {error:#}"));
            }
        }
    }
    if arguments.fast {
        skipped.extend(LABS.iter().map(|(name, _)| format!("SKIPPED {name}: --fast")));
    }
    ensure!(passed + failed.len() + skipped.len() > 0, "no step's name contains what --only says");
    println!();
    for line in skipped.iter().chain(&failed) {
        println!("{line}");
    }
    println!("{passed} passed, {} failed, {} skipped", failed.len(), skipped.len());
    ensure!(failed.is_empty(), "{} steps failed", failed.len());
    Ok(())
}

fn cargo(arguments: &[&str]) -> Result<Outcome> {
    build::run_cargo(arguments).map(|()| Outcome::Passed)
}

fn is_root() -> bool {
    // SAFETY: geteuid has no arguments and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

const NOT_ROOT: &str = "eBPF programs cannot be loaded without root";

fn programs() -> Result<Outcome> {
    if !is_root() {
        return Ok(Outcome::Skipped(NOT_ROOT.into()));
    }
    build::test_programs(None).map(|()| Outcome::Passed)
}

fn recorder() -> Result<Outcome> {
    if let Some(why) = cannot_trace()? {
        return Ok(Outcome::Skipped(why));
    }
    cargo(&[
        "test",
        "--quiet",
        "--package",
        "vmentry",
        "--test",
        "record",
        "--test",
        "pty",
        "--test",
        "export",
        "--",
        "--ignored",
    ])
}

fn as_service() -> Result<Outcome> {
    if let Some(why) = cannot_trace()? {
        return Ok(Outcome::Skipped(why));
    }
    packaging::run_as_service().map(|()| Outcome::Passed)
}

/// Why nothing can be traced here; none where it can.
fn cannot_trace() -> Result<Option<String>> {
    if !is_root() {
        return Ok(Some(NOT_ROOT.into()));
    }
    let mut check = build::cargo(["run", "--quiet", "--package", "vmentry", "--", "check"]);
    let ready = check.stdout(Stdio::null()).status().context("run vmentry check")?.success();
    Ok((!ready).then(|| "this host cannot be traced: see 'vmentry check'".into()))
}

/// The maps must be of the kind that libbpf knows, so that its tools can load the object and dump them.
fn bpftool() -> Result<Outcome> {
    if !is_root() {
        return Ok(Outcome::Skipped(NOT_ROOT.into()));
    }
    debian::install(&[("bpftool", "bpftool")])?;
    let mounted = fs::read_to_string("/proc/mounts").unwrap_or_default().contains(" /sys/fs/bpf ");
    if !mounted && !Command::new("mount").args(["-t", "bpf", "bpf", "/sys/fs/bpf"]).status().is_ok_and(|s| s.success())
    {
        return Ok(Outcome::Skipped("no bpf file system can be mounted here".into()));
    }
    let pins = format!("/sys/fs/bpf/vmentry-test-{}", std::process::id());
    // Programs that no loader has touched use no map that would keep it alive.
    let maps = format!("{pins}-maps");
    let object = build::root().join("tracer-ebpf/dist/vmentry.bpf.o");
    let mut load = Command::new("bpftool");
    load.args(["prog", "loadall"]).arg(&object).args([&pins, "pinmaps", &maps]);
    let loaded = load.status().context("run bpftool")?;
    let dumped = Command::new("bpftool").args(["map", "dump", "name", "COUNTERS"]).output().context("run bpftool");
    for folder in [&pins, &maps] {
        let _ = fs::remove_dir_all(folder);
    }
    ensure!(loaded.success(), "bpftool prog loadall {}: {loaded}", object.display());
    let dump = String::from_utf8_lossy(&dumped?.stdout).into_owned();
    ensure!(dump.contains("\"dropped\""), "bpftool map dump shows no field names: {dump}");
    Ok(Outcome::Passed)
}

fn in_lab(cpu: Cpu, kernel: Kernel) -> Result<Outcome> {
    if !cfg!(target_arch = "x86_64") {
        return Ok(Outcome::Skipped("the lab needs an x86-64 host".into()));
    }
    lab::install(cpu)?;
    // A second processor is quick in QEMU, and slow in Bochs.
    let processors = if cpu == Cpu::Amd { 2 } else { 1 };
    let machine = Machine { cpu, kernel, processors, timeout: Duration::from_secs(600), ..Machine::default() };
    let outcome = lab::run(&machine, counts::SCRIPT)?;
    count_traces(&outcome.out_dir)?;
    verdict(&outcome, counts::failures(&outcome.out_dir, cpu == Cpu::Intel))
}

/// Reads the traces with the official schema.
fn count_traces(out: &Path) -> Result<()> {
    // As the first tests have built it: any other way the schema would be compiled again, with other features.
    cargo(&["test", "--quiet", "--no-run"])?;
    for name in witness::TRACES {
        let trace = out.join(format!("{name}.pftrace"));
        let mut command = Command::new(build::target_dir().join("debug/trace-check"));
        let output = command.arg(&trace).stderr(Stdio::inherit()).output().context("run trace-check")?;
        ensure!(output.status.success(), "trace-check {}: {}", trace.display(), output.status);
        fs::write(out.join(format!("{name}-trace.json")), output.stdout).context("write counts of a trace")?;
    }
    Ok(())
}

fn with_companion(kernel: Kernel) -> Result<Outcome> {
    if !cfg!(target_arch = "x86_64") {
        return Ok(Outcome::Skipped("the lab needs an x86-64 host".into()));
    }
    lab::install(Cpu::Intel)?;
    let module = patches::module(kernel, Flavour::Companion)?;
    // Under its own name: the lab puts added files side by side.
    let test_only = build::target_dir().join("patches/kvm-intel-test.ko");
    fs::create_dir_all(build::target_dir().join("patches")).context("create target/patches")?;
    fs::copy(patches::module(kernel, Flavour::TestOnly)?, &test_only).context("copy the test-only module")?;
    let machine = Machine {
        kernel,
        module: Some(module),
        add: vec![test_only],
        out: Some(build::target_dir().join(format!("lab/companion-{}", kernel.series()))),
        ..Machine::default()
    };
    let outcome = lab::run(&machine, companion::SCRIPT)?;
    verdict(&outcome, companion::failures(&outcome.out_dir))
}

fn with_stopwatch(kernel: Kernel) -> Result<Outcome> {
    if !cfg!(target_arch = "x86_64") {
        return Ok(Outcome::Skipped("the lab needs an x86-64 host".into()));
    }
    lab::install(Cpu::Intel)?;
    let machine = Machine {
        kernel,
        module: Some(patches::module(kernel, Flavour::Stopwatch)?),
        out: Some(build::target_dir().join(format!("lab/stopwatch-{}", kernel.series()))),
        ..Machine::default()
    };
    let outcome = lab::run(&machine, stopwatch::SCRIPT)?;
    verdict(&outcome, stopwatch::failures(&outcome.out_dir))
}

fn in_experiment(kernel: Kernel) -> Result<Outcome> {
    if !cfg!(target_arch = "x86_64") {
        return Ok(Outcome::Skipped("the lab needs an x86-64 host".into()));
    }
    lab::install(Cpu::Intel)?;
    let vmentry = build::static_binary("vmentry")?;
    let mut alarms = Vec::new();
    for seed in experiment::SEEDS {
        let machine = Machine {
            kernel,
            module: Some(patches::module(kernel, Flavour::Companion)?),
            timeout: Duration::from_secs(900),
            out: Some(build::target_dir().join(format!("lab/experiment-{}", kernel.series()))),
            ..Machine::default()
        };
        let outcome = lab::run(&machine, &format!("seed={seed}\n{}", experiment::SCRIPT))?;
        alarms = experiment::false_alarms(&outcome.out_dir, &vmentry)?;
        let mut failures = experiment::failures(&outcome.out_dir, &vmentry)?;
        if alarms.is_empty() || !failures.is_empty() {
            failures.append(&mut alarms);
            return verdict(&outcome, Ok(failures));
        }
        eprintln!("seed {seed}: {}: with another one, then", alarms.join("; "));
    }
    bail!("false alarms with both seeds: {}", alarms.join("; "))
}

fn verdict(outcome: &lab::Outcome, failures: Result<Vec<String>>) -> Result<Outcome> {
    ensure!(
        outcome.exit_code == 0,
        "the script ended with {}: see {}",
        outcome.exit_code,
        outcome.output_path.display()
    );
    let failures = failures?;
    if !failures.is_empty() {
        bail!("{}\n(files in {})", failures.join("\n"), outcome.out_dir.display());
    }
    Ok(Outcome::Passed)
}
