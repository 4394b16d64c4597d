//! Files that the emulator opens through inherited descriptors: those in memory need no cleaning up however things end, and no
//! path can trouble an emulator's option parser.

use anyhow::{Context, Result};
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// A file that child processes inherit.
#[derive(Debug)]
pub struct Inherited(pub File);

impl Inherited {
    /// A file in memory; `name` shows up in /proc only.
    pub fn memory(name: &CStr, content: &[u8]) -> Result<Inherited> {
        // SAFETY: the name is a valid string.
        let descriptor = unsafe { libc::memfd_create(name.as_ptr(), 0) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error()).context("create file in memory");
        }
        // SAFETY: the call above returned this descriptor, and nobody else owns it.
        let mut file = File::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
        file.write_all(content).context("fill file in memory")?;
        Ok(Inherited(file))
    }

    /// A new, empty file on disk.
    pub fn create(path: &Path) -> Result<Inherited> {
        let file = File::create(path).with_context(|| format!("create file {}", path.display()))?;
        // SAFETY: the descriptor is open; without FD_CLOEXEC children inherit it.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) } < 0 {
            return Err(io::Error::last_os_error()).context("pass on file");
        }
        Ok(Inherited(file))
    }

    /// The path under which this process and its children open it.
    pub fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }

    /// Opens it for reading, at a position of its own.
    pub fn reader(&self) -> Result<File> {
        let path = self.path();
        File::open(&path).with_context(|| format!("open file {path}"))
    }
}
