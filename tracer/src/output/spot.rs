//! A name in a folder that is held open: if somebody moves or replaces the folder meanwhile, nothing is created, renamed or removed
//! elsewhere. Symbolic links on the way to the folder are followed, the name itself never.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{AtFlags, Mode, OFlags};

use super::same::{Inode, inode_at, inode_of};

/// Permissions of what is created: a recording has names of VMs and command lines.
const OWNERS: Mode = Mode::RUSR.union(Mode::WUSR);

/// A name in a folder.
#[derive(Clone)]
pub(crate) struct Spot {
    folder: Arc<OwnedFd>,
    name: OsString,
    path: PathBuf,
}

impl Spot {
    /// Opens the folder of `path`.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_owned();
        let folder = path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { folder: Arc::new(folder), name, path: path.to_owned() })
    }

    /// Another name in the same folder.
    pub(crate) fn sibling(&self, name: &OsStr) -> Self {
        Self { folder: Arc::clone(&self.folder), name: name.to_owned(), path: self.path.with_file_name(name) }
    }

    /// The path as it was given.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Creates a file that only its owner may open; fails if there is anything of this name.
    pub(super) fn create_new(&self) -> io::Result<File> {
        self.open_with(OFlags::CREATE | OFlags::EXCL)
    }

    /// Opens what is there for writing, without waiting for anybody.
    pub(super) fn open(&self) -> io::Result<File> {
        self.open_with(OFlags::NONBLOCK | OFlags::NOCTTY)
    }

    /// Opens the regular file that is there for reading, without waiting for anybody; none where there is something else.
    pub(crate) fn open_file(&self) -> Option<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file: File = rustix::fs::openat(&*self.folder, &self.name, flags, Mode::empty()).ok()?.into();
        file.metadata().is_ok_and(|metadata| metadata.is_file()).then_some(file)
    }

    fn open_with(&self, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&*self.folder, &self.name, flags, OWNERS)?.into())
    }

    /// Creates a file without a name in the folder, which a killed process leaves no trace of; not every file system can.
    pub(super) fn create_unnamed(&self) -> io::Result<File> {
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&*self.folder, ".", flags, OWNERS)?.into())
    }

    /// The inode of what is there; none where nothing is.
    pub(super) fn inode(&self) -> Option<Inode> {
        let stat = rustix::fs::statat(&*self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some((stat.st_dev, stat.st_ino))
    }

    /// Whether it is a name in this folder, and nothing has it yet.
    pub(super) fn is_new_in(&self, folder: &Path) -> bool {
        let is_in = rustix::fs::fstat(&*self.folder).is_ok_and(|s| inode_at(folder) == Some((s.st_dev, s.st_ino)));
        is_in && self.inode().is_none()
    }

    /// Gives the name to what `from` names, a symbolic link to it is followed.
    pub(super) fn link(&self, from: &Path) -> io::Result<()> {
        Ok(rustix::fs::linkat(rustix::fs::CWD, from, &*self.folder, &self.name, AtFlags::SYMLINK_FOLLOW)?)
    }

    /// Moves what is here to another name, in place of whatever has it.
    pub(super) fn rename(&self, to: &Self) -> io::Result<()> {
        Ok(rustix::fs::renameat(&*self.folder, &self.name, &to.folder, &to.name)?)
    }

    /// The folder, which is open only as a place.
    pub(super) fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// Removes the name if it still is that of `file`.
    pub(super) fn remove(&self, file: &File) {
        if inode_of(file) == self.inode() {
            let _ = rustix::fs::unlinkat(&*self.folder, &self.name, AtFlags::empty());
        }
    }
}
