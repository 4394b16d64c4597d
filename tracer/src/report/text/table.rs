//! The one table of a text report: rows by what they cost, halts apart, small rows as one, and the sum of all.

use std::borrow::Cow;

use super::{
    Layout, budget,
    columns::{Context, percent},
    grid::{Column, Grid, Line},
};
use crate::{
    model::{
        budget::Phase,
        figures::{Unit, human},
        series::Level,
    },
    output::{Ink, grouped},
    report::{Dimension, Report, Row, Rows, View},
};

/// Rows with less than this share of the exits and of the host time are summed.
const SMALL: f64 = 0.001;
/// Small rows that together have more than this share of the exits or of the host time are not all left out.
const SMALL_TOGETHER: f64 = 0.1;
/// So many rows are shown then.
const MOST_SMALL: usize = 20;
/// Most rows of halts where the number of rows is limited.
const MOST_HALTED: usize = 5;

/// Prints the table of rows, and what it leaves out.
pub(super) fn render(report: &Report, view: &View, rows: &Rows, layout: &Layout) -> String {
    let body = Body::of(view, rows, layout);
    let knowledge = report.knowledge();
    let context = Context { total: &rows.total, knowledge: &knowledge, digits: body.digits };
    let fields = layout.columns.fields(report, rows);
    let dimensions = shown_dimensions(report, view, rows, layout);
    let texts = dimensions.iter().map(|at| Column { group: "", title: heading(view.by[*at]), is_text: true, rank: 0 });
    let numbers = fields.iter().map(|(field, rank)| Column {
        group: field.group(),
        title: field.title(),
        is_text: false,
        rank: *rank,
    });
    let lines = body.lines.iter().map(|(row, label, ink)| {
        let group = |at: &usize| row.group[*at].clone();
        let mut cells: Vec<String> = match label {
            Label::Group => dimensions.iter().map(group).collect(),
            Label::Halted => dimensions.iter().map(|at| group(at) + halted(view.by[*at])).collect(),
            Label::Sum(_) => vec![String::new(); dimensions.len()],
        };
        if let (Label::Sum(label), Some(first)) = (label, cells.first_mut()) {
            first.clone_from(label);
        }
        cells.extend(fields.iter().map(|(field, _)| field.cell(row, &context)));
        Line { cells, ink: *ink }
    });
    let grid = Grid { columns: texts.chain(numbers).collect(), lines: lines.collect() };
    grid.render(layout.width, layout.paint) + &layout.broken(&body.notes.concat(), |_| Ink::Plain)
}

fn heading(dimension: Dimension) -> String {
    match dimension {
        Dimension::Reason => "EXIT REASON".into(),
        d => d.name().to_uppercase(),
    }
}

/// Follows the exit reason of a row of halts.
fn halted(dimension: Dimension) -> &'static str {
    if dimension == Dimension::Reason { " (halted)" } else { "" }
}

/// Places in `view.by` of the dimensions that have a column: in a usual view, VMs if there are several or no line above the table names the
/// one, and levels if not all are L1.
fn shown_dimensions(report: &Report, view: &View, rows: &Rows, layout: &Layout) -> Vec<usize> {
    let differ = |at: usize| rows.each.windows(2).any(|pair| pair[0].group[at] != pair[1].group[at]);
    let is_shown = |at: &usize| match view.by[*at] {
        Dimension::Vm if layout.is_usual_view => differ(*at) || !budget::is_shown(report, view),
        Dimension::Level if layout.is_usual_view => differ(*at) || rows.total.key.level == Level::L2,
        _ => true,
    };
    (0..view.by.len()).filter(is_shown).collect()
}

/// What stands in the columns of the dimensions.
enum Label {
    /// the row's values
    Group,
    /// the same, of halts
    Halted,
    /// what it is a sum of
    Sum(String),
}

/// The lines of the table.
struct Body<'a> {
    lines: Vec<(Cow<'a, Row>, Label, Ink)>,
    notes: Vec<String>,
    digits: usize,
}

