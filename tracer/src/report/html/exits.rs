//! Where the time went: a bar per VM, and the table of exit reasons, those of most host time first.

use super::{
    super::{Dimension, Report, Row, View},
    times,
};
use crate::{
    html::{
        Markup,
        axis::Axis,
        chart::{Chart, Rows as ChartRows, Scale, Size, shortened},
        details, join, legend, paragraph,
        table::{Cell, Heading, Table},
    },
    model::{
        budget::Phase,
        figures::{Column, Figure, Stat, Unit, human},
        histogram::Histogram,
        knowledge::{Knowledge, Shown, Subject, Unknown},
    },
    output::grouped,
};

/// VMs with a bar of their own.
const MAX_BARS: usize = 16;
/// Rows whose shares of exits and of host time are both below are summed up.
const LEAST_SHARE: f64 = 0.001;
/// Rows that are shown whatever their share.
const LEAST_ROWS: usize = 5;

/// A part of a vCPU's time: its name, its class in the style, ns.
type Part = (&'static str, &'static str, u64);

/// Guest time and the parts of the host time that are known; one part for the host where none of them is.
fn parts(series: &Shown) -> Option<Vec<Part>> {
    let budget = series.budget()?;
    let class = |phase| match phase {
        Phase::Kernel => "kernel",
        Phase::User => "user",
        Phase::Polled => "polled",
        Phase::Idle => "idle",
        Phase::Steal => "steal",
    };
    let known = |phase: Phase| Some((phase.name(), class(phase), series.phase(phase)?));
    let host: Vec<Part> = match Phase::ALL.into_iter().filter_map(known).collect::<Vec<_>>() {
        phases if phases.len() > 1 => phases,
        _ => vec![("host", "kernel", budget.host_ns)],
    };
    Some([("guest", "guest", budget.guest_ns)].into_iter().chain(host).collect())
}

/// A bar per VM, and the shares as a table; by vCPU, too.
pub(super) fn budget(report: &Report, view: &View) -> Markup {
    if let Err(reason) = times(report) {
        return paragraph(&format!("n/a: {reason}"));
    }
    let by = |by: Vec<Dimension>| View { by, sort: Column::Entries, top: None, ..view.clone() };
    let mut vms = report.rows(&by(vec![Dimension::Vm]));
    vms.retain(|row| row.series.budget().is_some_and(|budget| budget.total_ns() > 0));
    vms.sort_by_key(|row| std::cmp::Reverse(row.series.budget().map(crate::model::budget::Budget::total_ns)));
    let Some(names) = vms.first().and_then(|row| parts(&row.series)) else {
        return paragraph("n/a: no entry has a time.");
    };
    let names: Vec<(&str, &str)> = names.into_iter().map(|(name, class, _)| (name, class)).collect();
    let mut out = vec![legend(&names)];
    out.extend([Size::Page, Size::Phone].map(|size| bars(size, &vms[..vms.len().min(MAX_BARS)])));
    if vms.len() > MAX_BARS {
        out.push(paragraph(&format!("{} more VMs are in the table.", vms.len() - MAX_BARS)));
    }
    let knowledge = report.knowledge();
    out.extend(not_known(&knowledge).map(|text| paragraph(&text)));
    let of_vms = shares("budget-vms", "Shares of the time of each VM's vCPUs, in percent", &["VM"], &vms);
    let vcpus = report.rows(&by(vec![Dimension::Vm, Dimension::Vcpu]));
    if vcpus.len() > vms.len() {
        let of_vcpus = shares("budget-vcpus", "Shares of each vCPU's time, in percent", &["VM", "vCPU"], &vcpus);
        out.extend([of_vms, details("By vCPU", &of_vcpus)]);
    } else {
        out.push(of_vms);
    }
    join(out)
}

/// The parts of the host time that are not known, with the reasons; none where all are, or none is.
fn not_known(knowledge: &Knowledge) -> Option<String> {
    let why = |phase: Phase| knowledge.known(Subject::of_phase(phase)?).err().map(Unknown::to_string);
    let missing: Vec<_> = Phase::ALL.into_iter().filter_map(|phase| Some((phase.name(), why(phase)?))).collect();
    let of_a_reason = missing.chunk_by(|a, b| a.1 == b.1).map(|phases| {
        let names: Vec<_> = phases.iter().map(|(name, _)| *name).collect();
        format!("{} ({})", names.join(", "), phases[0].1)
    });
    let texts: Vec<_> = of_a_reason.collect();
    let name = if missing.len() < Phase::ALL.len() - 1 { "kernel" } else { "host" };
    (!missing.is_empty()).then(|| format!("Not known apart, and in {name}: {}.", texts.join("; ")))
}

