//! Files that are created with ordinary permissions, never through a symbolic link, and never over existing content unasked.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::Path,
};

use anyhow::{Context, Result, bail};

use super::refusals::explain;

/// Opens a file for writing; `-` is standard output. A file that is not empty is replaced only with `overwrite`.
pub(crate) fn create(path: &Path, overwrite: bool) -> Result<Box<dyn Write + Send>> {
    if path == Path::new("-") {
        // Not through the library's buffer: a write is one write, and a thread that blocks in it keeps no lock.
        let stdout = io::stdout().as_fd().try_clone_to_owned().context("write to standard output")?;
        return Ok(Box::new(File::from(stdout)));
    }
    let mut options = OpenOptions::new();
    // This program runs as root: in a shared folder another user could place a symbolic link, which would redirect the
    // write, or a FIFO, which would block it until somebody reads.
    options.write(true).create(true).mode(0o644).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file: File = match options.open(path) {
        Ok(file) => file,
        Err(e) if e.raw_os_error() == Some(libc::ELOOP) => {
            bail!("create {}: symbolic links are not followed: name the file itself", path.display())
        }
        Err(e) if e.raw_os_error() == Some(libc::ENXIO) => {
            bail!("create {}: it is not a regular file; use - for standard output", path.display())
        }
        Err(e) => bail!("create {}: {}", path.display(), explain(path, &e)),
    };
    let metadata = file.metadata().with_context(|| format!("create {}", path.display()))?;
    if !metadata.is_file() && !metadata.file_type().is_char_device() {
        bail!("create {}: it is not a regular file; use - for standard output", path.display());
    }
    if metadata.is_file() && metadata.len() > 0 {
        if !overwrite {
            bail!("create {}: it exists and is not empty: choose another name or use --overwrite", path.display());
        }
        file.set_len(0).with_context(|| format!("empty {}", path.display()))?;
    }
    Ok(Box::new(file))
}

/// Fails where [`create`] would because the file exists, without creating or changing anything.
pub(crate) fn refuse_existing(path: &Path, overwrite: bool) -> Result<()> {
    if !overwrite && path.metadata().is_ok_and(|m| m.is_file() && m.len() > 0) {
        bail!("create {}: it exists and is not empty: choose another name or use --overwrite", path.display());
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
        assert_eq!(fs::read(&file).unwrap(), b"");
        assert!(is_same_file(&file, &dir.join("./a")) && is_same_file(&dir.join("new"), &dir.join(".").join("new")));
        assert!(!is_same_file(&file, &dir.join("b")));
        fs::hard_link(&file, dir.join("b")).unwrap();
        assert!(is_same_file(&file, &dir.join("b")));
        assert!(refusal(&dir.join("no/such/folder")).contains("no/such/folder"));
    }
}
