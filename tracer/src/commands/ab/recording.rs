//! The recording of an experiment.

use std::{io::Write, path::Path};

use anyhow::{Context, Result};

use crate::{
    model::interval::Interval,
    output,
    recording::{End, Header, Label, Writer},
};

/// The recording, whose file takes its place when the first VM has entered. Until then whatever had its name stays, and if no VM enters,
/// for good.
pub(super) struct Recording {
    writer: Writer<Box<dyn Write + Send>>,
    /// intervals without entries before the first one with some; none once there was one
    before: Option<Vec<(Interval, Option<Label>)>>,
    name: String,
}

impl Recording {
    /// Claims the name. Fails if it must not be written to, or if a reader would refuse the header.
    pub(super) fn new(path: &Path, overwrite: bool, header: &Header) -> Result<Self> {
        let name = output::shown(path);
        let writer = Writer::new(output::create(path, overwrite)?, header).with_context(|| format!("write {name}"))?;
        Ok(Self { writer, before: Some(Vec::new()), name })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether any entry was recorded, so that the file is there.
    pub(super) fn has_begun(&self) -> bool {
        self.before.is_none()
    }

    /// Writes an interval: that of a window, or one between windows.
    pub(super) fn write(&mut self, interval: &Interval, window: Option<Label>) -> Result<()> {
        if let Some(before) = &mut self.before {
            if interval.totals.entries == 0 {
                before.push((interval.clone(), window));
                return Ok(());
            }
            for (interval, window) in self.before.take().into_iter().flatten() {
                self.append(&interval, window)?;
            }
        }
        self.append(interval, window)
    }

    fn append(&mut self, interval: &Interval, window: Option<Label>) -> Result<()> {
        self.writer.write_window(interval, window).with_context(|| format!("write {}", self.name))
    }

    /// Writes the last line.
    pub(super) fn finish(self, end: End) -> Result<()> {
        if !self.has_begun() {
            return Ok(());
        }
        self.writer.finish(end).with_context(|| format!("write {}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        model::{
            accounting::Accounting,
            interval::tests::{event, vm},
        },
        recording::{Reader, tests::header},
    };

    /// Records two intervals, of which the second has so many entries, over a file that exists; returns what is there afterwards.
    fn recorded(entries: u64, folder: &Path) -> Vec<u8> {
        let path = folder.join("ab.hlog");
        fs::write(&path, "precious").unwrap();
        let mut recording = Recording::new(&path, true, &header()).unwrap();
        let mut interval = |start_ns, entries| {
            let mut interval = Interval { length_ns: 5, ..Interval::starting(start_ns) };
            for _ in 0..entries {
                interval.record(&event(0, 10, 1000, 0), &vm(0));
                (interval.totals.entries, interval.totals.delivered) = (entries, entries);
            }
            recording.write(&interval, Some(Label { arm: 0, round: 0, place: 0 })).unwrap();
        };
        interval(0, 0);
        interval(5, entries);
        let accounting = Accounting { exact: true, ..Accounting::default() };
        let end = End { reason: "x".into(), accounting, tsc_khz: None, policy_changed: false, other_tracers: None };
        recording.finish(end).unwrap();
        fs::read(path).unwrap()
    }

    #[test]
    fn what_was_there_stays_unless_a_vm_enters() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(recorded(0, folder.path()), b"precious");
        let mut reader = Reader::new(&*recorded(3, folder.path()).leak()).unwrap();
        let of = |interval: Option<Interval>| interval.map(|interval| interval.totals.entries);
        let intervals = [(); 3].map(|()| of(reader.read_interval().unwrap()));
        assert_eq!(intervals, [Some(0), Some(3), None], "the windows before the first entry are in it");
    }

    #[test]
    fn no_empty_file_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        drop(Recording::new(&folder.path().join("ab.hlog"), false, &header()).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
