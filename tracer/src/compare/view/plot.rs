//! Pictures of a comparison in characters: the shift function as bars, and both cumulative distributions.

use std::fmt::Write as _;

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Color,
    symbols::Marker,
    widgets::{
        Widget,
        canvas::{Canvas, Line},
    },
};

use super::wording;
use crate::{
    compare::{Distributions, Shift},
    html::{
        axis::{Axis, label},
        density,
    },
    model::{
        figures::{Unit, human},
        number::truncated_usize,
    },
};

/// Lines of the cumulative distributions.
const HEIGHT: u16 = 13;

/// The shift function: B - A at each quantile as a number and a bar, with its interval in brackets.
pub(crate) fn shifts(d: &Distributions, width: usize) -> String {
    let share = |s: &Shift, v: f64| if s.a > 0.0 { v / s.a } else { 0.0 };
    // One extreme quantile must not flatten the other bars: its own is cut, with an arrow.
    let mut sizes: Vec<_> = d.shifts.iter().map(|s| share(s, s.difference.value).abs()).collect();
    sizes.sort_by(|a, b| b.total_cmp(a));
    let largest = sizes.first().copied().unwrap_or(0.0);
    let limit = (sizes.get(1).copied().unwrap_or(largest) * 1.5).clamp(0.001, largest.max(0.001) * 1.25);
    let numbers: Vec<[String; 4]> = d
        .shifts
        .iter()
        .map(|s| {
            let value = share(s, s.difference.value);
            [
                quantile(s.quantile),
                human(Some(s.a), d.figure.unit()),
                wording::signed(s.difference.value, d.figure.unit()),
                if s.a > 0.0 { wording::percent(value) } else { "n/a".into() },
            ]
        })
        .collect();
    let head = ["QUANTILE", "A", "B - A", "CHANGE"].map(str::to_owned);
    let wide = |c: usize| numbers.iter().chain([&head]).map(|n| n[c].chars().count()).max().unwrap_or(0);
    let widths: [usize; 4] = std::array::from_fn(wide);
    let text = |cells: &[String; 4]| {
        let cells: Vec<_> = cells.iter().zip(widths).map(|(cell, w)| format!("{cell:>w$}")).collect();
        cells.join("  ")
    };
    let room = width.saturating_sub(widths.iter().sum::<usize>() + 9).clamp(21, 61);
    let room = room - (1 - room % 2);
    let scale = format!("{:<half$}0{:>half$}", wording::percent(-limit), wording::percent(limit), half = room / 2);
    let mut out = format!("{}   {scale}\n", text(&head));
    for (shift, numbers) in d.shifts.iter().zip(&numbers) {
        let [low, high] = [shift.difference.low, shift.difference.high].map(|b| b.map(|b| share(shift, b)));
        let bar = bar(room, limit, share(shift, shift.difference.value), low, high);
        let _ = writeln!(out, "{}", format!("{}   {bar}", text(numbers)).trim_end());
    }
    out
}

