//! A command line that is found to be wrong after it was parsed, because its arguments do not fit each other or the files.

use std::{fmt, path::Path};

use crate::output;

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

/// Refuses the command line.
pub(crate) fn refuse<T>(reason: impl Into<String>) -> anyhow::Result<T> {
    Err(WrongCommandLine(reason.into()).into())
}
