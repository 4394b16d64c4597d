//! The command line, which may be wrong: as it is parsed, or later, because its arguments do not fit each other or the files.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt,
    io::{self, Write},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
    process::ExitCode,
};

use clap::{
    Parser,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::{
    output::{self, MAX_TEXT, printable},
    recording::similar,
    say,
};

/// Parses the command line. Prints the help that it asks for, or why it is wrong, and returns the exit code then.
pub fn parse<C: Parser>() -> Result<C, ExitCode> {
    let arguments: Vec<_> = env::args_os().collect();
    C::try_parse_from(&arguments).map_err(|error| {
        if error.use_stderr() {
            say!("{}", explain::<C>(&error, &arguments).trim_end());
            if let Some(tip) = tip(&error, &arguments) {
                say!("{tip}");
            }
            return ExitCode::from(EXIT_CODE);
        }
        print_help(&error)
    })
}

/// Prints a help or the version. Whoever closes the pipe has read enough.
pub(crate) fn print_help(help: &clap::Error) -> ExitCode {
    match help.print().and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            say!("vmentry: write to standard output: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Commands that take `-- COMMAND`.
const TAKE_COMMANDS: [&str; 3] = ["record", "ab", "policy"];

/// What was meant by a wrong command line, if it can be told: a recording without a command, or where the command does not take one; no
/// recordings for a comparison; or a command to run without `--`.
fn tip(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    let shown = |word: &OsStr| printable(&word.to_string_lossy(), MAX_TEXT).into_owned();
    let wrong = match (error.get(ContextKind::InvalidSubcommand), error.get(ContextKind::InvalidArg)) {
        (Some(ContextValue::String(wrong)), _) | (_, Some(ContextValue::String(wrong))) => wrong.as_str(),
        _ => "",
    };
    let is_file = is_file_name(wrong);
    let command = arguments.get(1).map(OsString::as_os_str).unwrap_or_default();
    let (raw, wrong) = (wrong, shown(OsStr::new(wrong)));
    match error.kind() {
        ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument if is_file && command.to_string_lossy() == raw => {
            Some(match Path::new(raw).exists() {
                true => format!("did you mean 'vmentry report {wrong}'?"),
                false => format!(
                    "there is no file {wrong}: {}a recording that is there is shown by 'vmentry report FILE'",
                    similar(Path::new(raw)).map(|meant| meant + " ").unwrap_or_default()
                ),
            })
        }
        ErrorKind::UnknownArgument if raw == "--replay" => Some(format!(
            "leave --replay out: vmentry{}",
            without(arguments, "--replay").map(|word| format!(" {}", shown(word))).collect::<String>()
        )),
        ErrorKind::UnknownArgument if command == "survey" && !raw.starts_with('-') => {
            Some(format!("to write it there: vmentry survey -o {wrong}"))
        }
        ErrorKind::MissingRequiredArgument if command == "merge" => output_of_merge(arguments),
        ErrorKind::UnknownArgument if is_file && command == "export" => {
            Some(format!("to serve a recording: vmentry export --replay {wrong}"))
        }
        ErrorKind::MissingRequiredArgument if command == "compare" => {
            Some("name A and B: vmentry compare A.hlog B.hlog; or a recording of 'vmentry ab', which has both".into())
        }
        _ => command_tip(error, arguments),
    }
}

/// Whether a wrong word was meant as a file.
fn is_file_name(word: &str) -> bool {
    !word.starts_with('-') && (word.ends_with(".hlog") || Path::new(word).is_file())
}

/// The arguments behind the program's name, without one of them.
fn without<'a>(arguments: &'a [OsString], left_out: &str) -> impl Iterator<Item = &'a OsStr> {
    arguments.iter().skip(1).map(OsString::as_os_str).filter(move |word| *word != left_out)
}

/// A `merge` that has files, with `-o` before the one to write: the last one, where there is no such file yet.
fn output_of_merge(arguments: &[OsString]) -> Option<String> {
    let shown = |word: &OsString| printable(&word.to_string_lossy(), MAX_TEXT).into_owned();
    let files = arguments.get(2..).filter(|files| files.len() > 1)?;
    let is_new = |word: &OsString| !Path::new(word).exists() && !word.as_encoded_bytes().starts_with(b"-");
    let (read, written) = match files.split_last() {
        Some((last, others)) if is_new(last) => (others, shown(last)),
        _ => (files, "all.hlog".to_owned()),
    };
    let read: Vec<_> = read.iter().map(shown).collect();
    Some(format!("name the file to write: vmentry merge -o {written} {}", read.join(" ")))
}

/// How a command is run, for somebody who wrote it without `--`; none where the first wrong argument is an option.
fn command_tip(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    let takes_command = arguments.get(1).and_then(|name| TAKE_COMMANDS.into_iter().find(|known| name == known))?;
    let wrong = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(wrong))) => wrong,
        _ => return None,
    };
    let at = 2 + arguments.iter().skip(2).position(|argument| argument == wrong.as_str())?;
    if wrong.starts_with('-') {
        return None;
    }
    let words = |range: &[OsString]| -> String {
        range.iter().map(|word| format!(" {}", printable(&word.to_string_lossy(), MAX_TEXT))).collect()
    };
    let (options, command) = (words(&arguments[2..at]), words(&arguments[at..]));
    if takes_command == "record" && wrong.ends_with(".hlog") {
        return Some(format!("to write it there: vmentry record{options} -o{command}"));
    }
    if arguments[at..].iter().any(|word| word.as_encoded_bytes().starts_with(b"-")) {
        let wrong = printable(wrong, MAX_TEXT);
        return Some(format!(
            "to run a command, write it after all options and --: vmentry {takes_command} --duration 1s -- {wrong}\n\
             to trace one VM: vmentry {takes_command} --vm {wrong}"
        ));
    }
    Some(format!("to run a command, write -- before it: vmentry {takes_command}{options} --{command}"))
}

