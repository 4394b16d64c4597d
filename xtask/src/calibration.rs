//! What a calibration in a lab must show: counts as ftrace's, the guest's own instructions, parts that add up. Pure: files in,
//! failures out.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use crate::witness::{Failures, histogram, json, number, text};

/// Samples that the script asks for.
const SAMPLES: u64 = 97;
/// The guest's first iterations in each run.
const WARM_UP: u64 = 8;
/// Untraced, traced, traced, untraced.
const RUNS: u64 = 4;
/// Rounds of an experiment, and iterations of one at so few samples.
const ROUNDS: u64 = 12;
const WINDOW: u64 = 40;
/// Instructions between the guest's two stamps, as calibration.S says.
const INSTRUCTIONS: u64 = 14;
/// Timers, of each kind, that may be due before the guest waits for them, when the host took the CPU: they make no exit. QEMU's SVM
/// forgets STI's shadow now and then, and there is no HLT then.
const LATE: u64 = 8;
/// Exit reasons of VMX: CPUID, HLT, VMCALL, DR_ACCESS, MSR_READ, PREEMPTION_TIMER; and of SVM: CPUID, HLT, VMMCALL.
const VMX: [(&str, u64); 3] = [("cpuid", 10), ("hlt", 12), ("vmcall", 18)];
const VMX_DR_ACCESS: u64 = 29;
const VMX_PREEMPTION_TIMER: u64 = 52;
const SVM: [(&str, u64); 3] = [("cpuid", 0x72), ("hlt", 0x78), ("vmcall", 0x81)];

/// Of the files that witness.sh leaves.
pub fn on_a_stock_kernel(out: &Path, vmx: bool) -> Result<Failures> {
    let mut failures = Failures::default();
    let calibration = json(&out.join("calibrate.json"))?;
    failures.equal("calibrate: emulated", &calibration["emulated"], true);
    failures.equal("calibrate: stopped", &calibration["stopped"], Value::Null);
    failures.extend(parts(&calibration, vmx));
    failures.extend(against_ftrace(&calibration, &text(&out.join("calibrate.hist"))?, vmx)?);
    let pin = of(&calibration, "control_writes", "control", "pin");
    failures.check(pin["unavailable"].is_string() && pin["cost"].is_null(), || {
        format!("calibrate: pin writes without the companion patch: {pin}")
    });
    if vmx {
        failures.extend(exec_writes(&calibration));
        failures.extend(instructions(out)?);
    } else {
        // Whoever moved the thread to another CPU: what it measured there is not averaged in.
        let moved = json(&out.join("calibrate-moved.json"))?;
        let apart = &of(&moved, "exits", "exit", "cpuid")["set_apart"];
        failures.check(number(&apart["migrated"]) > 0, || format!("calibrate, moved: set apart {apart}"));
    }
    let shown = text(&out.join("calibrate.txt"))?;
    for words in
        ["EMULATED", "excluded from every figure", "entry latency + guest + exit latency = kvm_entry to kvm_exit"]
    {
        failures.check(shown.contains(words), || format!("calibrate: '{words}' is not in\n{shown}"));
    }
    Ok(failures)
}

/// The element of a list that has this name.
pub fn of<'a>(calibration: &'a Value, list: &str, field: &str, name: &str) -> &'a Value {
    calibration[list].as_array().into_iter().flatten().find(|e| e[field] == name).unwrap_or(&Value::Null)
}

/// Records that are in no figure, but for the warm-up.
pub fn unwanted(figures: &Value) -> u64 {
    ["interrupted", "migrated", "incomplete", "unclocked"].iter().map(|k| number(&figures["set_apart"][k])).sum()
}

/// Nothing is lost without being counted, and the parts of every entry add up to the whole.
fn parts(calibration: &Value, vmx: bool) -> Failures {
    let mut failures = Failures::default();
    for exit in calibration["exits"].as_array().into_iter().flatten() {
        let name = exit["exit"].as_str().unwrap_or("");
        if name == "immediate" || name == "tsc-deadline" {
            failures.check(exit["unavailable"].is_null() == vmx, || {
                format!("calibrate {name}: unavailable: {}", exit["unavailable"])
            });
            continue;
        }
        let counted = number(&exit["entry_latency"]["tsc"]["count"]);
        let set_apart = unwanted(exit);
        let late = if name == "hlt" { LATE } else { 0 };
        failures.check((SAMPLES - late..=SAMPLES).contains(&(counted + set_apart)), || {
            format!("calibrate {name}: {counted} samples and {set_apart} set apart are not {SAMPLES}")
        });
        failures.check(counted >= SAMPLES * 8 / 10, || format!("calibrate {name}: only {counted} samples are left"));
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

/// Every exit that the guest was made to make, as ftrace counted them meanwhile.
fn against_ftrace(calibration: &Value, histogram_text: &str, vmx: bool) -> Result<Failures> {
    let mut failures = Failures::default();
    let traced = histogram(histogram_text)?;
    let traced = |reason: u64| traced.get(&reason).copied().unwrap_or(0);
    let each = 2 * SAMPLES + RUNS * WARM_UP;
    let debug = if vmx { ROUNDS * (WINDOW + WARM_UP) } else { 0 };
    for (name, reason) in if vmx { VMX } else { SVM } {
        let expected = each + if name == "cpuid" { 3 * debug } else { 0 };
        let counted = traced(reason);
        let late = if name == "hlt" { 2 * LATE } else { 0 };
        failures.check((expected - late..=expected).contains(&counted), || {
            format!("calibrate {name}: ftrace saw {counted} exits instead of {expected}")
        });
    }
    if vmx {
        for (what, reason, expected, late) in [
            ("debug register", VMX_DR_ACCESS, debug, 0),
            // Deadlines and forced immediate exits.
            ("preemption timer", VMX_PREEMPTION_TIMER, 2 * each, 2 * LATE),
        ] {
            let counted = traced(reason);
            failures.check((expected - late..=expected).contains(&counted), || {
                format!("calibrate: ftrace saw {counted} exits of the {what} instead of {expected}")
            });
        }
        let immediate = of(calibration, "exits", "exit", "immediate");
        failures.equal("calibrate: immediate exits", &immediate["transition"]["tsc"]["count"], SAMPLES);
    }
    Ok(failures)
}

/// Writes come where they are provoked and nowhere else. In an emulator that checks everything at every VM entry they cost nothing, and
/// nothing may be found.
fn exec_writes(calibration: &Value) -> Failures {
    let mut failures = Failures::default();
    let exec = of(calibration, "control_writes", "control", "exec");
    let apart: u64 =
        ["interrupted", "migrated", "incomplete", "unclocked"].iter().map(|k| number(&exec["set_apart"][k])).sum();
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

/// In Bochs an instruction is a cycle: the guest's part is its own instructions, whatever their number, and the latencies do not
/// change with it.
fn instructions(out: &Path) -> Result<Failures> {
    let mut failures = Failures::default();
    let mut latencies = Vec::new();
    for work in [1, 1000] {
        let calibration = json(&out.join(format!("calibrate-{work}.json")))?;
        let cpuid = of(&calibration, "exits", "exit", "cpuid");
        let guest = &cpuid["guest"]["tsc"];
        for stat in ["floor", "p50", "max"] {
            failures.equal(
                &format!("calibrate --work {work}: guest cycles ({stat})"),
                &guest[stat],
                (INSTRUCTIONS + work) as f64,
            );
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
