//! Writing: files with ordinary permissions that are never reached through a link, and a standard output that may be
//! closed at any time.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use anyhow::{Context, Result, bail};

/// Opens a file to record into. An existing one that holds something is replaced only where `overwrite` says so.
pub fn create(path: &Path, overwrite: bool) -> Result<Box<dyn Write + Send>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdout()));
    }
    let mut options = OpenOptions::new();
    // In a shared folder another user could have put a link there, and this program runs as root.
    // Nor may a FIFO that somebody put there make it wait for a reader.
    options.write(true).create(true).mode(0o644).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file: File = match options.open(path) {
        Ok(file) => file,
        Err(e) if e.raw_os_error() == Some(libc::ELOOP) => {
            bail!("create {}: it is a symbolic link, which is not followed: name the file itself", path.display())
        }
        Err(e) if e.raw_os_error() == Some(libc::ENXIO) => {
            bail!("create {}: it is no ordinary file; '-' writes to standard output", path.display())
        }
        Err(e) => return Err(e).with_context(|| format!("create {}", path.display())),
    };
    let metadata = file.metadata().with_context(|| format!("create {}", path.display()))?;
    if !metadata.is_file() && !metadata.file_type().is_char_device() {
        bail!("create {}: it is no ordinary file; '-' writes to standard output", path.display());
    }
    if metadata.is_file() && metadata.len() > 0 {
        if !overwrite {
            bail!("create {}: it exists and holds something: choose another name or say --overwrite", path.display());
        }
        file.set_len(0).with_context(|| format!("empty {}", path.display()))?;
    }
    Ok(Box::new(file))
}

/// Refuses what [`create`] would refuse because of what is there, and changes nothing.
pub fn refuse(path: &Path, overwrite: bool) -> Result<()> {
    if !overwrite && path.metadata().is_ok_and(|m| m.is_file() && m.len() > 0) {
        bail!("create {}: it exists and holds something: choose another name or say --overwrite", path.display());
    }
    Ok(())
}

/// Whether two names are of one file, also of one that is not there yet.
pub fn is_same(a: &Path, b: &Path) -> bool {
    let place = |path: &Path| {
        let folder = path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some(folder.canonicalize().ok()?.join(path.file_name()?))
    };
    let node = |path: &Path| path.metadata().ok().map(|m| (m.dev(), m.ino()));
    a == b || place(a).is_some_and(|p| place(b) == Some(p)) || node(a).is_some_and(|n| node(b) == Some(n))
}

/// Makes a file that must not be there yet, in one step.
pub fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)
}

/// [`say`] with a format.
#[macro_export]
macro_rules! say {
    ($($part:tt)*) => { $crate::output::say(&format!($($part)*)) };
}

/// Says something to the user on standard error. One that is gone, with its terminal, is no reason to stop.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints to standard output. A reader that has gone away (`| head`) is no error.
pub fn print(text: &str) -> Result<()> {
    print_while_read(text).map(|_| ())
}

/// As [`print`]; false once nobody reads any more.
pub fn print_while_read(text: &str) -> Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        result => result.map(|()| true).context("write to standard output"),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn refusal(path: &Path) -> String {
        create(path, false).err().expect("a refusal").to_string()
    }

    #[test]
    fn nothing_that_was_recorded_is_lost_and_no_link_is_followed() {
        let dir = std::env::temp_dir().join(format!("vmentry-output-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (file, link) = (dir.join("a"), dir.join("link"));
        create(&file, false).unwrap().write_all(b"old").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o133, 0);
        assert!(refusal(&file).contains("--overwrite"));
        assert_eq!(fs::read(&file).unwrap(), b"old");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(refusal(&link).contains("symbolic link"));
        drop(create(&file, true).unwrap());
        assert_eq!(fs::read(&file).unwrap(), b"");
        assert!(is_same(&file, &dir.join("./a")) && is_same(&dir.join("new"), &dir.join(".").join("new")));
        assert!(!is_same(&file, &dir.join("b")));
        fs::hard_link(&file, dir.join("b")).unwrap();
        assert!(is_same(&file, &dir.join("b")));
        assert!(refusal(&dir.join("no/such/folder")).contains("no/such/folder"));
        fs::remove_dir_all(&dir).unwrap();
    }
}
