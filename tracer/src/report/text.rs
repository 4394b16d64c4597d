//! The report as text: first what was lost, then where the figures come from, then the tables.

use std::fmt::Write as _;

use tracer_common::rules::{Control, TimerCause};

use super::{Dimension, Report, Row, View};
use crate::{
    model::{
        figures::{Figure, Stat, Unit, human},
        interval::TracedTimerExits,
        measurement::{Latency, PinSource},
    },
    output::align,
    recording::Provenance,
};

/// What everything below is worth: loss, emulation, where it was recorded.
pub fn preamble(report: &Report) -> String {
    let mut out = loss(report);
    if report.is_emulated() {
        out += "EMULATED: the CPU was emulated in software; counts are right, times are no times of any CPU\n";
    }
    for source in &report.sources {
        out += &recording(source);
    }
    out
}

/// Renders a report for a terminal or a file. No colours.
pub fn render(report: &Report, view: &View) -> String {
    let mut out = preamble(report);
    out += &totals(report, view);
    let rows = report.rows(view);
    if rows.is_empty() {
        out += "\nno entries";
        out +=
            if report.whole.totals.delivered > 0 { " pass the filters\n" } else { " were recorded: did a VM run?\n" };
        return out;
    }
    if let Some(note) = report.aggregation().note() {
        let _ = write!(out, "\n{note}\n");
    }
    match report.latency() {
        Latency::Disturbed => {
            out += "\nlatencies are not shown: hooks on VMCS writes ran between kvm_entry and the VM entry. Record again without\n\
                --exact-writes and --verify-writes for them, or with --with-latency to see them all the same\n\n";
            return out + &table(view, &rows, Figure::EntryToExit, &[], report.whole.length_ns);
        }
        Latency::DisturbedButAsked => {
            out += "\nDISTURBED: hooks on VMCS writes ran between kvm_entry and the VM entry; latencies of dirty entries contain them\n";
        }
        Latency::Clean => {}
    }
    let stats: Vec<_> = Stat::ALL.into_iter().filter(|s| *s != Stat::Mean).collect();
    for figure in Figure::ALL.into_iter().filter(|f| f.is_time()) {
        if rows.iter().all(|row| row.series[figure].count() == 0) {
            let why = if figure == Figure::Transition { WHY_NO_TRANSITION } else { "no value is known" };
            let _ = write!(out, "\n{}  n/a: {why}\n", figure.heading());
            continue;
        }
        let _ = write!(out, "\n{}: {}\n", figure.heading(), figure.help());
        out += &table(view, &rows, figure, &stats, report.whole.length_ns);
    }
    out
}

/// Where a report has no value of `transition_ns`.
const WHY_NO_TRANSITION: &str = "no entry was forced to exit at once, and there was no stopwatch (patches/README.md)";

/// The first line: what is missing from everything below.
pub fn loss(report: &Report) -> String {
    let t = &report.whole.totals;
    let mut line = if t.dropped + t.malformed + t.not_kept == 0 {
        let cut = report.sources.iter().any(|s| s.end.is_none());
        let cut = if cut { " (cut off: what came after the last whole interval is missing)" } else { "" };
        format!("no loss: {} entries, all delivered{cut}", t.entries)
    } else {
        let percent = 100.0 * (t.dropped + t.malformed + t.not_kept) as f64 / t.entries.max(1) as f64;
        let mut parts = vec![
            format!("{} delivered", t.delivered),
            format!("{} dropped ({})", t.dropped, report.aggregation().why_dropped()),
        ];
        if t.malformed > 0 {
            parts.push(format!("{} malformed", t.malformed));
        }
        if t.not_kept > 0 {
            parts.push(format!("{} beyond the bound of series", t.not_kept));
        }
        format!("LOST {percent:.3}% of {} entries: {}", t.entries, parts.join(", "))
    };
    if !report.is_exact() {
        line += "; THE KERNEL'S COUNT DISAGREES: do not trust these figures";
    }
    line + "\n"
}

