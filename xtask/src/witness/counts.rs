//! Compares what `vmentry` reports with what others saw of the same run: ftrace's histograms and the guests themselves.
//! Pure: files in, failures out.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::witness::calibration;

/// The shell script that a lab runs for [`failures`].
pub const SCRIPT: &str = include_str!("../../../lab/scripts/witness.sh");

/// Everything that is not as it should be in the files that the script left; empty when all is well.
pub fn failures(out: &Path, vmx: bool) -> Result<Vec<String>> {
    let mut failures = Failures(Vec::new());
    let report = json(&out.join("report.json"))?;
    failures.extend(against_ftrace(
        &report,
        &histogram(&text(&out.join("kvm_entry.hist"))?)?,
        &histogram(&text(&out.join("kvm_exit.hist"))?)?,
    ));
    let mut vcpus = 0;
    for entry in fs::read_dir(out).with_context(|| format!("read folder {}", out.display()))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("exercise-") {
            let exercise = json(&entry.path())?;
            vcpus += exercise["vcpus"].as_array().map_or(0, Vec::len);
            failures.extend(against_guest(&report, &exercise));
        }
    }
    let totals = &report["totals"];
    failures.equal("entries that were dropped", &totals["dropped"], 0);
    failures.equal("emulated", &report["emulated"], true);
    if vmx {
        // The soft policy writes the pin controls once in a VMCS's life; three of the vCPUs have a vmcs02, too.
        failures.equal("pin writes of all vCPUs", &totals["pin_writes"], vcpus + 3);
        failures.equal("deadline exits", &totals["timer_exits"]["deadline"], 23);
        failures.equal("immediate exits", &totals["timer_exits"]["immediate"], 7);
        failures.equal("spurious exits", &totals["timer_exits"]["spurious"], 0);
    } else {
        failures.equal("pin writes on SVM", &totals["pin_writes"], Value::Null);
        failures.equal("deadline exits on SVM", &totals["timer_exits"]["deadline"], Value::Null);
    }

    failures.extend(in_kernel_against_records(&json(&out.join("in-kernel.json"))?, &report));
    failures.extend(calibration::on_a_stock_kernel(out, vmx)?);
    failures.extend(single_events(out)?);

    let tiny = json(&out.join("tiny.json"))?;
    failures.extend(balance("tiny ring", &tiny));
    failures.check(number(&tiny["totals"]["dropped"]) > 0, || "tiny ring: nothing was dropped".into());
    let first = text(&out.join("tiny.txt"))?;
    failures.check(first.starts_with("LOST "), || {
        format!("tiny ring: the report begins with '{}'", first.lines().next().unwrap_or(""))
    });

    let killed = json(&out.join("killed.json"))?;
    failures.extend(balance("killed", &killed));
    failures.check(number(&killed["totals"]["entries"]) >= 97, || {
        format!("killed: {} entries were saved", killed["totals"]["entries"])
    });
    failures.equal("killed: end of the recording", &killed["recordings"][0]["ended"], Value::Null);

    let refusal = text(&out.join("no-module.txt"))?;
    failures.check(refusal.contains("modprobe kvm_intel"), || {
        format!("no module: '{}' does not say what to do", refusal.trim())
    });
    Ok(failures.0)
}

