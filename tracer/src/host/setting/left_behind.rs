//! What a killed experiment left switched, as `vmentry check` shows it.

use serde::Serialize;

use super::{
    file::is_same,
    note::{self, Found, UNREADABLE},
};
use crate::{
    host::roots::Roots,
    output::{MAX_TEXT, printable, shown},
};

/// The note of an experiment that did not restore its setting against what is in force now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LeftBehind {
    /// process that did not restore; null where the note does not tell
    pub(crate) pid: Option<u32>,
    /// files whose values are not those from before
    pub(crate) files: Vec<Left>,
    /// command that would have restored the setting; null where files tell
    pub(crate) command: Option<String>,
    /// why the process could not restore the setting; null if it was killed before
    pub(crate) failed: Option<String>,
    /// why the note is not to be trusted; null for a good one
    pub(crate) foreign: Option<&'static str>,
}

/// A file with another value than before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Left {
    /// its path
    pub(crate) file: String,
    /// value before the experiment
    pub(crate) before: String,
    /// value now, or why it cannot be read
    pub(crate) now: String,
}

/// What a killed experiment left behind; none without a note, while its process runs, and where all is as before.
pub(crate) fn left_behind(roots: &Roots) -> Option<LeftBehind> {
    let note = match note::find(roots) {
        Found::Note(note) if !note.is_alive && !note.is_settled() => note,
        Found::Foreign(why) if why != UNREADABLE => {
            return Some(LeftBehind { pid: None, files: Vec::new(), command: None, failed: None, foreign: Some(why) });
        }
        _ => return None,
    };
    let text = |text: &str| printable(text, MAX_TEXT).into_owned();
    let mut files = Vec::new();
    for (file, before) in note.files.iter().filter(|(file, _)| !file.is_gone()) {
        let now = match file.read() {
            Ok(content) if is_same(&content.now, before) => continue,
            Ok(content) => text(&content.now),
            Err(error) => format!("unreadable ({error})"),
        };
        files.push(Left { file: shown(file.path()), before: text(before), now });
    }
    let [command, failed] = [&note.command, &note.failed].map(|part| part.as_deref().map(text));
    Some(LeftBehind { pid: Some(note.pid), files, command, failed, foreign: None })
}

impl LeftBehind {
    /// The problem, with the values now and before.
    pub(crate) fn what(&self) -> String {
        if let Some(why) = self.foreign {
            return format!("the note of a switched setting is none of vmentry's: {why}");
        }
        let by = format!("vmentry (pid {})", self.pid.unwrap_or_default());
        if let Some(command) = &self.command {
            return match &self.failed {
                None => format!("a setting may be left behind by {by}, which was killed before it ran: {command}"),
                Some(why) => {
                    let command = if why.contains(command.as_str()) { String::new() } else { format!("{command}: ") };
                    format!("a setting may be left behind by {by}, whose command to restore it failed: {command}{why}")
                }
            };
        }
        // "..., which was killed before it restored 5", or "..., which could not restore 5: why".
        let without = |what: &str| match &self.failed {
            None => format!("left behind by {by}, which was killed before it restored {what}"),
            Some(why) => format!("left behind by {by}, which could not restore {what}: {why}"),
        };
        let each = |left: &Left| format!("{} is {}, was {}", left.file, left.now, left.before);
        match self.files.as_slice() {
            [] => format!("a note is left behind by {by}"),
            [left] => format!("{} is {}, {}", left.file, left.now, without(&left.before)),
            [first, second, rest @ ..] => {
                let more = if rest.is_empty() { String::new() } else { format!("; and {} more", rest.len()) };
                format!("{}; {}{more}: {}", each(first), each(second), without("them"))
            }
        }
    }

    /// The command that restores, or what else to do.
    pub(crate) fn fix(&self) -> &'static str {
        match (self.foreign, &self.command) {
            (Some(_), _) => "look at /run/vmentry-setting.json, and remove it",
            (None, Some(_)) => "type that command, and then: rm /run/vmentry-setting.json",
            (None, None) => "vmentry ab --restore",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(files: usize, command: Option<&str>, foreign: Option<&'static str>) -> LeftBehind {
        let file = |n: usize| Left { file: format!("/sys/{n}"), before: "5".into(), now: "0".into() };
        LeftBehind {
            pid: Some(7),
            files: (0..files).map(file).collect(),
            command: command.map(str::to_owned),
            failed: None,
            foreign,
        }
    }

    #[test]
    fn the_problem_names_values_now_and_before_and_few_files_of_many() {
        let what = |files| left(files, None, None).what();
        assert_eq!(what(1), "/sys/0 is 0, left behind by vmentry (pid 7), which was killed before it restored 5");
        assert!(what(2).starts_with("/sys/0 is 0, was 5; /sys/1 is 0, was 5: left behind"), "{}", what(2));
        assert!(what(99).contains("; and 97 more: left"), "{}", what(99));
    }

    #[test]
    fn a_command_is_to_be_typed_and_a_strange_note_to_be_looked_at() {
        let command = left(0, Some("echo 1"), None);
        assert!(command.what().ends_with("before it ran: echo 1") && command.fix().starts_with("type that command"));
        let strange = left(0, None, Some("it is a link"));
        assert!(strange.what().ends_with("it is a link") && strange.fix().contains("remove it"));
    }
}