fn recording(source: &Provenance) -> String {
    let Provenance { name, header: h, end, torn, intervals, length_ns } = source;
    let label = h.label.as_ref().map(|l| format!(" \"{l}\"")).unwrap_or_default();
    let mut out = format!(
        "recording  {name}{label}: {} in {intervals} intervals, {}\n",
        human(Some(*length_ns as f64), Unit::Ns),
        match (end, torn) {
            (Some(end), _) => format!("ended by {}", end.reason),
            (None, true) => "cut off within an interval (what is whole was read)".into(),
            (None, false) => "cut off (its last whole interval was read)".into(),
        }
    );
    let host = &h.host;
    let caveat = host.caveat().map(|c| format!(", {c}")).unwrap_or_default();
    let _ = writeln!(out, "host       {}: Linux {}, {} x {}{caveat}", host.name, host.kernel, host.cpus, host.cpu);
    let pin_source = match h.pin_writes_source {
        PinSource::Tracepoint => "tracepoint (companion patch, exact)",
        PinSource::Shadow => "shadow (differences of the controls' shadow copy)",
        PinSource::None => "none: n/a",
    };
    let _ = writeln!(out, "policy     {}; pin writes from {pin_source}", source.policy_text());
    if let Some(stopwatch) = &h.stopwatch {
        let tick = stopwatch.tick_ns().map_or("n/a".into(), |ns| human(Some(ns), Unit::Ns));
        let _ = writeln!(
            out,
            "stopwatch  on: transition_ns of every entry, to {tick}; its VMREAD, tracepoint and program are in entry_to_exit_ns"
        );
    }
    for missing in &h.missing {
        let _ = writeln!(out, "missing    {missing}");
    }
    out
}

fn totals(report: &Report, view: &View) -> String {
    let count = |n: Option<u64>| n.map_or("n/a".to_owned(), |n| n.to_string());
    let t = &report.whole.totals;
    let mut out = String::from(if view.filters.is_empty() { "timer exits" } else { "unfiltered\ntimer exits" });
    for cause in TimerCause::ALL {
        let n = report.timer_exits(cause);
        // A cause that cannot be told is worth a word only where there is one.
        let ran = report.spurious_after().filter(|_| cause == TimerCause::Spurious);
        if cause != TimerCause::Unknown || n.is_some_and(|n| n > 0) {
            let _ = write!(out, "  {} {}", cause.name(), count(n));
            if let Some((least, median)) = ran {
                let ns = |v| human(Some(v as f64), Unit::Ns);
                let _ = write!(out, " (the guest had run {} at least, {} at the median)", ns(least), ns(median));
            }
        }
    }
    if let Some(traced) = &t.traced_timer_exits {
        let TracedTimerExits { deadline, immediate, spurious } = traced;
        let _ = write!(out, "\n  tracepoint  deadline {deadline}  immediate {immediate}  spurious {spurious}");
    }
    let _ = write!(out, "\npin writes  {}", count(report.pin_writes()));
    let unknown = report.entries_without_pin_writes();
    if report.pin_writes().is_some() && unknown > 0 {
        let _ = write!(out, " (of {unknown} more entries not known)");
    }
    out += &writes(report);
    let _ = write!(out, "\nunmatched   {}", t.unmatched);
    let open: u64 = report.sources.iter().filter_map(|s| s.end.as_ref()).map(|e| e.accounting.open).sum();
    if open > 0 {
        let _ = write!(out, "; {open} in the guest at the end");
    }
    if t.td_entries > 0 {
        let _ = write!(out, "; {} entries of TDX guests left out", t.td_entries);
    }
    out + "\n"
}

/// The other counts of the same writes, side by side, and the other controls.
fn writes(report: &Report) -> String {
    let t = &report.whole.totals;
    let mut out = String::new();
    if let Some(w) = &t.control_writes {
        for (vmcs, counts, entries) in [("vmcs01", &w.vmcs01, w.entries_l1), ("vmcs02", &w.vmcs02, w.entries_l2)] {
            if entries > 0 {
                let counts: Vec<_> =
                    Control::ALL.iter().zip(counts).map(|(control, n)| format!("{} {n}", control.name())).collect();
                let _ = write!(out, "\n  {vmcs}    {} (tracepoint, {entries} entries)", counts.join(", "));
            }
        }
        let differs = match w.shadow_differs {
            0 => "the same for every entry".into(),
            n => format!("differs for {n} entries: writes that cancel out between two looks are missed"),
        };
        let _ = write!(out, "\n  shadow    pin {} ({differs})", t.shadow_pin_writes);
    }
    let sites: Vec<_> = report.sites().map(|(site, n)| format!("{} {n}", site.name())).collect();
    if !sites.is_empty() {
        let sum: u64 = t.site_writes.iter().sum();
        let _ = write!(out, "\n  sites     pin {sum} by kprobes on VMWRITEs: {}", sites.join(", "));
        // The shadow method begins with a vCPU's first entry, the probes with its creation, in whatever thread.
        let others = t.control_writes.map_or(t.shadow_pin_writes, |w| w.vmcs01[0] + w.vmcs02[0]);
        if sum != others {
            let _ = write!(
                out,
                "\n            {sum} and {others} differ: sites also count vCPUs that were created or reset and not entered, \
                 and entries whose round was not complete ({} unmatched, {} unknown, {} dropped)",
                t.unmatched,
                report.entries_without_pin_writes(),
                t.dropped
            );
        }
    }
    out
}

