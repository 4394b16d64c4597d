//! The panels of the detail pane.

use tracer_common::rules::TimerCause;

use super::{
    chart,
    pen::{Pen, cells, width_of},
};
use crate::{
    model::{figures::Figure, histogram::Histogram},
    tui::{
        App,
        columns::{COLUMNS, Units, short},
        detail::Detail,
    },
};

/// Width of a time.
const TIME: u16 = 7;

fn title(pen: &mut Pen, text: &str) -> u16 {
    let style = pen.palette.accent();
    pen.put(0, 0, text, style)
}

fn time(ns: Option<u64>, units: Units) -> String {
    ns.map_or("n/a".into(), |ns| units.time(ns as f64, TIME))
}

/// Guest time of clean and dirty entries over one logarithmic axis, each as shares of its entries.
pub(super) fn histogram(pen: &mut Pen, app: &App, detail: &Detail) {
    let p = pen.palette;
    let (width, height) = (pen.width(), pen.height());
    let x = title(pen, Figure::EntryToExit.title());
    if let Err(reason) = app.info.knowledge.figure(Figure::EntryToExit) {
        pen.put(x + 2, 0, &format!("n/a: {reason}"), p.quiet());
        return;
    }
    let plain = if detail.clean.count() > 0 || detail.dirty.count() > 0 { &detail.clean } else { &detail.unknown };
    let name = if std::ptr::eq(plain, &detail.clean) { "clean" } else { "all" };
    let x = pen.put(x + 2, 0, p.glyph("█", "#"), p.clean());
    let counted = |name: &str, h: &Histogram| match width {
        0..44 => name.to_owned(),
        _ => format!("{name} {}", short(h.count() as f64)),
    };
    let x = pen.put(x + 1, 0, &counted(name, plain), p.quiet());
    if detail.dirty.count() > 0 {
        let x = pen.put(x + 2, 0, p.glyph("●", "o"), p.dirty());
        pen.put(x + 1, 0, &counted("dirty", &detail.dirty), p.quiet());
    }
    let both = [plain, &detail.dirty];
    let low = both.iter().filter_map(|h| h.min()).min().unwrap_or(1).max(1) as f64;
    let high = both.iter().filter_map(|h| h.max()).max().unwrap_or(1).max(1) as f64;
    // At least a factor of 2, so that a single value stands in the middle.
    let (low, high) = if high < low * 2.0 { (low / 1.5, high * 1.5) } else { (low, high * 1.02) };
    if width < 8 || height < 4 {
        return;
    }
    let [clean, dirty] = both.map(|h| shares(h, low, high, usize::from(width)));
    let highest = clean.iter().chain(&dirty).fold(f64::MIN_POSITIVE, |a, &b| a.max(b));
    let mut area = pen.part(0, 1, width, height - 3);
    for (x, (clean, dirty)) in (0..width).zip(clean.into_iter().zip(dirty)) {
        chart::column(&mut area, x, clean / highest, p.clean());
        if dirty > 0.0 {
            let y = chart::line_of(&area, dirty / highest);
            area.put(x, y, p.glyph("●", "o"), p.dirty());
        }
    }
    pen.fill(0..width, height - 2, p.glyph("─", "-"), p.quiet());
    let at = |share: f64| app.units.time(low * (high / low).powf(share), TIME);
    let y = height - 1;
    pen.put(0, y, &at(0.0), p.quiet());
    for quarter in 1..4 {
        let x = width * quarter / 4;
        let label = at(f64::from(x) / f64::from(width));
        if width >= 36 || quarter == 2 {
            pen.put(x.saturating_sub(width_of(&label) / 2), y, &label, p.quiet());
        }
    }
    pen.put_right(width, y, &at(1.0), p.quiet());
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

/// The chosen figure over the latest intervals.
pub(super) fn series(pen: &mut Pen, app: &App, detail: &Detail) {
    let p = pen.palette;
    let column = &COLUMNS[app.figure];
    let values: Vec<_> = detail.latest.iter().map(|v| v[app.figure]).collect();
    let x = title(pen, &column.full_name());
    let last = values.last().copied().flatten();
    let x = pen.put(x + 2, 0, &column.text(last, app.units), p.plain());
    let (width, height) = (pen.width(), pen.height());
    let highest = chart::bars(&mut pen.part(0, 1, width, height.saturating_sub(2)), &values, p.clean());
    pen.put(x + 2, 0, &format!("top {}", column.text((highest > 0.0).then_some(highest), app.units)), p.quiet());
    let shown: f64 =
        app.seen.latest.iter().rev().take(usize::from(width)).map(|s| s.interval.length_ns as f64 / 1e9).sum();
    let y = height.saturating_sub(1);
    pen.put(0, y, &format!("{shown:.0} s, by interval; f: next figure"), p.quiet());
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
    title(pen, "percentiles");
    let of: [(&str, &Histogram); 6] = [
        (Figure::EntryToExit.title(), &detail.sum.series[Figure::EntryToExit]),
        ("clean", &detail.clean),
        ("dirty", &detail.dirty),
        (Figure::ExitToEntry.title(), &detail.sum.series[Figure::ExitToEntry]),
        // transition_ns
        ("t:clean", &detail.transition[0]),
        ("t:dirty", &detail.transition[1]),
    ];
    let right = |at: usize| match at {
        0 => 22,
        3 => 22 + 2 * 8 + 11,
        4.. => 22 + 2 * 8 + 11 + 8 * (cells(at) - 3),
        at => 22 + 8 * cells(at),
    };
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
            let style = if value.is_none() { p.quiet() } else { p.plain() };
            pen.put_right(right(at), y, &time(value, app.units), style);
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

/// Exit reasons: share of entries, median guest time, median host time.
pub(super) fn reasons(pen: &mut Pen, app: &App, detail: &Detail) {
    let p = pen.palette;
    title(pen, "exit reasons");
    let width = pen.width();
    let name = width.saturating_sub(26).min(26);
    pen.put_right(name + 7, 0, "share", p.quiet());
    pen.put_right(name + 17, 0, "guest p50", p.quiet());
    pen.put_right(name + 26, 0, "host p50", p.quiet());
    let whole = detail.sum.series.entries().max(1) as f64;
    let lines = usize::from(pen.height().saturating_sub(1));
    for (line, reason) in detail.reasons.iter().take(lines).enumerate() {
        let y = 1 + cells(line);
        let share = reason.series.entries() as f64 / whole;
        pen.put_cut(1, y, &reason.name, name.saturating_sub(1), p.plain());
        pen.put_right(name + 7, y, &format!("{:.1}%", share * 100.0), p.plain());
        pen.put_right(name + 17, y, &time(reason.series[Figure::EntryToExit].quantile(0.5), app.units), p.plain());
        pen.put_right(name + 26, y, &time(reason.series[Figure::ExitToEntry].quantile(0.5), app.units), p.plain());
        if width > name + 34 {
            chart::share(pen, name + 28, y, width - name - 28, share, p.clean());
        }
    }
}

/// The last spurious timer exits with their guest times, and the last early ones with the time that remained.
pub(super) fn untimely(pen: &mut Pen, app: &App, detail: &Detail) {
    let p = pen.palette;
    let x = title(pen, "last spurious and early timer exits");
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
        pen.put_right(31 + TIME, y, &time(Some(exit.ns), app.units), p.dirty());
        if exit.count > 1 {
            pen.put(40, y, &format!("x{}", exit.count), p.quiet());
        }
    }
}
