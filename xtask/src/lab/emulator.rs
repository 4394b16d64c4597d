//! A running emulator: its process, and a pseudo-terminal for it. The process never outlives this program.

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
pub(crate) struct Terminal {
    /// This program's end.
    pub(crate) near: File,
    /// The end that looks like a terminal.
    pub(crate) far: File,
}

impl Terminal {
    /// Opens a pseudo-terminal in raw mode.
    pub(crate) fn open() -> Result<Terminal> {
        let (mut near, mut far) = (-1, -1);
        // SAFETY: openpty writes the two descriptors, for which the pointers are valid; the other arguments may be
        // null.
        if unsafe { libc::openpty(&mut near, &mut far, ptr::null_mut(), ptr::null(), ptr::null()) } < 0 {
            return Err(io::Error::last_os_error()).context("open pseudo-terminal");
        }
        for descriptor in [near, far] {
            // SAFETY: fcntl only changes a flag of a descriptor that openpty has opened.
            unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
        // SAFETY: openpty returned these open descriptors, and nothing else owns them.
        let owned = |descriptor| File::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
        let terminal = Terminal { near: owned(near), far: owned(far) };
        super::console::set_raw(terminal.far.as_raw_fd()).context("set up pseudo-terminal")?;
        Ok(terminal)
    }

    /// Returns the path of the far end.
    pub(crate) fn path(&self) -> Result<String> {
        let path = format!("/proc/self/fd/{}", self.far.as_raw_fd());
        let path = std::fs::read_link(&path).with_context(|| format!("read link {path}"))?;
        Ok(path.to_string_lossy().into_owned())
    }
}

/// An emulator's process.
#[derive(Debug)]
pub(crate) struct Emulator {
    child: Child,
    stderr: File,
}

impl Emulator {
    /// Starts an emulator on a pseudo-terminal of its own, whose output is discarded.
    pub(crate) fn start(mut command: Command) -> Result<Emulator> {
        let Terminal { mut near, far } = Terminal::open()?;
        let stderr = Inherited::memory(c"stderr", b"")?.0;
        command.stdin(far.try_clone()?).stdout(far).stderr(stderr.try_clone()?);
        let parent = std::process::id();
        // SAFETY: between fork and exec, only async-signal-safe functions are called, and nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                // With a session, and so a process group, of its own, the emulator does not get the user's Ctrl-C.
                if libc::setsid() < 0 || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0 {
                    return Err(io::Error::last_os_error());
                }
                // The parent may have died before the call to prctl.
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

    /// Returns the exit status, if the emulator has ended.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("wait for emulator")
    }

    /// Returns the end of its stderr after a colon, or nothing if stderr is empty.
    pub(crate) fn complaint(&mut self) -> String {
        let mut stderr = Vec::new();
        // Without stderr, the error has the exit status only.
        let _ = self.stderr.rewind().and_then(|()| self.stderr.read_to_end(&mut stderr));
        let stderr = String::from_utf8_lossy(&stderr);
        // Bochs prints its last message between lines of ====.
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
            // SAFETY: kill touches no memory of ours. The child has not been waited for, so its id is still that of the
            // process group that `start` made.
            unsafe { libc::kill(-self.child.id().cast_signed(), libc::SIGKILL) };
            let _ = self.child.wait();
        }
    }
}
