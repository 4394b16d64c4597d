//! Cells in columns with headings over groups of columns, as wide as the terminal allows.

use std::iter::once;

use crate::output::{Ink, Paint, cells};

use super::columns::{TOO_FEW, ZERO};

/// Longest name on a terminal that is too narrow for all columns.
const SHORT_NAME: usize = 24;

/// Rank of the columns that are only left out all together: the last.
pub(super) const TOGETHER: u8 = 1;
/// Least rank of a column of zeros.
const ZEROS: u8 = 5;
/// Least rank of a column without a value.
const EMPTY: u8 = 100;

/// A column of the grid.
pub(super) struct Column {
    /// over it and its neighbours of the same group; empty for none
    pub(super) group: &'static str,
    pub(super) title: String,
    /// to the left, as text is
    pub(super) is_text: bool,
    /// the highest makes room first, those of [`TOGETHER`] at once; 0 never does
    pub(super) rank: u8,
}

/// A line of the grid: one cell a column.
pub(super) struct Line {
    pub(super) cells: Vec<String>,
    pub(super) ink: Ink,
}

/// Columns and lines.
pub(super) struct Grid {
    pub(super) columns: Vec<Column>,
    pub(super) lines: Vec<Line>,
}

/// A printed grid.
pub(super) struct Printed {
    pub(super) text: String,
    /// of the columns that are shown
    pub(super) groups: Vec<&'static str>,
    pub(super) left_out: Vec<LeftOut>,
}

/// A column that there was no room for.
pub(super) struct LeftOut {
    pub(super) group: &'static str,
    pub(super) title: String,
    /// 0 in every line that has a value
    pub(super) is_zero: bool,
}

impl Grid {
    /// As text of lines of at most `width` cells, if there are columns that can make room for the others, and what became of them.
    pub(super) fn render(mut self, width: Option<usize>, paint: Paint) -> Printed {
        let mut left_out = Vec::new();
        let mut gap = 2;
        if let Some(width) = width {
            if self.width(gap) > width {
                gap = 1;
            }
            if self.width(gap) > width {
                self.shorten_names();
            }
            while self.width(gap) > width {
                let next = self.next_to_go();
                if next.is_empty() {
                    break;
                }
                left_out.extend(next.into_iter().rev().map(|at| self.remove(at)));
            }
        }
        Printed { text: self.print(gap, paint), groups: self.columns.iter().map(|c| c.group).collect(), left_out }
    }

    fn widths(&self) -> Vec<usize> {
        let of = |at: usize| self.lines.iter().map(move |line| cells(&line.cells[at]));
        (0..self.columns.len())
            .map(|at| of(at).chain(once(cells(&self.columns[at].title))).max().unwrap_or(0))
            .collect()
    }

    /// Cells between a column and the one before it. Text and groups keep apart.
    fn gaps(&self, gap: usize) -> Vec<usize> {
        let before = |at: usize| match at {
            0 => 0,
            _ if self.columns[at].is_text || self.columns[at - 1].is_text => 2,
            _ if self.columns[at].group != self.columns[at - 1].group => 2,
            _ => gap,
        };
        (0..self.columns.len()).map(before).collect()
    }

    fn width(&self, gap: usize) -> usize {
        self.widths().iter().sum::<usize>() + self.gaps(gap).iter().sum::<usize>()
    }

    fn shorten_names(&mut self) {
        for (at, _) in self.columns.iter().enumerate().filter(|(_, column)| column.is_text) {
            for line in &mut self.lines {
                line.cells[at] = shortened(&line.cells[at]);
            }
        }
    }

    /// Places of the columns to leave out next, in their order; empty if none can go.
    fn next_to_go(&self) -> Vec<usize> {
        let rank = |at: usize| match self.columns[at].rank {
            0 => 0,
            rank if self.has_only(at, &[TOO_FEW]) => rank.saturating_add(EMPTY),
            rank if self.has_only(at, &[ZERO, TOO_FEW]) => rank.max(ZEROS),
            rank => rank,
        };
        let ranked = (0..self.columns.len()).map(|at| (rank(at), at));
        match ranked.clone().max() {
            None | Some((0, _)) => vec![],
            Some((TOGETHER, _)) => ranked.filter(|(rank, _)| *rank == TOGETHER).map(|(_, at)| at).collect(),
            Some((_, at)) => vec![at],
        }
    }

    fn has_only(&self, at: usize, values: &[&str]) -> bool {
        self.lines.iter().all(|line| values.contains(&line.cells[at].as_str()))
    }

    fn remove(&mut self, at: usize) -> LeftOut {
        let is_zero = self.has_only(at, &[ZERO, TOO_FEW]) && !self.has_only(at, &[TOO_FEW]);
        self.lines.iter_mut().for_each(|line| drop(line.cells.remove(at)));
        let Column { group, title, .. } = self.columns.remove(at);
        LeftOut { group, title, is_zero }
    }

    fn print(&self, gap: usize, paint: Paint) -> String {
        let (widths, gaps) = (self.widths(), self.gaps(gap));
        let mut out = String::new();
        let groups = self.groups(&widths, &gaps);
        if !groups.is_empty() {
            out += &(paint.ink(Ink::Bold, &groups) + "\n");
        }
        let titles = Line { cells: self.columns.iter().map(|c| c.title.clone()).collect(), ink: Ink::Bold };
        for line in once(&titles).chain(&self.lines) {
            let mut text = String::new();
            for (at, cell) in line.cells.iter().enumerate() {
                let pad = " ".repeat(widths[at] - cells(cell));
                let is_last = at + 1 == line.cells.len();
                let ink = if cell == TOO_FEW && !self.columns[at].is_text { Ink::Dim } else { line.ink };
                let cell = paint.ink(ink, cell);
                text += &" ".repeat(gaps[at]);
                text += &match self.columns[at].is_text {
                    true if is_last => cell,
                    true => cell + &pad,
                    false => pad + &cell,
                };
            }
            out += text.trim_end();
            out.push('\n');
        }
        out
    }

