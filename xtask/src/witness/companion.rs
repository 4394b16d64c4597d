//! Checks a lab with the companion module under both policies: every source of pin writes agrees, and switching the
//! policy or reloading the module breaks nothing.

use std::{collections::BTreeMap, path::Path};

use anyhow::Result;
use serde_json::Value;

use crate::{
    lab::results::{Results, number},
    witness::{
        early::{self, DEADLINE, SPURIOUS, by_cause},
        failures::{Failures, balance, count, no_complaints, rows, site_writes},
    },
};

/// The shell script that a lab runs for [`failures`].
pub(crate) const SCRIPT: &str = include_str!("../../../lab/scripts/companion.sh");

/// Timers of the script's deadline runs.
const TIMERS: u64 = 23;
/// L2 entries of its nested runs.
const NESTED: u64 = 19;
/// The controls: their names in reports, and their encodings (VMCS fields).
const CONTROLS: [(&str, u64); 6] = [
    ("pin", 0x4000),
    ("exec", 0x4002),
    ("secondary", 0x401e),
    ("tertiary", 0x2034),
    ("vm_entry", 0x4012),
    ("vm_exit", 0x400c),
];
/// Names and values of enum kvm_preemption_timer_cause.
const CAUSES: [(&str, u64); 3] = [("spurious", SPURIOUS), ("immediate", 1), ("deadline", DEADLINE)];

/// Returns every failed check of the files that the script left.
pub(crate) fn failures(out: &Path) -> Result<Vec<String>> {
    let results = Results(out);
    let mut failures = sources(results)?;
    failures.extend(shadow_alone(results)?);
    failures.extend(switches(results)?);
    failures.extend(policy_is_restored(results)?);
    failures.extend(policy_without_timer(results)?);
    failures.extend(formats(results)?);
    failures.extend(reload(results)?);
    failures.extend(spurious_exits(results)?);
    failures.extend(early::failures(results)?);
    failures.extend(no_complaints(results)?);
    Ok(failures.0)
}

/// Compares all sources of pin writes under both policies.
fn sources(results: Results) -> Result<Failures> {
    let mut failures = Failures::default();
    for hard in [false, true] {
        let policy = if hard { "hard" } else { "soft" };
        let run = |name: &str| Run::read(results, &format!("{name}-{policy}"));
        // The bit is set for each timer and cleared after it; the first write initializes the VMCS.
        let written = if hard { 2 * TIMERS + 1 } else { 1 };
        let deadline = run("deadline")?;
        failures.extend(deadline.sources_agree());
        failures.extend(deadline.pin_writes(written, 0));
        failures.extend(deadline.deadlines(TIMERS));
        // Under the hard policy, an L2 entry with a timer writes vmcs02 twice: off in prepare_vmcs02_early, on in
        // vmx_vcpu_run.
        let armed = if hard { 2 * NESTED } else { 1 };
        for (name, vmcs02) in [("nested", 1), ("armed", armed)] {
            let run = run(name)?;
            failures.extend(run.sources_agree());
            failures.extend(run.pin_writes(vmcs01_pin_writes(&run.report), vmcs02));
        }
    }
    Ok(failures)
}

fn vmcs01_pin_writes(report: &Value) -> u64 {
    number(&report["totals"]["control_writes"]["vmcs01"]["pin"])
}

/// Checks a recording under the hard policy without hooks on writes: latencies are shown, and the shadow copy counts
/// every write.
fn shadow_alone(results: Results) -> Result<Failures> {
    let hard = results.json("hard.json")?;
    let mut failures = balance("hard", &hard);
    failures.equal("latency of a recording without hooks on writes", &hard["latency"], "clean");
    let writes = 2 * TIMERS + 1 + vmcs01_pin_writes(&results.json("armed-hard.json")?) + 2 * NESTED;
    failures.equal("pin writes by the shadow alone, hard policy", &hard["totals"]["pin_writes"], writes);
    Ok(failures)
}

/// Checks the sources of pin writes in runs with a timer and with nested timers under the hard policy. Returns the
/// writes, too.
pub(super) fn under_hard_policy(results: Results) -> Result<(Failures, u64)> {
    let (deadline, armed) = (Run::read(results, "deadline-hard")?, Run::read(results, "armed-hard")?);
    let mut failures = deadline.sources_agree();
    failures.extend(deadline.pin_writes(2 * TIMERS + 1, 0));
    failures.extend(deadline.deadlines(TIMERS));
    failures.extend(armed.sources_agree());
    failures.extend(armed.pin_writes(vmcs01_pin_writes(&armed.report), 2 * NESTED));
    let written = [deadline, armed].map(|run| number(&run.report["totals"]["pin_writes"]));
    Ok((failures, written.iter().sum()))
}

/// A recording with every source of writes, and ftrace's counts of the same run.
struct Run {
    name: String,
    report: Value,
    /// Writes by encoding and by whether the VMCS is a vmcs02.
    writes: BTreeMap<Vec<u64>, u64>,
    /// Timer exits by enum kvm_preemption_timer_cause and by lateness.
    causes: BTreeMap<Vec<u64>, u64>,
}

