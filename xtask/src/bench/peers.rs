//! Added instructions per VM exit, of `vmentry record` and of other tools, in an emulated AMD host whose clock counts instructions.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::bcc;
use crate::{
    build, debian,
    lab::results::{histogram, json, number, text},
    lab::{self, Cpu, Machine},
};

const SCRIPT: &str = include_str!("../../../lab/scripts/peers.sh");
/// SVM's exit code of CPUID.
const SVM_CPUID: u64 = 0x72;
/// VMX' exit reason of CPUID.
const VMX_CPUID: u64 = 10;

/// Added instructions per VM exit, exact and repeatable, in an emulated AMD host
#[derive(clap::Args)]
#[command(after_help = "\
QEMU runs with -icount shift=0: an emulated ns is one instruction. No caches, no
locks, no world switches: a count of work, no prediction for hardware.")]
pub struct Arguments {
    /// VM exits of the guest in each run
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    count: u64,
    /// Rounds, each tool between two untraced runs in every one
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: u64,
    /// Only these tools: record, in_kernel, live, ftrace_hist, ftrace_buffer, perf_stat, perf_kvm, trace_cmd, bcc_kvmexit,
    /// bcc_histogram, bpftrace_count, bpftrace_guest, bpftrace_host
    #[arg(long, value_name = "TOOL,..", value_delimiter = ',')]
    tool: Vec<String>,
    /// Wall clock of this host instead, ns per exit: needs root, kvm_intel or kvm_amd, and a host that does nothing else
    #[arg(long)]
    here: bool,
}

/// Its name for the script and for people, and the Debian package that has it; none for what the machine has anyway.
type Tool = (&'static str, &'static str, Option<debian::Need>);

const TOOLS: [Tool; 13] = [
    ("record", "vmentry record", None),
    ("in_kernel", "vmentry record --aggregate in-kernel", None),
    ("live", "vmentry live", None),
    ("ftrace_hist", "ftrace hist trigger, count by reason", None),
    ("ftrace_buffer", "ftrace buffer, no reader", None),
    ("perf_stat", "perf stat, 2 tracepoints", Some(("perf", "linux-perf"))),
    ("perf_kvm", "perf kvm stat record", Some(("perf", "linux-perf"))),
    ("trace_cmd", "trace-cmd record", Some(("trace-cmd", "trace-cmd"))),
    ("bcc_kvmexit", "bcc kvmexit, edited to run on AMD (counts)", Some(BCC)),
    ("bcc_histogram", "bcc, exit to entry, no reason", Some(BCC)),
    ("bpftrace_count", "bpftrace, count by reason", Some(BPFTRACE)),
    ("bpftrace_guest", "bpftrace, entry to exit by reason", Some(BPFTRACE)),
    ("bpftrace_host", "bpftrace, exit to entry by reason", Some(BPFTRACE)),
];

const BPFTRACE: debian::Need = ("bpftrace", "bpftrace");
const BCC: debian::Need = ("kvmexit-bpfcc", "bpfcc-tools");

/// One run of the guest.
#[derive(Clone, Debug, PartialEq)]
struct Run {
    tool: String,
    /// instructions per exit, everything on the machine's one CPU
    whole: f64,
    /// those of the vCPU's thread
    thread: f64,
    path: PathBuf,
}

/// A tool's cost in one round.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cost {
    /// instructions per exit more than in the untraced runs before and after
    whole: f64,
    /// the same of the vCPU's thread
    thread: f64,
    /// exits per second, traced against untraced
    speed: f64,
}

/// Boots the machine, lets it measure, and prints a table.
pub fn run(arguments: &Arguments) -> Result<()> {
    let wanted: Vec<_> = TOOLS
        .iter()
        .filter(|(name, ..)| arguments.tool.is_empty() || arguments.tool.iter().any(|tool| tool == name))
        .collect();
    let known = TOOLS.map(|(name, ..)| name).join(", ");
    ensure!(
        arguments.tool.iter().all(|tool| TOOLS.iter().any(|(name, ..)| name == tool)),
        "--tool {}: there are {known}",
        arguments.tool.join(",")
    );
    if arguments.here {
        return here(arguments, &wanted);
    }
    lab::install(Cpu::Amd)?;
    let (mut tools, mut add) = (Vec::new(), Vec::new());
    for (name, title, package) in wanted {
        match package.map_or(Ok(Vec::new()), |(program, package)| with_libraries(program, package)) {
            Ok(files) => {
                tools.push(*name);
                add.extend(files);
            }
            Err(error) => println!("SKIPPED {title}: {error:#}"),
        }
    }
    add.sort();
    add.dedup();
    let out = empty("lab/peers")?;
    let machine = Machine {
        cpu: Cpu::Amd,
        counts_instructions: true,
        add,
        timeout: Duration::from_secs(3000),
        out: Some(out),
        quiet: true,
        ..Machine::default()
    };
    let script = script(arguments, &tools, "");
    let outcome = lab::run(&machine, &script)?;
    ensure!(
        outcome.exit_code == 0,
        "the script ended with {}: see {}",
        outcome.exit_code,
        outcome.output_path.display()
    );
    println!(
        "EMULATED: instructions of an emulated AMD host (QEMU -icount shift=0), {} CPUID exits a run",
        arguments.count
    );
    print(&outcome.out_dir, arguments.count, "instructions", SVM_CPUID)
}

