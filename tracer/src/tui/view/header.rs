//! The header: host, policy, sources of figures, loss; the most important first.

use super::pen::{Pen, width_of};
use crate::{
    model::{
        figures::{Unit, human},
        measurement::{Aggregation, PinSource},
    },
    output::grouped,
    tui::{App, Origin, columns::short},
};

/// Draws both lines.
pub(super) fn draw(pen: &mut Pen, app: &App) {
    let p = pen.palette;
    pen.paint(0, 0, pen.width(), p.strong());
    let state = state(app);
    let width = width_of(&state);
    let notice = app.end.is_some() || app.replay.is_some_and(|r| r.paused);
    let right = pen.width();
    pen.put_right(right.saturating_sub(1), 0, &state, if notice { p.notice() } else { p.accent() });
    let mut left = pen.part(0, 0, right.saturating_sub(width + 3), 1);
    let mut x = left.put(1, 0, "vmentry", p.strong());
    let host = &app.info.host;
    let mut word = |text: &str, style| {
        if !text.is_empty() {
            let room = left.width().saturating_sub(x + 2);
            if width_of(text) <= room {
                x = left.put(x + 2, 0, text, style);
            } else {
                left.put_cut(x + 2, 0, text, room, style);
                x = left.width();
            }
        }
    };
    if host.emulated {
        word("EMULATED", p.notice());
    }
    if !app.info.other_tracers.is_empty() {
        word(&format!("SHARED with {}", app.info.other_tracers.join(", ")), p.notice());
    }
    if let Origin::Replay { file } = &app.info.origin {
        word(file, p.plain());
    }
    word(&host.name, p.plain());
    if let Some(hypervisor) = host.virtualized.as_deref().filter(|_| !host.emulated) {
        word(&format!("virtualized ({hypervisor})"), p.notice());
    }
    if app.info.aggregation == Aggregation::InKernel {
        word("values to 1.6 %", p.notice());
    }
    word(&host.kernel, p.quiet());
    word(&host.cpu, p.quiet());
    figures(pen, app);
}

/// Baseline, filter, window, and whether the window is live.
fn state(app: &App) -> String {
    let mut words = Vec::new();
    if let Some(baseline) = &app.baseline {
        words.push(format!("vs {:.0} s of {}", baseline.seconds(), baseline.policy.name()));
    }
    if !app.filter.is_empty() {
        words.push(format!("filter '{}'", app.filter));
    }
    words.push(app.window.name().to_owned());
    words.extend(app.left_out());
    match (&app.info.origin, app.replay) {
        _ if app.paused => words.push("PAUSED".into()),
        _ if app.end.is_some() => words.push(format!("{:.0} s BACK", app.behind_s())),
        (Origin::Replay { .. }, Some(r)) => {
            let speed = if r.paused { "STOPPED".into() } else { format!("x{}", r.speed) };
            words.push(format!("replay {:.0}% {speed}", r.position * 100.0));
        }
        (Origin::Replay { .. }, None) => words.push("replay".into()),
        (Origin::Live, _) => words.push("live".into()),
    }
    words.join(app.palette.glyph(" · ", " | "))
}

fn figures(pen: &mut Pen, app: &App) {
    let p = pen.palette;
    let mut x = 1;
    if app.lost > 0 {
        x = pen.put(x, 1, &format!(" LOST {} ", short(app.lost as f64)), p.loud()) + 2;
    }
    let rate = (app.seen.seconds > 0.0).then(|| app.seen.entries as f64 / app.seen.seconds);
    let source = match app.info.pin_writes_source {
        PinSource::None => "n/a",
        source => source.name(),
    };
    let unknown = unknown(app);
    let mut words = vec![
        ("policy", app.info.policy.name().to_owned()),
        ("entries/s", human(rate, Unit::PerSecond)),
        ("pin writes", source.to_owned()),
        (UNKNOWN, unknown),
        ("own CPU", app.own_cpu.map_or("n/a".into(), |c| format!("{c:.1}%"))),
        ("lost", grouped(app.lost)),
        ("longest timer delay", human(app.info.max_delay_s.map(|s| s * 1e9), Unit::Ns)),
        ("times", app.units.name().to_owned()),
    ];
    words.retain(|(name, value)| !value.is_empty() && (app.lost == 0 || *name != "lost"));
    for (name, mut value) in words {
        if name == UNKNOWN {
            let room = pen.width().saturating_sub(x + width_of(name) + 1);
            value = cut(value, usize::from(room), p.glyph("…", "~"));
        }
        let width = width_of(name).saturating_add(1).saturating_add(width_of(&value));
        if x.saturating_add(width) > pen.width() && x > 1 {
            break;
        }
        x = pen.put(x, 1, name, p.quiet());
        x = pen.put(x + 1, 1, &value, p.plain()) + 2;
    }
}

/// The name of what is not known.
const UNKNOWN: &str = "n/a here";

/// What is not known here, with the reasons; empty where everything is.
fn unknown(app: &App) -> String {
    let groups = app.info.knowledge.unknown_by_reason().into_iter();
    let texts: Vec<_> = groups.map(|(titles, reason)| format!("{titles} ({reason})")).collect();
    texts.join("; ")
}

/// The first characters of a text, the last of which is then an ellipsis.
fn cut(text: String, most: usize, ellipsis: &str) -> String {
    if text.chars().count() <= most {
        return text;
    }
    text.chars().take(most.saturating_sub(1)).chain(ellipsis.chars()).collect()
}
