//! Draws the state. Every part draws through a [`Pen`], which cannot leave its area.

mod chart;
mod detail;
mod footer;
mod header;
mod help;
mod panels;
mod pen;
mod question;
mod table;

use ratatui::{Frame, layout::Rect};

use super::{App, keys::Mode};
use pen::Pen;

/// Lines of the header.
const HEADER: u16 = 2;
/// Lines that a table needs beside the detail.
const TABLE_BESIDE: u16 = 9;
/// Lines that a detail needs beside the table.
const DETAIL_BESIDE: u16 = 16;

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
    let detail = match (app.detail && !app.seen.rows.is_empty(), body.height) {
        (false, _) => 0,
        (true, height) if height < TABLE_BESIDE + DETAIL_BESIDE => height,
        (true, height) => (height * 3 / 5).max(DETAIL_BESIDE),
    };
    table::draw(&mut pen.within(Rect { height: body.height - detail, ..body }), app);
    if detail > 0 {
        detail::draw(&mut pen.within(Rect { y: body.bottom() - detail, height: detail, ..body }), app);
    }
    if let Mode::Confirm(policy) = app.mode {
        question::draw(&mut pen.within(body), app, policy);
    }
}
