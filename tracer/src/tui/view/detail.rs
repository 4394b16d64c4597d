//! The detail pane: panels in as many columns as there is room for.

use super::{
    panels,
    pen::{Pen, cells},
};
use crate::tui::{App, detail::Detail};

type Draw = fn(&mut Pen, &App, &Detail);

/// A panel: the least and the most lines that it is drawn in.
struct Panel {
    least: u16,
    most: u16,
    draw: Draw,
}

const HISTOGRAM: Panel = Panel { least: 5, most: 24, draw: panels::histogram };
const SERIES: Panel = Panel { least: 5, most: 18, draw: panels::series };
const SPECTRUM: Panel = Panel { least: 6, most: 11, draw: panels::spectrum };
const PIN_WRITES: Panel = Panel { least: 3, most: 10, draw: panels::pin_writes };
const REASONS: Panel = Panel { least: 4, most: 16, draw: panels::reasons };
const UNTIMELY: Panel = Panel { least: 3, most: 17, draw: panels::untimely };

/// Draws the detail of the selected row.
pub(super) fn draw(pen: &mut Pen, app: &mut App) {
    app.prepare_detail();
    let Some(detail) = &app.seen.detail else { return };
    pen.rule(0, &format!("{}: {}", detail.name, app.window.name()));
    let columns: &[&[&Panel]] = match pen.width() {
        0..=71 => &[&[&HISTOGRAM, &SPECTRUM, &SERIES, &REASONS, &PIN_WRITES, &UNTIMELY]],
        72..=149 => &[&[&HISTOGRAM, &SERIES, &PIN_WRITES], &[&SPECTRUM, &REASONS, &UNTIMELY]],
        _ => &[&[&HISTOGRAM, &SERIES], &[&SPECTRUM, &PIN_WRITES], &[&REASONS, &UNTIMELY]],
    };
    let many = cells(columns.len());
    let width = (pen.width() + 1).saturating_sub(2 * many) / many;
    for (at, panels) in columns.iter().enumerate() {
        let x = 1 + cells(at) * (width + 2);
        let height = pen.height().saturating_sub(1);
        stack(&mut pen.part(x, 1, width, height), panels, app, detail);
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
