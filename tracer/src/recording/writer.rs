//! Writes a recording: an interval is one write and one flush, so that a kill leaves whole intervals. Nothing is written that a reader
//! would refuse.

use std::{collections::HashSet, io::Write, time::Duration};

use anyhow::{Context, Result, ensure};
use flate2::Crc;

use super::{
    encoder::Encoder,
    header::{End, Header, Label},
    index::VmMark,
    index_line::Places,
    limits::{LIMITS, Limits},
    note::{self, Note, Times},
    reader::{AsWritten, Mark},
    seal::{self, Closing},
    sums,
    tag::append_tag_of_series,
};
use crate::model::{
    figures::Figure,
    interval::{Interval, Vm},
    series::{Key, Series},
    totals::Totals,
};

const LEGEND: &str = "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";

/// Series whose highest values are looked up together.
const AT_ONCE: usize = 16;

/// Writes a recording. Each interval is one write and one flush; the header comes with the first of them, so that a recorder that
/// dies before leaves what it would replace.
pub struct Writer<W: Write> {
    out: W,
    header: Header,
    limits: Limits,
    known_vms: HashSet<u32>,
    /// intervals so far
    number: u64,
    /// sum of all counts so far
    counts: u64,
    encoder: Encoder,
    /// lines that are not written yet
    text: Vec<u8>,
    /// bytes of `text` up to its last JSON line
    sealed: usize,
    /// bytes before `text`
    written: u64,
    /// lines up to the last JSON line
    lines: u64,
    /// lines after it
    unsealed: u64,
    /// the next interval goes on with the latest one
    more: bool,
    places: Places,
}

/// What an interval is a part of, apart from the recording.
#[derive(Clone, Copy, Default)]
struct Place {
    window: Option<Label>,
    source: Option<u32>,
    more: bool,
}

/// Some series of an interval, in order.
#[derive(Default)]
struct Part<'a> {
    series: Vec<PartSeries<'a>>,
    buckets: usize,
    entries: u64,
}

#[derive(Clone, Copy)]
struct PartSeries<'a> {
    key: Key,
    series: &'a Series,
    /// its histograms as they were read, by figure; empty where they are encoded
    as_written: &'a [Option<Box<[u8]>>],
}

impl<W: Write> Writer<W> {
    /// Begins a recording. Fails if a reader would refuse the header.
    pub fn new(out: W, header: &Header) -> Result<Self> {
        Self::with_limits(out, header, LIMITS)
    }

    pub(super) fn with_limits(out: W, header: &Header, limits: Limits) -> Result<Self> {
        let header = header.printable()?;
        let mut text = format!("#{}\n", serde_json::to_string(&header)?).into_bytes();
        seal::seal(&mut text, 0, Crc::new(), Closing::Header);
        ensure!(
            text.len() as u64 <= limits.line,
            "the header has {} bytes, and a line of a recording has at most {}: shorten the command line, or merge fewer recordings",
            text.len(),
            limits.line
        );
        let sealed = text.len();
        let start = header.anchor.unix_ns as f64 / 1e9;
        text.extend(format!("#[StartTime: {start:.3} (seconds since epoch)]\n{LEGEND}").into_bytes());
        Ok(Self {
            out,
            header,
            limits,
            known_vms: HashSet::new(),
            number: 0,
            counts: 0,
            encoder: Encoder::default(),
            text,
            sealed,
            written: 0,
            lines: 1,
            unsealed: 2,
            more: false,
            places: Places::new(&limits),
        })
    }

    /// Appends an interval.
    pub fn write(&mut self, interval: &Interval) -> Result<()> {
        self.write_at(interval, None, Place::default())
    }

