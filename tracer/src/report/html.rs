//! The report as one page: what was lost, what was seen, how it went on, where it was, and what the figures mean.

use tracer_common::rules::TimerCause;

use super::{Dimension, Report, Row, View, notes, timeline::Point};
use crate::{
    html::{
        Kind, Section,
        axis::Axis,
        callout,
        chart::{Chart, Look},
        density, details, environment, grid, heading, list, page, paragraph,
        table::{Column as Heading, Table},
        tiles,
    },
    model::{
        figures::{Column, Figure, Stat, Unit, human},
        histogram::Histogram,
        measurement::Latency,
    },
};

/// Rows of the table of times: more can be seen, but not read.
const TIMES: usize = 60;
/// Exit reasons that get a curve of their own.
const RIDGES: usize = 8;
const BINS: usize = 110;

/// Renders a report as a self-contained HTML page.
pub fn render(report: &Report, view: &View) -> String {
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

fn has_latencies(report: &Report) -> bool {
    report.latency() != Latency::Disturbed
}

/// All entries of a figure in one histogram.
fn whole(report: &Report, figure: Figure) -> Histogram {
    let mut all = Histogram::default();
    report.whole.series.values().for_each(|s| all.merge(&s[figure]));
    all
}

fn summary(report: &Report) -> String {
    let loss = notes::loss(report);
    let loss = loss.trim_end();
    let cut = report.sources.iter().any(|s| s.end.is_none());
    let t = &report.whole.totals;
    let whole_and_exact = report.is_exact() && t.dropped + t.malformed + t.not_kept == 0;
    let mut out = match loss.split_once(' ') {
        Some(("LOST", rest)) => callout(Kind::Alarm, "LOST", rest),
        _ if whole_and_exact && !cut => callout(Kind::Fine, "\u{2713}", loss),
        _ => callout(Kind::Alarm, "!", loss),
    };
    if report.is_emulated() {
        let text = "the CPU was emulated in software; counts are right, times are no times of any CPU";
        out += &callout(Kind::Alarm, "EMULATED", text);
    }
    if let Some(note) = report.aggregation().note() {
        out += &callout(Kind::Answer, "COARSE", note);
    }
    out += &match report.latency() {
        Latency::Clean => String::new(),
        Latency::Disturbed => callout(Kind::Alarm, "NO LATENCIES", NOT_SHOWN),
        Latency::DisturbedButAsked => callout(
            Kind::Alarm,
            "DISTURBED",
            "hooks on VMCS writes ran between kvm_entry and the VM entry; latencies of dirty entries contain them",
        ),
    };
    let length = report.whole.length_ns;
    let rate = (length > 0).then(|| t.entries as f64 * 1e9 / length as f64);
    let note = if report.is_emulated() { "EMULATED" } else { "" }.to_owned();
    let entry_to_exit = whole(report, Figure::EntryToExit);
    let latency = |q: f64| {
        let value = entry_to_exit.quantile(q).filter(|_| has_latencies(report));
        human(value.map(|v| v as f64), Unit::Ns)
    };
    let mut pins = Histogram::default();
    report.whole.series.values().for_each(|s| pins.merge(&s[Figure::PinWrites]));
    let mut sources: Vec<_> =
        report.sources.iter().map(|s| environment::pin_source(s.header.pin_writes_source)).collect();
    sources.dedup();
    let spurious = report.timer_exits(TimerCause::Spurious);
    let vcpus: std::collections::BTreeSet<_> = report.whole.series.keys().map(|k| (k.vm, k.vcpu)).collect();
    let counted = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let guests = format!("{}, {}", counted(report.whole.vms.len(), "VM"), counted(vcpus.len(), "vCPU"));
    out + &tiles(&[
        ("observed", human(Some(length as f64), Unit::Ns), counted(report.sources.len(), "recording")),
        ("VM entries", t.entries.to_string(), guests),
        ("entries/s", human(rate, Unit::PerSecond), String::new()),
        ("guest time, median", latency(0.5), note.clone()),
        ("guest time, p99", latency(0.99), note),
        ("pin writes per entry", human(pins.mean(), Unit::Count), format!("from {}", sources.join("; "))),
        (
            "spurious timer exits",
            count(spurious),
            if spurious.is_none() { "there is no VMX here".into() } else { String::new() },
        ),
    ])
}

const NOT_SHOWN: &str = "latencies are not shown: hooks on VMCS writes ran between kvm_entry and the VM entry. Record again without \
    --exact-writes and --verify-writes for them, or with --with-latency to see them all the same";

fn count(n: Option<u64>) -> String {
    n.map_or("n/a".into(), |n| n.to_string())
}

fn totals(report: &Report, view: &View) -> String {
    let t = &report.whole.totals;
    let caption = if view.filters.is_empty() {
        "Counts of everything recorded"
    } else {
        "Counts of everything recorded, unfiltered"
    };
    let columns = vec![Heading::word("what"), Heading::number("count"), Heading::text("how it is known")];
    let mut table = Table::new("totals-table", caption, columns);
    let mut add = |what: &str, n: String, how: &str| table.row(vec![what.into(), n, how.into()]);
    add(
        "entries",
        t.entries.to_string(),
        "rounds closed by a kvm_exit, by the kernel's own count: delivered + dropped",
    );
    add("delivered", t.delivered.to_string(), "entries whose record arrived");
    add(
        "dropped",
        t.dropped.to_string(),
        "entries whose record found the ring full, or, counted in the kernel, no room for their series",
    );
    add(
        "unmatched",
        t.unmatched.to_string(),
        "kvm_entry without kvm_exit, kvm_exit without kvm_entry, or no room for the vCPU",
    );
    if t.malformed + t.not_kept > 0 {
        add("malformed", t.malformed.to_string(), "records that were no event");
        add("not kept", t.not_kept.to_string(), "entries beyond the bound of series");
    }
    for cause in TimerCause::ALL {
        let n = report.timer_exits(cause);
        if cause == TimerCause::Unknown && n.is_none_or(|n| n == 0) {
            continue;
        }
        let ran = report.spurious_after().filter(|_| cause == TimerCause::Spurious).map(|(least, median)| {
            let ns = |v| human(Some(v as f64), Unit::Ns);
            format!("; the guest had run {} at least, {} at the median", ns(least), ns(median))
        });
        let what = match (n, cause) {
            (None, _) => "n/a: only VMX has this timer",
            (_, TimerCause::Deadline) => "the guest's timer was due",
            (_, TimerCause::Immediate) => "KVM asked for an exit before the first guest instruction",
            (_, TimerCause::Spurious) => "the timer was soft-disabled and ran out all the same",
            (_, TimerCause::Unknown) => "this kernel does not tell why",
        };
        add(&format!("timer exits: {}", cause.name()), count(n), &format!("{what}{}", ran.unwrap_or_default()));
    }
    if let Some(traced) = &t.traced_timer_exits {
        let counts = format!("{} / {} / {}", traced.deadline, traced.immediate, traced.spurious);
        add("timer exits: deadline / immediate / spurious", counts, "the companion patch's tracepoint");
    }
    let mut sources: Vec<_> =
        report.sources.iter().map(|s| environment::pin_source(s.header.pin_writes_source)).collect();
    sources.dedup();
    add("pin writes", count(report.pin_writes()), &format!("pin-control VMCS writes; from {}", sources.join("; ")));
    let unknown = report.entries_without_pin_writes();
    if report.pin_writes().is_some() && unknown > 0 {
        add("entries without", unknown.to_string(), "entries whose pin writes are not known");
    }
    for (site, n) in report.sites() {
        add(&format!("pin writes at {}", site.name()), n.to_string(), "kprobe on this VMWRITE");
    }
    if t.td_entries > 0 {
        add("TDX entries", t.td_entries.to_string(), "entries of TDX guests, left out of everything else");
    }
    table.render()
}

fn distributions(report: &Report, view: &View) -> String {
    if !has_latencies(report) {
        return paragraph(NOT_SHOWN);
    }
    let by_reason = View { by: vec![Dimension::Reason], sort: Column::Entries, top: Some(RIDGES), ..view.clone() };
    let rows = report.rows(&by_reason);
    let mut out =
        if view.filters.is_empty() { String::new() } else { paragraph("Only the entries that pass the filters.") };
    for figure in Figure::ALL.into_iter().filter(|f| f.is_time()) {
        let rows: Vec<_> = rows.iter().filter(|r| r.series[figure].count() > 0).collect();
        out += &heading(&figure.heading());
        out += &paragraph(figure.help());
        out += &if rows.is_empty() { paragraph("n/a: no value was recorded.") } else { ridges(report, figure, &rows) };
    }
    out
}

/// One curve per exit reason, each as high as its own peak, over one axis.
fn ridges(report: &Report, figure: Figure, rows: &[&Row]) -> String {
    const STEP: f64 = 46.0;
    let histograms: Vec<_> = rows.iter().map(|r| &r.series[figure]).collect();
    let Some((low, high)) = density::range(&histograms) else { return String::new() };
    let emulated = if report.is_emulated() { " (EMULATED)" } else { "" };
    let axis = Axis::log(low, high);
    let labels = rows.iter().map(|r| short(&r.group[0])).collect();
    let title = format!("{} by exit reason{emulated}", figure.title());
    let x_title = "ns, logarithmic; each curve as high as its own peak; tick: median, dashed: p99";
    let id = format!("ridges-{}", figure.name());
    let mut chart = Chart::rows(&id, &title, (axis, figure.unit(), x_title), labels, STEP, [168.0, 92.0]);
    let mut words = Vec::new();
    for (at, (row, histogram)) in rows.iter().zip(&histograms).enumerate() {
        let bins = density::bins(histogram, &axis, BINS);
        let peak = bins.iter().fold(f64::MIN_POSITIVE, |a, &b| a.max(b));
        let bottom = chart.row(at) + STEP / 2.0 - 6.0;
        let corners: Vec<_> = density::stairs(&bins, &axis)
            .iter()
            .map(|(x, y)| format!("{:.1} {:.1}", chart.x(*x), bottom - y / peak * (STEP - 12.0)))
            .collect();
        let (from, to) = (chart.x(low), chart.x(high));
        let path = format!("M{from:.1} {bottom:.1}L{}L{to:.1} {bottom:.1}", corners.join("L"));
        chart.draw(&format!("<path class=\"fill a\" d=\"{path}Z\"/><path class=\"line thin a\" d=\"{path}\"/>"));
        let [p50, p99] = [0.5, 0.99].map(|q| histogram.quantile(q).unwrap_or(0) as f64);
        for (value, class) in [(p50, "interval"), (p99, "mark dark")] {
            let x = chart.x(value);
            chart.draw(&format!(
                "<path class=\"{class}\" d=\"M{x:.1} {:.1}v{:.1}\"/>",
                bottom - STEP + 12.0,
                STEP - 9.0
            ));
        }
        let share = format!("{} values", human(Some(histogram.count() as f64), Unit::Count));
        let right = chart.x(high) + 10.0;
        let middle = chart.row(at);
        chart.text(right, middle - 2.0, "strong", &human(Some(p50), figure.unit()));
        chart.text(right, middle + 13.0, "tick", &share);
        words.push(format!(
            "{} median {}, p99 {}",
            row.group[0],
            human(Some(p50), figure.unit()),
            human(Some(p99), figure.unit())
        ));
    }
    let chart = chart.describe(format!("{title}: {}.", words.join("; ")));
    let mut columns = vec![Heading::word("exit reason"), Heading::number(counted(figure))];
    columns.extend(Stat::ALL.map(|s| Heading::number(s.title().to_lowercase())));
    let mut table = Table::new(format!("{id}-table"), format!("{title}: the numbers"), columns);
    for (row, histogram) in rows.iter().zip(&histograms) {
        let mut cells = vec![row.group[0].clone(), histogram.count().to_string()];
        cells.extend(Stat::ALL.map(|s| human(s.of(histogram), figure.unit())));
        table.row(cells);
    }
    chart.render() + &details("The numbers behind this picture", &table.render())
}

/// What a figure has one value of.
const fn counted(figure: Figure) -> &'static str {
    if figure.counts_exits() { "exits" } else { "entries" }
}

