//! The report as text: loss first, then provenance, then the tables.

mod provenance;
mod totals;

use std::fmt::Write as _;

use super::{Dimension, Report, Row, View, notes};
use crate::{
    model::{
        figures::{Figure, Stat, Unit, human},
        knowledge::Subject,
        measurement::{EMULATED, Latency},
    },
    output::align,
};

/// Loss, emulation, and where and how it was recorded.
pub(crate) fn preamble(report: &Report) -> String {
    let mut out = report.damage().map(|damage| format!("DAMAGED: {damage}\n")).unwrap_or_default();
    if let Some(shown) = &report.shown {
        let _ = writeln!(out, "SHOWN: {shown}");
    }
    out += &notes::loss(report);
    let tracers = report.other_tracers();
    if let Some(shared) = tracers.shared("were") {
        let _ = writeln!(out, "SHARED: {shared}");
    }
    if let Some(unseen) = tracers.may_be_more() {
        let _ = writeln!(out, "UNSEEN: {unseen}");
    }
    if report.is_emulated() {
        let _ = writeln!(out, "EMULATED: {}", EMULATED);
    }
    report.sources.iter().for_each(|source| out += &provenance::render(source));
    out
}

/// Renders a report for a terminal or a file. No colours.
pub fn render(report: &Report, view: &View) -> String {
    let mut out = preamble(report);
    out += &totals::render(report, view);
    let rows = report.rows(view);
    if rows.is_empty() {
        let delivered = report.whole.totals.delivered > 0;
        out +=
            if delivered { "\nno entries pass the filters\n" } else { "\nno entries were recorded: did a VM run?\n" };
        return out;
    }
    if let Some(note) = report.aggregation().note() {
        let _ = write!(out, "\n{note}\n");
    }
    let table = Table { view, rows: &rows };
    if let Err(reason) = report.knowledge().known(Subject::Times) {
        let _ = write!(out, "\n{} are not shown: {reason}\n\n", Subject::Times.title());
        return out + &table.render(Figure::EntryToExit, &[]);
    }
    if report.latency() == Latency::DisturbedButAsked {
        let _ = write!(out, "\nDISTURBED: {}\n", notes::DISTURBED);
    }
    let stats: Vec<_> = Stat::ALL.into_iter().filter(|s| *s != Stat::Mean).collect();
    for figure in Figure::ALL.into_iter().filter(|f| f.is_time()) {
        if let Some(why) = notes::why_empty(report, figure, &rows) {
            if notes::is_left_out(report, figure) {
                continue;
            }
            let _ = write!(out, "\n{}  n/a: {why}\n", figure.heading());
            continue;
        }
        let _ = write!(out, "\n{}: {}\n", figure.heading(), figure.help());
        out += &table.render(figure, &stats);
    }
    out
}

/// The rows of a report, to be printed with the statistics of one figure.
struct Table<'a> {
    view: &'a View,
    rows: &'a [Row],
}

