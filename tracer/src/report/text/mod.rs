//! The report as text: loss first, then provenance, then the tables.

mod provenance;
mod totals;

use std::fmt::Write as _;

use super::{Dimension, Report, Row, View, notes};
use crate::{
    model::{
        figures::{Figure, Stat, Unit, human},
        measurement::{EMULATED, Latency},
    },
    output::align,
};

/// Loss, emulation, and where and how it was recorded.
pub(crate) fn preamble(report: &Report) -> String {
    let mut out = notes::loss(report);
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
    match report.latency() {
        Latency::Disturbed => {
            let _ = write!(out, "\n{}\n\n", notes::NOT_SHOWN);
            return out + &table.render(Figure::EntryToExit, &[]);
        }
        Latency::DisturbedButAsked => {
            let _ = write!(out, "\nDISTURBED: {}\n", notes::DISTURBED);
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
        out += &table.render(figure, &stats);
    }
    out
}

/// Shown in place of `transition_ns` in a report without a value of it.
const WHY_NO_TRANSITION: &str = "no entry was forced to exit at once, and there was no stopwatch (patches/README.md)";

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
        // Pin writes belong to entries; host time is counted by exits.
        let of_entries = !figure.counts_exits();
        head.extend(of_entries.then(|| "PIN/ENTRY".to_owned()));
        let mut cells = vec![head];
        for row in self.rows {
            let histogram = &row.series[figure];
            if histogram.count() == 0 {
                continue;
            }
            let mut line = row.group.clone();
            line.push(histogram.count().to_string());
            line.push(human(row.rate(histogram.count()), Unit::PerSecond));
            line.extend(stats.iter().map(|s| human(s.of(histogram), figure.unit())));
            line.extend(of_entries.then(|| human(row.series[Figure::PinWrites].mean(), Unit::Count)));
            cells.push(line);
        }
        align(&cells, texts)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{report, view},
        *,
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
        report.sources[0].header.aggregation = crate::model::measurement::Aggregation::InKernel;
        let text = render(&report, &view());
        assert!(text.contains("exact to 1.6 %") && text.contains("5 dropped (no room for their series)"), "{text}");
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
