//! Distributions of guest and host time: shares over a logarithmic axis, with their percentiles.

use ratatui::style::Style;

use super::{
    chart,
    panels::title,
    pen::{Pen, share_of, width_of},
};
use crate::{
    model::{
        figures::{Figure, is_carried},
        histogram::Histogram,
    },
    output::grouped,
    tui::{App, detail::Detail},
};

/// Columns for the scale of shares, and those of a panel from which on there is one.
const SCALE: (u16, u16) = (6, 34);

/// A distribution to draw.
struct Curve<'a> {
    name: &'static str,
    histogram: &'a Histogram,
    style: Style,
}

/// Host time.
pub(super) fn host(pen: &mut Pen, app: &App, detail: &Detail) {
    let histogram = &detail.sum.series[Figure::ExitToEntry];
    draw(pen, app, Figure::ExitToEntry, histogram, &[Curve { name: "all", histogram, style: pen.palette.host() }]);
}

/// Guest time of clean and dirty entries, each as shares of its entries.
pub(super) fn guest(pen: &mut Pen, app: &App, detail: &Detail) {
    let p = pen.palette;
    let has_kinds = detail.clean.count() > 0 || detail.dirty.count() > 0;
    let (name, plain) = if has_kinds { ("clean", &detail.clean) } else { ("all", &detail.unknown) };
    let curves = [
        Curve { name, histogram: plain, style: p.clean() },
        Curve { name: "dirty", histogram: &detail.dirty, style: p.dirty() },
    ];
    draw(pen, app, Figure::EntryToExit, &detail.sum.series[Figure::EntryToExit], &curves);
}

/// Draws the first curve as columns and others as dots, and marks the percentiles of all values.
fn draw(pen: &mut Pen, app: &App, figure: Figure, all: &Histogram, curves: &[Curve]) {
    let p = pen.palette;
    let (width, height) = (pen.width(), pen.height());
    let mut x = title(pen, figure.title());
    if let Err(reason) = app.info.knowledge.figure(figure) {
        pen.put(x + 2, 0, &format!("n/a: {reason}"), p.quiet());
        return;
    }
    for (at, curve) in curves.iter().enumerate().filter(|(_, curve)| curve.histogram.count() > 0) {
        x = pen.put(x + 2, 0, glyph(p, at), curve.style);
        let text = match width {
            0..44 => curve.name.to_owned(),
            _ => format!("{} {}", curve.name, grouped(curve.histogram.count())),
        };
        x = pen.put(x + 1, 0, &text, p.quiet());
    }
    if all.count() == 0 {
        pen.put(x + 2, 0, "no values", p.quiet());
        return;
    }
    let (low, high) = (all.min().unwrap_or(1).max(1) as f64, all.max().unwrap_or(1).max(1) as f64);
    // At least a factor of 2, so that a single value stands in the middle.
    let (low, high) = if high < low * 2.0 { (low / 1.5, high * 1.5) } else { (low, high * 1.02) };
    if width < 8 || height < 4 {
        return;
    }
    let left = if width >= SCALE.1 { SCALE.0 } else { 0 };
    let wide = width - left;
    let bars: Vec<_> = curves.iter().map(|c| shares(c.histogram, low, high, usize::from(wide))).collect();
    let highest = bars.iter().flatten().fold(f64::MIN_POSITIVE, |a, &b| a.max(b));
    let mut area = pen.part(left, 1, wide, height - 3);
    for (at, curve) in curves.iter().enumerate() {
        for (x, share) in (0..wide).zip(&bars[at]).filter(|(_, share)| **share > 0.0) {
            if at == 0 {
                chart::column(&mut area, x, share / highest, curve.style);
            } else {
                let y = chart::line_of(&area, share / highest);
                area.put(x, y, glyph(p, at), curve.style);
            }
        }
    }
    if left > 0 {
        pen.put_right(left - 1, 1, &format!("{:.0}%", 100.0 * highest), p.quiet());
        pen.put_right(left - 1, height - 2, "0%", p.quiet());
    }
    axis(&mut pen.part(left, height - 2, wide, 2), app, all, low, high);
}

fn glyph(palette: crate::tui::Palette, at: usize) -> &'static str {
    if at == 0 { palette.glyph("█", "#") } else { palette.glyph("●", "o") }
}

/// The axis: percentiles on its line, times below it.
fn axis(pen: &mut Pen, app: &App, all: &Histogram, low: f64, high: f64) {
    let p = pen.palette;
    let width = pen.width();
    let place = |ns: f64| share_of((ns / low).ln() / (high / low).ln(), width.saturating_sub(1), f64::round);
    pen.fill(0..width, 0, p.glyph("─", "-"), p.quiet());
    let mut free = 0;
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        let Some(ns) = all.quantile(quantile).filter(|_| is_carried(quantile, all.count())) else { continue };
        let x = place(ns as f64).saturating_sub(1).min(width.saturating_sub(width_of(name)));
        if x >= free {
            free = pen.put(x, 0, name, p.accent()) + 1;
        }
    }
    let mut free = 0;
    for ns in ticks(low, high) {
        let label = app.units.time(ns);
        let x = place(ns).saturating_sub(width_of(&label) / 2).min(width.saturating_sub(width_of(&label)));
        if x >= free {
            free = pen.put(x, 1, &label, p.quiet()) + 2;
        }
    }
}

/// Powers of ten between two times, or, where there are fewer than two, quarters of the axis.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let decades: Vec<f64> = (0..20).map(|power| 10f64.powi(power)).filter(|ns| (low..=high).contains(ns)).collect();
    if decades.len() >= 2 {
        return decades;
    }
    (0..=4).map(|quarter| low * (high / low).powf(f64::from(quarter) / 4.0)).collect()
}

/// Share of the values in each of `bins` equal parts of the logarithmic axis.
fn shares(histogram: &Histogram, low: f64, high: f64, bins: usize) -> Vec<f64> {
    let mut shares = vec![0.0; bins];
    let scale = bins as f64 / (high / low).ln();
    for (from, width, count) in histogram.buckets() {
        let middle = (from as f64 + width as f64 / 2.0).max(low);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, because middle >= low"
        )]
        let bin = ((middle / low).ln() * scale) as usize;
        shares[bin.min(bins - 1)] += count as f64 / histogram.count() as f64;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_powers_of_ten_or_quarters_of_a_short_axis() {
        assert_eq!(ticks(900.0, 2e6), [1e3, 1e4, 1e5, 1e6]);
        let quarters: Vec<_> = ticks(3_000.0, 48_000.0).into_iter().map(f64::round).collect();
        assert_eq!(quarters, [3_000.0, 6_000.0, 12_000.0, 24_000.0, 48_000.0]);
    }

    #[test]
    fn shares_of_a_distribution_sum_up_to_one() {
        let mut histogram = Histogram::default();
        [1, 5, 900, 40_000].into_iter().for_each(|ns| histogram.record_n(ns, 3));
        let sum: f64 = shares(&histogram, 1.0, 40_800.0, 17).iter().sum();
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
    }
}