fn table(view: &View, rows: &[Row], figure: Figure, stats: &[Stat], length_ns: u64) -> String {
    let heading = |d: &Dimension| if *d == Dimension::Reason { "EXIT REASON".into() } else { d.name().to_uppercase() };
    let mut head: Vec<String> = view.by.iter().map(heading).collect();
    let texts = head.len();
    head.extend([if figure.counts_exits() { "EXITS" } else { "ENTRIES" }, "/S"].map(str::to_owned));
    head.extend(stats.iter().map(|s| s.title().to_owned()));
    // Writes belong to entries; the host's handling of an exit has none of its own.
    let of_entries = !figure.counts_exits();
    head.extend(of_entries.then(|| "PIN/ENTRY".to_owned()));
    let mut cells = vec![head];
    for row in rows {
        let histogram = &row.series[figure];
        if histogram.count() == 0 {
            continue;
        }
        let rate = (length_ns > 0).then(|| histogram.count() as f64 * 1e9 / length_ns as f64);
        let mut line = row.group.clone();
        line.push(histogram.count().to_string());
        line.push(human(rate, Unit::PerSecond));
        line.extend(stats.iter().map(|s| human(s.of(histogram), figure.unit())));
        line.extend(of_entries.then(|| human(row.series[Figure::PinWrites].mean(), Unit::Count)));
        cells.push(line);
    }
    align(&cells, texts)
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{report, view},
        *,
    };

    #[test]
    fn the_first_line_says_what_was_lost() {
        let text = render(&report(), &view());
        assert_eq!(text.lines().next().unwrap(), "LOST 4.000% of 125 entries: 120 delivered, 5 dropped (ring full)");
        let mut whole = report();
        whole.whole.totals.entries = 120;
        whole.whole.totals.dropped = 0;
        assert!(render(&whole, &view()).starts_with("no loss: 120 entries, all delivered (cut off"));
        whole.whole.totals.entries = 121;
        assert!(render(&whole, &view()).lines().next().unwrap().contains("DISAGREES"));
    }

    #[test]
    fn emulation_is_said_and_only_then() {
        assert!(!render(&report(), &view()).contains("EMULATED"));
        let mut emulated = report();
        emulated.sources[0].header.host.emulated = true;
        assert!(render(&emulated, &view()).contains("EMULATED"));
    }

    #[test]
    fn what_was_counted_in_the_kernel_is_said_to_be_coarse_and_lost_for_another_reason() {
        let mut report = report();
        assert!(!render(&report, &view()).contains("1.6 %"));
        report.sources[0].header.aggregation = crate::model::measurement::Aggregation::InKernel;
        let text = render(&report, &view());
        assert!(
            text.contains("each is known to 1.6 %") && text.contains("5 dropped (no room for their series)"),
            "{text}"
        );
    }

    #[test]
    fn a_table_shows_every_row_with_its_figures() {
        let text = render(&report(), &view());
        let row = text.lines().find(|l| l.contains("PREEMPTION_TIMER")).unwrap();
        let cells: Vec<_> = row.split_whitespace().collect();
        assert_eq!(cells[..5], ["vm0", "PREEMPTION_TIMER", "23", "11.5", "50.0us"]);
        assert_eq!(cells.last(), Some(&"2"));
        assert!(text.contains("timer exits  deadline 23  immediate 0  spurious 0\n"), "{text}");
    }
}
