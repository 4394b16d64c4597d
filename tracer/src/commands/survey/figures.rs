//! The figures of a survey, one a row: value, spread, and where it comes from and what was lost.

use super::{
    reason::Reason,
    values::{Calibration, Distribution, Overhead, Part, Probe, Proof, Survey, Write},
};
use crate::{
    model::figures::{Unit, human},
    output::grouped,
};

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) spread: String,
    /// part, policy, number of values, loss; or why there is no value
    pub(super) source: String,
}

fn row(name: impl Into<String>, value: String, spread: String, source: String) -> Row {
    Row { name: name.into(), value, spread, source }
}

/// The rows of all parts but the recording, which has tables of its own.
pub(super) fn all(survey: &Survey) -> Vec<Row> {
    let parts = &survey.parts;
    let mut rows = of(&parts.check, "VM entries that arrive", proof);
    rows.extend(of(&parts.erratum, "far timers fire early", probe));
    rows.extend(of(&parts.overhead, "added by tracing", overhead));
    rows.extend(of(&parts.calibrate, "VM-entry latency", calibration));
    rows
}

/// The rows of a part; one with the reason if it has no figures.
fn of<T>(part: &Part<T>, name: &str, rows: fn(&T) -> Vec<Row>) -> Vec<Row> {
    let mut rows = match (&part.measured, part.unavailable) {
        (Some(measured), _) => rows(measured),
        (None, reason) => vec![na(name, reason.unwrap_or(Reason::Failed))],
    };
    for row in rows.iter_mut().filter(|row| row.value != NA) {
        let marks = [(part.emulated, EMULATED), (part.cut, "CUT")].into_iter().filter(|(is, _)| *is);
        let marks: Vec<_> = marks.map(|(_, mark)| mark).collect();
        row.source = marks.into_iter().chain([row.source.as_str()]).collect::<Vec<_>>().join("; ");
    }
    rows
}

const NA: &str = "n/a";
const EMULATED: &str = "EMULATED";

fn na(name: &str, reason: Reason) -> Row {
    row(name, NA.into(), String::new(), reason.text().into())
}

fn proof(proof: &Proof) -> Vec<Row> {
    let Proof { exits, entries, dropped, .. } = proof;
    let passed = if proof.passed { "they arrive" } else { "they do not arrive as they were made" };
    let known = format!(
        "known: exit reason of {}, level of {}, pin writes of {}",
        proof.with_reason, proof.with_level, proof.with_pin_writes
    );
    vec![row(
        "VM entries that arrive",
        format!("{entries} for {exits} exits"),
        String::new(),
        format!("check: {passed}; {dropped} lost; {known}"),
    )]
}

fn probe(probe: &Probe) -> Vec<Row> {
    let fired = probe.timers.iter().filter(|timer| timer.after_ns.is_some()).count();
    let value = if probe.early { "yes" } else { "no" };
    let source = format!("erratum: {} timers armed, {fired} with an interrupt", probe.timers.len());
    vec![row("far timers fire early", value.into(), String::new(), source)]
}

fn overhead(overhead: &Overhead) -> Vec<Row> {
    let runs = format!("overhead: {} rounds of {} exits", overhead.rounds, grouped(overhead.exits));
    let three = |[least, _, most]: [f64; 3]| format!("{} to {}", ns(least), ns(most));
    let mut rows = vec![row("untraced exit", ns(overhead.untraced_ns[1]), three(overhead.untraced_ns), runs.clone())];
    for mode in &overhead.modes {
        let name = mode.aggregation.name();
        let source = format!("{runs}; {} entries counted, {} lost", grouped(mode.counted), mode.dropped);
        for (what, values) in [("vCPU", mode.vcpu_ns), ("collector", mode.collector_ns)] {
            let value = if values[0] > 0.0 { ns(values[1]) } else { NA.into() };
            let source = if values[0] > 0.0 { source.clone() } else { "the runs differ by more".into() };
            rows.push(row(format!("added to {what}, {name}"), value, three(values), source));
        }
    }
    rows
}

fn calibration(calibration: &Calibration) -> Vec<Row> {
    let mut rows = Vec::new();
    for exit in &calibration.exits {
        let of = |d: &Distribution| {
            let policy = exit.policy.name();
            let apart = format!("{} set apart, {} inconsistent", exit.set_apart, exit.inconsistent);
            format!("calibrate: {} values, policy {policy}; {apart}", grouped(d.count))
        };
        let figures = [
            ("VM-entry latency", exit.entry_latency_ns),
            ("VM-exit latency", exit.exit_latency_ns),
            ("transition", exit.transition_ns),
        ];
        for (what, latency) in figures {
            let name = format!("{what}, {}", exit.exit);
            rows.extend(latency.map(|d| row(name, format!("p50 {}", ns(d.p50)), spread(&d), of(&d))));
        }
    }
    rows.extend(calibration.writes.iter().map(write));
    rows
}

fn write(write: &Write) -> Row {
    let name = format!("added by {}-control write", write.control);
    match (write.cost_ns, write.unavailable) {
        (Some(cost), None) => row(
            name,
            ns(cost.value),
            format!("95 %: {} to {}", ns(cost.low), ns(cost.high)),
            format!("calibrate: {} rounds; unexpected entries, left out: {}", write.rounds, write.unexpected),
        ),
        (_, reason) => na(&name, reason.unwrap_or(Reason::NoWrite)),
    }
}

fn spread(d: &Distribution) -> String {
    format!("p90 {}, p99 {}", ns(d.p90), ns(d.p99))
}

/// A time for people.
pub(super) fn ns(value: f64) -> String {
    human(Some(value), Unit::Ns)
}
