//! The report as one page: loss, totals, distributions, the course of time, exit reasons, the environment and the method.

use std::collections::BTreeSet;

use tracer_common::rules::TimerCause;

use super::{Dimension, Report, Row, View, explanation, notes, timeline::Point};
use crate::{
    html::{
        Markup, Section, Tile, Tone,
        axis::Axis,
        callout,
        chart::{Chart, Look, Rows, Scale, shortened},
        density, details, environment, grid, heading, join, list, page, paragraph,
        table::{Cell, Heading, Table},
        tiles,
    },
    model::{
        figures::{Column, Figure, Stat, Unit, human},
        histogram::Histogram,
        knowledge::{Subject, Unknown},
        measurement::{EMULATED, Latency},
    },
};

/// Rows of the table over time at most.
const MAX_TIMES: usize = 60;
/// Exit reasons with a curve of their own.
const MAX_RIDGES: usize = 8;
/// Height of a curve.
const STEP: f64 = 46.0;
/// Bins of a curve.
const BINS: usize = 110;
/// Points of a line that are marked; more would hide it.
const MAX_DOTS: usize = 40;

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
        Section { id: "totals", title: "Totals", body: totals(report, view) },
        Section { id: "distributions", title: "Distributions", body: distributions(report, view) },
        Section { id: "time", title: "Over time", body: timeline(report, view) },
        Section { id: "reasons", title: "By exit reason", body: rows(report, view) },
        Section { id: "environment", title: "Environment", body: environment(report) },
        Section { id: "method", title: "Method", body: method() },
    ];
    page(&format!("VM entries: {}", names.join(", ")), &format!("{emulated}{}", hosts.join("; ")), &sections)
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
    n.map(|n| n.to_string()).into()
}

