//! Tables: each with a caption, scoped headings, and a scrolling box of its own.

use std::borrow::Borrow;

use maud::{Markup, Render, html};

use super::Text;
use crate::model::knowledge::Unknown;

/// The heading of a column, and how its cells are set.
#[derive(Clone, Debug)]
pub(crate) struct Heading {
    title: String,
    class: &'static str,
}

impl Heading {
    /// A column of text that may wrap.
    pub(crate) fn text(title: impl Into<String>) -> Self {
        Self { title: title.into(), class: "text" }
    }

    /// A column of words that stay on one line.
    pub(crate) fn word(title: impl Into<String>) -> Self {
        Self { title: title.into(), class: "nowrap" }
    }

    /// A column of numbers.
    pub(crate) fn number(title: impl Into<String>) -> Self {
        Self { title: title.into(), class: "number" }
    }
}

/// A text, with a reason where it is not known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    pub(super) text: String,
    /// shown as a tooltip
    pub(super) reason: Option<String>,
    /// share that a bar before the text shows, 0..1
    pub(super) bar: Option<f64>,
}

impl Cell {
    /// The same with a bar.
    pub(crate) fn with_bar(self, share: Option<f64>) -> Self {
        Self { bar: share, ..self }
    }

    /// Whether it is a name rather than a number, such as "IO_INSTRUCTION".
    pub(super) fn is_word(&self) -> bool {
        self.text.len() > 10 && self.text.starts_with(|c: char| c.is_ascii_uppercase())
    }

    /// The same with another text.
    pub(crate) fn reading(self, text: &str) -> Self {
        Self { text: text.to_owned(), ..self }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, ..Self::default() }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl<E: Borrow<Unknown>> From<Result<String, E>> for Cell {
    fn from(value: Result<String, E>) -> Self {
        match value {
            Ok(text) => text.into(),
            Err(reason) => Self { text: "n/a".into(), reason: Some(reason.borrow().to_string()), bar: None },
        }
    }
}

impl Render for Cell {
    fn render_to(&self, out: &mut String) {
        if let Some(share) = self.bar {
            // The text says the same.
            html! { meter aria-hidden="true" value=(format!("{share:.4}")) { "" } " " }.render_to(out);
        }
        match &self.reason {
            None if self.bar.is_some() => html! { span class="share" { (Text(&self.text)) } }.render_to(out),
            None => Text(&self.text).render_to(out),
            Some(reason) => html! { span title=(Text(reason)) { (Text(&self.text)) } }.render_to(out),
        }
    }
}

/// A table of plain text.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    id: String,
    caption: String,
    columns: Vec<Heading>,
    rows: Vec<(&'static str, Vec<Cell>)>,
}

impl Table {
    /// An empty table. `id` is unique in the page.
    pub(crate) fn new(id: impl Into<String>, caption: impl Into<String>, columns: Vec<Heading>) -> Self {
        Self { id: id.into(), caption: caption.into(), columns, rows: Vec::new() }
    }

    /// Adds a row; its first cell is the row's heading.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = impl Into<Cell>>) {
        self.row_of("", cells);
    }

    /// Adds a row of a class: "strong", "quiet" or "differs".
    pub(crate) fn row_of(&mut self, class: &'static str, cells: impl IntoIterator<Item = impl Into<Cell>>) {
        let mut cells: Vec<Cell> = cells.into_iter().map(Into::into).collect();
        cells.resize_with(self.columns.len(), Cell::default);
        self.rows.push((class, cells));
    }

    /// As HTML.
    pub(crate) fn render(&self) -> Markup {
        let id = Text(&self.id);
        html! {
            div class="scroll" tabindex="0" role="region" aria-labelledby=(id) {
                table {
                    caption id=(id) { (Text(&self.caption)) } "\n"
                    thead { tr { @for Heading { title, class } in &self.columns {
                        th scope="col" class=(class) { (Text(title)) }
                    } } } "\n"
                    tbody { @for (class, cells) in &self.rows {
                        tr class=[(!class.is_empty()).then_some(class)] {
                            @for (at, (cell, Heading { class, .. })) in cells.iter().zip(&self.columns).enumerate() {
                                @if at == 0 { th scope="row" { (cell) } }
                                @else { td class=(class) { (cell) } }
                            }
                        }
                        "\n"
                    } }
                }
            }
            "\n"
        }
    }
}
