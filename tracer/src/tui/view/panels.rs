//! The panels of the detail pane.

use tracer_common::rules::TimerCause;

use super::{
    budget::percent,
    chart,
    pen::{Pen, cells, width_of},
};
use crate::{
    model::{
        figures::{Figure, Stat, is_carried},
        histogram::Histogram,
        knowledge::Subject,
    },
    tui::{
        App, budget,
        columns::{COLUMNS, HOST_TIME, TOO_FEW, Units, short},
        detail::{Detail, Reason},
        weight::Weight,
    },
};

pub(super) fn title(pen: &mut Pen, text: &str) -> u16 {
    let style = pen.palette.accent();
    pen.put(0, 0, text, style)
}

fn time(ns: Option<u64>, units: Units) -> String {
    ns.map_or("n/a".into(), |ns| units.time(ns as f64))
}

/// The chosen figure over the latest intervals.
pub(super) fn series(pen: &mut Pen, app: &App, detail: &Detail) {
    let p = pen.palette;
    let column = &COLUMNS[app.figure];
    let values: Vec<_> = detail.latest.iter().map(|v| v[app.figure]).collect();
    let x = title(pen, &column.full_name());
    let last = values.last().copied().flatten();
    let x = pen.put(x + 2, 0, &column.text(last, app.units), p.plain());
    let (width, height) = (pen.width(), pen.height());
    let (highest, drawn) = chart::bars(&mut pen.part(0, 1, width, height.saturating_sub(2)), &values, p.host());
    let highest = format!("top {}", column.text((highest > 0.0).then_some(highest), app.units));
    let x = pen.put(x + 2, 0, &highest, p.quiet());
    pen.put(x + 2, 0, "f: next figure", p.quiet());
    let shown: f64 = app.seen.latest.iter().rev().take(drawn).map(|s| s.interval.length_ns as f64 / 1e9).sum();
    let y = height.saturating_sub(1);
    let each = width / cells(drawn.max(1));
    let left = width.saturating_sub(each * cells(drawn));
    pen.put(left, y, &format!("-{shown:.0} s"), p.quiet());
    pen.put_right(width, y, if app.end.is_some() { "end of the window" } else { "now" }, p.quiet());
}

const QUANTILES: [(&str, f64, bool); 9] = [
    ("min", 0.0, false),
    ("p25", 0.25, false),
    ("p50", 0.5, true),
    ("p75", 0.75, false),
    ("p90", 0.9, true),
    ("p99", 0.99, true),
    ("p99.9", 0.999, true),
    ("p99.99", 0.9999, false),
    ("max", 1.0, true),
];

/// Percentiles of guest time, of that of clean and of dirty entries, of host time and of transitions.
pub(super) fn spectrum(pen: &mut Pen, app: &App, detail: &Detail) {
    let p = pen.palette;
    title(pen, "percentile");
    let of: [(&str, &Histogram); 6] = [
        (Figure::ExitToEntry.title(), &detail.sum.series[Figure::ExitToEntry]),
        (Figure::EntryToExit.title(), &detail.sum.series[Figure::EntryToExit]),
        ("clean", &detail.clean),
        ("dirty", &detail.dirty),
        // transition_ns
        ("t:clean", &detail.transition[0]),
        ("t:dirty", &detail.transition[1]),
    ];
    let each = app.units.width() + 1;
    // The names of the first two are longer than a time may be.
    let wide = |at: usize| if at < 2 { each.max(11) } else { each };
    let right = |at: usize| 10 + (0..=at).map(wide).sum::<u16>();
    // Without the stopwatch, rows without a transition have no such columns.
    let known = if detail.sum.series[Figure::Transition].count() > 0 { of.len() } else { 4 };
    let fits = of.iter().enumerate().take(known).filter(|(at, _)| right(*at) <= pen.width()).count();
    for (at, (name, _)) in of.iter().enumerate().take(fits) {
        pen.put_right(right(at), 0, name, p.quiet());
    }
    let lines = pen.height().saturating_sub(1);
    let all = usize::from(lines) > QUANTILES.len();
    for (line, (name, q, _)) in QUANTILES.iter().filter(|(_, _, short)| all || *short).enumerate() {
        let y = 1 + cells(line);
        pen.put(1, y, name, p.quiet());
        for (at, (_, histogram)) in of.iter().enumerate().take(fits) {
            let value = if *q == 0.0 { histogram.min() } else { histogram.quantile(*q) };
            let carried = *q == 0.0 || is_carried(*q, histogram.count());
            let (text, style) = match value {
                Some(_) if !carried => (TOO_FEW.to_owned(), p.quiet()),
                None => ("n/a".into(), p.quiet()),
                Some(ns) => (app.units.time(ns as f64), p.plain()),
            };
            pen.put_right(right(at), y, &text, style);
        }
    }
}

