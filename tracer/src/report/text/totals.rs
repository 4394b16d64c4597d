//! Counts of the whole report: timer exits, pin writes by every method, unmatched entries.

use std::fmt::Write as _;

use tracer_common::rules::{Control, TimerCause};

use crate::{
    model::{
        figures::{Unit, human},
        knowledge::Unknown,
        totals::TracedTimerExits,
    },
    output::grouped,
    report::{Report, View, explanation, notes},
};

/// The counts, whatever the view's filters.
pub(super) fn render(report: &Report, view: &View) -> String {
    let t = &report.whole.totals;
    let mut out = String::from(if view.filters.is_empty() { "" } else { "unfiltered\n" });
    // Of SVM hosts alone it is said once that there is no such thing.
    if !report.is_svm() {
        out += &of_vmx(report);
    }
    if let Some(entries) = t.stopwatch_excesses.filter(|n| *n > 0) {
        let _ = writeln!(out, "stopwatch   {entries} entries without transition_ns: {}", notes::STOPWATCH_EXCESS);
    }
    if let Some(times) = t.inexact_phases.filter(|n| *n > 0) {
        let _ = writeln!(out, "inexact     {} host times: {}", grouped(times), notes::INEXACT_PHASES);
    }
    let _ = write!(out, "unmatched   {}", t.unmatched);
    if let Some(evicted) = t.evicted.filter(|n| *n > 0) {
        let _ = write!(out, "; places for vCPUs' states were too few {evicted} times");
    }
    let open: u64 = report.sources.iter().filter_map(|s| s.end.as_ref()).map(|e| e.accounting.open).sum();
    if open > 0 && report.shown.is_none() {
        let _ = write!(out, "; {open} vCPUs in the guest at the end");
    }
    if t.td_entries > 0 {
        let _ = write!(out, "; {} entries of TDX guests left out", t.td_entries);
    }
    if let Some(text) = report.foreign_isa() {
        let _ = write!(out, "\nFOREIGN     {text}");
    }
    out + "\n"
}

/// Timer exits and pin-control writes.
fn of_vmx(report: &Report) -> String {
    let t = &report.whole.totals;
    let mut out = format!("timer exits{}", timer_exits(report));
    if let Some(traced) = &t.traced_timer_exits {
        let TracedTimerExits { deadline, immediate, spurious, early } = traced;
        let _ = write!(out, "\n  tracepoint  deadline {deadline}  immediate {immediate}  spurious {spurious}");
        out += &early.map_or_else(String::new, |early| format!("  early {early}"));
    }
    out += "\npin writes  ";
    match (report.pin_writes(), report.entries_with_unknown_pin_writes()) {
        (Ok(writes), 0) => out += &grouped(writes),
        (Ok(writes), unknown) => out += &format!("{} (unknown of {} more entries)", grouped(writes), grouped(unknown)),
        (Err(reason), _) => out += &not_known(&reason),
    }
    out + &writes(report) + "\n"
}

/// "n/a" with the reason.
fn not_known(reason: &Unknown) -> String {
    format!("n/a ({reason})")
}

/// The number of timer exits of each cause, on the line that names them.
fn timer_exits(report: &Report) -> String {
    let counts = TimerCause::ALL.map(|cause| (cause, report.timer_exits(cause)));
    let mut out = String::new();
    let mut reason = None;
    for (cause, count) in counts {
        match count {
            // Exits of unknown cause are named only if there are some.
            Ok(0) if cause == TimerCause::Unknown => {}
            Ok(n) => out += &format!("  {} {}", cause.name(), grouped(n)),
            Err(why) if cause == TimerCause::Unknown => reason = Some(why),
            Err(why) => {
                out += &format!("  {} n/a", cause.name());
                reason = Some(why);
            }
        }
        out += &match cause {
            TimerCause::Spurious => {
                let times = report.spurious_after().map(|times| format!(" (guest time: {})", least_and_median(times)));
                times.unwrap_or_default() + &before_time(report)
            }
            TimerCause::Early => remaining(report),
            _ => String::new(),
        };
    }
    out + &reason.map(|why| format!("  ({why})")).unwrap_or_default()
}

/// How many of the spurious timer exits came before the time that the timer's value promises; empty without spurious exits.
fn before_time(report: &Report) -> String {
    if !report.timer_exits(TimerCause::Spurious).is_ok_and(|n| n > 0) {
        return String::new();
    }
    match report.spurious_before_time() {
        Ok(before) => {
            let promised = human(before.promised_ns.map(|ns| ns as f64), Unit::Ns);
            let why = before.explanation();
            format!(
                " ({} before their time of {promised}{}{why})",
                before.count,
                if why.is_empty() { "" } else { ": " }
            )
        }
        Err(why) => format!(" (before their time: n/a, {why})"),
    }
}

/// The time that remained at early timer exits, and what explains it; empty where none is known.
fn remaining(report: &Report) -> String {
    let (Ok(all), Ok((known, explained))) = (report.timer_exits(TimerCause::Early), report.early_explained()) else {
        return String::new();
    };
    if known == 0 {
        return if all > 0 { " (remaining: n/a)".into() } else { String::new() };
    }
    let of = if known < all { format!("remaining, of {known}") } else { "remaining".into() };
    let why = explanation(known, explained, ", whose deadlines are 171.8 s away");
    let times = report.early_before().map(|times| format!(" ({of}: {}: {why})", least_and_median(times)));
    times.unwrap_or_default()
}

/// "least X, median Y", of ns.
fn least_and_median((least, median): (u64, u64)) -> String {
    let ns = |v| human(Some(v as f64), Unit::Ns);
    format!("least {}, median {}", ns(least), ns(median))
}

/// The same writes as counted by other methods, and writes of other controls.
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
            n => format!("differs for {n} entries: writes that cancel out between two reads are missed"),
        };
        if let Some(shadow) = t.shadow_pin_writes {
            let _ = write!(out, "\n  shadow    pin {shadow} ({differs})");
        }
    }
    let sites: Vec<_> = report.sites().map(|(site, n)| format!("{} {n}", site.name())).collect();
    if !sites.is_empty() {
        let sum: u64 = t.site_writes.iter().sum();
        let _ = write!(out, "\n  sites     pin {sum} by kprobes on VMWRITEs: {}", sites.join(", "));
        // The shadow method begins with a vCPU's first entry, the probes with its creation, in any thread.
        let others = t.control_writes.map(|w| w.vmcs01[0] + w.vmcs02[0]).or(t.shadow_pin_writes);
        if let Some(others) = others.filter(|others| report.pin_writes().is_ok() && sum != *others) {
            let _ = write!(
                out,
                "\n            {sum} and {others} differ: sites also count vCPUs that were created or reset and not entered, \
                 and entries whose round is incomplete ({} unmatched, {} unknown, {} dropped)",
                t.unmatched,
                report.entries_with_unknown_pin_writes(),
                t.dropped
            );
        }
    }
    out
}
