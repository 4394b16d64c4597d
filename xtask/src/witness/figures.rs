//! The figures of one kernel, each beside its witness: a short test, and a row of docs/kernels.md.

use std::{collections::BTreeSet, fmt::Display, path::Path};

use anyhow::Result;
use serde_json::Value;

use crate::{
    lab::results::{Results, number},
    witness::{
        calibration, companion, counts, exits,
        failures::{Failures, balance, count, element, no_complaints, rows, site_writes},
    },
};

/// The shell script that a lab runs for [`figures`].
pub(crate) const SCRIPT: &str =
    concat!(include_str!("../../../lab/scripts/known-exits.sh"), include_str!("../../../lab/scripts/kernel.sh"));

/// File with the error of a kernel that vmentry refuses.
pub(crate) const REFUSAL: &str = "refusal.txt";

/// Names of the figures, in the order of [`figures`].
pub(crate) const NAMES: [&str; 8] =
    ["entries", "exit reasons", "timer exits", "pin writes", "VMWRITE sites", "in-kernel", "calibrate", "companion"];

/// A figure beside its witness.
#[derive(Debug)]
pub(crate) struct Figure {
    /// The numbers: `448 = 448`; n/a where the processor has no such figure.
    pub(crate) text: String,
    /// Every failed check.
    pub(crate) failures: Vec<String>,
}

/// Samples that the script asks of the calibration.
const SAMPLES: u64 = 40;
/// Exits by CPUID, as VMX and SVM number them.
const CPUID: [u64; 2] = [10, 0x72];
const PREEMPTION_TIMER: u64 = 52;

impl Figure {
    /// A figure without numbers, for this reason.
    pub(crate) fn none(reason: &str) -> Figure {
        Figure { text: reason.to_owned(), failures: Vec::new() }
    }
}

/// Returns the figures that the script left, one for each of [`NAMES`] but the last.
pub(crate) fn figures(out: &Path, vmx: bool) -> Result<Vec<Figure>> {
    let results = Results(out);
    let report = results.json("report.json")?;
    let mut figures = vec![entries(results, &report)?, reasons(results, &report)?];
    if vmx {
        figures.extend([causes(results, &report)?, pin_writes(results, &report)?, sites(results)?]);
    } else {
        let mut on_svm = counts::timer_causes(results, &report, false)?;
        on_svm.extend(counts::pin_writes(results, &report, false)?);
        let none = || Figure::none("n/a");
        figures.extend([Figure { failures: on_svm.0, ..none() }, none(), none()]);
    }
    figures.extend([in_kernel(results, &report)?, calibrated(results, vmx)?]);
    Ok(figures)
}

/// Returns the last of [`NAMES`]: the sources of pin writes under the hard policy beside each other and ftrace.
pub(crate) fn with_companion(out: &Path) -> Result<Figure> {
    let results = Results(out);
    let (mut failures, written) = companion::under_hard_policy(results)?;
    failures.extend(no_complaints(results)?);
    Ok(Figure { text: format!("{written} writes: tracepoint = shadow = sites = ftrace"), failures: failures.0 })
}

/// Returns a figure with the number of vmentry and that of its witness.
fn equal(ours: impl Display, theirs: u64, failures: Failures) -> Figure {
    Figure { text: format!("{ours} = {theirs}"), failures: failures.0 }
}

fn entries(results: Results, report: &Value) -> Result<Figure> {
    let traced = results.histogram("kvm_entry.hist")?;
    let mut failures = counts::entries_against_ftrace(report, &traced);
    failures.equal("emulated", &report["emulated"], true);
    Ok(equal(&report["totals"]["entries"], traced.values().sum(), failures))
}

fn reasons(results: Results, report: &Value) -> Result<Figure> {
    let traced = results.histogram("kvm_exit.hist")?;
    let mut failures = counts::reasons_against_ftrace(report, &traced);
    failures.extend(counts::known_exits(results, report)?);
    failures.extend(exits::failures(results, &counts::exercises(results)?)?);
    let codes: BTreeSet<_> = rows(report).iter().map(|row| number(&row["exit_reason_code"])).collect();
    Ok(equal(codes.len(), traced.len() as u64, failures))
}

fn causes(results: Results, report: &Value) -> Result<Figure> {
    let traced = count(&results.histogram("kvm_exit.hist")?, PREEMPTION_TIMER);
    let of = |cause: &str| number(&report["totals"]["timer_exits"][cause]);
    let (deadline, immediate, spurious) = (of("deadline"), of("immediate"), of("spurious"));
    let mut failures = counts::timer_causes(results, report, true)?;
    failures.same("timer exits by cause, beside ftrace's", deadline + immediate + spurious, traced);
    let ours = format!("{deadline} deadline + {immediate} immediate + {spurious} spurious");
    Ok(equal(ours, traced, failures))
}

fn pin_writes(results: Results, report: &Value) -> Result<Figure> {
    let failures = counts::pin_writes(results, report, true)?;
    Ok(Figure { text: report["totals"]["pin_writes"].to_string(), failures: failures.0 })
}

/// Compares the writes at the VMWRITEs in KVM's code with the shadow copy's.
fn sites(results: Results) -> Result<Figure> {
    let report = results.json("sites.json")?;
    let mut failures = balance("sites", &report);
    let totals = &report["totals"];
    let shadow = number(&totals["pin_writes"]);
    let written = site_writes(totals);
    failures.same("pin writes at VMWRITE sites, beside the shadow copy's", written, shadow);
    failures.check(written > 0, || "pin writes at VMWRITE sites: none".into());
    Ok(equal(written, shadow, failures))
}

fn in_kernel(results: Results, records: &Value) -> Result<Figure> {
    let report = results.json("in-kernel.json")?;
    let failures = counts::in_kernel_against_records(&report, records);
    Ok(equal(&report["totals"]["entries"], number(&records["totals"]["entries"]), failures))
}

/// Compares the samples of a calibration by CPUID with those asked for, and its exits with ftrace's count.
fn calibrated(results: Results, vmx: bool) -> Result<Figure> {
    let mut failures = Failures::default();
    let measurement = results.json("calibrate.json")?;
    let exit = element(&measurement, "exits", "exit", "cpuid");
    let measured = number(&exit["entry_latency"]["tsc"]["count"]);
    let apart = calibration::set_apart(exit);
    failures.same("calibrate: samples, those set apart included", measured + apart, SAMPLES);
    failures.check(measured >= SAMPLES * 8 / 10, || format!("calibrate: only {measured} samples remain"));
    failures.equal("calibrate: entries whose parts do not add up", &exit["inconsistent"], 0);
    let traced = count(&results.histogram("calibrate.hist")?, CPUID[usize::from(!vmx)]);
    let exits = calibration::cpuid_exits(SAMPLES, vmx);
    failures.same("calibrate: CPUID exits by ftrace", traced, exits);
    Ok(equal(exits, traced, failures))
}
