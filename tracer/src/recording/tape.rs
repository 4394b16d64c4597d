//! A recording that is played: interval after interval, with jumps to any moment.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result, bail};

use super::{
    Damage, End, Header, OnDamage, Reader,
    file::open_file,
    limits::LIMITS,
    note::{self, Note},
    reader::Mark,
};
use crate::{
    model::interval::{Interval, Vm},
    output::shown,
};

/// Most bytes that are read to fill the screen after a jump: about a second's work.
const MEMORY_BYTES: u64 = 24 << 20;
/// Most histogram buckets of the intervals that were read for that, 256 MB; the latest count.
const MEMORY_BUCKETS: usize = 32 << 20;

/// Opens the recording in a file.
pub(crate) fn open(path: &Path, on_damage: OnDamage) -> Result<Reader<BufReader<File>>> {
    let failed = || format!("read {}", shown(path));
    if path == Path::new("-") {
        bail!("'-' is standard input, in which nobody can go back: save it in a file, and name that file");
    }
    let file = open_file(path).with_context(failed)?;
    Reader::careful(BufReader::new(file), on_damage).with_context(failed)
}

/// A recording and a place in it.
pub(crate) struct Tape {
    reader: Reader<BufReader<File>>,
    name: String,
    index: Arc<Mutex<Index>>,
    bytes: u64,
    /// the recording's last line; none where it was cut off
    end: Option<End>,
    /// seconds played
    at_s: f64,
    /// what was left out before the last jump
    damage: Option<Damage>,
}

/// The places of a recording's intervals. A thread fills it while the tape is played.
#[derive(Default)]
struct Index {
    /// where each interval begins, and the end
    places: Vec<Place>,
    /// CLOCK_MONOTONIC at the beginning and the end of each interval, ns
    moments: Vec<(u64, u64)>,
    /// VMs and the lines that introduce them
    vms: Vec<(u64, Arc<Vm>)>,
    /// all intervals are in it
    is_complete: bool,
}

/// Where an interval begins.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Place {
    mark: Mark,
    /// seconds before it
    at_s: f64,
}

impl Tape {
    /// Opens a file, and begins to look for its intervals.
    pub(crate) fn open(path: &Path, on_damage: OnDamage) -> Result<Self> {
        let reader = open(path, on_damage)?;
        let failed = || format!("read {}", shown(path));
        let mut input = File::open(path).with_context(failed)?;
        let end = last_line(&mut input).with_context(failed)?;
        input.rewind().with_context(failed)?;
        let bytes = input.metadata().with_context(failed)?.len();
        let index = Arc::new(Mutex::new(Index::default()));
        let filled = Arc::clone(&index);
        std::thread::Builder::new()
            .name("index".into())
            .spawn(move || fill(&filled, BufReader::with_capacity(1 << 20, input)))
            .context("start the thread that looks for intervals")?;
        Ok(Self { reader, name: shown(path), index, bytes, end, at_s: 0.0, damage: None })
    }

    /// The recording's header.
    pub(crate) fn header(&self) -> &Header {
        self.reader.header()
    }

    /// The recording's last line; none where it was cut off.
    pub(crate) fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Share that was played, `0.0..=1.0`: of the bytes, until the length in time is known.
    pub(crate) fn position(&self) -> f64 {
        let index = lock(&self.index);
        let length_s = index.places.last().filter(|_| index.is_complete).map(|end| end.at_s);
        match length_s {
            Some(length_s) if length_s > 0.0 => (self.at_s / length_s).min(1.0),
            Some(_) => 1.0,
            None => self.reader.offset() as f64 / self.bytes.max(1) as f64,
        }
    }

    /// What was left out so far; none where nothing was.
    pub(crate) fn damage(&self) -> Option<Damage> {
        self.reader.damage_of(&self.name).or_else(|| self.damage.clone())
    }

