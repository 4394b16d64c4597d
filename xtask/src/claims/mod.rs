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
    witness::claims::{self as witness, Guest},
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

/// Records the guests, checks the counts against ftrace's, prints the claims, and leaves recordings and `claims.json` in
/// target/claims.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let start = Instant::now();
    let out = build::target_dir().join("claims");
    let reason = if arguments.lab { Some("--lab".into()) } else { host::cannot_run() };
    match &reason {
        Some(reason) => {
            eprintln!("running in the lab, not on this host: {reason}");
            in_lab(&out, &[Guest::Standard, Guest::Hypervisor])?;
        }
        None => host::run(&out, SCRIPT)?,
    }
    let table = report(&out, &Guest::names(&[Guest::Standard, Guest::Hypervisor]))?;
    let mut failures = witness::failures(&out, &[Guest::Standard, Guest::Hypervisor])?;
    failures.extend(witness::disagreements(&out, reason.is_some())?);
    println!("\n{table}");
    ensure!(failures.is_empty(), "{}\n(files in {})", failures.join("\n"), out.display());
    println!("ftrace counted the same entries, exits, pin-control writes and timer exits in every recording");
    println!("{} s; recordings, claims.json and the guests' consoles: {}", start.elapsed().as_secs(), out.display());
    Ok(())
}

/// Boots a Linux guest under the hard policy in the lab, and checks the counts against ftrace's.
pub(crate) fn boot_one_guest() -> Result<()> {
    let out = build::target_dir().join("lab/linux-guest");
    in_lab(&out, &[Guest::Boot])?;
    let failures = witness::failures(&out, &[Guest::Boot])?;
    ensure!(failures.is_empty(), "{}\n(files in {})", failures.join("\n"), out.display());
    Ok(())
}

const SCRIPT: &str = include_str!("../../../lab/scripts/claims.sh");

/// Boots a machine for each guest, all at once: an emulator uses one core.
fn in_lab(out: &Path, guests: &[Guest]) -> Result<()> {
    lab::install(Cpu::Intel)?;
    let module = patches::module(KERNEL, Flavour::Companion)?;
    let tree = prepare(out)?;
    qemu::put(&tree)?;
    // Both machines need them.
    build::static_binary("lab-init")?;
    let machines: Vec<_> = guests.iter().map(|&guest| (guest, machine(guest, &module, &tree, out))).collect();
    eprintln!("booting {} emulated machines with Debian's Linux {KERNEL}, real kvm_intel and QEMU", machines.len());
    thread::scope(|scope| {
        let runs: Vec<_> =
            machines.iter().map(|(guest, machine)| scope.spawn(|| record(*guest, machine, out))).collect();
        // All of them end before the first failure is returned.
        let ended: Vec<_> =
            runs.into_iter().map(|run| run.join().unwrap_or(Err(anyhow!("run machine: panic")))).collect();
        ended.into_iter().collect()
    })
}

/// Empties the folder of results and puts the guests into a tree in it.
fn prepare(out: &Path) -> Result<PathBuf> {
    let _ = fs::remove_dir_all(out);
    let tree = out.join("tree");
    guest::put(&debian::newest_kernel(KERNEL)?, &tree.join("guests"))?;
    Ok(tree)
}

fn machine(guest: Guest, module: &Path, tree: &Path, out: &Path) -> Machine {
    Machine {
        kernel: KERNEL,
        module: Some(module.to_owned()),
        memory: Some(MEMORY),
        trees: vec![tree.to_owned()],
        out: Some(out.join("machines").join(guest.name())),
        timeout: TIMEOUT,
        ..Machine::default()
    }
}

/// Runs the script in a machine and moves what it leaves to the other results.
fn record(guest: Guest, machine: &Machine, out: &Path) -> Result<()> {
    let variables = "GUESTS=/guests\nQEMU='/usr/bin/qemu-system-x86_64 -L /usr/share/qemu'\n";
    let outcome = lab::run(machine, &format!("{variables}{}{SCRIPT}", guest.variables()))?;
    outcome.check_exit_code()?;
    eprintln!("the machine of the {} guest took {:.0} s", guest.name(), outcome.seconds);
    for entry in fs::read_dir(&outcome.out_dir).context("read folder of a machine")?.flatten() {
        if guest.recordings().iter().any(|name| entry.file_name().to_string_lossy().starts_with(&format!("{name}."))) {
            fs::rename(entry.path(), out.join(entry.file_name())).context("move a machine's results")?;
        }
    }
    Ok(())
}

/// Writes `claims.json` and returns the claims as a table.
fn report(out: &Path, recordings: &[&str]) -> Result<String> {
    let vmentry = build::static_binary("vmentry")?;
    let report = |more: &[&str]| {
        let mut command = Command::new(&vmentry);
        command.current_dir(out).args(["report", "--claims"]).args(more);
        output(command.args(recordings.iter().map(|name| format!("{name}.hlog"))))
    };
    fs::write(out.join("claims.json"), report(&["--format", "json"])?).context("write claims.json")?;
    report(&[])
}
