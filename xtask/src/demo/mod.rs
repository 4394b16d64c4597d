//! `cargo xtask demo`: checks, records and reports guests with known exits, on this host if it has kvm_intel and root,
//! else in the lab.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::Value;

use crate::{
    build,
    lab::{self, Cpu, Kernel, Machine},
    process,
};

const SCRIPT: &str = include_str!("../../../lab/scripts/demo.sh");

/// Arguments of `demo`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// A kernel series that Debian offers, for the lab: see cargo xtask lab kernels
    #[arg(long, value_name = "SERIES", default_value = "6.12")]
    kernel: Kernel,
    /// Run in the lab even if this host can be traced
    #[arg(long)]
    lab: bool,
}

/// Runs the demonstration, and compares its counts with those of the guests.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let out = build::root().join("target/demo");
    let emulated = arguments.lab || !host_can_be_traced();
    if emulated {
        in_lab(arguments.kernel, &out)?;
    } else {
        on_host(&out)?;
    }
    let report = out.join("report.json");
    let text = fs::read_to_string(&report).with_context(|| format!("read {}", report.display()))?;
    check_counts(&serde_json::from_str(&text).with_context(|| format!("read {}", report.display()))?)?;
    println!("\nmatches what the guests executed: 23 deadline exits, 97 CPUID exits, 7 immediate exits, nothing lost");
    println!("recording: {}\nreport:    {}", out.join("recording.hlog").display(), report.display());
    if emulated {
        println!("next: try the tool in the lab (cargo xtask lab shell), or build it for a host (cargo xtask dist)");
    }
    Ok(())
}

fn host_can_be_traced() -> bool {
    process::is_root() && Path::new("/sys/module/kvm_intel").is_dir() && Path::new("/sys/kernel/btf/kvm_intel").exists()
}

fn in_lab(kernel: Kernel, out: &Path) -> Result<()> {
    eprintln!(
        "no kvm_intel or no root here: booting Debian's Linux {} with real kvm_intel in an emulator",
        kernel.series()
    );
    lab::install(Cpu::Intel)?;
    let machine =
        Machine { kernel, out: Some(out.to_owned()), timeout: Duration::from_secs(400), ..Machine::default() };
    lab::run(&machine, SCRIPT)?.check_exit_code()
}

fn on_host(out: &Path) -> Result<()> {
    let binary = build::static_binary("vmentry")?;
    fs::create_dir_all(out).with_context(|| format!("create folder {}", out.display()))?;
    let path = process::path_with(binary.parent().unwrap_or(Path::new(".")));
    let mut shell = Command::new("sh");
    shell.args(["-c", SCRIPT]).env("OUT", out).env("PATH", path);
    process::run(&mut shell, "run the demonstration")
}

/// Compares the report with the exits that the guests executed. On a real host, other VMs may add to them.
fn check_counts(report: &Value) -> Result<()> {
    let entries = |reason: &str, cause: Option<&str>| -> u64 {
        let rows = report["series"].as_array().into_iter().flatten();
        rows.filter(|r| r["exit_reason"] == reason && r["timer_cause"].as_str() == cause)
            .filter_map(|r| r["entries"].as_u64())
            .sum()
    };
    for (reason, cause, known) in
        [("PREEMPTION_TIMER", Some("deadline"), 23), ("CPUID", None, 97), ("PREEMPTION_TIMER", Some("immediate"), 7)]
    {
        let reported = entries(reason, cause);
        let good = if report["emulated"] == true { reported == known } else { reported >= known };
        ensure!(
            good,
            "compare {reason} {}: the guest executed {known} exits, {reported} were reported",
            cause.unwrap_or("")
        );
    }
    let totals = &report["totals"];
    ensure!(totals["dropped"] == 0 && report["exact"] == true, "compare totals: entries were lost: {totals}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_exit_too_few_or_too_many_fails_in_the_lab() {
        let report = |deadline: u32| {
            json!({
                "emulated": true, "exact": true, "totals": {"dropped": 0},
                "series": [
                    {"exit_reason": "PREEMPTION_TIMER", "timer_cause": "deadline", "entries": deadline},
                    {"exit_reason": "PREEMPTION_TIMER", "timer_cause": "immediate", "entries": 7},
                    {"exit_reason": "CPUID", "timer_cause": null, "entries": 97},
                ],
            })
        };
        assert!(check_counts(&report(23)).is_ok());
        assert!(check_counts(&report(22)).is_err());
        assert!(check_counts(&report(24)).is_err());
        let mut lossy = report(23);
        lossy["totals"]["dropped"] = json!(1);
        assert!(check_counts(&lossy).is_err());
    }
}
