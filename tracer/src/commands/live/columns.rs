//! The columns of the live view's lines, and those of them that a terminal has room for.

use crate::{
    html::chart::shortened,
    output::{Ink, Paint},
};

/// Columns: title and width. The exit reason with the most work comes after them.
const COLUMNS: [(&str, usize); 15] = [
    ("UTC", 8),
    ("VMS", 4),
    ("VCPUS", 5),
    ("EXITS/S", 9),
    ("L2/S", 9),
    ("GUEST%", 6),
    ("HALT%", 6),
    ("HOST MEAN", 9),
    ("P50", 7),
    ("P99", 7),
    ("MAX", 7),
    ("GUEST P50", 9),
    ("P99", 7),
    ("PIN/E", 6),
    ("LOST", 5),
];
/// The place after the columns: two spaces and PREEMPTION_TIMER with its share.
const WORK_WIDTH: usize = 23;
/// Its number.
const WORK: usize = COLUMNS.len();
/// The first that are left out where there is little room. A percentile goes before the column that names its figure.
const LEFT_OUT: [usize; 12] = [4, 13, 10, 12, 2, 6, 8, 11, 5, 9, WORK, 1];
/// The column of lost entries.
const LOST: usize = 14;

/// A value of each column, in their order.
pub(super) type Cells = [String; COLUMNS.len()];

/// How lines are laid out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Layout {
    /// cells of a line; none for as many as it takes
    pub(super) width: Option<usize>,
    /// attributes
    pub(super) paint: Paint,
}

impl Layout {
    /// The titles, as a line.
    pub(super) fn heading(self) -> String {
        let titles = COLUMNS.map(|(title, _)| title.to_owned());
        self.paint.ink(Ink::Bold, &Self { paint: Paint::default(), ..self }.line(&titles, "MOST WORK", false)) + "\n"
    }

    /// A line: values under their titles, loss in red, and the work after them if there is any.
    pub(super) fn line(self, cells: &Cells, work: &str, has_loss: bool) -> String {
        let shown = self.shown();
        let cell = |at: &usize| {
            let (cell, (_, width)) = (&cells[*at], COLUMNS[*at]);
            let ink = if *at == LOST && has_loss { Ink::Red } else { Ink::Plain };
            self.paint.ink(ink, &format!("{cell:>width$}"))
        };
        let columns: Vec<_> = shown.iter().filter(|at| **at != WORK).map(cell).collect();
        let work = match self.width {
            Some(_) if !shown.contains(&WORK) => String::new(),
            Some(_) => shortened(work, WORK_WIDTH - 2),
            None => work.to_owned(),
        };
        let gap = if work.is_empty() { "" } else { "  " };
        columns.join(" ") + gap + &work
    }

    /// The columns that there is room for.
    fn shown(self) -> Vec<usize> {
        let mut shown: Vec<usize> = (0..=WORK).collect();
        let taken = |shown: &[usize]| -> usize {
            shown.iter().map(|at| COLUMNS.get(*at).map_or(WORK_WIDTH, |(_, width)| width + 1)).sum::<usize>() - 1
        };
        for column in LEFT_OUT {
            if self.width.is_some_and(|width| taken(&shown) > width) {
                shown.retain(|at| *at != column);
            }
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_as_wide_as_the_terminal_at_most_and_keeps_time_rate_and_loss() {
        let cells: Cells = std::array::from_fn(|at| "x".repeat(COLUMNS[at].1));
        for width in [40, 60, 80, 100, 120, 140, 200] {
            let layout = Layout { width: Some(width), ..Layout::default() };
            let (heading, line) = (layout.heading(), layout.line(&cells, "PREEMPTION_TIMER 100%", true));
            assert!(
                line.chars().count() <= width && heading.trim_end().chars().count() <= width,
                "{width}: {heading}{line}"
            );
            for title in ["UTC", "EXITS/S", "HOST MEAN", "LOST"] {
                assert!(heading.contains(title), "{width}: {heading}");
            }
            assert_eq!(heading.contains("MOST WORK"), width >= 80, "{heading}");
        }
        let all = Layout::default().heading();
        assert!(COLUMNS.iter().all(|(title, _)| all.contains(title)), "{all}");
    }

    #[test]
    fn loss_is_red_on_a_terminal_and_its_absence_is_not() {
        let cells: Cells = std::array::from_fn(|_| "7".into());
        let layout = Layout { width: None, paint: Paint { on: true } };
        assert!(layout.line(&cells, "", true).ends_with("\x1b[1;31m    7\x1b[0m"));
        assert!(!layout.line(&cells, "", false).contains('\x1b') && layout.heading().starts_with("\x1b[1m"));
    }
}
