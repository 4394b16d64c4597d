//! Standard output for data and standard error for messages. Either may be closed at any time.

use std::io::{self, IsTerminal, Write};

use anyhow::{Context, Result};

/// Lets a write beyond the limit of a file's size (RLIMIT_FSIZE) fail with EFBIG, whose cause a command can name, instead of killing this
/// process by SIGXFSZ.
pub fn survive_file_size_limit() {
    // A handler, because commands that this process starts would inherit that the signal is ignored.
    extern "C" fn do_nothing(_: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = do_nothing;
    // SAFETY: the handler does nothing, which is safe at any time; nobody else handles this signal.
    unsafe { libc::signal(libc::SIGXFSZ, handler as libc::sighandler_t) };
}

/// Formats a line and writes it to standard error, like `eprintln!`, but never panics.
#[macro_export]
macro_rules! say {
    ($($part:tt)*) => { $crate::output::say(&format!($($part)*)) };
}

/// Writes a line to standard error. A failure is ignored: a closed terminal is no reason to stop.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Writes a line to standard error, on a terminal in place of a progress line that may be there.
pub(crate) fn say_over_progress(text: &str) {
    if io::stderr().is_terminal() {
        say(&format!("\r\x1b[K{text}"));
    } else {
        say(text);
    }
}

/// Writes to standard output. A closed pipe (`| head`) is no error.
pub fn print(text: &str) -> Result<()> {
    print_while_read(text).map(|_| ())
}

/// Writes to standard output as [`print`] does; returns false once the reader has closed the pipe.
pub(crate) fn print_while_read(text: &str) -> Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        result => result.map(|()| true).context("write to standard output"),
    }
}
