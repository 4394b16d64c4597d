//! The budget: where the time of the selected row went, as a line and as a bar over the whole width.

use super::pen::{Pen, cells, share_of, width_of};
use crate::tui::{App, budget::Part};

/// Characters of the row's name that are shown at least.
const NAME: u16 = 8;

/// Draws both lines.
pub(super) fn draw(pen: &mut Pen, app: &mut App) {
    if pen.height() == 0 {
        return;
    }
    app.prepare_budget();
    let p = pen.palette;
    let Some((name, budget)) = &app.seen.budget else { return };
    let parts = match budget {
        Ok(parts) => parts,
        Err(reason) => {
            let x = pen.put_middle(1, 0, name, pen.width() / 4, p.strong());
            pen.put(x + 2, 0, &format!("shares of guest and host time n/a: {reason}"), p.quiet());
            return;
        }
    };
    let whole: u64 = parts.iter().map(|part| part.ns).fold(0, u64::saturating_add);
    if whole == 0 {
        let x = pen.put_middle(1, 0, name, pen.width() / 4, p.strong());
        pen.put(x + 2, 0, "no guest or host time in this window", p.quiet());
        return;
    }
    let share = |part: &Part| part.ns as f64 / whole as f64;
    // Glyph, name and value of each part; where there is not enough room, only of those with a time.
    let width = |part: &&Part| 3 + width_of(part.kind.name()) + width_of(&percent(share(part)));
    let all: u16 = parts.iter().map(|part| width(&part) + 2).sum();
    let room = pen.width().saturating_sub(NAME + 4);
    let mut listed: Vec<&Part> = parts.iter().filter(|part| all <= room || part.ns > 0).collect();
    let mut needed: u16 = listed.iter().map(width).sum();
    // A value that is cut would be wrong: the bar alone has the smallest parts that do not fit.
    while needed + cells(listed.len()) + 3 > pen.width()
        && let Some(at) = (0..listed.len()).min_by_key(|at| listed[*at].ns)
    {
        needed -= width(&listed.remove(at));
    }
    let gap = if needed + 2 * cells(listed.len()) <= room { 2 } else { 1 };
    let left = pen.width().saturating_sub(needed + gap * cells(listed.len()) + 4);
    let mut x = pen.put_middle(1, 0, name, left, p.strong());
    for part in listed {
        let (unicode, ascii) = part.kind.glyph();
        x = pen.put(x + gap, 0, p.glyph(unicode, ascii), part.kind.style(p));
        x = pen.put(x + 1, 0, part.kind.name(), p.quiet());
        x = pen.put(x + 1, 0, &percent(share(part)), p.plain());
    }
    pen.put(x + 1, 0, "%", p.quiet());
    let width = pen.width().saturating_sub(2);
    let (mut from, mut sum) = (0, 0.0);
    for part in parts {
        sum += share(part);
        let to = share_of(sum, width, f64::round);
        let (unicode, ascii) = part.kind.glyph();
        pen.fill(1 + from..1 + to, 1, p.glyph(unicode, ascii), part.kind.style(p));
        from = to;
    }
}

/// A share in percent, without the sign; one that is not 0 does not read 0.
pub(super) fn percent(share: f64) -> String {
    match 100.0 * share {
        percent if percent > 0.0 && percent < 0.05 => "<0.1".into(),
        percent => format!("{percent:.1}"),
    }
}
