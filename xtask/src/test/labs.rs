//! The steps that take minutes: the Debian package, the companion patches, and emulated machines with real kernels.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    build, claims,
    debian::{self, Offered},
    kernels,
    lab::{self, Cpu, Kernel, Machine},
    packaging,
    patches::{self, Flavour},
    test::{Outcome, Step, steps::passed},
    witness::{self, companion, counts, experiment, stopwatch, survey},
};

/// Steps that build for minutes with all processors.
pub(super) const BUILDS: &[Step] = &[
    ("debian package and service", || passed(packaging::check())),
    ("companion patches", || passed(patches::check_series(true))),
];

/// Steps in emulated machines, of which each takes one processor.
pub(super) const LABS: &[Step] = &[
    ("lab amd 6.12", || with_known_exits(Cpu::Amd, Kernel::V6_12)),
    ("lab intel 6.12", || with_known_exits(Cpu::Intel, Kernel::V6_12)),
    ("lab intel 6.1", || with_known_exits(Cpu::Intel, Kernel::V6_1)),
    ("lab amd 6.1, short", || with_figures(Cpu::Amd, Kernel::V6_1)),
    ("lab amd 6.18, short", || with_figures(Cpu::Amd, Kernel::V6_18)),
    ("lab intel 6.18, short", || with_figures(Cpu::Intel, Kernel::V6_18)),
    ("lab amd newest kernel, short", || with_newest_kernel(Cpu::Amd)),
    ("lab intel newest kernel, short", || with_newest_kernel(Cpu::Intel)),
    ("lab companion 6.12", || with_companion(Kernel::V6_12)),
    ("lab companion 7.3", || with_companion(Kernel::V7_3)),
    ("lab linux guest 6.12", || in_lab(Cpu::Intel, claims::boot_one_guest)),
    ("lab VMs of QEMU amd 6.12", || in_lab(Cpu::Amd, || claims::boot_vms(Cpu::Amd))),
    ("lab stopwatch 6.12", || with_stopwatch(Kernel::V6_12)),
    ("lab experiment 6.12", || with_experiment(Kernel::V6_12)),
];

/// The steps that only `--all` runs, each with its share of what the others leave out.
pub(super) const LONG: &[Step] = &[
    ("claims on a Linux guest and KVM on KVM", || in_lab(Cpu::Intel, claims::check)),
    ("lab VMs of QEMU intel 6.12", || in_lab(Cpu::Intel, || claims::boot_vms(Cpu::Intel))),
    ("lab amd, every other kernel, short", || with_other_kernels(Cpu::Amd)),
    ("lab intel, every other kernel, short", || with_other_kernels(Cpu::Intel)),
    ("lab survey 6.12", || with_survey(Kernel::V6_12)),
    ("lab companion 6.1", || with_companion(Kernel::V6_1)),
    ("lab stopwatch 6.1", || with_stopwatch(Kernel::V6_1)),
    ("lab companion 7.2", || with_companion(Kernel::V7_2)),
    ("lab stopwatch 7.3", || with_stopwatch(Kernel::V7_3)),
    ("lab experiment 7.3", || with_experiment(Kernel::V7_3)),
    ("lab experiment on a Linux guest 6.12", || in_lab(Cpu::Intel, claims::experiment)),
    ("container image", || passed(packaging::check_container())),
    ("crates are built from their packages", || passed(packaging::check_crates(true))),
    ("RPM package", || passed(packaging::check_rpm())),
];

/// Time after which a machine is stopped: several times what it takes alone, because others run beside it.
const PATIENCE: Duration = Duration::from_secs(1500);

/// Kernels that have steps of their own.
const TESTED: [Kernel; 3] = [Kernel::V6_1, Kernel::V6_12, Kernel::V6_18];

/// Runs a step in the lab, after installing the emulator for a processor.
fn in_lab(cpu: Cpu, step: impl FnOnce() -> Result<()>) -> Result<Outcome> {
    if !cfg!(target_arch = "x86_64") {
        return Ok(Outcome::Skipped("the lab needs an x86-64 host".into()));
    }
    lab::install(cpu)?;
    passed(step())
}

/// Boots a machine and runs a script, whose exit code must be 0.
fn run(machine: &Machine, script: &str) -> Result<lab::Outcome> {
    let outcome = lab::run(machine, script)?;
    outcome.check_exit_code()?;
    Ok(outcome)
}

/// Runs a step in the lab if Debian still offers the kernel.
fn in_lab_with(cpu: Cpu, kernel: Kernel, step: impl FnOnce() -> Result<()>) -> Result<Outcome> {
    match debian::withdrawn(kernel) {
        Ok(Some(reason)) => Ok(Outcome::Skipped(reason)),
        // Without Debian's lists there may still be a kernel in the cache.
        _ => in_lab(cpu, step),
    }
}

/// Compares a few figures of a kernel with their witnesses.
fn with_figures(cpu: Cpu, kernel: Kernel) -> Result<Outcome> {
    in_lab_with(cpu, kernel, || kernels::check(kernel, cpu))
}

/// Returns the newest series that has left its release candidates behind.
fn newest(offered: &[Offered]) -> Option<Kernel> {
    offered.iter().rfind(|kernel| !kernel.is_candidate()).map(|newest| newest.kernel)
}

