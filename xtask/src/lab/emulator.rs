//! A running emulator: its process and the terminal that it believes to have. It never outlives this program.

use crate::lab::inherited::Inherited;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::{ptr, thread};

/// A pseudo-terminal.
#[derive(Debug)]
pub struct Terminal {
    /// This program's end.
    pub near: File,
    /// The end that looks like a terminal.
    pub far: File,
}

impl Terminal {
    /// Opens a pseudo-terminal that passes bytes on as they are.
    pub fn open() -> Result<Terminal> {
        let (mut near, mut far) = (-1, -1);
        // SAFETY: both descriptors are valid places to write to; the other arguments may be null.
        if unsafe { libc::openpty(&mut near, &mut far, ptr::null_mut(), ptr::null(), ptr::null()) } < 0 {
            return Err(io::Error::last_os_error()).context("open pseudo-terminal");
        }
        for descriptor in [near, far] {
            // SAFETY: the descriptor was opened above.
            unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
        // SAFETY: openpty returned the descriptors and nobody else owns them.
        let owned = |descriptor| File::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
        let terminal = Terminal { near: owned(near), far: owned(far) };
        super::console::set_raw(terminal.far.as_raw_fd()).context("set up pseudo-terminal")?;
        Ok(terminal)
    }

    /// The path of the far end.
    pub fn path(&self) -> Result<String> {
        let path = format!("/proc/self/fd/{}", self.far.as_raw_fd());
        let path = std::fs::read_link(&path).with_context(|| format!("read link {path}"))?;
        Ok(path.to_string_lossy().into_owned())
    }
}

/// An emulator's process.
#[derive(Debug)]
pub struct Emulator {
    child: Child,
    stderr: File,
}

impl Emulator {
    /// Starts an emulator on a terminal of its own that nobody looks at.
    pub fn start(mut command: Command) -> Result<Emulator> {
        let Terminal { mut near, far } = Terminal::open()?;
        let stderr = Inherited::memory(c"stderr", b"")?.0;
        command.stdin(far.try_clone()?).stdout(far).stderr(stderr.try_clone()?);
        let parent = std::process::id();
        // SAFETY: all calls are async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                // A session, and so a process group, of its own: the user's Ctrl-C is for this program only.
                if libc::setsid() < 0 || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0 {
                    return Err(io::Error::last_os_error());
                }
                // The parent may have died before the prctl.
                if libc::getppid().unsigned_abs() != parent {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                Ok(())
            });
        }
        let child = command.spawn().with_context(|| format!("run {}", command.get_program().display()))?;
        thread::spawn(move || {
            let mut screen = [0; 4096];
            while matches!(near.read(&mut screen), Ok(1..)) {}
        });
        Ok(Emulator { child, stderr })
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("wait for emulator")
    }

    /// The end of what it wrote to stderr, after a colon; nothing if it was silent.
    pub fn complaint(&mut self) -> String {
        let mut stderr = Vec::new();
        // Without a complaint the exit status has to do.
        let _ = self.stderr.rewind().and_then(|()| self.stderr.read_to_end(&mut stderr));
        let stderr = String::from_utf8_lossy(&stderr);
        // Bochs frames its last words with lines of ====.
        let lines: Vec<_> = stderr.lines().filter(|line| !line.starts_with("==")).collect();
        match lines[lines.len().saturating_sub(2)..].join(" ") {
            silence if silence.is_empty() => silence,
            complaint => format!(": {complaint}"),
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // SAFETY: a signal to the process group that `start` made of the child, which has not been waited for.
            unsafe { libc::kill(-(self.child.id() as i32), libc::SIGKILL) };
            let _ = self.child.wait();
        }
    }
}
