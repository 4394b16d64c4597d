//! Checks a lab with a kernel of the distribution: known exits of guests, counted by vmentry, by ftrace and by the
//! guests.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    lab::results::{Results, json, number},
    witness::{
        calibration, exits,
        failures::{Failures, balance, rows},
        traces,
    },
};

/// The shell script that a lab runs for [`failures`].
pub(crate) const SCRIPT: &str =
    concat!(include_str!("../../../lab/scripts/known-exits.sh"), include_str!("../../../lab/scripts/witness.sh"));

/// Timer exits of the guests, by cause.
const DEADLINE: u64 = 23;
const IMMEDIATE: u64 = 7;

/// Returns every failed check of the files that the script left.
pub(crate) fn failures(out: &Path, vmx: bool) -> Result<Vec<String>> {
    let results = Results(out);
    let report = results.json("report.json")?;
    let mut failures = entries_against_ftrace(&report, &results.histogram("kvm_entry.hist")?);
    failures.extend(reasons_against_ftrace(&report, &results.histogram("kvm_exit.hist")?));
    failures.extend(known_exits(results, &report)?);
    failures.extend(exits::failures(results, &exercises(results)?)?);
    failures.extend(timer_causes(results, &report, vmx)?);
    failures.extend(pin_writes(results, &report, vmx)?);
    failures.equal("emulated", &report["emulated"], true);
    failures.extend(in_kernel_against_records(&results.json("in-kernel.json")?, &report));
    failures.extend(calibration::on_a_stock_kernel(results, vmx)?);
    failures.extend(traces::failures(results)?);
    failures.extend(tiny_ring(results)?);
    failures.extend(killed(results)?);
    failures.extend(stepped_clock(results)?);
    let refusal = results.text("no-module.txt")?;
    failures.contains(
        "record without the KVM module",
        &refusal,
        &[if vmx { "modprobe kvm_intel" } else { "modprobe kvm_amd" }],
    );
    Ok(failures.0)
}

/// Compares the entries of a complete recording with ftrace's count.
pub(super) fn entries_against_ftrace(report: &Value, entries: &BTreeMap<u64, u64>) -> Failures {
    let mut failures = balance("recording", report);
    failures.equal("entries by ftrace's kvm_entry", &report["totals"]["entries"], entries.values().sum::<u64>());
    failures.equal("dropped entries", &report["totals"]["dropped"], 0);
    failures
}

/// Compares exits by reason with ftrace's counts.
pub(super) fn reasons_against_ftrace(report: &Value, exits: &BTreeMap<u64, u64>) -> Failures {
    let mut failures = Failures::default();
    let mut reported: BTreeMap<u64, u64> = BTreeMap::new();
    for row in rows(report) {
        *reported.entry(number(&row["exit_reason_code"])).or_default() += number(&row["entries"]);
    }
    failures.check(reported == *exits, || format!("entries by exit reason {reported:?} are not ftrace's {exits:?}"));
    failures
}

/// Compares the report with the guests' own counts.
pub(super) fn known_exits(results: Results, report: &Value) -> Result<Failures> {
    let mut failures = Failures::default();
    for exercise in exercises(results)? {
        failures.extend(against_guest(report, &exercise));
    }
    Ok(failures)
}

/// The guests' own results.
fn exercises(results: Results) -> Result<Vec<Value>> {
    let folder = results.0;
    let entries = fs::read_dir(folder).with_context(|| format!("read folder {}", folder.display()))?.flatten();
    let files = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("exercise-"));
    files.map(|entry| json(&entry.path())).collect()
}

/// Compares timer exits by cause with the known numbers. KVM also forces an exit if an interrupt of the host comes while
/// the first of two NMIs is delivered, so those of the guest of NMI windows are left out.
pub(super) fn timer_causes(results: Results, report: &Value, vmx: bool) -> Result<Failures> {
    let mut failures = Failures::default();
    let causes = &report["totals"]["timer_exits"];
    if vmx {
        let guests = exercises(results)?;
        let windows = guests.iter().find(|guest| guest["scenario"] == "nmi-window");
        let is_left_out = |row: &&Value| {
            row["timer_cause"] == "immediate" && windows.is_some_and(|guest| guest["tgid"] == row["tgid"])
        };
        let left_out: u64 = rows(report).iter().filter(is_left_out).map(|row| number(&row["entries"])).sum();
        failures.equal("deadline exits", &causes["deadline"], DEADLINE);
        failures.equal("immediate exits", &causes["immediate"], IMMEDIATE + left_out);
        failures.equal("spurious exits", &causes["spurious"], 0);
        failures.equal("early exits", &causes["early"], 0);
        failures.same("deadlines with a lateness", of_deadlines(report), DEADLINE);
    } else {
        failures.equal("deadline exits on SVM", &causes["deadline"], Value::Null);
    }
    Ok(failures)
}

