//! Makes the user's terminal the console of a machine.

use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Key that ends the connection, as in telnet: Ctrl-].
pub(crate) const ESCAPE: u8 = 0x1d;

/// Sets a terminal to raw mode, in which it passes on every byte unchanged, and returns its former settings.
pub(crate) fn set_raw(terminal: RawFd) -> io::Result<libc::termios> {
    let mut before = MaybeUninit::uninit();
    // SAFETY: tcgetattr writes a termios, for which the pointer is valid.
    if unsafe { libc::tcgetattr(terminal, before.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: tcgetattr succeeded, so it has initialized the whole termios.
    let before = unsafe { before.assume_init() };
    let mut raw = before;
    // SAFETY: cfmakeraw changes the termios behind the pointer, which is initialized and ours alone.
    unsafe { libc::cfmakeraw(&mut raw) };
    restore(terminal, &raw)?;
    Ok(before)
}

fn restore(terminal: RawFd, settings: &libc::termios) -> io::Result<()> {
    // SAFETY: tcsetattr only reads the termios behind the reference.
    match unsafe { libc::tcsetattr(terminal, libc::TCSAFLUSH, settings) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The user's terminal in raw mode, with its former settings.
#[derive(Debug)]
pub(crate) struct Console {
    // Not io::stdin(), because poll does not see bytes in its buffer.
    keyboard: File,
    before: libc::termios,
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
        let before = set_raw(libc::STDIN_FILENO).context("set terminal to raw mode")?;
        Ok(Console { keyboard, before })
    }

    /// Returns the terminal's lines and columns. Fails if there is no terminal.
    pub(crate) fn size() -> Result<(u16, u16)> {
        ensure!(
            io::stdin().is_terminal() && io::stdout().is_terminal(),
            "open console: stdin and stdout must be a terminal; to run a script, pass it after --"
        );
        let mut size = MaybeUninit::<libc::winsize>::zeroed();
        // SAFETY: TIOCGWINSZ writes a winsize, for which the pointer is valid.
        let result = unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCGWINSZ, size.as_mut_ptr()) };
        // SAFETY: all bytes are initialized: by zeroed(), or by the call if it succeeded; winsize has no invalid
        // values.
        let size = unsafe { size.assume_init() };
        Ok(if result == 0 && size.ws_row > 0 { (size.ws_row, size.ws_col) } else { (24, 80) })
    }

    /// Passes on input and output for up to a tenth of a second. Returns false if the user has ended the connection.
    pub(crate) fn exchange(&mut self, machine: &mut File) -> Result<bool> {
        let mut ready =
            [libc::STDIN_FILENO, machine.as_raw_fd()].map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
        // SAFETY: pointer and length describe the array, which outlives the call.
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
