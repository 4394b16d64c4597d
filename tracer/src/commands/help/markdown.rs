//! Markdown for a terminal: paragraphs and lists wrapped, tables in columns, examples as they are.

use super::{TEXT_WIDTH, links, table};
use crate::output::{Ink, Paint, wrap};

/// The Markdown of the manual as text. Inline marks stay.
pub(super) fn render(page: &str, is_topic: impl Fn(&str) -> bool, width: usize, paint: Paint) -> String {
    let mut out = String::new();
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            out.push('\n');
        } else if line.starts_with("```") {
            let example = lines.by_ref().take_while(|line| !line.starts_with("```"));
            out.extend(example.map(|line| format!("    {line}").trim_end().to_owned() + "\n"));
        } else if line.starts_with('#') {
            out += &paint.ink(Ink::Bold, line);
            out.push('\n');
        } else if line.starts_with('|') {
            let mut rows = vec![line];
            while let Some(row) = lines.next_if(|line| line.starts_with('|')) {
                rows.push(row);
            }
            out +=
                &table::render(&rows.into_iter().map(|row| links::as_words(row, &is_topic)).collect::<Vec<_>>(), width);
        } else {
            let mut text = line.to_owned();
            while let Some(more) = lines.next_if(|line| goes_on(line)) {
                text = format!("{text} {}", more.trim_start());
            }
            let indent = if text.starts_with("* ") { "  " } else { "" };
            out += &wrap(&links::as_words(&text, &is_topic), indent, width.min(TEXT_WIDTH));
        }
    }
    out
}

/// Whether a line belongs to the paragraph or list item of the line before it.
fn goes_on(line: &str) -> bool {
    !(line.is_empty() || ["```", "#", "|", "* "].iter().any(|mark| line.starts_with(mark)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::cells;

    fn plain(page: &str, width: usize) -> String {
        render(page, |name| name == "b", width, Paint::default())
    }

    #[test]
    fn paragraphs_and_items_are_wrapped_and_examples_are_not() {
        let page = "# A: b\n\none two\nthree [b](b.md)\n\n* four five\n  six\n* seven\n\n```\nan example of its own\n\n  x\n```\n";
        assert_eq!(
            plain(page, 14),
            "# A: b\n\none two three\n'vmentry help\nb'\n\n* four five\n  six\n* seven\n\n    an example of its own\n\n      x\n"
        );
    }

    #[test]
    fn headings_stand_out_on_a_terminal() {
        assert_eq!(render("## A", |_| false, 80, Paint { on: true }), "\x1b[1m## A\x1b[0m\n");
    }

    #[test]
    fn every_page_fits_its_width_but_for_examples_and_words() {
        for topic in crate::commands::topics::all().unwrap() {
            for width in [60, 80, 120] {
                let text = plain(&topic.text, width);
                let is_example = |line: &&str| line.starts_with("    ");
                let is_one_word = |line: &&str| !line.trim_start().contains(' ');
                for line in text.lines().filter(|line| !is_example(line) && !is_one_word(line)) {
                    assert!(cells(line) <= width || line.starts_with('#'), "{}, {width}: {line}", topic.name);
                }
                assert!(!text.contains("]("), "{}: a link is left", topic.name);
            }
        }
    }
}
