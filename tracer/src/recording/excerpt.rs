//! The intervals of a recording that begin within a span of time: only they are decoded, and without an index the lines before them are
//! looked at for the intervals' beginnings.

use std::{
    fs::File,
    io::{BufRead, BufReader, Cursor, Read, Seek, SeekFrom},
    ops::Range,
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result, bail};

use super::{
    End, Header, OnDamage, Reader,
    index::{Index, tail},
    limits::LIMITS,
    reader::Mark,
    tape,
};
use crate::{model::interval::Vm, output::shown};

/// A recording of which a part is wanted.
pub(crate) struct Excerpt {
    file: File,
    first_line: Vec<u8>,
    header: Header,
    on_damage: OnDamage,
    index: Index,
    end: Option<End>,
}

/// A part of a recording as it is read: its header, and lines of it.
pub(crate) type Part = Reader<BufReader<Box<dyn Read + Send>>>;

impl Excerpt {
    /// Opens a file, and finds its intervals.
    pub(crate) fn open(path: &Path, on_damage: OnDamage) -> Result<Self> {
        let header = tape::open(path, on_damage)?.header().clone();
        Self::of(path, header, on_damage).with_context(|| format!("read {}", shown(path)))
    }

    fn of(path: &Path, header: Header, on_damage: OnDamage) -> Result<Self> {
        let mut file = File::open(path)?;
        let mut first_line = Vec::new();
        BufReader::new(Read::take(&mut file, LIMITS.line)).read_until(b'\n', &mut first_line)?;
        let (end, index) = tail(&mut file, &header, first_line.len() as u64)?;
        let index = index.map_or_else(|| Index::of_lines(&mut file), Ok)?;
        if let (OnDamage::Refuse, Some(line)) = (on_damage, index.after_end) {
            bail!("line {line} is damaged: it comes after the last line (--skip-damaged leaves it out)");
        }
        Ok(Self { file, first_line, header, on_damage, index, end })
    }

    /// The recording's header.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// The recording's last line; none where it was cut off.
    pub(crate) fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// The recorder's clock at the beginning and the end of the recording, ns; none without any interval.
    pub(crate) fn range_ns(&self) -> Option<(u64, u64)> {
        // Of a merge, the recordings come one after another, and may be of the same time.
        let places = &self.index.places;
        places.get(1)?;
        let starts = || places.iter().map(|place| place.start_ns);
        Some((starts().min()?, starts().max()?))
    }

    /// A reader of all intervals that begin in `span`, ns of the recorder's clock, and perhaps of some before and behind them.
    pub(crate) fn read(mut self, span: &Range<u64>) -> Result<Part> {
        let (from, to, vms) = match self.part(span) {
            Err(_) if self.index.is_claimed() => {
                self.index = Index::of_lines(&mut self.file)?;
                self.part(span)?
            }
            part => part?,
        };
        self.file.seek(SeekFrom::Start(from.offset))?;
        let lines = Cursor::new(self.first_line).chain(self.file.take(to.offset - from.offset));
        let mut reader = Reader::careful(BufReader::with_capacity(1 << 16, Box::new(lines) as _), self.on_damage)?;
        reader.stand_at(from, vms);
        Ok(reader)
    }

    /// Where to read from and up to, and the VMs that were introduced before.
    fn part(&mut self, span: &Range<u64>) -> Result<(Mark, Mark, Vec<Arc<Vm>>)> {
        let places = self.places(span)?;
        let (from, to) = (self.index.places[places.start].mark, self.index.places[places.end].mark);
        Ok((from, to, self.index.vms_before(&mut self.file, &self.header, from)?))
    }

