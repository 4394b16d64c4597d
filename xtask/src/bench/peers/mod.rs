//! `cargo xtask bench peers`: measures the overhead per VM exit of `vmentry record` and of other tools, in an emulated
//! AMD host whose clock counts instructions, or on this host.

mod counted;
mod release;
mod runs;
mod table;
mod tools;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    bench::peers::{release::Release, table::Measured, tools::Tool},
    build, debian,
    lab::{self, Cpu, Machine},
    process,
};

const SCRIPT: &str = include_str!("../../../../lab/scripts/peers.sh");
/// Exit code of CPUID on SVM.
const SVM_CPUID: u64 = 0x72;
/// Exit reason of CPUID on VMX.
const VMX_CPUID: u64 = 10;

/// Measure added instructions per VM exit, exact and repeatable, in an emulated AMD host
#[derive(clap::Args)]
#[command(after_help = "\
QEMU runs with -icount shift=0: an emulated ns is one instruction. Without caches, locks
and world switches, this counts work and does not predict times on hardware.")]
pub(super) struct Arguments {
    /// VM exits of the guest in each run
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    count: u64,
    /// Rounds; in each, every tool runs between two untraced runs
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: u64,
    /// Measure only these tools: record, record_no_phases, record_detail, in_kernel, in_kernel_no_phases, live, ftrace_hist,
    /// ftrace_buffer, perf_stat, perf_kvm, trace_cmd, bcc_kvmexit, bcc_histogram, bpftrace_count, bpftrace_guest, bpftrace_host
    #[arg(long, value_name = "TOOL,..", value_delimiter = ',')]
    tool: Vec<String>,
    /// Release of Debian that perf, trace-cmd, bcc and bpftrace are taken from; the kernel is the same for each
    #[arg(long, value_name = "RELEASE", default_value = "bookworm", conflicts_with = "here")]
    release: Release,
    /// Measure wall clock on this host instead, in ns per exit; needs root, kvm_intel or kvm_amd, and an idle host
    #[arg(long)]
    here: bool,
}

/// Measures, and prints a table.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let wanted = tools::select(&arguments.tool)?;
    if arguments.here { on_this_host(arguments, &wanted) } else { in_lab(arguments, &wanted) }
}

fn in_lab(arguments: &Arguments, wanted: &[&Tool]) -> Result<()> {
    lab::install(Cpu::Amd)?;
    let tools: Vec<_> = wanted.iter().map(|tool| tool.name).collect();
    let mut needs: Vec<_> = wanted.iter().filter_map(|tool| tool.need).collect();
    needs.dedup();
    let trees = if needs.is_empty() { Vec::new() } else { release::trees(arguments.release, &needs)? };
    let out = cleared("lab/peers")?;
    let machine = Machine {
        cpu: Cpu::Amd,
        counts_instructions: true,
        add: vec![build::root().join("lab/scripts/bcc_histogram.py")],
        trees,
        timeout: Duration::from_secs(3000),
        out: Some(out),
        quiet: true,
        ..Machine::default()
    };
    let script = script(arguments, &tools, "");
    let outcome = lab::run(&machine, &script)?;
    outcome.check_exit_code()?;
    println!(
        "EMULATED: instructions of an emulated AMD host (QEMU -icount shift=0), {} CPUID exits per run",
        arguments.count
    );
    println!("perf, trace-cmd, bcc and bpftrace: of {}", arguments.release.title());
    table::print(&Measured { out: &outcome.out_dir, count: arguments.count, unit: "instructions", cpuid: SVM_CPUID })
}

/// Measures wall clock on this host. Leaves out ftrace's buffer and triggers, which may be in use.
fn on_this_host(arguments: &Arguments, wanted: &[&Tool]) -> Result<()> {
    let has_module = ["kvm_intel", "kvm_amd"].iter().any(|module| Path::new("/sys/module").join(module).exists());
    ensure!(
        has_module,
        "measure --here: neither kvm_intel nor kvm_amd is loaded; load one, or leave out --here to measure in the lab"
    );
    let info = fs::read_to_string("/proc/cpuinfo").context("read /proc/cpuinfo")?;
    let cpuid = if info.contains("AuthenticAMD") { SVM_CPUID } else { VMX_CPUID };
    let mut tools = Vec::new();
    for tool in wanted.iter().filter(|tool| !tool.name.starts_with("ftrace")) {
        match tool.need.map_or(Ok(()), |need| debian::install(&[need])) {
            Ok(()) => tools.push(tool.name),
            Err(error) => println!("SKIPPED {}: {error:#}", tool.title),
        }
    }
    let vmentry = build::static_binary("vmentry")?;
    let out = cleared("lab/peers-here")?;
    fs::create_dir_all(&out).with_context(|| format!("create folder {}", out.display()))?;
    let path = process::path_with(vmentry.parent().context("find vmentry's folder")?);
    let scripts = build::root().join("lab/scripts");
    let variables = format!("HERE='{}'", scripts.display());
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script(arguments, &tools, &variables)).env("PATH", path).env("OUT", &out);
    process::run(&mut shell, "run the script, which needs root and /dev/kvm")?;
    println!("this host, wall clock: {} CPUID exits per run", arguments.count);
    table::print(&Measured { out: &out, count: arguments.count, unit: "ns", cpuid })
}

/// Returns the script, which begins with its variables.
fn script(arguments: &Arguments, tools: &[&str], variables: &str) -> String {
    let Arguments { count, rounds, .. } = arguments;
    format!("COUNT={count} ROUNDS={rounds} TOOLS='{}' {variables}\n{SCRIPT}", tools.join(" "))
}

/// Returns a path for results, after removing those of an earlier run.
fn cleared(name: &str) -> Result<PathBuf> {
    let out = build::target_dir().join(name);
    if out.exists() {
        fs::remove_dir_all(&out).with_context(|| format!("empty folder {}", out.display()))?;
    }
    Ok(out)
}
