//! The last line: the filter or moment while it is typed, else a message, else keys.

use super::pen::{Pen, width_of};
use crate::tui::{
    App,
    clock::{FORMS, SHORT_FORMS},
    keys::{KEYS, Mode, label},
};

/// Draws it.
pub(super) fn draw(pen: &mut Pen, app: &App) {
    let p = pen.palette;
    let mut x = 1;
    if app.mode == Mode::Filter {
        x = pen.put(x, 0, "filter ", p.quiet());
        x = pen.put(x, 0, &app.filter, p.strong());
        x = pen.put(x, 0, p.glyph("▏", "_"), p.accent()) + 2;
    } else if app.mode == Mode::Moment {
        x = pen.put(x, 0, "jump to (UTC) ", p.quiet());
        x = pen.put(x, 0, &app.moment, p.strong());
        x = pen.put(x, 0, p.glyph("▏", "_"), p.accent()) + 2;
        let (said, style) = match app.status.is_empty() {
            true => {
                let room = usize::from(pen.width().saturating_sub(x + 1));
                let texts = [FORMS, SHORT_FORMS].map(|forms| format!("{forms}; {}", app.replay_range()));
                let fits = texts.into_iter().find(|text| text.chars().count() <= room);
                (fits.unwrap_or_else(|| app.replay_range()), p.quiet())
            }
            false => (app.status.clone(), p.notice()),
        };
        let room = pen.width().saturating_sub(x + 1);
        if !app.status.is_empty() || width_of(&said) <= room {
            pen.put_cut(x, 0, &said, room, style);
            return;
        }
    } else if !app.status.is_empty() {
        pen.put_cut(x, 0, &app.status, pen.width().saturating_sub(2), p.notice());
        return;
    }
    for binding in KEYS.iter().filter(|b| b.footer && b.scope.covers(&app.mode)) {
        let Some(key) = binding.keys.first().map(|k| label(k, p.ascii)) else { continue };
        let width = width_of(&key) + 1 + width_of(binding.name);
        if x + width > pen.width() {
            break;
        }
        x = pen.put(x, 0, &key, p.accent());
        x = pen.put(x + 1, 0, binding.name, p.quiet()) + 2;
    }
}
