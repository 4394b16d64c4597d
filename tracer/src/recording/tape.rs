//! A recording that is played: interval after interval, with jumps to any moment.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{End, Header, Reader};
use crate::model::interval::Interval;

/// Opens the recording in a file.
pub(crate) fn open(path: &Path) -> Result<Reader<BufReader<File>>> {
    let failed = || format!("read {}", path.display());
    let file = File::open(path).with_context(failed)?;
    Reader::new(BufReader::new(file)).with_context(failed)
}

/// A recording and a place in it.
pub(crate) struct Tape {
    path: PathBuf,
    reader: Reader<BufReader<File>>,
    /// the recording's last line; none where it was cut off
    end: Option<End>,
    /// seconds of all whole intervals
    length_s: f64,
    /// seconds played
    at_s: f64,
}

impl Tape {
    /// Opens a file and reads it once to find its length.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut all = open(path)?;
        let mut length_s = 0.0;
        while let Some(interval) = all.read_interval()? {
            length_s += seconds(&interval);
        }
        Ok(Self { path: path.to_owned(), reader: open(path)?, end: all.end().cloned(), length_s, at_s: 0.0 })
    }

    /// The recording's header.
    pub(crate) fn header(&self) -> &Header {
        self.reader.header()
    }

    /// The recording's last line; none where it was cut off.
    pub(crate) fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Share that was played, `0.0..=1.0`.
    pub(crate) fn position(&self) -> f64 {
        if self.length_s > 0.0 { self.at_s / self.length_s } else { 1.0 }
    }

    /// The next interval; none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Interval>> {
        let interval = self.reader.read_interval()?;
        self.at_s += interval.as_ref().map_or(0.0, seconds);
        Ok(interval)
    }

    /// Jumps by so many seconds, back where negative; returns the intervals of the last `memory_s` seconds before the new place.
    pub(crate) fn seek_by(&mut self, by_s: f64, memory_s: f64) -> Result<Vec<Interval>> {
        let to_s = self.at_s + by_s;
        self.reader = open(&self.path)?;
        self.at_s = 0.0;
        let mut remembered = Vec::new();
        while self.at_s < to_s.clamp(0.0, self.length_s) {
            let Some(interval) = self.next()? else { break };
            if self.at_s >= to_s - memory_s {
                remembered.push(interval);
            }
        }
        Ok(remembered)
    }
}

fn seconds(interval: &Interval) -> f64 {
    interval.length_ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{Writer, tests::header};

    #[test]
    fn a_tape_plays_every_interval_and_jumps_to_any_moment() {
        let path = std::env::temp_dir().join(format!("vmentry-tape-{}.hlog", std::process::id()));
        let mut writer = Writer::new(File::create(&path).unwrap(), &header()).unwrap();
        for n in 0..10 {
            let interval = Interval { length_ns: 1_000_000_000, ..Interval::starting(n * 1_000_000_000) };
            writer.write(&interval).unwrap();
        }
        let mut tape = Tape::open(&path).unwrap();
        let starts =
            |intervals: &[Interval]| -> Vec<u64> { intervals.iter().map(|i| i.start_ns / 1_000_000_000).collect() };
        while tape.position() < 0.65 {
            tape.next().unwrap().unwrap();
        }
        assert_eq!(starts(&tape.seek_by(-3.0, 2.0).unwrap()), [1, 2, 3]);
        assert_eq!(tape.next().unwrap().unwrap().start_ns, 4_000_000_000);
        assert!(tape.seek_by(1e9, 600.0).unwrap().is_empty());
        assert!(tape.next().unwrap().is_none() && tape.position() == 1.0);
        assert!(tape.seek_by(-1e9, 600.0).unwrap().is_empty());
        assert_eq!(tape.next().unwrap().unwrap().start_ns, 0);
        std::fs::remove_file(path).unwrap();
    }
}