/// What programs counted in the kernel against the records of the same entries.
fn in_kernel_against_records(in_kernel: &Value, records: &Value) -> Failures {
    let mut failures = balance("in the kernel", in_kernel);
    let series = |report| -> BTreeMap<String, [Value; 4]> {
        let dimensions = ["vm", "vcpu", "level", "isa", "exit_reason_code", "entry", "timer_cause"];
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
    failures.equal("in the kernel: entries", &in_kernel["totals"]["entries"], records["totals"]["entries"].clone());
    failures.equal("in the kernel: aggregation", &in_kernel["aggregation"], "in-kernel");
    failures.check(!counted.is_empty(), || "in the kernel: no series".into());
    for key in counted.keys().chain(recorded.keys()) {
        failures.check(counted.get(key) == recorded.get(key), || {
            format!("in the kernel: {key}: {:?} instead of {:?}", counted.get(key), recorded.get(key))
        });
    }
    failures
}

/// Traces of single events that the script leaves, by name without suffix; `xtask test` puts their counts beside them as NAME-trace.json.
pub const TRACES: [&str; 3] = ["events", "flight", "full"];

/// What the traces hold against the reports of the same recordings.
fn single_events(out: &Path) -> Result<Failures> {
    let mut failures = Failures::default();
    let (report, trace) = (json(&out.join("events-report.json"))?, json(&out.join("events-trace.json"))?);
    failures.extend(trace_against_report(&trace, &report));
    let flight = json(&out.join("flight-trace.json"))?;
    failures.extend(whole("flight recorder", &flight));
    // Written at the first CPUID exit: that one, and what came before it.
    failures.equal("flight recorder: CPUID exits", &json!(guest_slices(&flight, "CPUID")), 1);
    let said = text(&out.join("flight.txt"))?;
    failures.check(said.contains("matched 97 entries; traces written: 1"), || format!("flight recorder said: {said}"));
    failures.check(!out.join("impossible.pftrace").exists(), || "an impossible trigger made a trace".into());
    let (report, said) = (json(&out.join("full-report.json"))?, text(&out.join("full.txt"))?);
    failures.equal("full disk: end of the recording", &report["recordings"][0]["ended"], "command");
    failures.check(said.matches("No space left").count() == 1, || format!("full disk: said {said}"));
    failures.check(said.contains("events are missing"), || format!("full disk: no count of what is missing: {said}"));
    let full = json(&out.join("full-trace.json"))?;
    failures.equal("full disk: fields that the official schema does not know", &full["unknown_fields"], 0);
    Ok(failures)
}

fn trace_against_report(trace: &Value, report: &Value) -> Failures {
    let mut failures = whole("trace", trace);
    let mut by_reason: BTreeMap<&str, u64> = BTreeMap::new();
    for row in rows(report) {
        *by_reason.entry(row["exit_reason"].as_str().unwrap_or("unknown")).or_default() += number(&row["entries"]);
    }
    for (reason, entries) in by_reason {
        failures.equal(&format!("guest slices that ended with {reason}"), &json!(guest_slices(trace, reason)), entries);
    }
    let guests: u64 = slices(trace).filter(|s| is_guest(s)).map(|s| number(&s["slices"])).sum();
    failures.equal("guest slices", &json!(guests), report["totals"]["delivered"].clone());
    let ends = trace["whole"].as_array().into_iter().flatten().find(|m| m["name"] == "recording ends");
    let arguments = ends.map_or(Value::Null, |m| m["arguments"].clone());
    failures.equal("events in the trace's end", &arguments["events"], guests.to_string());
    failures.equal("events not written in the trace's end", &arguments["events_not_written"], "0");
    failures.equal("entries dropped in the trace's end", &arguments["entries_dropped"], "0");
    failures.check(slices(trace).all(|s| s["track"][0].as_str().is_some_and(|t| t.contains("emulated"))), || {
        "a track does not say that it is emulated".into()
    });
    failures
}

/// A trace that ended in order.
fn whole(what: &str, trace: &Value) -> Failures {
    let mut failures = Failures::default();
    for name in ["unknown_fields", "torn_bytes", "unbalanced", "nested"] {
        failures.equal(&format!("{what}: {name}"), &trace[name], 0);
    }
    failures
}

fn slices(trace: &Value) -> impl Iterator<Item = &Value> {
    trace["slices"].as_array().into_iter().flatten()
}

fn is_guest(slice: &Value) -> bool {
    slice["name"].as_str().is_some_and(|n| n.starts_with("guest"))
}

fn guest_slices(trace: &Value, reason: &str) -> u64 {
    slices(trace).filter(|s| is_guest(s) && s["exit_reason"] == reason).map(|s| number(&s["slices"])).sum()
}

/// What is not as it should be.
#[derive(Default)]
pub struct Failures(pub Vec<String>);

impl Failures {
    /// Adds a failure where something is not good.
    pub fn check(&mut self, good: bool, otherwise: impl FnOnce() -> String) {
        if !good {
            self.0.push(otherwise());
        }
    }

    /// Adds a failure where something is not what it should be.
    pub fn equal(&mut self, what: &str, found: &Value, expected: impl Into<Value>) {
        let expected = expected.into();
        self.check(*found == expected, || format!("{what}: {found} instead of {expected}"));
    }

    /// Adds others.
    pub fn extend(&mut self, more: Failures) {
        self.0.extend(more.0);
    }
}

/// A number, 0 for anything else.
pub fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// The series of a report.
pub fn rows(report: &Value) -> &[Value] {
    report["series"].as_array().map_or(&[], Vec::as_slice)
}

/// `entries == delivered + dropped`, by the kernel's own counters where the recording has them.
pub fn balance(what: &str, report: &Value) -> Failures {
    let mut failures = Failures::default();
    let t = &report["totals"];
    let sum = number(&t["delivered"]) + number(&t["dropped"]);
    failures.check(number(&t["entries"]) == sum, || {
        format!("{what}: {} entries are not {sum} delivered or dropped", t["entries"])
    });
    failures.equal(&format!("{what}: exact"), &report["exact"], true);
    failures
}

fn against_ftrace(report: &Value, entries: &BTreeMap<u64, u64>, exits: &BTreeMap<u64, u64>) -> Failures {
    let mut failures = balance("recording", report);
    failures.equal("entries by ftrace's kvm_entry", &report["totals"]["entries"], entries.values().sum::<u64>());
    let mut ours: BTreeMap<u64, u64> = BTreeMap::new();
    for row in rows(report) {
        *ours.entry(number(&row["exit_reason_code"])).or_default() += number(&row["entries"]);
    }
    failures.check(ours == *exits, || format!("entries by exit reason {ours:?} are not ftrace's {exits:?}"));
    failures
}

/// What a guest says a tracer must have seen of each of its vCPUs.
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
            let seen: u64 = rows(report).iter().filter(of_guest).map(|r| number(&r["entries"])).sum();
            let wanted = number(&expected["exits_per_vcpu"]);
            let good = match expected["bound"].as_str() {
                Some("exactly") => seen == wanted,
                Some("at_least") => seen >= wanted,
                Some("at_most") => seen <= wanted,
                _ => false,
            };
            failures.check(good, || {
                format!("{} vcpu {}: {seen} exits where {expected} was expected", exercise["scenario"], vcpu["vcpu"])
            });
        }
    }
    failures
}

