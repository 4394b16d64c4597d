//! The progress line of long work, on standard error.

use std::io::IsTerminal;

use crate::output;

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

    /// Replaces the line.
    pub(crate) fn show(&self, text: &str) {
        if self.shown {
            output::show(&format!("\r\x1b[K{text}"));
        }
    }

    /// Removes the line.
    pub(crate) fn clear(&self) {
        self.show("");
    }
}