fn summary(report: &Report) -> Markup {
    let mut out = Vec::from_iter(report.damage().map(|damage| callout(Tone::Alarm, "DAMAGED:", &damage)));
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
    let tile = |name, value: Cell, note: &str| Tile { name, value, note: note.to_owned() };
    tiles(&[
        tile("observed", human(Some(length as f64), Unit::Ns).into(), &counted(report.sources.len(), "recording")),
        tile("VM entries", entries.to_string().into(), &guests),
        tile("entries/s", human(rate, Unit::PerSecond).into(), ""),
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
        t.entries.to_string().into(),
        "rounds closed by a kvm_exit, by the kernel's own count: delivered + dropped",
    );
    add("delivered", t.delivered.to_string().into(), "entries whose record was delivered");
    let dropped = "entries whose record found the ring full; if counted in the kernel, without room for their series";
    add("dropped", t.dropped.to_string().into(), dropped);
    let unmatched = "kvm_entry without kvm_exit, or kvm_exit without kvm_entry";
    add("unmatched", t.unmatched.to_string().into(), unmatched);
    if let Some(evicted) = t.evicted.filter(|n| *n > 0) {
        add("evicted", evicted.to_string().into(), "times that the places for vCPUs' states were too few");
    }
    if t.malformed + t.not_kept > 0 {
        add("undecodable", t.malformed.to_string().into(), "records that failed to decode");
        add("over series limit", t.not_kept.to_string().into(), "entries over the series limit of an interval");
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
        add("entries with unknown pin writes", unknown.to_string().into(), "in no count of pin writes");
    }
    let source = match &writes {
        Ok(_) => format!("pin-control VMCS writes; from {}", pin_sources(report)),
        Err(reason) => format!("n/a: {reason}"),
    };
    add("pin writes", count(writes), &source);
    for (site, n) in report.sites() {
        add(&format!("pin writes at {}", site.name()), n.to_string().into(), "kprobe on this VMWRITE");
    }
    if let Some(entries) = t.stopwatch_excesses.filter(|n| *n > 0) {
        add("entries without transition_ns", entries.to_string().into(), notes::STOPWATCH_EXCESS);
    }
    if let Some(times) = t.inexact_phases.filter(|n| *n > 0) {
        add("inexact host times", times.to_string().into(), notes::INEXACT_PHASES);
    }
    if let Some(text) = report.foreign_isa() {
        add("entries of another instruction set", t.foreign_isa.unwrap_or_default().to_string().into(), &text);
    }
    if t.td_entries > 0 {
        add("TDX entries", t.td_entries.to_string().into(), "entries of TDX guests; not in any other figure");
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

fn distributions(report: &Report, view: &View) -> Markup {
    if let Err(reason) = times(report) {
        return paragraph(&reason.to_string());
    }
    let by_reason = View { by: vec![Dimension::Reason], sort: Column::Entries, top: Some(MAX_RIDGES), ..view.clone() };
    let rows = report.rows(&by_reason);
    let mut out = Vec::new();
    if !view.filters.is_empty() {
        out.push(paragraph("Only the entries that pass the filters."));
    }
    for figure in Figure::ALL.into_iter().filter(|f| f.is_time() && !notes::is_left_out(report, *f)) {
        out.extend([heading(&figure.heading()), paragraph(figure.help())]);
        out.push(match notes::why_empty(report, figure, &rows) {
            Some(why) => paragraph(&format!("n/a: {why}")),
            None => {
                let rows: Vec<_> = rows.iter().filter(|r| r.series[figure].count() > 0).collect();
                join([ridges(report, figure, &rows), ridges_table(report, figure, &rows)])
            }
        });
    }
    join(out)
}

fn ridges_title(report: &Report, figure: Figure) -> String {
    format!("{} by exit reason{}", figure.title(), emulated_suffix(report))
}

/// One curve per exit reason over one axis, each scaled to its own peak.
fn ridges(report: &Report, figure: Figure, rows: &[&Row]) -> Markup {
    let histograms: Vec<_> = rows.iter().map(|r| &r.series[figure]).collect();
    let Some((low, high)) = density::range(&histograms) else { return Markup::default() };
    let axis = Axis::log(low, high);
    let title = ridges_title(report, figure);
    let scale = Scale {
        axis,
        unit: figure.unit(),
        title: "ns, logarithmic; each curve scaled to its own peak; tick: median, dashed: p99",
    };
    let labels = rows.iter().map(|r| shortened(&r.group[0], 21)).collect();
    let rows_of = Rows { labels, step: STEP, left: 168.0, right: 92.0 };
    let mut chart = Chart::rows(format!("ridges-{}", figure.name()), &title, scale, rows_of);
    let mut words = Vec::new();
    for (at, (row, histogram)) in rows.iter().zip(&histograms).enumerate() {
        let bottom = chart.row(at) + STEP / 2.0 - 6.0;
        draw_curve(&mut chart, histogram, &axis, bottom);
        let (Some(p50), Some(p99)) = (histogram.quantile(0.5), histogram.quantile(0.99)) else { continue };
        let [p50, p99] = [p50, p99].map(|v| v as f64);
        for (value, class) in [(p50, "interval"), (p99, "mark dark")] {
            let (x, top) = (chart.x(value), bottom - STEP + 12.0);
            chart.path(class, &format!("M{x:.1} {top:.1}v{:.1}", STEP - 9.0));
        }
        let [p50, p99] = [p50, p99].map(|v| human(Some(v), figure.unit()));
        let (right, middle) = (chart.x(high) + 10.0, chart.row(at));
        let values = format!("{} values", human(Some(histogram.count() as f64), Unit::Count));
        chart.text(right, middle - 2.0, "strong", &p50);
        chart.text(right, middle + 13.0, "tick", &values);
        words.push(format!("{} median {p50}, p99 {p99}", row.group[0]));
    }
    chart.describe(format!("{title}: {}.", words.join("; "))).render()
}

/// Draws a density above `bottom`.
fn draw_curve(chart: &mut Chart, histogram: &Histogram, axis: &Axis, bottom: f64) {
    let bins = density::bins(histogram, axis, BINS);
    let peak = bins.iter().fold(f64::MIN_POSITIVE, |a, &b| a.max(b));
    let corners: Vec<_> = density::stairs(&bins, axis)
        .iter()
        .map(|(x, y)| format!("{:.1} {:.1}", chart.x(*x), bottom - y / peak * (STEP - 12.0)))
        .collect();
    let (from, to) = (chart.x(axis.value(0.0)), chart.x(axis.value(1.0)));
    let path = format!("M{from:.1} {bottom:.1}L{}L{to:.1} {bottom:.1}", corners.join("L"));
    chart.path("fill a", &format!("{path}Z"));
    chart.path("line thin a", &path);
}

fn ridges_table(report: &Report, figure: Figure, rows: &[&Row]) -> Markup {
    let mut columns = vec![Heading::word("exit reason"), Heading::number(counted(figure))];
    columns.extend(Stat::ALL.map(|s| Heading::number(s.title().to_lowercase())));
    let caption = format!("{}: the numbers", ridges_title(report, figure));
    let mut table = Table::new(format!("ridges-{}-table", figure.name()), caption, columns);
    for row in rows {
        let histogram = &row.series[figure];
        let mut cells = vec![row.group[0].clone(), histogram.count().to_string()];
        cells.extend(Stat::ALL.map(|s| human(s.of(histogram), figure.unit())));
        table.row(cells);
    }
    details("The numbers behind this picture", &table.render())
}

/// The events that a figure has one value for.
const fn counted(figure: Figure) -> &'static str {
    if figure.counts_exits() { "exits" } else { "entries" }
}

/// Places of points along the axis of time, in seconds. Recordings may be days apart, so they follow one another without a gap.
struct Places {
    /// middle of each point
    middles: Vec<f64>,
    /// between recordings
    boundaries: Vec<f64>,
    end: f64,
}

impl Places {
    fn of(points: &[&Point]) -> Self {
        let mut places = Self { middles: Vec::with_capacity(points.len()), boundaries: Vec::new(), end: 0.0 };
        for of_one_source in points.chunk_by(|a, b| a.source == b.source) {
            let offset = places.end;
            if !places.middles.is_empty() {
                places.boundaries.push(offset);
            }
            for p in of_one_source {
                let start = offset + p.start_unix_ns.saturating_sub(of_one_source[0].start_unix_ns) as f64 / 1e9;
                places.end = places.end.max(start + p.length_ns as f64 / 1e9);
                places.middles.push(start + p.length_ns as f64 / 2e9);
            }
        }
        places
    }
}

fn timeline(report: &Report, view: &View) -> Markup {
    let points = report.timeline.points();
    if points.is_empty() {
        return paragraph("n/a: no interval was recorded.");
    }
    let time = Time { points: &points, places: Places::of(&points) };
    let of = |value: &dyn Fn(&Point) -> Option<f64>| points.iter().map(|p| value(p)).collect::<Vec<_>>();
    let quantile = |q: f64| of(&|p| p.entry_to_exit.quantile(q).map(|v| v as f64));
    let knowledge = report.knowledge();
    let guest_time = match knowledge.figure(Figure::EntryToExit) {
        Ok(()) => {
            let title = format!("{}{}", Figure::EntryToExit.heading(), emulated_suffix(report));
            let lines = [(Look::A, "p50", quantile(0.5)), (Look::B, "p99", quantile(0.99))];
            time.draw(&Lines { id: "time-latency", title: &title, unit: Unit::Ns, log: true, lines: &lines })
        }
        Err(reason) => paragraph(&reason.to_string()),
    };
    let single =
        |id, title, unit, values| time.draw(&Lines { id, title, unit, log: false, lines: &[(Look::A, "", values)] });
    let pictures = [
        single("time-rate", "Entries per second", Unit::PerSecond, of(&Point::rate)),
        guest_time,
        match knowledge.figure(Figure::PinWrites) {
            Ok(()) => single("time-pins", "Pin writes per entry", Unit::Count, of(&Point::pin_writes_per_entry)),
            Err(reason) => paragraph(&format!("Pin writes per entry: n/a, {reason}.")),
        },
        if points.iter().any(|p| p.dropped > 0) {
            single("time-dropped", "Dropped entries", Unit::Count, of(&|p| Some(p.dropped as f64)))
        } else {
            paragraph("Dropped entries: none at any time.")
        },
    ];
    let note = if view.filters.is_empty() { Markup::default() } else { paragraph("Of all entries, unfiltered.") };
    join([note, grid(&pictures), details("The numbers behind these pictures", &timeline_table(report))])
}

/// A picture over time.
struct Lines<'a> {
    id: &'a str,
    title: &'a str,
    unit: Unit,
    log: bool,
    /// name in the legend, and a value per point
    lines: &'a [(Look, &'a str, Vec<Option<f64>>)],
}

