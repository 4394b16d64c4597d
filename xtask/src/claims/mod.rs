//! `cargo xtask claims`: records a Linux guest and a nested one under both timer policies, on this host if it has
//! kvm_intel with the companion patch, else in the lab, and checks each claim of commit 804939ea20.

mod guest;
mod host;
mod qemu;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};

use crate::{
    build, debian,
    lab::{self, Cpu, Kernel, Machine},
    patches::{self, Flavour},
    process::output,
    witness::{
        claims::{self as witness, BOOT, NESTED, NO_POLICY, Plan, STANDARD, STANDARD_AND_OFF},
        guest_experiment, vms,
    },
};

/// The series of the lab's kernel and of the guests'.
const KERNEL: Kernel = Kernel::V6_12;
/// MiB of a machine with QEMU and a guest in it.
const MEMORY: u32 = 1536;
/// Limit of a machine, in time of this host. It takes a third of it on two idle cores.
const TIMEOUT: Duration = Duration::from_secs(1500);

/// Arguments of `claims`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Run in the lab even if this host has kvm_intel with the companion patch
    #[arg(long)]
    lab: bool,
}

/// Records the guests and prints the claims.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let start = Instant::now();
    let out = out_dir();
    println!("\n{}", checked(&out, arguments.lab, false)?);
    println!("ftrace counted the same entries, exits, pin-control writes and timer exits in every recording");
    println!("{} s; recordings, claims.json and the guests' consoles: {}", start.elapsed().as_secs(), out.display());
    Ok(())
}

/// The same as a step of the tests, whose standard output is its result only.
pub(crate) fn check() -> Result<()> {
    eprintln!("\n{}", checked(&out_dir(), false, true)?);
    Ok(())
}

fn out_dir() -> PathBuf {
    build::target_dir().join("claims")
}

/// Records the guests and leaves recordings and `claims.json` in a folder. Returns the claims as a table, or fails if a
/// count is not ftrace's or a claim does not have the known verdict.
fn checked(out: &Path, in_lab_only: bool, quiet: bool) -> Result<String> {
    let reason = if in_lab_only { Some("--lab".into()) } else { host::cannot_run() };
    let plans = match &reason {
        Some(reason) => {
            eprintln!("running in the lab, not on this host: {reason}");
            in_lab(Cpu::Intel, out, &[STANDARD_AND_OFF, NESTED], "", quiet)?;
            [STANDARD_AND_OFF, NESTED]
        }
        None => {
            host::run(out, &[STANDARD, NESTED], SCRIPT)?;
            [STANDARD, NESTED]
        }
    };
    let table = report(out, &plans)?;
    let mut failures = witness::failures(out, &plans)?;
    failures.extend(witness::disagreements(out, reason.is_some())?);
    ensure!(failures.is_empty(), "{table}\n{}\n(files in {})", failures.join("\n"), out.display());
    Ok(table)
}

/// Boots a Linux guest under the hard policy in the lab, and checks the counts against ftrace's.
pub(crate) fn boot_one_guest() -> Result<()> {
    let out = build::target_dir().join("lab/linux-guest");
    in_lab(Cpu::Intel, &out, &[BOOT], "", true)?;
    good(&witness::failures(&out, &[BOOT])?, &out)
}

/// Boots several VMs of QEMU at the same time in the lab, and checks names and counts against QEMU's and ftrace's.
pub(crate) fn boot_vms(cpu: Cpu) -> Result<()> {
    let out = build::target_dir().join("lab/vms").join(cpu.name());
    in_lab(cpu, &out, &[NO_POLICY], vms::SCRIPT, true)?;
    good(&vms::failures(&machine_out(NO_POLICY, &out))?, &out)
}

/// Runs experiments on a Linux guest in the lab, and checks what they find and how they end.
pub(crate) fn experiment() -> Result<()> {
    let out = build::target_dir().join("lab/guest-experiment");
    in_lab(Cpu::Intel, &out, &[NO_POLICY], guest_experiment::SCRIPT, true)?;
    let vmentry = build::static_binary("vmentry")?;
    good(&guest_experiment::failures(&machine_out(NO_POLICY, &out), &vmentry)?, &out)
}