    /// Appends an interval of one of the header's [`Header::sources`]. `more`: the next one of this source goes on with it. `as_written`:
    /// its histograms as they were read, so that they need not be encoded again; none where they were changed.
    pub(crate) fn write_of(
        &mut self,
        interval: &Interval,
        as_written: Option<&AsWritten>,
        source: usize,
        more: bool,
    ) -> Result<()> {
        let place = Place { source: Some(u32::try_from(source)?), more, ..Place::default() };
        self.write_at(interval, as_written, place)
    }

    /// Appends an interval of an experiment. `window` is none for the time between windows.
    pub(crate) fn write_window(&mut self, interval: &Interval, window: Option<Label>) -> Result<()> {
        self.write_at(interval, None, Place { window, ..Place::default() })
    }

    fn write_at(&mut self, interval: &Interval, as_written: Option<&AsWritten>, place: Place) -> Result<()> {
        let aggregation = self.header.aggregation_of(place.source.unwrap_or(0) as usize);
        sums::check(interval, aggregation, None).context("an interval does not add up: please report this as a bug")?;
        self.count(counts(interval))?;
        if !self.more {
            self.places.begin(self.mark(), interval.start_ns);
        }
        self.more = place.more;
        self.places.add(interval.start_ns, interval.length_ns);
        let parts = self.parts(interval, as_written);
        let last = parts.len() - 1;
        let mut rest = interval.totals;
        for part in &parts[1..] {
            rest.entries = rest.entries.saturating_sub(part.entries);
            rest.delivered = rest.delivered.saturating_sub(part.entries);
        }
        for (at, part) in parts.iter().enumerate() {
            let entries = part.entries;
            let of_part = Totals { entries, delivered: entries, ..Totals::default() };
            let (totals, length_ns) = if at == 0 { (rest, interval.length_ns) } else { (of_part, 0) };
            self.append_part(interval, part)?;
            self.number += 1;
            let Place { window, source, more } = place;
            let (number, more) = (Some(self.number), more || at < last);
            let times = Some(part.series.iter().map(|of| Times(of.series.budget)).collect());
            let start_ns = interval.start_ns;
            let note = note::Interval { start_ns, length_ns, totals, times, window, source, number, more };
            self.append_note(&Note::Interval(Box::new(note)))?;
        }
        self.flush()
    }

    /// An interval's series, in as many parts as the limits demand: usually one, and never none.
    fn parts<'a>(&self, interval: &'a Interval, as_written: Option<&'a AsWritten>) -> Vec<Part<'a>> {
        let mut parts = vec![Part::default()];
        // A series without any value has no line, so a reader would not know it.
        let with_values = interval.series.iter().enumerate().filter(|(_, (_, series))| !series.is_empty());
        // Looked at in the order of memory: after sorting, most accesses miss the caches.
        let with_sizes = with_values.map(|(at, (key, series))| {
            let as_written = as_written.and_then(|all| all.get(at)).map_or(&[][..], |figures| figures);
            (PartSeries { key: *key, series, as_written }, series.buckets(), series.entries())
        });
        let mut with_sizes: Vec<_> = with_sizes.collect();
        // Ordered, so that equal intervals make equal files.
        with_sizes.sort_unstable_by_key(|(of, ..)| of.key);
        let most = self.limits.written_series.min(self.limits.series);
        for (series, buckets, entries) in with_sizes {
            let is_full = |part: &Part| {
                part.series.len() >= most || part.buckets + buckets > self.limits.buckets && part.buckets > 0
            };
            if parts.last().is_some_and(is_full) {
                parts.push(Part::default());
            }
            if let Some(part) = parts.last_mut() {
                part.series.push(series);
                part.buckets += buckets;
                part.entries = part.entries.saturating_add(entries);
            }
        }
        parts
    }

