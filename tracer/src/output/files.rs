//! Files that only their owner may read, that never come through a symbolic link, never over existing content unasked, and never from two
//! processes at once. What exists is never written into: a new file takes its name when the first part of it is whole.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::Path,
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::{fs::FlockOperation, io::Errno};

use super::{
    draft::Draft,
    printable::shown,
    refusals::{explain, is_kernels, is_mount_point},
    same::{inode_of, is_standard_stream},
    spot::Spot,
    sudo,
};

/// Opens a file for writing and locks it while it is open; `-` is standard output. A file that is not empty is replaced only with
/// `overwrite`, and when the first write has been flushed: whatever fails until then leaves it as it was. A file that was created here is
/// removed again if it gets nothing.
pub(crate) fn create(path: &Path, overwrite: bool) -> Result<Box<dyn Write + Send>> {
    if path == Path::new("-") { Ok(Box::new(standard_output()?)) } else { create_at(spot(path)?, overwrite) }
}

/// As [`create`], in a folder that is open already.
pub(crate) fn create_at(spot: Spot, overwrite: bool) -> Result<Box<dyn Write + Send>> {
    Ok(match claim(spot, overwrite)? {
        Claim::Device(file) => Box::new(file),
        Claim::New(spot, file) => Box::new(Growing { file, place: Place::Empty(spot) }),
        Claim::Old(spot, old) => {
            let new = Replacement::begin(spot, old, false)?;
            Box::new(Growing { file: new.file()?, place: Place::Beside(new) })
        }
    })
}

/// The folder and name of a file to create.
pub(crate) fn spot(path: &Path) -> Result<Spot> {
    Spot::of(path).map_err(|e| failed(path, &e))
}

fn failed(path: &Path, error: &io::Error) -> anyhow::Error {
    anyhow!("create {}: {}", shown(path), explain(path, error))
}

/// Standard output, not through the library's buffer: a write is one write, and a thread that blocks in it keeps no lock.
fn standard_output() -> Result<File> {
    Ok(io::stdout().as_fd().try_clone_to_owned().context("write to standard output")?.into())
}

/// A name that this process may write to.
enum Claim {
    Device(File),
    /// created here: locked and empty
    New(Spot, File),
    /// was there before: locked
    Old(Spot, File),
}

fn claim(spot: Spot, overwrite: bool) -> Result<Claim> {
    if spot.is_new_in(Path::new("/dev")) {
        bail!(
            "create {}: /dev is for devices, and there is none of this name: choose another folder",
            shown(spot.path())
        );
    }
    // In a shared folder another user may have placed anything: what was not created here is looked at before it is believed.
    match spot.create_new() {
        Ok(file) => {
            sudo::give(&file);
            lock(&file, &spot)?;
            Ok(Claim::New(spot, file))
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => claim_old(spot, overwrite),
        Err(e) => Err(failed(spot.path(), &e)),
    }
}

fn claim_old(spot: Spot, overwrite: bool) -> Result<Claim> {
    let name = shown(spot.path());
    let old = match spot.open() {
        Ok(old) => old,
        Err(e) => match e.raw_os_error() {
            Some(libc::ELOOP) => bail!("create {name}: symbolic links are not followed: name the file itself"),
            Some(libc::ENXIO) => bail!("create {name}: {NO_FILE}"),
            Some(libc::ENOENT) => bail!("create {name}: another process has just removed it: try again"),
            _ => return Err(failed(spot.path(), &e)),
        },
    };
    let metadata = old.metadata().with_context(|| format!("create {name}"))?;
    if metadata.file_type().is_char_device() {
        return Ok(Claim::Device(old));
    }
    if !metadata.is_file() {
        bail!("create {name}: {NO_FILE}");
    }
    if is_kernels(&old) {
        bail!("create {name}: it is an interface of the kernel and no file: choose another name");
    }
    if let Some(stream) = is_standard_stream(&metadata) {
        bail!("create {name}: {stream} goes to this file: choose another name, or use - for standard output");
    }
    lock(&old, &spot)?;
    if metadata.len() > 0 && !overwrite {
        bail!("create {name}: it exists and is not empty: choose another name or use --overwrite");
    }
    if !overwrite && !sudo::is_own(metadata.uid()) {
        bail!(
            "create {name}: it is an empty file that belongs to user {}: choose another name, or use --overwrite to put a new file in its \
             place",
            metadata.uid()
        );
    }
    if is_mount_point(&old) {
        bail!("create {name}: something is mounted there, so that no new file can take its place: {ELSEWHERE}");
    }
    Ok(Claim::Old(spot, old))
}

const NO_FILE: &str = "it is not a regular file; use - for standard output";
const ELSEWHERE: &str = "choose another name, or write to it by -o - > FILE";

/// A file that grows under its name: whole parts of it are flushed.
struct Growing {
    file: File,
    place: Place,
}

/// Where a file is whose first part is not whole yet.
enum Place {
    /// under its name, where it was created
    Empty(Spot),
    Beside(Replacement),
    /// no longer of interest: the first part is whole
    Taken,
}

impl Write for Growing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()?;
        match std::mem::replace(&mut self.place, Place::Taken) {
            Place::Beside(new) => new.take_place(),
            Place::Empty(_) | Place::Taken => Ok(()),
        }
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        if let Place::Empty(spot) = &self.place {
            spot.remove(&self.file);
        }
    }
}