/// The same on this very host. ftrace's own buffer and triggers are left alone: somebody may use them.
fn here(arguments: &Arguments, wanted: &[&Tool]) -> Result<()> {
    let has_module = ["kvm_intel", "kvm_amd"].iter().any(|module| Path::new("/sys/module").join(module).exists());
    ensure!(
        has_module,
        "--here: neither kvm_intel nor kvm_amd is loaded: no tool would see an exit. Without --here the lab is measured"
    );
    let info = fs::read_to_string("/proc/cpuinfo").context("read /proc/cpuinfo")?;
    let cpuid = if info.contains("AuthenticAMD") { SVM_CPUID } else { VMX_CPUID };
    let mut tools = Vec::new();
    for (name, title, package) in wanted.iter().filter(|(name, ..)| !name.starts_with("ftrace")) {
        match package.map_or(Ok(()), |need| debian::install(&[need])) {
            Ok(()) => tools.push(*name),
            Err(error) => println!("SKIPPED {title}: {error:#}"),
        }
    }
    let vmentry = build::static_binary("vmentry")?;
    let out = empty("lab/peers-here")?;
    fs::create_dir_all(&out).with_context(|| format!("create folder {}", out.display()))?;
    let mut path = vmentry.parent().context("find vmentry's folder")?.as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let scripts = build::root().join("lab/scripts");
    let variables = format!("HERE='{}' PYTHON=/usr/bin/python3", scripts.display());
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script(arguments, &tools, &variables)).env("PATH", path).env("OUT", &out);
    let status = shell.status().context("run sh")?;
    ensure!(status.success(), "the script ended with {status}: see above; it needs root, and /dev/kvm");
    println!("this host, wall clock: {} CPUID exits a run", arguments.count);
    print(&out, arguments.count, "ns", cpuid)
}

fn script(arguments: &Arguments, tools: &[&str], variables: &str) -> String {
    let Arguments { count, rounds, .. } = arguments;
    format!("COUNT={count} ROUNDS={rounds} TOOLS='{}' {variables}\n{SCRIPT}", tools.join(" "))
}

/// A folder for results, without what an earlier run left.
fn empty(name: &str) -> Result<PathBuf> {
    let out = build::target_dir().join(name);
    if out.exists() {
        fs::remove_dir_all(&out).with_context(|| format!("empty folder {}", out.display()))?;
    }
    Ok(out)
}

/// A program of a package with the libraries that it needs, to be put side by side.
fn with_libraries(program: &'static str, package: &'static str) -> Result<Vec<PathBuf>> {
    if (program, package) == BCC {
        let kernel = debian::newest_kernel(Machine::default().kernel.series())?.package;
        return Ok(vec![bcc::archive(&kernel)?, build::root().join("lab/scripts/bcc_histogram.py")]);
    }
    debian::install(&[(program, package)])?;
    let path =
        ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(program)).into_iter().find(|path| path.exists());
    let path = path.with_context(|| format!("find {program} of package {package}"))?;
    // Debian's perf is a script that looks for the one of the running kernel.
    let path = if program == "perf" { versioned_perf().unwrap_or(path) } else { path };
    let libraries = bcc::libraries(&path)?;
    Ok([vec![named(&path, program)?], libraries].concat())
}

fn versioned_perf() -> Option<PathBuf> {
    let found = fs::read_dir("/usr/bin").ok()?.flatten().map(|entry| entry.path());
    found.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("perf_"))).max()
}

/// A copy under the name that the script calls.
fn named(path: &Path, name: &str) -> Result<PathBuf> {
    let folder = build::target_dir().join("lab/tools");
    fs::create_dir_all(&folder).with_context(|| format!("create folder {}", folder.display()))?;
    let to = folder.join(name);
    fs::copy(path, &to).with_context(|| format!("copy {} to {}", path.display(), to.display()))?;
    Ok(to)
}

