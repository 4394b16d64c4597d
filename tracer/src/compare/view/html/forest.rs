//! The forest: the ratio of every judged figure with its confidence interval, one below the other.

use super::{emulated_suffix, wording};
use crate::{
    compare::{Comparison, Row, Setting, Verdict},
    html::{
        Markup,
        axis::Axis,
        chart::{Chart, Rows, Scale},
        join, paragraph,
    },
    model::figures::Unit,
};

/// Height of a row of the forest.
const STEP: f64 = 27.0;
/// Length of an arrow that stands for a whole row.
const SHAFT: f64 = 16.0;
/// A row that reaches this many times as far as the next one is cut.
const OUTLIER: f64 = 4.0;

/// Distance from no change on the axis of ratios; 0 for impossible ratios.
fn distance(ratio: f64) -> f64 {
    if ratio > 0.0 && ratio.is_finite() { ratio.ln().abs() } else { 0.0 }
}

/// Half the width of the axis: the reach of the farthest row that is not an outlier, which is more than [`OUTLIER`] times as far as
/// the next one. Outliers are cut, with an arrow, so that the others can be seen.
fn reach(rows: &[(&Row, f64)]) -> f64 {
    let mut reaches: Vec<_> = rows
        .iter()
        .map(|(r, value)| {
            let bounds = r.ratio.iter().flat_map(|e| [e.low, e.high]).flatten();
            bounds.map(distance).fold(distance(*value), f64::max)
        })
        .collect();
    reaches.sort_by(f64::total_cmp);
    let (nearer, farther) = reaches.split_at(reaches.len() / 2);
    let mut reach = nearer.last().copied().unwrap_or(0.0).max(0.01);
    for &next in farther {
        if next > OUTLIER * reach {
            break;
        }
        reach = reach.max(next);
    }
    reach * 1.15
}

