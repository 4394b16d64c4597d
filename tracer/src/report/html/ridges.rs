//! Distributions of times as one curve per exit reason.

use super::{
    super::{Dimension, Report, Row, View, notes},
    counted, emulated_suffix,
    exits::value,
    times,
};
use crate::{
    html::{
        Markup,
        axis::Axis,
        chart::{Chart, Rows, Scale, Size, shortened},
        density, details, heading, join, paragraph,
        table::{Cell, Heading, Table},
    },
    model::{
        figures::{Column, Figure, Stat, human},
        histogram::Histogram,
    },
    output::grouped,
};

/// Exit reasons with a curve of their own.
const MAX_RIDGES: usize = 8;
/// How to read the pictures.
const LEGEND: &str = "Each curve is scaled to its own peak. Solid tick: median; dashed tick: 99th percentile.";

pub(super) fn distributions(report: &Report, view: &View) -> Markup {
    if let Err(reason) = times(report) {
        return paragraph(&reason.to_string());
    }
    let by_reason = View { by: vec![Dimension::Reason], sort: Column::HostTime, top: None, ..view.clone() };
    let mut rows = report.rows(&by_reason);
    let more = rows.len().saturating_sub(MAX_RIDGES);
    rows.truncate(MAX_RIDGES);
    let mut out = vec![paragraph(LEGEND)];
    if more > 0 {
        out.push(paragraph(&format!(
            "The {MAX_RIDGES} exit reasons of most host time; {more} more are in the tables."
        )));
    }
    if !view.filters.is_empty() {
        out.push(paragraph("Only the entries that pass the filters."));
    }
    for figure in Figure::ALL.into_iter().filter(|f| f.is_time() && !notes::is_left_out(report, *f)) {
        out.extend([heading(&figure.heading()), paragraph(figure.help())]);
        out.push(match notes::why_empty(report, figure, &rows) {
            Some(why) => paragraph(&format!("n/a: {why}")),
            None => {
                let rows: Vec<_> = rows.iter().filter(|r| r.series[figure].count() > 0).collect();
                join([ridges(report, figure, &rows), ridges_table(report, figure, &rows)])
            }
        });
    }
    join(out)
}

fn ridges_title(report: &Report, figure: Figure) -> String {
    format!("{} by exit reason{}", figure.title(), emulated_suffix(report))
}

/// The two forms of the picture: one over the whole page, one for phones, of which the style shows one.
fn ridges(report: &Report, figure: Figure, rows: &[&Row]) -> Markup {
    join(FORMS.map(|form| ridges_in(&form, report, figure, rows)))
}

/// How the rows of a picture are laid out.
struct Form {
    size: Size,
    /// bins of a curve
    bins: usize,
    /// height of a row
    step: f64,
    /// height of a curve
    curve: f64,
    /// room for names left of the rows; none writes them above the curves
    left: Option<f64>,
    /// room for values right of the rows
    right: f64,
}

const FORMS: [Form; 2] = [
    Form { size: Size::Page, bins: 110, step: 46.0, curve: 34.0, left: Some(180.0), right: 190.0 },
    Form { size: Size::Phone, bins: 60, step: 66.0, curve: 34.0, left: None, right: 8.0 },
];

/// One curve per exit reason over one axis, each scaled to its own peak.
fn ridges_in(form: &Form, report: &Report, figure: Figure, rows: &[&Row]) -> Markup {
    let histograms: Vec<_> = rows.iter().map(|r| &r.series[figure]).collect();
    let Some((low, high)) = density::range(&histograms) else { return Markup::default() };
    let axis = Axis::log(low, high);
    let title = ridges_title(report, figure);
    let scale = Scale { axis, unit: figure.unit(), title: "time, logarithmic" };
    let label = |row: &&&Row| form.left.map_or(String::new(), |_| shortened(&row.group[0], 21));
    let labels = rows.iter().map(|row| label(&row)).collect();
    let rows_of = Rows { labels, step: form.step, left: form.left.unwrap_or(4.0), right: form.right };
    let id = format!("ridges-{}-{}", figure.name(), form.size.name());
    let mut chart = Chart::rows(id, &title, scale, rows_of).sized(form.size);
    let mut words = Vec::new();
    for (at, (row, histogram)) in rows.iter().zip(&histograms).enumerate() {
        let bottom = chart.row(at) + form.step / 2.0 - 6.0;
        draw_curve(&mut chart, histogram, &axis, bottom, form);
        let (Some(p50), Some(p99)) = (histogram.quantile(0.5), histogram.quantile(0.99)) else { continue };
        // A percentile that so few values do not carry has no tick.
        let [p50, p99] = [(p50, Stat::P50, "interval"), (p99, Stat::P99, "mark dark")].map(|(ns, stat, class)| {
            if !stat.is_carried(histogram.count()) {
                return "-".to_owned();
            }
            let (x, top) = (chart.x(ns as f64), bottom - form.curve);
            chart.path(class, &format!("M{x:.1} {top:.1}v{:.1}", form.curve + 3.0));
            human(Some(ns as f64), figure.unit())
        });
        if form.left.is_some() {
            let (right, middle) = (chart.x(high) + 12.0, chart.row(at));
            let values = format!("of {}", grouped(histogram.count()));
            chart.text(right, middle + 4.0, "strong", &p50);
            chart.text(right + 62.0, middle + 4.0, "tick", &format!("p99 {p99}"));
            chart.text(right, middle + 18.0, "tick", &values);
        } else {
            let text = format!("{}: {p50}, p99 {p99}", shortened(&row.group[0], 21));
            chart.text(4.0, bottom - form.curve - 7.0, "", &text);
        }
        words.push(format!("{} median {p50}, p99 {p99}", row.group[0]));
    }
    chart.describe(format!("{title}: {}.", words.join("; "))).render()
}

/// Draws a density above `bottom`.
fn draw_curve(chart: &mut Chart, histogram: &Histogram, axis: &Axis, bottom: f64, form: &Form) {
    let bins = density::bins(histogram, axis, form.bins);
    let peak = bins.iter().fold(f64::MIN_POSITIVE, |a, &b| a.max(b));
    let corners: Vec<_> = density::stairs(&bins, axis)
        .iter()
        .map(|(x, y)| format!("{:.1} {:.1}", chart.x(*x), bottom - y / peak * form.curve))
        .collect();
    let (from, to) = (chart.x(axis.value(0.0)), chart.x(axis.value(1.0)));
    let path = format!("M{from:.1} {bottom:.1}L{}L{to:.1} {bottom:.1}", corners.join("L"));
    chart.path("curve", &path);
}

fn ridges_table(report: &Report, figure: Figure, rows: &[&Row]) -> Markup {
    let mut columns = vec![Heading::word("exit reason"), Heading::number(counted(figure))];
    columns.extend(Stat::ALL.map(|s| Heading::number(s.title().to_lowercase())));
    let caption = format!("{}: the numbers", ridges_title(report, figure));
    let mut table = Table::new(format!("ridges-{}-table", figure.name()), caption, columns);
    for row in rows {
        let histogram = &row.series[figure];
        let mut cells: Vec<Cell> = vec![row.group[0].as_str().into(), grouped(histogram.count()).into()];
        cells.extend(Stat::ALL.map(|s| value(s, histogram, figure.unit())));
        table.row(cells);
    }
    details("The numbers behind this picture", &table.render())
}
