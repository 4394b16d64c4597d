//! The one table of a text report: rows by what they cost, halts apart, small rows as one, and the sum of all.

use std::borrow::Cow;

use super::{
    Layout,
    columns::{Context, percent},
    grid::{Column, Grid, Line},
};
use crate::{
    model::series::Level,
    output::{Ink, grouped},
    report::{Dimension, Report, Row, Rows, View},
};

/// Rows with less than this share of the exits and of the host time are summed.
const SMALL: f64 = 0.001;
/// Share of the exits and of the host time that the rows summed for being small have together, at most.
const SMALL_TOGETHER: f64 = 0.01;
/// Most rows of halts where the number of rows is limited.
const MOST_HALTED: usize = 5;

/// Prints the table of rows, and what it leaves out.
pub(super) fn render(report: &Report, view: &View, rows: &Rows, layout: &Layout) -> String {
    let body = Body::of(view, rows, layout);
    let knowledge = report.knowledge();
    let context = Context { total: &rows.total, knowledge: &knowledge, digits: body.digits };
    let fields = layout.columns.fields(report, rows);
    let dimensions = shown_dimensions(view, rows, layout);
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
fn shown_dimensions(view: &View, rows: &Rows, layout: &Layout) -> Vec<usize> {
    let differ = |at: usize| rows.each.windows(2).any(|pair| pair[0].group[at] != pair[1].group[at]);
    let is_shown = |at: &usize| match view.by[*at] {
        Dimension::Vm if layout.is_usual_view => differ(*at) || rows.total.series.budget().is_none(),
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
        // Where details are told apart, a row without one may have none left of its exits.
        let counted = rows.each.iter().filter(|row| row.exits > 0);
        let (halted, work): (Vec<&Row>, Vec<&Row>) = counted.partition(|row| row.is_halted(&view.by));
        let largest = work.iter().filter_map(|row| row.host_time_share(&rows.total)).fold(0.0, f64::max);
        let mut body = Self { lines: Vec::new(), notes: Vec::new(), digits: digits(largest) };
        let most = view.top.or(layout.most);
        let is_folded = view.top.is_none();
        let sum = Row::sum(work.iter().copied(), &rows.total);
        let mut left_out = body.add(&work, sum.as_ref(), most, is_folded, Label::Group);
        if let Some(of_halted) = Row::sum(halted.iter().copied(), &rows.total) {
            if let Some(sum) = sum.filter(|_| work.len() > 1) {
                body.lines.push((Cow::Owned(sum), Label::Sum("work".into()), Ink::Bold));
            }
            let most = most.map(|most| most.clamp(1, MOST_HALTED));
            left_out.extend(body.add(&halted, Some(&of_halted), most, is_folded, Label::Halted));
            if let Some(share) = of_halted.host_time_share(&rows.total).filter(|_| !work.is_empty()) {
                body.notes.push(format!(
                    "halted: the guest was idle, for {} % of all host time; the rows above it are the host's work\n",
                    percent(Some(share), body.digits)
                ));
            }
        }
        if rows.each.len() > 1 {
            body.lines.push((Cow::Borrowed(&rows.total), Label::Sum("TOTAL".into()), Ink::Bold));
        }
        let rows_left_out: usize = left_out.iter().map(|(n, _)| n).sum();
        if rows_left_out > 0 {
            let small = left_out.iter().all(|(_, is_small)| *is_small);
            let why = if small { ", each below 0.1 % of exits and of host time" } else { "" };
            let is = if rows_left_out == 1 { "row" } else { "rows" };
            body.notes.insert(0, format!("... {} more {is}{why}: --top all\n", grouped(rows_left_out as u64)));
        }
        body
    }

    /// Adds rows, and those that are left out as one. Returns how many these are, and whether all of them are small; none of none.
    fn add(
        &mut self,
        rows: &[&'a Row],
        sum: Option<&Row>,
        most: Option<usize>,
        is_folded: bool,
        label: Label,
    ) -> Vec<(usize, bool)> {
        let Some(sum) = sum else { return vec![] };
        let large = if is_folded { rows.len() - small(rows, sum) } else { rows.len() };
        let shown = large.min(most.unwrap_or(usize::MAX));
        // One row takes no more room than the sum of one.
        let shown = if shown + 1 == rows.len() && most.is_none_or(|most| shown < most) { rows.len() } else { shown };
        let (shown, rest) = rows.split_at(shown);
        let is_halted = matches!(label, Label::Halted);
        let label = || if is_halted { Label::Halted } else { Label::Group };
        self.lines.extend(shown.iter().map(|row| (Cow::Borrowed(*row), label(), Ink::Plain)));
        let Some(of_rest) = Row::sum(rest.iter().copied(), sum) else { return vec![] };
        let halted = if is_halted { " (halted)" } else { "" };
        let text = format!("{} more{halted}", grouped(rest.len() as u64));
        self.lines.push((Cow::Owned(of_rest), Label::Sum(text), Ink::Dim));
        vec![(rest.len(), shown.len() == large)]
    }
}

/// Number of last rows that are small each and together.
fn small(rows: &[&Row], sum: &Row) -> usize {
    let mut together = [0.0; 2];
    let is_small = |row: &&&Row| {
        let shares = [row.exit_share(sum), row.host_time_share(sum)].map(Option::unwrap_or_default);
        together.iter_mut().zip(shares).for_each(|(all, share)| *all += share);
        shares.iter().all(|share| *share < SMALL) && together.iter().all(|all| *all <= SMALL_TOGETHER)
    };
    rows.iter().rev().take_while(is_small).count()
}

/// Digits after the point that tell the shares of a guest apart that is idle most of the time.
fn digits(largest: f64) -> usize {
    match largest {
        share if share >= 0.1 || share <= 0.0 => 1,
        share if share >= 0.01 => 2,
        _ => 3,
    }
}
