//! The help: every key of the table of keys, and the meaning of the figures.

use super::pen::{Pen, cells};
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
    ("TIME%", "share of all host time in the window, halts included; rows are sorted by it at first"),
    ("HALT%", "share of the row's host time in which the guest was halted: polled and idle"),
    ("guest kernel user polled idle steal", "the selected row's time; the five of the host sum up to its host time"),
    ("EXIT%", "share of all exits in the window"),
    ("PIN/E", "pin writes per entry, mean"),
    ("DIRTY%", "share of entries with at least one pin-control write"),
    ("DEADLINE", "timer exits at the guest's deadline"),
    ("IMMEDIATE", "timer exits that KVM forced"),
    ("SPURIOUS", "timer exits while the timer was soft-disabled"),
    ("t:clean t:dirty", "transition of clean and of dirty entries"),
    ("n/a", "unknown here; never shown as 0; columns that would be n/a, or 0 for rare events, are hidden"),
    ("with a baseline", "value and difference: in % of the baseline's, of shares in points; counts per second"),
];

/// Draws it, from the line that it was scrolled to.
pub(super) fn draw(pen: &mut Pen, app: &mut App) {
    let p = pen.palette;
    let room = pen.width().saturating_sub(KEYS_WIDTH + 4);
    let lines = lines(usize::from(room), p.ascii);
    let height = usize::from(pen.height());
    app.help_line = app.help_line.min(lines.len().saturating_sub(height));
    for (y, (left, right)) in lines.iter().skip(app.help_line).take(height).enumerate() {
        let y = cells(y);
        if right.is_empty() {
            pen.put(1, y, left, p.strong());
        } else {
            pen.put_within(2, y, left, KEYS_WIDTH, p.accent());
            pen.put_cut(KEYS_WIDTH + 3, y, right, room, p.plain());
        }
    }
}

/// Keys or names at the left, texts of at most `room` characters at the right. Titles have no text.
fn lines(room: usize, ascii: bool) -> Vec<(String, String)> {
    let keys = |b: &Binding| b.keys.iter().map(|k| label(k, ascii)).collect::<Vec<_>>().join("  ");
    let mut lines = vec![("Keys".to_owned(), String::new())];
    add(&mut lines, "mouse".into(), "click a row: select, again: unfold; click a title: sort, again: reverse", room);
    add(&mut lines, "".into(), "wheel: move; with Shift the terminal selects text, as without this screen", room);
    KEYS.iter().for_each(|b| add(&mut lines, keys(b), b.help, room));
    lines.extend([(String::new(), String::new()), ("Figures".to_owned(), String::new())]);
    for figure in Figure::ALL {
        add(&mut lines, figure.title().into(), &format!("{}: {}", figure.name(), figure.help()), room);
    }
    FIGURES_HELP.iter().for_each(|(name, help)| add(&mut lines, (*name).into(), help, room));
    lines
}

/// Adds a text, broken at spaces into as many lines as it needs.
fn add(lines: &mut Vec<(String, String)>, mut left: String, text: &str, room: usize) {
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > room {
            lines.push((std::mem::take(&mut left), std::mem::take(&mut line)));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += word;
    }
    lines.push((left, line));
}
