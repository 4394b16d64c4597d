//! Colours and characters: few quiet colours that are readable on black and on white; whatever a colour means is also said by text or
//! form.

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
            _ => self.of((118, 118, 118), 243),
        }
    }

    /// Titles and names.
    pub(crate) fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// The sorted column, keys, titles of panels.
    pub(crate) fn accent(self) -> Style {
        self.of((45, 123, 179), 31).add_modifier(Modifier::BOLD)
    }

    /// Clean entries, sparklines, guest time.
    pub fn clean(self) -> Style {
        self.of((13, 134, 94), 29)
    }

    /// Dirty entries.
    pub fn dirty(self) -> Style {
        self.of((173, 99, 9), 130).add_modifier(Modifier::BOLD)
    }

    /// Host time.
    pub(crate) fn host(self) -> Style {
        self.of((45, 123, 179), 31)
    }

    /// The VMM's time.
    pub(crate) fn user(self) -> Style {
        self.of((148, 94, 187), 98)
    }

    /// Less than the baseline.
    pub fn lower(self) -> Style {
        self.of((56, 134, 40), 28)
    }

    /// More than the baseline.
    pub(crate) fn higher(self) -> Style {
        self.of((198, 79, 50), 131)
    }

    /// A state to be aware of.
    pub(crate) fn notice(self) -> Style {
        self.of((160, 107, 0), 130).add_modifier(Modifier::BOLD)
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

    /// The selected row, instead of its own style: readable on any background.
    pub fn selected(self) -> Style {
        let style = Style::new().fg(Color::Reset).bg(Color::Reset).remove_modifier(Modifier::DIM);
        style.add_modifier(Modifier::REVERSED)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Red, green and blue of a colour; none of the terminal's own.
    fn rgb(color: Option<Color>) -> Option<[u8; 3]> {
        match color? {
            Color::Reset => None,
            Color::Rgb(r, g, b) => Some([r, g, b]),
            // The cube of 6 x 6 x 6 and the greys of xterm.
            Color::Indexed(n @ 16..=231) => {
                let level = |n: u8| [0, 95, 135, 175, 215, 255][usize::from(n % 6)];
                Some([level((n - 16) / 36), level((n - 16) / 6), level(n - 16)])
            }
            Color::Indexed(n @ 232..) => Some([8 + 10 * (n - 232); 3]),
            other => panic!("a colour whose look is the terminal's choice: {other:?}"),
        }
    }

    /// Relative luminance by WCAG 2.
    fn luminance(rgb: [u8; 3]) -> f64 {
        let [r, g, b] = rgb.map(|part| {
            let part = f64::from(part) / 255.0;
            if part <= 0.03928 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
        });
        0.2126 * r + 0.7152 * g + 0.0722 * b
    }

    /// Contrast by WCAG 2, 1..21.
    fn contrast(a: [u8; 3], b: [u8; 3]) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn every_colour_is_readable_on_black_and_on_white() {
        type Of = fn(Palette) -> Style;
        let all: [(&str, Of); 12] = [
            ("plain", Palette::plain),
            ("quiet", Palette::quiet),
            ("strong", Palette::strong),
            ("accent", Palette::accent),
            ("clean", Palette::clean),
            ("dirty", Palette::dirty),
            ("host", Palette::host),
            ("user", Palette::user),
            ("lower", Palette::lower),
            ("higher", Palette::higher),
            ("notice", Palette::notice),
            ("loud", Palette::loud),
        ];
        // 4.5 is the standard's least for text. Of the 256 colours few reach it on both backgrounds; all have 4.
        for (color, least) in [(Colors::True, 4.5), (Colors::Ansi256, 4.0)] {
            for (name, of) in all {
                let style = of(Palette { color, ascii: false });
                for terminal in [[0; 3], [255; 3]] {
                    let opposite = terminal.map(|part: u8| 255 - part);
                    let ratio = contrast(rgb(style.fg).unwrap_or(opposite), rgb(style.bg).unwrap_or(terminal));
                    assert!(ratio >= least, "{name} on {terminal:?} in {color:?}: {ratio:.2}");
                }
            }
        }
    }

    #[test]
    fn the_selected_row_has_the_terminals_own_colours() {
        for color in [Colors::None, Colors::Ansi256, Colors::True] {
            let painted = Palette { color, ascii: false };
            let style = painted.quiet().patch(painted.selected());
            assert_eq!(
                (style.fg.unwrap_or(Color::Reset), style.bg.unwrap_or(Color::Reset)),
                (Color::Reset, Color::Reset)
            );
            assert!(style.add_modifier.contains(Modifier::REVERSED) && !style.add_modifier.contains(Modifier::DIM));
        }
    }
}
