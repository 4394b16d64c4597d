//! Files that are created with ordinary permissions, never through a symbolic link, never over existing content unasked, and never by
//! two processes at once.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use rustix::{
    fs::{AtFlags, CWD, FlockOperation, Mode, OFlags},
    io::Errno,
};

use super::{printable::shown, refusals::explain};

/// Opens a file for writing and locks it while it is open; `-` is standard output. A file that is not empty is replaced only with
/// `overwrite`, and not before the first write: whatever fails until then leaves it as it was.
pub(crate) fn create(path: &Path, overwrite: bool) -> Result<Box<dyn Write + Send>> {
    Ok(match open(path, overwrite)? {
        Opened::Stream(stream) => stream,
        Opened::File(file) => Box::new(Replaced { file, has_old_content: true }),
    })
}

enum Opened {
    Stream(Box<dyn Write + Send>),
    /// locked; its old content is still there
    File(File),
}

fn open(path: &Path, overwrite: bool) -> Result<Opened> {
    if path == Path::new("-") {
        // Not through the library's buffer: a write is one write, and a thread that blocks in it keeps no lock.
        let stdout = io::stdout().as_fd().try_clone_to_owned().context("write to standard output")?;
        return Ok(Opened::Stream(Box::new(File::from(stdout))));
    }
    let mut options = OpenOptions::new();
    // This program runs as root: in a shared folder another user could place a symbolic link, which would redirect the
    // write, or a FIFO, which would block it until somebody reads.
    options.write(true).create(true).mode(0o644).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file: File = match options.open(path) {
        Ok(file) => file,
        Err(e) if e.raw_os_error() == Some(libc::ELOOP) => {
            bail!("create {}: symbolic links are not followed: name the file itself", shown(path))
        }
        Err(e) if e.raw_os_error() == Some(libc::ENXIO) => {
            bail!("create {}: it is not a regular file; use - for standard output", shown(path))
        }
        Err(e) => bail!("create {}: {}", shown(path), explain(path, &e)),
    };
    let metadata = file.metadata().with_context(|| format!("create {}", shown(path)))?;
    if metadata.file_type().is_char_device() {
        return Ok(Opened::Stream(Box::new(file)));
    }
    if !metadata.is_file() {
        bail!("create {}: it is not a regular file; use - for standard output", shown(path));
    }
    lock(&file, path)?;
    if metadata.len() > 0 && !overwrite {
        bail!("create {}: it exists and is not empty: choose another name or use --overwrite", shown(path));
    }
    Ok(Opened::File(file))
}

/// A file whose old content goes when the new one comes.
struct Replaced {
    file: File,
    has_old_content: bool,
}

impl Write for Replaced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.has_old_content {
            self.file.set_len(0)?;
            self.has_old_content = false;
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Locks a file until it is closed; fails if another process has locked it or replaced it.
pub(crate) fn lock(file: &File, path: &Path) -> Result<()> {
    // A file system without locks cannot say who else writes.
    if let Err(Errno::WOULDBLOCK) = rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        let holder = holder(file).map_or("another process".into(), |pid| format!("process {pid}"));
        bail!("create {}: {holder} is writing it: wait for its end, or choose another name", shown(path));
    }
    let inode = |metadata: io::Result<Metadata>| metadata.ok().map(|m| (m.dev(), m.ino()));
    if inode(file.metadata()) != inode(path.symlink_metadata()) {
        bail!("create {}: another process has just replaced it: try again", shown(path));
    }
    Ok(())
}

/// Most bytes of /proc/locks that are looked through: any process may hold any number of locks.
const MOST_OF_LOCKS: u64 = 1 << 20;

/// The process that has locked a file, from /proc/locks; none if this cannot be known.
fn holder(file: &File) -> Option<i32> {
    let metadata = file.metadata().ok()?;
    let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    let inode = format!("{major:02x}:{minor:02x}:{}", metadata.ino());
    // "1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF"
    let locks = BufReader::new(File::open("/proc/locks").ok()?.take(MOST_OF_LOCKS));
    locks.lines().map_while(Result::ok).find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let is_of_file = fields.get(1) == Some(&"FLOCK") && fields.get(5) == Some(&inode.as_str());
        // 0 is a process outside of this one's PID namespace.
        fields.get(4).filter(|_| is_of_file)?.parse().ok().filter(|pid| *pid > 0)
    })
}

/// A file that takes its place only when it is complete: until then whatever was there stays.
pub(crate) struct Draft {
    out: Box<dyn Write + Send>,
    /// none of standard output and devices
    place: Option<Place>,
}

/// The place of a draft.
struct Place {
    path: PathBuf,
    /// beside `path`
    draft: PathBuf,
    file: File,
    /// keeps others from writing what is to be replaced
    _old: File,
    /// nothing was there before
    is_new: bool,
    taken: bool,
}

