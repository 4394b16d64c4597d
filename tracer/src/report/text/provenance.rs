//! The provenance of a recording, as lines of a text report.

use std::fmt::Write as _;

use crate::{
    model::{
        figures::{Unit, human},
        knowledge::{Subject, is_subject},
        measurement::PinSource,
    },
    recording::Provenance,
};

/// Some lines on one recording.
pub(super) fn render(source: &Provenance) -> String {
    let Provenance { name, header: h, end, torn, intervals, length_ns, .. } = source;
    let label = h.label.as_ref().map(|l| format!(" \"{l}\"")).unwrap_or_default();
    let mut out = format!(
        "recording  {name}{label}: {} in {intervals} intervals, {}\n",
        human(Some(*length_ns as f64), Unit::Ns),
        match (end, torn) {
            (Some(end), _) => format!("ended by {}", end.reason),
            (None, true) => "cut off within an interval (its whole intervals were read)".into(),
            (None, false) => "cut off (everything up to its last whole interval was read)".into(),
        }
    );
    let host = &h.host;
    let caveat = host.caveat().map(|c| format!(", {c}")).unwrap_or_default();
    let _ = writeln!(out, "host       {}: Linux {}, {} x {}{caveat}", host.name, host.kernel, host.cpus, host.cpu);
    let knowledge = h.knowledge();
    let pin_writes = match (knowledge.known(Subject::PinWrites), h.pin_writes_source) {
        (Err(reason), _) => format!("n/a ({reason})"),
        (Ok(()), PinSource::Tracepoint) => "from tracepoint (companion patch, exact)".into(),
        (Ok(()), PinSource::Shadow) => "from shadow (differences of the controls' shadow copy)".into(),
        (Ok(()), PinSource::None) => "n/a".into(),
    };
    let _ = writeln!(out, "policy     {}; pin writes {pin_writes}", source.policy_text());
    if let Some(stopwatch) = &h.stopwatch {
        let tick = stopwatch.tick_ns().map_or("n/a".into(), |ns| human(Some(ns), Unit::Ns));
        let _ = writeln!(
            out,
            "stopwatch  on: transition_ns of every entry, to {tick}; guest time contains its VMREAD, tracepoint and program"
        );
    }
    for (titles, reason) in knowledge.unknown_by_reason() {
        let _ = writeln!(out, "n/a        {titles}: {reason}");
    }
    for missing in h.missing.iter().filter(|missing| !is_subject(missing)) {
        let _ = writeln!(out, "missing    {missing}");
    }
    out
}