/// A new file that will replace an old one, which stays until then.
struct Replacement {
    draft: Draft,
    /// keeps others from writing what is to be replaced
    old: File,
    spot: Spot,
    /// the old file is an empty one that was created to hold the name
    is_new: bool,
    taken: bool,
}

impl Replacement {
    fn begin(spot: Spot, old: File, is_new: bool) -> Result<Self> {
        let path = spot.path();
        let draft = Draft::beside(&spot).map_err(|e| {
            let why = explain(path, &e);
            anyhow!(
                "create {}: in its folder no new file can be made, which would replace it: {why}; {ELSEWHERE}",
                shown(path)
            )
        })?;
        sudo::give(draft.file());
        Ok(Self { draft, old, spot, is_new, taken: false })
    }

    fn file(&self) -> Result<File> {
        self.draft.file().try_clone().with_context(|| format!("create {}", shown(self.spot.path())))
    }

    /// Puts the new file in the old one's place, unless another file has come there meanwhile.
    fn take_place(mut self) -> io::Result<()> {
        // The last moment at which a disk may say that it has no room.
        self.draft.file().sync_data()?;
        let there = self.spot.inode();
        if there.is_some() && there != inode_of(&self.old) {
            return Err(io::Error::other("another process has put a file in its place meanwhile: that one is kept"));
        }
        self.draft.take_place(&self.spot)?;
        self.taken = true;
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if self.is_new && !self.taken {
            self.spot.remove(&self.old);
        }
    }
}

/// A file that takes its place only when it is complete: until then whatever was there stays.
pub(crate) struct WholeFile {
    out: File,
    /// none of standard output and devices
    new: Option<Replacement>,
}

impl WholeFile {
    /// Begins a file that will replace `path`, with the checks and the lock of [`create`].
    pub(crate) fn create(path: &Path, overwrite: bool) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Self { out: standard_output()?, new: None });
        }
        let new = match claim(spot(path)?, overwrite)? {
            Claim::Device(out) => return Ok(Self { out, new: None }),
            Claim::New(spot, file) => Replacement::begin(spot, file, true)?,
            Claim::Old(spot, file) => Replacement::begin(spot, file, false)?,
        };
        Ok(Self { out: new.file()?, new: Some(new) })
    }

    /// Puts the file, which is complete, in its place.
    pub(crate) fn take_place(self) -> io::Result<()> {
        self.new.map_or(Ok(()), Replacement::take_place)
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Locks a file until it is closed; fails if another process has locked it or replaced it.
pub(crate) fn lock(file: &File, spot: &Spot) -> Result<()> {
    let name = shown(spot.path());
    // A file system without locks cannot say who else writes.
    if let Err(Errno::WOULDBLOCK) = rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        let holder = holder(file).map_or("another process".into(), |pid| format!("process {pid}"));
        bail!("create {name}: {holder} is writing it: wait for its end, or choose another name");
    }
    if inode_of(file) != spot.inode() {
        bail!("create {name}: another process has just replaced it: try again");
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

/// Creates a file that everybody may read, and fails if it already exists.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)
}

#[cfg(test)]
mod tests;
