//! What a run with the stopwatch must show: transitions that do not depend on the guest, causes that stay what they are, and both
//! policies calibrated while it is off. Pure: files in, failures out.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use crate::{
    witness::calibration,
    witness::counts::{Failures, balance, histogram, json, number, rows, text},
};

/// The shell script that a lab runs for [`failures`].
pub const SCRIPT: &str = include_str!("../../../lab/scripts/stopwatch.sh");

/// Rounds of a calibration, windows of each policy in one (traced and untraced), iterations of a window at the script's samples, with
/// the warm-up, and writes that an iteration makes under the hard policy.
const ROUNDS: u64 = 12;
const WINDOWS: u64 = 2;
const ITERATIONS: u64 = 40;
const WARM_UP: u64 = 8;
const WRITES: u64 = 2;

/// Everything that is not as it should be in the files that the script left; empty when all is well.
pub fn failures(out: &Path) -> Result<Vec<String>> {
    let mut failures = Failures::default();
    failures.extend(policies(out)?);
    failures.extend(off(out)?);
    failures.extend(on(out)?);
    failures.extend(both_witnesses(out)?);
    for (file, expected) in
        [("after-calibrate", "soft"), ("after-sigint", "soft"), ("policy-on", "soft"), ("without-timer", "N")]
    {
        let found = text(&out.join(file))?;
        failures.check(found.trim() == expected, || format!("{file}: {} instead of {expected}", found.trim()));
    }
    let complaints = text(&out.join("complaints"))?;
    failures.check(complaints.trim().is_empty(), || format!("the kernel complained:\n{complaints}"));
    Ok(failures.0)
}

/// Under the hard policy every armed and every cancelled timer is a write, and nothing else is.
fn policies(out: &Path) -> Result<Failures> {
    let mut failures = Failures::default();
    let calibration = json(&out.join("policies.json"))?;
    let exits: Vec<_> = calibration["exits"].as_array().into_iter().flatten().map(|e| e["policy"].as_str()).collect();
    failures.check(exits == [Some("soft"), Some("hard")], || format!("calibrated under {exits:?}"));
    let pin = calibration::of(&calibration, "control_writes", "control", "pin");
    let apart = calibration::unwanted(pin);
    let expected = ROUNDS * WINDOWS * ITERATIONS * WRITES;
    for kind in ["dirty", "clean"] {
        let count = number(&pin[kind]["tsc"]["count"]);
        failures.check(count <= expected && count + apart + number(&pin["unexpected"]) >= expected, || {
            format!("calibrate: {count} {kind} entries instead of {expected}; {pin}")
        });
    }
    failures.equal("calibrate: entries with another write than provoked", &pin["unexpected"], 0);
    // Both witnesses see the same. VM entries of the emulator do not become slower, which leaves a few instructions of KVM's; the work
    // that ftrace does at each write is found when it is there.
    let undisturbed = json(&out.join("undisturbed.json"))?;
    for (calibration, range) in [(&undisturbed, 1.0..60.0), (&calibration, 200.0..5000.0)] {
        let pin = calibration::of(calibration, "control_writes", "control", "pin");
        let cost = |of: &Value| of["tsc"]["value"].as_f64().unwrap_or(f64::NAN);
        let (traced, untraced) = (cost(&pin["cost"]), cost(&pin["untraced_cost"]));
        failures.check((traced - untraced).abs() <= 4.0 && range.contains(&traced), || {
            format!("calibrate: a pin write costs {traced} cycles by its stamps, {untraced} by untraced round trips")
        });
    }
    // Traced and untraced, each with its warm-up; and the writes that the switches themselves bring about, two at most.
    let provoked = 2 * ROUNDS * WINDOWS * (ITERATIONS + WARM_UP) * WRITES;
    let written = histogram(&text(&out.join("policies.writes"))?)?.get(&0x4000).copied().unwrap_or(0);
    let by_switches = 2 * ROUNDS * 4 * 2 + 4;
    failures.check((provoked..=provoked + by_switches).contains(&written), || {
        format!("calibrate: ftrace saw {written} pin writes; {provoked} were provoked")
    });
    let code = text(&out.join("stopped.code"))?;
    failures.check(code.trim() == "1", || format!("calibrate, SIGINT: exit code {}", code.trim()));
    let shown = text(&out.join("stopped.txt"))?;
    failures.check(shown.contains("INCOMPLETE: stopped by SIGINT") && shown.contains("policy soft"), || {
        format!("calibrate, SIGINT: shows\n{shown}")
    });
    Ok(failures)
}