/// Number of timer exits whose deadline is known. A timer may expire some cycles before it, because KVM cuts its value off to steps.
fn of_deadlines(report: &Value) -> u64 {
    let figures = ["deadline_late_ns", "deadline_remaining_ns"];
    rows(report).iter().flat_map(|row| figures.map(|figure| row[figure]["count"].as_u64().unwrap_or(0))).sum()
}

/// Compares pin writes with the known number: the soft policy writes the pin controls once in the life of a VMCS. Three
/// of the vCPUs also have a vmcs02.
pub(super) fn pin_writes(results: Results, report: &Value, vmx: bool) -> Result<Failures> {
    let mut failures = Failures::default();
    let written = &report["totals"]["pin_writes"];
    if vmx {
        let vcpus: usize = exercises(results)?.iter().map(|e| e["vcpus"].as_array().map_or(0, Vec::len)).sum();
        failures.equal("pin writes of all vCPUs", written, vcpus + 3);
    } else {
        failures.equal("pin writes on SVM", written, Value::Null);
    }
    Ok(failures)
}

/// Compares the report with the exits that a guest expects a tracer to count for each of its vCPUs.
fn against_guest(report: &Value, exercise: &Value) -> Failures {
    let mut failures = Failures::default();
    let expectations = exercise["expects"].as_array().map_or(&[][..], Vec::as_slice);
    failures.check(!expectations.is_empty(), || format!("{}: the guest expects nothing", exercise["scenario"]));
    for vcpu in exercise["vcpus"].as_array().into_iter().flatten() {
        for expected in expectations {
            let names = expected["reasons"].as_array().map_or(&[][..], Vec::as_slice);
            let of_guest = |row: &&Value| {
                row["tgid"] == exercise["tgid"]
                    && row["vcpu"] == vcpu["vcpu"]
                    && names.contains(&row["exit_reason"])
                    && (expected["cause"].is_null() || row["timer_cause"] == expected["cause"])
                    && (expected["level"].is_null() || row["level"] == expected["level"])
            };
            let counted: u64 = rows(report).iter().filter(of_guest).map(|r| number(&r["entries"])).sum();
            let wanted = number(&expected["exits_per_vcpu"]);
            let good = match expected["bound"].as_str() {
                Some("exactly") => counted == wanted,
                Some("at_least") => counted >= wanted,
                Some("at_most") => counted <= wanted,
                _ => false,
            };
            failures.check(good, || {
                format!("{} vcpu {}: {counted} exits instead of {expected}", exercise["scenario"], vcpu["vcpu"])
            });
        }
    }
    failures
}

/// Compares the series that the eBPF programs counted in the kernel with those from records of the same entries.
pub(super) fn in_kernel_against_records(in_kernel: &Value, records: &Value) -> Failures {
    let mut failures = balance("in-kernel", in_kernel);
    let series = |report| -> BTreeMap<String, [Value; 4]> {
        // By process id: the name of a guest that ends at once may be read too late by one of them.
        let dimensions = ["tgid", "vcpu", "level", "isa", "exit_reason_code", "entry", "timer_cause"];
        let key = |row: &Value| dimensions.map(|name| row[name].to_string()).join(" ");
        let counts = |row: &Value| {
            let of = |figure: &str, statistic: &str| row[figure][statistic].clone();
            [
                row["entries"].clone(),
                of("exit_to_entry_ns", "count"),
                of("pin_writes", "count"),
                of("pin_writes", "max"),
            ]
        };
        rows(report).iter().map(|row| (key(row), counts(row))).collect()
    };
    let (counted, recorded) = (series(in_kernel), series(records));
    failures.equal("in-kernel: entries", &in_kernel["totals"]["entries"], records["totals"]["entries"].clone());
    failures.equal("in-kernel: aggregation", &in_kernel["aggregation"], "in-kernel");
    failures.check(!counted.is_empty(), || "in-kernel: no series".into());
    for key in counted.keys().chain(recorded.keys()) {
        failures.check(counted.get(key) == recorded.get(key), || {
            format!("in-kernel: {key}: {:?} instead of {:?}", counted.get(key), recorded.get(key))
        });
    }
    failures
}

