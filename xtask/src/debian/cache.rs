//! The cache between runs: unpacked packages, and everything derived from them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// Folders of unfinished cache entries are named by this, the process id and a random suffix.
const PARTIAL: &str = ".partial-";

/// The cache's folder: `$XDG_CACHE_HOME/vmentry`, or `~/.cache/vmentry`.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(std::env::var_os("HOME").context("find cache folder: set HOME or XDG_CACHE_HOME")?)
            .join(".cache"),
    };
    Ok(cache.join("vmentry"))
}

/// Returns the path `name` in the cache. If it does not exist yet, `make` creates it in an empty folder and returns the
/// path that is renamed to `name`, so that no process sees an unfinished entry.
pub(crate) fn cached(name: &str, make: impl FnOnce(&Path) -> Result<PathBuf>) -> Result<PathBuf> {
    let cache = cache_dir()?;
    let path = cache.join(name);
    if path.exists() {
        return Ok(path);
    }
    let parent = path.parent().unwrap_or(&cache);
    fs::create_dir_all(parent).with_context(|| format!("create folder {}", parent.display()))?;
    let partial = partial(&cache)?;
    let made = make(partial.path())?;
    match fs::rename(&made, &path) {
        // Another process has made the same entry meanwhile.
        Err(_) if path.exists() => Ok(path),
        result => result.map(|()| path).with_context(|| format!("rename {}", made.display())),
    }
}

/// Creates an empty folder that is removed when dropped, and removes those of processes that were killed.
fn partial(cache: &Path) -> Result<TempDir> {
    for entry in fs::read_dir(cache).with_context(|| format!("read folder {}", cache.display()))?.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PARTIAL)?.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let prefix = format!("{PARTIAL}{}-", std::process::id());
    let folder = tempfile::Builder::new().prefix(&prefix).tempdir_in(cache);
    folder.with_context(|| format!("create folder in {}", cache.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_killed_processes_are_removed_and_those_of_living_ones_stay() {
        let cache = tempfile::tempdir().unwrap();
        let (dead, alive) = (format!("{PARTIAL}4194305-x"), format!("{PARTIAL}{}-x", std::process::id()));
        for name in [dead.as_str(), &alive, "packages"] {
            fs::create_dir(cache.path().join(name)).unwrap();
        }
        let own = partial(cache.path()).unwrap().path().to_owned();
        assert!(own.starts_with(cache.path()) && !own.exists(), "dropped with its value");
        assert!(!cache.path().join(dead).exists());
        assert!(cache.path().join(alive).exists() && cache.path().join("packages").exists());
    }
}
