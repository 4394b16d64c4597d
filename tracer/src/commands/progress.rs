//! The progress line of long work, on standard error.

use std::io::IsTerminal;

use crate::{output, tui::terminal};

/// A line that is overwritten. Shown only if standard error is a terminal and no other command writes to it.
pub(crate) struct ProgressLine {
    shown: bool,
}

impl ProgressLine {
    /// `alone`: no other command writes to this terminal.
    pub(crate) fn new(alone: bool) -> Self {
        let is_usable = std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self { shown: alone && is_usable }
    }

    /// Whether it is shown.
    pub(crate) fn is_shown(&self) -> bool {
        self.shown
    }

    /// Columns that it may have; none if it is not shown.
    pub(crate) fn width(&self) -> Option<usize> {
        // A line that fills the last column, too, is not overwritten but pushed up.
        self.shown.then(|| terminal::message_width().unwrap_or(80).saturating_sub(1))
    }

    /// Replaces the line; a longer one is cut.
    pub(crate) fn show(&self, text: &str) {
        if let Some(width) = self.width() {
            output::show(&format!("\r\x1b[K{}", cut(text, width)));
        }
    }

    /// Removes the line.
    pub(crate) fn clear(&self) {
        self.show("");
    }
}

/// As much of a text as so many columns take.
fn cut(text: &str, width: usize) -> &str {
    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
    let end = ends.take_while(|end| output::cells(&text[..*end]) <= width).last();
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_never_wider_than_the_terminal() {
        assert_eq!([cut("round 1", 80), cut("round 1", 5), cut("", 5), cut("東京", 3)], ["round 1", "round", "", "東"]);
    }
}
