//! The files that single events are written to, and the refusals that must come before anything is opened.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, bail};

use super::trigger::Trigger;

use crate::output::shown;

/// Traces that one flight recorder writes at most.
pub(super) const MAX_TRACES: u32 = 8;

/// The files to write single events to.
pub struct TracePlan {
    /// the trace, or the first one of a flight recorder, whose further ones are numbered
    pub path: PathBuf,
    /// whether existing files may be replaced
    pub overwrite: bool,
    /// writes only the events before a trigger; none for all events
    pub flight_recorder: Option<FlightOptions>,
}

/// The trigger of a flight recorder, and the time before it to write.
#[derive(Clone, Debug)]
pub struct FlightOptions {
    /// the events that it waits for
    pub trigger: Trigger,
    /// the time before the trigger that it writes
    pub span: Duration,
}

impl FlightOptions {
    /// `span` in ns.
    pub(super) fn span_ns(&self) -> u64 {
        u64::try_from(self.span.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl TracePlan {
    /// The files that may be written.
    pub(crate) fn files(&self) -> impl Iterator<Item = PathBuf> {
        (1..=if self.flight_recorder.is_some() { MAX_TRACES } else { 1 }).map(|number| numbered(&self.path, number))
    }

    /// Fails where opening the files would fail because of what exists. A flight recorder opens its files late, and the
    /// recording of the same command must not have been replaced before such a failure.
    pub fn check(&self) -> Result<()> {
        let name = shown(&self.path);
        if self.path == Path::new("-") {
            return Ok(());
        }
        let folder = self.path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            bail!("--events {name}: there is no folder {}", shown(folder));
        }
        for path in self.files() {
            let Ok(found) = path.symlink_metadata() else { continue };
            if found.is_symlink() {
                bail!("--events {name}: {} is a symbolic link, which is not followed", shown(&path));
            }
            if found.is_file() && found.len() > 0 && !self.overwrite {
                bail!("--events {name}: {} exists: choose another name or use --overwrite", shown(&path));
            }
        }
        Ok(())
    }
}

/// The path of a flight recorder's trace, by its number from 1: "a.pftrace", "a-2.pftrace", ...
pub(super) fn numbered(path: &Path, number: u32) -> PathBuf {
    if number < 2 {
        return path.into();
    }
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{number}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_traces_are_numbered_before_the_extension() {
        assert_eq!(numbered(Path::new("/a/b.pftrace"), 1), Path::new("/a/b.pftrace"));
        assert_eq!(numbered(Path::new("/a/b.pftrace"), 3), Path::new("/a/b-3.pftrace"));
        assert_eq!(numbered(Path::new("b"), 2), Path::new("b-2"));
    }
}
