//! The line on standard error that long work overwrites.

use std::io::{IsTerminal, Write};

/// A line that is overwritten; none where standard error is no terminal, or a command writes there too.
pub(crate) struct ProgressLine {
    shown: bool,
}

impl ProgressLine {
    /// `alone`: nothing else writes to this terminal.
    pub(crate) fn new(alone: bool) -> Self {
        let is_usable = std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self { shown: alone && is_usable }
    }

    /// Whether anybody sees it.
    pub(crate) fn is_shown(&self) -> bool {
        self.shown
    }

    /// Replaces the line.
    pub(crate) fn show(&self, text: &str) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
        }
    }

    /// Removes the line.
    pub(crate) fn clear(&self) {
        self.show("");
    }
}