/// As much of a name as fits beside a picture.
fn short(name: &str) -> String {
    if name.chars().count() <= 21 { name.into() } else { name.chars().take(20).chain(['\u{2026}']).collect() }
}

/// Seconds of each point's middle, of the recordings' boundaries, and of the end. Recordings may lie days apart: they are put one
/// after the other.
fn places(points: &[Point]) -> (Vec<f64>, Vec<f64>, f64) {
    let mut places = Vec::with_capacity(points.len());
    let mut boundaries = Vec::new();
    let (mut offset, mut end) = (0.0, 0.0f64);
    for of_one_source in points.chunk_by(|a, b| a.source == b.source) {
        if !places.is_empty() {
            boundaries.push(end);
            offset = end;
        }
        for p in of_one_source {
            let start = offset + p.start_unix_ns.saturating_sub(of_one_source[0].start_unix_ns) as f64 / 1e9;
            end = end.max(start + p.length_ns as f64 / 1e9);
            places.push(start + p.length_ns as f64 / 2e9);
        }
    }
    (places, boundaries, end)
}

fn timeline(report: &Report, view: &View) -> String {
    let points = report.timeline.points();
    if points.is_empty() {
        return paragraph("n/a: no interval was recorded.");
    }
    let (places, boundaries, end) = places(points);
    let latencies = has_latencies(report);
    let quantile = |q: f64| -> Vec<Option<f64>> {
        points.iter().map(|p| p.entry_to_exit.quantile(q).filter(|_| latencies).map(|v| v as f64)).collect()
    };
    let (p50, p99) = (quantile(0.5), quantile(0.99));
    let rate: Vec<_> = points.iter().map(Point::rate).collect();
    let pins: Vec<_> = points.iter().map(Point::pin_writes_per_entry).collect();
    let dropped: Vec<_> = points.iter().map(|p| Some(p.dropped as f64)).collect();
    let x_title =
        if boundaries.is_empty() { "seconds since the beginning" } else { "seconds; recordings one after the other" };
    let draw = |id: &str, title: &str, unit: Unit, log: bool, lines: &[(Look, &str, &[Option<f64>])]| {
        let known: Vec<f64> = lines.iter().flat_map(|l| l.2.iter().flatten().copied()).collect();
        if known.is_empty() {
            return paragraph(&format!("{title}: n/a, not known in this recording."));
        }
        let low = known.iter().copied().fold(f64::INFINITY, f64::min);
        let high = known.iter().copied().fold(0.0, f64::max);
        let y = if log { Axis::log(low.max(1.0) / 1.3, high * 1.3) } else { Axis::linear(0.0, high * 1.08) };
        let scale = if log { "logarithmic" } else { "" };
        let mut chart = Chart::new(id, title, (Axis::linear(0.0, end), Unit::Count, x_title), (y, unit, scale));
        boundaries.iter().for_each(|b| chart.mark(*b, "mark"));
        for (look, name, values) in lines {
            let line: Vec<_> = places.iter().copied().zip(values.iter().copied()).collect();
            // Nothing is known of what lies between two recordings.
            let mut rest = line.as_slice();
            for recording in points.chunk_by(|a, b| a.source == b.source) {
                let (this, next) = rest.split_at(recording.len());
                chart.line(*look, this);
                rest = next;
            }
            // Marks where there are few: they tell points from what lies between.
            if line.len() <= 40 {
                line.iter().for_each(|(x, y)| y.iter().for_each(|y| chart.dot(*look, *x, *y)));
            }
            if lines.len() > 1 {
                chart.legend(*look, name);
            }
        }
        let range = format!("between {} and {}", human(Some(low), unit), human(Some(high), unit));
        chart.describe(format!("{title} over {}: {range}.", human(Some(end * 1e9), Unit::Ns))).render()
    };
    let emulated = if report.is_emulated() { " (EMULATED)" } else { "" };
    let latency = if latencies {
        let lines: [(Look, &str, &[Option<f64>]); 2] = [(Look::A, "p50", &p50), (Look::B, "p99", &p99)];
        draw("time-latency", &format!("entry_to_exit_ns{emulated}"), Unit::Ns, true, &lines)
    } else {
        paragraph(NOT_SHOWN)
    };
    let mut charts = vec![
        draw("time-rate", "Entries per second", Unit::PerSecond, false, &[(Look::A, "", &rate)]),
        latency,
        draw("time-pins", "Pin writes per entry", Unit::Count, false, &[(Look::A, "", &pins)]),
    ];
    charts.push(if points.iter().any(|p| p.dropped > 0) {
        draw("time-dropped", "Dropped entries", Unit::Count, false, &[(Look::A, "", &dropped)])
    } else {
        paragraph("Dropped entries: none, at any time.")
    });
    let headings = ["entries", "entries/s", "p50", "p99", "pin writes/entry", "dropped"];
    let mut columns = vec![Heading::number("s")];
    columns.extend(headings.map(Heading::number));
    let rows = report.timeline.at_most(TIMES);
    let merged = if rows.len() < points.len() { ", neighbours merged" } else { "" };
    let caption =
        format!("Stretches of time{merged}, by their middle in seconds; p50 and p99 are of entry_to_exit_ns{emulated}");
    let mut table = Table::new("time-table", caption, columns);
    let (places_of_rows, ..) = self::places(&rows);
    for (place, p) in places_of_rows.iter().zip(&rows) {
        let latency = |q: f64| {
            let value = p.entry_to_exit.quantile(q).filter(|_| latencies);
            human(value.map(|v| v as f64), Unit::Ns)
        };
        table.row(vec![
            format!("{place:.1}"),
            p.entries.to_string(),
            human(p.rate(), Unit::PerSecond),
            latency(0.5),
            latency(0.99),
            human(p.pin_writes_per_entry(), Unit::Count),
            p.dropped.to_string(),
        ]);
    }
    let unfiltered = if view.filters.is_empty() { String::new() } else { paragraph("Of all entries, unfiltered.") };
    unfiltered + &grid(&charts) + &details("The numbers behind these pictures", &table.render())
}

