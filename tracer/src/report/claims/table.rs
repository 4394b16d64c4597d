//! The claims as one table for people.

use super::{Claim, Evidence, claims};
use crate::{output::wrap, report::text::preamble};

/// Widths of the columns, in characters; the last one is as wide as a name of a recording.
const WIDTHS: [usize; 3] = [43, 47, 7];
const TITLES: [&str; 4] = ["THE COMMIT'S WORDS", "MEASURED", "VERDICT", "RECORDINGS"];

/// The claims for people.
pub fn text(evidence: &Evidence) -> String {
    let report = &evidence.whole;
    let emulated = if report.is_emulated() { " (emulated)" } else { "" };
    let mut out = preamble(report);
    out += "\ncommit 804939ea20, \"KVM: VMX: Leave preemption timer running when it's disabled\"\n\n";
    out += &row(&TITLES.map(|title| vec![title.to_owned()]));
    for claim in claims(evidence) {
        out += &row(&cells(&claim, emulated));
    }
    out
}

fn cells(claim: &Claim, emulated: &str) -> [Vec<String>; 4] {
    let lines = |text: &str, width: usize| wrap(text, "", width).lines().map(str::to_owned).collect::<Vec<_>>();
    let measured = claim.measured.as_ref().map(|measured| lines(&format!("{measured}{emulated}"), WIDTHS[1]));
    let verdict = match claim.agrees {
        Some(true) => "agrees",
        Some(false) => "DIFFERS",
        None => "n/a",
    };
    [
        lines(&format!("\"{}\"", claim.words), WIDTHS[0]),
        measured.into_iter().flatten().chain(lines(&claim.from, WIDTHS[1])).collect(),
        vec![verdict.into()],
        claim.recordings.clone(),
    ]
}

/// Lines of a row, followed by an empty one.
fn row(cells: &[Vec<String>; 4]) -> String {
    let mut out = String::new();
    for line in 0..cells.iter().map(Vec::len).max().unwrap_or(0) {
        let mut text = String::new();
        for (cell, width) in cells.iter().zip(WIDTHS.into_iter().chain([0])) {
            text += &format!("{:width$}  ", cell.get(line).map_or("", String::as_str));
        }
        out += text.trim_end();
        out.push('\n');
    }
    out + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

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
}