/// Ratios with their confidence intervals, one below the other, and the A/A noise behind each.
pub(super) fn forest(c: &Comparison, rows: &[&Row], setting: &Setting) -> Markup {
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
        title: "B / A, logarithmic; grey: A/A noise; filled: significant; arrow: goes on",
    };
    let labels = rows.iter().map(|(r, _)| wording::title(r)).collect();
    let mut chart = Chart::rows("forest", &title, scale, Rows { labels, step: STEP, left: 216.0, right: 176.0 })
        .label_x(|v| wording::percent(v - 1.0).replace(".0%", "%"));
    chart.mark(1.0, "zero");
    let mut words = Vec::new();
    for (at, (row, value)) in rows.iter().enumerate() {
        let y = chart.row(at);
        draw_noise(&mut chart, row, y);
        draw_interval(&mut chart, row, *value, &axis, y);
        let changed = wording::is_change(row);
        if distance(*value) <= reach {
            chart.circle(if changed { "dot neutral" } else { "dot open" }, chart.x(*value), y);
        }
        let change = wording::change(row);
        let mark = wording::contradiction_mark(row);
        let text = format!("{change}  {}{mark}", wording::verdict(row.verdict));
        let shown = if row.verdict == Verdict::NoDetectableChange { format!("{change}  ~") } else { text.clone() };
        chart.text(chart.x(reach.exp()) + 10.0, y + 4.5, if changed { "strong" } else { "tick" }, &shown);
        words.push(format!("{} {text}", wording::title(row)));
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

/// Draws a confidence interval; an end that is beyond the axis is an arrow, and so is a whole row that is.
fn draw_interval(chart: &mut Chart, row: &Row, value: f64, axis: &Axis, y: f64) {
    let is_shown = |v: f64| v > 0.0 && (0.001..=0.999).contains(&axis.share(v));
    let interval = row.ratio.and_then(|e| Some((e.low?, e.high?)));
    let Some((low, high)) = interval.or((!is_shown(value)).then_some((value, value))) else { return };
    let (from, to) = (chart.x(low), chart.x(high));
    let bar = |x: f64| format!("M{x:.1} {:.1}v8", y - 4.0);
    let arrow = |x: f64, inwards: f64| format!("M{:.1} {:.1}L{x:.1} {y:.1}l{inwards} 4", x + inwards, y - 4.0);
    // An arrow alone needs a shaft.
    let start = match (is_shown(low) || is_shown(high), axis.share(low) > 0.5, axis.share(high) < 0.5) {
        (false, true, _) => to - SHAFT,
        (false, _, true) => from + SHAFT,
        _ => from,
    };
    let mut path = format!("M{start:.1} {y:.1}H{to:.1}");
    path += &match is_shown(low) {
        true => bar(from),
        false if axis.share(low) < 0.5 => arrow(from, 5.0),
        false => String::new(),
    };
    path += &match is_shown(high) {
        true => bar(to),
        false if axis.share(high) > 0.5 => arrow(to, -5.0),
        false => String::new(),
    };
    let class = if wording::is_change(row) { "interval" } else { "interval quiet" };
    chart.path(class, &path);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{Estimate, fixture::comparison};

    fn row(value: f64, half: f64) -> (Row, f64) {
        let ratio = Some(Estimate { value, low: Some(value - half), high: Some(value + half) });
        (Row { ratio, ..comparison().rows[0].clone() }, value)
    }

    fn half_width(rows: &[(Row, f64)]) -> f64 {
        reach(&rows.iter().map(|(row, value)| (row, *value)).collect::<Vec<_>>())
    }

    #[test]
    fn the_axis_ends_where_the_farthest_row_does_that_is_no_outlier() {
        let usual = [row(1.0, 0.02), row(1.03, 0.05), row(0.97, 0.03), row(1.1, 0.04), row(1.01, 0.01)];
        let width = half_width(&usual);
        assert!((1.14_f64.ln()..1.2_f64.ln()).contains(&width), "{width}");
        // Two quantiles of one figure that are far away together.
        let far = [&usual[..], &[row(50.0, 3.0), row(49.0, 2.0)]].concat();
        assert_eq!(half_width(&far), width);
        assert!(half_width(&[row(50.0, 3.0)]) > 0.0 && half_width(&[]) > 0.0);
    }

    #[test]
    fn what_is_beyond_the_axis_is_an_arrow_at_its_end() {
        let axis = Axis::log(0.5, 2.0);
        let scale = || Scale { axis, unit: Unit::Count, title: "" };
        let drawn = |(row, value): (Row, f64)| {
            let rows = Rows { labels: vec!["x".into()], step: STEP, left: 100.0, right: 100.0 };
            let mut chart = Chart::rows("forest", "", scale(), rows);
            draw_interval(&mut chart, &row, value, &axis, 20.0);
            let svg = chart.render().into_string();
            let path =
                svg.split("<path class=\"interval\" d=\"").nth(1).map(|p| p.split('"').next().unwrap().to_owned());
            (path, chart.x(0.5), chart.x(2.0))
        };
        let (inside, _, _) = drawn(row(1.2, 0.1));
        assert_eq!(inside.unwrap().matches("v8").count(), 2);
        let (cut, _, end) = drawn(row(1.5, 3.0));
        let cut = cut.unwrap();
        assert!(cut.contains(&format!("L{end:.1} 20.0l-5 4")) && cut.contains("l5 4"), "{cut}");
        let (beyond, _, end) = drawn(row(50.0, 3.0));
        assert_eq!(
            beyond.unwrap(),
            format!("M{:.1} 20.0H{end:.1}M{:.1} 16.0L{end:.1} 20.0l-5 4", end - SHAFT, end - 5.0)
        );
        let unsure = Some(Estimate { value: 0.01, low: None, high: None });
        let (beyond, start, _) = drawn((Row { ratio: unsure, ..comparison().rows[0].clone() }, 0.01));
        assert!(beyond.unwrap().ends_with(&format!("L{start:.1} 20.0l5 4")));
        let unsure = Some(Estimate { value: 1.1, low: None, high: None });
        assert_eq!(drawn((Row { ratio: unsure, ..comparison().rows[0].clone() }, 1.1)).0, None);
    }
}
