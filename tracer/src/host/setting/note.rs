//! The note of an experiment that switches a setting: what restores it after a kill -9. It is read as if a stranger had written it: it leads
//! to no file outside /sys and /proc/sys, and no command of it is ever run.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};

use super::file::{KernelFile, MOST_VALUE, is_same};
use crate::{
    host::{process::read_process, roots::Roots},
    output::{MAX_TEXT, printable, shown},
    say,
};

/// The note, below /run.
const NOTE: &str = "vmentry-setting.json";
/// Most bytes of a note: those of a governor on some thousand CPUs.
const NOTE_BYTES: u64 = 1 << 20;

/// Why a note cannot be read that another user made for itself: no sign of a stranger.
pub(super) const UNREADABLE: &str = "only root may read it";

/// What the note says: the process that has to restore, and the values or the command by which it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Text {
    /// process that switches
    pid: u32,
    /// start of that process in clock ticks since boot
    start_ticks: u64,
    /// values before the first switch
    files: Vec<Before>,
    /// command that restores, for people to read
    command: Option<String>,
    /// why that process could not restore the setting; none while it did not try
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
}

/// A file's value before the first switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Before {
    file: String,
    value: String,
}

/// A note whose every file may be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) pid: u32,
    /// its process runs, and will restore
    pub(crate) is_alive: bool,
    pub(crate) files: Vec<(KernelFile, String)>,
    pub(crate) command: Option<String>,
    /// why its process could not restore the setting; none if it was killed before
    pub(crate) failed: Option<String>,
}

/// What stands in the note's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    Note(Note),
    /// cut off by a kill before anything was switched
    CutOff,
    /// nothing that is to be trusted, with the reason
    Foreign(&'static str),
}

/// The note's own file while its process runs.
#[derive(Debug)]
pub(crate) struct Kept {
    path: PathBuf,
    file: File,
    text: Text,
}

/// The note's path.
pub(crate) fn path(roots: &Roots) -> PathBuf {
    roots.run.join(NOTE)
}

/// Looks for a note.
pub(crate) fn find(roots: &Roots) -> Found {
    match read(&path(roots)) {
        Ok(Some(bytes)) => understood(roots, &bytes),
        Ok(None) => Found::Nothing,
        Err(why) => Found::Foreign(why),
    }
}

/// The bytes of a regular file of root's or of this user, none where there is nothing; else the reason.
fn read(path: &Path) -> Result<Option<Vec<u8>>, &'static str> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err("it is a link"),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(UNREADABLE),
        Err(_) => return Err("it cannot be read"),
    };
    let about = file.metadata().map_err(|_| "it cannot be read")?;
    if !about.is_file() {
        return Err("it is no regular file");
    }
    if ![0, rustix::process::geteuid().as_raw()].contains(&about.uid()) {
        return Err("it belongs to another user");
    }
    if about.len() > NOTE_BYTES {
        return Err("it is too large");
    }
    let mut bytes = Vec::new();
    file.take(NOTE_BYTES).read_to_end(&mut bytes).map_err(|_| "it cannot be read")?;
    Ok(Some(bytes))
}

fn understood(roots: &Roots, bytes: &[u8]) -> Found {
    let text: Text = match serde_json::from_slice(bytes) {
        Ok(text) => text,
        // The values are written before the first switch and in one piece.
        Err(error) if error.is_eof() => return Found::CutOff,
        Err(_) => return Found::Foreign("it is not as vmentry wrote it"),
    };
    let Text { pid, start_ticks, files, command, failed } = text;
    let file = |Before { file, value }: Before| {
        let is_value = !value.is_empty() && value.len() <= MOST_VALUE && !value.contains(['\n', '\0']);
        KernelFile::of_note(roots, &file).filter(|_| is_value).map(|file| (file, value))
    };
    match files.into_iter().map(file).collect::<Option<Vec<_>>>() {
        None => Found::Foreign("it names a file or a value that vmentry never notes"),
        Some(files) => {
            let runs = || read_process(&roots.proc, pid).is_ok_and(|process| process.start_time_ticks == start_ticks);
            // It does not try twice.
            let is_alive = failed.is_none() && runs();
            Found::Note(Note { pid, is_alive, files, command, failed })
        }
    }
}

/// Fails, with the fix, where a setting is switched already or was left behind. A note of values that are in force again is removed, and so
/// is one of files that are gone, which is said.
pub(crate) fn ensure_none(roots: &Roots) -> Result<()> {
    let name = shown(&path(roots));
    match find(roots) {
        Found::Nothing => Ok(()),
        Found::Note(Note { pid, is_alive: true, .. }) => {
            bail!("vmentry (pid {pid}) switches a setting and will restore it, as {name} says\n  -> wait for its end")
        }
        Found::Note(note) if note.is_settled() => {
            if let Some(gone) = note.gone() {
                say!("{gone}: nothing is left to restore, and {name} is removed");
            }
            remove(roots)
        }
        Found::Note(note) => {
            bail!(
                "{}; 'vmentry check' shows which, and {name} notes it\n  -> vmentry ab --restore",
                note.what_happened()
            )
        }
        // Another experiment may be about to write it.
        Found::CutOff => bail!("{name} was cut off before anything was switched\n  -> vmentry ab --restore"),
        Found::Foreign(why) => Err(refusal(&name, why)),
    }
}

