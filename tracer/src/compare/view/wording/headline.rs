//! The answer of a comparison as a heading has it.

use super::{
    answer::is_conclusive,
    names::{side, title},
    numbers::size,
    primary::gate,
    sides::is_emulated,
};
use crate::compare::{Comparison, Setting, Verdict};

/// The answer in a few words, as a heading has them.
pub(crate) fn headline(c: &Comparison, setting: &Setting) -> String {
    let emulated = if is_emulated(setting) { " (EMULATED)" } else { "" };
    let (a, b) = (side(0, setting), side(1, setting));
    let has = |verdict| c.rows.iter().any(|row| row.verdict == verdict);
    let answer = match (has(Verdict::Worse), has(Verdict::Better)) {
        _ if !is_conclusive(c) => format!("NOT ENOUGH DATA to compare {b} with {a}"),
        (true, false) => format!("{b} is WORSE than {a}"),
        (false, true) => format!("{b} is better than {a}"),
        (true, true) => format!("{b} is WORSE than {a} in some figures, better in others"),
        (false, false) if has(Verdict::Changed) => format!("{b} differs from {a}, but is neither better nor worse"),
        (false, false) => match gate(c).filter(|gate| gate.verdict == Verdict::NotEnoughData) {
            Some(gate) => format!("not enough data for the primary {}", title(gate)),
            None if c.ignore_below > 0.0 => format!("no change of {} or more from {a} to {b}", size(c.ignore_below)),
            None => format!("no detectable change from {a} to {b}"),
        },
    };
    answer + emulated
}

#[cfg(test)]
mod tests {
    use super::{super::answer::is_judged, *};
    use crate::compare::fixture::{comparison, setting};

    #[test]
    fn the_headline_is_short_and_says_as_much_as_the_summary_begins_with() {
        let said = |verdicts: &[Verdict], ignore_below| {
            let mut c = Comparison { ignore_below, ..comparison() };
            let judged = c.rows.iter_mut().filter(|row| is_judged(row));
            judged.for_each(|row| row.verdict = Verdict::NoDetectableChange);
            c.rows.iter_mut().zip(verdicts).for_each(|(row, verdict)| row.verdict = *verdict);
            headline(&c, &setting())
        };
        assert_eq!(said(&[Verdict::Worse], 0.0), "B (hard) is WORSE than A (soft) (EMULATED)");
        assert!(said(&[Verdict::Better], 0.0).starts_with("B (hard) is better than A (soft)"));
        assert!(
            said(&[Verdict::Better, Verdict::Worse], 0.0).contains("WORSE than A (soft) in some figures, better in")
        );
        assert!(said(&[Verdict::Changed], 0.0).contains("neither better nor worse"));
        assert!(said(&[], 0.0).starts_with("no detectable change from A (soft) to B (hard)"));
        assert!(said(&[Verdict::Ignored], 0.05).starts_with("no change of 5.0% or more from A (soft) to B (hard)"));
        assert!(said(&[Verdict::NotEnoughData; 99], 0.0).starts_with("NOT ENOUGH DATA to compare B (hard) with A"));
    }
}