/// Fails with every failed check.
fn good(failures: &[String], out: &Path) -> Result<()> {
    ensure!(failures.is_empty(), "{}\n(files in {})", failures.join("\n"), out.display());
    Ok(())
}

const SCRIPT: &str = include_str!("../../../lab/scripts/claims.sh");

/// Boots a machine for each guest, all at once: an emulator uses one core. Each then runs the rest of the script.
fn in_lab(cpu: Cpu, out: &Path, plans: &[Plan], rest: &str, quiet: bool) -> Result<()> {
    lab::install(cpu)?;
    let module = (cpu == Cpu::Intel).then(|| patches::module(KERNEL, Flavour::Companion)).transpose()?;
    let _ = fs::remove_dir_all(out);
    let machines: Vec<_> = plans
        .iter()
        .map(|&plan| Ok((plan, Machine { cpu, module: module.clone(), quiet, ..machine(plan, out)? })))
        .collect::<Result<_>>()?;
    // Both machines need it.
    build::static_binary("lab-init")?;
    eprintln!("booting {} emulated machines with Debian's Linux {KERNEL}, real KVM and QEMU", machines.len());
    thread::scope(|scope| {
        let runs: Vec<_> =
            machines.iter().map(|(plan, machine)| scope.spawn(|| record(*plan, machine, rest, out))).collect();
        // All of them end before the first failure is returned.
        let ended: Vec<_> =
            runs.into_iter().map(|run| run.join().unwrap_or(Err(anyhow!("run machine: panic")))).collect();
        ended.into_iter().collect()
    })
}

/// Folder of the results of a plan's machine.
fn machine_out(plan: Plan, out: &Path) -> PathBuf {
    out.join("machines").join(plan.name)
}

fn machine(plan: Plan, out: &Path) -> Result<Machine> {
    let tree = out.join("trees").join(plan.name);
    qemu::put(&tree)?;
    guest::put(&debian::newest_kernel(KERNEL)?, &[plan.guest], &tree.join("guests"))?;
    Ok(Machine {
        kernel: KERNEL,
        memory: Some(MEMORY),
        trees: vec![tree],
        out: Some(machine_out(plan, out)),
        timeout: TIMEOUT,
        ..Machine::default()
    })
}

/// Runs the script in a machine and moves what it leaves to the other results.
fn record(plan: Plan, machine: &Machine, rest: &str, out: &Path) -> Result<()> {
    let variables = "GUESTS=/guests\nQEMU='/usr/bin/qemu-system-x86_64 -L /usr/share/qemu'\n";
    let outcome = lab::run(machine, &format!("{variables}{}{SCRIPT}{rest}", plan.variables()))?;
    outcome.check_exit_code()?;
    eprintln!("the machine \"{}\" took {:.0} s", plan.name, outcome.seconds);
    for entry in fs::read_dir(&outcome.out_dir).context("read folder of a machine")?.flatten() {
        if plan.recordings().any(|name| entry.file_name().to_string_lossy().starts_with(&format!("{name}."))) {
            fs::rename(entry.path(), out.join(entry.file_name())).context("move a machine's results")?;
        }
    }
    Ok(())
}

/// Writes `claims.json` and returns the claims as a table.
fn report(out: &Path, plans: &[Plan]) -> Result<String> {
    let vmentry = build::static_binary("vmentry")?;
    let report = |more: &[&str]| {
        let mut command = Command::new(&vmentry);
        command.current_dir(out).args(["report", "--claims"]).args(more);
        output(command.args(plans.iter().flat_map(|plan| plan.recordings()).map(|name| format!("{name}.hlog"))))
    };
    fs::write(out.join("claims.json"), report(&["--format", "json"])?).context("write claims.json")?;
    report(&[])
}
