//! `vmentry check`: what can be measured on this host, and how to fix what cannot; as text or JSON.

mod erratum;
pub mod overhead;
mod proof;

use std::{fmt::Write as _, process::ExitCode};

use anyhow::Result;
use tracer_common::Slot;

use crate::{
    commands::{
        args::{CheckArgs, Format},
        early,
    },
    guest::{
        Verdict,
        probe::{self, ProbeOutcome},
    },
    host::{
        erratum::FIX,
        facts::{self, Facts, RunningVm},
        problems::{self, Problem, Severity},
        stopwatch,
    },
    model::vendor::Vendor,
    output::{self, wrap},
    tui::terminal,
};
use proof::Proof;

/// Gathers, judges and prints.
pub(super) fn run(args: &CheckArgs) -> Result<ExitCode> {
    let facts = facts::gather(true);
    let proof = proof::make(&facts, !args.no_proof);
    let probe = args.probe.then(|| {
        // A guest that cannot run here leaves one answer unknown, and the others as they are.
        early::probe(&facts, probe::TIMERS, None).unwrap_or_else(|error| ProbeOutcome::not_tried(format!("{error:#}")))
    });
    let mut problems = facts.problems();
    // An error like those of the facts, which come first.
    let at = problems.partition_point(|p| p.severity == Severity::Error);
    problems.splice(at..at, proof.problem());
    if probe.as_ref().is_some_and(|probe| !matches!(probe.verdict, Verdict::Unknown { .. })) {
        // A guest has tried what CPU and kernel let expect.
        problems.retain(|problem| problem.fix != FIX);
    }
    problems.extend(probe.as_ref().and_then(erratum::seen));
    let overhead = if args.overhead { Some(overhead::measure(&facts)?) } else { None };
    match args.format() {
        Format::Text => {
            let overhead = overhead.map(|o| overhead::text(&o, facts.host.caveat().as_deref())).unwrap_or_default();
            let text = text(&facts, &proof, probe.as_ref(), &problems) + &overhead;
            let text = if terminal::is_output() { fitted(&text, terminal::width()) } else { text };
            output::print(&terminal::paint().lines(&text))?;
        }
        Format::Json => {
            let mut json = json(&facts, &proof, &problems);
            if let Some(probe) = probe {
                json["probe"] = serde_json::to_value(probe)?;
            }
            if let Some(overhead) = overhead {
                json["overhead"] = serde_json::to_value(overhead)?;
            }
            output::print(&(serde_json::to_string_pretty(&json)? + "\n"))?;
        }
    }
    Ok(if problems::has_errors(&problems) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Facts and problems for people.
fn text(facts: &Facts, proof: &Proof, probe: Option<&ProbeOutcome>, problems: &[Problem]) -> String {
    let mut out = String::new();
    for (name, value) in host_lines(facts).into_iter().chain(timer_lines(facts)).chain(other_lines(facts)) {
        let _ = writeln!(out, "{name:<20}{value}");
    }
    let _ = writeln!(out, "{:<20}{}", "proof", proof.text());
    if let Some(probe) = probe {
        let _ = writeln!(out, "{:<20}{}", "early timers", probe.verdict_text());
    }
    out.push('\n');
    for p in problems {
        let severity = match p.severity {
            Severity::Error => "ERROR",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        let _ = writeln!(out, "{severity}: {}\n  -> {}", p.what, p.fix);
    }
    out += &verdict(facts, proof, problems);
    out
}

/// The text in lines that fit a terminal: values stay under values, and the rest of a problem is indented.
fn fitted(text: &str, width: usize) -> String {
    let facts = text.split_once("\n\n").map_or(0, |(facts, _)| facts.lines().count());
    let line = |(at, line): (usize, &str)| {
        let indent = match line {
            _ if at < facts => 20,
            fix if fix.starts_with("  ->") => 5,
            _ => 9,
        };
        wrap(line, &" ".repeat(indent), width)
    };
    text.lines().enumerate().map(line).collect()
}

/// The last line: whether this host is ready, and the next command.
fn verdict(facts: &Facts, proof: &Proof, problems: &[Problem]) -> String {
    if let Some(first) = problems.iter().find(|p| p.severity == Severity::Error) {
        return format!("not ready: {}\n", first.what);
    }
    let ready = match proof {
        Proof::NotMade { why } => format!("not proven ({why}), but nothing was found that speaks against it"),
        _ if facts.missing.is_empty() => "ready".into(),
        _ => "ready for entries, guest time and host time; what is n/a stands above".into(),
    };
    format!("{ready}: vmentry record -o FILE\n")
}

fn or_na(value: Option<String>) -> String {
    value.unwrap_or_else(|| "n/a".into())
}

/// Parameters of the KVM modules that are shown.
const PARAMETERS: [&str; 10] = [
    "preemption_timer",
    "preemption_timer_policy",
    stopwatch::PARAMETER,
    "ept",
    "vpid",
    "unrestricted_guest",
    "nested",
    "enable_apicv",
    "npt",
    "avic",
];

fn host_lines(facts: &Facts) -> Vec<(&'static str, String)> {
    let yes = |b: bool| if b { "yes" } else { "no" }.to_owned();
    let host = &facts.host;
    let vendor = match host.vendor {
        Some(Vendor::Intel) => "kvm_intel (VMX)",
        Some(Vendor::Amd) => "kvm_amd (SVM)",
        Some(Vendor::Other) => "other",
        None => "none runs VMs",
    };
    let mut lines = vec![
        ("host", format!("{}, {} x {}", host.name, host.cpus, host.cpu)),
        ("kernel", format!("Linux {}", host.kernel)),
        ("microcode", or_na(host.microcode.clone())),
        ("runs on", or_na(host.caveat().or(Some("bare metal, as far as can be told".into())))),
        ("kvm", vendor.into()),
        ("may trace", yes(facts.may_trace)),
        (
            "btf",
            match (&facts.layout_error, &facts.module_without_btf) {
                (None, None) => "resolved".into(),
                (None, Some(without)) => format!("resolved in part: {without}"),
                (Some(_), _) => "not resolved".into(),
            },
        ),
        (
            "/dev/kvm",
            if facts.dev_kvm {
                "usable (for 'exercise')".into()
            } else {
                "not usable (only 'exercise' needs it)".into()
            },
        ),
        ("timer policy", facts.policy.name().into()),
    ];
    let parameters: Vec<_> =
        PARAMETERS.iter().filter_map(|&k| Some(format!("{k}={}", host.parameters.get(k)?))).collect();
    if !parameters.is_empty() {
        lines.push(("parameters", parameters.join(" ")));
    }
    lines
}

/// The preemption timer and the companion patch; empty without VMX.
fn timer_lines(facts: &Facts) -> Vec<(&'static str, String)> {
    let Some(t) = &facts.timer else { return Vec::new() };
    let mut lines = Vec::new();
    let rate = or_na(t.rate.map(|r| format!("once in {} TSC cycles (IA32_VMX_MISC)", 1u64 << r)));
    lines.push((
        "timer",
        format!(
            "{}, counts {rate}",
            match t.used {
                Some(true) => "used by KVM",
                Some(false) => "not used by KVM",
                None => "use n/a",
            }
        ),
    ));
    let erratum = facts.erratum.as_ref();
    let ratio = match erratum.and_then(|e| e.setup.as_ref()).map(|setup| setup.ratio) {
        None => String::new(),
        Some(None) => "; CPUID has no leaf 15H".into(),
        Some(Some(ratio)) => format!("; {} times the crystal clock (CPUID.15H)", ratio.value()),
    };
    lines.push(("tsc", or_na(t.tsc_khz.map(|k| format!("{k} kHz (from KVM){ratio}")))));
    if let Some(erratum) = erratum {
        lines.push(("longest timer delay", erratum::longest_delay(erratum)));
        lines.push(("erratum EMR158", erratum::text(erratum)));
    }
    let tells_early = facts.layout.as_ref().is_some_and(|l| l.config.get(Slot::VmxDeadlineTsc).is_some());
    let causes = match (facts.tells_timer_causes, tells_early) {
        (true, true) => "deadline, immediate, spurious, early",
        (true, false) => "deadline, immediate, spurious",
        (false, _) => "n/a",
    };
    lines.push(("timer causes", causes.into()));
    lines.push((
        "stopwatch",
        match facts.stopwatch {
            None if facts.module_without_btf.is_some() => or_na(None),
            Some(true) => "on: transition_ns of every entry".into(),
            Some(false) => format!("off (load kvm_intel with {}=1)", stopwatch::PARAMETER),
            None => "no patch: transition_ns of entries that are forced to exit at once".into(),
        },
    ));
    lines.push((
        "companion",
        match (facts.companion_patch, facts.companion_tracepoint) {
            (_, None) => or_na(None),
            (true, Some(true)) => "patch loaded: policy switchable, exact writes".into(),
            (false, Some(true)) => "patch loaded in part: exact writes, policy not switchable".into(),
            (true, Some(false)) => "patch loaded in part: policy switchable, no exact writes".into(),
            (false, Some(false)) => "no patch: pin writes from the shadow method, policy not switchable".into(),
        },
    ));
    lines
}

fn other_lines(facts: &Facts) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    lines.push((
        "tickless cpus",
        if facts.tickless_cpus.is_empty() { "none (nohz_full is empty)".into() } else { facts.tickless_cpus.clone() },
    ));
    let manager = |vm: &RunningVm| vm.labels.get("manager").map(|name| format!(", {name}")).unwrap_or_default();
    let vms: Vec<_> = facts.vms.iter().map(|v| format!("{} (pid {}{})", v.name, v.tgid, manager(v))).collect();
    let vms = if vms.is_empty() { "none".into() } else { vms.join(", ") };
    let unseen = facts.vms_unseen.as_ref().map(|why| format!(" seen; {why}")).unwrap_or_default();
    lines.push(("running VMs", vms + &unseen));
    lines.push(("other tracers", facts.other_tracers.text()));
    lines
}

/// Facts and problems for programs; format "vmentry-check", version 1.
fn json(facts: &Facts, proof: &Proof, problems: &[Problem]) -> serde_json::Value {
    let mut json = serde_json::json!({
        "format": "vmentry-check/1",
        "ready": !problems::has_errors(problems) && matches!(proof, Proof::Passed(_)),
        "proof": proof,
        "problems": problems,
        "facts": facts,
    });
    // Fields of earlier versions: no supported kernel charges programs to RLIMIT_MEMLOCK.
    json["facts"]["memlock_bytes"] = serde_json::Value::Null;
    json["facts"]["memlock_unused"] = true.into();
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{process::made_up::add, roots::made_up::Folder};

    #[test]
    fn a_running_vm_is_listed_with_its_manager_and_labels() {
        let host = Folder::new();
        for (id, cgroup) in [(40, "0::/qemu.slice/101.scope\n"), (41, "0::/user.slice\n")] {
            let cmdline = b"/usr/bin/kvm\0-name\0web1\0-smbios\0type=1,uuid=7b10d7af-b932-4c66-b2c3-3996152ec465\0";
            add(&host.roots.proc, [id, id, 1], cmdline, b"kvm", &["anon_inode:kvm-vm"]);
            host.write(&format!("proc/{id}/cgroup"), cgroup);
        }
        let facts = Facts::gather(&host.roots, false);
        let line = other_lines(&facts).into_iter().find(|line| line.0 == "running VMs").unwrap();
        assert_eq!(line.1, "101 (pid 40, proxmox), web1 (pid 41)");
        let uuid = "7b10d7af-b932-4c66-b2c3-3996152ec465";
        let labels = serde_json::to_value(&facts).unwrap()["vms"][0]["labels"].clone();
        assert_eq!(labels, serde_json::json!({ "manager": "proxmox", "uuid": uuid, "vmid": "101" }));
    }

    #[test]
    fn nothing_is_wider_than_the_terminal_and_values_stay_under_values() {
        let text = "host                vm, 2 x a CPU with a name\nkernel              Linux 6.18\n\nwarning: this host is itself a VM\n  -> \
                    times include the hypervisor below\nready: vmentry record -o FILE\n";
        let expected = "host                vm, 2 x a CPU\n                    with a name\nkernel              Linux 6.18\n\n\
                        warning: this host is itself a VM\n  -> times include the hypervisor\n     below\n\
                        ready: vmentry record -o FILE\n";
        assert_eq!(fitted(text, 34), expected);
        assert_eq!(fitted(text, 200), text);
    }
}