fn rows(report: &Report, view: &View) -> String {
    let rows = report.rows(view);
    if rows.is_empty() {
        let passed =
            if report.whole.totals.delivered > 0 { "pass the filters" } else { "were recorded: did a VM run?" };
        return paragraph(&format!("No entries {passed}"));
    }
    let mut out = String::new();
    if !view.filters.is_empty() {
        let filters: Vec<_> =
            view.filters.iter().map(|f| format!("{}={}", f.dimension.name(), f.values.join(","))).collect();
        out += &paragraph(&format!("Only entries with {}.", filters.join(" and ")));
    }
    let emulated = if report.is_emulated() { "; EMULATED" } else { "" };
    for figure in Figure::ALL {
        if figure.is_time() && !has_latencies(report) {
            continue;
        }
        if rows.iter().all(|row| row.series[figure].count() == 0) {
            out += &heading(&figure.heading());
            out += &paragraph("n/a: no value was recorded.");
            continue;
        }
        let mut columns: Vec<_> = view
            .by
            .iter()
            .map(|d| Heading::word(if *d == Dimension::Reason { "exit reason" } else { d.name() }))
            .collect();
        if columns.is_empty() {
            columns.push(Heading::word(""));
        }
        columns.extend([counted(figure), "/s"].map(Heading::number));
        columns.extend(Stat::ALL.map(|s| Heading::number(s.title().to_lowercase())));
        let caption =
            format!("{}: {}{}", figure.heading(), figure.help(), if figure.is_time() { emulated } else { "" });
        let mut table = Table::new(format!("rows-{}", figure.name()), caption, columns);
        for row in &rows {
            let histogram = &row.series[figure];
            let seconds = report.whole.length_ns as f64 / 1e9;
            let rate = (seconds > 0.0).then(|| histogram.count() as f64 / seconds);
            let mut cells = if row.group.is_empty() { vec!["all".into()] } else { row.group.clone() };
            cells.extend([histogram.count().to_string(), human(rate, Unit::PerSecond)]);
            cells.extend(Stat::ALL.map(|s| human(s.of(histogram), figure.unit())));
            table.row(cells);
        }
        out += &heading(&figure.heading());
        out += &table.render();
    }
    if !has_latencies(report) {
        out += &paragraph(NOT_SHOWN);
    }
    out
}

