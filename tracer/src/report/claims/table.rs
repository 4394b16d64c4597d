//! The claims as one table for people.

use super::{Claim, Evidence, claims};
use crate::{
    output::{Ink, cells as width_of, wrap},
    report::text::{Layout, alarm, preamble},
};

/// Widths of the columns, in characters; the last one is as wide as a name of a recording.
const WIDTHS: [usize; 3] = [43, 47, 7];
const TITLES: [&str; 4] = ["THE COMMIT'S WORDS", "MEASURED", "VERDICT", "RECORDINGS"];

/// The claims for people, in a file.
pub fn text(evidence: &Evidence) -> String {
    text_in(evidence, &Layout::default())
}

/// The claims for people: a table, or a paragraph for each claim where the terminal has no room for one.
pub(crate) fn text_in(evidence: &Evidence, layout: &Layout) -> String {
    let report = &evidence.whole;
    let emulated = if report.is_emulated() { " (emulated)" } else { "" };
    let commit = "\ncommit 804939ea20, \"KVM: VMX: Leave preemption timer running when it's disabled\"\n\n";
    let mut out = layout.broken(&preamble(report), alarm) + &layout.broken(commit, |_| Ink::Plain);
    let claims = claims(evidence);
    let names = claims.iter().flat_map(|claim| &claim.recordings).map(|name| width_of(name)).max().unwrap_or(0);
    let needed = WIDTHS.iter().map(|width| width + 2).sum::<usize>() + names.max(TITLES[3].len());
    match layout.width.filter(|width| *width < needed) {
        Some(width) => out.extend(claims.iter().map(|claim| paragraph(claim, emulated, width, layout))),
        None => {
            out += &row(&TITLES.map(|title| vec![title.to_owned()]), layout);
            out.extend(claims.iter().map(|claim| row(&cells(claim, emulated), layout)));
        }
    }
    out
}

fn verdict(claim: &Claim) -> &'static str {
    match claim.agrees {
        Some(true) => "agrees",
        Some(false) => "DIFFERS",
        None => "n/a",
    }
}

/// A claim in lines of a limited width, followed by an empty one.
fn paragraph(claim: &Claim, emulated: &str, width: usize, layout: &Layout) -> String {
    let mut out = wrap(&format!("\"{}\"", claim.words), "", width);
    let measured = claim.measured.as_ref().map(|measured| format!("{measured}{emulated}"));
    out.extend(measured.into_iter().chain([claim.from.clone()]).map(|text| wrap(&format!("  {text}"), "  ", width)));
    let word = verdict(claim);
    out += &format!("  {}\n", layout.paint.ink(Ink::of_verdict(word), word));
    if !claim.recordings.is_empty() {
        out += &wrap(&format!("  {}", claim.recordings.join(", ")), "  ", width);
    }
    out + "\n"
}

fn cells(claim: &Claim, emulated: &str) -> [Vec<String>; 4] {
    let lines = |text: &str, width: usize| wrap(text, "", width).lines().map(str::to_owned).collect::<Vec<_>>();
    let measured = claim.measured.as_ref().map(|measured| lines(&format!("{measured}{emulated}"), WIDTHS[1]));
    [
        lines(&format!("\"{}\"", claim.words), WIDTHS[0]),
        measured.into_iter().flatten().chain(lines(&claim.from, WIDTHS[1])).collect(),
        vec![verdict(claim).into()],
        claim.recordings.clone(),
    ]
}

/// Lines of a row, followed by an empty one.
fn row(cells: &[Vec<String>; 4], layout: &Layout) -> String {
    let mut out = String::new();
    for line in 0..cells.iter().map(Vec::len).max().unwrap_or(0) {
        let mut text = String::new();
        for (cell, width) in cells.iter().zip(WIDTHS.into_iter().chain([0])) {
            let cell = cell.get(line).map_or("", String::as_str);
            text += &format!(
                "{}{:pad$}  ",
                layout.paint.ink(Ink::of_verdict(cell), cell),
                "",
                pad = width.saturating_sub(width_of(cell))
            );
        }
        out += text.trim_end();
        out.push('\n');
    }
    out + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{output::Paint, report::tests::report};

    #[test]
    fn every_claim_is_a_row_within_the_width_of_a_page_with_its_words_and_verdict() {
        let evidence = super::super::tests::evidence(report());
        let text = text(&evidence);
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
        let table = text.split_once("THE COMMIT'S WORDS").unwrap().1;
        let rows: Vec<_> = table.split("\n\n").skip(1).filter(|row| !row.is_empty()).collect();
        assert_eq!(rows.len(), claims(&evidence).len(), "{table}");
        assert!(rows[1].contains("roughly 1 in 10") && rows[1].contains("n/a"), "{}", rows[1]);
        assert!(rows[3].contains("19.2 % (23 of 120)") && rows[3].contains("DIFFERS"), "{}", rows[3]);
        assert!(rows[3].contains("x.hlog"), "{}", rows[3]);
    }

    #[test]
    fn a_narrow_terminal_has_a_paragraph_for_each_claim_and_verdicts_have_colours() {
        let evidence = super::super::tests::evidence(report());
        for width in [40, 80, 100] {
            let text = text_in(&evidence, &Layout { width: Some(width), ..Layout::default() });
            let claims = text.split_once("when it's disabled\"").map_or(text.as_str(), |(_, claims)| claims);
            assert!(claims.lines().all(|line| line.chars().count() <= width), "{width}: {text}");
            assert!(text.contains("\n  DIFFERS\n") && text.contains("\n  x.hlog\n"), "{text}");
        }
        for width in [Some(80), None] {
            let layout = Layout { width, paint: Paint { on: true }, ..Layout::default() };
            assert!(text_in(&evidence, &layout).contains("\x1b[1;31mDIFFERS\x1b[0m"), "{width:?}");
        }
        assert!(!text(&evidence).contains('\x1b'));
    }
}
