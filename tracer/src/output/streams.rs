//! Standard output for data and standard error for messages. Either may be closed at any time.

use std::{
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::retry_on_intr,
};

use super::printable::message;

/// How long a message may wait for a terminal that is held (Ctrl-S) or a pipe that nobody reads. Then it is left out: commands
/// that catch the ending signals must not hang in a message.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long the terminal may take nothing when it is given back.
const TERMINAL_PATIENCE: Duration = Duration::from_secs(1);
/// Bytes that a pipe takes at once if it takes any (PIPE_BUF).
const AT_ONCE: usize = 4096;

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

/// Writes a message to standard error, without control characters but for its line ends. A failure is ignored: a closed terminal is no
/// reason to stop.
pub fn say(text: &str) {
    say_after("", text);
}

fn say_after(clear: &str, text: &str) {
    let _ = write_within(&mut io::stderr(), format!("{clear}{}\n", message(text)).as_bytes(), PATIENCE);
}

/// Writes to standard error if that is possible at once, else not at all: for a progress line, of which the next one says more.
pub(crate) fn show(text: &str) {
    let _ = write_within(&mut io::stderr(), text.as_bytes(), Duration::ZERO);
}

/// Writes to the terminal that is standard output, unless it takes nothing.
pub(crate) fn write_to_terminal(bytes: &[u8]) -> io::Result<()> {
    write_within(&mut io::stdout(), bytes, TERMINAL_PATIENCE)
}

/// Writes all bytes, waiting at most `patience` for room each time.
fn write_within(out: &mut (impl Write + AsFd), bytes: &[u8], patience: Duration) -> io::Result<()> {
    let timeout = Timespec::try_from(patience).map_err(io::Error::other)?;
    for part in bytes.chunks(AT_ONCE) {
        let ready = retry_on_intr(|| poll(&mut [PollFd::new(&out.as_fd(), PollFlags::OUT)], Some(&timeout)))?;
        if ready == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        out.write_all(part)?;
    }
    out.flush()
}

/// Writes a line to standard error, on a terminal in place of a progress line that may be there.
pub(crate) fn say_over_progress(text: &str) {
    say_after(if io::stderr().is_terminal() { "\r\x1b[K" } else { "" }, text);
}

/// Writes to standard output. A closed pipe (`| head`) is no error.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("write to standard output"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_message_does_not_wait_for_a_pipe_that_nobody_reads() {
        let (_reader, mut pipe) = io::pipe().unwrap();
        write_within(&mut pipe, b"first", Duration::ZERO).unwrap();
        let started = Instant::now();
        let error = write_within(&mut pipe, &vec![0; 1 << 20], Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}