fn print(out: &Path, count: u64, unit: &str, cpuid: u64) -> Result<()> {
    let failed = text(&out.join("failed")).unwrap_or_default();
    let rounds = rounds(out, count)?;
    let mut by_tool: BTreeMap<&str, Vec<Cost>> = BTreeMap::new();
    for round in &rounds {
        for (tool, cost) in costs(round) {
            by_tool.entry(tool).or_default().push(cost);
        }
    }
    let untraced: Vec<f64> =
        rounds.iter().flatten().filter(|run| run.tool == "untraced").map(|run| run.whole).collect();
    println!("untraced: {} {unit} per exit, {} runs\n", range(&untraced), untraced.len());
    println!(
        "{:<40} {:>22} {:>22} {:>15}  counted, lost, stored",
        "tool", "+ per exit", "of that the vCPU's", "traced/untraced"
    );
    for (tool, title, _) in TOOLS {
        let Some(costs) = by_tool.get(tool) else { continue };
        let of = |f: fn(&Cost) -> f64| costs.iter().map(f).collect::<Vec<_>>();
        let last = rounds.iter().flatten().rev().find(|run| run.tool == tool);
        let counted = last.map_or(Ok(String::new()), |run| counted(run, count, cpuid))?;
        println!(
            "{title:<40} {:>22} {:>22} {:>15.3}  {counted}",
            range(&of(|c| c.whole)),
            range(&of(|c| c.thread)),
            median(&of(|c| c.speed))
        );
    }
    for (tool, title, _) in TOOLS {
        let Ok(text) = text(&out.join(format!("{tool}.programs"))) else { continue };
        let programs: Vec<_> =
            programs(&text).iter().map(|(each, runs)| format!("{each:.0} a run, {runs} runs")).collect();
        println!("{title}: its programs by the kernel's statistics, which are in it: {}", programs.join("; "));
    }
    if !failed.is_empty() {
        bail!("{}(files in {})", failed, out.display());
    }
    Ok(())
}

/// Instructions a run, and runs, of each program that ran, from its file in fdinfo.
fn programs(fdinfo: &str) -> Vec<(f64, u64)> {
    let values: Vec<u64> = fdinfo.lines().filter_map(|line| line.split_whitespace().nth(1)?.parse().ok()).collect();
    let (pairs, _) = values.as_chunks::<2>();
    pairs.iter().filter(|pair| pair[1] > 0).map(|[time, runs]| (*time as f64 / *runs as f64, *runs)).collect()
}

