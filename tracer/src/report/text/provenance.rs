//! The provenance of recordings, as lines of a text report.

use std::fmt::Write as _;

use crate::{
    model::{
        figures::{Unit, human},
        knowledge::{Subject, is_subject},
        measurement::PinSource,
        vendor::Vendor,
    },
    output::grouped,
    recording::Provenance,
};

/// Recordings of one host and setting that are named.
const MOST_NAMED: usize = 3;

/// A line on each of the first recordings of every host and setting, and some lines on that.
pub(super) fn render(sources: &[Provenance]) -> String {
    let mut groups: Vec<(String, Vec<&Provenance>)> = Vec::new();
    let mut known = std::collections::HashMap::new();
    for source in sources {
        let setting = setting(source);
        let at = *known.entry(setting.clone()).or_insert(groups.len());
        if at == groups.len() {
            groups.push((setting, Vec::new()));
        }
        groups[at].1.push(source);
    }
    let of_group = |(setting, sources): &(String, Vec<&Provenance>)| {
        // One more takes no more room than to count it.
        let named = if sources.len() == MOST_NAMED + 1 { sources.len() } else { sources.len().min(MOST_NAMED) };
        let mut out: String = sources[..named].iter().map(|source| recording(source)).collect();
        let rest = &sources[named..];
        if !rest.is_empty() {
            let length = rest.iter().map(|source| source.length_ns as f64).sum();
            let (count, length) = (grouped(rest.len() as u64), human(Some(length), Unit::Ns));
            let cut = rest.iter().filter(|source| source.end.is_none()).count();
            let cut = if cut > 0 { format!(", {cut} of them cut off") } else { String::new() };
            let _ = writeln!(out, "recording  ... and {count} more: {length} in all{cut}");
        }
        out + setting
    };
    groups.iter().map(of_group).collect()
}

fn recording(source: &Provenance) -> String {
    let Provenance { name, header: h, end, torn, intervals, length_ns, .. } = source;
    let label = h.label.as_ref().map(|l| format!(" \"{l}\"")).unwrap_or_default();
    format!(
        "recording  {name}{label}: {} in {intervals} intervals, {}\n",
        human(Some(*length_ns as f64), Unit::Ns),
        match (end, torn) {
            (Some(end), _) => format!("ended by {}", end.reason),
            (None, true) => "cut off within an interval (its whole intervals were read)".into(),
            (None, false) => "cut off (everything up to its last whole interval was read)".into(),
        }
    )
}

/// The host, how it was measured, and what is not known of it.
fn setting(source: &Provenance) -> String {
    let h = &source.header;
    let host = &h.host;
    let caveat = host.caveat().map(|c| format!(", {c}")).unwrap_or_default();
    let mut out = format!("host       {}: Linux {}, {} x {}{caveat}\n", host.name, host.kernel, host.cpus, host.cpu);
    let knowledge = h.knowledge();
    let pin_writes = match (knowledge.known(Subject::PinWrites), h.pin_writes_source) {
        (Err(reason), _) => format!("n/a ({reason})"),
        (Ok(()), PinSource::Tracepoint) => "from tracepoint (companion patch, exact)".into(),
        (Ok(()), PinSource::Shadow) => "from shadow (differences of the controls' shadow copy)".into(),
        (Ok(()), PinSource::None) => "n/a".into(),
    };
    let is_svm = h.host.vendor == Some(Vendor::Amd);
    if is_svm {
        out += "SVM        has no pin controls and no VMX-preemption timer: there are no figures of them\n";
    } else {
        let _ = writeln!(out, "policy     {}; pin writes {pin_writes}", source.policy_text());
    }
    if let Some(stopwatch) = &h.stopwatch {
        let tick = stopwatch.tick_ns().map_or("n/a".into(), |ns| human(Some(ns), Unit::Ns));
        let _ = writeln!(
            out,
            "stopwatch  on: transition_ns of every entry, to {tick}; guest time contains its VMREAD, tracepoint and program"
        );
    }
    for (titles, reason) in knowledge.unknown_by_reason().iter().filter(|(_, reason)| !(is_svm && reason.is_of_svm())) {
        let _ = writeln!(out, "n/a        {titles}: {reason}");
    }
    for missing in h.missing.iter().filter(|missing| !is_subject(missing)) {
        let _ = writeln!(out, "missing    {missing}");
    }
    out
}