    /// The line of the groups' headings; empty if there is none.
    fn groups(&self, widths: &[usize], gaps: &[usize]) -> String {
        let mut out = String::new();
        let mut at = 0;
        while at < self.columns.len() {
            let group = self.columns[at].group;
            let end =
                at + 1 + self.columns[at + 1..].iter().take_while(|c| !group.is_empty() && c.group == group).count();
            let span: usize = widths[at..end].iter().sum::<usize>() + gaps[at + 1..end].iter().sum::<usize>();
            out += &" ".repeat(gaps[at]);
            out += &if group.is_empty() { " ".repeat(span) } else { ruled(group, span) };
            at = end;
        }
        out.trim_end().to_owned()
    }
}

/// A heading in the middle of a line of that many cells; as many of its words as there is room for, at least one.
fn ruled(text: &str, span: usize) -> String {
    let Some(rest) = span.checked_sub(cells(text) + 2) else {
        let ends = text.rmatch_indices(' ').map(|(end, _)| &text[..end]);
        let text = once(text)
            .chain(ends)
            .find(|words| cells(words) <= span)
            .unwrap_or_else(|| text.split(' ').next().unwrap_or(text));
        return format!("{text:<span$}");
    };
    format!("{} {text} {}", "-".repeat(rest / 2), "-".repeat(rest - rest / 2))
}

/// A long name without its middle: names differ at their ends.
fn shortened(name: &str) -> String {
    let all: Vec<char> = name.chars().collect();
    if all.len() <= SHORT_NAME {
        return name.into();
    }
    let (begin, end) = (SHORT_NAME / 2 - 1, SHORT_NAME / 2 - 1);
    all[..begin].iter().chain(&['.', '.']).chain(&all[all.len() - end..]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let column = |group, title: &str, is_text, rank| Column { group, title: title.into(), is_text, rank };
        let columns = vec![
            column("", "NAME", true, 0),
            column("", "N", false, 0),
            column("TIME", "MEAN", false, 1),
            column("TIME", "MAX", false, 2),
        ];
        let line = |cells: [&str; 4], ink| Line { cells: cells.map(str::to_owned).to_vec(), ink };
        let lines = vec![
            line(["a", "12", "3.00us", "-"], Ink::Plain),
            line(["web-frontend-with-a-long-name-7", "1", "1us", "2us"], Ink::Bold),
        ];
        Grid { columns, lines }
    }

    #[test]
    fn headings_stand_over_their_columns() {
        let text = grid().render(None, Paint::default()).text;
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], format!("{}-- TIME ---", " ".repeat(37)));
        assert_eq!(lines[1], format!("NAME{}   N    MEAN  MAX", " ".repeat(27)));
        assert_eq!(lines[2], format!("a{}  12  3.00us    -", " ".repeat(30)));
    }

    #[test]
    fn a_narrow_terminal_gets_short_names_and_then_fewer_columns_and_no_line_wraps() {
        let widest = |width| {
            let text = grid().render(Some(width), Paint::default()).text;
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}: {text}");
            text
        };
        assert!(widest(48).contains("long-name-7 "));
        let shorter = widest(41);
        assert!(shorter.contains("web-fronten..long-name-7 ") && shorter.contains("MAX"), "{shorter}");
        let fewer = widest(36);
        assert!(!fewer.contains("MAX") && fewer.contains("MEAN"), "{fewer}");
        assert!(!widest(28).contains("MEAN"));
    }

    #[test]
    fn parts_of_a_whole_go_last_and_together_and_empty_and_zero_columns_before() {
        let titles = ["P50", "A", "B", "C", "EMPTY"];
        let column = |(at, title): (usize, &str)| Column {
            group: "",
            title: title.into(),
            is_text: false,
            rank: [4, TOGETHER, TOGETHER, TOGETHER, 2][at],
        };
        let left = |width| {
            let line = Line { cells: ["7", "60.0", "0", "40.0", "-"].map(str::to_owned).to_vec(), ink: Ink::Plain };
            let grid = Grid { columns: titles.into_iter().enumerate().map(column).collect(), lines: vec![line] };
            grid.render(Some(width), Paint::default())
                .left_out
                .into_iter()
                .map(|c| c.title)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!([21, 15, 13, 9].map(left), ["", "EMPTY", "EMPTY B", "EMPTY B P50"]);
        assert_eq!(left(8), "EMPTY B P50 C A");
    }

    #[test]
    fn attributes_do_not_move_cells() {
        let colored = grid().render(None, Paint { on: true }).text;
        assert!(colored.contains("\x1b[1mNAME\x1b[0m") && colored.contains("\x1b[2m-\x1b[0m"), "{colored:?}");
        let mut plain = colored;
        for code in ["\x1b[1m", "\x1b[2m", "\x1b[0m"] {
            plain = plain.replace(code, "");
        }
        assert_eq!(plain, grid().render(None, Paint::default()).text);
    }
}
