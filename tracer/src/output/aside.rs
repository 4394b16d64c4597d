//! A file that is kept under another name when a new one takes its own.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Write},
    os::fd::AsRawFd,
    path::Path,
    time::SystemTime,
};

use anyhow::Result;

use super::{files, printable::shown, spot::Spot, streams::say_over_progress};

/// Names that are tried.
const MOST_NAMES: u32 = 100;

/// As [`create`](super::create), but a regular file that is there and not empty is kept: when the first write has been flushed, it gets a
/// name of its own in its folder, that of `path` with `stamp` of the time of its last change before the suffix.
pub(crate) fn create_keeping(path: &Path, stamp: fn(SystemTime) -> String) -> Result<Box<dyn Write + Send>> {
    let spot = files::spot(path)?;
    let Some(old) = spot.open_file().filter(|file| file.metadata().is_ok_and(|metadata| metadata.len() > 0)) else {
        return files::create(path, false);
    };
    let new = files::create(path, true)?;
    Ok(Box::new(Keeping { new, old: Some(Old { file: old, spot, stamp }) }))
}

/// A new file that takes the place of one that is to be kept.
struct Keeping {
    new: Box<dyn Write + Send>,
    /// none once it has a name of its own
    old: Option<Old>,
}

impl Write for Keeping {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.new.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(old) = &self.old {
            old.keep()?;
            self.old = None;
        }
        self.new.flush()
    }
}

/// A file that is to be kept.
struct Old {
    file: File,
    spot: Spot,
    stamp: fn(SystemTime) -> String,
}

impl Old {
    /// Gives the file a second name, which nothing else has.
    fn keep(&self) -> io::Result<()> {
        let path = self.spot.path();
        let failed = |error: io::Error| {
            io::Error::new(
                error.kind(),
                format!("keep {} under another name (-o writes to another file): {error}", shown(path)),
            )
        };
        let changed = (self.stamp)(self.file.metadata().and_then(|metadata| metadata.modified()).map_err(failed)?);
        let from = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        for number in 1..=MOST_NAMES {
            let to = self.spot.sibling(&name(path, &changed, number));
            match to.link(Path::new(&from)) {
                Ok(()) => {
                    say_over_progress(&format!("the last recording is kept as {}", shown(to.path())));
                    return Ok(());
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(failed(e)),
            }
        }
        Err(failed(io::Error::other(format!("there are {MOST_NAMES} of that time"))))
    }
}

/// "vmentry-STAMP.hlog", "vmentry-STAMP-2.hlog" of "vmentry.hlog".
fn name(path: &Path, stamp: &str, number: u32) -> OsString {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{stamp}"));
    if number > 1 {
        name.push(format!("-{number}"));
    }
    if let Some(suffix) = path.extension() {
        name.push(".");
        name.push(suffix);
    }
    name
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn create(path: &Path) -> Result<Box<dyn Write + Send>> {
        create_keeping(path, |_| "T".into())
    }

    fn put(path: &Path, content: &str) {
        let mut file = create(path).unwrap();
        file.write_all(content.as_bytes()).unwrap();
        file.flush().unwrap();
    }

    #[test]
    fn each_file_is_kept_under_a_name_of_its_own_when_the_next_one_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vmentry.hlog");
        let content = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        for text in ["one", "two", "three"] {
            put(&path, text);
        }
        assert_eq!(["vmentry-T.hlog", "vmentry-T-2.hlog", "vmentry.hlog"].map(content), ["one", "two", "three"]);
        // One that never gets anything whole changes nothing.
        let mut unfinished = create(&path).unwrap();
        unfinished.write_all(b"four").unwrap();
        drop(unfinished);
        assert_eq!((content("vmentry.hlog").as_str(), fs::read_dir(&folder).unwrap().count()), ("three", 3));
    }

    #[test]
    fn links_are_refused_and_empty_files_are_used() {
        let folder = tempfile::tempdir().unwrap();
        let [target, link, empty] = ["target", "link", "empty"].map(|name| folder.path().join(name));
        fs::write(&target, "x").unwrap();
        symlink(&target, &link).unwrap();
        assert!(create(&link).is_err() && fs::read_to_string(&target).unwrap() == "x");
        fs::write(&empty, "").unwrap();
        put(&empty, "y");
        assert_eq!((fs::read_to_string(&empty).unwrap().as_str(), fs::read_dir(&folder).unwrap().count()), ("y", 3));
    }

    #[test]
    fn a_file_that_a_process_is_writing_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vmentry.hlog");
        fs::write(&path, "x").unwrap();
        let writer = File::options().write(true).open(&path).unwrap();
        writer.lock().unwrap();
        let error = format!("{:#}", create(&path).err().unwrap());
        assert!(error.contains("is writing it") && path.exists(), "{error}");
    }
}
