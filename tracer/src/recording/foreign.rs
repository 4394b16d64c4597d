//! JSON of a recording, whose strings anyone may have chosen: all of them, in whatever field, become printable and bounded before anything
//! else sees them.

use std::borrow::Cow;

use anyhow::{Result, anyhow};
use serde::de::DeserializeOwned;

use crate::output::{MAX_NAME, MAX_TEXT, name, printable};

/// Fields with names, which tables repeat in each row and which tell VMs and hosts apart.
const NAMES: [&str; 3] = ["name", "host", "label"];

/// The value of a JSON text with printable strings. The error is one printable line, too.
pub(super) fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    serde_json::from_slice(&clean(json)).map_err(|e| anyhow!("{}", printable(&e.to_string(), MAX_NAME)))
}

/// The text with printable strings, keys included. Strings that are no JSON stay, and are an error of the parser.
fn clean(json: &[u8]) -> Cow<'_, [u8]> {
    let mut out = Vec::new();
    let (mut copied, mut at) = (0, 0);
    let mut is_name = false;
    while let Some((begin, end)) = next_string(json, at) {
        at = end;
        let text = decode(&json[begin..end]);
        if let Cow::Owned(cleaned) = if is_name { name(&text) } else { printable(&text, MAX_TEXT) } {
            out.extend_from_slice(&json[copied..begin]);
            out.extend(serde_json::Value::from(cleaned).to_string().into_bytes());
            copied = end;
        }
        is_name = NAMES.contains(&text.as_ref());
    }
    if copied == 0 {
        return json.into();
    }
    out.extend_from_slice(&json[copied..]);
    out.into()
}

/// The text of a JSON string, without a copy where nothing in it is escaped; empty where it is none.
fn decode(literal: &[u8]) -> Cow<'_, str> {
    let borrowed = serde_json::from_slice::<&str>(literal).map(Cow::Borrowed);
    borrowed.or_else(|_| serde_json::from_slice::<String>(literal).map(Cow::Owned)).unwrap_or_default()
}

/// Where the first string after `at` begins and ends, with its quotes; none where there is no whole one.
fn next_string(json: &[u8], at: usize) -> Option<(usize, usize)> {
    let begin = at + json[at..].iter().position(|&b| b == b'"')?;
    let mut end = begin + 1;
    loop {
        match json.get(end)? {
            b'"' => return Some((begin, end + 1)),
            b'\\' => end += 2,
            _ => end += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::output::is_deceptive;

    #[test]
    fn every_string_and_key_of_a_text_becomes_printable() {
        let clean = |text: &str| parse::<Value>(text.as_bytes()).unwrap();
        assert_eq!(
            clean(r#"{"a":"x\u001b[2J","b\n":["\u202e\\\"",{"c":1.5}],"d":18446744073709551615}"#),
            json!({"a": "x\u{fffd}[2J", "b\u{fffd}": ["\u{fffd}\\\"", {"c": 1.5}], "d": u64::MAX})
        );
        let plain = r#"{"name":"web1","x":["Größe \"a\" \\", -7, true, null]}"#;
        assert!(matches!(super::clean(plain.as_bytes()), Cow::Borrowed(_)));
    }

    #[test]
    fn names_are_cut_and_stay_different_however_their_field_is_written() {
        for field in ["name", "host", "label", r"n\u0061me"] {
            let read = |value: &str| {
                let text: Value = parse(format!(r#"{{"{field}":"{value}"}}"#).as_bytes()).unwrap();
                text.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned()
            };
            let long = "x".repeat(1 << 20);
            assert!(read(&long).len() <= MAX_NAME);
            assert_ne!(read(&long), read(&(long.clone() + "y")));
            assert_ne!(read(r"a\u001b"), read(r"a\u0007"));
        }
        let other: Value = parse(format!(r#"{{"reason":"{}"}}"#, "x".repeat(1 << 20)).as_bytes()).unwrap();
        assert!(other["reason"].as_str().unwrap().len() <= MAX_TEXT);
    }

    #[test]
    fn an_error_quotes_nothing_that_is_not_printable() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Known {
            One,
        }
        for text in ["\"\\u001b]0;x\\u0007\"", "\"\x1b\"", "{\"\\u001b\":1}", "\"a\\nforged\"", "\"\\ud800\"", "\"cut"]
        {
            let error = parse::<Known>(text.as_bytes()).unwrap_err().to_string();
            assert!(!error.contains(is_deceptive) && error.len() <= MAX_NAME, "{error:?}");
        }
        assert!(matches!(parse(b"\"one\""), Ok(Known::One)));
    }

    proptest! {
        #[test]
        fn text_that_is_no_json_is_an_error_and_json_is_read(text in r#"[\[\]{}",:\\a-z0-9\u{1b}\n]{0,40}"#) {
            let plain = serde_json::from_str::<Value>(&text);
            prop_assert_eq!(parse::<Value>(text.as_bytes()).is_ok(), plain.is_ok());
        }
    }
}
