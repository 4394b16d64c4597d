//! Pictures: lines, areas and rows over axes, as inline SVG by hand; the page's style colours it. Compared lines also differ in
//! dashes and marks, and every picture has a description in words. All text in a picture passes [`Text`].

use std::fmt::Write as _;

use maud::{Markup, PreEscaped};

use super::{Text, axis::Axis, axis::label};
use crate::model::figures::Unit;

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// the first series, or A: a solid line, filled circles
    A,
    /// the second series, or B: a dashed line, open squares
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

/// An axis with the unit of its values and its title.
pub(crate) struct Scale<'a> {
    /// axis of the values
    pub(crate) axis: Axis,
    /// unit of the values
    pub(crate) unit: Unit,
    /// shown beside the axis; may be empty
    pub(crate) title: &'a str,
}

/// Rows that stand instead of a left axis.
pub(crate) struct Rows {
    /// one per row
    pub(crate) labels: Vec<String>,
    /// height of a row
    pub(crate) step: f64,
    /// room for the labels
    pub(crate) left: f64,
    /// room for text right of the rows
    pub(crate) right: f64,
}

/// How wide a picture is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// as wide as the page; not shown on phones
    Page,
    /// as wide as a phone, and shown there alone
    Phone,
}

impl Size {
    /// Class in the style.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Phone => "phone",
        }
    }

    const fn width(self) -> f64 {
        match self {
            Self::Page => 1150.0,
            Self::Phone => 350.0,
        }
    }
}

/// The left side of a picture.
enum Side {
    Axis(Axis, Unit),
    Rows(Vec<String>),
}

/// The lower axis of a picture.
struct LowerAxis {
    axis: Axis,
    title: String,
    label: Box<dyn Fn(f64) -> String>,
}

/// A picture under construction. Sizes are units of the viewBox, about a pixel each.
pub(crate) struct Chart {
    id: String,
    title: String,
    description: String,
    x: LowerAxis,
    side: Side,
    side_title: String,
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    size: Option<Size>,
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
/// Characters of a name in the legend.
const MAX_LEGEND: usize = 16;

impl Chart {
    /// A picture with two axes. `id` is unique in the page.
    pub(crate) fn new(id: impl Into<String>, title: &str, x: Scale<'_>, y: Scale<'_>) -> Self {
        let unit = x.unit;
        Self {
            id: id.into(),
            title: title.to_owned(),
            description: String::new(),
            x: LowerAxis { axis: x.axis, title: x.title.to_owned(), label: Box::new(move |v| label(v, unit)) },
            side: Side::Axis(y.axis, y.unit),
            side_title: y.title.to_owned(),
            width: 520.0,
            height: 260.0,
            left: LEFT,
            right: RIGHT,
            size: None,
            marks: String::new(),
            legend: Vec::new(),
        }
    }

    /// A picture with one axis and a row per label.
    pub(crate) fn rows(id: impl Into<String>, title: &str, x: Scale<'_>, rows: Rows) -> Self {
        let Rows { labels, step, left, right } = rows;
        let mut chart = Self::new(id, title, x, Scale { axis: Axis::linear(0.0, 1.0), unit: Unit::Count, title: "" });
        chart.height = TOP_OF_ROWS + BOTTOM + step * labels.len() as f64;
        chart.width += (left - LEFT) + (right - RIGHT);
        (chart.side, chart.left, chart.right) = (Side::Rows(labels), left, right);
        chart
    }

    /// Makes it as wide as a page or a phone; before anything is drawn.
    pub(crate) fn sized(mut self, size: Size) -> Self {
        (self.width, self.size) = (size.width(), Some(size));
        self
    }

    /// Sets the description for readers who cannot see the picture: a sentence with its numbers.
    pub(crate) fn describe(mut self, text: impl Into<String>) -> Self {
        self.description = text.into();
        self
    }

    /// Replaces the labels of the lower axis.
    pub(crate) fn label_x(mut self, label: impl Fn(f64) -> String + 'static) -> Self {
        self.x.label = Box::new(label);
        self
    }

    fn top(&self) -> f64 {
        if let Side::Rows(_) = self.side { TOP_OF_ROWS } else { TOP }
    }

