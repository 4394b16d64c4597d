//! The help: every key of the table of keys, and what the figures mean.

use super::pen::Pen;
use crate::{
    model::figures::Figure,
    tui::{
        App,
        keys::{Binding, KEYS, label},
    },
};

/// Columns for the keys.
const KEYS_WIDTH: u16 = 22;

const FIGURES_HELP: &[(&str, &str)] = &[
    ("PIN/E", "mean of pin_writes"),
    ("DIRTY%", "share of entries with at least one pin-control write"),
    ("DUE IMMED SPUR", "preemption-timer exits: the guest's timer was due; forced by KVM; timer soft-disabled"),
    ("t:clean t:dirty", "transition_ns of clean and of dirty entries"),
    ("n/a", "not known here: never a zero"),
];

/// Draws it, from the line that it was scrolled to.
pub fn draw(pen: &mut Pen, app: &mut App) {
    let p = pen.palette;
    let lines = lines(p.ascii);
    let height = usize::from(pen.height());
    app.help_line = app.help_line.min(lines.len().saturating_sub(height));
    for (y, (left, right)) in lines.iter().skip(app.help_line).take(height).enumerate() {
        let y = y as u16;
        if right.is_empty() {
            pen.put(1, y, left, p.strong());
        } else {
            pen.put_within(2, y, left, KEYS_WIDTH, p.accent());
            pen.put_cut(KEYS_WIDTH + 3, y, right, pen.width().saturating_sub(KEYS_WIDTH + 4), p.plain());
        }
    }
}

fn lines(ascii: bool) -> Vec<(String, &'static str)> {
    let title = |text: &str| (text.to_owned(), "");
    let keys = |b: &Binding| b.keys.iter().map(|k| label(k, ascii)).collect::<Vec<_>>().join("  ");
    let mut lines = vec![title("Keys")];
    lines.extend(KEYS.iter().map(|b| (keys(b), b.help)));
    lines.extend([
        ("mouse".to_owned(), "click selects, again unfolds; a title sorts; the wheel moves"),
        title(""),
        title("Figures"),
    ]);
    lines.extend(Figure::ALL.iter().map(|f| (f.heading(), f.help())));
    lines.extend(FIGURES_HELP.iter().map(|(name, help)| ((*name).to_owned(), *help)));
    lines
}
