//! Tables: each with a caption, scoped headings, and a box of its own to scroll in.

use std::fmt::Write as _;

use super::escape;

/// A heading of a column.
#[derive(Clone, Debug)]
pub struct Column {
    title: String,
    class: &'static str,
}

impl Column {
    /// Of words, which may wrap.
    pub fn text(title: impl Into<String>) -> Self {
        Self { title: title.into(), class: "text" }
    }

    /// Of words that stay on one line.
    pub fn word(title: impl Into<String>) -> Self {
        Self { title: title.into(), class: "nowrap" }
    }

    /// Of numbers.
    pub fn number(title: impl Into<String>) -> Self {
        Self { title: title.into(), class: "number" }
    }
}

/// A table. Everything in it is text.
#[derive(Clone, Debug)]
pub struct Table {
    id: String,
    caption: String,
    columns: Vec<Column>,
    rows: Vec<(&'static str, Vec<String>)>,
}

impl Table {
    /// An empty one. `id` is unique in the page.
    pub fn new(id: impl Into<String>, caption: impl Into<String>, columns: Vec<Column>) -> Self {
        Self { id: id.into(), caption: caption.into(), columns, rows: Vec::new() }
    }

    /// Adds a row, whose first cell heads it.
    pub fn row(&mut self, cells: Vec<String>) {
        self.row_of("", cells);
    }

    /// Adds a row that looks different: "strong", "quiet", "group", "differs".
    pub fn row_of(&mut self, class: &'static str, mut cells: Vec<String>) {
        cells.resize(self.columns.len(), String::new());
        self.rows.push((class, cells));
    }

    /// Whether it has no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// As HTML.
    pub fn render(&self) -> String {
        let Self { id, caption, columns, rows } = self;
        let caption = escape(caption);
        let mut out = format!(
            "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-labelledby=\"{id}\">\n<table>\n\
             <caption id=\"{id}\">{caption}</caption>\n<thead>\n<tr>"
        );
        for Column { title, class } in columns {
            let _ = write!(out, "<th scope=\"col\" class=\"{class}\">{}</th>", escape(title));
        }
        out += "</tr>\n</thead>\n<tbody>\n";
        for (class, cells) in rows {
            out += &if class.is_empty() { "<tr>".to_owned() } else { format!("<tr class=\"{class}\">") };
            for (at, (cell, Column { class, .. })) in cells.iter().zip(columns).enumerate() {
                let cell = escape(cell);
                let _ = match at {
                    0 => write!(out, "<th scope=\"row\">{cell}</th>"),
                    _ => write!(out, "<td class=\"{class}\">{cell}</td>"),
                };
            }
            out += "</tr>\n";
        }
        out + "</tbody>\n</table>\n</div>\n"
    }
}
