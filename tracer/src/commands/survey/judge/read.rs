//! Reads a survey's JSON, and names the field and the line where it is none.

use serde_json::Value;

use super::super::values::{FORMAT, Survey};
use crate::output::printable;

/// Reads the JSON; the error says what is wrong with it, and where.
pub(in super::super) fn read(text: &str) -> Result<Survey, String> {
    // Editors of Windows write a byte-order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let json: Value = serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
    if json["format"] != FORMAT {
        let format = json["format"].as_str().map_or("none".into(), |format| format!("'{}'", printable(format, 40)));
        return Err(format!("its format is {format}, not '{FORMAT}': name the JSON that 'vmentry survey -o' wrote"));
    }
    serde_json::from_str(text).map_err(|error| {
        let what = error.to_string();
        let what = what.rsplit_once(" at line ").map_or(what.as_str(), |(what, _)| what);
        let path = path(before(text, error.line(), error.column()));
        let field = if path.is_empty() { String::new() } else { format!("{}: ", printable(&path, 100)) };
        format!(
            "line {}: {field}{}: it is no survey as 'vmentry survey -o' writes it",
            error.line(),
            printable(what, 200)
        )
    })
}

/// The text up to a line and a column, both from 1, in bytes.
fn before(text: &str, line: usize, column: usize) -> &[u8] {
    let start = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum::<usize>();
    &text.as_bytes()[..(start + column).min(text.len())]
}

/// An object or a list that is not closed yet, and the field or the place in it.
enum Open {
    Object(String),
    List(usize),
}

/// The path of the value that the beginning of a JSON text ends with, e.g. "parts.check.measured.exits".
fn path(beginning: &[u8]) -> String {
    let mut open: Vec<Open> = Vec::new();
    let (mut at, mut is_key) = (0, false);
    while let Some(byte) = beginning.get(at) {
        match byte {
            b'{' => (open.push(Open::Object(String::new())), is_key = true).0,
            b'[' => open.push(Open::List(0)),
            b'}' | b']' => drop(open.pop()),
            b':' => is_key = false,
            b',' => match open.last_mut() {
                Some(Open::List(place)) => *place += 1,
                _ => is_key = true,
            },
            b'"' => {
                let end = at + 1 + length(&beginning[at + 1..]);
                if let (true, Some(Open::Object(key))) = (is_key, open.last_mut()) {
                    *key = String::from_utf8_lossy(&beginning[at + 1..end]).into_owned();
                }
                at = end;
            }
            _ => {}
        }
        at += 1;
    }
    let steps = open.into_iter().map(|open| match open {
        Open::Object(key) => key,
        Open::List(place) => place.to_string(),
    });
    steps.filter(|step| !step.is_empty()).collect::<Vec<_>>().join(".")
}

/// Length of a string whose opening quote is before: up to its closing quote.
fn length(text: &[u8]) -> usize {
    let mut escaped = false;
    let is_end = |byte: &u8| {
        let is_end = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        is_end
    };
    text.iter().position(is_end).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn the_path_is_that_of_the_last_value() {
        for (beginning, expected) in [
            (r#"{"a": {"b": [1, {"c": 3"#, "a.b.1.c"),
            (r#"{"a": {"b": 1}"#, "a"),
            (r#"{"a": {"b": 1}, "c": "x, \" {"#, "c"),
            (r#"{"a": [1, 2], "d""#, "d"),
            ("{", ""),
            ("", ""),
        ] {
            assert_eq!(path(beginning.as_bytes()), expected, "{beginning}");
        }
    }
}