/// The axis of time that all pictures share.
struct Time<'a> {
    points: &'a [&'a Point],
    places: Places,
}

impl Time<'_> {
    fn draw(&self, picture: &Lines<'_>) -> Markup {
        let Lines { id, title, unit, log, lines } = *picture;
        let known: Vec<f64> = lines.iter().flat_map(|l| l.2.iter().flatten().copied()).collect();
        if known.is_empty() {
            return paragraph(&format!("{title}: n/a, not known in this recording."));
        }
        let low = known.iter().copied().fold(f64::INFINITY, f64::min);
        let high = known.iter().copied().fold(0.0, f64::max);
        let Places { boundaries, end, .. } = &self.places;
        let x_title =
            if boundaries.is_empty() { "seconds since the start" } else { "seconds; recordings one after the other" };
        let axis = if log { Axis::log(low.max(1.0) / 1.3, high * 1.3) } else { Axis::linear(0.0, high * 1.08) };
        let x = Scale { axis: Axis::linear(0.0, *end), unit: Unit::Count, title: x_title };
        let y = Scale { axis, unit, title: if log { "logarithmic" } else { "" } };
        let mut chart = Chart::new(id, title, x, y);
        boundaries.iter().for_each(|b| chart.mark(*b, "mark"));
        for (look, name, values) in lines {
            self.draw_line(&mut chart, *look, values);
            if lines.len() > 1 {
                chart.legend(*look, name);
            }
        }
        let [low, high] = [low, high].map(|v| human(Some(v), unit));
        let length = human(Some(end * 1e9), Unit::Ns);
        chart.describe(format!("{title} over {length}: between {low} and {high}.")).render()
    }

    /// Draws a line that is interrupted between recordings, where nothing is known.
    fn draw_line(&self, chart: &mut Chart, look: Look, values: &[Option<f64>]) {
        let line: Vec<_> = self.places.middles.iter().copied().zip(values.iter().copied()).collect();
        let mut rest = line.as_slice();
        for recording in self.points.chunk_by(|a, b| a.source == b.source) {
            let (this, next) = rest.split_at(recording.len());
            chart.line(look, this);
            rest = next;
        }
        if line.len() <= MAX_DOTS {
            line.iter().for_each(|(x, y)| y.iter().for_each(|y| chart.dot(look, *x, *y)));
        }
    }
}