    /// Appends the VMs that are new and the series of a part of an interval.
    fn append_part(&mut self, interval: &Interval, part: &Part) -> Result<()> {
        for (id, vm) in &interval.vms {
            if self.known_vms.insert(*id) {
                let offset = self.mark().offset;
                self.append_note(&Note::Vm(Vm::clone(vm)))?;
                self.places.introduce(VmMark { offset, line: self.lines });
            }
        }
        let start = Duration::from_nanos(self.header.anchor.to_unix_ns(interval.start_ns));
        let times = format!("{:.3},{:.3}", start.as_secs_f64(), Duration::from_nanos(interval.length_ns).as_secs_f64());
        let (mut of_series, mut digits) = (String::new(), itoa::Buffer::new());
        for series in part.series.chunks(AT_ONCE) {
            // Before they are needed, because each waits for memory: in the order of the keys, no series is near the one before.
            let mut highest = [[None; Figure::ALL.len()]; AT_ONCE];
            for (highest, PartSeries { series, .. }) in highest.iter_mut().zip(series) {
                *highest = Figure::ALL.map(|figure| series[figure].max());
            }
            for (PartSeries { key, series, as_written }, highest) in series.iter().zip(highest) {
                of_series.clear();
                append_tag_of_series(key, &mut of_series);
                for (figure, max) in Figure::ALL.into_iter().zip(highest) {
                    let Some(max) = max else { continue };
                    let start = self.text.len();
                    for text in ["Tag=", &of_series, figure.name(), ",", &times, ","] {
                        self.text.extend_from_slice(text.as_bytes());
                    }
                    // As a number of an interval log has them.
                    self.text.extend_from_slice(digits.format(max).as_bytes());
                    self.text.extend_from_slice(b".000,");
                    match as_written.get(figure as usize) {
                        Some(Some(encoded)) => self.text.extend_from_slice(encoded),
                        _ => self.encoder.encode(&series[figure], &mut self.text)?,
                    }
                    self.text.push(b'\n');
                    self.unsealed += 1;
                    self.check_line(start)?;
                }
            }
        }
        Ok(())
    }

    /// Ends the recording in order.
    pub fn finish(mut self, end: End) -> Result<()> {
        self.count(end.accounting.open)?;
        if let Some(index) = self.places.line(self.mark(), &self.limits) {
            self.text.extend(index);
        }
        self.append_note(&Note::End { end, intervals: Some(self.number) })?;
        self.flush()
    }

    /// Appends a note, which seals the lines since the last one.
    fn append_note(&mut self, note: &Note) -> Result<()> {
        let start = self.text.len();
        note::append(&mut self.text, self.sealed, seal::begin(&self.header), note)?;
        self.lines += std::mem::take(&mut self.unsealed) + 1;
        self.sealed = self.text.len();
        self.check_line(start)
    }

    /// Fails where the line that was just appended is too long for a reader.
    fn check_line(&self, start: usize) -> Result<()> {
        let bytes = self.text.len() - start;
        ensure!(bytes as u64 <= self.limits.line, "a line of {bytes} bytes, and readers take {}", self.limits.line);
        Ok(())
    }

    /// The place behind the last JSON line.
    fn mark(&self) -> Mark {
        Mark { offset: self.written + self.sealed as u64, line: self.lines, number: self.number }
    }

    /// Writes what was appended.
    fn flush(&mut self) -> Result<()> {
        self.out.write_all(&self.text)?;
        self.written += self.text.len() as u64;
        self.text.clear();
        self.sealed = 0;
        Ok(self.out.flush()?)
    }

    /// Fails before the sum of all counts is over the limit.
    fn count(&mut self, n: u64) -> Result<()> {
        self.counts = self.counts.saturating_add(n);
        ensure!(
            self.counts <= self.limits.counts,
            "its counts add up to more than {}, which no reader takes: begin another recording",
            self.limits.counts
        );
        Ok(())
    }
}

/// Sum of all counts of an interval, as a reader adds them up.
fn counts(interval: &Interval) -> u64 {
    let values = |series: &Series| Figure::ALL.map(|figure| series[figure].count());
    interval.totals.counts().chain(interval.series.values().flat_map(values)).fold(0, u64::saturating_add)
}
