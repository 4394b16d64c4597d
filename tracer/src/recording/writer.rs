//! Writes a recording: an interval is one write and one flush, so that a kill leaves whole intervals. Nothing is written that a reader
//! would refuse.

use std::{
    collections::{BTreeMap, HashSet},
    io::Write,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use flate2::Crc;

use super::{
    encoder::Encoder,
    header::{End, Header, Label},
    index::VmMark,
    index_line::Places,
    limits::{LIMITS, Limits},
    note::{self, Note, Times},
    reader::Mark,
    seal::{self, Closing},
    sums,
    tag::tag_of_series,
};
use crate::model::{
    figures::Figure,
    interval::{Interval, Vm},
    series::{Key, Series},
    totals::Totals,
};

const LEGEND: &str = "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";

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
type Part<'a> = Vec<(&'a Key, &'a Series)>;

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
            more: false,
            places: Places::new(&limits),
        })
    }

    /// Appends an interval.
    pub fn write(&mut self, interval: &Interval) -> Result<()> {
        self.write_at(interval, Place::default())
    }

    /// Appends an interval of one of the header's [`Header::sources`]. `more`: the next one of this source goes on with it.
    pub(crate) fn write_of(&mut self, interval: &Interval, source: usize, more: bool) -> Result<()> {
        self.write_at(interval, Place { source: Some(u32::try_from(source)?), more, ..Place::default() })
    }

    /// Appends an interval of an experiment. `window` is none for the time between windows.
    pub(crate) fn write_window(&mut self, interval: &Interval, window: Option<Label>) -> Result<()> {
        self.write_at(interval, Place { window, ..Place::default() })
    }

    fn write_at(&mut self, interval: &Interval, place: Place) -> Result<()> {
        let aggregation = self.header.aggregation_of(place.source.unwrap_or(0) as usize);
        sums::check(interval, aggregation).context("an interval does not add up: please report this as a bug")?;
        self.count(counts(interval))?;
        if !self.more {
            self.places.begin(self.mark(), interval.start_ns);
        }
        self.more = place.more;
        self.places.add(interval.start_ns, interval.length_ns);
        let parts = self.parts(interval);
        let last = parts.len() - 1;
        let mut rest = interval.totals;
        for part in &parts[1..] {
            let entries: u64 = part.iter().map(|(_, series)| series.entries()).sum();
            rest.entries = rest.entries.saturating_sub(entries);
            rest.delivered = rest.delivered.saturating_sub(entries);
        }
        for (at, part) in parts.iter().enumerate() {
            let entries = part.iter().map(|(_, series)| series.entries()).sum();
            let of_part = Totals { entries, delivered: entries, ..Totals::default() };
            let (totals, length_ns) = if at == 0 { (rest, interval.length_ns) } else { (of_part, 0) };
            self.append_part(interval, part)?;
            self.number += 1;
            let Place { window, source, more } = place;
            let (number, more) = (Some(self.number), more || at < last);
            let times = Some(part.iter().map(|(_, series)| Times::of(series)).collect());
            let start_ns = interval.start_ns;
            let note = note::Interval { start_ns, length_ns, totals, times, window, source, number, more };
            self.append_note(&Note::Interval(Box::new(note)))?;
        }
        self.flush()
    }

    /// An interval's series, in as many parts as the limits demand: usually one, and never none.
    fn parts<'a>(&self, interval: &'a Interval) -> Vec<Part<'a>> {
        let mut parts: Vec<Part<'a>> = vec![Vec::new()];
        let mut buckets = 0;
        // A series without any value has no line, so a reader would not know it.
        let with_values = interval.series.iter().filter(|(_, series)| !series.is_empty());
        // Ordered, so that equal intervals make equal files.
        for (key, series) in with_values.collect::<BTreeMap<_, _>>() {
            let more: usize = Figure::ALL.into_iter().map(|figure| series[figure].buckets().count()).sum();
            let full =
                parts.last().is_some_and(|part| part.len() >= self.limits.written_series.min(self.limits.series));
            if full || buckets + more > self.limits.buckets && buckets > 0 {
                parts.push(Vec::new());
                buckets = 0;
            }
            buckets += more;
            parts.last_mut().into_iter().for_each(|part| part.push((key, series)));
        }
        parts
    }

    /// Appends the VMs that are new and the series of a part of an interval.
    fn append_part(&mut self, interval: &Interval, part: &[(&Key, &Series)]) -> Result<()> {
        for (id, vm) in &interval.vms {
            if self.known_vms.insert(*id) {
                let offset = self.mark().offset;
                self.append_note(&Note::Vm(Vm::clone(vm)))?;
                self.places.introduce(VmMark { offset, line: self.lines });
            }
        }
        let start = Duration::from_nanos(self.header.anchor.to_unix_ns(interval.start_ns));
        let times = format!("{:.3},{:.3}", start.as_secs_f64(), Duration::from_nanos(interval.length_ns).as_secs_f64());
        for (key, series) in part {
            let of_series = tag_of_series(key);
            for figure in Figure::ALL {
                let histogram = &series[figure];
                let Some(max) = histogram.max() else { continue };
                let name = figure.name();
                write!(self.text, "Tag={of_series}{name},{times},{:.3},", max as f64)?;
                self.encoder.encode(histogram, &mut self.text)?;
                self.text.push(b'\n');
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
        note::append(&mut self.text, self.sealed, seal::begin(&self.header), note)?;
        self.lines += self.text[self.sealed..].iter().filter(|&&byte| byte == b'\n').count() as u64;
        self.sealed = self.text.len();
        Ok(())
    }

    /// The place behind the last JSON line.
    fn mark(&self) -> Mark {
        Mark { offset: self.written + self.sealed as u64, line: self.lines, number: self.number }
    }

    /// Writes what was appended, unless a line is too long for a reader.
    fn flush(&mut self) -> Result<()> {
        let longest = self.text.split_inclusive(|&b| b == b'\n').map(<[u8]>::len).max().unwrap_or(0);
        ensure!(longest as u64 <= self.limits.line, "a line of {longest} bytes, and readers take {}", self.limits.line);
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
