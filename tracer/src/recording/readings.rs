//! Which recordings are read together: each counts once, and each moment of it, whichever files have it.

use super::{coverage::Spans, header::Header, provenance::Provenance};

/// Whether two headers are of one recording: of one boot, and begun at one moment.
pub(crate) fn is_same(a: &Header, b: &Header) -> bool {
    (&a.host.boot_id, a.anchor) == (&b.host.boot_id, b.anchor)
}

/// What was read of every recording.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readings {
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
    pub(crate) fn begin(&mut self, recordings: &mut Vec<Provenance>, source: Provenance) -> Reading {
        let known = recordings.iter().position(|known| is_same(&known.header, &source.header));
        let recording = known.unwrap_or_else(|| {
            recordings.push(source);
            recordings.len() - 1
        });
        self.of.resize_with(self.of.len().max(recordings.len()), Vec::new);
        self.of[recording].push(Spans::default());
        Reading { recording, file: self.of[recording].len() - 1 }
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