impl Table<'_> {
    fn render(&self, figure: Figure, stats: &[Stat]) -> String {
        let heading =
            |d: &Dimension| if *d == Dimension::Reason { "EXIT REASON".into() } else { d.name().to_uppercase() };
        let mut head: Vec<String> = self.view.by.iter().map(heading).collect();
        let texts = head.len();
        head.extend([if figure.counts_exits() { "EXITS" } else { "ENTRIES" }, "/S"].map(str::to_owned));
        head.extend(stats.iter().map(|s| s.title().to_owned()));
        // Pin writes are of all entries of a row: the other tables hold exits, or some of the entries.
        let of_entries = figure == Figure::EntryToExit;
        head.extend(of_entries.then(|| "PIN/ENTRY".to_owned()));
        let mut cells = vec![head];
        for row in self.rows {
            let histogram = &row.series[figure];
            // Entries are counted also where their times are not shown.
            let count = if of_entries { row.series.entries() } else { histogram.count() };
            if count == 0 {
                continue;
            }
            let mut line = row.group.clone();
            line.push(count.to_string());
            line.push(human(row.rate(count), Unit::PerSecond));
            line.extend(stats.iter().map(|s| human(s.of(histogram), figure.unit())));
            line.extend(of_entries.then(|| human(row.series[Figure::PinWrites].mean(), Unit::Count)));
            cells.push(line);
        }
        align(&cells, texts)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tracer_common::{Event, Flags};

    use super::{
        super::tests::{report, view},
        *,
    };
    use crate::model::{
        interval::{
            Interval,
            tests::{event, vm},
        },
        measurement::{Aggregation, OtherTracers, SoftDelay},
    };

    #[test]
    fn the_first_line_counts_the_loss() {
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
    fn emulation_is_noted_only_where_there_is_some() {
        assert!(!render(&report(), &view()).contains("EMULATED"));
        let mut emulated = report();
        emulated.sources[0].header.host.emulated = true;
        assert!(render(&emulated, &view()).contains("EMULATED"));
    }

    #[test]
    fn values_counted_in_the_kernel_are_noted_as_coarse_and_have_their_own_reason_of_loss() {
        let mut report = report();
        assert!(!render(&report, &view()).contains("1.6 %"));
        report.sources[0].header.aggregation = Aggregation::InKernel;
        let text = render(&report, &view());
        assert!(text.contains("exact to 1.6 %") && text.contains("5 dropped (no room for their series)"), "{text}");
    }

    #[test]
    fn a_recording_that_cannot_tell_transitions_is_not_spoken_for_by_another() {
        let mut report = report();
        let mut old = report.sources[0].clone();
        (old.name, old.header.version) = ("old.hlog".into(), 1);
        report.sources.push(old);
        let text = render(&report, &view());
        let said = text.lines().find(|l| l.contains("(transition_ns)  n/a:")).unwrap();
        assert!(said.contains("no entry of the recordings that tell it was forced to exit at once"), "{said}");
        assert!(said.ends_with("; not known of old.hlog: recordings of version 1 do not have it"), "{said}");
        report.sources.remove(0);
        let text = render(&report, &view());
        assert!(text.contains("(transition_ns)  n/a: recordings of version 1 do not have it\n"), "{text}");
    }

    #[test]
    fn tracers_that_could_not_be_looked_for_are_noted() {
        let mut report = report();
        assert!(!render(&report, &view()).contains("UNSEEN"));
        let unseen = vec!["ftrace (tracefs is not mounted)".to_owned()];
        report.sources[0].header.other_tracers = Some(OtherTracers { names: vec![], unseen });
        let text = render(&report, &view());
        assert!(text.contains("UNSEEN: not all other tracers") && text.contains("ftrace (tracefs"), "{text}");
    }

    /// An interval with a forced exit, the only one of which `transition_ns` is known.
    fn forced() -> Interval {
        let mut forced = Interval::starting(0);
        let timer = event(1, 52, 800, 0);
        forced.record(&Event { flags: timer.flags | Flags::IMMEDIATE, ..timer }, &vm(0));
        forced
    }

    #[test]
    fn what_the_view_leaves_out_is_no_absence() {
        let mut report = report();
        assert!(render(&report, &view()).contains("transition_ns)  n/a: no entry was forced to exit at once"));
        report.add(0, forced(), &mut BTreeMap::new());
        let top = render(&report, &View { top: Some(1), ..view() });
        assert!(top.contains("transition_ns)  n/a: none in the rows shown; 1 values in all\n"), "{top}");
        let all = render(&report, &view());
        assert!(all.contains("(transition_ns): VM entry + VM exit") && !all.contains("n/a:"), "{all}");
    }

    #[test]
    fn what_the_erratum_explains_is_said_with_the_numbers_and_nothing_else_is_called_it() {
        const SECOND: u64 = 1_000_000_000;
        let with = |remaining_ns: i64, guest_ns| {
            let mut report = report();
            let delay = SoftDelay { promised_ns: 275 * SECOND, real_ns: Some(103 * SECOND), limit_ns: None };
            report.sources[0].header.soft_delay = Some(delay);
            let mut interval = Interval::starting(0);
            let timer = event(1, 52, 800, 0);
            let early = timer.flags | Flags::DEADLINE_READ | Flags::EARLY;
            interval.record(&Event { flags: early, late_ns: Some(-remaining_ns), ..timer }, &vm(0));
            let spurious = event(1, 52, guest_ns, 0);
            interval.record(&Event { flags: spurious.flags | Flags::SOFT_DISABLED, ..spurious }, &vm(0));
            report.add(0, interval, &mut BTreeMap::new());
            let text = render(&report, &view());
            text.lines().find(|line| line.starts_with("timer exits")).unwrap().to_owned()
        };
        let explained = with(171_800_000_000, 104 * SECOND);
        assert!(explained.contains("early 1 (remaining: least 171.8s, median 171.9s: erratum EMR158)"), "{explained}");
        assert!(explained.contains("(1 before their time of 275.0s: erratum EMR158)"), "{explained}");
        let other = with(4_000_000_000, SECOND);
        assert!(other.contains("not explained by erratum EMR158, whose deadlines are 171.8 s away)"), "{other}");
        assert!(other.contains("(1 before their time of 275.0s: not explained by erratum EMR158)"), "{other}");
        let in_time = with(171_800_000_000, 276 * SECOND);
        assert!(in_time.contains("(0 before their time of 275.0s)"), "{in_time}");
    }

    #[test]
    fn with_the_stopwatch_spurious_exits_are_normal() {
        let mut report = report();
        report.sources[0].header.host.parameters.insert("preemption_timer_stopwatch".into(), "Y".into());
        let mut interval = Interval::starting(0);
        let spurious = event(1, 52, 4_000_000, 0);
        interval.record(&Event { flags: spurious.flags | Flags::SOFT_DISABLED, ..spurious }, &vm(0));
        report.add(0, interval, &mut BTreeMap::new());
        let text = render(&report, &view());
        assert!(
            text.contains("(before their time: n/a, the companion patch's stopwatch restarts the timer)"),
            "{text}"
        );
    }

    #[test]
    fn pin_writes_stand_in_the_table_of_all_entries_only() {
        let mut report = report();
        report.add(0, forced(), &mut BTreeMap::new());
        let text = render(&report, &view());
        let tables: Vec<_> = text.split("\n\n").filter(|part| part.contains("EXIT REASON")).collect();
        // 46 writes of 24 timer exits, of which one was forced and has a transition: 46/24 is not that one's mean.
        assert!(tables[0].contains("PIN/ENTRY") && tables[0].contains("1.917"), "{text}");
        assert!(tables[2].contains("transition_ns") && !tables[2].contains("PIN/ENTRY"), "{text}");
    }

    #[test]
    fn a_table_shows_every_row_with_its_figures() {
        let text = render(&report(), &view());
        let row = text.lines().find(|l| l.contains("PREEMPTION_TIMER")).unwrap();
        let cells: Vec<_> = row.split_whitespace().collect();
        assert_eq!(cells[..5], ["vm0", "PREEMPTION_TIMER", "23", "11.5", "50.0us"]);
        assert_eq!(cells.last(), Some(&"2"));
        assert!(text.contains("timer exits  deadline 23  immediate 0  spurious 0  early 0\n"), "{text}");
    }
}