/// The error of a command line, whose arguments must not begin a line of their own: that of the same one with printable arguments. Where
/// that is no such error, it is put on one line.
fn explain<C: Parser>(error: &clap::Error, arguments: &[OsString]) -> String {
    match C::try_parse_from(arguments.iter().map(|argument| harmless(argument))) {
        Err(mut same) if same.kind() == error.kind() => {
            let is_misled =
                |kind, is: fn(&str) -> bool| matches!(error.get(kind), Some(ContextValue::String(wrong)) if is(wrong));
            // clap's own tips, where there is a better one: another command for a file, and `-- --replay`.
            if is_misled(ContextKind::InvalidSubcommand, is_file_name)
                || is_misled(ContextKind::InvalidArg, |wrong| wrong == "--replay")
            {
                same.remove(ContextKind::SuggestedSubcommand);
                same.remove(ContextKind::Suggested);
            }
            same.to_string()
        }
        _ => printable(&error.to_string(), MAX_TEXT).into_owned(),
    }
}

/// An argument without line ends and other deceptive characters; it stays no UTF-8 where it is none.
fn harmless(argument: &OsStr) -> OsString {
    let without_controls = || argument.as_bytes().iter().map(|byte| if byte.is_ascii_control() { b'?' } else { *byte });
    match argument.to_str() {
        Some(text) => printable(text, MAX_TEXT).into_owned().into(),
        None => OsString::from_vec(without_controls().collect()),
    }
}

/// A wrong command line: the reason and the fix. The program ends with [`EXIT_CODE`].
#[derive(Debug)]
pub(crate) struct WrongCommandLine(String);

/// Exit code of a wrong command line, which is also clap's.
pub(crate) const EXIT_CODE: u8 = 2;

impl fmt::Display for WrongCommandLine {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongCommandLine {}

/// Refuses recordings of which one is written to, by this name or another one, and a second `-`: standard input is read once.
pub(crate) fn refuse_overlap<'a>(read: impl IntoIterator<Item = &'a Path>, written: &Path) -> anyhow::Result<()> {
    let is_standard = |path: &Path| path == Path::new("-");
    let mut has_stdin = false;
    for path in read {
        if is_standard(path) && std::mem::replace(&mut has_stdin, true) {
            return refuse("'-' is given twice, and standard input is read once: name a file");
        }
        if output::is_both(path, written) {
            let written = if is_standard(written) { "standard output".into() } else { output::shown(written) };
            let read = if is_standard(path) { "standard input".into() } else { output::shown(path) };
            return refuse(format!("{read} is both read and written ({written}): choose another name"));
        }
    }
    Ok(())
}

/// Refuses a recording with the suffix of a document: its readers would take it for one.
pub(crate) fn refuse_document_name(recording: &Path) -> anyhow::Result<()> {
    let suffix = recording.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    if ["html", "htm", "json", "csv", "md"].contains(&suffix.as_str()) {
        let named = output::shown(&recording.with_extension("hlog"));
        return refuse(format!(
            "-o {}: it would be a recording: name it {named}, and make a document of it with 'vmentry report {named} -o FILE'",
            output::shown(recording)
        ));
    }
    Ok(())
}

