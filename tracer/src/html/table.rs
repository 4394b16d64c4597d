//! Tables: each with a caption, scoped headings, and a scrolling box of its own.

use maud::{Markup, html};

use super::Text;

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

/// A table of plain text.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    id: String,
    caption: String,
    columns: Vec<Heading>,
    rows: Vec<(&'static str, Vec<String>)>,
}

impl Table {
    /// An empty table. `id` is unique in the page.
    pub(crate) fn new(id: impl Into<String>, caption: impl Into<String>, columns: Vec<Heading>) -> Self {
        Self { id: id.into(), caption: caption.into(), columns, rows: Vec::new() }
    }

    /// Adds a row; its first cell is the row's heading.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.row_of("", cells);
    }

    /// Adds a row of a class: "strong", "quiet" or "differs".
    pub(crate) fn row_of(&mut self, class: &'static str, mut cells: Vec<String>) {
        cells.resize(self.columns.len(), String::new());
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
                                @if at == 0 { th scope="row" { (Text(cell)) } }
                                @else { td class=(class) { (Text(cell)) } }
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