/// Checks that entries lost in a ring of one page are counted, and that the report begins with them.
fn tiny_ring(results: Results) -> Result<Failures> {
    let report = results.json("tiny.json")?;
    let mut failures = balance("tiny ring", &report);
    failures.check(number(&report["totals"]["dropped"]) > 0, || "tiny ring: nothing was dropped".into());
    let text = results.text("tiny.txt")?;
    failures.check(text.starts_with("LOST "), || {
        format!("tiny ring: the report begins with '{}'", text.lines().next().unwrap_or_default())
    });
    Ok(failures)
}

/// Checks that the recording of a killed recorder has all complete intervals, and no end.
fn killed(results: Results) -> Result<Failures> {
    let report = results.json("killed.json")?;
    let mut failures = balance("killed", &report);
    let entries = &report["totals"]["entries"];
    failures.check(number(entries) >= 97, || format!("killed: {entries} entries were saved"));
    failures.equal("killed: end of the recording", &report["recordings"][0]["ended"], Value::Null);
    Ok(failures)
}

/// Checks that a recording during which the wall clock was set has every exit, and lasted as long as it did.
fn stepped_clock(results: Results) -> Result<Failures> {
    let report = results.json("stepped-report.json")?;
    let mut failures = balance("stepped clock", &report);
    for step in ["0", "-86400", "31536000"] {
        failures.extend(against_guest(&report, &results.json(&format!("stepped-{step}.json"))?));
    }
    failures.equal("stepped clock: end of the recording", &report["recordings"][0]["ended"], "SIGTERM");
    let seconds = number(&report["length_ns"]) / 1_000_000_000;
    failures.check((1..600).contains(&seconds), || format!("stepped clock: the recording lasted {seconds} s"));
    Ok(failures)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report() -> Value {
        let row = |reason: &str, code: u32, cause: Value, entries: u32| {
            json!({
                "tgid": 5, "vcpu": 0, "exit_reason": reason, "exit_reason_code": code, "timer_cause": cause, "entries": entries
            })
        };
        json!({
            "exact": true,
            "totals": {"entries": 127, "delivered": 127, "dropped": 0},
            "series": [
                row("PREEMPTION_TIMER", 52, json!("deadline"), 23),
                row("PREEMPTION_TIMER", 52, json!("immediate"), 7),
                row("CPUID", 10, Value::Null, 97),
            ],
        })
    }

    #[test]
    fn equal_counts_pass_and_one_more_or_less_fails() {
        let exits = BTreeMap::from([(52, 30), (10, 97)]);
        let entries = |n| entries_against_ftrace(&report(), &BTreeMap::from([(0, n)])).0;
        assert_eq!(reasons_against_ftrace(&report(), &exits).0, Vec::<String>::new());
        for (key, count) in [(52, 29), (10, 98), (12, 1)] {
            let mut other = exits.clone();
            other.insert(key, count);
            assert_eq!(reasons_against_ftrace(&report(), &other).0.len(), 1, "{key} {count}");
        }
        assert_eq!((entries(127).len(), entries(126).len()), (0, 1));
    }

    #[test]
    fn a_guests_expectation_counts_by_reason_and_cause() {
        let exercise = |cause: Value, bound: &str, count: u32| {
            let bound =
                json!({"reasons": ["PREEMPTION_TIMER"], "cause": cause, "bound": bound, "exits_per_vcpu": count});
            json!({"scenario": "x", "tgid": 5, "vcpus": [{"vcpu": 0}], "expects": [bound]})
        };
        let failures = |cause, bound, count| against_guest(&report(), &exercise(cause, bound, count)).0.len();
        assert_eq!(failures(json!("deadline"), "exactly", 23), 0);
        assert_eq!(failures(json!("deadline"), "exactly", 22), 1);
        assert_eq!(failures(Value::Null, "exactly", 30), 0);
        assert_eq!(failures(Value::Null, "at_most", 29), 1);
        assert_eq!(failures(Value::Null, "at_least", 31), 1);
        assert_eq!(against_guest(&report(), &json!({"scenario": "x", "expects": []})).0.len(), 1);
    }
}
