//! Files that are written beside the name that they will have.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::PathBuf,
};

use rustix::fs::{Dir, FlockOperation, Mode, OFlags, flock};

use super::{
    same::{inode_at, inode_of},
    spot::Spot,
};

/// A new file that only its owner may open, which is to take a name in the same folder. Until then it has none, or a hidden one where the
/// file system does not know files without name.
pub(crate) struct Draft {
    file: File,
    /// its own name; none while it has none
    own: Option<Spot>,
}

/// How the hidden names of drafts begin. They end with a process and a number.
const HIDDEN: &str = ".vmentry-draft.";
/// Drafts of one process in one folder, at most, and drafts of others that are looked at for each new one.
const MOST: u32 = 64;
/// Names in a folder that are looked at for each new draft: whoever may write there chooses their number.
const MOST_NAMES: usize = 4096;

impl Draft {
    /// Creates the file, locked, and removes drafts that killed processes have left there.
    pub(crate) fn beside(spot: &Spot) -> io::Result<Self> {
        sweep(spot);
        // /proc, through which such a file gets its name, may be that of other processes.
        let unnamed = spot.create_unnamed().ok().filter(|file| inode_at(&path_of(file)) == inode_of(file));
        if let Some(file) = unnamed {
            return Ok(Self::locked(file, None));
        }
        let mut tries = 0;
        loop {
            let (own, file) = hidden(spot, Spot::create_new)?;
            let draft = Self::locked(file, Some(own));
            tries += 1;
            // Another process may have taken it for a killed one's before it was locked.
            if draft.has_its_name() || tries == MOST {
                return Ok(draft);
            }
        }
    }

    fn locked(file: File, own: Option<Spot>) -> Self {
        // A file system without locks cannot say who else writes.
        let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
        Self { file, own }
    }

    fn has_its_name(&self) -> bool {
        self.own.as_ref().is_none_or(|own| own.inode() == inode_of(&self.file))
    }

    /// The file itself.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file the name that it was begun for, in place of whatever has it.
    pub(crate) fn take_place(&mut self, spot: &Spot) -> io::Result<()> {
        if self.own.is_none() {
            self.own = Some(hidden(spot, |own| own.link(&path_of(&self.file)))?.0);
        }
        if let Some(own) = &self.own {
            own.rename(spot)?;
            self.own = None;
        }
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(own) = &self.own {
            own.remove(&self.file);
        }
    }
}

/// A path of an open file, also of one without a name.
fn path_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// Makes something of a hidden name that is not used yet.
fn hidden<T>(spot: &Spot, make: impl Fn(&Spot) -> io::Result<T>) -> io::Result<(Spot, T)> {
    let mut number = 0;
    loop {
        let own = spot.sibling(format!("{HIDDEN}{}.{number}", std::process::id()).as_ref());
        match make(&own) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && number < MOST => number += 1,
            made => return made.map(|made| (own, made)),
        }
    }
}

/// Removes some of this user's drafts that no process has locked: those of killed processes.
fn sweep(spot: &Spot) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(spot.folder(), ".", flags, Mode::empty());
    let Ok(entries) = folder.and_then(Dir::new) else { return };
    let us = rustix::process::geteuid().as_raw();
    let drafts =
        entries.flatten().take(MOST_NAMES).filter(|entry| entry.file_name().to_bytes().starts_with(HIDDEN.as_bytes()));
    for entry in drafts.take(MOST as usize) {
        let draft = spot.sibling(OsStr::from_bytes(entry.file_name().to_bytes()));
        let Ok(file) = draft.open() else { continue };
        let is_ours = file.metadata().is_ok_and(|m| m.is_file() && m.uid() == us);
        if is_ours && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            draft.remove(&file);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write, path::Path};

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn drafts_of_killed_processes_are_removed_and_those_of_living_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let hidden = |end: &str| dir.join(format!("{HIDDEN}{end}"));
        fs::write(hidden("1.0"), "left").unwrap();
        fs::write(hidden("2.0"), "being written").unwrap();
        let locked = File::open(hidden("2.0")).unwrap();
        flock(&locked, FlockOperation::NonBlockingLockExclusive).unwrap();
        std::os::unix::fs::symlink("/dev/null", hidden("3.0")).unwrap();
        fs::create_dir(hidden("4.0")).unwrap();
        let spot = Spot::of(&dir.join("a")).unwrap();
        let draft = Draft::beside(&spot).unwrap();
        let mut left = names(dir);
        left.retain(|name| name.starts_with(HIDDEN) && !name.contains(&format!(".{}.", std::process::id())));
        left.sort();
        assert_eq!(left, ["2.0", "3.0", "4.0"].map(|end| format!("{HIDDEN}{end}")));
        drop(draft);
        assert_eq!(names(dir).len(), 3);
    }

    #[test]
    fn a_folder_full_of_drafts_costs_a_new_one_little() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let spot = Spot::of(&dir.join("a")).unwrap();
        let count = 3 * MOST as usize;
        (0..count).for_each(|n| fs::write(dir.join(format!("{HIDDEN}1.{n}")), "").unwrap());
        drop(Draft::beside(&spot).unwrap());
        assert_eq!(names(dir).len(), count - MOST as usize);
        (0..2).for_each(|_| drop(Draft::beside(&spot).unwrap()));
        assert_eq!(names(dir).len(), 0);
        (0..MOST_NAMES + 1000).for_each(|n| fs::write(dir.join(format!("b{n}")), "").unwrap());
        sweep(&spot);
        assert_eq!(names(dir).len(), MOST_NAMES + 1000, "names of others stay");
    }

    #[test]
    fn a_draft_with_a_hidden_name_works_as_one_without() {
        let folder = tempfile::tempdir().unwrap();
        let spot = Spot::of(&folder.path().join("a")).unwrap();
        let begun = || {
            let (own, mut file) = hidden(&spot, Spot::create_new).unwrap();
            file.write_all(b"new").unwrap();
            Draft { file, own: Some(own) }
        };
        // Two at a time have two names.
        drop((begun(), begun()));
        assert_eq!(names(folder.path()).len(), 0);
        // One that is swept away before it is locked has no name any more.
        let swept = begun();
        assert!(swept.has_its_name());
        sweep(&spot);
        assert!(!swept.has_its_name());
        begun().take_place(&spot).unwrap();
        assert_eq!((names(folder.path()), fs::read(spot.path()).unwrap()), (vec!["a".into()], b"new".to_vec()));
    }
}
