//! The shapes of the picture, as SVG.

use std::fmt::Write as _;

use super::{Panel, panel::Bar, tone, wording};
use crate::{
    compare::Row,
    html::{
        Text,
        chart::{Size, shortened},
    },
    output::wrap,
};

/// Length of an arrow that stands for a whole row.
const SHAFT: f64 = 16.0;
/// Room beside everything.
pub(super) const MARGIN: f64 = 8.0;
/// Room for the labels of an axis.
const AXIS: f64 = 40.0;
/// Mean width of a bold character, as a share of its size.
const BOLD: f64 = 0.62;
/// Characters of the reason why a row has no interval.
const MOST_REASON: usize = 38;
const KEY: &str = "Thick line: 95 % confidence interval. Grey: A/A noise. Open circle, ~, open: no change found. Dashed: untested. Arrow: goes on. \
                   Figures that are 0 on both sides, and figures without a verdict, are only in the table.";

/// Sizes, in units of the viewBox, about a pixel each.
pub(super) struct Form {
    pub(super) width: f64,
    /// ends of the axes
    from: f64,
    to: f64,
    /// whether the words of a row are above its line, and not beside it
    stacked: bool,
    /// characters of a line of the headline
    headline: usize,
    /// characters of a line of the key
    key: usize,
    /// ticks of an axis
    ticks: usize,
}

impl Form {
    pub(super) const fn of(size: Size) -> Self {
        match size {
            Size::Page => {
                Self { width: 1000.0, from: 260.0, to: 730.0, stacked: false, headline: 104, key: 150, ticks: 7 }
            }
            Size::Phone => Self { width: 350.0, from: 24.0, to: 326.0, stacked: true, headline: 42, key: 52, ticks: 4 },
        }
    }

    /// Place of a value that is so large a share of the axis' reach.
    fn x(&self, share: f64) -> f64 {
        f64::midpoint(self.from, self.to) + share.clamp(-1.0, 1.0) * (self.to - self.from) / 2.0
    }

    /// Height of a row, and of its line within the row.
    const fn row(&self, is_primary: bool) -> (f64, f64) {
        match (self.stacked, is_primary) {
            (false, true) => (56.0, 26.0),
            (false, false) => (27.0, 13.0),
            (true, true) => (70.0, 36.0),
            (true, false) => (46.0, 32.0),
        }
    }
}

