//! Checks a lab with the stopwatch: both policies calibrated while it is off, and transitions that do not depend on the
//! guest while it is on.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use crate::{
    lab::results::{Results, number},
    witness::{
        calibration,
        early::SPURIOUS,
        failures::{Failures, balance, count, element, no_complaints, rows},
    },
};

/// The shell script that a lab runs for [`failures`].
pub(crate) const SCRIPT: &str = include_str!("../../../lab/scripts/stopwatch.sh");

/// Rounds of a calibration.
const ROUNDS: u64 = 12;
/// Windows of each policy in a round: traced and untraced.
const WINDOWS: u64 = 2;
/// Iterations of a window with the script's samples.
const ITERATIONS: u64 = 40;
/// Iterations before those of a window.
const WARM_UP: u64 = 8;
/// Pin writes of an iteration under the hard policy.
const WRITES: u64 = 2;
/// Encoding of the pin controls (VMCS field).
const PIN: u64 = 0x4000;
/// Transitions are equal within this time, 20 instructions of the emulator. It takes 6 less on the way to L2.
const TOLERANCE_NS: u64 = 200;

/// Returns every failed check of the files that the script left.
pub(crate) fn failures(out: &Path) -> Result<Vec<String>> {
    let results = Results(out);
    let mut failures = policies(results)?;
    failures.extend(off(results)?);
    failures.extend(on(results)?);
    failures.extend(stamps_against_stopwatch(results)?);
    for (file, expected) in
        [("after-calibrate", "soft"), ("after-signal", "soft"), ("policy-on", "soft"), ("without-timer", "N")]
    {
        failures.same(file, results.word(file)?.as_str(), expected);
    }
    failures.extend(no_complaints(results)?);
    Ok(failures.0)
}

/// Checks a calibration of both policies: under the hard one, each armed and each cancelled timer is a write, and
/// nothing else is.
fn policies(results: Results) -> Result<Failures> {
    let mut failures = Failures::default();
    let calibration = results.json("policies.json")?;
    let exits: Vec<_> = calibration["exits"].as_array().into_iter().flatten().map(|e| e["policy"].as_str()).collect();
    failures.check(exits == [Some("soft"), Some("hard")], || format!("calibrated under {exits:?}"));
    let pin = element(&calibration, "control_writes", "control", "pin");
    let apart = calibration::set_apart(pin);
    let expected = ROUNDS * WINDOWS * ITERATIONS * WRITES;
    for kind in ["dirty", "clean"] {
        let count = number(&pin[kind]["tsc"]["count"]);
        failures.check(count <= expected && count + apart + number(&pin["unexpected"]) >= expected, || {
            format!("calibrate: {count} {kind} entries instead of {expected}; {pin}")
        });
    }
    failures.equal("calibrate: entries with another write than provoked", &pin["unexpected"], 0);
    // Without ftrace a write costs a few instructions of KVM, because VM entry of the emulator does not become slower.
    // With ftrace it costs ftrace's work, too.
    failures.extend(cost_of_a_write(&results.json("undisturbed.json")?, 1.0..60.0));
    failures.extend(cost_of_a_write(&calibration, 200.0..5000.0));
    failures.extend(provoked_writes(results)?);
    failures.extend(stopped_calibration(results)?);
    Ok(failures)
}

/// Checks that the cost of a write is the same by stamps and by untraced round trips, and within a range of cycles.
fn cost_of_a_write(calibration: &Value, range: std::ops::Range<f64>) -> Failures {
    let mut failures = Failures::default();
    let pin = element(calibration, "control_writes", "control", "pin");
    let cost = |of: &Value| of["tsc"]["value"].as_f64().unwrap_or(f64::NAN);
    let (traced, untraced) = (cost(&pin["cost"]), cost(&pin["untraced_cost"]));
    failures.check((traced - untraced).abs() <= 4.0 && range.contains(&traced), || {
        format!("calibrate: a pin write costs {traced} cycles by its stamps, {untraced} by untraced round trips")
    });
    failures
}

/// Compares ftrace's count of pin writes with the provoked ones, traced and untraced. Each switch of the policy may add
/// two.
fn provoked_writes(results: Results) -> Result<Failures> {
    let mut failures = Failures::default();
    let provoked = 2 * ROUNDS * WINDOWS * (ITERATIONS + WARM_UP) * WRITES;
    let written = count(&results.histogram("policies.writes")?, PIN);
    let by_switches = 2 * ROUNDS * 4 * 2 + 4;
    failures.check((provoked..=provoked + by_switches).contains(&written), || {
        format!("calibrate: ftrace counted {written} pin writes; {provoked} were provoked")
    });
    Ok(failures)
}

/// Checks a calibration that SIGTERM stopped under the hard policy.
fn stopped_calibration(results: Results) -> Result<Failures> {
    let mut failures = Failures::default();
    failures.same("calibrate, SIGTERM: exit code", results.word("stopped.code")?.as_str(), "1");
    let text = results.text("stopped.txt")?;
    failures.contains("calibrate, SIGTERM", &text, &["INCOMPLETE: stopped by SIGTERM", "policy soft"]);
    Ok(failures)
}

