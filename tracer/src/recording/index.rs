//! Where the intervals of a recording begin: from the index before its last line, or found line by line without decoding any.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    sync::Arc,
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::{
    header::{End, Header},
    index_line,
    limits::LIMITS,
    note::{self, Note},
    reader::Mark,
    seal::{self, Closing},
};
use crate::model::interval::Vm;

/// Bytes that are read at once to find intervals.
const AT_ONCE: usize = 256 << 10;
/// Lines without a checksum of their own before the first VM's.
const LINES_BEFORE_VM: usize = 3;

/// Where an interval begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) mark: Mark,
    /// ns of observation before it
    pub(super) played_ns: u64,
    /// CLOCK_MONOTONIC at the beginning of the interval, ns; behind the last interval, at its end
    pub(super) start_ns: u64,
}

/// Where a VM is introduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VmMark {
    /// bytes before the lines that its checksum is of
    pub(super) offset: u64,
    /// lines up to its line, with it
    pub(super) line: u64,
}

/// The places of a recording's intervals.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// where intervals begin, and the end of the last one: ascending
    pub(super) places: Vec<Place>,
    /// VMs and the lines that introduce them
    vms: Vec<(u64, Arc<Vm>)>,
    /// where further VMs are introduced
    unread: Vec<VmMark>,
    /// all intervals are in it
    pub(super) is_complete: bool,
    /// the first line after the recording's last one, where the whole file was looked at
    pub(super) after_end: Option<u64>,
    /// by place: the lines up to the next one were looked at. None where the places were found line by line
    proven: Option<Vec<bool>>,
}

impl Index {
    /// Of what an index line says, which nobody has held against the intervals yet.
    pub(super) fn claimed(places: Vec<Place>, vms: Vec<VmMark>) -> Self {
        let proven = Some(vec![false; places.len()]);
        Self { places, unread: vms, proven, is_complete: true, ..Self::default() }
    }

    /// Of all lines of a file.
    pub(super) fn of_lines(file: &mut File) -> Result<Self> {
        let mut index = Self::default();
        let mut scan = Scan::of_file(file)?;
        while let Some(found) = scan.next()? {
            index.add(found);
        }
        index.is_complete = true;
        index.after_end = scan.after_end;
        ensure!(!index.places.is_empty(), "the header is gone");
        Ok(index)
    }

    /// Adds what a [`Scan`] found.
    pub(super) fn add(&mut self, found: Found) {
        match found {
            Found::First(place) => self.places.push(place),
            Found::Interval { start_ns, end } => {
                self.places.last_mut().into_iter().for_each(|last| last.start_ns = start_ns);
                self.places.push(end);
            }
            Found::Vm(mark, vm) => self.vms.push((mark.line, Arc::new(vm))),
        }
    }

    /// Whether it says what an index line says, and not what the lines say.
    pub(super) fn is_claimed(&self) -> bool {
        self.proven.is_some()
    }

    /// CLOCK_MONOTONIC at the beginning and the end of what is known, ns; none where no interval is known.
    pub(super) fn range_ns(&self) -> Option<(u64, u64)> {
        match self.places[..] {
            [first, .., last] => Some((first.start_ns, last.start_ns)),
            _ => None,
        }
    }

    /// Number of the last place at which an interval begins; none where no interval is known.
    pub(super) fn last(&self) -> Option<usize> {
        self.places.len().checked_sub(2)
    }

    /// Makes sure that a place is one, that the next one is, and that no interval between them is left out.
    /// Returns whether places were added between the two.
    pub(super) fn prove(&mut self, file: &mut File, at: usize) -> Result<bool> {
        let Some(proven) = &mut self.proven else { return Ok(false) };
        let (Some(&from), Some(&to)) = (self.places.get(at), self.places.get(at + 1)) else { return Ok(false) };
        if std::mem::replace(&mut proven[at], true) {
            return Ok(false);
        }
        let mut between = Self { places: vec![Place { start_ns: 0, ..from }], ..Self::default() };
        let mut marks = Vec::new();
        file.seek(SeekFrom::Start(from.mark.offset.saturating_sub(1)))?;
        let mut line_end = [0];
        file.read_exact(&mut line_end)?;
        let mut scan = Scan::behind(from, Read::take(file, to.mark.offset - from.mark.offset));
        while let Some(found) = scan.next()? {
            if let Found::Vm(mark, _) = found {
                marks.push(mark);
            }
            between.add(found);
        }
        let is_end = at + 2 == self.places.len();
        let last =
            between.places.last().map(|&last| if is_end { last } else { Place { start_ns: to.start_ns, ..last } });
        let known = self.vms.iter().map(|(line, _)| *line).chain(self.unread.iter().map(|mark| mark.line));
        let of_lines = from.mark.line + 1..=to.mark.line;
        ensure!(
            line_end == *b"\n"
                && between.places[0] == from
                && last == Some(to)
                && known.filter(|line| of_lines.contains(line)).eq(marks.iter().map(|mark| mark.line)),
            "the index is wrong at line {}",
            from.mark.line + 1
        );
        let more = between.places.len() - 2;
        self.places.splice(at + 1..at + 1, between.places[1..=more].iter().copied());
        proven.splice(at + 1..at + 1, std::iter::repeat_n(true, more));
        Ok(more > 0)
    }

