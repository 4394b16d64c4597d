//! Charts of characters: sparklines, bars over time, columns and shares.

use ratatui::style::Style;

use super::pen::{Pen, cells, share_of};

/// Values as bars of one line, newest at the right; the highest has the full height.
pub(super) fn spark(pen: &mut Pen, values: &[Option<f64>]) {
    let style = pen.palette.clean();
    let values: Vec<_> = values.iter().map(|v| v.filter(|&v| v > 0.0)).collect();
    let shown = &values[values.len().saturating_sub(usize::from(pen.width()))..];
    let many = cells(shown.len());
    let width = pen.width();
    bars(&mut pen.part(width - many, 0, many, 1), shown, style);
}

/// Values as bars of the pen's height, newest at the right, as wide as there is room for; unknown values are gaps. Returns the highest
/// value, and how many values there are.
pub(super) fn bars(pen: &mut Pen, values: &[Option<f64>], style: Style) -> (f64, usize) {
    let width = usize::from(pen.width());
    let shown = &values[values.len().saturating_sub(width)..];
    let highest = shown.iter().flatten().fold(0.0, |a: f64, &b| a.max(b));
    let each = width / shown.len().max(1);
    let left = width - each * shown.len();
    for (at, value) in shown.iter().enumerate() {
        if let Some(value) = value.filter(|_| highest > 0.0) {
            (0..each).for_each(|cell| column(pen, cells(left + at * each + cell), value / highest, style));
        }
    }
    (highest, shown.len())
}

/// A bar of a share of the pen's height; any value above 0 is visible.
pub(super) fn column(pen: &mut Pen, x: u16, share: f64, style: Style) {
    let glyphs = pen.palette.bars();
    let height = pen.height();
    if share <= 0.0 || height == 0 {
        return;
    }
    let eighths = share_of(share, height.saturating_mul(8), f64::round).max(1);
    let mut text = [0; 4];
    for line in 0..eighths.div_ceil(8) {
        let part = (eighths - line * 8).min(8);
        let glyph = glyphs[usize::from(part) - 1];
        pen.put(x, height - 1 - line, glyph.encode_utf8(&mut text), style);
    }
}

/// The line at a share of the pen's height.
pub(super) fn line_of(pen: &Pen, share: f64) -> u16 {
    let height = pen.height();
    let up = share_of(share, height, f64::ceil);
    height.saturating_sub(up.max(1))
}

/// A share as a horizontal bar.
pub(super) fn share(pen: &mut Pen, x: u16, y: u16, width: u16, share: f64, style: Style) {
    let full = share_of(share, width, f64::round);
    let full = if share > 0.0 { full.max(1) } else { 0 };
    let glyph = pen.palette.glyph("▬", "=");
    pen.fill(x..x + full.min(width), y, glyph, style);
}