/// The stacked bars, over the whole page or for phones.
fn bars(size: Size, rows: &[Row]) -> Markup {
    const HEIGHT: f64 = 22.0;
    let phone = size == Size::Phone;
    let title = "Time of each VM's vCPUs";
    let scale = Scale { axis: Axis::linear(0.0, 100.0), unit: Unit::Count, title: "share of time, %" };
    let labels = rows.iter().map(|row| if phone { String::new() } else { shortened(&row.group[0], 22) }).collect();
    let (step, left, right) = if phone { (50.0, 4.0, 16.0) } else { (32.0, 180.0, 24.0) };
    let rows_of = ChartRows { labels, step, left, right };
    let mut chart = Chart::rows(format!("budget-{}", size.name()), title, scale, rows_of).sized(size);
    let mut words = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let Some(parts) = parts(&row.series) else { continue };
        let whole = parts.iter().map(|part| part.2).fold(0, u64::saturating_add).max(1) as f64;
        let top = chart.row(at) - HEIGHT / 2.0 + if phone { 9.0 } else { 0.0 };
        if phone {
            chart.text(4.0, top - 6.0, "", &shortened(&row.group[0], 40));
        }
        let mut from = 0.0;
        for (name, class, ns) in parts {
            let to = from + 100.0 * ns as f64 / whole;
            let (x, end) = (chart.x(from), chart.x(to));
            chart.rectangle(&format!("part {class}"), [x, top, end - x, HEIGHT]);
            if end - x > 48.0 {
                let text = format!("{:.1} %", to - from);
                chart.text(f64::midpoint(x, end), top + 15.5, "middle on", &text);
            }
            words.push(format!("{} {name} {:.1} %", row.group[0], to - from));
            from = to;
        }
    }
    chart.describe(format!("{title}: {}.", words.join("; "))).render()
}