/// Does the same with the newest kernel that is no release candidate.
fn with_newest_kernel(cpu: Cpu) -> Result<Outcome> {
    let offered = match debian::kernels() {
        Ok(offered) => offered,
        Err(error) => return Ok(Outcome::Skipped(format!("{error:#}"))),
    };
    match newest(&offered).filter(|newest| !TESTED.contains(newest)) {
        Some(newest) => {
            eprintln!("the newest kernel is {newest}");
            with_figures(cpu, newest)
        }
        None => Ok(Outcome::Skipped("Debian offers no newer kernel than the other steps boot".into())),
    }
}

/// Does the same with every kernel that no other step boots and vmentry takes (Linux 5.12 or later).
fn with_other_kernels(cpu: Cpu) -> Result<Outcome> {
    let offered = debian::kernels()?;
    let newest = newest(&offered);
    let others = offered.iter().map(|offered| offered.kernel);
    let others = others.filter(|&kernel| kernel > Kernel::V6_1 && !TESTED.contains(&kernel) && Some(kernel) != newest);
    in_lab(cpu, || {
        let mut failures = Vec::new();
        for kernel in others {
            eprintln!("{kernel}:");
            failures.extend(kernels::check(kernel, cpu).err().map(|error| format!("{kernel}: {error:#}")));
        }
        ensure!(failures.is_empty(), "{}", failures.join("\n"));
        Ok(())
    })
}

/// Boots the distribution's own kernel and modules.
fn with_known_exits(cpu: Cpu, kernel: Kernel) -> Result<Outcome> {
    in_lab_with(cpu, kernel, || {
        // In QEMU a second processor takes little time; in Bochs it takes twice the time.
        let processors = if cpu == Cpu::Amd { 2 } else { 1 };
        let machine = Machine { cpu, kernel, processors, timeout: PATIENCE, ..Machine::default() };
        let outcome = run(&machine, counts::SCRIPT)?;
        count_traces(&outcome.out_dir)?;
        check(&outcome, &counts::failures(&outcome.out_dir, cpu == Cpu::Intel)?)
    })
}

/// Counts the slices of the traces with trace-check, which reads them with the official schema.
fn count_traces(out: &Path) -> Result<()> {
    // Built with the same arguments as the unit tests, or else the schema would be compiled again with other features.
    build::run_cargo(&["test", "--quiet", "--no-run"])?;
    for name in witness::TRACES {
        let trace = out.join(format!("{name}.pftrace"));
        let mut command = Command::new(build::target_dir().join("debug/trace-check"));
        let output = command.arg(&trace).stderr(Stdio::inherit()).output().context("run trace-check")?;
        ensure!(output.status.success(), "trace-check {}: {}", trace.display(), output.status);
        fs::write(out.join(format!("{name}-trace.json")), output.stdout).context("write counts of a trace")?;
    }
    Ok(())
}

/// An Intel machine with a module of the companion patches. Its results go to target/lab/NAME-KERNEL.
fn companion_machine(name: &str, kernel: Kernel, flavour: Flavour) -> Result<Machine> {
    let out = build::target_dir().join(format!("lab/{name}-{}", kernel.series()));
    let module = Some(patches::module(kernel, flavour)?);
    Ok(Machine { kernel, module, out: Some(out), timeout: PATIENCE, ..Machine::default() })
}

/// Runs a step in the lab if a module with the companion patches can be built for the kernel.
fn in_companion_lab(kernel: Kernel, step: impl FnOnce() -> Result<()>) -> Result<Outcome> {
    match patches::cannot_build(kernel)? {
        Some(reason) => Ok(Outcome::Skipped(reason)),
        None => in_lab(Cpu::Intel, step),
    }
}

fn with_companion(kernel: Kernel) -> Result<Outcome> {
    in_companion_lab(kernel, || {
        let machine = companion_machine("companion", kernel, Flavour::Companion)?;
        // Copied under another name, because the lab puts added files into one folder.
        let folder = build::target_dir().join(format!("patches/test-only-{}", kernel));
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let test_only = folder.join("kvm-intel-test.ko");
        fs::copy(patches::module(kernel, Flavour::TestOnly)?, &test_only).context("copy the test-only module")?;
        let outcome = run(&Machine { add: vec![test_only], ..machine }, companion::SCRIPT)?;
        check(&outcome, &companion::failures(&outcome.out_dir)?)
    })
}

fn with_stopwatch(kernel: Kernel) -> Result<Outcome> {
    in_companion_lab(kernel, || {
        let outcome = run(&companion_machine("stopwatch", kernel, Flavour::Stopwatch)?, stopwatch::SCRIPT)?;
        check(&outcome, &stopwatch::failures(&outcome.out_dir)?)
    })
}

fn with_experiment(kernel: Kernel) -> Result<Outcome> {
    in_companion_lab(kernel, || {
        let vmentry = build::static_binary("vmentry")?;
        let outcome = run(&companion_machine("experiment", kernel, Flavour::Companion)?, experiment::SCRIPT)?;
        check(&outcome, &experiment::failures(&outcome.out_dir, &vmentry)?)
    })
}

fn with_survey(kernel: Kernel) -> Result<Outcome> {
    in_companion_lab(kernel, || {
        let outcome = run(&companion_machine("survey", kernel, Flavour::Companion)?, survey::SCRIPT)?;
        check(&outcome, &survey::failures(&outcome.out_dir)?)
    })
}

/// Fails with every failed check.
fn check(outcome: &lab::Outcome, failures: &[String]) -> Result<()> {
    ensure!(failures.is_empty(), "{}\n(files in {})", failures.join("\n"), outcome.out_dir.display());
    Ok(())
}
