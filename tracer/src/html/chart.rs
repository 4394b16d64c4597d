//! Pictures: lines, areas and rows over axes, as inline SVG that the page's style colours. Lines that are compared differ in dashes
//! and marks too, and every picture has words for who cannot see it.

use std::fmt::Write as _;

use super::{axis::Axis, axis::label, escape};
use crate::model::figures::Unit;

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// the first, or A: a whole line, filled circles
    A,
    /// the second, or B: a dashed line, open squares
    B,
}

impl Look {
    const fn class(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// What stands along the left.
enum Side {
    Axis(Axis, Unit),
    Rows(Vec<String>),
}

/// A picture under construction. Sizes are units of the viewBox, about a pixel each.
pub struct Chart {
    id: String,
    title: String,
    description: String,
    x: (Axis, String, Box<dyn Fn(f64) -> String>),
    side: Side,
    side_title: String,
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    marks: String,
    legend: Vec<(Look, String)>,
}

/// Room for the title of the left axis and the legend.
const TOP: f64 = 30.0;
/// Rows have neither.
const TOP_OF_ROWS: f64 = 6.0;
const BOTTOM: f64 = 42.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 22.0;

impl Chart {
    /// Two axes. `id` is unique in the page; `x` and `y` come with their titles.
    pub fn new(id: impl Into<String>, title: &str, x: (Axis, Unit, &str), y: (Axis, Unit, &str)) -> Self {
        let unit = x.1;
        Self {
            id: id.into(),
            title: title.to_owned(),
            description: String::new(),
            x: (x.0, x.2.to_owned(), Box::new(move |v| label(v, unit))),
            side: Side::Axis(y.0, y.1),
            side_title: y.2.to_owned(),
            width: 520.0,
            height: 260.0,
            left: LEFT,
            right: RIGHT,
            marks: String::new(),
            legend: Vec::new(),
        }
    }

    /// One axis, and a row for each label, `step` high. `left` and `right` are the room beside it.
    pub fn rows(
        id: impl Into<String>,
        title: &str,
        x: (Axis, Unit, &str),
        rows: Vec<String>,
        step: f64,
        [left, right]: [f64; 2],
    ) -> Self {
        let height = TOP_OF_ROWS + BOTTOM + step * rows.len() as f64;
        let mut chart = Self::new(id, title, x, (Axis::linear(0.0, 1.0), Unit::Count, ""));
        chart.width += (left - LEFT) + (right - RIGHT);
        (chart.side, chart.height, chart.left, chart.right) = (Side::Rows(rows), height, left, right);
        chart
    }

    /// What the picture shows, in a sentence with its numbers.
    pub fn describe(mut self, text: impl Into<String>) -> Self {
        self.description = text.into();
        self
    }

    /// Writes other labels under the axis.
    pub fn label_x(mut self, label: impl Fn(f64) -> String + 'static) -> Self {
        self.x.2 = Box::new(label);
        self
    }

    fn top(&self) -> f64 {
        if let Side::Rows(_) = self.side { TOP_OF_ROWS } else { TOP }
    }

    /// Place of a value from the left.
    pub fn x(&self, value: f64) -> f64 {
        self.left + self.x.0.share(value) * (self.width - self.left - self.right)
    }

    /// Place of a value from the top.
    pub fn y(&self, value: f64) -> f64 {
        let share = if let Side::Axis(axis, _) = &self.side { axis.share(value) } else { value };
        self.height - BOTTOM - share * (self.height - self.top() - BOTTOM)
    }

    /// Middle of a row, from the top.
    pub fn row(&self, row: usize) -> f64 {
        let rows = if let Side::Rows(rows) = &self.side { rows.len() } else { 1 };
        self.top() + (self.height - self.top() - BOTTOM) * (row as f64 + 0.5) / rows as f64
    }

    /// Names a look beside the title.
    pub fn legend(&mut self, look: Look, text: &str) {
        self.legend.push((look, text.to_owned()));
    }

    /// Anything, in places from [`Chart::x`] and the like; under what is drawn later.
    pub fn draw(&mut self, svg: &str) {
        self.marks += svg;
        self.marks.push('\n');
    }

    /// Text within the picture.
    pub fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        let text = escape(text);
        self.draw(&format!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>"));
    }

    /// A line through the points, interrupted where a value is none.
    pub fn line(&mut self, look: Look, points: &[(f64, Option<f64>)]) {
        let (mut path, mut down) = (String::new(), false);
        for &(x, y) in points {
            if let Some(y) = y {
                let command = if down { 'L' } else { 'M' };
                let _ = write!(path, "{command}{:.1} {:.1}", self.x(x), self.y(y));
            }
            down = y.is_some();
        }
        if !path.is_empty() {
            self.draw(&format!("<path class=\"line {}\" d=\"{path}\"/>", look.class()));
        }
    }

    /// The area between two lines.
    pub fn band(&mut self, look: Look, points: &[(f64, f64, f64)]) {
        let there = points.iter().map(|&(x, low, _)| (x, low));
        let back = points.iter().rev().map(|&(x, _, high)| (x, high));
        let corners: Vec<_> = there.chain(back).map(|(x, y)| format!("{:.1} {:.1}", self.x(x), self.y(y))).collect();
        if !corners.is_empty() {
            self.draw(&format!("<path class=\"fill {}\" d=\"M{}Z\"/>", look.class(), corners.join("L")));
        }
    }

    /// A mark at a point.
    pub fn dot(&mut self, look: Look, x: f64, y: f64) {
        let (x, y) = (self.x(x), self.y(y));
        self.draw(&dot(look, x, y));
    }

    /// A line across, at a value of the left axis.
    pub fn level(&mut self, value: f64) {
        let (y, left, right) = (self.y(value), self.left, self.width - self.right);
        self.draw(&format!("<path class=\"zero\" d=\"M{left} {y:.1}H{right}\"/>"));
    }

    /// A line from top to bottom at a value of the lower axis.
    pub fn mark(&mut self, value: f64, class: &str) {
        let (x, top, bottom) = (self.x(value), self.top(), self.height - BOTTOM);
        self.draw(&format!("<path class=\"{class}\" d=\"M{x:.1} {top}V{bottom}\"/>"));
    }

    /// As HTML: a figure with its caption, that scrolls where it is too wide.
    pub fn render(&self) -> String {
        let Self { id, width, height, left, right, .. } = self;
        let (title, description) = (escape(&self.title), escape(&self.description));
        let size = if *width > 560.0 { "wide" } else { "small" };
        let mut out = format!(
            "<figure>\n<figcaption>{title}</figcaption>\n\
             <div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"{title}\">\n\
             <svg role=\"img\" class=\"{size}\" viewBox=\"0 0 {width} {height}\" aria-labelledby=\"{id}-t {id}-d\">\n\
             <title id=\"{id}-t\">{title}</title>\n<desc id=\"{id}-d\">{description}</desc>\n"
        );
        let (top, bottom, end) = (self.top(), height - BOTTOM, width - right);
        match &self.side {
            Side::Axis(axis, unit) => {
                for tick in axis.ticks(5) {
                    let (y, text) = (self.y(tick), label(tick, *unit));
                    let _ = writeln!(
                        out,
                        "<path class=\"grid-line\" d=\"M{left} {y:.1}H{end}\"/>\
                         <text class=\"tick end\" x=\"{:.1}\" y=\"{:.1}\">{text}</text>",
                        left - 7.0,
                        y + 4.0
                    );
                }
            }
            Side::Rows(rows) => {
                for (at, row) in rows.iter().enumerate() {
                    let y = self.row(at) + 4.5;
                    let _ = writeln!(out, "<text x=\"0\" y=\"{y:.1}\">{}</text>", escape(row));
                }
            }
        }
        for tick in self.x.0.ticks(7) {
            let (x, text) = (self.x(tick), escape(&(self.x.2)(tick)));
            let _ = writeln!(
                out,
                "<path class=\"grid-line\" d=\"M{x:.1} {top}V{bottom}\"/>\
                 <text class=\"tick middle\" x=\"{x:.1}\" y=\"{:.1}\">{text}</text>",
                bottom + 17.0
            );
        }
        out += &self.marks;
        let _ = writeln!(out, "<path class=\"axis\" d=\"M{left} {bottom}H{end}\"/>");
        let middle = f64::midpoint(*left, end);
        let _ = writeln!(
            out,
            "<text class=\"tick middle\" x=\"{middle:.1}\" y=\"{:.1}\">{}</text>",
            height - 6.0,
            escape(&self.x.1)
        );
        if !self.side_title.is_empty() {
            let _ = writeln!(out, "<text class=\"tick\" x=\"0\" y=\"14\">{}</text>", escape(&self.side_title));
        }
        out += &self.legend_svg(end);
        out + "</svg>\n</div>\n</figure>\n"
    }

    /// From the right end of the title's line to the left.
    fn legend_svg(&self, end: f64) -> String {
        let mut out = String::new();
        let mut x = end;
        for (look, text) in self.legend.iter().rev() {
            let text: String = if text.chars().count() > 16 {
                text.chars().take(15).chain(['\u{2026}']).collect()
            } else {
                text.clone()
            };
            x -= 7.3 * text.chars().count() as f64;
            let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"15\">{}</text>", escape(&text));
            x -= 42.0;
            let class = look.class();
            let _ = writeln!(out, "<path class=\"line {class}\" d=\"M{x:.1} 11h36\"/>{}", dot(*look, x + 18.0, 11.0));
            x -= 16.0;
        }
        out
    }
}

/// A mark at a place.
pub fn dot(look: Look, x: f64, y: f64) -> String {
    match look {
        Look::A => format!("<circle class=\"dot a\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>"),
        Look::B => {
            format!("<rect class=\"dot b\" x=\"{:.1}\" y=\"{:.1}\" width=\"6.5\" height=\"6.5\"/>", x - 3.25, y - 3.25)
        }
    }
}