    /// The next interval, whole where the recording has it in parts; none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Interval>> {
        let interval = self.reader.read_joined()?;
        self.at_s += interval.as_ref().map_or(0.0, |i| seconds(i.length_ns));
        Ok(interval)
    }

    /// CLOCK_MONOTONIC of the recorder's host at the beginning and the end of what is known of the recording, ns; none where no interval
    /// is known.
    pub(crate) fn range_ns(&self) -> Option<(u64, u64)> {
        let index = lock(&self.index);
        Some((index.moments.first()?.0, index.moments.last()?.1))
    }

    /// Jumps by so many seconds, back where negative, as far as the intervals are known. Returns the intervals of the last `memory_s`
    /// seconds before the new place, or fewer where these are many bytes.
    pub(crate) fn seek_by(&mut self, by_s: f64, memory_s: f64) -> Result<Vec<Interval>> {
        let to_s = self.at_s + by_s;
        self.jump(|index| index.places.partition_point(|place| place.at_s < to_s), memory_s)
    }

    /// Jumps behind the interval of a moment of CLOCK_MONOTONIC, as [`Self::seek_by`] does.
    pub(crate) fn seek_to(&mut self, moment_ns: u64, memory_s: f64) -> Result<Vec<Interval>> {
        self.jump(|index| index.moments.partition_point(|(start_ns, _)| *start_ns <= moment_ns), memory_s)
    }

    /// Jumps to a place, of which the index tells the number; to the last one that is known where it is beyond.
    fn jump(&mut self, find: impl FnOnce(&Index) -> usize, memory_s: f64) -> Result<Vec<Interval>> {
        let to = {
            let index = lock(&self.index);
            let Some(last) = index.places.len().checked_sub(1) else { return Ok(Vec::new()) };
            let to = find(&index).min(last);
            let to_s = index.places[to].at_s;
            let far = index.places[to].mark.offset.saturating_sub(MEMORY_BYTES);
            let is_near =
                |at: &usize| index.places[at + 1].at_s >= to_s - memory_s && index.places[*at].mark.offset >= far;
            let first = (0..to).find(is_near).unwrap_or(to);
            let place = index.places[first];
            let known = index.vms.iter().filter(|(line, _)| *line <= place.mark.line);
            self.damage = self.damage();
            self.reader.jump(place.mark, known.map(|(_, vm)| Arc::clone(vm)))?;
            self.at_s = place.at_s;
            index.places[to].mark.offset
        };
        let (mut remembered, mut buckets) = (VecDeque::new(), 0);
        while self.reader.offset() < to
            && let Some(interval) = self.next()?
        {
            buckets += interval.buckets();
            remembered.push_back(interval);
            while buckets > MEMORY_BUCKETS
                && let Some(oldest) = remembered.pop_front()
            {
                buckets -= oldest.buckets();
            }
        }
        Ok(remembered.into())
    }
}

/// The last line of a recording; none where it was cut off. Reads no more than a line may have.
fn last_line(file: &mut File) -> io::Result<Option<End>> {
    let bytes = file.metadata()?.len();
    file.seek(SeekFrom::Start(bytes.saturating_sub(LIMITS.line)))?;
    let mut tail = Vec::new();
    file.take(LIMITS.line).read_to_end(&mut tail)?;
    let Some(lines) = tail.strip_suffix(b"\n") else { return Ok(None) };
    let last = lines.rsplit(|&byte| byte == b'\n').next().unwrap_or(lines);
    Ok(match note::parse(last) {
        Ok(Note::End { end, .. }) => Some(end),
        _ => None,
    })
}

fn lock(index: &Mutex<Index>) -> MutexGuard<'_, Index> {
    index.lock().unwrap_or_else(PoisonError::into_inner)
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// Notes where each interval begins. Ends early where the file cannot be read, which the tape reports when it comes there.
fn fill(index: &Mutex<Index>, mut input: impl BufRead) {
    let mut place = Place { mark: Mark::default(), at_s: 0.0 };
    // Of the parts of an interval.
    let mut moment: Option<(u64, u64)> = None;
    let mut text = Vec::new();
    while let Ok(bytes @ 1..) = read_line(&mut input, &mut text) {
        place.mark.offset += bytes as u64;
        place.mark.line += 1;
        if place.mark.line == 1 {
            lock(index).places.push(place);
        } else if text.starts_with(note::BEGINNING) {
            match note::parse(&text) {
                Ok(Note::Vm(vm)) => lock(index).vms.push((place.mark.line, Arc::new(vm))),
                Ok(Note::Interval(interval)) => {
                    place.mark.number = interval.number.unwrap_or(0);
                    place.at_s += seconds(interval.length_ns);
                    let end_ns = interval.start_ns.saturating_add(interval.length_ns);
                    let so_far = moment.map_or((interval.start_ns, end_ns), |(start_ns, _)| (start_ns, end_ns));
                    moment = Some(so_far);
                    if !interval.more {
                        moment = None;
                        let mut index = lock(index);
                        index.places.push(place);
                        index.moments.push(so_far);
                    }
                }
                _ => {}
            }
        }
    }
    lock(index).is_complete = true;
}

