//! Whether two names are those of one file: by device and inode, so that links and /proc/self/fd are noticed.

use std::{
    fs::{File, Metadata},
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::Path,
};

/// Whether two paths name the same file, which need not exist yet.
pub(crate) fn is_same_file(a: &Path, b: &Path) -> bool {
    let canonical = |path: &Path| {
        let folder = path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some(folder.canonicalize().ok()?.join(path.file_name()?))
    };
    a == b
        || canonical(a).is_some_and(|p| canonical(b) == Some(p))
        || inode_at(a).is_some_and(|n| inode_at(b) == Some(n))
}

/// Whether a file that is read is the one that is written. `-` is standard input, and standard output. Terminals, pipes and devices may
/// be both.
pub(crate) fn is_both(read: &Path, written: &Path) -> bool {
    let of = |path: &Path, standard: fn() -> Option<Metadata>| {
        if path == Path::new("-") { standard() } else { path.metadata().ok() }
    };
    let read = of(read, || stream(io::stdin())).filter(Metadata::is_file);
    let written = of(written, || stream(io::stdout()));
    read.zip(written).is_some_and(|(read, written)| inode(&read) == inode(&written))
}

/// The name of the standard stream that goes to this file, if one does.
pub(super) fn is_standard_stream(file: &Metadata) -> Option<&'static str> {
    let goes_to = |stream: Option<Metadata>| stream.is_some_and(|stream| inode(&stream) == inode(file));
    let streams = [(stream(io::stdout()), "standard output"), (stream(io::stderr()), "standard error")];
    streams.into_iter().find_map(|(stream, name)| goes_to(stream).then_some(name))
}

fn stream(stream: impl AsFd) -> Option<Metadata> {
    File::from(stream.as_fd().try_clone_to_owned().ok()?).metadata().ok()
}

/// A file system and a number in it, which all names of a file have in common.
pub(super) type Inode = (u64, u64);

fn inode(metadata: &Metadata) -> Inode {
    (metadata.dev(), metadata.ino())
}

/// The inode of an open file.
pub(super) fn inode_of(file: &File) -> Option<Inode> {
    file.metadata().ok().map(|m| inode(&m))
}

/// The inode of the file at a path.
pub(super) fn inode_at(path: &Path) -> Option<Inode> {
    path.metadata().ok().map(|m| inode(&m))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::fd::AsRawFd};

    use super::*;

    #[test]
    fn a_file_is_known_by_all_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let (file, hard, soft) = (dir.join("a"), dir.join("hard"), dir.join("soft"));
        fs::write(&file, "").unwrap();
        fs::write(dir.join("b"), "").unwrap();
        fs::hard_link(&file, &hard).unwrap();
        std::os::unix::fs::symlink(&file, &soft).unwrap();
        let open = File::open(&file).unwrap();
        let by_descriptor = format!("/proc/self/fd/{}", open.as_raw_fd()).into();
        for name in [&hard, &soft, &by_descriptor, &dir.join("./a"), &file] {
            assert!(is_same_file(&file, name) && is_both(name, &file) && is_both(&file, name), "{name:?}");
        }
        assert!(!is_same_file(&file, &dir.join("b")) && !is_both(&file, &dir.join("b")));
        // A name that is not used yet.
        assert!(is_same_file(&dir.join("new"), &dir.join(".").join("new")));
        assert!(!is_both(&dir.join("new"), &dir.join("new")), "nothing is read");
        assert!(!is_both(Path::new("/dev/null"), Path::new("/dev/null")), "a device may be both");
    }
}