    /// The VMs that were introduced before a place.
    pub(super) fn vms_before(&mut self, file: &mut File, header: &Header, mark: Mark) -> Result<Vec<Arc<Vm>>> {
        let wanted = self.unread.partition_point(|vm| vm.line <= mark.line);
        let mut input = BufReader::with_capacity(16 << 10, file);
        for VmMark { offset, line } in self.unread.drain(..wanted) {
            self.vms.push((line, Arc::new(read_vm(&mut input, offset, header)?)));
        }
        let known = self.vms.iter().filter(|(line, _)| *line <= mark.line);
        Ok(known.map(|(_, vm)| Arc::clone(vm)).collect())
    }
}

/// Reads the line that introduces a VM, and checks it.
fn read_vm(input: &mut BufReader<&mut File>, offset: u64, header: &Header) -> Result<Vm> {
    let here = input.stream_position()?;
    input.seek_relative(i64::try_from(offset)? - i64::try_from(here)?)?;
    let mut crc = seal::begin(header);
    let mut text = Vec::new();
    for _ in 0..=LINES_BEFORE_VM {
        read_line(input, &mut text)?;
        if text.starts_with(note::BEGINNING) {
            let (body, expected) = seal::split(&text, Closing::Note).context("a VM without a checksum")?;
            crc.update(body);
            ensure!(crc.sum() == expected, "the checksum of a VM is wrong");
            let Note::Vm(vm) = note::parse(&text)? else { bail!("another line in the place of a VM") };
            return Ok(vm);
        }
        crc.update(&text);
    }
    bail!("no VM where the index says")
}

/// What was found in a recording's lines.
pub(super) enum Found {
    /// the place behind the header
    First(Place),
    /// the interval behind the last place, which ends at `end`
    Interval { start_ns: u64, end: Place },
    /// a VM and where it is introduced
    Vm(VmMark, Vm),
}

/// Looks at a recording's lines.
pub(super) struct Scan<R> {
    input: R,
    /// behind the lines that were read
    place: Place,
    /// bytes before the lines since the last JSON line
    sealed: u64,
    /// beginning and end of the interval of which a part was read, ns
    begun: Option<(u64, u64)>,
    /// the recording's last line was read
    is_ended: bool,
    /// the first line after it
    after_end: Option<u64>,
    text: Vec<u8>,
}

impl<'a> Scan<BufReader<&'a mut File>> {
    /// Of a file from its beginning.
    pub(super) fn of_file(file: &'a mut File) -> io::Result<Self> {
        file.rewind()?;
        let place = Place { mark: Mark::default(), played_ns: 0, start_ns: 0 };
        Ok(Self::new(place, BufReader::with_capacity(AT_ONCE, file)))
    }
}

impl<R: Read> Scan<BufReader<R>> {
    /// Of the lines behind a place.
    pub(super) fn behind(place: Place, input: R) -> Self {
        Self::new(place, BufReader::with_capacity(AT_ONCE, input))
    }
}

impl<R: BufRead> Scan<R> {
    fn new(place: Place, input: R) -> Self {
        Self {
            input,
            place,
            sealed: place.mark.offset,
            begun: None,
            is_ended: false,
            after_end: None,
            text: Vec::new(),
        }
    }

