//! The one place that makes foreign text fit to be shown: text that another process, user or file chose, such as names of VMs and files.
//! It comes through here once, where it enters this program.

use std::{borrow::Cow, path::Path};

use flate2::Crc;

/// Most bytes of a shown name: of a VM, a host, a label.
pub(crate) const MAX_NAME: usize = 256;
/// Most bytes of any other text from a file.
pub(crate) const MAX_TEXT: usize = 4096;

/// Stands for a deceptive character.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;
/// Stands for the rest of a text that is cut.
const CUT: &str = "…";
/// Bytes of a name's checksum with the '~' before it.
const CHECKSUM: usize = 9;

/// Whether a character is a control character, is invisible, or changes how others are shown: ESC, line ends, bidirectional controls,
/// zero-width characters, fillers, variation selectors, tags, noncharacters. Marks that combine with letters are not.
pub(crate) fn is_deceptive(c: char) -> bool {
    // Default_Ignorable_Code_Point, Cf, Zl and Zp of Unicode 16, the blank Braille pattern, and noncharacters.
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}'
            | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fdd0}'..='\u{fdef}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
        || u32::from(c) & 0xfffe == 0xfffe
}

/// Text as a part of a line: each deceptive character replaced by U+FFFD, cut to `most` bytes with a mark. Text that has come through
/// here does not change again.
pub(crate) fn printable(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most && is_plain(text) { text.into() } else { cut(replace(text), most).into() }
}

/// A name that may tell VMs or hosts apart, as [`printable`] and with at most [`MAX_NAME`] bytes. A name that is changed ends with the
/// checksum of the whole one, so that different names stay different.
pub(crate) fn name(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_NAME && is_plain(text) {
        return text.into();
    }
    let mut crc = Crc::new();
    crc.update(text.as_bytes());
    format!("{}~{:08x}", cut(replace(text), MAX_NAME - CHECKSUM), crc.sum()).into()
}

/// A path for people, as [`printable`]. Whoever may create a file chooses its name.
pub(crate) fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy(), MAX_TEXT).into_owned()
}

/// A message of this program: deceptive characters replaced but for line ends, which are this program's own, because foreign parts
/// have none any more.
pub(super) fn message(text: &str) -> Cow<'_, str> {
    if text.split('\n').all(is_plain) {
        return text.into();
    }
    text.replace(|c| c != '\n' && is_deceptive(c), "\u{fffd}").into()
}

fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b' '..=b'~')) || !text.contains(is_deceptive)
}

fn replace(text: &str) -> impl Iterator<Item = char> {
    text.chars().map(|c| if is_deceptive(c) { REPLACEMENT } else { c })
}

/// At most `most` bytes, the mark included; no more of the text is looked at.
fn cut(text: impl Iterator<Item = char>, most: usize) -> String {
    let mut out = String::new();
    // Bytes that leave room for the mark.
    let mut whole = 0;
    for c in text {
        if out.len() + c.len_utf8() > most {
            out.truncate(whole);
            out += CUT;
            break;
        }
        out.push(c);
        if out.len() + CUT.len() <= most {
            whole = out.len();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, ffi::OsStr, fs, os::unix::ffi::OsStrExt};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_kind_of_deceptive_character_is_replaced() {
        for (text, shown) in [
            ("\u{1b}[31mred", "\u{fffd}[31mred"),
            ("a\r\nb\0c\u{7f}\u{9b}2J", "a\u{fffd}\u{fffd}b\u{fffd}c\u{fffd}\u{fffd}2J"),
            ("\u{202e}cba\u{2069}\u{61c}", "\u{fffd}cba\u{fffd}\u{fffd}"),
            ("a\u{200b}b\u{feff}\u{ad}\u{2060}\u{3164}\u{2800}", "a\u{fffd}b\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
            ("a\u{2028}b\u{2029}", "a\u{fffd}b\u{fffd}"),
            ("a\u{fe0f}\u{e0101}\u{e0041}\u{e0001}", "a\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
            ("a\u{ffff}\u{fdd0}\u{1fffe}", "a\u{fffd}\u{fffd}\u{fffd}"),
            ("web-1.example_2 Größe 東京 e\u{301} 🦀", "web-1.example_2 Größe 東京 e\u{301} 🦀"),
        ] {
            assert_eq!(printable(text, 100), shown, "{text:?}");
        }
    }

    #[test]
    fn long_text_is_cut_between_characters_and_marked() {
        assert_eq!(printable("abcdef", 6), "abcdef");
        assert_eq!(printable("abcdefg", 6), "abc…");
        assert_eq!(printable("äöüß", 7), "äö…");
        assert_eq!(printable("\u{1b}\u{1b}\u{1b}", 8), "\u{fffd}…");
        assert_eq!(printable("abcd", 2), "…", "no room for any of it");
    }

    #[test]
    fn different_names_stay_different() {
        let long = "x".repeat(300);
        let names = ["a\u{1b}", "a\u{7}", "a\u{fffd}", "a", &long, &(long.clone() + "y")].map(|n| name(n).into_owned());
        let unique: BTreeSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len(), "{names:?}");
        assert!(names[4].len() <= MAX_NAME && names[4].contains("x…~"), "{}", names[4]);
        assert_eq!(names[3], "a");
    }

    #[test]
    fn a_path_is_shown_on_one_line_whatever_its_bytes_are() {
        let path = Path::new(OsStr::from_bytes(b"a\nno loss\x1b[2J\xff.hlog"));
        assert_eq!(shown(path), "a\u{fffd}no loss\u{fffd}[2J\u{fffd}.hlog");
    }

    #[test]
    fn a_message_keeps_its_line_ends_only() {
        assert_eq!(message("a\n  -> b\u{1b}[2J\rc"), "a\n  -> b\u{fffd}[2J\u{fffd}c");
    }

    #[test]
    fn every_path_in_a_text_comes_through_here() {
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        while let Some(folder) = folders.pop() {
            for file in fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()) {
                if file.is_dir() {
                    folders.push(file);
                } else if file.extension().is_some_and(|e| e == "rs") {
                    let raw = [".display", "()"].concat();
                    let text = fs::read_to_string(&file).unwrap();
                    let at = text.lines().position(|line| line.contains(&raw));
                    assert_eq!(at, None, "{}: write output::shown(path)", shown(&file));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn what_came_through_is_bounded_and_does_not_change_again(text in any::<String>(), most in 3_usize..40) {
            let once = printable(&text, most).into_owned();
            prop_assert!(once.len() <= most && !once.contains(is_deceptive), "{once:?}");
            prop_assert_eq!(&printable(&once, most), &once);
            let once = name(&text.repeat(9)).into_owned();
            prop_assert!(once.len() <= MAX_NAME && !once.contains(is_deceptive), "{once:?}");
            prop_assert_eq!(&name(&once), &once);
        }
    }
}