    /// The places from which and up to which it is read: with the interval before the span's first one and the one behind its last one,
    /// which prove that none is left out.
    fn places(&mut self, span: &Range<u64>) -> Result<Range<usize>> {
        loop {
            let Some(last) = self.index.last() else { return Ok(0..0) };
            let starts = || self.index.places[..=last].iter().map(|place| place.start_ns);
            // A line that was damaged may tell any time: what is before and behind all of the span is left out.
            let first = starts().position(|start_ns| start_ns >= span.start).unwrap_or(last + 1);
            let behind = starts().rposition(|start_ns| start_ns < span.end).map_or(0, |at| at + 1);
            let from = first.saturating_sub(1);
            let to = behind.max(from);
            let mut is_changed = false;
            for at in [to, to.saturating_sub(1), from] {
                is_changed |= self.index.prove(&mut self.file, at)?;
            }
            if !is_changed {
                return Ok(first.min(to)..to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{
            interval::{
                Interval,
                tests::{event, vm},
            },
            totals::Totals,
        },
        recording::{
            Writer,
            limits::{LIMITS, Limits},
            tests::{end, header},
        },
    };

    /// Intervals of odd counts, which begin at 100, 107, 114, ...; each VM begins later than the one before.
    fn intervals() -> Vec<Interval> {
        let of = |n: u64| {
            let mut interval = Interval { length_ns: 7, ..Interval::starting(100 + 7 * n) };
            let entries = 2 * n + 1;
            (0..entries).for_each(|entry| {
                let vm = vm(u32::try_from(entry % (n / 4 + 1)).unwrap());
                interval.record(&event((entry % 3) as u32, 10, 900 + n, 1), &vm);
            });
            interval.totals = Totals { entries, delivered: entries, ..interval.totals };
            interval
        };
        (0..23).map(of).collect()
    }

    fn recording(limits: Limits) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::with_limits(&mut bytes, &header(), limits).unwrap();
        intervals().iter().for_each(|interval| writer.write(interval).unwrap());
        writer.finish(end()).unwrap();
        bytes
    }

    fn excerpt(bytes: &[u8]) -> Excerpt {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.hlog");
        std::fs::write(&path, bytes).unwrap();
        Excerpt::open(&path, OnDamage::Refuse).unwrap()
    }

    /// The intervals of a span, and how many more were read.
    fn read(excerpt: Excerpt, span: &Range<u64>) -> (Vec<Interval>, usize) {
        let mut reader = excerpt.read(span).unwrap();
        let mut read = Vec::new();
        while let Some(interval) = reader.read_joined().unwrap() {
            read.push(interval);
        }
        assert!(!reader.is_torn());
        let all = read.len();
        read.retain(|interval| span.contains(&interval.start_ns));
        let more = all - read.len();
        (read, more)
    }

    #[test]
    fn an_excerpt_has_the_intervals_that_begin_in_its_span_and_reads_no_other() {
        let all = intervals();
        let each = [(LIMITS.places, 100), (LIMITS.places, 1), (6, 100), (2, 1)];
        let indexed = each.map(|(places, series)| Limits { unindexed: 0, places, series, ..LIMITS });
        for limits in indexed.into_iter().chain([LIMITS, Limits { series: 1, ..LIMITS }]) {
            let bytes = recording(limits);
            for since in [0, 99, 100, 101, 106, 107, 150, 156, 157, 253, 254, 255, 261, u64::MAX] {
                for length in [0, 1, 7, 40, u64::MAX] {
                    let span = since..since.saturating_add(length);
                    let excerpt = excerpt(&bytes);
                    assert_eq!(excerpt.index.is_claimed(), limits.unindexed == 0);
                    assert_eq!(excerpt.range_ns(), Some((100, 261)));
                    let wanted: Vec<_> = all.iter().filter(|i| span.contains(&i.start_ns)).cloned().collect();
                    let (read, more) = read(excerpt, &span);
                    assert!(read == wanted && more == 0, "{span:?} {limits:?}: {} {more}", read.len());
                }
            }
        }
    }

    #[test]
    fn an_index_that_lies_leaves_no_interval_out() {
        let limits = Limits { unindexed: 0, ..LIMITS };
        let bytes = recording(limits);
        let text = String::from_utf8(bytes.clone()).unwrap();
        let (_, index) = text.split_once("#index ").unwrap();
        let (index, _) = index.split_once('\n').unwrap();
        let span = 150..200;
        let (honest, _) = read(excerpt(&bytes), &span);
        let mut lies = 0;
        for column in ["offset", "line", "number", "length_ns", "start_ns", "vm_offset", "vm_line"] {
            for at in 0..24 {
                for change in [-6_i64, -1, 1, 6, 50] {
                    let mut lie: serde_json::Value = serde_json::from_str(index).unwrap();
                    let Some(step) = lie[column][at].as_u64() else { continue };
                    lie[column][at] = step.saturating_add_signed(change).into();
                    if let Some(next) = lie[column].get_mut(at + 1) {
                        *next = next.as_u64().unwrap().saturating_add_signed(-change).into();
                    }
                    let line = format!("#index {lie}\n");
                    let Some((places, vms)) = super::super::index_line::parse(line.as_bytes()) else { continue };
                    let mut excerpt = excerpt(&bytes);
                    excerpt.index = Index::claimed(places, vms);
                    assert_eq!(read(excerpt, &span).0, honest, "{column} {at} {change}");
                    lies += 1;
                }
            }
        }
        assert!(lies > 100, "{lies}");
    }

    #[test]
    fn lines_after_the_last_one_are_damage_as_they_are_for_the_whole_recording() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.hlog");
        let bytes = recording(LIMITS);
        let lines = bytes.split(|&byte| byte == b'\n').count();
        for more in [&b"\n"[..], b"x", &[0; 4096], &bytes] {
            let longer = [&bytes, more].concat();
            std::fs::write(&path, &longer).unwrap();
            let whole = Reader::new(longer.as_slice());
            let whole = whole.and_then(|mut reader| {
                while reader.read_interval()?.is_some() {}
                Ok(())
            });
            let part = Excerpt::open(&path, OnDamage::Refuse).map(drop);
            let damaged = format!("line {lines} is damaged: it comes after the last line");
            for error in [whole, part] {
                assert!(format!("{:#}", error.unwrap_err()).contains(&damaged), "{more:.9?}");
            }
            assert!(Excerpt::open(&path, OnDamage::Skip).is_ok());
        }
    }

    #[test]
    fn a_recording_without_an_interval_has_an_empty_excerpt() {
        let mut bytes = Vec::new();
        Writer::new(&mut bytes, &header()).unwrap().finish(end()).unwrap();
        let excerpt = excerpt(&bytes);
        assert_eq!(excerpt.range_ns(), None);
        assert_eq!(read(excerpt, &(0..u64::MAX)).0.len(), 0);
    }
}
