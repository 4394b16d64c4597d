//! A command line that is found to be wrong after it was parsed, because its arguments do not fit each other or the files.

use std::fmt;

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

/// Refuses the command line.
pub(crate) fn refuse<T>(reason: impl Into<String>) -> anyhow::Result<T> {
    Err(WrongCommandLine(reason.into()).into())
}