fn quantile(q: f64) -> String {
    let text = format!("{:.3}", q * 100.0);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// A bar of `room` characters, an odd number: 0 in the middle, `limit` at either end.
fn bar(room: usize, limit: f64, value: f64, low: Option<f64>, high: Option<f64>) -> String {
    let middle = room / 2;
    let at = |v: f64| truncated_usize((middle as f64 + (v / limit).clamp(-1.0, 1.0) * middle as f64).round());
    let mut cells = vec![' '; room];
    let (from, to) = (at(low.unwrap_or(value)), at(high.unwrap_or(value)));
    cells[from..=to].fill('-');
    let end = at(value);
    cells[end.min(middle)..=end.max(middle)].fill('\u{2588}');
    cells[middle] = '\u{2502}';
    for (bound, cell, inside) in [(low, from, '['), (high, to, ']')] {
        if let Some(bound) = bound {
            cells[cell] = if bound > limit * 1.001 {
                '>'
            } else if bound < -limit * 1.001 {
                '<'
            } else {
                inside
            };
        }
    }
    cells.into_iter().collect()
}

/// Both cumulative distributions over one logarithmic axis: A as a fine line, B as crosses, so that no colour is needed.
pub(crate) fn cdfs(d: &Distributions, width: usize) -> String {
    const LEFT: usize = 6;
    let Some((low, high)) = density::range(&[&d.a, &d.b]) else { return String::new() };
    // The last thousandth may be far away; the table shows it.
    let near = [&d.a, &d.b].iter().filter_map(|h| h.quantile(0.999)).max().map_or(high, |v| v as f64 * 1.05);
    let axis = Axis::log(low, near.clamp(low * 1.1, high.max(low * 1.1)));
    let columns = u16::try_from(width.saturating_sub(LEFT + 1)).unwrap_or(u16::MAX).clamp(40, 100);
    let fine = drawn(&density::cdf(&d.a, 400), &axis, columns, Marker::Braille);
    let crosses = drawn(&density::cdf(&d.b, 400), &axis, columns, Marker::Dot);
    let mut out = String::from("share of values up to\u{2026}   A: fine line   B: +   both: *\n");
    for y in 0..HEIGHT {
        let share = 100.0 * f64::from(HEIGHT - 1 - y) / f64::from(HEIGHT - 1);
        let tick =
            if y == 0 || y == HEIGHT - 1 || y == (HEIGHT - 1) / 2 { format!("{share:.0}%") } else { String::new() };
        let mut line = format!("{tick:>5} ");
        for x in 0..columns {
            let is_drawn =
                |buffer: &Buffer| buffer.cell((x, y)).is_some_and(|c| c.symbol() != " " && c.symbol() != "\u{2800}");
            line += match (is_drawn(&fine), is_drawn(&crosses)) {
                (true, true) => "*",
                (false, true) => "+",
                (true, false) => fine.cell((x, y)).map_or(" ", |c| c.symbol()),
                (false, false) => " ",
            };
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    let _ = writeln!(out, "{}{}", " ".repeat(LEFT), labels(&axis, d.figure.unit(), columns));
    out
}

/// The labels below an axis, as many as fit.
fn labels(axis: &Axis, unit: Unit, columns: u16) -> String {
    let mut labels = vec![' '; usize::from(columns)];
    let mut free = 0;
    for tick in axis.ticks(usize::from(columns) / 9) {
        let text = label(tick, unit);
        let length = text.chars().count();
        let at = truncated_usize((axis.share(tick) * f64::from(columns - 1)).round());
        let at = at.saturating_sub(length / 2).min(labels.len().saturating_sub(length));
        if at >= free {
            text.chars().enumerate().for_each(|(n, c)| labels[at + n] = c);
            free = at + length + 1;
        }
    }
    labels.into_iter().collect::<String>().trim_end().to_owned()
}

fn drawn(points: &[(f64, f64)], axis: &Axis, columns: u16, marker: Marker) -> Buffer {
    let area = Rect::new(0, 0, columns, HEIGHT);
    let mut buffer = Buffer::empty(area);
    let canvas = Canvas::default().marker(marker).x_bounds([0.0, 1.0]).y_bounds([0.0, 1.0]).paint(|context| {
        let mut last = (0.0, 0.0);
        for (value, share) in points {
            let next = (axis.share(*value), *share);
            let line = |from: (f64, f64), to: (f64, f64)| Line::new(from.0, from.1, to.0, to.1, Color::Reset);
            // A staircase: the share is constant until the next value.
            context.draw(&line(last, (next.0, last.1)));
            context.draw(&line((next.0, last.1), next));
            last = next;
        }
        context.draw(&Line::new(last.0, last.1, 1.0, last.1, Color::Reset));
    });
    canvas.render(area, &mut buffer);
    buffer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::fixture::comparison;

    #[test]
    fn bars_lie_on_the_side_of_their_sign() {
        assert_eq!(bar(11, 1.0, 0.6, Some(0.4), Some(0.8)), "     \u{2502}\u{2588}[\u{2588}] ");
        assert_eq!(bar(11, 1.0, -0.4, Some(-0.6), Some(0.2)), "  [\u{2588}\u{2588}\u{2502}]    ");
        assert_eq!(bar(11, 1.0, 0.2, Some(-5.0), Some(5.0)), "<----\u{2502}\u{2588}--->");
        assert_eq!(bar(11, 1.0, 0.0, None, None), "     \u{2502}     ");
    }

    #[test]
    fn both_distributions_are_distinct_without_colour() {
        let c = comparison();
        let text = cdfs(&c.distributions[0], 80);
        assert!(text.contains('+') && text.contains(|c| ('\u{2801}'..='\u{28ff}').contains(&c)), "{text}");
        assert!(text.contains("100%") && text.contains("  0%"));
        assert!(text.lines().last().unwrap().contains("2us"), "{text}");
    }

    #[test]
    fn every_quantile_has_its_line() {
        let c = comparison();
        let text = shifts(&c.distributions[0], 80);
        assert_eq!(text.lines().count(), c.distributions[0].shifts.len() + 1);
        assert!(text.contains("99.9%"), "{text}");
    }
}
