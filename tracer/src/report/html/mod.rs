//! The report as one page: loss, where the time went, exit reasons, distributions, the course of time, totals, all statistics, the
//! environment and the method.

mod course;
mod exits;
mod ridges;
mod statistics;

use std::collections::BTreeSet;

use tracer_common::rules::TimerCause;

use super::{Report, View, explanation, notes};
use crate::{
    html::{
        Markup, Section, Tile, Tone, callout, environment, join, list, page,
        table::{Cell, Heading, Table},
        tiles,
    },
    model::{
        figures::{Figure, Unit, human},
        knowledge::{Subject, Unknown},
        measurement::{EMULATED, Latency},
    },
    output::grouped,
};

/// Renders a report as a self-contained HTML page.
pub(crate) fn render(report: &Report, view: &View) -> String {
    let mut names: Vec<_> =
        report.sources.iter().map(|s| s.header.label.clone().unwrap_or_else(|| s.name.clone())).collect();
    names.dedup();
    let hosts = report.sources.iter().map(|s| format!("{}, Linux {}", s.header.host.name, s.header.host.kernel));
    let mut hosts: Vec<_> = hosts.collect();
    hosts.dedup();
    let emulated = if report.is_emulated() { "EMULATED \u{b7} " } else { "" };
    let sections = [
        Section { id: "summary", title: "Summary", body: summary(report) },
        Section { id: "budget", title: "Where the time went", body: exits::budget(report, view) },
        Section { id: "exits", title: "Exit reasons", body: exits::table(report, view) },
        Section { id: "distributions", title: "Distributions", body: ridges::distributions(report, view) },
        Section { id: "time", title: "Over time", body: course::timeline(report, view) },
        Section { id: "totals", title: "Totals", body: totals(report, view) },
        Section { id: "figures", title: "All statistics", body: statistics::figures(report, view) },
        Section { id: "environment", title: "Environment", body: environment(report) },
        Section { id: "method", title: "Method", body: method() },
    ];
    page(&format!("VM entries: {}", names.join(", ")), &format!("{emulated}{}", hosts.join("; ")), &sections)
}

/// The events that a figure has one value for.
const fn counted(figure: Figure) -> &'static str {
    if figure.counts_exits() { "exits" } else { "entries" }
}

/// Whether guest and host times may be shown; the reason why not.
fn times(report: &Report) -> Result<(), Unknown> {
    report.knowledge().known(Subject::Times).map_err(Unknown::clone)
}

/// " (EMULATED)" after names of times, if they are.
fn emulated_suffix(report: &Report) -> &'static str {
    if report.is_emulated() { " (EMULATED)" } else { "" }
}

/// Sources of the pin writes, for people.
fn pin_sources(report: &Report) -> String {
    let sources = report.sources.iter().map(|s| environment::pin_source(s.header.pin_writes_source));
    let mut sources: Vec<_> = sources.collect();
    sources.dedup();
    sources.join("; ")
}

fn count(n: Result<u64, Unknown>) -> Cell {
    n.map(grouped).into()
}

fn summary(report: &Report) -> Markup {
    let mut out = Vec::from_iter(report.damage().map(|damage| callout(Tone::Alarm, "DAMAGED:", &damage)));
    out.extend(report.shown.as_ref().map(|shown| callout(Tone::Answer, "SHOWN:", shown)));
    out.push(loss(report));
    if report.is_emulated() {
        out.push(callout(Tone::Alarm, "EMULATED:", EMULATED));
    }
    let tracers = report.other_tracers();
    out.extend(tracers.shared("were").map(|shared| callout(Tone::Alarm, "SHARED", &shared)));
    out.extend(tracers.may_be_more().map(|more| callout(Tone::Alarm, "UNSEEN", &more)));
    out.extend(report.aggregation().note().map(|note| callout(Tone::Answer, "COARSE", note)));
    if let Err(reason) = times(report) {
        out.push(callout(Tone::Alarm, "NO TIMES", &reason.to_string()));
    }
    if report.latency() == Latency::DisturbedButAsked {
        out.push(callout(Tone::Alarm, "DISTURBED", notes::DISTURBED));
    }
    out.push(overview(report));
    join(out)
}

