//! The report as text: loss first, then provenance and counts, then the table.

mod budget;
mod columns;
mod grid;
mod provenance;
mod rare;
mod table;
#[cfg(test)]
mod tests;
mod totals;

use std::fmt::Write as _;

use super::{Report, View, notes};
use crate::{
    model::{
        figures::{Figure, Stat},
        knowledge::Subject,
        measurement::{EMULATED, Latency},
    },
    output::{Ink, Paint, grouped, wrap},
};

use columns::Field;

pub use columns::ColumnSet;

/// Says which time is which, below the table that shows it.
const LEGEND: [(Figure, &str); 2] = [
    (
        Figure::ExitToEntry,
        "host time: kvm_exit to the next kvm_entry, the host's work on that exit (exit_to_entry_ns)\n",
    ),
    (Figure::EntryToExit, "guest time: kvm_entry to kvm_exit, VM entry and VM exit included (entry_to_exit_ns)\n"),
];

/// Before the rest of a broken line: the width of the words that begin the lines.
const INDENT: &str = "           ";

/// How a text report is laid out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout {
    /// columns of the table
    pub(crate) columns: ColumnSet,
    /// the user did not choose the dimensions: those in which all rows agree are left out
    pub(crate) is_usual_view: bool,
    /// most rows where the view does not say it; none for all
    pub(crate) most: Option<usize>,
    /// cells of a line of the table; none for as many as it takes
    pub(crate) width: Option<usize>,
    /// attributes
    pub(crate) paint: Paint,
}

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
    out + &provenance::render(&report.sources)
}

/// Renders a report for a file: as wide as it takes, without attributes.
pub fn render(report: &Report, view: &View) -> String {
    render_in(report, view, &Layout::default())
}

/// Renders a report in a layout.
pub(crate) fn render_in(report: &Report, view: &View, layout: &Layout) -> String {
    let mut out = layout.broken(&(preamble(report) + &totals::render(report, view)), alarm);
    let rows = report.all_rows(view);
    if rows.each.is_empty() {
        let delivered = report.whole.totals.delivered > 0;
        out +=
            if delivered { "\nno entries pass the filters\n" } else { "\nno entries were recorded: did a VM run?\n" };
        return out;
    }
    if let Some(note) = report.aggregation().note() {
        let _ = write!(out, "\n{note}\n");
    }
    let has_times = report.knowledge().known(Subject::Times).is_ok();
    if !has_times {
        let _ = write!(out, "\n{} are not shown: the reason stands above\n", Subject::Times.title());
    } else if report.latency() == Latency::DisturbedButAsked {
        out += &format!("\n{}", layout.broken(&format!("DISTURBED: {}", notes::DISTURBED), Ink::of_line));
    }
    let budget = budget::render(report, view, layout);
    if !budget.is_empty() {
        out += &format!("\n{budget}");
    }
    out.push('\n');
    let (table, groups) = table::render(report, view, &rows, layout);
    out += &table;
    if rows.unfinished > 0 {
        let note = format!("{} exits that no kvm_entry followed are in no row\n", grouped(rows.unfinished));
        out += &layout.broken(&note, |_| Ink::Dim);
    }
    if has_times {
        let has_columns = |figure| groups.contains(&Field::Stat(figure, Stat::P50).group());
        out += &layout.broken(&rare::render(report, &rows.total, layout.columns, has_columns), |_| Ink::Plain);
        let legend: String = LEGEND.iter().filter(|(figure, _)| has_columns(*figure)).map(|(_, text)| *text).collect();
        out += &layout.broken(&legend, |_| Ink::Dim);
    }
    out
}

impl Layout {
    /// Lines, broken where the terminal ends, each in its ink.
    pub(super) fn broken(&self, text: &str, ink: impl Fn(&str) -> Ink) -> String {
        let line = |line: &str| {
            let ink = ink(line);
            let broken = self.width.map_or_else(|| format!("{line}\n"), |width| wrap(line, INDENT, width));
            broken.lines().map(|part| self.paint.ink(ink, part) + "\n").collect::<String>()
        };
        text.lines().map(line).collect()
    }
}

/// The ink of a line above the table.
pub(super) fn alarm(line: &str) -> Ink {
    if line.contains("DISAGREES") { Ink::Red } else { Ink::of_line(line) }
}