    /// Distance of a value from the left edge.
    pub(crate) fn x(&self, value: f64) -> f64 {
        self.left + self.x.axis.share(value) * (self.width - self.left - self.right)
    }

    /// Distance of a value from the top edge.
    pub(crate) fn y(&self, value: f64) -> f64 {
        let share = if let Side::Axis(axis, _) = &self.side { axis.share(value) } else { value };
        self.height - BOTTOM - share * (self.height - self.top() - BOTTOM)
    }

    /// Distance of a row's middle from the top edge.
    pub(crate) fn row(&self, row: usize) -> f64 {
        let rows = if let Side::Rows(rows) = &self.side { rows.len() } else { 1 };
        self.top() + (self.height - self.top() - BOTTOM) * (row as f64 + 0.5) / rows as f64
    }

    /// Adds a name to the legend.
    pub(crate) fn legend(&mut self, look: Look, text: &str) {
        self.legend.push((look, text.to_owned()));
    }

    /// Draws a path, `d` in the units of [`Chart::x`] and [`Chart::y`]. Later shapes cover earlier ones.
    pub(crate) fn path(&mut self, class: &str, d: &str) {
        let _ = writeln!(self.marks, "<path class=\"{}\" d=\"{}\"/>", Text(class), Text(d));
    }

    /// Draws a rectangle from its left, top, width and height.
    pub(crate) fn rectangle(&mut self, class: &str, [x, y, width, height]: [f64; 4]) {
        let class = Text(class);
        let _ = writeln!(
            self.marks,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
        );
    }

    /// Writes text at a place.
    pub(crate) fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        let (class, text) = (Text(class), Text(text));
        let _ = writeln!(self.marks, "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>");
    }

    /// Draws a line through the points, interrupted where a value is none.
    pub(crate) fn line(&mut self, look: Look, points: &[(f64, Option<f64>)]) {
        let (mut path, mut down) = (String::new(), false);
        for &(x, y) in points {
            if let Some(y) = y {
                let command = if down { 'L' } else { 'M' };
                let _ = write!(path, "{command}{:.1} {:.1}", self.x(x), self.y(y));
            }
            down = y.is_some();
        }
        if !path.is_empty() {
            self.path(&format!("line {}", look.class()), &path);
        }
    }

    /// Fills the area between two lines.
    pub(crate) fn band(&mut self, look: Look, points: &[(f64, f64, f64)]) {
        let there = points.iter().map(|&(x, low, _)| (x, low));
        let back = points.iter().rev().map(|&(x, _, high)| (x, high));
        let corners: Vec<_> = there.chain(back).map(|(x, y)| format!("{:.1} {:.1}", self.x(x), self.y(y))).collect();
        if !corners.is_empty() {
            self.path(&format!("fill {}", look.class()), &format!("M{}Z", corners.join("L")));
        }
    }

    /// Marks a point.
    pub(crate) fn dot(&mut self, look: Look, x: f64, y: f64) {
        self.marks += &dot(look, self.x(x), self.y(y));
        self.marks.push('\n');
    }

    /// Draws a line across, at a value of the left axis.
    pub(crate) fn level(&mut self, value: f64) {
        let (y, left, right) = (self.y(value), self.left, self.width - self.right);
        self.path("zero", &format!("M{left} {y:.1}H{right}"));
    }

    /// Draws a line from top to bottom, at a value of the lower axis.
    pub(crate) fn mark(&mut self, value: f64, class: &str) {
        let (x, top, bottom) = (self.x(value), self.top(), self.height - BOTTOM);
        self.path(class, &format!("M{x:.1} {top}V{bottom}"));
    }