fn loss(report: &Report) -> Markup {
    let loss = notes::loss(report);
    let loss = loss.trim_end();
    let complete = report.sources.iter().all(|s| s.end.is_some());
    let t = &report.whole.totals;
    let exact = report.is_exact() && t.dropped + t.malformed + t.not_kept == 0;
    match loss.split_once(' ') {
        Some(("LOST", rest)) => callout(Tone::Alarm, "LOST", rest),
        _ if exact && complete => callout(Tone::Fine, "\u{2713}", loss),
        _ => callout(Tone::Alarm, "!", loss),
    }
}

fn overview(report: &Report) -> Markup {
    let (length, entries) = (report.observed_ns(), report.whole.totals.entries);
    let rate = (length > 0).then(|| entries as f64 * 1e9 / length as f64);
    let guest_time = report.values(Figure::EntryToExit, |_| true);
    let time =
        |q: f64| -> Cell { guest_time.as_ref().map(|all| human(all.quantile(q).map(|v| v as f64), Unit::Ns)).into() };
    let spurious = report.timer_exits(TimerCause::Spurious);
    let why = spurious.as_ref().err().map(Unknown::to_string).unwrap_or_default();
    let pin_writes = report.values(Figure::PinWrites, |_| true).map(|all| human(all.mean(), Unit::Count));
    let source = match &pin_writes {
        Ok(_) => format!("from {}", pin_sources(report)),
        Err(reason) => reason.to_string(),
    };
    let vcpus: BTreeSet<_> = report.whole.series.keys().map(|k| (k.vm, k.vcpu)).collect();
    let counted = |n: usize, noun: &str| format!("{n} {noun}{}", if n == 1 { "" } else { "s" });
    let guests = format!("{}, {}", counted(report.whole.vms.len(), "VM"), counted(vcpus.len(), "vCPU"));
    let emulated = if report.is_emulated() { "EMULATED" } else { "" };
    let most = exits::most_host_time(report);
    let tile = |name, value: Cell, note: &str| Tile { name, value, note: note.to_owned() };
    tiles(&[
        tile("observed", human(Some(length as f64), Unit::Ns).into(), &counted(report.sources.len(), "recording")),
        tile("VM entries", grouped(entries).into(), &guests),
        tile("entries/s", human(rate, Unit::PerSecond).into(), ""),
        tile("most host time", most.0.into(), &most.1),
        tile("guest time, median", time(0.5), emulated),
        tile("guest time, p99", time(0.99), emulated),
        tile("pin writes per entry", pin_writes.into(), &source),
        tile("spurious timer exits", count(spurious), &why),
    ])
}

