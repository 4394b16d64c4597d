//! Completion in bash. Its readline replaces only the text behind the last break (COMP_WORDBREAKS: `=` and `:` are among them) or behind a
//! quote, and inserts a reply as it is: so a reply is the rest of a candidate, quoted as the line needs it.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
};

use clap::Command;
use clap_complete::{
    PathCompleter,
    engine::{self, ValueCompleter},
    env::EnvCompleter,
};

const SCRIPT: &str = include_str!("vmentry.bash");

/// Asked with the line up to the cursor, and COMP_WORDBREAKS.
pub(super) struct Bash;

impl EnvCompleter for Bash {
    fn name(&self) -> &'static str {
        "bash"
    }

    fn is(&self, name: &str) -> bool {
        name == self.name()
    }

    fn write_registration(
        &self,
        _: &str,
        _: &str,
        bin: &str,
        completer: &str,
        out: &mut dyn io::Write,
    ) -> io::Result<()> {
        // Between double quotes.
        let completer = quoted(completer.as_bytes(), Quote::Double);
        let script = SCRIPT.replace("BIN", bin).replace("COMPLETER", &String::from_utf8_lossy(&completer));
        out.write_all(script.as_bytes())
    }

    fn write_complete(
        &self,
        command: &mut Command,
        arguments: Vec<OsString>,
        folder: Option<&Path>,
        out: &mut dyn io::Write,
    ) -> io::Result<()> {
        let [line, breaks] = arguments.as_slice() else {
            return Err(io::Error::other(
                "bash asks with a line and COMP_WORDBREAKS: run 'vmentry completions bash' again",
            ));
        };
        let line = Line::read(line.as_bytes(), breaks.as_bytes());
        let candidates = if line.is_redirected {
            PathCompleter::any().complete(OsStr::from_bytes(line.current()))
        } else {
            let last = line.words.len() - 1;
            engine::complete(command, line.words.iter().cloned().map(OsString::from_vec).collect(), last, folder)?
        };
        for reply in candidates.iter().filter_map(|candidate| line.reply(candidate.get_value().as_bytes())) {
            out.write_all(&[reply.as_slice(), b"\n"].concat())?;
        }
        Ok(())
    }
}

/// What stands around a place in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quote {
    None,
    Single,
    Double,
}

/// A line up to the cursor.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    /// without quotes; the last one is completed, and may be empty
    words: Vec<Vec<u8>>,
    /// bytes of the last word that stay as they are: readline replaces the rest
    kept: usize,
    /// what stands around the end of the line
    quote: Quote,
    /// the last word is the file of a redirection
    is_redirected: bool,
}

impl Line {
    fn read(line: &[u8], breaks: &[u8]) -> Self {
        let mut read = Self { words: vec![vec![]], kept: 0, quote: Quote::None, is_redirected: false };
        let mut bytes = line.iter().copied().peekable();
        while let Some(byte) = bytes.next() {
            match (read.quote, byte) {
                (Quote::None, b' ' | b'\t' | b'\n') => read.end_word(),
                (Quote::None, b'<' | b'>' | b'&') => {
                    // In "2>", the number is no argument.
                    if read.current().iter().all(u8::is_ascii_digit) {
                        read.current_mut().clear();
                    }
                    read.end_word();
                    read.is_redirected = true;
                }
                (Quote::None, b'\'') => read.enter(Quote::Single),
                (Quote::None, b'"') => read.enter(Quote::Double),
                (Quote::Single, b'\'') | (Quote::Double, b'"') => read.enter(Quote::None),
                (Quote::None, b'\\') => read.current_mut().extend(bytes.next()),
                (Quote::Double, b'\\') => {
                    let escaped = bytes.next_if(|next| is_special_in_double_quotes(*next));
                    read.current_mut().push(escaped.unwrap_or(byte));
                }
                (Quote::None, _) if breaks.contains(&byte) => {
                    read.current_mut().push(byte);
                    read.kept = read.current().len();
                }
                _ => read.current_mut().push(byte),
            }
        }
        read
    }

    fn current(&self) -> &[u8] {
        self.words.last().map_or(&[], Vec::as_slice)
    }

    fn current_mut(&mut self) -> &mut Vec<u8> {
        if self.words.is_empty() {
            self.words.push(vec![]);
        }
        let last = self.words.len() - 1;
        &mut self.words[last]
    }

