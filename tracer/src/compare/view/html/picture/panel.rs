//! The panels of the picture: rows that share an axis.

use super::wording;
use crate::{
    compare::{Comparison, Estimate, Row, Verdict},
    html::axis::{Axis, label},
    model::figures::Unit,
};

/// A row that reaches this many times as far as the next one is cut.
const OUTLIER: f64 = 4.0;
/// Half the width of an axis of ratios at least.
const LEAST_RATIO: f64 = 0.01;

/// A row and its places on the panel's axis, whose middle is no change.
pub(super) struct Bar<'a> {
    pub(super) row: &'a Row,
    pub(super) value: f64,
    /// none for a bound that is not known
    pub(super) low: Option<f64>,
    pub(super) high: Option<f64>,
    /// A/A noise, to either side; none for differences
    pub(super) noise: Option<f64>,
}

/// What the axis of a panel measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// ln(B / A)
    Ratio,
    /// B - A
    Difference(Unit),
}

/// Rows on one axis.
pub(super) struct Panel<'a> {
    pub(super) measure: Measure,
    pub(super) is_primary: bool,
    pub(super) bars: Vec<Bar<'a>>,
    /// half the width of the axis
    pub(super) reach: f64,
}

impl Measure {
    /// Title of the axis.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Ratio => "change from A, logarithmic",
            Self::Difference(Unit::Ns) => "B - A, time",
            Self::Difference(Unit::Count) => "B - A, per entry",
            Self::Difference(Unit::PerSecond) => "B - A, per second",
            Self::Difference(Unit::Share) => "B - A, percentage points of the vCPUs' time",
        }
    }

    /// Places on the axis and their labels.
    pub(super) fn ticks(self, reach: f64, wanted: usize) -> Vec<(f64, String)> {
        let sign = |v: f64| if v > 0.0 { "+" } else { "" };
        match self {
            Self::Ratio => {
                let ticks = Axis::log((-reach).exp(), reach.exp()).ticks(wanted);
                ticks.into_iter().map(|v| (v.ln(), wording::percent(v - 1.0).replace(".0%", "%"))).collect()
            }
            Self::Difference(unit) => {
                let scale = if unit == Unit::Share { 100.0 } else { 1.0 };
                let text = |v: f64| format!("{}{}", sign(v), label(v * scale, unit));
                Axis::linear(-reach, reach).ticks(wanted).into_iter().map(|v| (v, text(v))).collect()
            }
        }
    }
}

/// A row on its axis; none if it has no change that can be drawn.
fn bar(row: &Row) -> Option<(Measure, Bar<'_>)> {
    let known = |bound: Option<f64>| bound.filter(|v| v.is_finite());
    let of = |e: Estimate| Some(e).filter(|e| e.value.is_finite());
    if let Some(ratio) = wording::ratio(row).and_then(of).filter(|e| e.value > 0.0) {
        let ln = |v: f64| v.max(1e-9).ln();
        let (low, high) = (known(ratio.low).map(ln), known(ratio.high).map(ln));
        let noise = known(row.noise).map(f64::ln_1p);
        return Some((Measure::Ratio, Bar { row, value: ln(ratio.value), low, high, noise }));
    }
    let Estimate { value, low, high } = row.difference.and_then(of)?;
    let (low, high) = (known(low), known(high));
    Some((Measure::Difference(row.unit), Bar { row, value, low, high, noise: None }))
}

