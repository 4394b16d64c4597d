//! Checks calibrations in a lab: counts equal to ftrace's, the guest's own instructions, and parts that add up.

use std::ops::RangeInclusive;

use anyhow::Result;
use serde_json::Value;

use crate::{
    lab::results::{Results, number},
    witness::failures::{Failures, count, element},
};

/// Samples that the script asks for.
const SAMPLES: u64 = 97;
/// First iterations of the guest in each run, which are left out.
const WARM_UP: u64 = 8;
/// Runs of each exit: untraced, traced, traced, untraced.
const RUNS: u64 = 4;
/// Rounds of an experiment with control writes.
const ROUNDS: u64 = 12;
/// Iterations in a round with so few samples.
const WINDOW: u64 = 40;
/// Instructions between the guest's two stamps in calibration.S.
const INSTRUCTIONS: f64 = 14.0;
/// Most timers of a kind that make no exit. A timer that is due before the guest waits for it, because the host took
/// the CPU, makes none; nor is there an HLT if QEMU's SVM forgets the shadow of STI, as it does now and then.
const LATE: u64 = 8;
/// Exits of VMX by their reasons.
const VMX: [(&str, u64); 3] = [("cpuid", 10), ("hlt", 12), ("vmcall", 18)];
const VMX_DR_ACCESS: u64 = 29;
const VMX_PREEMPTION_TIMER: u64 = 52;
/// Exits of SVM by their exit codes: CPUID, HLT, VMMCALL.
const SVM: [(&str, u64); 3] = [("cpuid", 0x72), ("hlt", 0x78), ("vmcall", 0x81)];

/// Checks the calibrations that witness.sh leaves.
pub(super) fn on_a_stock_kernel(results: Results, vmx: bool) -> Result<Failures> {
    let mut failures = Failures::default();
    let calibration = results.json("calibrate.json")?;
    failures.equal("calibrate: emulated", &calibration["emulated"], true);
    failures.equal("calibrate: stopped", &calibration["stopped"], Value::Null);
    failures.extend(parts(&calibration, vmx));
    failures.extend(against_ftrace(results, &calibration, vmx)?);
    let pin = element(&calibration, "control_writes", "control", "pin");
    failures.check(pin["unavailable"].is_string() && pin["cost"].is_null(), || {
        format!("calibrate: pin writes without the companion patch: {pin}")
    });
    if vmx {
        failures.extend(exec_writes(&calibration));
        failures.extend(instructions(results)?);
    } else {
        // The script moves the vCPU's thread to another CPU; samples of that time must be set apart.
        let moved = results.json("calibrate-moved.json")?;
        let apart = &element(&moved, "exits", "exit", "cpuid")["set_apart"];
        failures.check(number(&apart["migrated"]) > 0, || format!("calibrate, moved: set apart {apart}"));
    }
    let text = results.text("calibrate.txt")?;
    let words =
        ["EMULATED", "excluded from every figure", "entry latency + guest + exit latency = kvm_entry to kvm_exit"];
    failures.contains("calibrate", &text, &words);
    Ok(failures)
}

/// Returns the number of records that are in no figure, except those of the warm-up.
pub(super) fn set_apart(figures: &Value) -> u64 {
    ["interrupted", "migrated", "incomplete", "unclocked"].iter().map(|k| number(&figures["set_apart"][k])).sum()
}

/// Returns the CPUID exits of a calibration of CPUID alone; on VMX it also measures writes to the execution controls.
pub(super) fn cpuid_exits(samples: u64, vmx: bool) -> u64 {
    2 * samples + RUNS * WARM_UP + if vmx { 3 * ROUNDS * (WINDOW + WARM_UP) } else { 0 }
}

/// Checks that every sample is measured or counted as set apart, and that the parts of each entry add up to the whole.
fn parts(calibration: &Value, vmx: bool) -> Failures {
    let mut failures = Failures::default();
    for exit in calibration["exits"].as_array().into_iter().flatten() {
        let name = exit["exit"].as_str().unwrap_or_default();
        if name == "immediate" || name == "tsc-deadline" {
            failures.check(exit["unavailable"].is_null() == vmx, || {
                format!("calibrate {name}: unavailable: {}", exit["unavailable"])
            });
            continue;
        }
        let counted = number(&exit["entry_latency"]["tsc"]["count"]);
        let apart = set_apart(exit);
        failures.check(within_late(SAMPLES, late(name)).contains(&(counted + apart)), || {
            format!("calibrate {name}: {counted} samples and {apart} set apart are not {SAMPLES}")
        });
        failures.check(counted >= SAMPLES * 8 / 10, || format!("calibrate {name}: only {counted} samples remain"));
        failures.equal(&format!("calibrate {name}: entries whose parts do not add up"), &exit["inconsistent"], 0);
        failures.check(number(&exit["consistent"]) >= counted * 8 / 10, || {
            format!("calibrate {name}: the parts of {} entries were added up", exit["consistent"])
        });
        for figure in ["exit_latency", "host", "entry_latency", "round_trip", "round_trip_untraced"] {
            let p50 = exit[figure]["tsc"]["p50"].as_f64();
            failures.check(p50.is_some_and(|p50| p50 > 0.0), || format!("calibrate {name}: {figure} is {p50:?}"));
        }
    }
    failures
}

