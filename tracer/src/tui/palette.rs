//! Colours and characters: few quiet colours; whatever a colour means is also said by text or form.

use ratatui::style::{Color, Modifier, Style};

/// Colours of the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colors {
    /// none, or not wanted
    None,
    /// the 256 of xterm
    Ansi256,
    /// 24 bits
    True,
}

/// Colours and characters to draw with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Palette {
    /// colours
    pub color: Colors,
    /// only ASCII characters
    pub ascii: bool,
}

impl Palette {
    fn of(self, rgb: (u8, u8, u8), indexed: u8) -> Style {
        match self.color {
            Colors::None => Style::new(),
            Colors::Ansi256 => Style::new().fg(Color::Indexed(indexed)),
            Colors::True => Style::new().fg(Color::Rgb(rgb.0, rgb.1, rgb.2)),
        }
    }

    /// Ordinary text.
    pub fn plain(self) -> Style {
        Style::new()
    }

    /// Labels, units, lines.
    pub fn quiet(self) -> Style {
        match self.color {
            Colors::None => Style::new().add_modifier(Modifier::DIM),
            _ => self.of((118, 126, 140), 244),
        }
    }

    /// Titles and names.
    pub(crate) fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// The sorted column, keys, titles of panels.
    pub(crate) fn accent(self) -> Style {
        self.of((122, 178, 210), 110).add_modifier(Modifier::BOLD)
    }

    /// Clean entries, sparklines.
    pub fn clean(self) -> Style {
        self.of((110, 168, 150), 72)
    }

    /// Dirty entries.
    pub fn dirty(self) -> Style {
        self.of((214, 162, 92), 179).add_modifier(Modifier::BOLD)
    }

    /// Less than the baseline.
    pub fn lower(self) -> Style {
        self.of((130, 178, 120), 108)
    }

    /// More than the baseline.
    pub(crate) fn higher(self) -> Style {
        self.of((206, 134, 110), 173)
    }

    /// A state to be aware of.
    pub(crate) fn notice(self) -> Style {
        self.of((224, 186, 108), 179).add_modifier(Modifier::BOLD)
    }

    /// Loss.
    pub(crate) fn loud(self) -> Style {
        let style = Style::new().add_modifier(Modifier::BOLD);
        match self.color {
            Colors::None => style.add_modifier(Modifier::REVERSED),
            Colors::Ansi256 => style.fg(Color::Indexed(231)).bg(Color::Indexed(160)),
            Colors::True => style.fg(Color::Rgb(255, 255, 255)).bg(Color::Rgb(190, 40, 40)),
        }
    }

    /// The selected row, over its own style.
    pub fn selected(self) -> Style {
        match self.color {
            Colors::None => Style::new().add_modifier(Modifier::REVERSED),
            Colors::Ansi256 => Style::new().bg(Color::Indexed(237)),
            Colors::True => Style::new().bg(Color::Rgb(44, 50, 60)),
        }
    }

    /// Bars of 1 to 8 eighths of a cell.
    pub(crate) fn bars(self) -> &'static [char] {
        if self.ascii {
            &['.', ':', '-', '=', '+', '*', '%', '#']
        } else {
            &['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
        }
    }

    /// The character that the terminal can show.
    pub(crate) fn glyph(self, unicode: &'static str, ascii: &'static str) -> &'static str {
        if self.ascii { ascii } else { unicode }
    }
}
