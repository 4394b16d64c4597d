//! The section of distributions: densities, cumulative distributions and the shift function of each time.

use super::{emulated_suffix, legend, wording};
use crate::{
    compare::{Comparison, Distributions, Setting, Shift},
    html::{
        Markup,
        axis::Axis,
        chart::{Chart, Look, Scale},
        density, grid, heading, join, paragraph,
        table::{Heading, Table},
    },
    model::{
        figures::{Unit, human},
        histogram::Histogram,
        number::truncated_usize,
    },
};

/// Bins of a density.
const BINS: usize = 90;
/// Points of a cumulative distribution at most.
const POINTS: usize = 300;
const X_TITLE: &str = "up to p99.9, logarithmic";
const SHARE: &str = "share of the values";

pub(super) fn section(c: &Comparison, setting: &Setting) -> Markup {
    if c.distributions.is_empty() {
        return paragraph("n/a: times cannot be compared here.");
    }
    join(c.distributions.iter().map(|d| {
        let pictures = if d.a.count() == 0 || d.b.count() == 0 {
            paragraph(&format!("n/a: {} values of A, {} of B.", d.a.count(), d.b.count()))
        } else {
            grid(&[densities(d, setting), cdfs(d, setting), shifts(d, setting), quantiles(d, setting)])
        };
        join([heading(&d.figure.heading()), paragraph(d.figure.help()), pictures])
    }))
}

fn title(d: &Distributions, setting: &Setting) -> String {
    format!("{}{}", d.figure.title(), emulated_suffix(setting))
}

fn text_of(h: &Histogram, q: f64, unit: Unit) -> String {
    human(h.quantile(q).map(|v| v as f64), unit)
}

/// An axis of all but the last thousandth of the values, which may be far away.
fn near(d: &Distributions) -> Option<Axis> {
    let (low, high) = density::range(&[&d.a, &d.b])?;
    let near = [&d.a, &d.b].iter().filter_map(|h| h.quantile(0.999)).max().map_or(high, |v| v as f64 * 1.1);
    Some(Axis::log(low, near.max(low * 1.1)))
}

fn densities(d: &Distributions, setting: &Setting) -> Markup {
    let Some(axis) = near(d) else { return Markup::default() };
    // Values beyond the axis would pile up in its last bin.
    let both = [&d.a, &d.b].map(|h| {
        let mut bins = density::bins(h, &axis, BINS);
        bins[BINS - 1] = 0.0;
        bins
    });
    let peak = both.iter().flatten().fold(f64::MIN_POSITIVE, |a, &b| a.max(b));
    let title = format!("Distribution of {}", title(d, setting));
    let unit = d.figure.unit();
    let x = Scale { axis, unit, title: X_TITLE };
    let y = Scale { axis: Axis::linear(0.0, peak * 1.08), unit: Unit::Count, title: SHARE };
    let mut chart = Chart::new(format!("density-{}", d.figure.name()), &title, x, y);
    for (look, bins) in [Look::A, Look::B].into_iter().zip(&both) {
        let stairs = density::stairs(bins, &axis);
        chart.band(look, &stairs.iter().map(|&(x, y)| (x, 0.0, y)).collect::<Vec<_>>());
        chart.line(look, &stairs.iter().map(|&(x, y)| (x, Some(y))).collect::<Vec<_>>());
    }
    legend(&mut chart, setting);
    let [a, b] = [&d.a, &d.b].map(|h| text_of(h, 0.5, unit));
    chart.describe(format!("{title}: median {a} of A, {b} of B.")).render()
}

fn cdfs(d: &Distributions, setting: &Setting) -> Markup {
    let Some(axis) = near(d) else { return Markup::default() };
    let title = format!("Cumulative distribution of {}", title(d, setting));
    let unit = d.figure.unit();
    let x = Scale { axis, unit, title: X_TITLE };
    let y = Scale { axis: Axis::linear(0.0, 1.0), unit: Unit::Count, title: SHARE };
    let mut chart = Chart::new(format!("cdf-{}", d.figure.name()), &title, x, y);
    for (look, histogram) in [(Look::A, &d.a), (Look::B, &d.b)] {
        // A staircase: the share is constant until the next value.
        let mut line = vec![(axis.value(0.0), Some(0.0))];
        let mut below = 0.0;
        for (value, share) in density::cdf(histogram, POINTS) {
            line.push((value, Some(below)));
            if axis.share(value) >= 1.0 {
                break;
            }
            line.push((value, Some(share)));
            below = share;
        }
        line.push((axis.value(1.0), Some(below)));
        chart.line(look, &line);
    }
    legend(&mut chart, setting);
    let [a, b] = [&d.a, &d.b].map(|h| text_of(h, 0.99, unit));
    chart.describe(format!("{title}: 99 % are up to {a} for A, {b} for B.")).render()
}

