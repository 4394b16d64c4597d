//! The budget: where the time of the selected row went, as a line and as a bar over the whole width.

use super::pen::{Pen, share_of, width_of};
use crate::tui::{App, budget::Part};

/// Draws both lines.
pub(super) fn draw(pen: &mut Pen, app: &mut App) {
    if pen.height() == 0 {
        return;
    }
    app.prepare_budget();
    let p = pen.palette;
    let Some((name, budget)) = &app.seen.budget else { return };
    let room = pen.width() / 4;
    let mut x = 1 + pen.put_middle(1, 0, name, room, p.strong());
    let parts = match budget {
        Ok(parts) => parts,
        Err(reason) => {
            pen.put(x + 1, 0, &format!("guest and host time n/a: {reason}"), p.quiet());
            return;
        }
    };
    let whole: u64 = parts.iter().map(|part| part.ns).fold(0, u64::saturating_add);
    if whole == 0 {
        pen.put(x + 1, 0, "no guest or host time in this window", p.quiet());
        return;
    }
    let share = |part: &Part| part.ns as f64 / whole as f64;
    for part in parts {
        let (name, style) = (part.kind.name(), part.kind.style(p));
        let value = percent(share(part));
        if x + 3 + width_of(name) + 1 + width_of(&value) > pen.width() {
            break;
        }
        let (unicode, ascii) = part.kind.glyph();
        x = pen.put(x + 1, 0, p.glyph(unicode, ascii), style);
        x = pen.put(x + 1, 0, name, p.quiet());
        x = pen.put(x + 1, 0, &value, p.plain()) + 1;
    }
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

/// A share in percent; one that is not 0 does not read 0.
pub(super) fn percent(share: f64) -> String {
    match 100.0 * share {
        percent if percent > 0.0 && percent < 0.05 => "<0.1 %".into(),
        percent => format!("{percent:.1} %"),
    }
}
