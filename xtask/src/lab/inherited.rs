//! Files that an emulator opens through inherited descriptors. Files in memory need no removal however the run ends,
//! and no path can confuse an emulator's option parser.

use std::{ffi::CStr, fs::File, io::Write, os::fd::AsRawFd, path::Path};

use anyhow::{Context, Result};
use rustix::{
    fs::{MemfdFlags, memfd_create},
    io::{FdFlags, fcntl_setfd},
};

/// A file that child processes inherit.
#[derive(Debug)]
pub(crate) struct Inherited(pub(crate) File);

impl Inherited {
    /// Creates a file in memory; `name` is visible in /proc only.
    pub(crate) fn memory(name: &CStr, content: &[u8]) -> Result<Inherited> {
        let file = memfd_create(name, MemfdFlags::empty()).context("create file in memory")?;
        let mut file = File::from(file);
        file.write_all(content).context("fill file in memory")?;
        Ok(Inherited(file))
    }

    /// Creates an empty file on disk.
    pub(crate) fn create(path: &Path) -> Result<Inherited> {
        let file = File::create(path).with_context(|| format!("create file {}", path.display()))?;
        // Without FD_CLOEXEC, children inherit the file.
        fcntl_setfd(&file, FdFlags::empty()).context("pass on file")?;
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

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    #[test]
    fn a_child_opens_an_inherited_file_by_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let on_disk = Inherited::create(&folder.path().join("f")).unwrap();
        let in_memory = Inherited::memory(c"m", b"content\n").unwrap();
        let mut copy = Command::new("cp");
        assert!(copy.args([in_memory.path(), on_disk.path()]).status().unwrap().success());
        assert_eq!(fs::read(folder.path().join("f")).unwrap(), b"content\n");
    }
}