/// The shift function: B - A in % of A at each quantile, evenly spaced, with its interval.
fn shifts(d: &Distributions, setting: &Setting) -> Markup {
    let relative = |s: &Shift| {
        let e = s.difference;
        [e.low.unwrap_or(e.value), e.value, e.high.unwrap_or(e.value)].map(|v| v / s.a)
    };
    let shifts: Vec<(String, [f64; 3])> =
        d.shifts.iter().filter(|s| s.a > 0.0).map(|s| (quantile(s.quantile), relative(s))).collect();
    if shifts.is_empty() {
        return paragraph("Shift function: n/a, no quantile can be compared.");
    }
    let largest = shifts.iter().map(|s| s.1[1].abs()).fold(0.005, f64::max) * 3.0;
    let low = shifts.iter().map(|s| s.1[0].max(-largest)).fold(0.0, f64::min);
    let high = shifts.iter().map(|s| s.1[2].min(largest)).fold(0.0, f64::max);
    let room = (high - low).max(0.002) * 0.08;
    let title = format!("Shift function: difference of B's {}", title(d, setting));
    let last = (shifts.len() - 1).max(1) as f64;
    let x =
        Scale { axis: Axis::linear(0.0, last), unit: Unit::Count, title: "quantile, with 95 % confidence interval" };
    let y = Scale {
        axis: Axis::linear((low - room) * 100.0, (high + room) * 100.0),
        unit: Unit::Count,
        title: "% of A; above 0: B takes longer",
    };
    let names: Vec<_> = shifts.iter().map(|(name, _)| name.clone()).collect();
    let mut chart = Chart::new(format!("shift-{}", d.figure.name()), &title, x, y).label_x(move |at| {
        if at.fract() == 0.0 { names.get(truncated_usize(at)).cloned().unwrap_or_default() } else { String::new() }
    });
    let band: Vec<_> = shifts.iter().enumerate().map(|(at, s)| (at as f64, s.1[0] * 100.0, s.1[2] * 100.0)).collect();
    chart.band(Look::B, &band);
    chart.level(0.0);
    let line: Vec<_> = shifts.iter().enumerate().map(|(at, s)| (at as f64, Some(s.1[1] * 100.0))).collect();
    chart.line(Look::B, &line);
    line.iter().for_each(|(x, y)| y.iter().for_each(|y| chart.dot(Look::B, *x, *y)));
    let words: Vec<_> = shifts.iter().map(|(name, s)| format!("{name} {}", wording::percent(s[1]))).collect();
    chart.describe(format!("{title}: {}.", words.join(", "))).render()
}

fn quantile(q: f64) -> String {
    let text = format!("{:.3}", q * 100.0);
    format!("p{}", text.trim_end_matches('0').trim_end_matches('.'))
}

fn quantiles(d: &Distributions, setting: &Setting) -> Markup {
    let columns = vec![
        Heading::word("quantile"),
        Heading::number("A"),
        Heading::number("B"),
        Heading::number("B - A"),
        Heading::number("95 % CI"),
        Heading::number("change"),
    ];
    let caption = format!("Quantiles of {}: {} values of A, {} of B", title(d, setting), d.a.count(), d.b.count());
    let mut table = Table::new(format!("quantiles-{}", d.figure.name()), caption, columns);
    for s in &d.shifts {
        let bound = |b: Option<f64>| b.map_or("n/a".into(), |b| wording::signed(b, d.figure.unit()));
        table.row(vec![
            quantile(s.quantile),
            human(Some(s.a), d.figure.unit()),
            human(Some(s.a + s.difference.value), d.figure.unit()),
            wording::signed(s.difference.value, d.figure.unit()),
            format!("[{}, {}]", bound(s.difference.low), bound(s.difference.high)),
            if s.a > 0.0 { wording::percent(s.difference.value / s.a) } else { "n/a".into() },
        ]);
    }
    table.render()
}
