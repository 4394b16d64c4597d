//! Properties of output, written down apart from the code under test.

/// Panics where text holds anything that a terminal takes for more than a character: control characters other than the line feed, and
/// those that change the order of the text around them.
pub(crate) fn printable(what: &str, text: &str) {
    let is_deceptive = |c: char| {
        c.is_control() && c != '\n'
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if let Some(c) = text.chars().find(|&c| is_deceptive(c)) {
        let line = text.lines().find(|line| line.contains(c)).unwrap_or_default();
        panic!("{what} prints {c:?}: {line:?}");
    }
}

/// The same for a text that must be one line.
pub(crate) fn one_printable_line(what: &str, text: &str) {
    printable(what, text);
    assert!(!text.contains('\n'), "{what} prints more than one line: {text:?}");
}
