//! Which recordings are read together: each counts once, and each moment of it, whichever files have it.

use std::collections::HashMap;

use anyhow::{Result, ensure};

use super::{coverage::Spans, header::Header, provenance::Provenance};

/// Whether two headers are of one recording: of one boot, and begun at one moment.
pub(crate) fn is_same(a: &Header, b: &Header) -> bool {
    (&a.host.boot_id, a.anchor) == (&b.host.boot_id, b.anchor)
}

/// Files of a recording at most: each interval is held against all of them.
const MOST_FILES: usize = 256;

/// What was read of every recording.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readings {
    /// by what [`is_same`] compares: index of the recording
    known: HashMap<(String, u64, u64), usize>,
    /// by recording: the time that each of its files covers
    of: Vec<Vec<Spans>>,
}

/// One of the files of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// index of the recording
    pub(crate) recording: usize,
    /// 0 for the first file of that recording
    pub(crate) file: usize,
}

impl Readings {
    /// Begins to read a recording from another file; a recording that is not among `recordings` is added there.
    pub(crate) fn begin(&mut self, recordings: &mut Vec<Provenance>, source: Provenance) -> Result<Reading> {
        let identity =
            |Header { host, anchor, .. }: &Header| (host.boot_id.clone(), anchor.monotonic_ns, anchor.unix_ns);
        for (at, recording) in recordings.iter().enumerate().skip(self.known.len()) {
            self.known.entry(identity(&recording.header)).or_insert(at);
        }
        let recording = *self.known.entry(identity(&source.header)).or_insert_with(|| {
            recordings.push(source);
            recordings.len() - 1
        });
        self.of.resize_with(self.of.len().max(recordings.len()), Vec::new);
        let files = &mut self.of[recording];
        ensure!(files.len() < MOST_FILES, "{} is in more than {MOST_FILES} files", recordings[recording].name);
        files.push(Spans::default());
        Ok(Reading { recording, file: files.len() - 1 })
    }

    /// Whether an interval counts, because no other file had a part of it.
    pub(crate) fn admit(&mut self, reading: Reading, start_unix_ns: u64, length_ns: u64) -> bool {
        let files = &mut self.of[reading.recording];
        let mut others = files.iter().enumerate().filter(|(at, _)| *at != reading.file);
        let is_new = !others.any(|(_, spans)| spans.overlaps(start_unix_ns, length_ns));
        if is_new {
            files[reading.file].add(start_unix_ns, length_ns);
        }
        is_new
    }
}