/// Number of entries by number of pin writes.
pub(super) fn pin_writes(pen: &mut Pen, app: &App, detail: &Detail) {
    let p = pen.palette;
    let histogram = &detail.sum.series[Figure::PinWrites];
    let x = title(pen, "pin writes per entry");
    let lines = usize::from(pen.height().saturating_sub(1));
    if histogram.count() == 0 {
        let reason = app.info.knowledge.figure(Figure::PinWrites).err();
        pen.put(x + 2, 0, &reason.map_or("n/a".into(), |reason| format!("n/a: {reason}")), p.quiet());
        return;
    }
    let width = pen.width().saturating_sub(22);
    for (line, (value, _, count)) in histogram.buckets().take(lines).enumerate() {
        let y = 1 + cells(line);
        let share = count as f64 / histogram.count() as f64;
        let style = if value == 0 { p.clean() } else { p.dirty() };
        pen.put_right(4, y, &value.to_string(), p.plain());
        pen.put_right(13, y, &short(count as f64), p.plain());
        pen.put_right(20, y, &format!("{:.1}%", share * 100.0), p.quiet());
        chart::share(pen, 22, y, width, share, style);
    }
}

/// Exit reasons: shares of the row's host time and exits, mean host time.
pub(super) fn reasons(pen: &mut Pen, app: &App, detail: &Detail) {
    ranked(pen, app, "exit reasons", &detail.reasons);
}

/// Details of the exits of a reason, in the same columns.
pub(super) fn details(pen: &mut Pen, app: &App, detail: &Detail) {
    if let Err(reason) = app.info.knowledge.known(Subject::Detail) {
        let x = title(pen, "details");
        pen.put(x + 2, 0, &format!("n/a: {reason}"), pen.palette.quiet());
        return;
    }
    ranked(pen, app, "details", &detail.details);
}

/// Guest time and the parts of the host time, in two columns: share of the row's time, and per second of the window where there is room.
pub(super) fn budget(pen: &mut Pen, app: &App, detail: &Detail) {
    let p = pen.palette;
    let x = title(pen, "time");
    let parts = match budget::parts(&detail.sum, &app.info.knowledge) {
        Ok(parts) => parts,
        Err(reason) => {
            pen.put(x + 2, 0, &format!("n/a: {reason}"), p.quiet());
            return;
        }
    };
    let whole = parts.iter().map(|part| part.ns).fold(0, u64::saturating_add).max(1);
    let width = pen.width();
    let each = width / 2;
    let per_second = 17 + app.units.width().max(10);
    let has_rates = per_second < each;
    let lines = cells(parts.len().div_ceil(2));
    for at in 0..2 {
        pen.put_right(at * each + 15, 0, "TIME%", p.quiet());
        if has_rates {
            pen.put_right(at * each + per_second, 0, "per second", p.quiet());
        }
    }
    for (at, part) in (0..).zip(&parts) {
        let (x, y) = (at / lines * each, 1 + at % lines);
        let (unicode, ascii) = part.kind.glyph();
        pen.put(x, y, p.glyph(unicode, ascii), part.kind.style(p));
        pen.put(x + 2, y, part.kind.name(), p.plain());
        pen.put_right(x + 15, y, &percent(part.ns as f64 / whole as f64), p.plain());
        if has_rates {
            let ns = (detail.sum.seconds > 0.0).then(|| part.ns as f64 / detail.sum.seconds);
            pen.put_right(x + per_second, y, &ns.map_or("n/a".into(), |ns| app.units.time(ns)), p.plain());
        }
    }
    let rest = parts.get(1).map_or("kernel", |part| part.kind.name());
    for ((phase, reason), y) in budget::unknown(&app.info.knowledge).zip(1 + lines..) {
        let text = format!("{}: n/a ({reason}); it is in the {rest}'s", phase.name());
        pen.put_cut(1, y, &text, width.saturating_sub(1), p.quiet());
    }
}

