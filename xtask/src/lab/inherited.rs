//! Files that an emulator opens through inherited descriptors. Files in memory need no removal however the run ends,
//! and no path can confuse an emulator's option parser.

use anyhow::{Context, Result};
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// A file that child processes inherit.
#[derive(Debug)]
pub(crate) struct Inherited(pub(crate) File);

impl Inherited {
    /// Creates a file in memory; `name` is visible in /proc only.
    pub(crate) fn memory(name: &CStr, content: &[u8]) -> Result<Inherited> {
        // SAFETY: the pointer is to a string that ends with a zero and outlives the call.
        let descriptor = unsafe { libc::memfd_create(name.as_ptr(), 0) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error()).context("create file in memory");
        }
        // SAFETY: memfd_create returned this open descriptor, and nothing else owns it.
        let mut file = File::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
        file.write_all(content).context("fill file in memory")?;
        Ok(Inherited(file))
    }

    /// Creates an empty file on disk.
    pub(crate) fn create(path: &Path) -> Result<Inherited> {
        let file = File::create(path).with_context(|| format!("create file {}", path.display()))?;
        // SAFETY: fcntl only changes a flag of a descriptor that `file` holds open. Without FD_CLOEXEC, children
        // inherit it.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) } < 0 {
            return Err(io::Error::last_os_error()).context("pass on file");
        }
        Ok(Inherited(file))
    }

    /// Returns the path by which this process and its children open the file.
    pub(crate) fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }

    /// Opens the file for reading, with its own position.
    pub(crate) fn reader(&self) -> Result<File> {
        let path = self.path();
        File::open(&path).with_context(|| format!("open file {path}"))
    }
}