impl<'a> Body<'a> {
    fn of(view: &View, rows: &'a Rows, layout: &Layout) -> Self {
        let (halted, work) = Kind::both(view, rows, layout);
        let largest = work.all().filter_map(|row| row.host_time_share(&rows.total)).fold(0.0, f64::max);
        let mut body = Self { lines: Vec::new(), notes: Vec::new(), digits: digits(largest) };
        body.add(&work, Label::Group);
        if let Some(of_halted) = &halted.sum {
            if let Some(sum) = work.sum.clone().filter(|_| work.all().count() > 1) {
                body.lines.push((Cow::Owned(sum), Label::Sum("work".into()), Ink::Bold));
            }
            body.add(&halted, Label::Halted);
            body.notes.extend(body.of_halts(of_halted, &rows.total));
        }
        if rows.each.len() > 1 {
            body.lines.push((Cow::Borrowed(&rows.total), Label::Sum("TOTAL".into()), Ink::Bold));
        }
        let rest = work.rest.len() + halted.rest.len();
        if rest > 0 {
            let kinds = [&work, &halted];
            let is_small = kinds.iter().all(|kind| kind.small_rest == kind.rest.len());
            let why = if is_small { ", each below 0.1 % of exits and of host time" } else { "" };
            let also: usize = kinds.iter().map(|kind| kind.small_shown).sum();
            let also = if is_small && also > 0 {
                format!(", as {} of those shown", grouped(also as u64))
            } else {
                String::new()
            };
            let is = if rest == 1 { "row" } else { "rows" };
            body.notes.insert(0, format!("... {} more {is}{why}{also}: --top all\n", grouped(rest as u64)));
        }
        body.notes.extend(of_divisors(rows));
        body
    }

    /// Adds rows, and those that are left out as one.
    fn add(&mut self, kind: &Kind<'a>, label: Label) {
        let is_halted = matches!(label, Label::Halted);
        let label = || if is_halted { Label::Halted } else { Label::Group };
        self.lines.extend(kind.shown.iter().map(|row| (Cow::Borrowed(*row), label(), Ink::Plain)));
        let Some(of_rest) = kind.sum.as_ref().and_then(|sum| Row::sum(kind.rest.iter().copied(), sum)) else { return };
        let halted = if is_halted { " (halted)" } else { "" };
        let text = format!("{} more{halted}", grouped(kind.rest.len() as u64));
        self.lines.push((Cow::Owned(of_rest), Label::Sum(text), Ink::Dim));
    }

    /// The host time of halts, and how much of it the vCPUs were idle or polled; none where it is not known.
    fn of_halts(&self, halted: &Row, total: &Row) -> Option<String> {
        let host_ns = total.series.host_ns()?;
        let share = |ns: u64| percent((host_ns > 0).then(|| ns as f64 / host_ns as f64), self.digits);
        let known = [Phase::Polled, Phase::Idle].map(|phase| Some((phase, halted.series.phase(phase)?)));
        let known: Vec<_> =
            known.into_iter().flatten().map(|(phase, ns)| format!("{} {} %", phase.name(), share(ns))).collect();
        let of_which = if known.is_empty() { String::new() } else { format!(" ({})", known.join(", ")) };
        Some(format!(
            "halted: HLT exits took {} % of the host time{of_which}; the rows above are other exits\n",
            share(halted.series.host_ns()?)
        ))
    }
}

/// Says that rates do not add up where the recordings of some rows cover less time than all.
fn of_divisors(rows: &Rows) -> Option<String> {
    let total_ns = rows.total.observed_ns;
    let differ = rows.each.iter().any(|row| row.observed_ns != total_ns);
    differ.then(|| {
        let all = human(Some(total_ns as f64), Unit::Ns);
        format!("/S: a row's is per second of the recordings that have its VM or host, that of a sum of all {all}: they do not add up\n")
    })
}

/// The rows of work, or of halts.
struct Kind<'a> {
    /// in the order of the report
    shown: Vec<&'a Row>,
    /// left out, and summed
    rest: Vec<&'a Row>,
    /// small ones among them
    small_shown: usize,
    small_rest: usize,
    /// shown and left out together; none of none
    sum: Option<Row>,
}

