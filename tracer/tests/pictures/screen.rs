//! Draws a terminal's cells as SVG: texts at their columns whatever the reader's font is, and the characters of bars and
//! lines as shapes, which leave no gaps between rows.

use std::{collections::BTreeMap, fmt::Write};

/// Red, green and blue.
pub type Rgb = [u8; 3];

/// The terminal's own colours.
const TEXT: Rgb = [0xd6, 0xdb, 0xe1];
const PAGE: Rgb = [0x0f, 0x12, 0x16];
/// Part of the text's colour that dim text has; the rest is the background's.
const DIM: f64 = 0.6;

/// Size of a cell; a monospace font of 13.3 pixels has letters of 8.
const CELL: (usize, usize) = (8, 17);
const FONT: &str =
    "13.3px ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono', monospace";
/// From the top of a cell to the text's base line.
const BASE: usize = 13;
const MARGIN: usize = 12;
/// Height of the bar with the command.
const BAR: usize = 30;

/// The look of a cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Look {
    /// none: the terminal's own
    pub text: Option<Rgb>,
    /// none: the terminal's own
    pub page: Option<Rgb>,
    pub bold: bool,
    pub dim: bool,
    pub reversed: bool,
}

impl Look {
    fn page(self) -> Option<Rgb> {
        if self.reversed { Some(self.text.unwrap_or(TEXT)) } else { self.page }
    }

    fn text(self) -> Rgb {
        let text = if self.reversed { self.page.unwrap_or(PAGE) } else { self.text.unwrap_or(TEXT) };
        if self.dim { mixed(text, self.page().unwrap_or(PAGE), DIM) } else { text }
    }
}

/// So much of a colour, and the rest of another.
fn mixed(a: Rgb, b: Rgb, share: f64) -> Rgb {
    std::array::from_fn(|n| (f64::from(a[n]) * share + f64::from(b[n]) * (1.0 - share)).round() as u8)
}

fn hex([r, g, b]: Rgb) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// A line of cells: a character and its look each.
pub type Line = Vec<(char, Look)>;

/// The picture of a terminal of `width` columns, in which `command` shows `lines`; `title` says what it shows.
pub fn picture(title: &str, command: &str, width: usize, lines: &[Line]) -> String {
    let mut shapes = Shapes::default();
    let mut texts: BTreeMap<(Rgb, bool), String> = BTreeMap::new();
    for (row, line) in lines.iter().enumerate() {
        assert!(line.len() <= width, "{} cells in line {row} of {width}", line.len());
        let y = BAR + MARGIN / 2 + row * CELL.1;
        for (column, (character, look)) in line.iter().enumerate() {
            let x = MARGIN + column * CELL.0;
            if let Some(page) = look.page() {
                shapes.add(0, page, Rect::of_cell(x, y, (0.0, 1.0), (0.0, 1.0)));
            }
            shapes.add_character(*character, look, x, y);
        }
        for run in runs(line) {
            let (x, length) = (MARGIN + run.column * CELL.0, run.text.chars().count() * CELL.0);
            let into = texts.entry((run.look.text(), run.look.bold)).or_default();
            let text = escaped(&run.text);
            writeln!(into, "<text x=\"{x}\" y=\"{}\" textLength=\"{length}\">{text}</text>", y + BASE).unwrap();
        }
    }
    let (w, h) = (2 * MARGIN + width * CELL.0, BAR + 3 * MARGIN / 2 + lines.len() * CELL.1);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" \
         style=\"font: {FONT}\">\n<title>{}</title>\n",
        escaped(title)
    );
    // The edge sets the dark terminal off from a dark page.
    let (page, edge) = (hex(PAGE), "#4a525c");
    writeln!(
        out,
        "<rect x=\".5\" y=\".5\" width=\"{}\" height=\"{}\" rx=\"8\" fill=\"{page}\" stroke=\"{edge}\"/>\n\
         <path d=\"M1 {BAR}V8.5A7.5 7.5 0 0 1 8.5 1H{}A7.5 7.5 0 0 1 {} 8.5V{BAR}z\" fill=\"#262c33\"/>",
        w - 1,
        h - 1,
        w - 9,
        w - 1
    )
    .unwrap();
    let length = command.chars().count() * CELL.0;
    writeln!(
        out,
        "<text x=\"{MARGIN}\" y=\"20\" fill=\"#9aa4af\">$</text>\
         <text x=\"{}\" y=\"20\" fill=\"#eef1f4\" textLength=\"{length}\">{}</text>",
        MARGIN + 2 * CELL.0,
        escaped(command)
    )
    .unwrap();
    out += &shapes.drawn();
    for ((color, bold), texts) in texts {
        let weight = if bold { " font-weight=\"bold\"" } else { "" };
        write!(out, "<g fill=\"{}\"{weight}>\n{texts}</g>\n", hex(color)).unwrap();
    }
    out + "</svg>\n"
}

/// Texts of one look. Each ends at two spaces, and where a character begins that the reader's font may lack.
struct Run {
    column: usize,
    look: Look,
    text: String,
}

