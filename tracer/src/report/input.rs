//! Opens recordings and adds them to a report.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Cursor},
    ops::Range,
    path::Path,
};

use anyhow::{Context, Result};

use super::Report;
use crate::{
    model::{
        interval::{Interval, absorb},
        interval_sum::IntervalSum,
        knowledge::Knowledge,
    },
    output::shown,
    recording::{
        End, Excerpt, OnDamage, Provenance, Reader, Reading, Readings,
        ahead::{Ahead, IntervalRead},
        open_file,
    },
};

/// Opens a recording and reads its header; '-' is standard input.
pub(crate) fn open(path: &Path, on_damage: OnDamage) -> Result<Reader<Box<dyn BufRead + Send>>> {
    bytes(path).and_then(|bytes| Reader::careful(bytes, on_damage)).with_context(|| format!("read {}", shown(path)))
}

fn bytes(path: &Path) -> Result<Box<dyn BufRead + Send>> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    Ok(Box::new(BufReader::with_capacity(1 << 16, open_file(path)?)))
}

/// Adds the recording in a file to a report; '-' is standard input. Returns its index among the report's recordings; none for a merge.
pub(crate) fn read(path: &Path, on_damage: OnDamage, report: &mut Report) -> Result<Option<usize>> {
    let name = shown(path);
    let failed = format!("read {name}");
    add(open(path, on_damage)?, name, None, report).context(failed)
}

/// Adds the intervals of a recording that begin in the span which `find` finds between the recording's ends, all in ns since 1970.
pub(crate) fn read_part(
    path: &Path,
    on_damage: OnDamage,
    find: impl FnOnce((u64, u64)) -> Result<Range<u64>>,
    report: &mut Report,
) -> Result<()> {
    let failed = || format!("read {}", shown(path));
    let excerpt = Excerpt::open(path, on_damage)?;
    let anchor = excerpt.header().anchor;
    let (first_ns, last_ns) = excerpt.range_ns().unwrap_or_default();
    let span = find((anchor.to_unix_ns(first_ns), anchor.to_unix_ns(last_ns)))?;
    let end = excerpt.end().cloned();
    let on_its_clock = anchor.to_monotonic_ns(span.start)..anchor.to_monotonic_ns(span.end);
    let reader = excerpt.read(&on_its_clock).with_context(failed)?;
    add(reader, shown(path), Some((span, end)), report).with_context(failed).map(drop)
}

/// Adds the recording in `bytes`, or the recordings that it is a merge of, to a report. `name` is shown for its file.
pub fn read_from(bytes: &[u8], name: String, on_damage: OnDamage, report: &mut Report) -> Result<()> {
    add(Reader::careful(Cursor::new(bytes.to_vec()), on_damage)?, name, None, report).map(drop)
}

/// Notes which recordings a file has, and how they ended, in `report.sources`; their intervals are only counted. What is left out of a
/// damaged file must be known exactly; otherwise series that are written wrongly are found when they are read.
pub(crate) fn read_sources(path: &Path, on_damage: OnDamage, report: &mut Report) -> Result<()> {
    let name = shown(path);
    let failed = format!("read {name}");
    let reader = open(path, on_damage)?;
    let reader = if on_damage == OnDamage::Refuse { reader.without_series() } else { reader };
    each(reader, name, None, report, |_, _, _, _| Ok(())).context(failed).map(drop)
}

/// A part of a recording: the span in which its intervals begin, ns since 1970, and the recording's last line.
type Extract = (Range<u64>, Option<End>);

fn add(
    reader: Reader<impl BufRead + Send + 'static>,
    name: String,
    part: Option<Extract>,
    report: &mut Report,
) -> Result<Option<usize>> {
    let (mut vms, mut sum) = (BTreeMap::new(), IntervalSum::new(report.kept()));
    let last = each(reader, name, part, report, |report, at, interval, line| {
        report.timeline.add(at, interval.start_ns, &interval);
        sum.add(report.admit(at, interval, &mut vms));
        report.check_size(sum.held(), line).or_else(|_| report.check_size(sum.least_held(), line))
    });
    report.absorb(sum.finish());
    last
}

/// Gives each interval, or each one of a part, to `take`, with the index of its recording and its last line.
fn each(
    reader: Reader<impl BufRead + Send + 'static>,
    name: String,
    part: Option<Extract>,
    report: &mut Report,
    mut take: impl FnMut(&mut Report, usize, Interval, u64) -> Result<()>,
) -> Result<Option<usize>> {
    let mut input = Input::new(reader, name, &mut report.sources, &mut report.readings)?;
    while let Some((at, IntervalRead { interval, continues, line, .. })) = input.next(&mut report.readings)? {
        if part.as_ref().is_some_and(|(span, _)| !span.contains(&interval.start_ns)) {
            continue;
        }
        report.sources[at].intervals += u64::from(!continues);
        let length_ns = &mut report.sources[at].length_ns;
        *length_ns = length_ns.saturating_add(interval.length_ns);
        take(report, at, interval, line)?;
    }
    report.repeats.extend(input.finish(&mut report.sources));
    if let Some((_, end)) = part {
        input.end_of_part(end, &mut report.sources);
    }
    let is_merge = !input.file.header().sources.is_empty();
    Ok((!is_merge).then(|| input.parts[0].reading.recording))
}

/// A file that is read, beside others that may have parts of the same recordings.
pub(crate) struct Input {
    pub(crate) file: Ahead,
    name: String,
    /// by [`IntervalRead::source`]
    parts: Vec<Part>,
}

