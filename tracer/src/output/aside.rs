//! A file that is kept under another name, so that a new one can have its own.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, Result, bail};

use super::{files, printable::shown};

/// Names that are tried.
const MOST_NAMES: u32 = 100;

/// Moves a regular file that has anything in it to a name of its own in its folder: that of `path` with `stamp` of the time of its last
/// change before the suffix. Returns the new path; none where there is no such file. Fails while a process is writing it.
pub(crate) fn set_aside(path: &Path, stamp: impl Fn(SystemTime) -> String) -> Result<Option<PathBuf>> {
    let spot = files::spot(path)?;
    let Some(old) = spot.open_file() else { return Ok(None) };
    let failed = || format!("keep {} under another name (-o names another file)", shown(path));
    let metadata = old.metadata().with_context(failed)?;
    if metadata.len() == 0 {
        return Ok(None);
    }
    files::lock(&old, &spot)?;
    let changed = stamp(metadata.modified().with_context(failed)?);
    for number in 1..=MOST_NAMES {
        let to = spot.sibling(&name(path, &changed, number));
        match spot.rename_to_new(&to) {
            Ok(()) => return Ok(Some(to.path().to_owned())),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e).with_context(failed),
        }
    }
    bail!("{}: there are {MOST_NAMES} of that time", failed())
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
    use std::{
        fs::{self, File},
        os::unix::fs::symlink,
    };

    use super::*;

    fn aside(path: &Path) -> Result<Option<PathBuf>> {
        set_aside(path, |_| "T".into())
    }

    #[test]
    fn a_file_is_kept_under_a_new_name_each_time_and_nothing_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vmentry.hlog");
        assert_eq!(aside(&path).unwrap(), None);
        for (content, kept) in [("one", "vmentry-T.hlog"), ("two", "vmentry-T-2.hlog"), ("three", "vmentry-T-3.hlog")] {
            fs::write(&path, content).unwrap();
            assert_eq!(aside(&path).unwrap(), Some(folder.path().join(kept)));
            assert!(!path.exists());
            assert_eq!(fs::read_to_string(folder.path().join(kept)).unwrap(), content);
        }
        assert_eq!(fs::read_to_string(folder.path().join("vmentry-T.hlog")).unwrap(), "one");
    }

    #[test]
    fn links_empty_files_and_folders_stay_where_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let [target, link, empty] = ["target", "link", "empty"].map(|name| folder.path().join(name));
        fs::write(&target, "x").unwrap();
        symlink(&target, &link).unwrap();
        fs::write(&empty, "").unwrap();
        for path in [&link, &empty, &folder.path().to_owned()] {
            assert_eq!(aside(path).unwrap(), None, "{}", shown(path));
        }
        assert!(link.is_symlink() && target.exists() && empty.exists());
    }

    #[test]
    fn a_file_that_a_process_is_writing_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vmentry.hlog");
        fs::write(&path, "x").unwrap();
        let writer = File::options().write(true).open(&path).unwrap();
        writer.lock().unwrap();
        let error = format!("{:#}", aside(&path).unwrap_err());
        assert!(error.contains("is writing it") && path.exists(), "{error}");
    }
}
