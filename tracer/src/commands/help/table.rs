//! A Markdown table in columns, whose cells are wrapped where it is wider than the terminal.

use crate::output::{cells, wrap};

const GAP: &str = "  ";
/// A column that is narrower than this, where cells are wrapped, is no text any more.
const NARROWEST: usize = 12;

/// Renders the lines of a table, the second of which is the line of dashes.
pub(super) fn render(lines: &[String], width: usize) -> String {
    let mut rows: Vec<_> = lines.iter().map(|line| split(line)).collect();
    if rows.len() > 1 {
        rows.remove(1);
    }
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    rows.iter_mut().for_each(|row| row.resize(columns, String::new()));
    match widths(&rows, width.saturating_sub(GAP.len() * columns.saturating_sub(1))) {
        Some(widths) => in_columns(&rows, &widths),
        None => as_records(&rows, width),
    }
}

/// The cells of a line. `\|` is a bar within a cell.
fn split(line: &str) -> Vec<String> {
    let line = line.trim().trim_start_matches('|').replace("\\|", "\0");
    let line = line.strip_suffix('|').unwrap_or(&line);
    line.split('|').map(|cell| cell.trim().replace('\0', "|")).collect()
}

/// The columns' widths: what each needs, but not more than a limit that all fit in, and not less than its longest word. None if there
/// is no such limit, or one that leaves too little for text.
fn widths(rows: &[Vec<String>], available: usize) -> Option<Vec<usize>> {
    let columns = rows.first().map_or(0, Vec::len);
    let most = |of: &dyn Fn(&str) -> usize| -> Vec<usize> {
        (0..columns).map(|c| rows.iter().map(|row| of(&row[c])).max().unwrap_or(0)).collect()
    };
    let needed = most(&cells);
    let words = most(&|cell| cell.split(' ').map(cells).max().unwrap_or(0));
    let limited = |limit: usize| needed.iter().zip(&words).map(move |(needed, word)| limit.max(*word).min(*needed));
    let limit = (1..=available).rev().find(|&limit| limited(limit).sum::<usize>() <= available)?;
    let widths: Vec<_> = limited(limit).collect();
    let is_text = |c: usize| widths[c] == needed[c] || widths[c] >= NARROWEST;
    (0..columns).all(is_text).then_some(widths)
}

fn in_columns(rows: &[Vec<String>], widths: &[usize]) -> String {
    let wrapped = |row: &Vec<String>| -> Vec<Vec<String>> {
        row.iter()
            .zip(widths)
            .map(|(cell, width)| wrap(cell, "", *width).lines().map(str::to_owned).collect())
            .collect()
    };
    let rows: Vec<_> = rows.iter().map(wrapped).collect();
    // Rows of several lines would run into each other.
    let is_spaced = rows.iter().flatten().any(|cell| cell.len() > 1);
    let mut out = String::new();
    for (n, row) in rows.iter().enumerate() {
        for line in 0..row.iter().map(Vec::len).max().unwrap_or(0) {
            let cell = |c: usize| row[c].get(line).map_or("", String::as_str);
            let pad = |c: usize| " ".repeat(widths[c].saturating_sub(cells(cell(c))));
            let text: Vec<_> = (0..row.len()).map(|c| format!("{}{}", cell(c), pad(c))).collect();
            out += text.join(GAP).trim_end();
            out.push('\n');
        }
        if n == 0 {
            out += &widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>().join(GAP);
            out.push('\n');
        } else if is_spaced && n + 1 < rows.len() {
            out.push('\n');
        }
    }
    out
}

/// A row as lines of heading and cell, for tables of too many columns.
fn as_records(rows: &[Vec<String>], width: usize) -> String {
    let Some((head, rows)) = rows.split_first() else { return String::new() };
    let record = |row: &Vec<String>| -> String {
        let cells = row.iter().zip(head).filter(|(cell, _)| !cell.is_empty());
        let text =
            |cell: &String, name: &String| if name.is_empty() { cell.clone() } else { format!("{name}: {cell}") };
        cells.map(|(cell, name)| wrap(&text(cell, name), GAP, width)).collect()
    };
    rows.iter().map(record).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: [&str; 4] = ["| a | what it says |", "|---|---|", "| one | short |", "| `x\\|y` | a text of words |"];

    fn rendered(width: usize) -> String {
        render(&TABLE.map(str::to_owned), width)
    }

    #[test]
    fn a_narrow_table_is_aligned() {
        let aligned = "a      what it says\n-----  ---------------\none    short\n`x|y`  a text of words\n";
        assert_eq!(rendered(22), aligned);
    }

    #[test]
    fn cells_are_wrapped_where_a_table_is_too_wide() {
        let wrapped = "a      what it says\n-----  ------------\none    short\n\n`x|y`  a text of\n       words\n";
        assert_eq!(rendered(19), wrapped);
    }

    #[test]
    fn a_table_with_too_many_columns_becomes_records() {
        assert_eq!(
            rendered(12),
            "a: one\nwhat it\n  says:\n  short\n\na: `x|y`\nwhat it\n  says: a\n  text of\n  words\n"
        );
    }
}