    /// A quote opens or closes: readline begins behind it.
    fn enter(&mut self, quote: Quote) {
        self.quote = quote;
        self.kept = self.current().len();
    }

    fn end_word(&mut self) {
        if !self.current().is_empty() {
            if std::mem::take(&mut self.is_redirected) {
                self.words.pop();
            }
            self.words.push(vec![]);
        }
        self.kept = 0;
    }

    /// What readline is to insert for a candidate; none where that cannot be typed.
    fn reply(&self, candidate: &[u8]) -> Option<Vec<u8>> {
        if candidate.iter().any(u8::is_ascii_control) {
            return None;
        }
        let rest = candidate.get(self.kept..).filter(|_| candidate.starts_with(&self.current()[..self.kept]))?;
        Some(quoted(rest, self.quote))
    }
}

fn is_special_in_double_quotes(byte: u8) -> bool {
    matches!(byte, b'"' | b'$' | b'`' | b'\\')
}

/// A text that means itself between these quotes. A `~/` at its begin means the home folder, as bash and the candidates have it.
fn quoted(text: &[u8], quote: Quote) -> Vec<u8> {
    let of_byte = |(at, &byte): (usize, &u8)| -> Vec<u8> {
        let is_plain = byte.is_ascii_alphanumeric() || !byte.is_ascii() || b"_-./:=,+%@^".contains(&byte);
        match quote {
            Quote::Single if byte == b'\'' => br"'\''".to_vec(),
            Quote::Double if is_special_in_double_quotes(byte) => vec![b'\\', byte],
            Quote::None if !(is_plain || at == 0 && text.starts_with(b"~/")) => vec![b'\\', byte],
            _ => vec![byte],
        }
    };
    text.iter().enumerate().flat_map(of_byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BREAKS: &[u8] = b" \t\n\"'><=;|&(:";

    fn read(line: &str) -> Line {
        Line::read(line.as_bytes(), BREAKS)
    }

    fn reply(line: &str, candidate: &str) -> Option<String> {
        read(line).reply(candidate.as_bytes()).map(|reply| String::from_utf8(reply).unwrap())
    }

    #[test]
    fn words_are_those_that_the_program_would_get() {
        for (line, words) in [
            ("vmentry report --filter reason=HL", &["vmentry", "report", "--filter", "reason=HL"][..]),
            ("vmentry  report ", &["vmentry", "report", ""]),
            (r"vmentry report a\ b 'c d'e", &["vmentry", "report", "a b", "c de"]),
            (r#"vmentry report "a\$b\c "#, &["vmentry", "report", r"a$b\c "]),
            ("vmentry report a 2> log.txt b", &["vmentry", "report", "a", "b"]),
        ] {
            let words: Vec<_> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
            assert_eq!(read(line).words, words, "{line}");
        }
        assert!(read("vmentry report a > lo").is_redirected && !read("vmentry report a > log ").is_redirected);
    }

    #[test]
    fn a_reply_is_what_stands_behind_the_break_and_quoted() {
        for (line, candidate, expected) in [
            ("vmentry report --filter reason=HL", "reason=HLT", "HLT"),
            ("vmentry export --listen unix:/tmp/a", "unix:/tmp/a:b", "/tmp/a:b"),
            ("vmentry report a", "a b.hlog", r"a\ b.hlog"),
            ("vmentry report 'a", "a b'c.hlog", r"a b'\''c.hlog"),
            (r#"vmentry report "d"#, "do$HOME.hlog", r"do\$HOME.hlog"),
            ("vmentry report x", "x[1].hlog", r"x\[1\].hlog"),
            ("vmentry report 'a b'c", "a bcd", "cd"),
            ("vmentry report ~/a", "~/a b", r"~/a\ b"),
            ("vmentry compare --fail-if p", "pin_writes.mean>+3%", r"pin_writes.mean\>+3%"),
        ] {
            assert_eq!(reply(line, candidate).as_deref(), Some(expected), "{line}");
        }
        // Where `=` breaks no words, the whole word is replaced.
        let line = Line::read(b"vmentry report --filter reason=HL", b" ");
        assert_eq!(line.reply(b"reason=HLT").unwrap(), b"reason=HLT");
        assert_eq!(reply("vmentry report a", "a\nb"), None);
    }
}
