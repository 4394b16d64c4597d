//! The detail pane: panels in as many columns as there is room for.

use tracer_common::rules::TimerCause;

use super::{
    distribution, panels,
    pen::{Pen, cells},
};
use crate::{
    model::policy::Policy,
    tui::{App, budget, detail::Detail, node::Node},
};

type Draw = fn(&mut Pen, &App, &Detail);

/// A panel: the least and the most lines that it is drawn in.
struct Panel {
    least: u16,
    most: u16,
    draw: Draw,
    /// whether it says something about this row
    says: fn(&App, &Detail) -> bool,
}

const HOST: Panel = Panel { least: 5, most: 24, draw: distribution::host, says: |_, _| true };
const GUEST: Panel = Panel { least: 5, most: 24, draw: distribution::guest, says: |_, _| true };
const SERIES: Panel = Panel { least: 5, most: 12, draw: panels::series, says: |_, _| true };
const SPECTRUM: Panel = Panel { least: 6, most: 11, draw: panels::spectrum, says: |_, _| true };
const PIN_WRITES: Panel = Panel {
    least: 3,
    most: 10,
    draw: panels::pin_writes,
    says: |app, detail| detail.dirty.count() > 0 || app.info.policy == Policy::Hard,
};
const REASONS: Panel =
    Panel { least: 4, most: 24, draw: panels::reasons, says: |_, detail| !matches!(detail.node, Node::Exit(..)) };
const BUDGET: Panel = Panel {
    least: 3,
    most: 9,
    draw: panels::budget,
    says: |app, detail| budget::parts(&detail.sum, &app.info.knowledge).is_ok_and(|parts| parts.len() > 2),
};
const DETAILS: Panel =
    Panel { least: 4, most: 24, draw: panels::details, says: |_, detail| matches!(detail.node, Node::Exit(..)) };
const UNTIMELY: Panel = Panel {
    least: 3,
    most: 17,
    draw: panels::untimely,
    says: |_, detail| TimerCause::ALL.into_iter().any(|cause| detail.sum.timer_exits(cause).is_ok_and(|n| n > 0)),
};

/// Lines of the detail from which on the time series has a place of its own below the columns.
const SERIES_FROM: u16 = 18;

/// Draws the detail of the selected row.
pub(super) fn draw(pen: &mut Pen, app: &mut App) {
    app.prepare_detail();
    let Some(detail) = &app.seen.detail else { return };
    pen.rule(0, &format!("{}: {}", detail.name, app.window.name()));
    let columns: &[&[&Panel]] = match pen.width() {
        0..=71 => &[&[&REASONS, &DETAILS, &HOST, &SERIES, &SPECTRUM, &GUEST, &BUDGET, &PIN_WRITES, &UNTIMELY]],
        72..=149 => &[&[&HOST, &GUEST], &[&REASONS, &DETAILS, &SPECTRUM, &BUDGET, &PIN_WRITES, &UNTIMELY]],
        _ => &[&[&HOST, &GUEST], &[&REASONS, &DETAILS, &SPECTRUM], &[&BUDGET, &PIN_WRITES, &UNTIMELY]],
    };
    let (height, many) = (pen.height().saturating_sub(1), cells(columns.len()));
    let series = if many > 1 && height >= SERIES_FROM { (height / 4).clamp(SERIES.least, SERIES.most) } else { 0 };
    let width = (pen.width() + 1).saturating_sub(2 * many) / many;
    for (at, panels) in columns.iter().enumerate() {
        let x = 1 + cells(at) * (width + 2);
        let panels: Vec<&Panel> = panels.iter().copied().filter(|panel| (panel.says)(app, detail)).collect();
        stack(&mut pen.part(x, 1, width, height - series), &panels, app, detail);
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
    for panel in panels {
        let least = if panel.least > left { 0 } else { panel.least };
        heights.push(least);
        left -= least;
    }
    while left > 0 {
        let before = left;
        for (height, panel) in heights.iter_mut().zip(panels) {
            if (1..panel.most).contains(height) && left > 0 {
                *height += 1;
                left -= 1;
            }
        }
        if left == before {
            break;
        }
    }
    let mut y = 0;
    for (height, panel) in heights.into_iter().zip(panels) {
        (panel.draw)(&mut pen.part(0, y, pen.width(), height), app, detail);
        y += height;
    }
}
