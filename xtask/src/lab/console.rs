//! Makes the user's terminal the console of a machine.

use std::{
    fs::File,
    io::{self, IsTerminal, Read, Write},
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, Result, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr},
};

/// Key that ends the connection, as in telnet: Ctrl-].
const ESCAPE: u8 = 0x1d;
/// Longest wait for input or output: a tenth of a second.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Sets a terminal to raw mode, in which it passes on every byte unchanged, and returns its former settings.
pub(crate) fn set_raw(terminal: impl AsFd) -> io::Result<Termios> {
    let before = tcgetattr(&terminal)?;
    let mut raw = before.clone();
    raw.make_raw();
    tcsetattr(&terminal, OptionalActions::Flush, &raw)?;
    Ok(before)
}

/// The user's terminal in raw mode, with its former settings.
#[derive(Debug)]
pub(crate) struct Console {
    // Not io::stdin(), because poll does not see bytes in its buffer.
    keyboard: File,
    before: Termios,
}

static STOPPED: AtomicBool = AtomicBool::new(false);

extern "C" fn stop(_: libc::c_int) {
    STOPPED.store(true, Ordering::Relaxed);
}

impl Console {
    /// Takes over the terminal until dropped. From then on, signals that would end the program only set a flag.
    pub(crate) fn open() -> Result<Console> {
        let keyboard = File::from(io::stdin().as_fd().try_clone_to_owned().context("open terminal")?);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            let handler = stop as extern "C" fn(libc::c_int);
            // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
            unsafe { libc::signal(signal, handler as libc::sighandler_t) };
        }
        let before = set_raw(&keyboard).context("set terminal to raw mode")?;
        Ok(Console { keyboard, before })
    }

    /// Returns the terminal's lines and columns. Fails if there is no terminal.
    pub(crate) fn size() -> Result<(u16, u16)> {
        ensure!(
            io::stdin().is_terminal() && io::stdout().is_terminal(),
            "open console: stdin and stdout must be a terminal; to run a script, pass it after --"
        );
        let size = tcgetwinsize(io::stdin()).ok().filter(|size| size.ws_row > 0);
        Ok(size.map_or((24, 80), |size| (size.ws_row, size.ws_col)))
    }

    /// Passes on input and output for up to a tenth of a second. Returns false if the user has ended the connection.
    pub(crate) fn exchange(&mut self, machine: &mut File) -> Result<bool> {
        let mut ready = [&self.keyboard, &*machine].map(|file| PollFd::new(file, PollFlags::IN));
        // An error is a signal, whose handler has set the flag.
        if !matches!(poll(&mut ready, Some(&WAIT)), Ok(1..)) {
            return Ok(!STOPPED.load(Ordering::Relaxed));
        }
        let [typed, printed] = ready.map(|file| file.revents());
        let mut bytes = [0; 4096];
        if !typed.is_empty() {
            let length = self.keyboard.read(&mut bytes).context("read from terminal")?;
            if length == 0 || bytes[..length].contains(&ESCAPE) {
                return Ok(false);
            }
            machine.write_all(&bytes[..length]).context("write to the machine's console")?;
        }
        if printed.contains(PollFlags::IN) {
            let length = machine.read(&mut bytes).context("read from the machine's console")?;
            let mut stdout = io::stdout().lock();
            stdout.write_all(&bytes[..length]).and_then(|()| stdout.flush()).context("write to terminal")?;
        }
        Ok(true)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.keyboard, OptionalActions::Flush, &self.before);
    }
}
