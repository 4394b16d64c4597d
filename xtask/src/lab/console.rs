//! The user's terminal as the console of a machine.

use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Ends the connection, as in telnet: Ctrl-].
pub const ESCAPE: u8 = 0x1d;

/// Makes a terminal pass every byte on as it is; returns how it was.
pub fn set_raw(terminal: RawFd) -> io::Result<libc::termios> {
    let mut before = MaybeUninit::uninit();
    // SAFETY: the pointer is valid for writes of a termios.
    if unsafe { libc::tcgetattr(terminal, before.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: tcgetattr succeeded and filled it in.
    let before = unsafe { before.assume_init() };
    let mut raw = before;
    // SAFETY: the pointer is to an initialised termios.
    unsafe { libc::cfmakeraw(&mut raw) };
    restore(terminal, &raw)?;
    Ok(before)
}

fn restore(terminal: RawFd, settings: &libc::termios) -> io::Result<()> {
    // SAFETY: the pointer is to an initialised termios.
    match unsafe { libc::tcsetattr(terminal, libc::TCSAFLUSH, settings) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The user's terminal in raw mode, and what to restore it to.
#[derive(Debug)]
pub struct Console {
    // Not io::stdin(): what that has buffered, poll does not see.
    keyboard: File,
    before: libc::termios,
}

static STOPPED: AtomicBool = AtomicBool::new(false);

extern "C" fn stop(_: libc::c_int) {
    STOPPED.store(true, Ordering::Relaxed);
}

impl Console {
    /// Takes the terminal over until dropped; signals that would end the program are then only noted.
    pub fn open() -> Result<Console> {
        let keyboard = File::from(io::stdin().as_fd().try_clone_to_owned().context("open terminal")?);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            let handler = stop as extern "C" fn(libc::c_int);
            // SAFETY: the handler only stores to an atomic.
            unsafe { libc::signal(signal, handler as libc::sighandler_t) };
        }
        let before = set_raw(libc::STDIN_FILENO).context("set terminal to raw mode")?;
        Ok(Console { keyboard, before })
    }

    /// The terminal's lines and columns; an error when there is no terminal.
    pub fn size() -> Result<(u16, u16)> {
        ensure!(
            io::stdin().is_terminal() && io::stdout().is_terminal(),
            "open console: stdin and stdout have to be a terminal; to run a script, give it after --"
        );
        let mut size = MaybeUninit::<libc::winsize>::zeroed();
        // SAFETY: the pointer is valid for writes of a winsize.
        let result = unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCGWINSZ, size.as_mut_ptr()) };
        // SAFETY: zeros are a valid winsize if the call has not filled it in.
        let size = unsafe { size.assume_init() };
        Ok(if result == 0 && size.ws_row > 0 { (size.ws_row, size.ws_col) } else { (24, 80) })
    }

    /// Passes on what was typed and printed within a tenth of a second; false when the user is through with it.
    pub fn exchange(&mut self, machine: &mut File) -> Result<bool> {
        let mut ready =
            [libc::STDIN_FILENO, machine.as_raw_fd()].map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
        // SAFETY: the pointer and the length are those of the array.
        let count = unsafe { libc::poll(ready.as_mut_ptr(), ready.len() as libc::nfds_t, 100) };
        if count <= 0 {
            return Ok(!STOPPED.load(Ordering::Relaxed));
        }
        let mut bytes = [0; 4096];
        if ready[0].revents != 0 {
            let length = self.keyboard.read(&mut bytes).context("read from terminal")?;
            if length == 0 || bytes[..length].contains(&ESCAPE) {
                return Ok(false);
            }
            machine.write_all(&bytes[..length]).context("write to the machine's console")?;
        }
        if ready[1].revents & libc::POLLIN != 0 {
            let length = machine.read(&mut bytes).context("read from the machine's console")?;
            let mut stdout = io::stdout().lock();
            stdout.write_all(&bytes[..length]).and_then(|()| stdout.flush()).context("write to terminal")?;
        }
        Ok(true)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = restore(libc::STDIN_FILENO, &self.before);
    }
}