impl<'a> Kind<'a> {
    /// Halts and work.
    fn both(view: &View, rows: &'a Rows, layout: &Layout) -> (Self, Self) {
        // Where details are told apart, a row without one may have none left of its exits.
        let counted = rows.each.iter().enumerate().filter(|(_, row)| row.exits > 0);
        let (halted, work): (Vec<_>, Vec<_>) = counted.partition(|(_, row)| row.is_halted(&view.by));
        let kind = |of: Vec<(usize, &'a Row)>, most: Option<usize>| {
            let sum = Row::sum(of.iter().map(|(_, row)| *row), &rows.total);
            match (sum, view.top) {
                (None, _) => Self { shown: vec![], rest: vec![], small_shown: 0, small_rest: 0, sum: None },
                // The first rows of all, as in CSV and JSON.
                (Some(sum), Some(top)) => Self::cut(of.into_iter().map(|(at, row)| (row, at < top)), sum),
                (Some(sum), None) => Self::folded(of.into_iter().map(|(_, row)| row).collect(), sum, most),
            }
        };
        let most_halted = layout.most.map(|most| most.clamp(1, MOST_HALTED));
        (kind(halted, most_halted), kind(work, layout.most))
    }

    fn cut(rows: impl Iterator<Item = (&'a Row, bool)>, sum: Row) -> Self {
        let (shown, rest): (Vec<_>, Vec<_>) = rows.partition(|(_, is_shown)| *is_shown);
        let [shown, rest] = [shown, rest].map(|rows| rows.into_iter().map(|(row, _)| row).collect::<Vec<_>>());
        let small = |rows: &[&Row]| rows.iter().filter(|row| is_small(row, &sum)).count();
        Self { small_shown: small(&shown), small_rest: small(&rest), shown, rest, sum: Some(sum) }
    }

    /// Without small rows, and at most so many.
    fn folded(rows: Vec<&'a Row>, sum: Row, most: Option<usize>) -> Self {
        let small: Vec<bool> = rows.iter().map(|row| is_small(row, &sum)).collect();
        let of_small = Row::sum(rows.iter().zip(&small).filter(|(_, is_small)| **is_small).map(|(row, _)| *row), &sum);
        let shares = of_small.map(|all| [all.exit_share(&sum), all.host_time_share(&sum)]);
        let are_many = shares.is_some_and(|shares| shares.into_iter().flatten().any(|share| share > SMALL_TOGETHER));
        // Where most is small, the first rows say more than their sum.
        let least = if are_many { MOST_SMALL.min(most.unwrap_or(usize::MAX)) } else { 0 };
        let large = small.iter().filter(|is_small| !**is_small).count();
        let mut fill = least.saturating_sub(large);
        let mut room = most.unwrap_or(usize::MAX);
        // One row takes no more room than the sum of one.
        if large + fill + 1 == rows.len() && rows.len() <= room {
            fill += 1;
        }
        let is_shown: Vec<bool> = small
            .into_iter()
            .map(|is_small| {
                let fits = room > 0 && (!is_small || fill > 0);
                fill -= usize::from(fits && is_small);
                room -= usize::from(fits);
                fits
            })
            .collect();
        Self::cut(rows.into_iter().zip(is_shown), sum)
    }

    fn all(&self) -> impl Iterator<Item = &'a Row> {
        self.shown.iter().chain(&self.rest).copied()
    }
}

/// Whether a row is a small part of its kind.
fn is_small(row: &Row, sum: &Row) -> bool {
    [row.exit_share(sum), row.host_time_share(sum)].into_iter().flatten().all(|share| share < SMALL)
}

/// Digits after the point that tell the shares of a guest apart that is idle most of the time.
fn digits(largest: f64) -> usize {
    match largest {
        share if share >= 0.1 || share <= 0.0 => 1,
        share if share >= 0.01 => 2,
        _ => 3,
    }
}