fn environment(report: &Report) -> String {
    let heads: Vec<_> = (1..=report.sources.len())
        .map(|n| if report.sources.len() == 1 { "recording".into() } else { format!("recording {n}") })
        .collect();
    let sources: Vec<_> = report.sources.iter().collect();
    environment::table("environment-table", &heads, &sources).render()
}

fn method() -> String {
    let figures: Vec<_> = Figure::ALL.iter().map(|f| format!("{}: {}", f.heading(), f.help())).collect();
    list(&figures) + &list(&environment::METHOD)
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
        let filters = vec![super::super::Filter::parse(&format!("vm={HOSTILE}")).unwrap()];
        for view in [view(), View { filters, ..view() }, View { by: vec![], ..view() }] {
            let html = render(&report, &view);
            check(&html);
            assert!(html.contains("EMULATED") && html.contains("&lt;script&gt;"));
        }
    }

    #[test]
    fn disturbed_latencies_are_not_shown() {
        let mut report = report();
        report.sources[0].header.latency = Latency::Disturbed;
        let html = render(&report, &view());
        check(&html);
        assert!(html.contains("latencies are not shown") && !html.contains("50.0us"));
    }

    #[test]
    fn coarse_values_are_called_so() {
        let mut report = report();
        assert!(!render(&report, &view()).contains("COARSE"));
        report.sources[0].header.aggregation = crate::model::measurement::Aggregation::InKernel;
        let html = render(&report, &view());
        check(&html);
        assert!(html.contains("COARSE") && html.contains("known to 1.6 %"));
    }

    #[test]
    fn several_recordings_are_told_apart_and_nothing_is_a_page_too() {
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
                let reason = [10, 12, 30, 52, 1][(x % 5) as usize];
                let length = 800 + (x >> 8) % 600 + u64::from(reason) * ((x >> 20) % 97 + 40);
                interval.record(&event((x % 2) as u32, reason, length, u8::from(reason == 52) * 2), &vm(0));
            }
            let dropped = if n % 50 == 7 { n } else { 0 };
            interval.totals.entries = 40 + dropped;
            (interval.totals.delivered, interval.totals.dropped) = (40, dropped);
            report.timeline.add((n / 200) as usize, n * 1_000_000_000, &interval);
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
