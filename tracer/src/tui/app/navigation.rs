//! Moving in the table and in the help: scrolling, selecting, unfolding.

use super::App;
use crate::tui::{keys::Mode, rows::Row};

impl App {
    pub(super) fn scroll(&mut self, by: isize) {
        if self.mode == Mode::Help {
            self.help_line = self.help_line.saturating_add_signed(by);
        } else {
            self.select(self.selected.saturating_add_signed(by));
        }
    }

    pub(super) fn select(&mut self, row: usize) {
        self.selected = row.min(self.seen.rows.len().saturating_sub(1));
        let node = self.seen.rows.get(self.selected).map(|r| r.node);
        if node != self.selected_node {
            self.selected_node = node;
            self.seen.detail = None;
            self.seen.budget = None;
        }
    }

    pub(super) fn toggle(&mut self) {
        match self.seen.rows.get(self.selected) {
            Some(Row { unfolded: Some(true), .. }) => self.collapse(),
            Some(Row { unfolded: Some(false), .. }) => self.expand(),
            _ => self.detail = Some(true),
        }
    }

    pub(super) fn expand(&mut self) {
        match self.seen.rows.get(self.selected) {
            Some(Row { unfolded: Some(true), .. }) => self.select(self.selected + 1),
            Some(Row { unfolded: Some(false), node, .. }) => {
                self.unfolded.insert(*node);
                self.stale = true;
            }
            _ => {}
        }
    }

    pub(super) fn collapse(&mut self) {
        let Some(row) = self.seen.rows.get(self.selected) else { return };
        if row.unfolded == Some(true) {
            self.unfolded.remove(&row.node);
            self.stale = true;
        } else if let Some(parent) = row.node.parent()
            && let Some(at) = self.seen.rows.iter().position(|r| r.node == parent)
        {
            self.select(at);
        }
    }

    /// Rows of a page.
    pub(super) fn page(&self) -> isize {
        isize::try_from(self.places.rows.height).map_or(isize::MAX, |rows| rows.max(1))
    }
}