/// Why a note is not gone by.
fn refusal(name: &str, why: &str) -> anyhow::Error {
    if why == UNREADABLE {
        return anyhow!("read {name}: {why}\n  -> run as root");
    }
    anyhow!("{name} is no note of vmentry: {why}; nothing was written\n  -> look at it, and remove it")
}

/// Removes the note.
pub(crate) fn remove(roots: &Roots) -> Result<()> {
    match fs::remove_file(path(roots)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", shown(&path(roots))))
        }
        _ => Ok(()),
    }
}

impl Note {
    /// "vmentry (pid 7) ended without restoring a setting", and why if it could say so.
    fn what_happened(&self) -> String {
        match &self.failed {
            None => format!("vmentry (pid {}) ended without restoring a setting", self.pid),
            Some(why) => {
                format!("vmentry (pid {}) could not restore a setting ({})", self.pid, printable(why, MAX_TEXT))
            }
        }
    }

    /// The files that are not there any more; none if all are.
    fn gone(&self) -> Option<String> {
        let gone: Vec<_> = self.files.iter().filter(|(file, _)| file.is_gone()).collect();
        let (first, more) = gone.split_first()?;
        let name = shown(first.0.path());
        Some(if more.is_empty() {
            format!("{name} of an experiment that was not restored is gone")
        } else {
            format!("{name} and {} more of an experiment that was not restored are gone", more.len())
        })
    }

    /// Whether nothing is left to restore, as far as files tell.
    pub(crate) fn is_settled(&self) -> bool {
        let is_back = |(file, value): &(KernelFile, String)| {
            file.is_gone() || file.read().is_ok_and(|content| is_same(&content.now, value))
        };
        self.command.is_none() && self.files.iter().all(is_back)
    }
}

impl Kept {
    /// Writes the note of this process, readable for its user alone; fails if there is one.
    pub(super) fn new(roots: &Roots, files: &[(KernelFile, String)], command: Option<&str>) -> io::Result<Self> {
        let pid = std::process::id();
        let start_ticks = read_process(&roots.proc, pid).map(|process| process.start_time_ticks).unwrap_or(0);
        let before = |(file, value): &(KernelFile, String)| Before { file: file.text().into(), value: value.clone() };
        let command = command.map(|command| printable(command, MAX_TEXT).into_owned());
        let text = Text { pid, start_ticks, files: files.iter().map(before).collect(), command, failed: None };
        let bytes = serde_json::to_vec(&text)?;
        if bytes.len() as u64 > NOTE_BYTES {
            return Err(io::Error::other("the setting has too many files"));
        }
        let path = path(roots);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let written = file.write_all(&bytes);
        let kept = Self { path, file, text };
        written.inspect_err(|_| kept.remove())?;
        Ok(kept)
    }

    /// The note of a command that restores. Without a place for a note the experiment goes on, and the reason is returned.
    pub(crate) fn of_command(roots: &Roots, command: &str) -> Result<Result<Self, io::Error>> {
        ensure_none(roots)?;
        match Self::new(roots, &[], Some(command)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                ensure_none(roots)?;
                bail!("write {}: {error}", shown(&path(roots)))
            }
            kept => Ok(kept),
        }
    }

    /// Notes why the setting could not be restored.
    pub(crate) fn failed(&mut self, why: &str) {
        self.text.failed = Some(printable(why, MAX_TEXT).into_owned());
        // It is longer than before, so that it replaces all of it; where it cannot be written, the note says less.
        let _ = serde_json::to_vec(&self.text).map(|bytes| self.file.write_all_at(&bytes, 0));
    }

    /// Removes the note: the setting is restored.
    pub(crate) fn remove(&self) {
        // Somebody may have removed it already.
        let _ = fs::remove_file(&self.path);
    }
}

/// Fails where the note cannot be trusted; none where there is no note to restore by.
pub(crate) fn to_restore(roots: &Roots) -> Result<Option<Note>> {
    match find(roots) {
        Found::Nothing => Ok(None),
        Found::CutOff => remove(roots).map(|()| None),
        Found::Foreign(why) => Err(refusal(&shown(&path(roots)), why)),
        Found::Note(note) => {
            ensure!(
                !note.is_alive,
                "vmentry (pid {}) runs and will restore the setting\n  -> wait for its end, or end it",
                note.pid
            );
            Ok(Some(note))
        }
    }
}

#[cfg(test)]
mod tests;
