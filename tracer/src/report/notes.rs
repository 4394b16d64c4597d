//! The notes that every view of a report shows: loss, emulation, disturbed times. Each has one wording.

use super::{Report, Row};
use crate::{
    model::{figures::Figure, knowledge::Subject},
    output::grouped,
    recording::Provenance,
};

/// Follows "DISTURBED", where disturbed times are shown.
pub(super) const DISTURBED: &str =
    "hooks on VMCS writes ran between kvm_entry and the VM entry; the times of dirty entries contain them";

/// Why the stopwatch gave some entries no `transition_ns`.
pub(super) const STOPWATCH_EXCESS: &str = "the guest's cycles exceed those of the whole round; the stopwatch counts in steps of the timer, or its timer is wrong";

/// Why the parts of some host times are not exact.
pub(super) const INEXACT_PHASES: &str = "their parts were cut, because they added up to more, or are all kernel, because another thread had run the vCPU or its statistics were reset";

/// The first line of every view: entries that are missing from all figures.
pub(super) fn loss(report: &Report) -> String {
    let t = &report.whole.totals;
    let mut line = if report.lost() == 0 {
        let cut = report.shown.is_none() && report.sources.iter().any(|s| s.end.is_none());
        let cut = if cut { " (cut off: everything after the last whole interval is missing)" } else { "" };
        // A damaged interval cannot say how many entries it had.
        let rest = match (&report.shown, report.damage()) {
            (Some(_), _) => " in this part",
            (None, Some(_)) => " in the rest",
            (None, None) => "",
        };
        format!("no loss{rest}: {} entries, all delivered{cut}", grouped(t.entries))
    } else {
        let percent = 100.0 * report.lost() as f64 / t.entries.max(1) as f64;
        let mut parts = vec![
            format!("{} delivered", grouped(t.delivered)),
            format!("{} dropped ({})", grouped(t.dropped), report.aggregation().why_dropped()),
        ];
        let more = [(t.malformed, "undecodable"), (t.not_kept, "over the series limit")];
        parts.extend(more.into_iter().filter(|(n, _)| *n > 0).map(|(n, why)| format!("{} {why}", grouped(n))));
        let part = if report.shown.is_some() { " of this part" } else { "" };
        format!("LOST {percent:.3}% of {} entries{part}: {}", grouped(t.entries), parts.join(", "))
    };
    if !report.is_exact() {
        line += "; THE KERNEL'S COUNT DISAGREES: do not trust these figures";
    }
    line + "\n"
}

/// Whether a figure without a value in a view needs no word there: the timer's, where no timer had a deadline. That they cannot be known is
/// said with the timer exits.
pub(super) fn is_left_out(report: &Report, figure: Figure) -> bool {
    figure.is_rare()
        && figure != Figure::Transition
        && report.values(figure, |_| true).map_or(true, |all| all.count() == 0)
}

/// Why none of these rows has a value of a figure; none where one has.
pub(super) fn why_empty(report: &Report, figure: Figure, rows: &[Row]) -> Option<String> {
    if rows.iter().any(|row| row.series[figure].count() > 0) {
        return None;
    }
    Some(match report.values(figure, |_| true) {
        Err(reason) => reason.to_string(),
        // The filters or --top left them out: they are no absence.
        Ok(all) if all.count() > 0 => format!("none in the rows shown; {} values in all", all.count()),
        Ok(_) if figure != Figure::Transition => "no value is known".into(),
        Ok(_) => no_transition(report),
    })
}

/// Why no entry has `transition_ns`. Recordings that cannot tell are named, because the others do not speak for their entries.
fn no_transition(report: &Report) -> String {
    let reason = |source: &Provenance| {
        let why = source.header.knowledge().known(Subject::Transition).err()?.to_string();
        Some(format!("; not known of {}: {why}", source.name))
    };
    let unknown: Vec<_> = report.sources.iter().filter_map(reason).collect();
    let text = if report.sources.iter().any(|s| s.header.stopwatch.is_some()) {
        "the stopwatch gave no value"
    } else if unknown.is_empty() {
        "no entry was forced to exit at once, and the companion patch's stopwatch was off"
    } else {
        "no entry of the recordings that tell it was forced to exit at once, and the companion patch's stopwatch was off"
    };
    text.to_owned() + &unknown.concat()
}