/// The shares of the parts of the time.
fn shares(id: &str, caption: &str, heads: &[&str], rows: &[Row]) -> Markup {
    let names = rows.iter().find_map(|row| parts(&row.series)).unwrap_or_default();
    let mut columns: Vec<_> = heads.iter().map(|head| Heading::word(*head)).collect();
    columns.extend(names.iter().map(|(name, ..)| Heading::number(*name)));
    columns.push(Heading::number("all"));
    let mut table = Table::new(id, caption, columns);
    for row in rows {
        let parts = parts(&row.series).unwrap_or_default();
        let whole = parts.iter().map(|part| part.2).fold(0, u64::saturating_add);
        let mut cells: Vec<Cell> = row.group.iter().map(|name| name.as_str().into()).collect();
        cells.extend(parts.iter().map(|(.., ns)| percent(share(*ns, whole)).into()));
        cells.push(human(Some(whole as f64), Unit::Ns).into());
        table.row(cells);
    }
    table.render()
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// A share in percent; one that is not 0 does not read 0.
fn percent(share: Option<f64>) -> String {
    match share.map(|share| 100.0 * share) {
        None => "n/a".into(),
        Some(0.0) => "0".into(),
        Some(percent) if percent < 0.05 => "<0.1".into(),
        Some(percent) => format!("{percent:.1}"),
    }
}

/// The exit reason of most host time that is no halt, with its share of all.
pub(super) fn most_host_time(report: &Report) -> (String, String) {
    let view = View { by: vec![Dimension::Reason], sort: Column::HostTime, top: None, ..View::default() };
    let rows = report.all_rows(&view);
    let share = |row: &Row| row.host_time_share(&rows.total).map(|share| percent(Some(share)));
    let halts: Vec<_> = rows.each.iter().filter(|row| row.is_halted(&view.by)).collect();
    let of_halts = Row::sum(halts, &rows.total).and_then(|sum| share(&sum));
    let work = rows.each.iter().find(|row| !row.is_halted(&view.by));
    match work.and_then(|row| Some((row, share(row)?))) {
        Some((row, share)) => {
            let halted = of_halts.map_or_else(String::new, |share| format!("; halts {share} %"));
            (row.group[0].clone(), format!("{share} % of the host time{halted}"))
        }
        None => ("n/a".into(), String::new()),
    }
}

/// The table of the view's rows, those of most host time first, with their sum.
pub(super) fn table(report: &Report, view: &View) -> Markup {
    let rows = report.all_rows(view);
    if rows.each.is_empty() {
        let passed =
            if report.whole.totals.delivered > 0 { "pass the filters" } else { "were recorded: did a VM run?" };
        return paragraph(&format!("No entries {passed}"));
    }
    let knowledge = report.knowledge();
    let has_writes = rows.total.series[Figure::PinWrites].max().unwrap_or(0) > 0;
    let name = |d: Dimension| if d == Dimension::Reason { "exit reason" } else { d.name() };
    // A column that is the same in all rows is named above the table instead.
    let is_same = |at: &usize| rows.each.iter().all(|row| row.group[*at] == rows.each[0].group[*at]);
    let last = view.by.len().saturating_sub(1);
    let (same, kept): (Vec<usize>, Vec<usize>) = (0..view.by.len()).partition(|at| *at != last && is_same(at));
    let mut columns: Vec<_> = kept.iter().map(|at| Heading::word(name(view.by[*at]))).collect();
    if columns.is_empty() {
        columns.push(Heading::word(""));
    }
    let heads = columns.len();
    let numbers =
        ["exits", "exit %", "exits/s", "host time %", "host mean", "p50", "p99", "max", "guest mean", "p50", "p99"];
    columns.extend(numbers.map(Heading::number));
    if has_writes {
        columns.push(Heading::number("pin writes /entry"));
    }
    let emulated = if report.is_emulated() { "; times are EMULATED" } else { "" };
    let all_of: String =
        same.iter().map(|at| format!("; {} {}", name(view.by[*at]), rows.each[0].group[*at])).collect();
    let has_halts = rows.each.iter().any(|row| row.is_halted(&view.by));
    let halts =
        if has_halts { "; halts, in which the guest was idle, last. Shares are of all, halts included" } else { "" };
    let caption = format!("Exits, those of most host time first{halts}{all_of}{emulated}");
    let mut table = Table::new("exits-table", caption, columns);
    let cells = |row: &Row, group: Vec<String>| {
        let group = if group.is_empty() { vec!["all".into()] } else { group };
        let mut cells: Vec<Cell> = group.into_iter().map(Cell::from).collect();
        let time_share = row.host_time_share(&rows.total);
        cells.extend([
            grouped(row.exits).into(),
            percent(row.exit_share(&rows.total)).into(),
            human(row.rate(row.exits), Unit::PerSecond).into(),
            Cell::from(knowledge.figure(Figure::ExitToEntry).map(|()| percent(time_share))).with_bar(time_share),
        ]);
        for (figure, stats) in [
            (Figure::ExitToEntry, &[Stat::Mean, Stat::P50, Stat::P99, Stat::Max][..]),
            (Figure::EntryToExit, &[Stat::Mean, Stat::P50, Stat::P99]),
        ] {
            let known = knowledge.figure(figure);
            cells.extend(stats.iter().map(|stat| match known {
                Ok(()) => value(*stat, &row.series[figure], figure.unit()),
                Err(reason) => Cell::from(Err::<String, _>(reason.clone())),
            }));
        }
        if has_writes {
            cells.push(human(Stat::Mean.of(&row.series[Figure::PinWrites]), Unit::Count).into());
        }
        cells
    };
    let named = |text: String| {
        let mut group = vec![String::new(); heads];
        group[0] = text;
        group
    };
    let names = |row: &Row| kept.iter().map(|at| row.group[*at].clone()).collect();
    // Where details are told apart, a row without one may have none left of its exits.
    let counted = rows.each.iter().filter(|row| row.exits > 0);
    let (halted, work): (Vec<&Row>, Vec<&Row>) = counted.partition(|row| row.is_halted(&view.by));
    let shown = shown(&work, view, &rows.total);
    for row in &work[..shown] {
        table.row(cells(row, names(row)));
    }
    if let Some(rest) = Row::sum(work[shown..].iter().copied(), &rows.total) {
        table.row_of("quiet", cells(&rest, named(format!("{} more", work.len() - shown))));
    }
    if let Some(sum) = Row::sum(work.iter().copied(), &rows.total).filter(|_| work.len() > 1 && !halted.is_empty()) {
        table.row_of("strong", cells(&sum, named("work".into())));
    }
    for row in halted {
        table.row_of("quiet", cells(row, names(row)));
    }
    if rows.each.len() > 1 {
        table.row_of("strong", cells(&rows.total, named("total".into())));
    }
    table.render()
}

/// How many of the rows are shown, of which those after the last that is not small are summed up; at least the first few are shown.
fn shown(rows: &[&Row], view: &View, total: &Row) -> usize {
    let is_small = |row: &&Row| {
        let below = |share: Option<f64>| share.is_none_or(|share| share < LEAST_SHARE);
        below(row.host_time_share(total)) && below(row.exit_share(total))
    };
    let shown = rows.iter().rposition(|row| !is_small(row)).map_or(0, |at| at + 1).max(LEAST_ROWS);
    shown.min(view.top.unwrap_or(usize::MAX)).min(rows.len())
}

/// A statistic; "-" with the reason where so few values do not carry it.
pub(super) fn value(stat: Stat, histogram: &Histogram, unit: Unit) -> Cell {
    let n = histogram.count();
    if n > 0 && !stat.is_carried(n) {
        let few = Unknown::because(format!("too few values for this percentile: {n}"));
        return Cell::from(Err::<String, _>(few)).reading("-");
    }
    human(stat.of(histogram), unit).into()
}

#[cfg(test)]
mod tests {
    use tracer_common::host_time::Phases;

    use super::*;
    use crate::{
        model::interval::{
            Interval,
            tests::{event, vm},
        },
        report::tests::{report, view},
    };

    /// A report on 1000 exits by CPUID of 1 us each, 3 by HLT of 1 ms each, of which 800 us idle, and one by MSR_READ of 1 ns.
    fn halted() -> Report {
        let mut interval = Interval { length_ns: 1_000_000_000, ..Interval::default() };
        let mut record = |reason, host_ns, idle_ns| {
            let mut event = event(0, reason, 500, 0);
            (event.exit_to_entry_ns, event.previous) = (host_ns, event.outline());
            event.phases = Phases { idle_ns, ..Phases::default() };
            interval.record(&event, &vm(0));
        };
        (0..1000).for_each(|_| record(10, 1_000, 0));
        (0..3).for_each(|_| record(12, 1_000_000, 800_000));
        (0..7).for_each(|n| record(30 + n, 1, 0));
        interval.totals.entries = 1010;
        interval.totals.delivered = 1010;
        let mut report = Report { sources: vec![report().sources.remove(0)], ..Report::default() };
        report.add(0, interval, &mut std::collections::BTreeMap::new());
        report
    }

    fn cells(row: &str) -> Vec<String> {
        let plain =
            |cell: &str| cell.split('<').filter_map(|part| part.split_once('>')).map(|(_, text)| text).collect();
        row.split("</t").map(plain).collect()
    }

    #[test]
    fn exits_of_most_host_time_come_first_and_small_rows_are_summed_up() {
        let table = table(&halted(), &View::default()).into_string();
        let rows: Vec<_> = table.split("<tr").skip(2).map(cells).collect();
        let names: Vec<_> = rows.iter().map(|row| row[0].as_str()).collect();
        assert_eq!(names[0], "CPUID", "{table}");
        assert_eq!(names[names.len() - 4..], ["3 more", "work", "HLT", "total"], "halts stand apart: {table}");
        let (work, halt) = (&rows[rows.len() - 3], &rows[rows.len() - 2]);
        // 3000000 of 4000007 ns.
        assert_eq!((halt[4].trim(), rows[0][4].trim(), &*work[1]), ("75.0", "25.0", "1,007"), "{table}");
        assert!(table.contains("<meter aria-hidden=\"true\" value=\"0.7500\">") && halt[1] == "3", "{table}");
        assert!(halt[7] == "-" && rows[0][7].ends_with("us"), "3 values carry no 99th percentile: {table}");
        assert_eq!(most_host_time(&halted()), ("CPUID".into(), "25.0 % of the host time; halts 75.0 %".into()));
        assert!(table.contains("; vm vm0; level ") && !table.contains("pin writes /entry"), "{table}");
    }

    #[test]
    fn the_bar_of_a_vm_is_its_guest_time_and_the_parts_of_its_host_time() {
        let page = budget(&halted(), &view()).into_string();
        for share in ["vm0 guest 11.2 %", "vm0 kernel 35.5 %", "vm0 idle 53.3 %", "vm0 steal 0.0 %"] {
            assert!(page.contains(share), "{share}: {page}");
        }
        assert_eq!(page.matches("class=\"part idle\"").count(), 2, "over the page, and for phones");
    }

    #[test]
    fn what_is_not_known_of_the_host_time_is_said_once_with_its_reason() {
        let all = Knowledge::complete();
        assert_eq!(not_known(&all), None);
        let lacks = all.without([Subject::HaltTime], "a field is missing");
        assert_eq!(not_known(&lacks).unwrap(), "Not known apart, and in kernel: polled, idle (a field is missing).");
        let none = [Subject::UserTime, Subject::HaltTime, Subject::StealTime];
        let none = Knowledge::complete().without(none, "why");
        assert_eq!(not_known(&none).unwrap(), "Not known apart, and in host: user, polled, idle, steal (why).");
    }
}
