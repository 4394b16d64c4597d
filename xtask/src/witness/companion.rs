//! What a run with the companion module must show under both policies: every source of pin writes agrees, and nothing goes
//! wrong when the policy or the module changes underneath. Pure: files in, failures out.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use crate::witness::counts::{Failures, balance, histogram, histogram_of_keys, json, number, rows, text};

/// The shell script that a lab runs for [`failures`].
pub const SCRIPT: &str = include_str!("../../../lab/scripts/companion.sh");

/// Timers of the script's deadline runs.
const TIMERS: u64 = 23;
/// L2 entries by VMCALL of its nested runs.
const NESTED: u64 = 19;
/// The controls as reports and as VMCSs call them.
const CONTROLS: [(&str, u64); 6] = [
    ("pin", 0x4000),
    ("exec", 0x4002),
    ("secondary", 0x401e),
    ("tertiary", 0x2034),
    ("vm_entry", 0x4012),
    ("vm_exit", 0x400c),
];

/// Everything that is not as it should be in the files that the script left; empty when all is well.
pub fn failures(out: &Path) -> Result<Vec<String>> {
    let mut failures = Failures::default();
    for hard in [false, true] {
        let policy = if hard { "hard" } else { "soft" };
        // The bit is toggled on for each timer and off after it; the first write makes the VMCS.
        let deadline = if hard { 2 * TIMERS + 1 } else { 1 };
        let run = |name: &str| Run::read(out, &format!("{name}-{policy}"));
        let run_deadline = run("deadline")?;
        failures.extend(run_deadline.sources_agree());
        failures.extend(run_deadline.pin_writes(deadline, 0));
        failures.extend(run_deadline.deadlines(TIMERS));
        // An L2 entry with a timer writes vmcs02 twice under the hard policy: off in prepare_vmcs02_early, on in vmx_vcpu_run.
        let armed = if hard { 2 * NESTED } else { 1 };
        for (name, vmcs02) in [("nested", 1), ("armed", armed)] {
            let run = run(name)?;
            failures.extend(run.sources_agree());
            let vmcs01 = number(&run.report["totals"]["control_writes"]["vmcs01"]["pin"]);
            failures.extend(run.pin_writes(vmcs01, vmcs02));
        }
    }

    let hard = json(&out.join("hard.json"))?;
    failures.extend(balance("hard", &hard));
    failures.equal("latency of a recording without hooks on writes", &hard["latency"], "clean");
    let armed_vmcs01 = number(&json(&out.join("armed-hard.json"))?["totals"]["control_writes"]["vmcs01"]["pin"]);
    let both = 2 * TIMERS + 1 + armed_vmcs01 + 2 * NESTED;
    failures.equal("pin writes by the shadow alone, hard policy", &hard["totals"]["pin_writes"], both);

    failures.extend(flips(out)?);
    failures.extend(policy_is_restored(out)?);
    failures.extend(reload(out)?);
    for (policy, expected) in [("soft", 100), ("hard", 0)] {
        let report = json(&out.join(format!("spurious-{policy}.json")))?;
        failures.equal(&format!("spurious exits, {policy}"), &report["totals"]["timer_exits"]["spurious"], expected);
        let traced = histogram(&text(&out.join(format!("spurious-{policy}.causes")))?)?;
        let traced = traced.get(&0).copied().unwrap_or(0);
        failures.check(traced == expected, || {
            format!("spurious exits by ftrace, {policy}: {traced} instead of {expected}")
        });
    }
    let complaints = text(&out.join("complaints"))?;
    failures.check(complaints.trim().is_empty(), || format!("the kernel complained:\n{complaints}"));
    Ok(failures.0)
}

/// A recording with every source of writes, and what ftrace saw of it.
struct Run {
    name: String,
    report: Value,
    /// by field and vmcs02
    writes: std::collections::BTreeMap<Vec<u64>, u64>,
    /// by enum kvm_preemption_timer_cause
    causes: std::collections::BTreeMap<u64, u64>,
}