/// Everything, from top to bottom: the height, and the shapes.
pub(super) fn all(form: &Form, (word, tone): &(String, &str), headline: &str, panels: &[Panel<'_>]) -> (f64, String) {
    let mut out = String::new();
    let sizes = [("huge", 60.0), ("large", 40.0), ("medium", 27.0)];
    let fits = |size: &&(&str, f64)| word.chars().count() as f64 * BOLD * size.1 <= form.width;
    let (class, size) = sizes.iter().find(fits).unwrap_or(&sizes[2]);
    let mut y = size * 0.9;
    text(&mut out, [0.0, y], &format!("word {class} {tone}"), word);
    y += 10.0;
    for line in wrap(headline, "", form.headline).lines() {
        y += 22.0;
        text(&mut out, [0.0, y], "headline", line);
    }
    y += 16.0;
    for (at, one) in panels.iter().enumerate() {
        let is_first = at == 0 || panels[at - 1].is_primary != one.is_primary;
        let mut inner = String::new();
        let top = y;
        if is_first {
            y += 24.0;
            let name = if one.is_primary { "Primary figures, named before the data" } else { "Other figures" };
            let has_primary = panels[0].is_primary;
            text(&mut inner, [0.0, y - 4.0], "head", if has_primary { name } else { "All figures" });
        }
        y = panel(&mut inner, form, one, y + 4.0) + 6.0;
        if one.is_primary {
            rectangle(&mut out, "ground", [-MARGIN, top, form.width + 2.0 * MARGIN, y - top]);
        }
        out += &inner;
    }
    if !panels.is_empty() {
        for line in wrap(KEY, "", form.key).lines() {
            y += 17.0;
            text(&mut out, [0.0, y], "tick", line);
        }
    }
    (y + 8.0, out)
}

/// Draws a panel from a place on; returns the place of its end.
fn panel(out: &mut String, form: &Form, panel: &Panel<'_>, top: f64) -> f64 {
    let (step, middle) = form.row(panel.is_primary);
    let bottom = top + step * panel.bars.len() as f64;
    for (value, label) in panel.measure.ticks(panel.reach, form.ticks) {
        let x = form.x(value / panel.reach);
        path(out, "grid-line", &format!("M{x:.1} {top:.1}V{bottom:.1}"));
        text(out, [x, bottom + 15.0], "tick middle", &label);
    }
    let (zero, title) = (form.x(0.0), panel.measure.title());
    path(out, "zero", &format!("M{zero:.1} {top:.1}V{bottom:.1}"));
    text(out, [zero, bottom + 31.0], "tick middle", title);
    for (at, bar) in panel.bars.iter().enumerate() {
        let place = top + step * at as f64;
        words(out, form, bar.row, place, panel.is_primary);
        shapes(out, form, bar, panel.reach, place + middle, panel.is_primary);
    }
    bottom + AXIS
}

/// Writes the name of a row, its change and its verdict.
fn words(out: &mut String, form: &Form, row: &Row, top: f64, is_primary: bool) {
    let (class, tone) = (if is_primary { "primary" } else { "other" }, tone(row));
    let (_, middle) = form.row(is_primary);
    let name_tone = if tone == "untested" { " untested" } else { "" };
    let short = format!("{} {}{}", wording::change(row), wording::word(row.verdict), wording::contradiction_mark(row));
    let interval = match (wording::interval(row), wording::reason(row)) {
        (interval, Some(why)) if interval == "n/a" => shortened(&why, MOST_REASON),
        (interval, _) => interval,
    };
    let details = match wording::decided(row) {
        Some(after) => format!("{interval}, {after}"),
        None => interval,
    };
    let title = wording::title(row);
    if form.stacked {
        let y = top + 20.0;
        text(out, [0.0, y], &format!("{class}{name_tone}"), &title);
        text(out, [form.width, y], &format!("{class} end {tone}"), &short);
        if is_primary {
            text(out, [form.width, top + 60.0], "tick end", &details);
        }
        return;
    }
    let y = top + middle + if is_primary { 7.0 } else { 4.5 };
    text(out, [0.0, y], &format!("{class}{name_tone}"), &title);
    let right = form.to + 14.0;
    if is_primary {
        text(out, [right, y - 7.0], &format!("{class} {tone}"), &short);
        text(out, [right, y + 12.0], "tick", &details);
    } else {
        text(out, [right, y], &format!("{class} {tone}"), &short);
    }
}

/// Draws the noise, the stem from no change to a value that changed, the interval, and the value.
fn shapes(out: &mut String, form: &Form, bar: &Bar<'_>, reach: f64, y: f64, is_primary: bool) {
    let (tone, size) = (tone(bar.row), if is_primary { 1.6 } else { 1.0 });
    let x = |value: f64| form.x(value / reach);
    if let Some(noise) = bar.noise {
        rectangle(out, "noise", [x(-noise), y - 9.0 * size, x(noise) - x(-noise), 18.0 * size]);
    }
    let is_shown = |value: f64| value.abs() < reach;
    let thick = if is_primary { "thick " } else { "" };
    if wording::is_change(bar.row) {
        path(out, &format!("stem {thick}{tone}"), &format!("M{:.1} {y:.1}H{:.1}", x(0.0), x(bar.value)));
    }
    if let Some(d) = interval(bar, reach, y, &x) {
        path(out, &format!("bar {thick}{tone}"), &d);
    }
    for (end, inwards) in ends(bar, reach) {
        let tip = x(end * reach);
        let d = format!("M{:.1} {:.1}L{tip:.1} {y:.1}l{inwards} 5", tip + inwards, y - 5.0);
        path(out, &format!("stem {tone}"), &d);
    }
    if is_shown(bar.value) {
        let _ = writeln!(
            out,
            "<circle class=\"point {tone}\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"{:.1}\"/>",
            x(bar.value),
            5.0 * size
        );
    }
}

/// The ends of the axis (-1, 1) that a row goes beyond, and the way back inwards.
fn ends(bar: &Bar<'_>, reach: f64) -> impl Iterator<Item = (f64, f64)> {
    let all = [Some(bar.value), bar.low, bar.high];
    let [low, high] = [all.iter().flatten().any(|v| *v <= -reach), all.iter().flatten().any(|v| *v >= reach)];
    [(low, (-1.0, 6.0)), (high, (1.0, -6.0))].into_iter().filter(|(is_cut, _)| *is_cut).map(|(_, end)| end)
}

/// The line of an interval, cut at the ends of the axis; a whole row that is beyond one is a shaft there. None without an interval.
fn interval(bar: &Bar<'_>, reach: f64, y: f64, x: &dyn Fn(f64) -> f64) -> Option<String> {
    let (low, high) = bar.low.zip(bar.high)?;
    let (mut from, mut to) = (x(low), x(high));
    if low >= reach {
        from = to - SHAFT;
    } else if high <= -reach {
        to = from + SHAFT;
    }
    // An interval of one value is seen, too.
    if to - from < 2.0 {
        (from, to) = (from - 1.0, to + 1.0);
    }
    Some(format!("M{from:.1} {y:.1}H{to:.1}"))
}

fn text(out: &mut String, [x, y]: [f64; 2], class: &str, text: &str) {
    let (class, text) = (Text(class), Text(text));
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>");
}

fn path(out: &mut String, class: &str, d: &str) {
    let _ = writeln!(out, "<path class=\"{class}\" d=\"{d}\"/>");
}

fn rectangle(out: &mut String, class: &str, [x, y, width, height]: [f64; 4]) {
    let _ = writeln!(
        out,
        "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::fixture::comparison;

    fn drawn(value: f64, bounds: Option<(f64, f64)>) -> (Option<String>, Vec<(f64, f64)>) {
        let row = comparison().rows[0].clone();
        let (low, high) = bounds.unzip();
        let bar = Bar { row: &row, value, low, high, noise: None };
        let form = Form::of(Size::Page);
        (interval(&bar, 0.5, 20.0, &|v| form.x(v / 0.5)), ends(&bar, 0.5).collect())
    }

    #[test]
    fn what_is_beyond_the_axis_is_an_arrow_at_its_end() {
        assert_eq!(drawn(0.1, Some((0.0, 0.25))), (Some("M495.0 20.0H612.5".into()), vec![]));
        assert_eq!(drawn(0.1, Some((0.0, 3.0))), (Some("M495.0 20.0H730.0".into()), vec![(1.0, -6.0)]));
        assert_eq!(drawn(-5.0, Some((-7.0, -4.0))), (Some("M260.0 20.0H276.0".into()), vec![(-1.0, 6.0)]));
        assert_eq!(drawn(5.0, None), (None, vec![(1.0, -6.0)]));
        assert_eq!(drawn(0.1, None), (None, vec![]));
    }

    #[test]
    fn a_word_that_is_too_long_for_its_picture_is_smaller() {
        let word = |form: &Form, word: &str| all(form, &(word.into(), "same"), "x", &[]).1;
        assert!(word(&Form::of(Size::Page), "no detectable change").contains("word huge same"));
        assert!(word(&Form::of(Size::Phone), "WORSE").contains("word huge same"));
        assert!(word(&Form::of(Size::Phone), "no detectable change").contains("word medium same"));
    }
}
