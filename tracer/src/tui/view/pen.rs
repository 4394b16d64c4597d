//! Writes into its area and nowhere else; in ASCII on terminals without UTF-8.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};

use crate::tui::Palette;

/// A number of cells: no screen has [`u16::MAX`].
pub(super) fn cells(n: usize) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}

/// Cells that a text takes.
pub(super) fn width_of(text: &str) -> u16 {
    cells(text.chars().count())
}

/// A share of some cells, rounded by `round`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, and NaN becomes 0")]
pub(super) fn share_of(share: f64, cells: u16, round: fn(f64) -> f64) -> u16 {
    round(share.clamp(0.0, 1.0) * f64::from(cells)) as u16
}

/// A part of the screen to draw on. Positions are relative to it.
pub(super) struct Pen<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
    /// how things look
    pub palette: Palette,
}

impl<'a> Pen<'a> {
    /// For an area of a buffer.
    pub(super) fn new(buffer: &'a mut Buffer, area: Rect, palette: Palette) -> Self {
        let area = area.intersection(buffer.area);
        Self { buffer, area, palette }
    }

    /// For a part of this one's area, in the screen's coordinates.
    pub(super) fn within(&mut self, area: Rect) -> Pen<'_> {
        let area = area.intersection(self.area);
        Pen { buffer: self.buffer, area, palette: self.palette }
    }

    /// For a part of this one's area, relative to it.
    pub(super) fn part(&mut self, x: u16, y: u16, width: u16, height: u16) -> Pen<'_> {
        let area = Rect { x: self.area.x.saturating_add(x), y: self.area.y.saturating_add(y), width, height };
        self.within(area)
    }

    /// The area, in the screen's coordinates.
    pub(super) fn area(&self) -> Rect {
        self.area
    }

    /// Width.
    pub(super) fn width(&self) -> u16 {
        self.area.width
    }

    /// Height.
    pub(super) fn height(&self) -> u16 {
        self.area.height
    }

    /// Writes a text and returns where it ended.
    pub(super) fn put(&mut self, x: u16, y: u16, text: &str, style: Style) -> u16 {
        self.put_within(x, y, text, u16::MAX, style)
    }

    /// Writes at most `width` characters.
    pub(super) fn put_within(&mut self, x: u16, y: u16, text: &str, width: u16, style: Style) -> u16 {
        if x >= self.area.width || y >= self.area.height {
            return x;
        }
        let room = usize::from(width.min(self.area.width - x));
        let (left, top) = (self.area.x + x, self.area.y + y);
        let end = if self.palette.ascii && !text.is_ascii() {
            let ascii: String = text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
            self.buffer.set_stringn(left, top, ascii, room, style).0
        } else {
            self.buffer.set_stringn(left, top, text, room, style).0
        };
        end - self.area.x
    }

    /// Writes a text that ends before `right`.
    pub(super) fn put_right(&mut self, right: u16, y: u16, text: &str, style: Style) {
        self.put(right.saturating_sub(width_of(text)), y, text, style);
    }

    /// Writes a text into `width`, cut where it is longer.
    pub(super) fn put_cut(&mut self, x: u16, y: u16, text: &str, width: u16, style: Style) {
        if text.chars().count() <= usize::from(width) {
            self.put(x, y, text, style);
        } else if width > 0 {
            let end = self.put_within(x, y, text, width - 1, style);
            self.put(end, y, self.palette.glyph("…", "~"), style);
        }
    }

    /// Writes a name into `width`, cut in the middle where it is longer: names mostly differ at their ends. Returns where it ended.
    pub(super) fn put_middle(&mut self, x: u16, y: u16, text: &str, width: u16, style: Style) -> u16 {
        let (length, room) = (text.chars().count(), usize::from(width));
        if length <= room {
            return self.put(x, y, text, style);
        }
        let Some(room) = room.checked_sub(1) else { return x };
        let mut cut: String = text.chars().take(room.div_ceil(2)).collect();
        cut += self.palette.glyph("…", "~");
        cut.extend(text.chars().skip(length - room / 2));
        self.put(x, y, &cut, style)
    }

    /// Fills columns of a line with one character.
    pub(super) fn fill(&mut self, columns: std::ops::Range<u16>, y: u16, glyph: &str, style: Style) {
        for x in columns {
            self.put(x, y, glyph, style);
        }
    }

    /// A title over a line across the whole width.
    pub(super) fn rule(&mut self, y: u16, title: &str) {
        let line = self.palette.glyph("─", "-");
        let quiet = self.palette.quiet();
        self.fill(0..self.width(), y, line, quiet);
        if title.is_empty() {
            return;
        }
        let end = self.put(1, y, " ", quiet);
        let room = self.width().saturating_sub(end + 2);
        let end = self.put_within(end, y, title, room, self.palette.strong());
        self.put(end, y, " ", quiet);
    }

    /// Changes the style of an area.
    pub(super) fn paint(&mut self, x: u16, y: u16, width: u16, style: Style) {
        let area = Rect { x: self.area.x.saturating_add(x), y: self.area.y.saturating_add(y), width, height: 1 };
        self.buffer.set_style(area.intersection(self.area), style);
    }

    /// Empties the area.
    pub(super) fn clear(&mut self) {
        for y in self.area.top()..self.area.bottom() {
            for x in self.area.left()..self.area.right() {
                self.buffer[(x, y)].reset();
            }
        }
    }
}
