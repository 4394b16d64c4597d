//! The detail pane: panels in as many columns as there is room for.

use tracer_common::rules::TimerCause;

use super::{
    distribution, panels,
    pen::{Pen, cells},
};
use crate::{
    model::{figures::Figure, policy::Policy},
    tui::{App, budget, detail::Detail, node::Node},
};

type Draw = fn(&mut Pen, &App, &Detail);

/// A panel: the least lines that it is drawn in, and the most that it has a use for; 0 of one that says nothing about this row.
struct Panel {
    least: u16,
    most: fn(&App, &Detail) -> u16,
    draw: Draw,
}

const HOST: Panel = Panel { least: 5, most: |_, _| 24, draw: distribution::host };
const GUEST: Panel = Panel { least: 5, most: |_, _| 24, draw: distribution::guest };
const SERIES: Panel = Panel { least: 5, most: |_, _| 12, draw: panels::series };
const SPECTRUM: Panel = Panel { least: 6, most: |_, _| 11, draw: panels::spectrum };
const PIN_WRITES: Panel = Panel { least: 3, most: pin_lines, draw: panels::pin_writes };
const REASONS: Panel = Panel { least: 4, most: reason_lines, draw: panels::reasons };
const DETAILS: Panel = Panel { least: 2, most: detail_lines, draw: panels::details };
const BUDGET: Panel = Panel { least: 4, most: budget_lines, draw: panels::budget };
const UNTIMELY: Panel = Panel { least: 3, most: untimely_lines, draw: panels::untimely };

/// Lines of a title, some rows and a gap.
fn lines(rows: usize) -> u16 {
    cells(rows).saturating_add(2)
}

fn pin_lines(app: &App, detail: &Detail) -> u16 {
    let says = detail.dirty.count() > 0 || app.info.policy == Policy::Hard;
    if says { lines(detail.sum.series[Figure::PinWrites].len().min(8)) } else { 0 }
}

fn reason_lines(_: &App, detail: &Detail) -> u16 {
    if matches!(detail.node, Node::Exit(..) | Node::Detail(..)) { 0 } else { lines(detail.reasons.len()) }
}

fn detail_lines(_: &App, detail: &Detail) -> u16 {
    if matches!(detail.node, Node::Exit(..)) { lines(detail.details.len()) } else { 0 }
}

fn budget_lines(app: &App, detail: &Detail) -> u16 {
    match budget::parts(&detail.sum, &app.info.knowledge) {
        Ok(parts) if parts.len() > 2 => lines(parts.len().div_ceil(2) + budget::unknown(&app.info.knowledge).count()),
        _ => 0,
    }
}

fn untimely_lines(_: &App, detail: &Detail) -> u16 {
    let has_some = TimerCause::ALL.into_iter().any(|cause| detail.sum.timer_exits(cause).is_ok_and(|n| n > 0));
    if has_some { lines(detail.untimely.len()) } else { 0 }
}

/// Lines of the detail from which on the time series has a place of its own below the columns.
const SERIES_FROM: u16 = 18;

/// Draws the detail of the selected row.
pub(super) fn draw(pen: &mut Pen, app: &mut App) {
    app.prepare_detail();
    let Some(detail) = &app.seen.detail else { return };
    pen.rule(0, &format!("{}: {}", detail.name, app.window.name()));
    let columns: &[&[&Panel]] = match pen.width() {
        0..=71 => &[&[&BUDGET, &REASONS, &DETAILS, &HOST, &SERIES, &SPECTRUM, &GUEST, &PIN_WRITES, &UNTIMELY]],
        72..=149 => &[&[&HOST, &GUEST], &[&BUDGET, &REASONS, &DETAILS, &SPECTRUM, &PIN_WRITES, &UNTIMELY]],
        _ => &[&[&HOST, &GUEST], &[&REASONS, &DETAILS, &SPECTRUM], &[&BUDGET, &PIN_WRITES, &UNTIMELY]],
    };
    let (height, many) = (pen.height().saturating_sub(1), cells(columns.len()));
    let series = if many > 1 && height >= SERIES_FROM {
        (height / 4).clamp(SERIES.least, (SERIES.most)(app, detail))
    } else {
        0
    };
    let width = (pen.width() + 1).saturating_sub(2 * many) / many;
    for (at, panels) in columns.iter().enumerate() {
        let x = 1 + cells(at) * (width + 2);
        stack(&mut pen.part(x, 1, width, height - series), panels, app, detail);
    }
    if series > 0 {
        let width = pen.width().saturating_sub(2);
        (SERIES.draw)(&mut pen.part(1, 1 + height - series, width, series), app, detail);
    }
}

/// Draws panels one below another: each gets its least height if there is room, then one more line in turn while there are some.
fn stack(pen: &mut Pen, panels: &[&Panel], app: &App, detail: &Detail) {
    let mut left = pen.height();
    let mut heights = Vec::new();
    let most: Vec<u16> = panels.iter().map(|panel| (panel.most)(app, detail)).collect();
    for (panel, most) in panels.iter().zip(&most) {
        let least = panel.least.min(*most);
        let least = if least > left { 0 } else { least };
        heights.push(least);
        left -= least;
    }
    while left > 0 {
        let before = left;
        for (height, most) in heights.iter_mut().zip(&most) {
            if (1..*most).contains(height) && left > 0 {
                *height += 1;
                left -= 1;
            }
        }
        if left == before {
            break;
        }
    }
    let mut y = 0;
    for (height, panel) in heights.into_iter().zip(panels).filter(|(height, _)| *height > 0) {
        (panel.draw)(&mut pen.part(0, y, pen.width(), height), app, detail);
        y += height;
    }
}
