//! Compares traces of single events, as trace-check counts them, with reports of the same recordings.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    lab::results::{Results, number},
    witness::failures::{Failures, element, rows},
};

/// Traces that the script leaves as NAME.pftrace. `cargo xtask test` adds the counts of trace-check as NAME-trace.json.
pub(crate) const TRACES: [&str; 3] = ["events", "flight", "full"];

/// Checks the trace of a whole run, of a flight recorder, and of a full disk.
pub(super) fn failures(results: Results) -> Result<Failures> {
    let mut failures = against_report(&results.json("events-trace.json")?, &results.json("events-report.json")?);
    failures.extend(flight_recorder(results)?);
    failures.extend(full_disk(results)?);
    Ok(failures)
}

/// Compares guest slices by exit reason with the report's entries, and checks the numbers at the end of the trace.
fn against_report(trace: &Value, report: &Value) -> Failures {
    let mut failures = complete("trace", trace);
    let mut by_reason: BTreeMap<&str, u64> = BTreeMap::new();
    for row in rows(report) {
        *by_reason.entry(row["exit_reason"].as_str().unwrap_or("unknown")).or_default() += number(&row["entries"]);
    }
    for (reason, entries) in by_reason {
        failures.same(&format!("guest slices that end with {reason}"), guest_slices(trace, reason), entries);
    }
    let guests: u64 = slices(trace).filter(|s| is_guest(s)).map(|s| number(&s["slices"])).sum();
    failures.equal("guest slices", &json!(guests), report["totals"]["delivered"].clone());
    let end = &element(trace, "whole", "name", "recording ends")["arguments"];
    failures.equal("events at the trace's end", &end["events"], guests.to_string());
    failures.equal("events not written at the trace's end", &end["events_not_written"], "0");
    failures.equal("entries dropped at the trace's end", &end["entries_dropped"], "0");
    let is_marked = |slice: &Value| slice["track"][0].as_str().is_some_and(|track| track.contains("emulated"));
    failures.check(slices(trace).all(is_marked), || "a track is not marked as emulated".into());
    failures
}

/// Checks that the flight recorder wrote the time before its trigger, the first CPUID exit.
fn flight_recorder(results: Results) -> Result<Failures> {
    let trace = results.json("flight-trace.json")?;
    let mut failures = complete("flight recorder", &trace);
    failures.same("flight recorder: CPUID exits", guest_slices(&trace, "CPUID"), 1);
    let log = results.text("flight.txt")?;
    failures.contains("flight recorder", &log, &["matched 97 entries; traces written: 1"]);
    failures.check(!results.0.join("impossible.pftrace").exists(), || "an impossible trigger made a trace".into());
    Ok(failures)
}

/// Checks that a full disk is reported once with the number of missing events, and that the recording continues.
fn full_disk(results: Results) -> Result<Failures> {
    let mut failures = Failures::default();
    let (report, log) = (results.json("full-report.json")?, results.text("full.txt")?);
    failures.equal("full disk: end of the recording", &report["recordings"][0]["ended"], "command");
    failures.check(log.matches("No space left").count() == 1, || format!("full disk: not reported once: {log}"));
    failures.contains("full disk", &log, &["events are missing"]);
    let trace = results.json("full-trace.json")?;
    failures.equal("full disk: fields that the official schema does not know", &trace["unknown_fields"], 0);
    Ok(failures)
}

/// Checks that a trace is complete and well-formed.
fn complete(name: &str, trace: &Value) -> Failures {
    let mut failures = Failures::default();
    for field in ["unknown_fields", "torn_bytes", "unbalanced", "nested"] {
        failures.equal(&format!("{name}: {field}"), &trace[field], 0);
    }
    failures
}

fn slices(trace: &Value) -> impl Iterator<Item = &Value> {
    trace["slices"].as_array().into_iter().flatten()
}

fn is_guest(slice: &Value) -> bool {
    slice["name"].as_str().is_some_and(|n| n.starts_with("guest"))
}

/// Returns the number of guest slices that end with an exit reason.
fn guest_slices(trace: &Value, reason: &str) -> u64 {
    slices(trace).filter(|s| is_guest(s) && s["exit_reason"] == reason).map(|s| number(&s["slices"])).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_must_have_a_slice_for_every_entry() {
        let report = json!({
            "totals": {"delivered": 127},
            "series": [{"exit_reason": "PREEMPTION_TIMER", "entries": 30}, {"exit_reason": "CPUID", "entries": 97}],
        });
        let slice = |name: &str, reason: Value, n: u32| {
            json!({
                "track": ["a (emulated)", "vCPU 0"], "name": name, "exit_reason": reason, "slices": n
            })
        };
        let trace = |cpuid: u32, nested: u32| {
            let end = json!({"events": "127", "events_not_written": "0", "entries_dropped": "0"});
            json!({"unknown_fields": 0, "torn_bytes": 0, "unbalanced": 0, "nested": nested,
                "slices": [
                    slice("guest L1", json!("CPUID"), cpuid),
                    slice("guest", json!("PREEMPTION_TIMER"), 30),
                    slice("host: CPUID", Value::Null, 96),
                ],
                "whole": [{"name": "recording ends", "arguments": end}]})
        };
        assert_eq!(against_report(&trace(97, 0), &report).0, Vec::<String>::new());
        assert_eq!(against_report(&trace(97, 1), &report).0.len(), 1);
        // A missing slice fails by exit reason, in total, and against the number at the trace's end.
        assert_eq!(against_report(&trace(96, 0), &report).0.len(), 3);
    }
}