/// Reads a line, of which it keeps as much as a line may have; returns its bytes.
fn read_line(input: &mut impl BufRead, text: &mut Vec<u8>) -> io::Result<usize> {
    text.clear();
    let kept = Read::take(&mut *input, LIMITS.line).read_until(b'\n', text)?;
    Ok(kept + if text.last() == Some(&b'\n') { 0 } else { input.skip_until(b'\n')? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{
            interval::tests::{event, vm},
            totals::Totals,
        },
        recording::{Writer, limits::Limits, tests::header},
    };

    /// A tape of ten seconds whose intervals are all known.
    fn tape(change: impl Fn(&mut String), on_damage: OnDamage) -> Tape {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tape.hlog");
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, &header()).unwrap();
        for n in 0..10 {
            let interval = Interval { length_ns: 1_000_000_000, ..Interval::starting(n * 1_000_000_000) };
            writer.write(&interval).unwrap();
        }
        drop(writer);
        let mut text = String::from_utf8(bytes).unwrap();
        change(&mut text);
        std::fs::write(&path, text).unwrap();
        let tape = Tape::open(&path, on_damage).unwrap();
        while !lock(&tape.index).is_complete {
            std::thread::yield_now();
        }
        tape
    }

    fn starts(intervals: &[Interval]) -> Vec<u64> {
        intervals.iter().map(|i| i.start_ns / 1_000_000_000).collect()
    }

    #[test]
    fn a_tape_plays_every_interval_and_jumps_to_any_moment() {
        let mut tape = tape(|_| {}, OnDamage::Refuse);
        while tape.position() < 0.65 {
            tape.next().unwrap().unwrap();
        }
        assert_eq!(starts(&tape.seek_by(-3.0, 2.0).unwrap()), [1, 2, 3]);
        assert_eq!(tape.next().unwrap().unwrap().start_ns, 4_000_000_000);
        assert_eq!(starts(&tape.seek_by(1e9, 1.5).unwrap()), [8, 9]);
        assert!(tape.next().unwrap().is_none() && tape.position() == 1.0);
        assert!(tape.seek_by(-1e9, 600.0).unwrap().is_empty());
        assert_eq!(tape.next().unwrap().unwrap().start_ns, 0);
    }

    #[test]
    fn a_tape_jumps_to_a_moment_on_its_clock() {
        let mut tape = tape(|_| {}, OnDamage::Refuse);
        assert_eq!(tape.range_ns(), Some((0, 10_000_000_000)));
        assert_eq!(starts(&tape.seek_to(4_500_000_000, 1.5).unwrap()), [3, 4]);
        assert_eq!(tape.next().unwrap().unwrap().start_ns, 5_000_000_000);
        assert_eq!(starts(&tape.seek_to(0, 2.0).unwrap()), [0]);
        assert_eq!(starts(&tape.seek_to(u64::MAX, 0.5).unwrap()), [9]);
        assert!(tape.next().unwrap().is_none());
    }

    #[test]
    fn a_tape_stops_at_no_part_of_an_interval() {
        let in_parts = |text: &mut String| {
            let mut bytes = Vec::new();
            let limits = Limits { series: 1, ..LIMITS };
            let mut writer = Writer::with_limits(&mut bytes, &header(), limits).unwrap();
            for n in 0..10 {
                let mut interval = Interval { length_ns: 1_000_000_000, ..Interval::starting(n * 1_000_000_000) };
                (0..3).for_each(|vcpu| interval.record(&event(vcpu, 10, 900, 1), &vm(0)));
                interval.totals = Totals { entries: 3, delivered: 3, ..interval.totals };
                writer.write(&interval).unwrap();
            }
            drop(writer);
            *text = String::from_utf8(bytes).unwrap();
        };
        let mut tape = tape(in_parts, OnDamage::Refuse);
        let whole = |interval: &Interval| (interval.length_ns, interval.totals.entries) == (1_000_000_000, 3);
        while let Some(interval) = tape.next().unwrap() {
            assert!(whole(&interval));
        }
        let remembered = tape.seek_by(-4.0, 2.0).unwrap();
        assert_eq!(starts(&remembered), [3, 4, 5]);
        let next = tape.next().unwrap().unwrap();
        assert!(remembered.iter().all(whole) && whole(&next) && next.start_ns == 6_000_000_000);
        // No interval is near enough, as where the one before the place is too many bytes.
        assert!(tape.seek_by(-3.0, f64::NEG_INFINITY).unwrap().is_empty());
        let next = tape.next().unwrap().unwrap();
        assert!(whole(&next) && next.start_ns == 4_000_000_000, "{} {}", next.start_ns, next.length_ns);
    }

    #[test]
    fn an_unknown_place_is_no_reason_to_wait() {
        let mut tape = tape(|_| {}, OnDamage::Refuse);
        {
            // As long as the thread has not come further.
            let mut index = lock(&tape.index);
            index.places.truncate(4);
            index.moments.truncate(3);
            index.is_complete = false;
        }
        assert!(tape.position() < 0.5);
        assert_eq!(starts(&tape.seek_by(9.0, 1.0).unwrap()), [1, 2]);
        assert_eq!(tape.next().unwrap().unwrap().start_ns, 3_000_000_000);
    }

    #[test]
    fn damage_is_left_out_and_stays_known_after_a_jump() {
        let damaged = |text: &mut String| *text = text.replace("\"start_ns\":4000000000", "\"start_ns\":400000000X");
        let mut tape = tape(damaged, OnDamage::Skip);
        let mut played = Vec::new();
        while let Some(interval) = tape.next().unwrap() {
            played.push(interval);
        }
        assert_eq!(starts(&played), [0, 1, 2, 3, 5, 6, 7, 8, 9]);
        assert_eq!(tape.damage().unwrap().intervals, 1);
        tape.seek_by(-2.0, 0.0).unwrap();
        assert_eq!(tape.damage().unwrap().intervals, 1);
    }
}