    /// What comes next; none at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Found>> {
        loop {
            // Most lines are histograms, and are not even copied.
            let is_json = self.input.fill_buf()?.first() == Some(&b'#');
            let bytes = if is_json { read_line(&mut self.input, &mut self.text) } else { self.input.skip_until(b'\n') };
            let bytes @ 1.. = bytes? as u64 else { return Ok(None) };
            self.place.mark.offset += bytes;
            self.place.mark.line += 1;
            if self.is_ended {
                self.after_end.get_or_insert(self.place.mark.line);
            }
            if self.place.mark.line == 1 {
                self.sealed = self.place.mark.offset;
                return Ok(Some(Found::First(self.place)));
            }
            // A line that is cut off is none, whatever it says.
            if is_json && self.text.starts_with(note::BEGINNING) && self.text.ends_with(b"\n") {
                let sealed = std::mem::replace(&mut self.sealed, self.place.mark.offset);
                let found = self.take(sealed);
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
    }

    fn take(&mut self, sealed: u64) -> Option<Found> {
        if !self.text.starts_with(note::INTERVAL) {
            return match note::parse(&self.text) {
                Ok(Note::Vm(vm)) => Some(Found::Vm(VmMark { offset: sealed, line: self.place.mark.line }, vm)),
                Ok(Note::End { .. }) => {
                    self.is_ended = true;
                    None
                }
                _ => None,
            };
        }
        let Line { interval } = serde_json::from_slice(&self.text[1..]).ok()?;
        self.place.mark.number = interval.number.unwrap_or(0);
        self.place.played_ns = self.place.played_ns.saturating_add(interval.length_ns);
        let end_ns = interval.start_ns.saturating_add(interval.length_ns);
        // Of several parts, the first one has the length.
        let (start_ns, end_ns) =
            self.begun.map_or((interval.start_ns, end_ns), |(start_ns, before_ns)| (start_ns, before_ns.max(end_ns)));
        self.begun = interval.more.then_some((start_ns, end_ns));
        self.place.start_ns = end_ns;
        (!interval.more).then_some(Found::Interval { start_ns, end: self.place })
    }
}

/// The line of an interval, without what only its reader needs.
#[derive(Deserialize)]
struct Line {
    interval: Bounds,
}

/// [`note::Interval`]'s fields of these names.
#[derive(Deserialize)]
struct Bounds {
    start_ns: u64,
    length_ns: u64,
    #[serde(default)]
    number: Option<u64>,
    #[serde(default)]
    more: bool,
}

/// Reads a line, of which it keeps as much as a line may have; returns its bytes.
fn read_line(input: &mut impl BufRead, text: &mut Vec<u8>) -> io::Result<usize> {
    text.clear();
    let kept = Read::take(&mut *input, LIMITS.line).read_until(b'\n', text)?;
    Ok(kept + if text.last() == Some(&b'\n') { 0 } else { input.skip_until(b'\n')? })
}

/// The last line of a recording and the index before it; none of either where it is not there or cannot be trusted. Reads no more than
/// a line may have. `begins`: bytes of the header.
pub(super) fn tail(file: &mut File, header: &Header, begins: u64) -> Result<(Option<End>, Option<Index>)> {
    let metadata = file.metadata()?;
    ensure!(metadata.is_file(), "nobody can go back in it: save it in a file, and name that file");
    let bytes = metadata.len();
    let from = bytes.saturating_sub(LIMITS.line);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    Read::take(&mut *file, LIMITS.line).read_to_end(&mut tail)?;
    if !tail.ends_with(b"\n") {
        return Ok((None, None));
    }
    let line_before = |end: usize| tail[..end - 1].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let last = line_before(tail.len());
    let Ok(Note::End { end, intervals }) = note::parse(&tail[last..]) else { return Ok((None, None)) };
    let index = (last > 0).then(|| line_before(last)).and_then(|at| {
        let line = &tail[at..last];
        let claims = index_line::parse(line)?;
        // Nothing stands between it and the intervals: the checksum of the last line begins behind the last of them.
        let (body, expected) = seal::split(&tail[last..], Closing::Note)?;
        let mut crc = seal::begin(header);
        crc.update(line);
        crc.update(body);
        let (first, end) = (claims.0.first()?, claims.0.last()?.mark);
        let is_right = crc.sum() == expected
            && (first.mark, first.played_ns) == (Mark { offset: begins, line: 1, number: 0 }, 0)
            && end.offset == from + at as u64
            && Some(end.number) == intervals;
        is_right.then(|| Index::claimed(claims.0, claims.1))
    });
    // Both ends are shown, and times are counted from them.
    let index = index.and_then(|mut index| {
        let last = index.last()?;
        index.prove(file, last).and_then(|_| index.prove(file, 0)).ok()?;
        Some(index)
    });
    Ok((Some(end), index))
}
