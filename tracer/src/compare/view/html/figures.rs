//! The section of figures: the forest of ratios, the table of every figure, and the comparison with one mix of exits.

use super::{emulated_suffix, wording};
use crate::{
    compare::{Comparison, Row, Setting, Verdict},
    html::{
        Markup,
        axis::Axis,
        chart::{Chart, Rows, Scale},
        details, heading, join, paragraph,
        table::{Heading, Table},
    },
    model::figures::Unit,
};

/// Height of a row of the forest.
const STEP: f64 = 27.0;

pub(super) fn section(c: &Comparison, setting: &Setting) -> Markup {
    let (judged, unjudged): (Vec<_>, Vec<_>) = c.rows.iter().partition(|r| r.verdict != Verdict::NotEnoughData);
    let valued: Vec<_> = c.rows.iter().filter(|r| r.a.is_some() && r.b.is_some()).collect();
    let mut out =
        vec![if judged.is_empty() { paragraph("No figure has enough data.") } else { forest(c, &judged, setting) }];
    if !valued.is_empty() {
        out.push(table("figures-table", "Every figure", &valued, setting));
    }
    out.push(paragraph(&format!(
        "Change: B against A, in %, or the difference if A is 0. Adjusted p: p of the permutation test, adjusted for all figures (Holm); \
         significant is at most {}. MDE: smallest change found with 80 % power. A/A noise: 95th percentile of half-against-half \
         differences within a side.",
        c.alpha
    )));
    if !unjudged.is_empty() {
        out.push(not_enough_data(&unjudged));
    }
    if !c.stratified.is_empty() {
        out.push(with_one_mix(c, setting));
    }
    join(out)
}

fn not_enough_data(rows: &[&Row]) -> Markup {
    let columns = vec![Heading::word("figure"), Heading::number("A"), Heading::number("B"), Heading::text("reason")];
    let mut table = Table::new("not-enough-data", "Figures without a verdict", columns);
    for row in rows {
        let why = row.why.clone().unwrap_or_else(|| "no reason given".into());
        let [a, b] = [row.a, row.b].map(|v| wording::value(v, row.unit));
        table.row_of("quiet", vec![wording::name(row), a, b, why]);
    }
    join([heading("Not enough data"), table.render()])
}

fn with_one_mix(c: &Comparison, setting: &Setting) -> Markup {
    let pairs = wording::contradicting(c);
    let covered = wording::share_text(Some(c.mix.covered));
    let agrees =
        if pairs.is_empty() { "agrees with the raw one" } else { "disagrees with the raw one about some figures" };
    let text = format!(
        "Both sides are weighted to the same mix of exit reasons, so that another workload does not count as another cost; this covers \
         {covered} of the entries. This comparison {agrees}."
    );
    let mut out = vec![heading("With one mix of exits"), paragraph(&text)];
    if !pairs.is_empty() {
        out.push(disagreements(&pairs));
    }
    let rows: Vec<_> = c.stratified.iter().collect();
    let table = table("stratified-table", "Every figure, both sides weighted to one mix of exits", &rows, setting);
    out.push(details("All figures with one mix of exits", &table));
    join(out)
}

fn disagreements(pairs: &[(&Row, &Row)]) -> Markup {
    let columns = vec![
        Heading::word("figure"),
        Heading::number("change, raw"),
        Heading::number("change, one mix"),
        Heading::number("95 % CI"),
        Heading::number("adjusted p"),
        Heading::word("verdict, raw"),
        Heading::word("verdict, one mix"),
    ];
    let mut table = Table::new("contradicting", "Figures that disagree with one mix of exits", columns);
    for (raw, one) in pairs {
        table.row(vec![
            wording::name(raw),
            wording::change(raw),
            wording::change(one),
            wording::interval(one),
            wording::p_value(one.p_holm),
            wording::verdict(raw.verdict).into(),
            wording::verdict(one.verdict).into(),
        ]);
    }
    table.render()
}

fn table(id: &str, caption: &str, rows: &[&Row], setting: &Setting) -> Markup {
    let emulated = if wording::is_emulated(setting) { "; times are EMULATED" } else { "" };
    let columns = vec![
        Heading::word("figure"),
        Heading::number("A"),
        Heading::number("B"),
        Heading::number("change"),
        Heading::number("95 % CI"),
        Heading::number("adjusted p"),
        Heading::number("MDE"),
        Heading::number("A/A noise"),
        Heading::word("verdict"),
    ];
    let mut table = Table::new(id, format!("{caption}{emulated}"), columns);
    for row in rows {
        let cells = vec![
            wording::name(row),
            wording::value(row.a, row.unit),
            wording::value(row.b, row.unit),
            wording::change(row),
            wording::interval(row),
            wording::p_value(row.p_holm),
            wording::mde(row),
            wording::noise(row),
            wording::verdict(row.verdict).into(),
        ];
        table.row_of(if wording::is_change(row) { "strong" } else { "" }, cells);
    }
    table.render()
}