fn totals(report: &Report, view: &View) -> Markup {
    let t = &report.whole.totals;
    let unfiltered = if view.filters.is_empty() { "" } else { ", unfiltered" };
    let columns = vec![Heading::word("count of"), Heading::number("count"), Heading::text("source")];
    let mut table = Table::new("totals-table", format!("Counts of everything recorded{unfiltered}"), columns);
    let mut add = |name: &str, n: Cell, source: &str| table.row([name.into(), n, source.into()]);
    add(
        "entries",
        grouped(t.entries).into(),
        "rounds closed by a kvm_exit, by the kernel's own count: delivered + dropped",
    );
    add("delivered", grouped(t.delivered).into(), "entries whose record was delivered");
    let dropped = "entries whose record found the ring full; if counted in the kernel, without room for their series";
    add("dropped", grouped(t.dropped).into(), dropped);
    let unmatched = "kvm_entry without kvm_exit, or kvm_exit without kvm_entry";
    add("unmatched", grouped(t.unmatched).into(), unmatched);
    if let Some(evicted) = t.evicted.filter(|n| *n > 0) {
        add("evicted", grouped(evicted).into(), "times that the places for vCPUs' states were too few");
    }
    if t.malformed + t.not_kept > 0 {
        add("undecodable", grouped(t.malformed).into(), "records that failed to decode");
        add("over series limit", grouped(t.not_kept).into(), "entries over the series limit of an interval");
    }
    for cause in TimerCause::ALL {
        let n = report.timer_exits(cause);
        if cause != TimerCause::Unknown || n.as_ref().is_ok_and(|n| *n > 0) {
            let source = timer_source(report, &n, cause);
            add(&format!("timer exits: {}", cause.name()), count(n), &source);
        }
    }
    if report.timer_exits(TimerCause::Spurious).is_ok_and(|n| n > 0) {
        let before = report.spurious_before_time();
        let source = match &before {
            Err(why) => format!("n/a: {why}"),
            Ok(found) => {
                let promised = human(found.promised_ns.map(|ns| ns as f64), Unit::Ns);
                let why = found.explanation();
                let colon = if why.is_empty() { "" } else { ": " };
                format!("the guest had run for less than the {promised} that the timer's value promises{colon}{why}")
            }
        };
        add("spurious timer exits before their time", count(before.map(|found| found.count)), &source);
    }
    if let Some(traced) = &t.traced_timer_exits {
        let early = traced.early.map_or("n/a".to_owned(), |n| n.to_string());
        let counts = format!("{} / {} / {} / {early}", traced.deadline, traced.immediate, traced.spurious);
        add("timer exits: deadline / immediate / spurious / early", counts.into(), "the companion patch's tracepoint");
    }
    let writes = report.pin_writes();
    let unknown = report.entries_with_unknown_pin_writes();
    if writes.is_ok() && unknown > 0 {
        add("entries with unknown pin writes", grouped(unknown).into(), "in no count of pin writes");
    }
    let source = match &writes {
        Ok(_) => format!("pin-control VMCS writes; from {}", pin_sources(report)),
        Err(reason) => format!("n/a: {reason}"),
    };
    add("pin writes", count(writes), &source);
    for (site, n) in report.sites() {
        add(&format!("pin writes at {}", site.name()), grouped(n).into(), "kprobe on this VMWRITE");
    }
    if let Some(entries) = t.stopwatch_excesses.filter(|n| *n > 0) {
        add("entries without transition_ns", grouped(entries).into(), notes::STOPWATCH_EXCESS);
    }
    if let Some(times) = t.inexact_phases.filter(|n| *n > 0) {
        add("inexact host times", times.to_string().into(), notes::INEXACT_PHASES);
    }
    if let Some(text) = report.foreign_isa() {
        add("entries of another instruction set", t.foreign_isa.unwrap_or_default().to_string().into(), &text);
    }
    if t.td_entries > 0 {
        add("TDX entries", grouped(t.td_entries).into(), "entries of TDX guests; not in any other figure");
    }
    table.render()
}

/// Meaning of a cause of timer exits.
fn timer_source(report: &Report, n: &Result<u64, Unknown>, cause: TimerCause) -> String {
    let meaning = match (n, cause) {
        (Err(reason), _) => return format!("n/a: {reason}"),
        (_, TimerCause::Deadline) if report.knowledge().known(Subject::Deadline).is_err() => {
            "the guest's timer was due, or early, which is not known"
        }
        (_, TimerCause::Deadline) => "the guest's timer was due",
        (_, TimerCause::Immediate) => "KVM forced an exit before the first guest instruction",
        (_, TimerCause::Spurious) => "the timer expired while soft-disabled",
        (_, TimerCause::Early) => "the guest's timer expired before its deadline",
        (_, TimerCause::Unknown) => "this kernel does not provide the cause",
    };
    let human = |ns: u64| human(Some(ns as f64), Unit::Ns);
    let ran = match cause {
        TimerCause::Spurious => report.spurious_after().map(|(least, median)| {
            format!("; the guest had run at least {}, {} at the median", human(least), human(median))
        }),
        TimerCause::Early => report.early_before().map(|(least, median)| {
            let why = report.early_explained().map_or_else(
                |_| String::new(),
                |(known, explained)| {
                    format!(": {}", explanation(known, explained, ", whose deadlines are 171.8 s away"))
                },
            );
            format!("; the deadline was at least {} away, {} at the median{why}", human(least), human(median))
        }),
        _ => None,
    };
    format!("{meaning}{}", ran.unwrap_or_default())
}

fn environment(report: &Report) -> Markup {
    let head = |n| if report.sources.len() == 1 { "recording".into() } else { format!("recording {n}") };
    let heads: Vec<_> = (1..=report.sources.len()).map(head).collect();
    let sources: Vec<_> = report.sources.iter().collect();
    environment::table("environment-table", &heads, &sources).render()
}

