//! Draws the state. Every part draws through a [`Pen`], which cannot leave its area.

mod budget;
mod chart;
mod detail;
mod distribution;
mod footer;
mod header;
mod help;
mod panels;
mod pen;
mod question;
mod table;

use ratatui::{Frame, layout::Rect};

use super::{App, keys::Mode};
use pen::{Pen, cells};

/// Lines of the header.
const HEADER: u16 = 2;
/// Lines of the budget, and of the body from which on it is shown.
const BUDGET: (u16, u16) = (2, 14);
/// Lines that a table needs beside the detail.
const TABLE_BESIDE: u16 = 7;
/// Lines that a detail needs beside the table.
const DETAIL_BESIDE: u16 = 16;
/// Lines of the screen from which on the detail is shown, unless the user decides.
const DETAIL_FROM: u16 = 30;

/// Draws the screen.
pub fn draw(frame: &mut Frame, app: &mut App) {
    app.refresh();
    let area = frame.area();
    let mut pen = Pen::new(frame.buffer_mut(), area, app.palette);
    let header = HEADER.min(area.height);
    let footer = u16::from(area.height > header);
    let body = Rect { y: area.y + header, height: area.height - header - footer, ..area };
    header::draw(&mut pen.within(Rect { height: header, ..area }), app);
    footer::draw(&mut pen.within(Rect { y: body.bottom(), height: footer, ..area }), app);
    if app.mode == Mode::Help {
        help::draw(&mut pen.within(body), app);
        return;
    }
    let rows = app.seen.rows.len();
    let is_detailed = app.detail.unwrap_or(area.height >= DETAIL_FROM) && rows > 0;
    let budget = if rows > 0 && body.height >= BUDGET.1 { BUDGET.0 } else { 0 };
    budget::draw(&mut pen.within(Rect { height: budget, ..body }), app);
    let body = Rect { y: body.y + budget, height: body.height - budget, ..body };
    let detail = if is_detailed { detail_lines(body.height, rows) } else { 0 };
    table::draw(&mut pen.within(Rect { height: body.height - detail, ..body }), app);
    if detail > 0 {
        detail::draw(&mut pen.within(Rect { y: body.bottom() - detail, height: detail, ..body }), app);
    }
    app.places.detail = is_detailed;
    if let Mode::Confirm(question) = app.mode {
        question::draw(&mut pen.within(body), app, question);
    }
}

/// Lines of the detail: all where there is not enough room for both, else what the table's rows leave, and at least three fifths.
fn detail_lines(height: u16, rows: usize) -> u16 {
    if height < TABLE_BESIDE + DETAIL_BESIDE {
        return height;
    }
    let wanted = height.saturating_sub(table::TITLES.saturating_add(cells(rows)));
    wanted.max(height * 3 / 5).clamp(DETAIL_BESIDE, height - TABLE_BESIDE)
}
