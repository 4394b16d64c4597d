//! Plain text in columns and in lines of a limited width, as several views print it.

use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm};

/// Cells that a text takes on a terminal: wide characters take two, marks that combine with letters none.
pub(crate) fn cells(text: &str) -> usize {
    unicode_width::UnicodeWidthStr::width(text)
}

/// Makes each column as wide as its widest cell. The first `text_columns` are aligned to the left, the others to the right.
/// Every line must have as many cells as the first one.
pub(crate) fn align(lines: &[Vec<String>], text_columns: usize) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |c: usize| lines.iter().map(|line| cells(&line[c])).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for line in lines {
        let mut text = String::new();
        for (c, cell) in line.iter().enumerate() {
            let pad = " ".repeat(widths[c] - cells(cell));
            let gap = if c == 0 { "" } else { "  " };
            text += &if c < text_columns { format!("{gap}{cell}{pad}") } else { format!("{gap}{pad}{cell}") };
        }
        out += text.trim_end();
        out.push('\n');
    }
    out
}

/// A text of several lines, such as an error with its fix, as part of a sentence: every run of spaces and line ends is one space.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Breaks a text at spaces into lines of at most `width` characters; all but the first begin with `indent`. A longer word is
/// not broken. Spaces before the first word, and several in a row within a line, are kept.
pub(crate) fn wrap(text: &str, indent: &str, width: usize) -> String {
    let options = Options::new(width)
        .subsequent_indent(indent)
        .break_words(false)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation)
        .wrap_algorithm(WrapAlgorithm::FirstFit);
    textwrap::fill(text, options) + "\n"
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_is_aligned_to_the_left_and_numbers_to_the_right() {
        let line = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let lines = [
            line(["NAME", "N", "P50"]),
            line(["é", "1234", ""]),
            line(["longer", "5", "6ns"]),
            line(["東京", "7", ""]),
        ];
        assert_eq!(align(&lines, 1), "NAME       N  P50\né       1234\nlonger     5  6ns\n東京       7\n");
        assert_eq!(align(&[], 1), "");
    }

    #[test]
    fn lines_are_broken_at_spaces_and_indented_after_the_first() {
        assert_eq!(wrap("note  one two three", "      ", 10), "note  one\n      two\n      three\n");
        assert_eq!(wrap("  - a b", "  ", 5), "  - a\n  b\n");
        assert_eq!(wrap("a-b unbreakable-word c", "", 6), "a-b\nunbreakable-word\nc\n");
        assert_eq!(wrap("", "  ", 5), "\n");
    }

    #[test]
    fn an_error_with_its_fix_becomes_part_of_a_sentence() {
        let error = "no switchable policy\n  -> load the companion patch";
        assert_eq!(one_line(error), "no switchable policy -> load the companion patch");
    }

    proptest! {
        #[test]
        fn no_word_is_lost_and_only_a_line_of_one_word_may_be_too_long(text in "[a-zé ]{0,80}", width in 4_usize..40) {
            let wrapped = wrap(&text, "  ", width);
            let words = |s: &str| s.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            prop_assert_eq!(words(&wrapped), words(&text));
            for line in wrapped.lines() {
                prop_assert!(line.chars().count() <= width || words(line).len() == 1, "{line:?}");
            }
        }
    }
}