/// Distance from no change on the axis of ratios; 0 for impossible ratios.
fn distance(ratio: f64) -> f64 {
    if ratio > 0.0 && ratio.is_finite() { ratio.ln().abs() } else { 0.0 }
}

/// Half the width of the axis. One interval that reaches far out is cut, so that the others can be seen.
fn reach(rows: &[(&Row, f64)]) -> f64 {
    let mut reaches: Vec<_> = rows
        .iter()
        .map(|(r, value)| {
            let bounds = r.ratio.iter().flat_map(|e| [e.low, e.high]).flatten();
            bounds.map(distance).fold(distance(*value), f64::max)
        })
        .collect();
    reaches.sort_by(|a, b| b.total_cmp(a));
    let changed = rows.iter().filter(|(r, _)| wording::is_change(r)).map(|r| distance(r.1)).fold(0.01, f64::max);
    reaches.get(1).or(reaches.first()).copied().unwrap_or(0.0).max(changed) * 1.15
}

/// Ratios with their confidence intervals, one below the other, and the A/A noise behind each.
fn forest(c: &Comparison, rows: &[&Row], setting: &Setting) -> Markup {
    let rows: Vec<(&Row, f64)> =
        rows.iter().filter_map(|r| Some((*r, wording::ratio(r)?.value))).filter(|r| r.1 > 0.0).collect();
    if rows.is_empty() {
        return Markup::default();
    }
    let reach = reach(&rows);
    let axis = Axis::log((-reach).exp(), reach.exp());
    let title = format!("B / A with 95 % confidence intervals{}", emulated_suffix(setting));
    let scale = Scale {
        axis,
        unit: Unit::Count,
        title: "B / A, logarithmic; 0: no change; grey: A/A noise; filled: significant",
    };
    let labels = rows.iter().map(|(r, _)| wording::name(r)).collect();
    let mut chart = Chart::rows("forest", &title, scale, Rows { labels, step: STEP, left: 216.0, right: 176.0 })
        .label_x(|v| wording::percent(v - 1.0).replace(".0%", "%"));
    chart.mark(1.0, "zero");
    let mut words = Vec::new();
    for (at, (row, value)) in rows.iter().enumerate() {
        let y = chart.row(at);
        draw_noise(&mut chart, row, y);
        draw_interval(&mut chart, row, &axis, y);
        let changed = wording::is_change(row);
        if distance(*value) <= reach {
            chart.circle(if changed { "dot neutral" } else { "dot open" }, chart.x(*value), y);
        }
        let change = wording::change(row);
        let text = format!("{change}  {}", wording::verdict(row.verdict));
        let shown = if row.verdict == Verdict::NoDetectableChange { format!("{change}  ~") } else { text.clone() };
        chart.text(chart.x(reach.exp()) + 10.0, y + 4.5, if changed { "strong" } else { "tick" }, &shown);
        words.push(format!("{} {text}", wording::name(row)));
    }
    let judged = c.rows.iter().filter(|r| r.verdict != Verdict::NotEnoughData).count();
    let note = "Figures whose A is 0 or about 0 are only in the table, without a ratio. ~: no detectable change.";
    let note = if judged == rows.len() { Markup::default() } else { paragraph(note) };
    join([chart.describe(format!("{title}: {}.", words.join("; "))).render(), note])
}

/// Draws the band in which a side differs from itself.
fn draw_noise(chart: &mut Chart, row: &Row, y: f64) {
    if let Some(noise) = row.noise {
        let (from, to) = (chart.x(1.0 / (1.0 + noise)), chart.x(1.0 + noise));
        chart.rectangle("noise", [from, y - STEP / 2.0 + 2.0, to - from, STEP - 4.0]);
    }
}

/// Draws a confidence interval; an end that is cut off is an arrow.
fn draw_interval(chart: &mut Chart, row: &Row, axis: &Axis, y: f64) {
    let Some((low, high)) = row.ratio.and_then(|e| Some((e.low?, e.high?))) else { return };
    let (from, to) = (chart.x(low), chart.x(high));
    let end = |x: f64, value: f64, inwards: f64| {
        let is_shown = value > 0.0 && (0.001..=0.999).contains(&axis.share(value));
        let (top, tip) = (y - 4.0, x + inwards);
        if is_shown { format!("M{x:.1} {top:.1}v8") } else { format!("M{tip:.1} {top:.1}L{x:.1} {y:.1}l{inwards} 4") }
    };
    let ends = end(from, low, 5.0) + &end(to, high, -5.0);
    let class = if wording::is_change(row) { "interval" } else { "interval quiet" };
    chart.path(class, &format!("M{from:.1} {y:.1}H{to:.1}{ends}"));
}
