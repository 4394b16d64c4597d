//! The colours of a comparison's text: alarms and warnings, and the verdicts of the answer and of the tables.

use crate::output::{Ink, Paint};

/// The text in colours. They are put into the finished text, because an escape sequence takes no cell of a column.
pub(crate) fn painted(text: &str, paint: Paint) -> String {
    let line = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        let word = |(at, word): (usize, &&str)| {
            let before = words[..at].iter().rev().find(|word| !word.is_empty()).copied().unwrap_or_default();
            let bare = word.trim_end_matches([':', ',', ';']);
            // In a sentence, only after "is"; in a table, in the last column, after a p.
            let is_number = before.contains(|c: char| c.is_ascii_digit()) || before == "n/a";
            let is_last = at + 1 == words.len() && is_number;
            let is_verdict = bare == "WORSE" || before == "is" || is_last;
            let ink = if is_verdict { Ink::of_verdict(bare) } else { Ink::Plain };
            paint.ink(ink, bare) + &word[bare.len()..]
        };
        words.iter().enumerate().map(word).collect::<Vec<_>>().join(" ") + "\n"
    };
    let text = if paint.on { text.lines().map(line).collect() } else { text.to_owned() };
    paint.lines(&text)
}

#[cfg(test)]
mod tests {
    use super::{super::short, *};
    use crate::compare::fixture::{comparison, gated, setting};

    #[test]
    fn alarms_and_verdicts_have_colours_on_a_terminal_and_the_text_is_the_same() {
        let [text, of_gated] = [comparison(), gated()].map(|c| short(&c, &setting(), 100, true));
        let on = painted(&text, Paint { on: true });
        for part in [
            "\x1b[1;31mLOST in A",
            "\x1b[33mEMULATED",
            "\x1b[33mWARNING",
            "is \x1b[1;31mWORSE\x1b[0m",
            " \x1b[32mbetter\x1b[0m\n",
        ] {
            assert!(on.contains(part), "{part:?} in {on}");
        }
        assert!(painted(&of_gated, Paint { on: true }).contains(" \x1b[33mopen\x1b[0m\n"), "{of_gated}");
        assert_eq!(painted(&text, Paint::default()), text);
        let without =
            ["\x1b[1;31m", "\x1b[33m", "\x1b[32m", "\x1b[0m"].iter().fold(on, |on, code| on.replace(code, ""));
        assert_eq!(without, text);
    }

    #[test]
    fn a_sentence_that_says_better_is_no_verdict() {
        for text in ["Call no change of less than 2 % better\n", "WORSE in x, better in y\n", "which is not better\n"] {
            assert!(!painted(text, Paint { on: true }).contains("\x1b[32m"), "{text}");
        }
    }
}