/// "min / median / max"
fn range(values: &[f64]) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.first(), sorted.last()) {
        (Some(min), Some(max)) => format!("{min:.0} / {:.0} / {max:.0}", median(values)),
        _ => "n/a".into(),
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The runs of each round, in their order.
fn rounds(out: &Path, count: u64) -> Result<Vec<Vec<Run>>> {
    let mut rounds: BTreeMap<u64, BTreeMap<u64, Run>> = BTreeMap::new();
    for entry in fs::read_dir(out).with_context(|| format!("read folder {}", out.display()))?.flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(stem) = name.strip_suffix(".guest") else { continue };
        let mut parts = stem.splitn(3, '-');
        let (Some(round), Some(place), Some(tool)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let guest = json(&path)?;
        let vcpu = &guest["vcpus"][0];
        let per_exit = |field: &str| number(&vcpu[field]) as f64 / count as f64;
        let run = Run { tool: tool.into(), whole: per_exit("run_ns"), thread: per_exit("cpu_ns"), path };
        rounds.entry(round.parse()?).or_default().insert(place.parse()?, run);
    }
    Ok(rounds.into_values().map(|round| round.into_values().collect()).collect())
}

/// Each traced run of a round against the untraced ones before and after it.
fn costs(round: &[Run]) -> Vec<(&str, Cost)> {
    round
        .windows(3)
        .filter(|three| three[1].tool != "untraced" && three[0].tool == "untraced" && three[2].tool == "untraced")
        .map(|three| {
            let base = |f: fn(&Run) -> f64| (f(&three[0]) + f(&three[2])) / 2.0;
            let (whole, thread) = (base(|r| r.whole), base(|r| r.thread));
            let run = &three[1];
            let cost = Cost { whole: run.whole - whole, thread: run.thread - thread, speed: whole / run.whole };
            (run.tool.as_str(), cost)
        })
        .collect()
}

/// What a tool counted of the guest's exits, and what it lost and stored.
fn counted(run: &Run, count: u64, cpuid: u64) -> Result<String> {
    let beside = |suffix: &str| run.path.with_extension(suffix);
    let read = |suffix: &str| text(&beside(suffix)).unwrap_or_default();
    let stored =
        read("bytes").trim().parse::<f64>().map(|b| format!(", {:.1} B/exit", b / count as f64)).unwrap_or_default();
    Ok(match run.tool.as_str() {
        "record" | "in_kernel" => {
            let report = json(&beside("report"))?;
            let rows = report["series"].as_array().into_iter().flatten();
            let cpuids: u64 = rows.filter(|r| r["exit_reason"] == "CPUID").map(|r| number(&r["entries"])).sum();
            let totals: &Value = &report["totals"];
            format!("{cpuids} CPUID of {count}, {} lost{stored}", totals["dropped"])
        }
        "ftrace_hist" => {
            format!("{} CPUID of {count}", histogram(&read("hist"))?.get(&cpuid).copied().unwrap_or(0))
        }
        "ftrace_buffer" => read("buffer").split_whitespace().collect::<Vec<_>>().join(" "),
        "perf_stat" => {
            read("stat")
                .lines()
                .filter(|l| l.contains("kvm:"))
                .map(|l| l.split(',').next().unwrap_or(""))
                .collect::<Vec<_>>()
                .join(" and ")
                + " events"
        }
        "bcc_kvmexit" => {
            format!("{} CPUID of {count}", after(&read("bcc"), if cpuid == VMX_CPUID { "CPUID" } else { "SVM_114" }))
        }
        "bcc_histogram" => format!("{} exits of {count}", after(&read("bcc"), "all")),
        _ if run.tool.starts_with("bpftrace") => {
            format!("{} CPUID of {count}", bpftrace(&read("bpftrace")).get(&cpuid).copied().unwrap_or(0))
        }
        _ => stored.trim_start_matches(", ").to_owned(),
    })
}

/// The number behind a word that ends a line but for that; none is n/a.
fn after(printed: &str, word: &str) -> String {
    let behind = |line: &str| {
        let mut words = line.split_whitespace().rev();
        let number = words.next()?.parse::<u64>().ok()?;
        (words.next() == Some(word)).then_some(number)
    };
    printed.lines().find_map(behind).map_or("n/a".into(), |number| number.to_string())
}

/// Counts by reason of what bpftrace prints of its map `@`: `@[114]: 20000`, or a histogram below `@[114]:` with lines such as
/// `[512, 1K)  20000 |@@@@|`.
fn bpftrace(printed: &str) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    let mut reason = None;
    for line in printed.lines() {
        if let Some((key, count)) = line.strip_prefix("@[").and_then(|rest| rest.split_once("]:")) {
            reason = key.parse().ok();
            if let (Some(reason), Ok(count)) = (reason, count.trim().parse()) {
                counts.insert(reason, count);
            }
        } else if let Some(reason) = reason
            && let Some((_, rest)) = line.split_once([')', ']'])
            && let Some(count) = rest.split('|').next().and_then(|count| count.trim().parse::<u64>().ok())
        {
            *counts.entry(reason).or_default() += count;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bccs_counts_are_read() {
        let printed = "Hit Ctrl-C to end.\n\nPID      TID      KVM_EXIT_REASON   COUNT\n237      238      SVM_114           20000   \n";
        assert_eq!((after(printed, "SVM_114"), after(printed, "SVM_11")), ("20000".into(), "n/a".into()));
        assert_eq!(after("below 64 ns: 3\nall 23\n", "all"), "23");
    }

    #[test]
    fn bpftraces_counts_and_histograms_are_read() {
        let printed = "Attaching 3 probes...\nready\n\n@[114]: \n[512, 1K)     19990 |@@@@@@@@|\n[1K, 2K)         10 |     |\n\n@[96]: 3\n";
        assert_eq!(bpftrace(printed), BTreeMap::from([(96, 3), (114, 20_000)]));
        assert_eq!(bpftrace("[1]  4 |@|\n"), BTreeMap::new());
    }

    fn run(tool: &str, whole: f64) -> Run {
        Run { tool: tool.into(), whole, thread: whole / 2.0, path: PathBuf::new() }
    }

    #[test]
    fn a_tool_is_held_against_the_untraced_runs_beside_it() {
        let round = [run("untraced", 1000.0), run("record", 1600.0), run("untraced", 1200.0), run("perf_stat", 2200.0)];
        let found = costs(&round);
        assert_eq!(found.len(), 1, "the last one has no untraced run after it");
        assert_eq!(found[0].0, "record");
        assert_eq!((found[0].1.whole, found[0].1.thread), (500.0, 250.0));
        assert!((found[0].1.speed - 1100.0 / 1600.0).abs() < 1e-9);
    }

    #[test]
    fn programs_that_never_ran_are_left_out() {
        let text = "run_time_ns:\t900\nrun_cnt:\t3\nrun_time_ns:\t0\nrun_cnt:\t0\n";
        assert_eq!(programs(text), [(300.0, 3)]);
    }

    #[test]
    fn ranges_are_least_middle_and_most() {
        assert_eq!(range(&[3.0, 1.0, 2.0]), "1 / 2 / 3");
        assert_eq!(range(&[]), "n/a");
    }
}