/// Refuses the command line.
pub(crate) fn refuse<T>(reason: impl Into<String>) -> anyhow::Result<T> {
    Err(WrongCommandLine(reason.into()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A command line with each kind of argument.
    #[derive(Debug, Parser)]
    #[command(name = "vmentry")]
    struct Line {
        #[arg(long)]
        number: Option<u32>,
        #[arg(long, value_parser = ["soft", "hard"])]
        policy: Option<String>,
        #[arg(long)]
        name: Option<String>,
    }

    #[test]
    fn no_argument_of_a_wrong_command_line_begins_a_line_of_its_own() {
        let hostile = |before: &[u8]| OsString::from_vec([before, b"x\nFORGED\x1b[2J\xe2\x80\xae"].concat());
        let no_text = |before: &[u8]| OsString::from_vec([before, b"\xff\nFORGED"].concat());
        for wrong in [
            vec![hostile(b"--")],
            vec![hostile(b"")],
            vec![hostile(b"--number=")],
            vec!["--policy".into(), hostile(b"")],
            vec![no_text(b"--")],
            vec![no_text(b"--name=")],
            vec![no_text(b"--policy=")],
        ] {
            let arguments: Vec<_> = [OsString::from("vm\nFORGED")].into_iter().chain(wrong).collect();
            let error = Line::try_parse_from(&arguments).unwrap_err();
            let text = explain::<Line>(&error, &arguments);
            // Its own line ends are kept.
            assert!(text.starts_with("error: ") && text.contains("\n\nFor more information"), "{text}");
            assert!(!text.lines().any(|line| line.trim_start().starts_with("FORGED")), "{text}");
        }
        // Where it would be right with printable arguments.
        let arguments = ["vmentry", "--policy=a\nFORGED"].map(OsString::from);
        let error = Line::try_parse_from(&arguments).unwrap_err();
        assert_eq!(explain::<Anything>(&error, &arguments).lines().count(), 1);
    }

    fn tip(words: &[&str]) -> Option<String> {
        let arguments: Vec<_> = words.iter().map(OsString::from).collect();
        super::tip(&crate::commands::args::Cli::try_parse_from(&arguments).unwrap_err(), &arguments)
    }

    #[test]
    fn a_recording_in_the_place_of_something_else_has_the_command_that_takes_it() {
        let said = |words: &[&str]| tip(words).unwrap_or_default();
        assert!(said(&["vmentry", "a.hlog"]).starts_with("there is no file a.hlog: "));
        for (words, expected) in [
            (&["vmentry", "record", "--vm", "a", "out.hlog"][..], "vmentry record --vm a -o out.hlog"),
            (&["vmentry", "survey", "host.html"], "vmentry survey -o host.html"),
            (&["vmentry", "merge", "a", "b", "all.hlog"], "vmentry merge -o all.hlog a b"),
            (&["vmentry", "report", "--replay", "a.hlog"], "leave --replay out: vmentry report a.hlog"),
        ] {
            assert!(said(words).ends_with(expected), "{words:?}: {}", said(words));
        }
        assert_eq!(said(&["vmentry", "export", "a.hlog"]), "to serve a recording: vmentry export --replay a.hlog");
        assert!(said(&["vmentry", "compare"]).contains("vmentry compare A.hlog B.hlog"));
        for words in [
            &["vmentry", "reprot"][..],
            &["vmentry", "--verbsoe"],
            &["vmentry", "export", "web1"],
            &["vmentry", "merge"],
        ] {
            assert_eq!(tip(words), None, "{words:?}");
        }
        assert!(!said(&["vmentry", "a\nFORGED.hlog"]).contains('\n'));
    }

    #[test]
    fn a_command_without_dashes_is_shown_with_them() {
        let expected = "to run a command, write -- before it: vmentry record --duration 3s -- sleep 1";
        assert_eq!(tip(&["vmentry", "record", "--duration", "3s", "sleep", "1"]).as_deref(), Some(expected));
        // The option may be vmentry's.
        let with_option = tip(&["vmentry", "record", "web1", "--duration", "1s"]).unwrap();
        assert!(
            with_option.contains("--duration 1s -- web1\n") && with_option.contains("record --vm web1"),
            "{with_option}"
        );
        assert_eq!(tip(&["vmentry", "record", "--duratoin", "3s"]), None);
        assert_eq!(tip(&["vmentry", "check", "sleep"]), None);
        assert!(!tip(&["vmentry", "ab", "a\nFORGED"]).unwrap().contains('\n'));
    }

    #[derive(Debug, Parser)]
    struct Anything {
        #[arg(long)]
        policy: Option<String>,
    }
}