/// Without it, only entries that were forced to exit at once have a transition: all of it.
fn off(out: &Path) -> Result<Failures> {
    let mut failures = Failures::default();
    let off = json(&out.join("off.json"))?;
    failures.equal("stopwatch off: source", &off["transition_source"], "immediate");
    failures.equal("stopwatch off: tick", &off["stopwatch_tick_ns"], Value::Null);
    for row in rows(&off) {
        if row["timer_cause"] == "immediate" {
            failures.equal(
                "stopwatch off: transition of immediate exits",
                &row["transition_ns"],
                row["entry_to_exit_ns"].clone(),
            );
        } else {
            failures.equal("stopwatch off: transition of other exits", &row["transition_ns"], Value::Null);
        }
    }
    for (file, words) in [("check-off.txt", "stopwatch"), ("check-on.txt", "on: transition_ns of every entry")] {
        let check = text(&out.join(file))?;
        failures.check(check.contains(words), || format!("{file}: '{words}' is not in\n{check}"));
    }
    Ok(failures)
}

fn on(out: &Path) -> Result<Failures> {
    let mut failures = Failures::default();
    let mut medians = Vec::new();
    for name in ["spin-1000", "spin-1000000", "cpuid", "deadline", "immediate", "hlt", "armed"] {
        let report = json(&out.join(format!("{name}.json")))?;
        failures.extend(balance(name, &report));
        failures.equal(&format!("{name}: source"), &report["transition_source"], "stopwatch");
        let exits: u64 = histogram(&text(&out.join(format!("{name}.exits")))?)?.values().sum();
        let times: u64 = histogram(&text(&out.join(format!("{name}.times")))?)?.values().sum();
        failures.check(exits == times, || format!("{name}: ftrace saw {exits} exits and {times} guest times"));
        failures.equal(&format!("{name}: entries, by ftrace {exits}"), &report["totals"]["entries"], exits);
        let known: u64 = rows(&report).iter().map(|r| number(&r["transition_ns"]["count"])).sum();
        failures.check(known == exits, || format!("{name}: {known} transitions of {exits} entries"));
        failures.extend(constant(name, &report));
        let all: Vec<_> =
            rows(&report).iter().filter(|r| r["level"] == "L1").map(|r| number(&r["transition_ns"]["p50"])).collect();
        medians.push(all.iter().max().copied().unwrap_or(0));
    }
    // The guest's time is removed, whatever it is.
    failures.check(medians[0] == medians[1] && medians[0] > 0, || {
        format!("spin: transitions of {} and {} ns", medians[0], medians[1])
    });
    for (name, cause, expected) in [("deadline", "deadline", 23), ("immediate", "immediate", 7)] {
        let report = json(&out.join(format!("{name}.json")))?;
        failures.equal(&format!("{name} exits"), &report["totals"]["timer_exits"][cause], expected);
        failures.equal(&format!("{name}: spurious exits"), &report["totals"]["timer_exits"]["spurious"], 0);
        let causes = histogram(&text(&out.join(format!("{name}.causes")))?)?;
        let by_cause = causes.get(&if cause == "deadline" { 2 } else { 1 }).copied().unwrap_or(0);
        failures.check(by_cause == expected, || format!("{name}: ftrace saw {by_cause} such causes"));
    }
    for (file, words) in [
        ("cpuid.txt", "transition_ns ("),
        ("cpuid.txt", "stopwatch  on"),
        ("cpuid-entry.txt", "clean"),
        ("cpuid.html", "transition_ns"),
    ] {
        let shown = text(&out.join(file))?;
        failures.check(shown.contains(words), || format!("{file}: '{words}' is not in it"));
    }
    Ok(failures)
}

/// Transitions are the same whatever the guest did: within 200 ns, which are 20 instructions of the emulator's. It spends 6 less on the
/// way to L2.
fn constant(name: &str, report: &Value) -> Failures {
    let mut failures = Failures::default();
    let of = |stat: &'static str| rows(report).iter().filter_map(move |r| r["transition_ns"][stat].as_u64());
    let (least, most) = (of("min").min().unwrap_or(0), of("max").max().unwrap_or(u64::MAX));
    failures.check(most - least <= 200, || format!("{name}: transitions from {least} to {most} ns"));
    failures
}

/// The guest's stamps and the timer measure the same rounds: entry and exit latency hold the transition, and the same of KVM's way
/// whatever exits.
fn both_witnesses(out: &Path) -> Result<Failures> {
    let mut failures = Failures::default();
    let calibration = json(&out.join("calibrate-on.json"))?;
    failures.equal("calibrate with the stopwatch: pin writes", &calibration["control_writes"][0]["cost"], Value::Null);
    let mut rest = Vec::new();
    for exit in calibration["exits"].as_array().into_iter().flatten() {
        let p50 = |figure: &str| exit[figure]["tsc"]["p50"].as_f64().unwrap_or(f64::NAN);
        rest.push(p50("entry_latency") + p50("exit_latency") - p50("transition"));
    }
    failures.check(rest.len() == 3 && rest.iter().all(|r| *r > 0.0 && (r - rest[0]).abs() <= 4.0), || {
        format!("calibrate with the stopwatch: entry + exit - transition are {rest:?} cycles")
    });
    Ok(failures)
}