/// Compares the guest's exits with ftrace's counts of the same time.
fn against_ftrace(results: Results, calibration: &Value, vmx: bool) -> Result<Failures> {
    let mut failures = Failures::default();
    let traced = results.histogram("calibrate.hist")?;
    let mut check = |name: &str, reason: u64, expected: u64, late: u64| {
        let exits = count(&traced, reason);
        failures.check(within_late(expected, late).contains(&exits), || {
            format!("calibrate {name}: ftrace counted {exits} exits instead of {expected}")
        });
    };
    let each = 2 * SAMPLES + RUNS * WARM_UP;
    for (name, reason) in if vmx { VMX } else { SVM } {
        check(name, reason, if name == "cpuid" { cpuid_exits(SAMPLES, vmx) } else { each }, 2 * late(name));
    }
    if vmx {
        check("debug register", VMX_DR_ACCESS, ROUNDS * (WINDOW + WARM_UP), 0);
        // Both deadlines and forced immediate exits.
        check("preemption timer", VMX_PREEMPTION_TIMER, 2 * each, 2 * LATE);
        let immediate = element(calibration, "exits", "exit", "immediate");
        failures.equal("calibrate: immediate exits", &immediate["transition"]["tsc"]["count"], SAMPLES);
    }
    Ok(failures)
}

fn late(exit: &str) -> u64 {
    if exit == "hlt" { LATE } else { 0 }
}

fn within_late(expected: u64, late: u64) -> RangeInclusive<u64> {
    expected - late..=expected
}

/// Checks that control writes come only where the guest provokes them, and that they cost nothing: the emulator repeats
/// all checks at every VM entry.
fn exec_writes(calibration: &Value) -> Failures {
    let mut failures = Failures::default();
    let exec = element(calibration, "control_writes", "control", "exec");
    let apart = set_apart(exec);
    for kind in ["dirty", "clean"] {
        let count = number(&exec[kind]["tsc"]["count"]);
        failures
            .check(count <= ROUNDS * WINDOW && count + apart + number(&exec["unexpected"]) >= ROUNDS * WINDOW, || {
                format!("calibrate exec: {count} {kind} entries, {apart} set apart")
            });
    }
    failures.equal("calibrate exec: rounds", &exec["rounds"], ROUNDS);
    for ratio in ["ratio", "control_ratio"] {
        let value = exec[ratio]["value"].as_f64().unwrap_or(0.0);
        failures.check((0.97..1.03).contains(&value), || format!("calibrate exec: {ratio} {value} in an emulator"));
    }
    failures
}

/// Checks that the guest's part is the number of its instructions, which are cycles in Bochs, and that latencies do not
/// depend on it.
fn instructions(results: Results) -> Result<Failures> {
    let mut failures = Failures::default();
    let mut latencies = Vec::new();
    for (work, cycles) in [(1, INSTRUCTIONS + 1.0), (1000, INSTRUCTIONS + 1000.0)] {
        let calibration = results.json(&format!("calibrate-{work}.json"))?;
        let cpuid = element(&calibration, "exits", "exit", "cpuid");
        for stat in ["floor", "p50", "max"] {
            let name = format!("calibrate --work {work}: guest cycles ({stat})");
            failures.equal(&name, &cpuid["guest"]["tsc"][stat], cycles);
        }
        latencies
            .push(["entry_latency", "exit_latency"].map(|figure| cpuid[figure]["tsc"]["p50"].as_f64().unwrap_or(0.0)));
    }
    for (a, b) in latencies[0].iter().zip(latencies[1]) {
        failures.check((a - b).abs() <= 2.0, || {
            format!("calibrate --work: latencies {latencies:?} change with the guest's work")
        });
    }
    Ok(failures)
}
