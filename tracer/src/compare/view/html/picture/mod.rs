//! The picture of the answer, first on the page: a word, the headline, and the difference of every figure with its interval. Primary
//! figures are on top and larger; figures that have no ratio stand in panels of their own unit.

mod draw;
mod panel;

use maud::{Markup, PreEscaped};

use self::{
    draw::{Form, MARGIN},
    panel::{Panel, panels},
};
use super::{emulated_suffix, wording};
use crate::{
    compare::{Comparison, Row, Setting, Verdict},
    html::{Text, chart::Size, join},
};

/// Colours and sizes, by the variables of the page's style.
const STYLE: &str = include_str!("picture.css");

/// The class of a row's verdict, which colours it.
fn tone(row: &Row) -> &'static str {
    match row.verdict {
        Verdict::Worse => "worse",
        Verdict::Better => "better",
        Verdict::Changed => "changed",
        Verdict::NotTested => "untested",
        Verdict::Ignored | Verdict::NoDetectableChange | Verdict::Undecided | Verdict::NotEnoughData => "same",
    }
}

/// The answer in a word, and its class.
fn word(c: &Comparison) -> (String, &'static str) {
    let has = |verdict| c.rows.iter().any(|r| r.verdict == verdict);
    if !wording::is_conclusive(c) {
        return ("not enough data".to_owned(), "same");
    }
    match (has(Verdict::Worse), has(Verdict::Better)) {
        (true, true) => ("WORSE and better".to_owned(), "worse"),
        (true, false) => ("WORSE".to_owned(), "worse"),
        (false, true) => ("better".to_owned(), "better"),
        _ if has(Verdict::Changed) => ("changed".to_owned(), "changed"),
        _ if has(Verdict::Undecided) => ("undecided".to_owned(), "same"),
        _ if has(Verdict::Ignored) => (format!("no change of {} or more", wording::size(c.ignore_below)), "same"),
        _ => ("no detectable change".to_owned(), "same"),
    }
}

/// The picture, for the width of a page and for that of a phone.
pub(super) fn picture(c: &Comparison, setting: &Setting) -> Markup {
    let panels = if wording::is_conclusive(c) { panels(c) } else { Vec::new() };
    let summary = wording::summary(c, setting);
    let title = format!(
        "Differences of {} from {}{}",
        wording::side(1, setting),
        wording::side(0, setting),
        emulated_suffix(setting)
    );
    let rows = panels.iter().flat_map(|panel| &panel.bars);
    let words: Vec<_> = rows.map(|bar| format!("{} {}", wording::title(bar.row), said(bar.row))).collect();
    let description = format!("{summary}. {}", words.join("; "));
    join([Size::Page, Size::Phone].map(|size| {
        let form = Form::of(size);
        let (height, marks) = draw::all(&form, &word(c), &summary, &panels);
        let style = if size == Size::Page { format!("<style>\n{STYLE}</style>\n") } else { String::new() };
        let (name, width, title, description) = (size.name(), form.width + 2.0 * MARGIN, Text(&title), Text(&description));
        PreEscaped(format!(
            "<figure class=\"{name} differences\">\n<figcaption>{title}</figcaption>\n\
             <div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"{title}\">\n\
             <svg role=\"img\" class=\"{name}\" viewBox=\"-{MARGIN} 0 {width} {height}\" aria-labelledby=\"answer-{name}-t answer-{name}-d\">\n\
             <title id=\"answer-{name}-t\">{title}</title>\n<desc id=\"answer-{name}-d\">{description}</desc>\n\
             {style}{marks}</svg>\n</div>\n</figure>\n"
        ))
    }))
}

/// A row's change and verdict in short.
fn said(row: &Row) -> String {
    format!("{} {}", wording::change(row), wording::verdict_of(row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{
        Estimate,
        fixture::{comparison, gated, setting},
    };

    #[test]
    fn the_answer_is_a_word_and_the_whole_headline() {
        let mut c = comparison();
        assert_eq!(word(&c), ("WORSE and better".into(), "worse"));
        let all = |c: &mut Comparison, verdict| c.rows.iter_mut().for_each(|r| r.verdict = verdict);
        all(&mut c, Verdict::Better);
        assert_eq!(word(&c), ("better".into(), "better"));
        all(&mut c, Verdict::NoDetectableChange);
        assert_eq!(word(&c), ("no detectable change".into(), "same"));
        (c.ignore_below, c.rows[0].verdict) = (0.02, Verdict::Ignored);
        assert_eq!(word(&c).0, "no change of 2.0% or more");
        c.rows[1].verdict = Verdict::Undecided;
        assert_eq!(word(&c).0, "undecided", "whatever others are");
        all(&mut c, Verdict::NotEnoughData);
        assert_eq!(word(&c).0, "not enough data");
        let html = picture(&c, &setting()).into_string();
        assert!(
            html.contains(&Text(&wording::summary(&c, &setting())).to_string()) && !html.contains("\"bar"),
            "{html}"
        );
    }

    #[test]
    fn every_row_is_drawn_in_the_tone_of_its_verdict_with_its_words() {
        let c = gated();
        let html = picture(&c, &setting()).into_string();
        let one = html.split("<figure class=\"phone ").next().unwrap();
        for row in panels(&c).iter().flat_map(|p| &p.bars).map(|bar| bar.row) {
            assert!(one.contains(&format!(">{}</text>", Text(&wording::title(row)))), "{}", wording::title(row));
        }
        assert_eq!(one.matches("class=\"bar thick worse\"").count(), 1, "pin writes");
        assert_eq!(one.matches("class=\"bar thick same\"").count(), 1, "the undecided one");
        let untested = c.rows.iter().filter(|r| r.verdict == Verdict::NotTested).count();
        let bars = one.matches("class=\"bar untested\"").count() + one.matches("class=\"bar thick untested\"").count();
        assert_eq!((bars, one.matches("% untested</text>").count()), (untested, untested), "{one}");
    }

    #[test]
    fn a_refused_interval_of_a_primary_figure_has_its_reason_beside_it() {
        let mut c = gated();
        let p50 = c.rows.iter_mut().find(|r| r.primary == Some(1)).unwrap();
        (p50.ratio, p50.why) = (None, Some("no interval: the rounds agree on no common change".into()));
        p50.difference = p50.difference.map(|e| Estimate { low: None, high: None, ..e });
        let html = picture(&c, &setting()).into_string();
        assert!(html.contains(">no interval: the rounds agree on no c\u{2026}</text>"), "{html}");
    }

    #[test]
    fn the_tones_have_enough_contrast_in_light_and_dark() {
        let style = include_str!("../../../../html/style.css");
        for theme in style.split(":root {").skip(1).take(2) {
            let color = |name: &str| {
                let (_, rest) = theme.split_once(&format!("--{name}: ")).unwrap();
                crate::html::tests::luminance(rest.split(';').next().unwrap())
            };
            for (front, back) in ["alarm", "fine", "a", "quiet"].into_iter().flat_map(|f| [(f, "page"), (f, "panel")]) {
                let (a, b) = (color(front), color(back));
                let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
                assert!(contrast >= 4.5, "{front} on {back}: {contrast}");
            }
        }
    }
}