fn timeline_table(report: &Report) -> Markup {
    let headings = ["s", "entries", "entries/s", "p50", "p99", "pin writes/entry", "dropped"];
    let rows = report.timeline.at_most(MAX_TIMES);
    let merged = if rows.len() < report.timeline.points().len() { ", neighbours merged" } else { "" };
    let figure = Figure::EntryToExit.heading();
    let emulated = emulated_suffix(report);
    let caption =
        format!("Stretches of time{merged}, by their middle in seconds; p50 and p99 are of {figure}{emulated}");
    let mut table = Table::new("time-table", caption, headings.map(Heading::number).into());
    let knowledge = report.knowledge();
    for (middle, p) in Places::of(&Vec::from_iter(&rows)).middles.iter().zip(&rows) {
        let time = |q: f64| -> Cell {
            let times = knowledge.figure(Figure::EntryToExit);
            times.map(|()| human(p.entry_to_exit.quantile(q).map(|v| v as f64), Unit::Ns)).into()
        };
        let pin_writes = knowledge.figure(Figure::PinWrites);
        table.row([
            format!("{middle:.1}").into(),
            p.entries.to_string().into(),
            human(p.rate(), Unit::PerSecond).into(),
            time(0.5),
            time(0.99),
            pin_writes.map(|()| human(p.pin_writes_per_entry(), Unit::Count)).into(),
            p.dropped.to_string().into(),
        ]);
    }
    table.render()
}

fn rows(report: &Report, view: &View) -> Markup {
    let rows = report.rows(view);
    if rows.is_empty() {
        let passed =
            if report.whole.totals.delivered > 0 { "pass the filters" } else { "were recorded: did a VM run?" };
        return paragraph(&format!("No entries {passed}"));
    }
    let mut out = Vec::new();
    if !view.filters.is_empty() {
        let filters: Vec<_> = view.filters.iter().map(ToString::to_string).collect();
        out.push(paragraph(&format!("Only entries with {}.", filters.join(" and "))));
    }
    for figure in Figure::ALL {
        out.push(heading(&figure.heading()));
        let why = notes::why_empty(report, figure, &rows);
        out.extend(why.as_ref().map(|why| paragraph(&format!("n/a: {why}"))));
        // Entries are counted also where their times are not shown.
        if why.is_none() || figure == Figure::EntryToExit {
            out.push(rows_table(report, view, figure, &rows));
        }
    }
    join(out)
}

fn rows_table(report: &Report, view: &View, figure: Figure, rows: &[Row]) -> Markup {
    let name = |d: &Dimension| Heading::word(if *d == Dimension::Reason { "exit reason" } else { d.name() });
    let mut columns: Vec<_> = view.by.iter().map(name).collect();
    if columns.is_empty() {
        columns.push(Heading::word(""));
    }
    columns.extend([counted(figure), "/s"].map(Heading::number));
    columns.extend(Stat::ALL.map(|s| Heading::number(s.title().to_lowercase())));
    let emulated = if report.is_emulated() && figure.is_time() { "; EMULATED" } else { "" };
    let caption = format!("{}: {}{emulated}", figure.heading(), figure.help());
    let mut table = Table::new(format!("rows-{}", figure.name()), caption, columns);
    let knowledge = report.knowledge();
    for row in rows {
        let histogram = &row.series[figure];
        let count = if figure == Figure::EntryToExit { row.series.entries() } else { histogram.count() };
        let group = if row.group.is_empty() { vec!["all".into()] } else { row.group.clone() };
        let mut cells: Vec<Cell> = group.into_iter().map(Cell::from).collect();
        cells.extend([count.to_string().into(), human(row.rate(count), Unit::PerSecond).into()]);
        let stat = |s: Stat| Cell::from(knowledge.figure(figure).map(|()| human(s.of(histogram), figure.unit())));
        cells.extend(Stat::ALL.map(stat));
        table.row(cells);
    }
    table.render()
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