/// Shares of host time and exits, and mean host time, of what has most of it.
fn ranked(pen: &mut Pen, app: &App, name: &str, rows: &[Reason]) {
    let p = pen.palette;
    let lines = usize::from(pen.height().saturating_sub(1));
    let more = match rows.len().saturating_sub(lines) {
        0 => String::new(),
        more => format!("{more} more"),
    };
    let x = title(pen, name);
    let width = pen.width();
    let times = app.units.width();
    let has_mean = width >= 40 + times;
    let name = width.saturating_sub(if has_mean { 19 + times.max(9) } else { 16 }).min(26);
    pen.put_right(name + 8, 0, "TIME%", p.quiet());
    pen.put_right(name + 15, 0, "EXIT%", p.quiet());
    let mean_end = name + 17 + times.max(9);
    if has_mean {
        pen.put_right(mean_end, 0, "host mean", p.quiet());
    }
    let end = if has_mean { mean_end } else { name + 15 };
    // Beside the title, or right of the columns' titles.
    if x + 2 + width_of(&more) < name + 2 {
        pen.put(x + 2, 0, &more, p.quiet());
    } else if end + 2 + width_of(&more) <= width {
        pen.put_right(width, 0, &more, p.quiet());
    }
    let sum = |of: fn(&Weight) -> u64| rows.iter().map(|r| of(&r.weight)).fold(0, u64::saturating_add);
    let (host_ns, exits) = (sum(|w| w.host_ns), sum(|w| w.exits));
    let is_timed = app.info.knowledge.figure(Figure::ExitToEntry).is_ok();
    let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
    for (line, reason) in rows.iter().take(lines).enumerate() {
        let y = 1 + cells(line);
        let time_share = share(reason.weight.host_ns, host_ns).filter(|_| is_timed && reason.weight.handled > 0);
        let exit_share = share(reason.weight.exits, exits);
        let percent = |share: Option<f64>| COLUMNS[HOST_TIME].text(share.map(|s| 100.0 * s), app.units);
        pen.put_middle(1, y, &reason.name, name.saturating_sub(1), p.plain());
        pen.put_right(name + 8, y, &percent(time_share), p.plain());
        pen.put_right(name + 15, y, &percent(exit_share), p.plain());
        if has_mean {
            let mean = Stat::Mean.of(&reason.series[Figure::ExitToEntry]);
            let none = if is_timed { TOO_FEW } else { "n/a" };
            pen.put_right(mean_end, y, &mean.map_or(none.into(), |ns| app.units.time(ns)), p.plain());
        }
        if width > mean_end + 8 {
            let bar = mean_end + 2;
            chart::share(pen, bar, y, width - bar, time_share.or(exit_share).unwrap_or(0.0), p.host());
        }
    }
}

/// The last spurious timer exits with their guest times, and the last early ones with the time that remained.
pub(super) fn untimely(pen: &mut Pen, app: &App, detail: &Detail) {
    let p = pen.palette;
    let wide = "last spurious and early timer exits";
    let x = title(pen, if usize::from(pen.width()) > wide.len() + 8 { wide } else { "spurious, early exits" });
    if detail.untimely.is_empty() {
        let causes = [TimerCause::Spurious, TimerCause::Early].map(|cause| detail.sum.timer_exits(cause));
        let text = match causes {
            [Err(reason), _] => format!("n/a: {reason}"),
            [Ok(0), Ok(0)] => "none".into(),
            [Ok(0), Err(reason)] => format!("none; early n/a: {reason}"),
            [Ok(_), _] => "their times are n/a".into(),
        };
        pen.put(x + 2, 0, &text, p.quiet());
        return;
    }
    let lines = usize::from(pen.height().saturating_sub(1));
    for (line, exit) in detail.untimely.iter().take(lines).enumerate() {
        let y = 1 + cells(line);
        let vm = app.seen.names.get(&exit.vm).cloned().unwrap_or_else(|| format!("vm-{}", exit.vm));
        let ago = if exit.ago_s < 0.5 { "now".into() } else { format!("-{:.0} s", exit.ago_s) };
        pen.put_right(7, y, &ago, p.quiet());
        pen.put_cut(9, y, &format!("{vm}/{}", exit.vcpu), 12, p.plain());
        let what = if exit.cause == TimerCause::Early { "early by" } else { "guest" };
        pen.put(22, y, what, p.quiet());
        let end = 31 + app.units.width();
        pen.put_right(end, y, &time(Some(exit.ns), app.units), p.dirty());
        if exit.count > 1 {
            pen.put(end + 2, y, &format!("x{}", exit.count), p.quiet());
        }
    }
}
