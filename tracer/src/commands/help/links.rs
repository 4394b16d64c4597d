//! Links of a page as words, for a reader who has no repository.

/// Replaces `[text](target)` outside of code spans: other pages by the command that prints them, files of the source by their path.
pub(super) fn as_words(text: &str, is_topic: impl Fn(&str) -> bool) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, text, target, after)) = next(rest) {
        let is_picture = before.ends_with('!');
        out += before.strip_suffix('!').unwrap_or(before);
        out += &if is_picture { format!("(a picture in the source: {text})") } else { words(text, target, &is_topic) };
        rest = after;
    }
    out + rest
}

/// Splits a text at its first link.
fn next(text: &str) -> Option<(&str, &str, &str, &str)> {
    let is_code = |at: usize| text[..at].matches('`').count() % 2 == 1;
    let middle = text.match_indices("](").map(|(at, _)| at).find(|at| !is_code(*at))?;
    let start = text[..middle].rfind('[')?;
    let end = middle + text[middle..].find(')')?;
    Some((&text[..start], &text[start + 1..middle], &text[middle + 2..end], &text[end + 1..]))
}

fn words(text: &str, target: &str, is_topic: &impl Fn(&str) -> bool) -> String {
    let path = target.split('#').next().unwrap_or_default();
    match path.strip_suffix(".md").filter(|name| is_topic(name)) {
        // The name of a page, as in "[time-budget](time-budget.md) has the parts".
        Some(name) if text.replace(' ', "-").eq_ignore_ascii_case(name) => format!("'vmentry help {name}'"),
        Some(name) => format!("{text} ('vmentry help {name}')"),
        // A heading of the same page.
        None if path.is_empty() => text.to_owned(),
        None if path.contains("://") && path == text => text.to_owned(),
        None if path.contains("://") => format!("{text} <{target}>"),
        None => match path.trim_start_matches("../") {
            path if path == text => format!("{path} of the source"),
            path => format!("{text} ({path} of the source)"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_becomes_what_a_reader_of_a_terminal_can_type() {
        let said = |text: &str| as_words(text, |name| name == "time-budget");
        assert_eq!(said("[time budget](time-budget.md) has it"), "'vmentry help time-budget' has it");
        assert_eq!(said("see [the parts](time-budget.md#details)."), "see the parts ('vmentry help time-budget').");
        assert_eq!(said("[stopping](#stopping), [x](https://x.org/y#z)"), "stopping, x <https://x.org/y#z>");
        assert_eq!(said("[lab/README.md](../lab/README.md)"), "lab/README.md of the source");
        assert_eq!(said("the [patch](../patches/README.md)"), "the patch (patches/README.md of the source)");
        assert_eq!(said("![Delay](a.svg)"), "(a picture in the source: Delay)");
        assert_eq!(said("`a[0](b)` and a[] (c) [1, 2]"), "`a[0](b)` and a[] (c) [1, 2]");
    }
}