/// Half the width of an axis: the reach of the farthest row that is not an outlier, which is more than [`OUTLIER`] times as far as
/// the next one. Outliers are cut, with an arrow, so that the others can be seen.
fn reach(bars: &[Bar<'_>], least: f64) -> f64 {
    let of =
        |bar: &Bar<'_>| [Some(bar.value), bar.low, bar.high].into_iter().flatten().map(f64::abs).fold(0.0, f64::max);
    let mut reaches: Vec<_> = bars.iter().map(of).collect();
    reaches.sort_by(f64::total_cmp);
    let (nearer, farther) = reaches.split_at(reaches.len() / 2);
    let mut reach = nearer.last().copied().unwrap_or(0.0).max(least);
    for &next in farther {
        if reach > 0.0 && next > OUTLIER * reach && nearer.len() > 1 {
            break;
        }
        reach = reach.max(next);
    }
    if reach > 0.0 { reach * 1.15 } else { 1.0 }
}

/// All panels: those of primary figures, in their order; then those of the others, changes first and by size, ratios before differences.
pub(super) fn panels(c: &Comparison) -> Vec<Panel<'_>> {
    let is_shown = |row: &&Row| {
        let is_judged = row.verdict != Verdict::NotEnoughData || row.primary.is_some();
        is_judged && wording::has_values(row) && (row.a, row.b) != (Some(0.0), Some(0.0))
    };
    let mut panels: Vec<Panel<'_>> = Vec::new();
    let mut rows = wording::largest_first(c.rows.iter().filter(is_shown));
    rows.sort_by_key(|row| row.primary.is_none() && !wording::is_change(row));
    for row in rows {
        let (is_primary, Some((measure, bar))) = (row.primary.is_some(), bar(row)) else { continue };
        match panels.iter_mut().find(|p| (p.is_primary, p.measure) == (is_primary, measure)) {
            Some(panel) => panel.bars.push(bar),
            None => panels.push(Panel { measure, is_primary, bars: vec![bar], reach: 0.0 }),
        }
    }
    panels.sort_by_key(|panel| (!panel.is_primary, !panel.is_primary && panel.measure != Measure::Ratio));
    for panel in &mut panels {
        panel.reach = reach(&panel.bars, if panel.measure == Measure::Ratio { LEAST_RATIO } else { 0.0 });
    }
    panels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::fixture::{comparison, gated};

    fn row(value: f64, half: f64) -> Row {
        let ratio = Some(Estimate { value, low: Some(value - half), high: Some(value + half) });
        Row { ratio, ..comparison().rows[0].clone() }
    }

    fn half_width(rows: &[Row]) -> f64 {
        reach(&rows.iter().map(|row| bar(row).unwrap().1).collect::<Vec<_>>(), LEAST_RATIO)
    }

    #[test]
    fn the_axis_ends_where_the_farthest_row_does_that_is_no_outlier() {
        let usual = [row(1.0, 0.02), row(1.03, 0.05), row(0.97, 0.03), row(1.1, 0.04), row(1.01, 0.01)];
        let width = half_width(&usual);
        assert!((1.14_f64.ln()..1.2_f64.ln()).contains(&width), "{width}");
        // Two quantiles of one figure that are far away together.
        let far = [&usual[..], &[row(50.0, 3.0), row(49.0, 2.0)]].concat();
        assert_eq!(half_width(&far), width);
        assert!(half_width(&[row(50.0, 3.0)]) > 53_f64.ln() && half_width(&[]) > 0.0);
    }

    #[test]
    fn primary_figures_come_first_and_differences_have_their_own_panel() {
        let c = gated();
        let titles = |p: &Panel<'_>| p.bars.iter().map(|bar| wording::title(bar.row)).collect::<Vec<_>>();
        let panels = panels(&c);
        let measures: Vec<_> = panels.iter().map(|p| (p.is_primary, p.measure)).collect();
        assert_eq!(
            measures,
            [(true, Measure::Difference(Unit::Count)), (true, Measure::Ratio), (false, Measure::Ratio)]
        );
        assert_eq!(titles(&panels[0]), ["pin writes per entry"]);
        assert_eq!(titles(&panels[1]), ["guest time p50", "host time p50"]);
        assert_eq!(titles(&panels[2])[0], "spurious timer exits/s", "the largest change of the others");
        // A is 0: the difference is drawn with its interval, and has no noise.
        let pins = &panels[0].bars[0];
        assert_eq!((pins.value, pins.low.map(|v| (v * 100.0).round()), pins.noise), (0.41, Some(39.0), None));
    }

    #[test]
    fn ticks_have_signs_and_units() {
        let texts = |measure: Measure, reach| measure.ticks(reach, 5).into_iter().map(|t| t.1).collect::<Vec<_>>();
        assert_eq!(texts(Measure::Difference(Unit::Count), 0.5), ["-0.4", "-0.2", "0", "+0.2", "+0.4"]);
        assert_eq!(texts(Measure::Difference(Unit::Share), 0.011), ["-1", "-0.5", "0", "+0.5", "+1"]);
        assert!(texts(Measure::Ratio, 0.1).contains(&"+5%".to_owned()));
    }

    #[test]
    fn what_cannot_be_drawn_is_left_out() {
        let mut c = comparison();
        let count = |c: &Comparison| panels(c).iter().map(|p| p.bars.len()).sum::<usize>();
        let all = count(&c);
        (c.rows[0].ratio, c.rows[0].difference) = (None, None);
        (c.rows[1].a, c.rows[1].b) = (Some(0.0), Some(0.0));
        c.rows[2].verdict = Verdict::NotEnoughData;
        c.rows[3].ratio = Some(Estimate { value: f64::INFINITY, low: None, high: None });
        c.rows[3].difference = c.rows[3].ratio;
        assert_eq!(count(&c), all - 4);
    }
}
