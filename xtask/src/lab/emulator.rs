//! A running emulator: its process, and a pseudo-terminal for it. The process never outlives this program.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read, Seek},
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStrExt, fs::OpenOptionsExt, process::CommandExt},
    },
    process::{Child, Command, ExitStatus},
    thread,
};

use anyhow::{Context, Result};
use rustix::{
    fs::OFlags,
    process::{Pid, Signal, getpid, getppid, kill_process_group, set_parent_process_death_signal, setsid},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};

use crate::lab::{console::set_raw, inherited::Inherited};

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
        let open = || {
            let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
            grantpt(&near)?;
            unlockpt(&near)?;
            let name = ptsname(&near, Vec::new())?;
            let mut options = File::options();
            options.read(true).write(true).custom_flags(OFlags::NOCTTY.bits().cast_signed());
            let far = options.open(OsStr::from_bytes(name.as_bytes()))?;
            set_raw(&far)?;
            io::Result::Ok(Terminal { near: File::from(near), far })
        };
        open().context("open pseudo-terminal")
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
        let parent = getpid();
        // SAFETY: between fork and exec, only async-signal-safe functions are called, and nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                // With a session, and so a process group, of its own, the emulator does not get the user's Ctrl-C.
                setsid()?;
                set_parent_process_death_signal(Some(Signal::KILL))?;
                // The parent may have died before the line above.
                if getppid() != Some(parent) {
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
            // `start` made the child the leader of a process group.
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn a_pseudo_terminal_passes_on_every_byte_unchanged() {
        let Terminal { mut near, mut far } = Terminal::open().unwrap();
        let mut bytes = [0; 5];
        near.write_all(b"\r\n\x03\x04\x1d").unwrap();
        far.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"\r\n\x03\x04\x1d");
        far.write_all(b"a\nb\r\x1b").unwrap();
        near.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"a\nb\r\x1b");
    }

    #[test]
    fn the_path_of_a_pseudo_terminal_leads_to_its_far_end() {
        let mut terminal = Terminal::open().unwrap();
        let path = terminal.path().unwrap();
        assert!(path.starts_with("/dev/pts/"), "{path}");
        terminal.near.write_all(b"x").unwrap();
        let mut byte = [0];
        File::open(path).unwrap().read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    fn wait(emulator: &mut Emulator) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = emulator.ended().unwrap() {
                return status;
            }
            assert!(start.elapsed() < Duration::from_secs(20));
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn an_emulator_has_a_terminal_a_session_and_a_last_message() {
        let mut command = Command::new("sh");
        // Field 6 of stat is the session.
        let script =
            "test -t 0 && test -t 1 && test $(cut -d' ' -f6 /proc/$$/stat) = $$ || exit 1; echo last words >&2; exit 3";
        command.args(["-c", script]);
        let mut emulator = Emulator::start(command).unwrap();
        assert_eq!(wait(&mut emulator).code(), Some(3));
        assert_eq!(emulator.complaint(), ": last words");
    }

    #[test]
    fn a_dropped_emulator_ends_with_its_whole_process_group() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & echo $! >$0; wait"]).arg(file.path());
        let emulator = Emulator::start(command).unwrap();
        let start = Instant::now();
        let pid = loop {
            let text = std::fs::read_to_string(file.path()).unwrap();
            if text.ends_with('\n') {
                break text;
            }
            assert!(start.elapsed() < Duration::from_secs(20));
            thread::sleep(Duration::from_millis(5));
        };
        drop(emulator);
        let is_running = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        while is_running() {
            assert!(start.elapsed() < Duration::from_secs(20));
            thread::sleep(Duration::from_millis(5));
        }
    }
}