    /// As HTML: a figure with its caption, which scrolls if it is too wide.
    pub(crate) fn render(&self) -> Markup {
        let Self { id, width, height, .. } = self;
        let (id, title, description) = (Text(id), Text(&self.title), Text(&self.description));
        let size = match self.size {
            Some(size) => size.name(),
            None if *width > 560.0 => "wide",
            None => "small",
        };
        let mut out = format!(
            "<figure class=\"{size}\">\n<figcaption>{title}</figcaption>\n\
             <div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"{title}\">\n\
             <svg role=\"img\" class=\"{size}\" viewBox=\"0 0 {width} {height}\" aria-labelledby=\"{id}-t {id}-d\">\n\
             <title id=\"{id}-t\">{title}</title>\n<desc id=\"{id}-d\">{description}</desc>\n"
        );
        self.draw_side(&mut out);
        self.draw_ticks(&mut out);
        out += &self.marks;
        self.draw_titles(&mut out);
        self.draw_legend(&mut out);
        out += "</svg>\n</div>\n</figure>\n";
        PreEscaped(out)
    }

    /// The right end of the axes.
    fn end(&self) -> f64 {
        self.width - self.right
    }

    /// Draws the left axis with its grid, or the labels of the rows.
    fn draw_side(&self, out: &mut String) {
        match &self.side {
            Side::Axis(axis, unit) => {
                for tick in axis.ticks(5) {
                    let (y, text) = (self.y(tick), label(tick, *unit));
                    let _ = writeln!(
                        out,
                        "<path class=\"grid-line\" d=\"M{} {y:.1}H{}\"/>\
                         <text class=\"tick end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                        self.left,
                        self.end(),
                        self.left - 7.0,
                        y + 4.0,
                        Text(&text)
                    );
                }
            }
            Side::Rows(rows) => {
                for (at, row) in rows.iter().enumerate() {
                    let _ = writeln!(out, "<text x=\"0\" y=\"{:.1}\">{}</text>", self.row(at) + 4.5, Text(row));
                }
            }
        }
    }

    /// Draws the grid and the labels of the lower axis.
    fn draw_ticks(&self, out: &mut String) {
        let (top, bottom) = (self.top(), self.height - BOTTOM);
        for tick in self.x.axis.ticks(if self.size == Some(Size::Phone) { 4 } else { 7 }) {
            let (x, text) = (self.x(tick), (self.x.label)(tick));
            let _ = writeln!(
                out,
                "<path class=\"grid-line\" d=\"M{x:.1} {top}V{bottom}\"/>\
                 <text class=\"tick middle\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
                bottom + 17.0,
                Text(&text)
            );
        }
    }

    /// Draws the lower axis and the titles of both.
    fn draw_titles(&self, out: &mut String) {
        let (left, bottom, end) = (self.left, self.height - BOTTOM, self.end());
        let _ = writeln!(out, "<path class=\"axis\" d=\"M{left} {bottom}H{end}\"/>");
        let (middle, y, title) = (f64::midpoint(left, end), self.height - 6.0, Text(&self.x.title));
        let _ = writeln!(out, "<text class=\"tick middle\" x=\"{middle:.1}\" y=\"{y:.1}\">{title}</text>");
        if !self.side_title.is_empty() {
            let _ = writeln!(out, "<text class=\"tick\" x=\"0\" y=\"14\">{}</text>", Text(&self.side_title));
        }
    }

    /// Draws the legend, from the right end of the title's line to the left.
    fn draw_legend(&self, out: &mut String) {
        let mut x = self.end();
        for (look, text) in self.legend.iter().rev() {
            let text = shortened(text, MAX_LEGEND);
            x -= 7.3 * text.chars().count() as f64;
            let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"15\">{}</text>", Text(&text));
            x -= 42.0;
            let class = look.class();
            let _ = writeln!(out, "<path class=\"line {class}\" d=\"M{x:.1} 11h36\"/>{}", dot(*look, x + 18.0, 11.0));
            x -= 16.0;
        }
    }
}

/// A name cut to `most` characters, the last of which is then an ellipsis.
pub(crate) fn shortened(name: &str, most: usize) -> String {
    if name.chars().count() <= most {
        return name.to_owned();
    }
    name.chars().take(most.saturating_sub(1)).chain(['\u{2026}']).collect()
}

/// The mark of a point.
fn dot(look: Look, x: f64, y: f64) -> String {
    match look {
        Look::A => format!("<circle class=\"dot a\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>"),
        Look::B => {
            format!("<rect class=\"dot b\" x=\"{:.1}\" y=\"{:.1}\" width=\"6.5\" height=\"6.5\"/>", x - 3.25, y - 3.25)
        }
    }
}
