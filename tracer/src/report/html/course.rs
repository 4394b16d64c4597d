//! The course of time as lines.

use super::{
    super::{Report, View, timeline::Point},
    emulated_suffix,
};
use crate::{
    html::{
        Markup,
        axis::Axis,
        chart::{Chart, Look, Scale},
        details, grid, join, paragraph,
        table::{Cell, Heading, Table},
    },
    model::figures::{Figure, Unit, human},
    output::grouped,
};

/// Rows of the table over time at most.
const MAX_TIMES: usize = 60;
/// Points of a line that are marked; more would hide it.
const MAX_DOTS: usize = 40;

/// Places of points along the axis of time, in seconds. Recordings may be days apart, so they follow one another without a gap.
struct Places {
    /// middle of each point
    middles: Vec<f64>,
    /// between recordings
    boundaries: Vec<f64>,
    end: f64,
}

impl Places {
    fn of(points: &[&Point]) -> Self {
        let mut places = Self { middles: Vec::with_capacity(points.len()), boundaries: Vec::new(), end: 0.0 };
        for of_one_source in points.chunk_by(|a, b| a.source == b.source) {
            let offset = places.end;
            if !places.middles.is_empty() {
                places.boundaries.push(offset);
            }
            for p in of_one_source {
                let start = offset + p.start_unix_ns.saturating_sub(of_one_source[0].start_unix_ns) as f64 / 1e9;
                places.end = places.end.max(start + p.length_ns as f64 / 1e9);
                places.middles.push(start + p.length_ns as f64 / 2e9);
            }
        }
        places
    }
}

pub(super) fn timeline(report: &Report, view: &View) -> Markup {
    let points = report.timeline.points();
    if points.is_empty() {
        return paragraph("n/a: no interval was recorded.");
    }
    let time = Time { points: &points, places: Places::of(&points) };
    let of = |value: &dyn Fn(&Point) -> Option<f64>| points.iter().map(|p| value(p)).collect::<Vec<_>>();
    let quantile = |q: f64| of(&|p| p.entry_to_exit.quantile(q).map(|v| v as f64));
    let knowledge = report.knowledge();
    let guest_time = match knowledge.figure(Figure::EntryToExit) {
        Ok(()) => {
            let title = format!("{}{}", Figure::EntryToExit.heading(), emulated_suffix(report));
            let lines = [(Look::A, "p50", quantile(0.5)), (Look::B, "p99", quantile(0.99))];
            time.draw(&Lines { id: "time-latency", title: &title, unit: Unit::Ns, log: true, lines: &lines })
        }
        Err(reason) => paragraph(&reason.to_string()),
    };
    let single =
        |id, title, unit, values| time.draw(&Lines { id, title, unit, log: false, lines: &[(Look::A, "", values)] });
    let pictures = [
        single("time-rate", "Entries per second", Unit::PerSecond, of(&Point::rate)),
        guest_time,
        match knowledge.figure(Figure::PinWrites) {
            Ok(()) => single("time-pins", "Pin writes per entry", Unit::Count, of(&Point::pin_writes_per_entry)),
            Err(reason) => paragraph(&format!("Pin writes per entry: n/a, {reason}.")),
        },
        if points.iter().any(|p| p.dropped > 0) {
            single("time-dropped", "Dropped entries", Unit::Count, of(&|p| Some(p.dropped as f64)))
        } else {
            paragraph("Dropped entries: none at any time.")
        },
    ];
    let note = if view.filters.is_empty() { Markup::default() } else { paragraph("Of all entries, unfiltered.") };
    join([note, grid(&pictures), details("The numbers behind these pictures", &timeline_table(report))])
}

/// A picture over time.
struct Lines<'a> {
    id: &'a str,
    title: &'a str,
    unit: Unit,
    log: bool,
    /// name in the legend, and a value per point
    lines: &'a [(Look, &'a str, Vec<Option<f64>>)],
}

/// The axis of time that all pictures share.
struct Time<'a> {
    points: &'a [&'a Point],
    places: Places,
}

impl Time<'_> {
    fn draw(&self, picture: &Lines<'_>) -> Markup {
        let Lines { id, title, unit, log, lines } = *picture;
        let known: Vec<f64> = lines.iter().flat_map(|l| l.2.iter().flatten().copied()).collect();
        if known.is_empty() {
            return paragraph(&format!("{title}: n/a, not known in this recording."));
        }
        let low = known.iter().copied().fold(f64::INFINITY, f64::min);
        let high = known.iter().copied().fold(0.0, f64::max);
        let Places { boundaries, end, .. } = &self.places;
        let x_title =
            if boundaries.is_empty() { "time since the start, s" } else { "time, s; recordings one after the other" };
        let axis = if log { Axis::log(low.max(1.0) / 1.3, high * 1.3) } else { Axis::linear(0.0, high * 1.08) };
        let x = Scale { axis: Axis::linear(0.0, *end), unit: Unit::Count, title: x_title };
        let y = Scale { axis, unit, title: if log { "time, logarithmic" } else { "" } };
        let mut chart = Chart::new(id, title, x, y);
        boundaries.iter().for_each(|b| chart.mark(*b, "mark"));
        for (look, name, values) in lines {
            self.draw_line(&mut chart, *look, values);
            if lines.len() > 1 {
                chart.legend(*look, name);
            }
        }
        let [low, high] = [low, high].map(|v| human(Some(v), unit));
        let length = human(Some(end * 1e9), Unit::Ns);
        chart.describe(format!("{title} over {length}: between {low} and {high}.")).render()
    }

    /// Draws a line that is interrupted between recordings, where nothing is known.
    fn draw_line(&self, chart: &mut Chart, look: Look, values: &[Option<f64>]) {
        let line: Vec<_> = self.places.middles.iter().copied().zip(values.iter().copied()).collect();
        let mut rest = line.as_slice();
        for recording in self.points.chunk_by(|a, b| a.source == b.source) {
            let (this, next) = rest.split_at(recording.len());
            chart.line(look, this);
            rest = next;
        }
        if line.len() <= MAX_DOTS {
            line.iter().for_each(|(x, y)| y.iter().for_each(|y| chart.dot(look, *x, *y)));
        }
    }
}

fn timeline_table(report: &Report) -> Markup {
    let headings = ["s", "entries", "entries/s", "p50", "p99", "pin writes/entry", "dropped"];
    let rows = report.timeline.at_most(MAX_TIMES);
    let merged = if rows.len() < report.timeline.points().len() { ", neighbours merged" } else { "" };
    let figure = Figure::EntryToExit.heading();
    let emulated = emulated_suffix(report);
    let caption =
        format!("Stretches of time{merged}, by their middle in seconds; p50 and p99 are of {figure}{emulated}");
    let mut table = Table::new("time-table", caption, headings.map(Heading::number).into());
    let knowledge = report.knowledge();
    for (middle, p) in Places::of(&Vec::from_iter(&rows)).middles.iter().zip(&rows) {
        let time = |q: f64| -> Cell {
            let times = knowledge.figure(Figure::EntryToExit);
            times.map(|()| human(p.entry_to_exit.quantile(q).map(|v| v as f64), Unit::Ns)).into()
        };
        let pin_writes = knowledge.figure(Figure::PinWrites);
        table.row([
            format!("{middle:.1}").into(),
            grouped(p.entries).into(),
            human(p.rate(), Unit::PerSecond).into(),
            time(0.5),
            time(0.99),
            pin_writes.map(|()| human(p.pin_writes_per_entry(), Unit::Count)).into(),
            grouped(p.dropped).into(),
        ]);
    }
    table.render()
}