/// A file's text.
pub fn text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// A file's JSON.
pub fn json(path: &Path) -> Result<Value> {
    serde_json::from_str(&text(path)?).with_context(|| format!("read {}", path.display()))
}

/// Counts by key of an ftrace histogram: lines "{ exit_reason:  52 } hitcount:  30".
pub fn histogram(text: &str) -> Result<BTreeMap<u64, u64>> {
    Ok(histogram_of_keys(text)?.into_iter().map(|(keys, n)| (keys[0], n)).collect())
}

/// Counts by keys: lines "{ field:  16384, vmcs02:  0 } hitcount:  30".
pub fn histogram_of_keys(text: &str) -> Result<BTreeMap<Vec<u64>, u64>> {
    ensure!(text.lines().any(|l| l.trim() == "Dropped: 0"), "ftrace's histogram is not whole:\n{text}");
    let entry = |line: &str| {
        let (keys, count) = line.strip_prefix('{')?.split_once('}')?;
        let number = |part: &str| part.rsplit(':').next()?.trim().parse().ok();
        let keys: Option<Vec<u64>> = keys.split(',').map(number).collect();
        Some((keys?, number(count)?))
    };
    Ok(text.lines().filter_map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HISTOGRAM: &str = "# event histogram\n\n{ exit_reason:         52 } hitcount:         30\n\
        { exit_reason:         10 } hitcount:         97\n\nTotals:\n    Hits: 127\n    Dropped: 0\n";

    fn report() -> Value {
        let row = |reason: &str, code: u32, cause: Value, entries: u32| json!({"tgid": 5, "vcpu": 0, "exit_reason": reason, "exit_reason_code": code, "timer_cause": cause, "entries": entries});
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
        let exits = histogram(HISTOGRAM).unwrap();
        let entries = BTreeMap::from([(0, 127)]);
        assert_eq!(against_ftrace(&report(), &entries, &exits).0, Vec::<String>::new());
        for (key, count) in [(52, 29), (10, 98), (12, 1)] {
            let mut other = exits.clone();
            other.insert(key, count);
            assert_eq!(against_ftrace(&report(), &entries, &other).0.len(), 1, "{key} {count}");
        }
        assert_eq!(against_ftrace(&report(), &BTreeMap::from([(0, 126)]), &exits).0.len(), 1);
    }

    #[test]
    fn a_histogram_that_dropped_is_no_witness() {
        assert!(histogram(&HISTOGRAM.replace("Dropped: 0", "Dropped: 3")).is_err());
        assert!(histogram("").is_err());
    }

    #[test]
    fn a_guests_expectation_counts_by_reason_and_cause() {
        let exercise = |cause: Value, bound: &str, count: u32| {
            json!({"scenario": "x", "tgid": 5, "vcpus": [{"vcpu": 0}],
                "expects": [{"reasons": ["PREEMPTION_TIMER"], "cause": cause, "bound": bound, "exits_per_vcpu": count}]})
        };
        let failures = |cause, bound, count| against_guest(&report(), &exercise(cause, bound, count)).0.len();
        assert_eq!(failures(json!("deadline"), "exactly", 23), 0);
        assert_eq!(failures(json!("deadline"), "exactly", 22), 1);
        assert_eq!(failures(Value::Null, "exactly", 30), 0);
        assert_eq!(failures(Value::Null, "at_most", 29), 1);
        assert_eq!(failures(Value::Null, "at_least", 31), 1);
        assert_eq!(against_guest(&report(), &json!({"scenario": "x", "expects": []})).0.len(), 1);
    }

    #[test]
    fn a_trace_must_have_a_slice_for_every_entry() {
        let slice = |name: &str, reason: Value, n: u32| json!({"track": ["a (emulated)", "vCPU 0"], "name": name, "exit_reason": reason, "slices": n});
        let trace = |cpuid: u32, nested: u32| {
            json!({"unknown_fields": 0, "torn_bytes": 0, "unbalanced": 0, "nested": nested,
                "slices": [slice("guest L1", json!("CPUID"), cpuid), slice("guest", json!("PREEMPTION_TIMER"), 30), slice("host: CPUID", Value::Null, 96)],
                "whole": [{"name": "recording ends", "arguments": {"events": "127", "events_not_written": "0", "entries_dropped": "0"}}]})
        };
        assert_eq!(trace_against_report(&trace(97, 0), &report()).0, Vec::<String>::new());
        assert_eq!(trace_against_report(&trace(97, 1), &report()).0.len(), 1);
        // By reason, in all, and not what the trace's end says.
        assert_eq!(trace_against_report(&trace(96, 0), &report()).0.len(), 3);
    }

    #[test]
    fn a_broken_balance_is_found() {
        let mut broken = report();
        broken["totals"]["dropped"] = json!(1);
        assert_eq!(balance("x", &broken).0.len(), 1);
        broken["totals"]["dropped"] = json!(0);
        broken["exact"] = json!(false);
        assert_eq!(balance("x", &broken).0.len(), 1);
    }
}