fn runs(line: &Line) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (column, (character, look)) in line.iter().enumerate() {
        if *character == ' ' || !parts(*character).is_empty() {
            continue;
        }
        let continued = runs.last_mut().filter(|run| {
            let gap = column - run.column - run.text.chars().count();
            run.look == *look
                && gap < 2
                && run.text.is_ascii()
                && character.is_ascii()
                && line[column - gap..column].iter().all(|(c, l)| *c == ' ' && l == look)
        });
        match continued {
            Some(run) => {
                let gap = column - run.column - run.text.chars().count();
                run.text.extend(std::iter::repeat_n(' ', gap).chain([*character]));
            }
            None => runs.push(Run { column, look: *look, text: (*character).into() }),
        }
    }
    runs
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A range of a cell's width or height, `0.0..=1.0`.
type Part = (f64, f64);

/// Parts of the cell that a character fills: across, down, and how much of the colour. None for a text's character.
fn parts(character: char) -> Vec<(Part, Part, f64)> {
    const ALL: Part = (0.0, 1.0);
    const FIRST: Part = (0.0, 0.5);
    const SECOND: Part = (0.5, 1.0);
    match character {
        '▁'..='█' => vec![(ALL, (1.0 - f64::from(character as u32 - '▁' as u32 + 1) / 8.0, 1.0), 1.0)],
        '▉'..='▏' => vec![((0.0, 1.0 - f64::from(character as u32 - '█' as u32) / 8.0), ALL, 1.0)],
        '░' => vec![(ALL, ALL, 0.3)],
        '▒' => vec![(ALL, ALL, 0.5)],
        '▓' => vec![(ALL, ALL, 0.75)],
        '▚' => vec![(FIRST, FIRST, 1.0), (SECOND, SECOND, 1.0)],
        '▞' => vec![(SECOND, FIRST, 1.0), (FIRST, SECOND, 1.0)],
        '▬' => vec![(ALL, (0.35, 0.7), 1.0)],
        '─' => vec![(ALL, (0.5, 0.6), 1.0)],
        _ => Vec::new(),
    }
}

/// A rectangle, in 16ths of a pixel, so that equal ones compare as such.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Rect {
    x: usize,
    y: usize,
    width: usize,
    height: usize,
}

impl Rect {
    fn of_cell(x: usize, y: usize, across: Part, down: Part) -> Self {
        let at = |origin: usize, size: usize, part: f64| 16 * origin + (16.0 * size as f64 * part).round() as usize;
        let (left, right) = (at(x, CELL.0, across.0), at(x, CELL.0, across.1));
        let (top, bottom) = (at(y, CELL.1, down.0), at(y, CELL.1, down.1));
        Self { x: left, y: top, width: right - left, height: bottom - top }
    }
}

/// Rectangles by depth and colour; the deepest is drawn first.
#[derive(Default)]
struct Shapes(BTreeMap<(usize, Rgb), Vec<Rect>>);

impl Shapes {
    fn add_character(&mut self, character: char, look: &Look, x: usize, y: usize) {
        for (across, down, share) in parts(character) {
            let color = mixed(look.text(), look.page().unwrap_or(PAGE), share);
            self.add(1, color, Rect::of_cell(x, y, across, down));
        }
    }

    /// Adds a rectangle, or makes the one to its left wider.
    fn add(&mut self, depth: usize, color: Rgb, rect: Rect) {
        let rects = self.0.entry((depth, color)).or_default();
        match rects.last_mut() {
            Some(last) if last.x + last.width == rect.x && (last.y, last.height) == (rect.y, rect.height) => {
                last.width += rect.width;
            }
            _ => rects.push(rect),
        }
    }

    fn drawn(&self) -> String {
        let mut out = "<g shape-rendering=\"crispEdges\">\n".to_owned();
        let px = |sixteenths: usize| sixteenths as f64 / 16.0;
        for ((_, color), rects) in &self.0 {
            write!(out, "<path fill=\"{}\" d=\"", hex(*color)).unwrap();
            for r in rects {
                write!(out, "M{} {}h{}v{}h-{}z", px(r.x), px(r.y), px(r.width), px(r.height), px(r.width)).unwrap();
            }
            out += "\"/>\n";
        }
        out + "</g>\n"
    }
}

#[test]
fn bars_are_shapes_and_texts_keep_their_columns() {
    let look = Look::default();
    let cells = |text: &str| text.chars().map(|c| (c, look)).collect::<Line>();
    let drawn = picture("a", "b", 20, &[cells("a b  c▸d"), cells("██░x")]);
    for (column, text, length) in [(0, "a b", 3), (5, "c", 1), (6, "▸", 1), (7, "d", 1)] {
        let wanted = format!("<text x=\"{}\" y=\"49\" textLength=\"{}\">{text}<", 12 + 8 * column, 8 * length);
        assert!(drawn.contains(&wanted), "{wanted}\n{drawn}");
    }
    assert!(drawn.contains("d=\"M12 53h16v17h-16z\"") && !drawn.contains('█'), "{drawn}");
}