fn method() -> Markup {
    let figures: Vec<_> = Figure::ALL.iter().map(|f| format!("{}: {}", f.heading(), f.help())).collect();
    join([list(&figures), list(&environment::METHOD)])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{
        super::tests::{report, view},
        *,
    };
    use crate::html::tests::{HOSTILE, check};

    #[test]
    fn the_page_keeps_the_rules_and_has_every_row() {
        let html = render(&report(), &view());
        check(&html);
        for text in ["LOST", "4.000% of 125 entries", "PREEMPTION_TIMER", "CPUID", "timer exits: spurious", "50.0us"] {
            assert!(html.contains(text), "{text}");
        }
        for figure in Figure::ALL {
            assert!(html.contains(figure.name()), "{}", figure.name());
        }
        assert!(!html.contains("EMULATED"));
    }

    #[test]
    fn hostile_names_stay_text() {
        let mut report = report();
        Arc::make_mut(report.whole.vms.get_mut(&0).unwrap()).name = HOSTILE.into();
        let source = &mut report.sources[0];
        source.name = HOSTILE.into();
        source.header.label = Some(HOSTILE.into());
        source.header.command = vec![HOSTILE.into()];
        source.header.tool = HOSTILE.into();
        source.header.missing = vec![HOSTILE.into()];
        source.header.host.cpu = HOSTILE.into();
        source.header.host.parameters.insert(HOSTILE.into(), HOSTILE.into());
        source.header.host.build_ids.insert(HOSTILE.into(), HOSTILE.into());
        source.header.host.emulated = true;
        let filters = vec![format!("vm={HOSTILE}").parse().unwrap()];
        for view in [view(), View { filters, ..view() }, View { by: vec![], ..view() }] {
            let html = render(&report, &view);
            check(&html);
            assert!(html.contains("EMULATED") && html.contains("&lt;script&gt;"));
        }
    }

    #[test]
    fn disturbed_times_are_not_shown() {
        let mut report = report();
        report.sources[0].header.latency = Latency::Disturbed;
        let html = render(&report, &view());
        check(&html);
        assert!(html.contains(crate::model::knowledge::DISTURBED) && !html.contains("50.0us"));
    }

    #[test]
    fn coarse_values_are_marked() {
        let mut report = report();
        assert!(!render(&report, &view()).contains("COARSE"));
        report.sources[0].header.aggregation = crate::model::measurement::Aggregation::InKernel;
        let html = render(&report, &view());
        check(&html);
        assert!(html.contains("COARSE") && html.contains("1.6 %"));
    }

    #[test]
    fn several_recordings_are_side_by_side_and_none_is_a_page_too() {
        let mut two = report();
        let mut other = two.sources[0].clone();
        other.header.host.kernel = "6.99".into();
        two.sources.push(other);
        let html = render(&two, &view());
        check(&html);
        assert!(html.contains("recording 2") && html.contains("differs"));
        check(&render(&Report::default(), &view()));
    }

    /// Two recordings of many intervals, with loss: synthetic.
    fn long() -> Report {
        use crate::model::interval::tests::{event, vm};
        let mut report = Report { sources: vec![report().sources.remove(0); 2], ..Report::default() };
        let mut vms = std::collections::BTreeMap::new();
        let mut x: u64 = 9;
        for n in 0..300 {
            let mut interval = crate::model::interval::Interval::starting(n);
            interval.length_ns = 1_000_000_000;
            for _ in 0..40 {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                let reason = [10, 12, 30, 52, 1][usize::try_from(x % 5).unwrap()];
                let length = 800 + (x >> 8) % 600 + u64::from(reason) * ((x >> 20) % 97 + 40);
                interval
                    .record(&event(u32::try_from(x % 2).unwrap(), reason, length, u8::from(reason == 52) * 2), &vm(0));
            }
            let dropped = if n % 50 == 7 { n } else { 0 };
            interval.totals.entries = 40 + dropped;
            (interval.totals.delivered, interval.totals.dropped) = (40, dropped);
            report.timeline.add(usize::from(n >= 200), n * 1_000_000_000, &interval);
            report.add(0, interval, &mut vms);
        }
        report
    }

    /// `VMENTRY_REPORT_PAGE=/tmp/x.html cargo test -p vmentry --lib -- --ignored page_to_look_at`
    #[test]
    #[ignore = "writes a page for people to look at"]
    fn a_report_page_to_look_at() {
        let html = render(&long(), &view());
        check(&html);
        if let Ok(path) = std::env::var("VMENTRY_REPORT_PAGE") {
            std::fs::write(path, html).unwrap();
        }
    }
}