impl Run {
    fn read(out: &Path, name: &str) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            report: json(&out.join(format!("{name}.json")))?,
            writes: histogram_of_keys(&text(&out.join(format!("{name}.writes")))?)?,
            causes: histogram(&text(&out.join(format!("{name}.causes")))?)?,
        })
    }

    /// Tracepoint, shadow, sites and ftrace count the same.
    fn sources_agree(&self) -> Failures {
        let mut failures = balance(&self.name, &self.report);
        let totals = &self.report["totals"];
        let exact = &totals["control_writes"];
        for (vmcs, is_vmcs02) in [("vmcs01", 0), ("vmcs02", 1)] {
            for (control, field) in CONTROLS {
                let mut traced = self.writes.get(&vec![field, is_vmcs02]).copied().unwrap_or(0);
                if self.is_nested() && vmcs == "vmcs01" && control == "secondary" {
                    // The guest ends within VMX operation. KVM turns VMCS shadowing off when it frees the vCPU: a write that no
                    // entry follows.
                    traced = traced.saturating_sub(1);
                }
                failures.equal(
                    &format!("{}: writes of {vmcs}'s {control}, by ftrace {traced}", self.name),
                    &exact[vmcs][control],
                    traced,
                );
            }
        }
        let pin = number(&exact["vmcs01"]["pin"]) + number(&exact["vmcs02"]["pin"]);
        failures.equal(&format!("{}: source of pin writes", self.name), &totals["pin_writes_source"], "tracepoint");
        failures.equal(&format!("{}: pin writes of all entries", self.name), &totals["pin_writes"], pin);
        failures.equal(&format!("{}: by the shadow", self.name), &totals["shadow_pin_writes"], pin);
        failures.equal(&format!("{}: entries where the shadow differs", self.name), &exact["shadow_differs"], 0);
        let sites: u64 = totals["site_writes"].as_object().into_iter().flatten().map(|(_, n)| number(n)).sum();
        failures.check(sites == pin, || format!("{}: {sites} writes at VMWRITE sites instead of {pin}", self.name));
        failures.equal(
            &format!("{}: latencies are not shown", self.name),
            &rows(&self.report)[0]["entry_to_exit_ns"],
            Value::Null,
        );
        failures
    }

    fn is_nested(&self) -> bool {
        number(&self.report["totals"]["control_writes"]["entries_l2"]) > 0
    }

    fn pin_writes(&self, vmcs01: u64, vmcs02: u64) -> Failures {
        let mut failures = Failures::default();
        let exact = &self.report["totals"]["control_writes"];
        failures.equal(&format!("{}: pin writes to vmcs01", self.name), &exact["vmcs01"]["pin"], vmcs01);
        failures.equal(&format!("{}: pin writes to vmcs02", self.name), &exact["vmcs02"]["pin"], vmcs02);
        failures
    }

    fn deadlines(&self, expected: u64) -> Failures {
        let mut failures = Failures::default();
        let totals = &self.report["totals"];
        for (by, counts) in [("rule", &totals["timer_exits"]), ("tracepoint", &totals["timer_exits_tracepoint"])] {
            failures.equal(&format!("{}: deadline exits by {by}", self.name), &counts["deadline"], expected);
            failures.equal(&format!("{}: spurious exits by {by}", self.name), &counts["spurious"], 0);
        }
        let traced = self.causes.get(&2).copied().unwrap_or(0);
        failures.check(traced == expected, || {
            format!("{}: {traced} deadline exits by ftrace instead of {expected}", self.name)
        });
        failures
    }
}

fn flips(out: &Path) -> Result<Failures> {
    let report = json(&out.join("flips.json"))?;
    let mut failures = balance("flips", &report);
    let entries = number(&report["totals"]["entries"]);
    failures.check(entries >= 20_000, || format!("flips: only {entries} entries"));
    let flips = text(&out.join("flips"))?.trim().parse().unwrap_or(0);
    failures.check(flips >= 100, || format!("flips: only {flips} switches"));
    let guest = text(&out.join("flips.guest"))?;
    failures.check(guest.contains("7000 timers, 7000 interrupts taken"), || format!("flips: {guest}"));
    // The switching shell shares the machine's one CPU: a timer that is due while it runs is delivered without an exit.
    let deadlines = number(&report["totals"]["timer_exits"]["deadline"]);
    failures.check((6950..=7000).contains(&deadlines), || format!("flips: {deadlines} deadline exits for 7000 timers"));
    Ok(failures)
}

fn policy_is_restored(out: &Path) -> Result<Failures> {
    let mut failures = Failures::default();
    for (file, expected) in [("during", "hard"), ("after-sigterm", "soft"), ("after-bogus", "soft")] {
        let policy = text(&out.join(file))?;
        failures.check(policy.trim() == expected, || format!("policy {file}: {} instead of {expected}", policy.trim()));
    }
    for (file, expected) in [("left-behind.json", true), ("check.json", false)] {
        let problems = json(&out.join(file))?["problems"].to_string();
        failures.check(problems.contains("left behind") == expected, || format!("{file}: {problems}"));
    }
    Ok(failures)
}

fn reload(out: &Path) -> Result<Failures> {
    let report = json(&out.join("reload.json"))?;
    let mut failures = balance("reload", &report);
    let log = text(&out.join("reload.log"))?;
    for message in ["was unloaded", "the same build; the recording goes on", "ended early because of another build"] {
        failures.check(log.contains(message), || format!("reload: '{message}' is not in:\n{log}"));
    }
    let cpuids: u64 = rows(&report).iter().filter(|r| r["exit_reason"] == "CPUID").map(|r| number(&r["entries"])).sum();
    failures.check(cpuids == 2 * 97, || format!("reload: {cpuids} CPUID exits before and after"));
    Ok(failures)
}
