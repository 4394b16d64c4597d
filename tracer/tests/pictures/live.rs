//! Draws the live view of the recording, as `vmentry live FILE` shows it at the end.

use std::fs;

use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::{Buffer, Cell},
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    style::{Color, Modifier},
};
use vmentry::{
    recording::Reader,
    tui::{App, Colors, Info, Origin, Palette, app::Replay, view},
};

use crate::{
    RECORDING, recordings,
    screen::{self, Look, Rgb},
};

const SIZE: (u16, u16) = (110, 30);

pub fn pictures() -> Vec<(&'static str, String)> {
    let shown = |title: &str, keys: &[KeyCode]| {
        let mut app = played();
        let mut buffer = drawn(&mut app);
        for key in keys {
            app.key(KeyEvent::new(*key, KeyModifiers::NONE));
            buffer = drawn(&mut app);
        }
        let lines: Vec<_> =
            buffer.content.chunks(SIZE.0.into()).map(|cells| cells.iter().map(cell).collect()).collect();
        screen::picture(title, &format!("vmentry live {RECORDING}"), SIZE.0.into(), &lines)
    };
    // The window of a minute holds the whole recording.
    let vm = [KeyCode::Char('w')];
    let reason = [KeyCode::Char('w'), KeyCode::Char('g'), KeyCode::Char('g')];
    vec![
        ("live.svg", shown("The live view of vmentry: VMs, and where the time of one goes", &vm)),
        ("exit-reason.svg", shown("The live view of vmentry: exit reasons, and the figures of one", &reason)),
    ]
}

/// The live view after the last interval of the recording.
fn played() -> App {
    let file = fs::read(recordings().join(RECORDING)).unwrap();
    let mut reader = Reader::new(file.as_slice()).unwrap();
    let mut intervals = Vec::new();
    while let Some(interval) = reader.read_interval().unwrap() {
        intervals.push(interval);
    }
    let info = Info::of(reader.header(), reader.end(), Origin::Replay { file: RECORDING.into() });
    let mut app = App::new(info, Palette { color: Colors::True, ascii: false });
    intervals.into_iter().for_each(|interval| app.push(interval));
    app.set_replay(Replay { speed: 1.0, paused: false, position: 1.0, range_ns: None });
    app
}

fn drawn(app: &mut App) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(SIZE.0, SIZE.1)).unwrap();
    terminal.draw(|frame| view::draw(frame, app)).unwrap();
    terminal.backend().buffer().clone()
}

fn cell(cell: &Cell) -> (char, Look) {
    let has = |modifier| cell.modifier.contains(modifier);
    let look = Look {
        text: rgb(cell.fg),
        page: rgb(cell.bg),
        bold: has(Modifier::BOLD),
        dim: has(Modifier::DIM),
        reversed: has(Modifier::REVERSED),
    };
    (cell.symbol().chars().next().unwrap_or(' '), look)
}

/// None for the terminal's own.
fn rgb(color: Color) -> Option<Rgb> {
    match color {
        Color::Reset => None,
        Color::Rgb(r, g, b) => Some([r, g, b]),
        other => panic!("a colour whose look is the terminal's choice: {other:?}"),
    }
}
