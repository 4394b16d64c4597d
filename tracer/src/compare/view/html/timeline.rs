//! The section of windows: each figure window by window, in the order of time.

use super::{emulated_suffix, legend};
use crate::{
    compare::{Arm, Comparison, Point, Setting, wording},
    html::{
        Markup,
        axis::Axis,
        chart::{Chart, Look, Scale},
        details, grid, join, moment, paragraph,
        table::{Heading, Table},
    },
    model::figures::{Figure, Unit, human},
};

pub(super) fn section(c: &Comparison, setting: &Setting) -> Markup {
    if c.timeline.is_empty() {
        return paragraph("n/a: there is no window.");
    }
    let time = format!("{}{}", Figure::EntryToExit.title(), emulated_suffix(setting));
    let chart = |id, title: &str, unit, of: &dyn Fn(&Point) -> Option<f64>| {
        windows(c, setting, &Series { id, title, unit, of })
    };
    let charts = [
        chart("window-p50", &format!("Median of {time}"), Unit::Ns, &|p| p.entry_to_exit.map(|e| e[0])),
        chart("window-p99", &format!("p99 of {time}"), Unit::Ns, &|p| p.entry_to_exit.map(|e| e[1])),
        chart("window-pins", "Pin writes per entry", Unit::Count, &|p| p.pin_writes),
        chart("window-rate", "Entries per second", Unit::PerSecond, &rate),
    ];
    join([grid(&charts), details("The numbers behind these pictures", &table(c, setting))])
}

fn rate(p: &Point) -> Option<f64> {
    (p.length_ns > 0).then(|| p.entries as f64 * 1e9 / p.length_ns as f64)
}

fn table(c: &Comparison, setting: &Setting) -> Markup {
    let columns = vec![
        Heading::number("window"),
        Heading::word("side"),
        Heading::word("start"),
        Heading::number("length"),
        Heading::number("entries"),
        Heading::number("entries/s"),
        Heading::number("p50"),
        Heading::number("p99"),
        Heading::number("pin writes/entry"),
    ];
    let figure = Figure::EntryToExit.heading();
    let caption = format!("Windows in the order of time; p50 and p99 are of {figure}{}", emulated_suffix(setting));
    let mut table = Table::new("windows", caption, columns);
    for (at, p) in c.timeline.iter().enumerate() {
        table.row(vec![
            (at + 1).to_string(),
            if p.arm == Arm::A { "A" } else { "B" }.into(),
            moment::utc(p.start_unix_ns),
            human(Some(p.length_ns as f64), Unit::Ns),
            p.entries.to_string(),
            human(rate(p), Unit::PerSecond),
            human(p.entry_to_exit.map(|e| e[0]), Unit::Ns),
            human(p.entry_to_exit.map(|e| e[1]), Unit::Ns),
            human(p.pin_writes, Unit::Count),
        ]);
    }
    table.render()
}

/// A value of every window, as a picture.
struct Series<'a> {
    id: &'a str,
    title: &'a str,
    unit: Unit,
    of: &'a dyn Fn(&Point) -> Option<f64>,
}

/// A point per window, in the order of time. Times do not start at 0, because the differences are small.
fn windows(c: &Comparison, setting: &Setting, series: &Series<'_>) -> Markup {
    let Series { id, title, unit, of } = *series;
    let values: Vec<_> = c.timeline.iter().map(|p| (p.arm, of(p))).collect();
    let known: Vec<f64> = values.iter().filter_map(|v| v.1).collect();
    if known.is_empty() {
        return paragraph(&format!("{title}: n/a, not known in these windows."));
    }
    let low = known.iter().copied().fold(f64::INFINITY, f64::min);
    let high = known.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let room = (high - low).max(high.abs() * 0.02).max(1e-3) * 0.15;
    let bottom = if unit == Unit::Count { 0.0 } else { (low - room).max(0.0) };
    let end = values.len() as f64 + 1.0;
    let x = Scale { axis: Axis::linear(0.0, end), unit: Unit::Count, title: "window, in the order of time" };
    let mut chart = Chart::new(id, title, x, Scale { axis: Axis::linear(bottom, high + room), unit, title: "" });
    let mut medians = Vec::new();
    for arm in [Arm::A, Arm::B] {
        let mut of_arm: Vec<f64> = values.iter().filter(|v| v.0 == arm).filter_map(|v| v.1).collect();
        of_arm.sort_by(f64::total_cmp);
        if let Some(median) = of_arm.get(of_arm.len() / 2) {
            chart.line(Look::from(arm), &[(0.0, Some(*median)), (end, Some(*median))]);
            medians.push(format!("{arm:?} {}", human(Some(*median), unit)));
        }
    }
    for (at, (arm, value)) in values.iter().enumerate() {
        if let Some(value) = value {
            chart.dot((*arm).into(), at as f64 + 1.0, *value);
        }
    }
    legend(&mut chart, setting);
    let words = format!(
        "{title} in {}; median of the windows: {}.",
        wording::counted(values.len() as u64, "window"),
        medians.join(", ")
    );
    chart.describe(words).render()
}