/// Checks that without the stopwatch only immediate exits have a transition: all of their guest time.
fn off(results: Results) -> Result<Failures> {
    let mut failures = Failures::default();
    let off = results.json("off.json")?;
    failures.equal("stopwatch off: source", &off["transition_source"], "immediate");
    failures.equal("stopwatch off: tick", &off["stopwatch_tick_ns"], Value::Null);
    for row in rows(&off) {
        if row["timer_cause"] == "immediate" {
            // Guest times have an exact sum beside their buckets, transitions have none.
            let mut guest_times = row["entry_to_exit_ns"].clone();
            guest_times.as_object_mut().map(|members| members.remove("sum"));
            failures.equal("stopwatch off: transition of immediate exits", &row["transition_ns"], guest_times);
        } else {
            failures.equal("stopwatch off: transition of other exits", &row["transition_ns"], Value::Null);
        }
    }
    failures.contains("check-off.txt", &results.text("check-off.txt")?, &["stopwatch"]);
    failures.contains("check-on.txt", &results.text("check-on.txt")?, &["on: transition_ns of every entry"]);
    Ok(failures)
}

/// Checks the recordings with the stopwatch.
fn on(results: Results) -> Result<Failures> {
    let mut failures = Failures::default();
    let mut medians = Vec::new();
    for name in ["spin-1000", "spin-1000000", "cpuid", "deadline", "immediate", "hlt", "armed"] {
        let report = results.json(&format!("{name}.json"))?;
        failures.extend(every_entry_has_a_transition(results, name, &report)?);
        failures.extend(constant(name, &report));
        let l1 = rows(&report).iter().filter(|r| r["level"] == "L1").map(|r| number(&r["transition_ns"]["p50"]));
        medians.push(l1.max().unwrap_or(0));
    }
    // The two spinning guests differ only in their own time, by milliseconds, which is not part of a transition. Their
    // medians differ by a few ns where the kernel's clock was adjusted between the two.
    failures.check(medians[0].abs_diff(medians[1]) <= TOLERANCE_NS && medians[0] > 0, || {
        format!("spin: transitions of {} and {} ns", medians[0], medians[1])
    });
    // Keys are those of enum kvm_preemption_timer_cause.
    for (cause, key, expected) in [("deadline", 2, 23), ("immediate", 1, 7)] {
        let report = results.json(&format!("{cause}.json"))?;
        failures.equal(&format!("{cause} exits"), &report["totals"]["timer_exits"][cause], expected);
        let causes = results.histogram(&format!("{cause}.causes"))?;
        // The stopwatch runs out before a deadline that is further away than it counts, and starts again.
        let restarts = count(&causes, SPURIOUS);
        failures.equal(&format!("{cause}: spurious exits"), &report["totals"]["timer_exits"]["spurious"], restarts);
        failures.check((restarts >= 23) == (cause == "deadline"), || format!("{cause}: {restarts} restarts"));
        failures.same(&format!("{cause} exits by ftrace"), count(&causes, key), expected);
    }
    for (file, words) in [
        ("cpuid.txt", &["transition (transition_ns)", "stopwatch  on"][..]),
        ("cpuid-entry.txt", &["clean"]),
        ("cpuid.html", &["transition_ns"]),
    ] {
        failures.contains(file, &results.text(file)?, words);
    }
    Ok(failures)
}

/// Checks that vmentry, kvm_exit and the stopwatch's tracepoint count the same entries.
fn every_entry_has_a_transition(results: Results, name: &str, report: &Value) -> Result<Failures> {
    let mut failures = balance(name, report);
    failures.equal(&format!("{name}: source"), &report["transition_source"], "stopwatch");
    let exits: u64 = results.histogram(&format!("{name}.exits"))?.values().sum();
    let times: u64 = results.histogram(&format!("{name}.times"))?.values().sum();
    failures
        .check(exits == times, || format!("{name}: ftrace counted {exits} exits and {times} times of the stopwatch"));
    failures.equal(&format!("{name}: entries, by ftrace {exits}"), &report["totals"]["entries"], exits);
    let known: u64 = rows(report).iter().map(|r| number(&r["transition_ns"]["count"])).sum();
    failures.check(known == exits, || format!("{name}: {known} transitions of {exits} entries"));
    Ok(failures)
}

/// Checks that transitions are equal, whatever the guest did.
fn constant(name: &str, report: &Value) -> Failures {
    let mut failures = Failures::default();
    let of = |stat: &'static str| rows(report).iter().filter_map(move |r| r["transition_ns"][stat].as_u64());
    let (least, most) = (of("min").min().unwrap_or(0), of("max").max().unwrap_or(u64::MAX));
    failures.check(most - least <= TOLERANCE_NS, || format!("{name}: transitions from {least} to {most} ns"));
    failures
}

/// Compares the guest's stamps with the stopwatch on the same rounds: entry and exit latency minus the transition must
/// be the same part of KVM for every exit reason.
fn stamps_against_stopwatch(results: Results) -> Result<Failures> {
    let mut failures = Failures::default();
    let calibration = results.json("calibrate-on.json")?;
    failures.equal("calibrate with the stopwatch: pin writes", &calibration["control_writes"][0]["cost"], Value::Null);
    let rest = |exit: &Value| {
        let p50 = |figure: &str| exit[figure]["tsc"]["p50"].as_f64().unwrap_or(f64::NAN);
        p50("entry_latency") + p50("exit_latency") - p50("transition")
    };
    let rest: Vec<_> = calibration["exits"].as_array().into_iter().flatten().map(rest).collect();
    failures.check(rest.len() == 3 && rest.iter().all(|r| *r > 0.0 && (r - rest[0]).abs() <= 4.0), || {
        format!("calibrate with the stopwatch: entry + exit - transition are {rest:?} cycles")
    });
    Ok(failures)
}