impl Draft {
    /// Begins a file that will replace `path`, with the checks and the lock of [`create`].
    pub(crate) fn create(path: &Path, overwrite: bool) -> Result<Self> {
        let is_new = path.symlink_metadata().is_err();
        let old = match open(path, overwrite)? {
            Opened::Stream(out) => return Ok(Self { out, place: None }),
            Opened::File(old) => old,
        };
        let failed = || format!("create a file beside {}", shown(path));
        let draft = draft_beside(path);
        // A killed process of the same id may have left its draft.
        let _ = fs::remove_file(&draft);
        let file = match unnamed(path) {
            Ok(file) => file,
            Err(_) => create_new(&draft).with_context(failed)?,
        };
        let out = Box::new(file.try_clone().with_context(failed)?);
        Ok(Self { out, place: Some(Place { path: path.to_owned(), draft, file, _old: old, is_new, taken: false }) })
    }

    /// Puts the file, which is complete, in its place.
    pub(crate) fn take_place(mut self) -> io::Result<()> {
        self.out.flush()?;
        let Some(place) = &mut self.place else { return Ok(()) };
        if place.file.metadata()?.nlink() == 0 {
            let unnamed = format!("/proc/self/fd/{}", place.file.as_raw_fd());
            rustix::fs::linkat(CWD, unnamed, CWD, &place.draft, AtFlags::SYMLINK_FOLLOW)?;
        }
        fs::rename(&place.draft, &place.path)?;
        place.taken = true;
        Ok(())
    }
}

/// The name of a file beside `path` that will replace it: hidden, and this process's own.
pub(crate) fn draft_beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", std::process::id()))
}

/// A file without a name in the folder of `path`, so that a killed process leaves nothing; not every file system has them.
fn unnamed(path: &Path) -> rustix::io::Result<File> {
    let folder = path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::open(folder, flags, Mode::from_raw_mode(0o644)).map(File::from)
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.taken {
            let _ = fs::remove_file(&self.draft);
            if self.is_new {
                let _ = fs::remove_file(&self.path);
            }
        }
    }
}

/// Fails where [`create`] would because the file exists, without creating or changing anything.
pub(crate) fn refuse_existing(path: &Path, overwrite: bool) -> Result<()> {
    if !overwrite && path.metadata().is_ok_and(|m| m.is_file() && m.len() > 0) {
        bail!("create {}: it exists and is not empty: choose another name or use --overwrite", shown(path));
    }
    Ok(())
}

/// Whether two paths name the same file, which need not exist yet.
pub(crate) fn is_same_file(a: &Path, b: &Path) -> bool {
    let canonical = |path: &Path| {
        let folder = path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some(folder.canonicalize().ok()?.join(path.file_name()?))
    };
    let inode = |path: &Path| path.metadata().ok().map(|m| (m.dev(), m.ino()));
    a == b || canonical(a).is_some_and(|p| canonical(b) == Some(p)) || inode(a).is_some_and(|n| inode(b) == Some(n))
}

/// Creates a file and fails if it already exists.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn refusal(path: &Path) -> String {
        create(path, false).err().expect("a refusal").to_string()
    }

    #[test]
    fn existing_content_is_kept_and_no_symbolic_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let (file, link) = (dir.join("a"), dir.join("link"));
        create(&file, false).unwrap().write_all(b"old").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o133, 0);
        assert!(refusal(&file).contains("--overwrite"));
        assert_eq!(fs::read(&file).unwrap(), b"old");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(refusal(&link).contains("symbolic link"));
        drop(create(&file, true).unwrap());
        assert_eq!(fs::read(&file).unwrap(), b"old", "nothing was written");
        create(&file, true).unwrap().write_all(b"new").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert!(is_same_file(&file, &dir.join("./a")) && is_same_file(&dir.join("new"), &dir.join(".").join("new")));
        assert!(!is_same_file(&file, &dir.join("b")));
        fs::hard_link(&file, dir.join("b")).unwrap();
        assert!(is_same_file(&file, &dir.join("b")));
        assert!(refusal(&dir.join("no/such/folder")).contains("no/such/folder"));
    }
    #[test]
    fn a_file_that_is_being_written_is_refused_and_the_writer_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        let mut first = create(&file, true).unwrap();
        first.write_all(b"first").unwrap();
        let me = std::process::id().to_string();
        for overwrite in [false, true] {
            let refusal = create(&file, overwrite).err().unwrap().to_string();
            assert!(refusal.contains("is writing it") && refusal.contains(&me), "{refusal}");
            assert!(Draft::create(&file, overwrite).is_err());
        }
        assert_eq!(fs::read(&file).unwrap(), b"first");
        drop(first);
        drop(create(&file, true).unwrap());
        // A file in whose place another one has come would be lost.
        let gone = File::create(folder.path().join("b")).unwrap();
        fs::rename(&file, folder.path().join("b")).unwrap();
        assert!(lock(&gone, &folder.path().join("b")).unwrap_err().to_string().contains("replaced"));
    }

    #[test]
    fn a_draft_replaces_a_file_only_when_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        fs::write(&old, "old").unwrap();
        assert!(Draft::create(&old, false).is_err());
        for file in [&old, &new] {
            let mut draft = Draft::create(file, true).unwrap();
            draft.write_all(b"half").unwrap();
        }
        assert_eq!(fs::read(&old).unwrap(), b"old");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing else is left");
        for file in [&old, &new] {
            let mut draft = Draft::create(file, true).unwrap();
            draft.write_all(b"whole").unwrap();
            draft.take_place().unwrap();
            assert_eq!(fs::read(file).unwrap(), b"whole");
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o133, 0);
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
    }
}