/// Takes from an interval what the header of its recording does not know, whatever its tags say. Returns whether each series has its key
/// still.
fn keep_known(knowledge: &Knowledge, interval: &mut Interval) -> bool {
    interval.series.values_mut().for_each(|series| knowledge.keep_known(series));
    if interval.series.keys().all(|key| knowledge.known_key(*key) == *key) {
        return true;
    }
    for (key, series) in std::mem::take(&mut interval.series) {
        absorb(interval.series.entry(knowledge.known_key(key)), series);
    }
    false
}

/// A recording, or a part of one, in a file.
struct Part {
    reading: Reading,
    /// what its header knows, where that is not everything
    knowledge: Option<Knowledge>,
    /// whether the latest interval counts
    is_new: bool,
    intervals: u64,
    /// intervals that another file had
    repeated: u64,
}

impl Input {
    /// Begins to read a file. `recordings` gets those of the file that are not there yet.
    pub(crate) fn new(
        reader: Reader<impl BufRead + Send + 'static>,
        name: String,
        recordings: &mut Vec<Provenance>,
        readings: &mut Readings,
    ) -> Result<Self> {
        let header = reader.header();
        let merged = header.sources.iter().map(|s| Provenance::unread(s.name.clone(), s.header.clone()));
        let alone = header.sources.is_empty().then(|| Provenance::unread(name.clone(), header.clone()));
        let begin = |source: Provenance| {
            let knowledge = Some(source.header.knowledge()).filter(|known| known.unknown().next().is_some());
            let reading = readings.begin(recordings, source)?;
            Ok(Part { reading, knowledge, is_new: true, intervals: 0, repeated: 0 })
        };
        let parts = merged.chain(alone).map(begin).collect::<Result<_>>()?;
        Ok(Self { file: Ahead::new(reader)?, name, parts })
    }

    /// The next interval that no other file had, with the index of its recording. It starts in ns since 1970.
    pub(crate) fn next(&mut self, readings: &mut Readings) -> Result<Option<(usize, IntervalRead)>> {
        while let Some(mut read) = self.file.next()? {
            let interval = &mut read.interval;
            interval.start_ns = self.file.header().anchor.to_unix_ns(interval.start_ns);
            let part = &mut self.parts[read.source];
            if !read.continues {
                part.is_new = readings.admit(part.reading, interval.start_ns, interval.length_ns);
                part.intervals += 1;
                part.repeated += u64::from(!part.is_new);
            }
            if part.is_new {
                let has_keys = part.knowledge.as_ref().is_none_or(|known| keep_known(known, &mut read.interval));
                if !has_keys {
                    read.as_written.clear();
                }
                return Ok(Some((part.reading.recording, read)));
            }
        }
        Ok(None)
    }

    /// Notes how the file's recordings ended; returns what to say about those that another file had.
    pub(crate) fn finish(&self, recordings: &mut [Provenance]) -> Vec<String> {
        let mut repeats = Vec::new();
        let (header, torn) = (self.file.header(), self.file.is_torn());
        for (at, part) in self.parts.iter().enumerate() {
            let recording = &mut recordings[part.reading.recording];
            let (end, torn) = match header.sources.get(at) {
                None => (self.file.end().cloned(), torn),
                // A merge that was cut off may lack the rest of any of them.
                Some(merged) => (merged.end.clone().filter(|_| self.file.end().is_some()), merged.torn || torn),
            };
            let also_in = header.sources.get(at).map_or(&[][..], |merged| &merged.also_in);
            if part.reading.file == 0 {
                (recording.end, recording.torn) = (end, torn);
            } else {
                if recording.end.is_none() && end.is_some() {
                    (recording.end, recording.torn) = (end, torn);
                }
                let name = header.sources.get(at).map_or(&self.name, |merged| &merged.name);
                recording.also_in.push(name.clone());
                repeats.extend(self.repeat(part, name, &recording.name));
            }
            recording.also_in.extend_from_slice(also_in);
            for damage in header.sources.get(at).map_or(&[][..], |merged| &merged.damage) {
                if !recording.damage.contains(damage) {
                    recording.damage.push(damage.clone());
                }
            }
        }
        if let Some(first) = self.parts.first() {
            recordings[first.reading.recording].damage.extend(self.file.damage_of(&self.name));
        }
        repeats
    }

    /// Notes how the file's recordings ended, of which a part was read: what comes behind the part says it.
    fn end_of_part(&self, end: Option<End>, recordings: &mut [Provenance]) {
        let merged = &self.file.header().sources;
        for (at, part) in self.parts.iter().enumerate() {
            let recording = &mut recordings[part.reading.recording];
            let its_end = merged.get(at).map_or(end.as_ref(), |merged| merged.end.as_ref().filter(|_| end.is_some()));
            if recording.end.is_none() {
                recording.end = its_end.cloned();
            }
        }
    }

    /// What to say about a recording of which another file had a part; none if no interval was in both.
    fn repeat(&self, part: &Part, name: &str, first: &str) -> Option<String> {
        let merge = if name == self.name { String::new() } else { format!("{}: ", self.name) };
        let Part { intervals, repeated, .. } = part;
        if repeated == intervals {
            let again = if name == first {
                "it was given before".into()
            } else {
                format!("it is the same recording as {first}")
            };
            return Some(format!("{merge}{name}: {again}, and counts once"));
        }
        (*repeated > 0).then(|| {
            format!("{merge}{name}: {repeated} of its {intervals} intervals are also in {first}, and count once")
        })
    }
}