impl Run {
    fn read(results: Results, name: &str) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            report: results.json(&format!("{name}.json"))?,
            writes: results.histogram_of_keys(&format!("{name}.writes"))?,
            causes: results.histogram_of_keys(&format!("{name}.causes"))?,
        })
    }

    /// Checks that tracepoint, shadow copy, VMWRITE sites and ftrace count the same writes.
    fn sources_agree(&self) -> Failures {
        let mut failures = balance(&self.name, &self.report);
        let totals = &self.report["totals"];
        let exact = &totals["control_writes"];
        for (vmcs, is_vmcs02) in [("vmcs01", 0), ("vmcs02", 1)] {
            for (control, field) in CONTROLS {
                let mut traced = count(&self.writes, vec![field, is_vmcs02]);
                if self.is_nested() && vmcs == "vmcs01" && control == "secondary" {
                    // The guest ends within VMX operation. KVM disables VMCS shadowing when it frees the vCPU; no entry
                    // follows this write.
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
        let sites = site_writes(totals);
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

    /// Checks the numbers of pin writes.
    fn pin_writes(&self, vmcs01: u64, vmcs02: u64) -> Failures {
        let mut failures = Failures::default();
        let exact = &self.report["totals"]["control_writes"];
        failures.equal(&format!("{}: pin writes to vmcs01", self.name), &exact["vmcs01"]["pin"], vmcs01);
        failures.equal(&format!("{}: pin writes to vmcs02", self.name), &exact["vmcs02"]["pin"], vmcs02);
        failures
    }

    /// Checks the number of deadline exits by vmentry's rule, by the tracepoint and by ftrace.
    fn deadlines(&self, expected: u64) -> Failures {
        let mut failures = Failures::default();
        let totals = &self.report["totals"];
        for (by, counts) in [("rule", &totals["timer_exits"]), ("tracepoint", &totals["timer_exits_tracepoint"])] {
            failures.equal(&format!("{}: deadline exits by {by}", self.name), &counts["deadline"], expected);
            failures.equal(&format!("{}: spurious exits by {by}", self.name), &counts["spurious"], 0);
        }
        let traced = count(&by_cause(&self.causes), DEADLINE);
        failures.same(&format!("{}: deadline exits by ftrace", self.name), traced, expected);
        failures.extend(early::in_time(&self.name, &self.causes));
        failures
    }
}

/// Checks that every timer was delivered while the policy was switched.
fn switches(results: Results) -> Result<Failures> {
    let report = results.json("flips.json")?;
    let mut failures = balance("switches", &report);
    let entries = number(&report["totals"]["entries"]);
    failures.check(entries >= 20_000, || format!("switches: only {entries} entries"));
    let switches: u64 = results.word("flips")?.parse().unwrap_or(0);
    failures.check(switches >= 100, || format!("switches: only {switches}"));
    failures.contains("switches", &results.text("flips.guest")?, &["7000 timers, 7000 interrupts taken"]);
    // The switching shell shares the machine's only CPU: a timer that is due while it runs is delivered without an
    // exit.
    let deadlines = number(&report["totals"]["timer_exits"]["deadline"]);
    failures
        .check((6950..=7000).contains(&deadlines), || format!("switches: {deadlines} deadline exits for 7000 timers"));
    Ok(failures)
}

/// Checks that a policy set for a while is restored, and that check finds one that was left behind.
fn policy_is_restored(results: Results) -> Result<Failures> {
    let mut failures = Failures::default();
    for (file, expected) in [("during", "hard"), ("after-sigterm", "soft"), ("after-bogus", "soft")] {
        failures.same(&format!("policy {file}"), results.word(file)?.as_str(), expected);
    }
    for (file, expected) in [("left-behind.json", true), ("check.json", false)] {
        let problems = results.json(file)?["problems"].to_string();
        failures.check(problems.contains("left behind") == expected, || format!("{file}: {problems}"));
    }
    Ok(failures)
}

/// Checks that hard is refused without the timer, when written, and ignored when the module is loaded with it.
fn policy_without_timer(results: Results) -> Result<Failures> {
    let mut failures = Failures::default();
    let refused = results.text("without-timer.error")?;
    failures.contains("policy hard without the timer", &refused, &["not supported"]);
    for file in ["without-timer", "hard-without-timer"] {
        failures.same(file, results.word(file)?.as_str(), "soft");
    }
    Ok(failures)
}

/// Checks that the formats of the tracepoints, by which perf and trace-cmd print events, have a name for each value.
fn formats(results: Results) -> Result<Failures> {
    let mut failures = Failures::default();
    let formats = results.text("formats")?;
    for (name, value) in CONTROLS.into_iter().chain(CAUSES) {
        failures.contains("formats of the tracepoints", &formats, &[&format!("{{ {value}, \"{name}\" }}")]);
    }
    Ok(failures)
}

/// Checks that a recording continues after the same module was reloaded, and ends if another build is loaded.
fn reload(results: Results) -> Result<Failures> {
    let report = results.json("reload.json")?;
    let mut failures = balance("reload", &report);
    let messages = ["was unloaded", "the same build; the recording goes on", "ended early because of another build"];
    failures.contains("reload", &results.text("reload.log")?, &messages);
    let cpuid = rows(&report).iter().filter(|r| r["exit_reason"] == "CPUID");
    let cpuid: u64 = cpuid.map(|r| number(&r["entries"])).sum();
    failures.check(cpuid == 2 * 97, || format!("reload: {cpuid} CPUID exits before and after"));
    Ok(failures)
}

/// Checks that a soft-disabled timer that expires makes spurious exits, and a hard-disabled one none.
fn spurious_exits(results: Results) -> Result<Failures> {
    let mut failures = Failures::default();
    for (policy, expected) in [("soft", 100), ("hard", 0)] {
        let report = results.json(&format!("spurious-{policy}.json"))?;
        failures.equal(&format!("spurious exits, {policy}"), &report["totals"]["timer_exits"]["spurious"], expected);
        let traced = results.histogram_of_keys(&format!("spurious-{policy}.causes"))?;
        failures.same(&format!("spurious exits by ftrace, {policy}"), count(&by_cause(&traced), SPURIOUS), expected);
        failures.extend(early::in_time(&format!("spurious-{policy}"), &traced));
    }
    Ok(failures)
}
