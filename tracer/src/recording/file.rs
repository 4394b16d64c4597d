//! Opens the file of a recording, or says how to get at it.

use std::{fs::File, io, path::Path};

use anyhow::{Result, anyhow, bail};

use crate::{model::suggestion::did_you_mean, output::shown};

/// Names of a folder that are looked at, at most, for one that is alike.
const MOST_NAMES: usize = 10_000;

/// Opens a file for reading; the error has the fix, and the name that was meant.
pub(crate) fn open_file(path: &Path) -> Result<File> {
    let file = File::open(path).map_err(|error| match fix(path, &error) {
        Some(fix) => anyhow!("{error}: {fix}"),
        None => error.into(),
    })?;
    if file.metadata()?.is_dir() {
        bail!("it is a folder: name a file in it");
    }
    Ok(file)
}

fn fix(path: &Path, error: &io::Error) -> Option<String> {
    match error.kind() {
        io::ErrorKind::NotFound => match path.read_link() {
            Ok(to) => Some(format!("it is a link to {}, which is not there", shown(&to))),
            Err(_) => similar(path),
        },
        io::ErrorKind::PermissionDenied => {
            Some(format!("read it as its owner or as root, or let others read it: chmod a+r {}", shown(path)))
        }
        _ => None,
    }
}

/// "did you mean FILE?", with the most alike name in the folder; none if none is alike.
pub(crate) fn similar(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let names = std::fs::read_dir(folder).ok()?.take(MOST_NAMES).flatten();
    // Not a link to nothing.
    let files = names.filter(|entry| entry.path().metadata().is_ok_and(|file| !file.is_dir()));
    // A name that is shown otherwise cannot be typed.
    let typed = files.filter(|entry| entry.file_name().to_str() == Some(&shown(Path::new(&entry.file_name()))));
    let names: Vec<_> = typed.map(|entry| shown(&path.with_file_name(entry.file_name()))).collect();
    // The folder is the same for all, and would make any two names alike.
    let prefix = shown(path).len().saturating_sub(name.len());
    let bare: Vec<_> = names.iter().map(|name| name.get(prefix..).unwrap_or(name)).collect();
    let meant = did_you_mean(name, &bare);
    let meant = bare.iter().position(|name| meant == format!("did you mean {name}? ")).map(|at| &names[at])?;
    Some(format!("did you mean {meant}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_in_the_name_of_a_file_finds_the_file_beside_it_and_another_name_finds_none() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("vmentry.hlog"), "").unwrap();
        std::fs::create_dir(folder.path().join("vmentri.hlo")).unwrap();
        let no_text = std::os::unix::ffi::OsStrExt::from_bytes(b"nu\xff.hlog");
        std::fs::write(folder.path().join(<std::ffi::OsStr>::new::<std::ffi::OsStr>(no_text)), "").unwrap();
        let error = |name: &str| format!("{:#}", open_file(&folder.path().join(name)).unwrap_err());
        let meant = format!("did you mean {}?", shown(&folder.path().join("vmentry.hlog")));
        assert!(error("vmentri.hlog").ends_with(&meant), "{}", error("vmentri.hlog"));
        assert!(!error("nux.hlog").contains("did you mean"), "{}", error("nux.hlog"));
        assert!(!error("zzz").contains("did you mean"), "{}", error("zzz"));
        std::os::unix::fs::symlink("gone.hlog", folder.path().join("vmentrx.hlog")).unwrap();
        assert!(error("vmentrx.hlog").ends_with("it is a link to gone.hlog, which is not there"));
        assert!(error("vmentrz.hlog").ends_with(&meant), "{}", error("vmentrz.hlog"));
        assert!(error("vmentri.hlo").contains("it is a folder"), "{}", error("vmentri.hlo"));
        assert!(open_file(&folder.path().join("vmentry.hlog")).is_ok());
    }
}
