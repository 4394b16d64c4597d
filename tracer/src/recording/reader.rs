//! Reads a recording, interval by interval, within the limits. Nothing that is damaged becomes a figure.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Seek, SeekFrom},
    sync::Arc,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use flate2::Crc;
use indexmap::map::Entry;

use super::{
    block::{self, Decoded, Line, tag_and_histogram},
    damage::{Damage, OnDamage},
    header::{self, End, Header, Label},
    limits::{LIMITS, Limits},
    lines::Lines,
    note::{self, Note, Times},
    seal::{self, Closing},
    sums::{self, Span, TIMES},
    tag::tag,
};
use crate::model::{
    budget::Budget,
    figures::Figure,
    interval::{Interval, MAX_SERIES, Vm},
    series::{Key, Series},
    totals::Totals,
};

/// Histograms as they are written, by the places of an interval's series, and by figure. What is empty is not written.
pub(crate) type AsWritten = Vec<[Option<Box<[u8]>>; Figure::ALL.len()]>;

/// Reads a recording interval by interval.
pub struct Reader<R: BufRead> {
    input: R,
    limits: Limits,
    /// bytes read
    offset: u64,
    /// lines read
    line: u64,
    header: Header,
    /// JSON lines have checksums, and interval lines have numbers
    sealed: bool,
    /// [`Self::without_series`]
    without_series: bool,
    /// [`Self::take_as_written`]; none where that is not kept
    as_written: Option<AsWritten>,
    on_damage: OnDamage,
    damage: Option<Damage>,
    /// interval lines since the damage that no whole interval has followed yet
    since_damage: Option<u64>,
    /// of the bytes since the last JSON line
    crc: Crc,
    vms: BTreeMap<u32, Arc<Vm>>,
    latest: Latest,
    /// read while [`Self::read_joined`] looked for the rest of an interval
    ahead: Option<Interval>,
    end: Option<End>,
    torn: bool,
    counts: u64,
    /// counts of the intervals read; none where some were skipped by a jump
    sums: Option<Totals>,
    lines: Lines,
}

/// A place between two intervals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// bytes before it
    pub(super) offset: u64,
    /// lines before it
    pub(super) line: u64,
    /// number of the interval before it
    pub(super) number: u64,
}

/// What the last interval line says, apart from the interval.
#[derive(Clone, Copy, Default)]
struct Latest {
    window: Option<Label>,
    source: usize,
    number: u64,
    continues: bool,
    more: bool,
}

/// An interval while its lines are read.
#[derive(Default)]
struct Draft {
    interval: Interval,
    /// of each of its series, those of [`TIMES`]
    spans: Vec<[Span; TIMES.len()]>,
    /// its histograms, where they are kept as they are written
    as_written: AsWritten,
    buckets: usize,
    counts: u64,
    /// a line was damaged; set where only sums could show that
    damaged: bool,
    /// its series were left out
    without_series: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads the header. Foreign files, recordings of a later version and a damaged header are an error.
    pub fn new(input: R) -> Result<Self> {
        Self::with_limits(input, OnDamage::Refuse, LIMITS)
    }

    /// Like [`Self::new`]; `on_damage` says what happens at a damaged line.
    pub fn careful(input: R, on_damage: OnDamage) -> Result<Self> {
        Self::with_limits(input, on_damage, LIMITS)
    }

    pub(super) fn with_limits(mut input: R, on_damage: OnDamage, limits: Limits) -> Result<Self> {
        let mut first = Vec::new();
        // A header is a few kilobytes, that of a merge has those of its sources; a foreign file may be one line without end.
        io::Read::take(&mut input, limits.line).read_until(b'\n', &mut first).context("read the header")?;
        if first.len() as u64 == limits.line && !first.ends_with(b"\n") && header::is_header(&first) {
            bail!(
                "the header has more than {} bytes, the limit of a line: merge fewer recordings into one",
                limits.line
            );
        }
        let header = header::parse(&first)?;
        let mut reader = Self {
            input,
            limits,
            offset: first.len() as u64,
            line: 1,
            sealed: false,
            without_series: false,
            as_written: None,
            on_damage,
            damage: None,
            since_damage: None,
            crc: seal::begin(&header),
            header,
            vms: BTreeMap::new(),
            latest: Latest::default(),
            ahead: None,
            end: None,
            torn: false,
            counts: 0,
            sums: Some(Totals::default()),
            lines: Lines::default(),
        };
        if let Some((body, crc)) = seal::split(&first, Closing::Header) {
            reader.sealed = true;
            if checksum(body) != crc {
                reader.found(anyhow!("its checksum is wrong")).map_err(|why| reader.refusal(&why))?;
            }
        }
        Ok(reader)
    }

    /// Leaves the series of its intervals out, where checksums tell that they are as they were written: no histogram is decoded. What is
    /// written wrongly is not found.
    pub(crate) fn without_series(mut self) -> Self {
        self.without_series = self.sealed;
        self
    }

    /// Keeps the histograms of each interval also as they are written, for [`Self::take_as_written`].
    pub(crate) fn keeping_as_written(mut self) -> Self {
        self.as_written = Some(AsWritten::new());
        self
    }

    /// The histograms of the latest interval, as they are written; none without [`Self::keeping_as_written`].
    pub(crate) fn take_as_written(&mut self) -> AsWritten {
        self.as_written.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The last line, after all intervals were read; none where the recording was cut off.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// The window that the latest interval belongs to; none between windows and outside of experiments.
    pub fn window(&self) -> Option<Label> {
        self.latest.window
    }

    /// Index in [`Header::sources`] of the latest interval; 0 where the recording is no merge.
    pub fn source(&self) -> usize {
        self.latest.source
    }

    /// Whether the latest interval goes on with the one before, whose series were too many for one.
    pub(crate) fn continues(&self) -> bool {
        self.latest.continues
    }

    /// Whether the next interval goes on with the latest one.
    pub(crate) fn has_more(&self) -> bool {
        self.latest.more
    }

    /// Whether the file ended within an interval or a line: the recorder was killed, the disk was full.
    pub(crate) fn is_torn(&self) -> bool {
        self.torn
    }

    /// Lines read.
    pub(crate) fn line(&self) -> u64 {
        self.line
    }

    /// Bytes read.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// What was left out of `file` so far; none where nothing was.
    pub(crate) fn damage_of(&self, file: &str) -> Option<Damage> {
        self.damage.clone().map(|damage| Damage { file: file.to_owned(), ..damage })
    }

    /// The next whole interval; none at the end.
    pub fn read_interval(&mut self) -> Result<Option<Interval>> {
        // Apart, because the lines in it are taken with the rest of the reader.
        let mut lines = std::mem::take(&mut self.lines);
        let interval = self.read_from(&mut lines);
        self.lines = lines;
        interval
    }

    fn read_from(&mut self, lines: &mut Lines) -> Result<Option<Interval>> {
        let mut draft = Draft::default();
        loop {
            let taken = match self.read_line(lines)? {
                Line::End => {
                    self.torn |= draft.has_series() || self.latest.more;
                    self.count_left_out(None);
                    return Ok(None);
                }
                Line::Cut if self.end.is_none() => {
                    self.torn = true;
                    self.count_left_out(None);
                    return Ok(None);
                }
                Line::TooLong => Err(anyhow!("it is longer than {} bytes", self.limits.line)),
                Line::Cut | Line::Whole => self.take(lines, &mut draft),
            };
            match taken {
                Ok(true) => return Ok(Some(draft.interval)),
                Ok(false) => {}
                Err(error) => {
                    self.found(error).map_err(|why| self.refusal(&why))?;
                    let text = lines.text();
                    // Its checksum tells whether an interval is whole. Without one, whatever is in it belongs to the damage.
                    let ended =
                        text.starts_with(note::INTERVAL) || text.starts_with(note::BEGINNING) && draft.has_series();
                    draft = Draft { damaged: !self.sealed && !ended, ..Draft::default() };
                    self.crc = seal::begin(&self.header);
                    self.since_damage = self.since_damage.map(|n| n + u64::from(ended));
                }
            }
        }
    }

    /// The next interval together with those that go on with it; none at the end. Rates need whole intervals: the length of what goes on is 0.
    pub(crate) fn read_joined(&mut self) -> Result<Option<Interval>> {
        let first = match self.ahead.take() {
            None => self.read_interval()?,
            ahead => ahead,
        };
        let Some(mut whole) = first else { return Ok(None) };
        let mut buckets = whole.buckets();
        // A recorder's interval has no more than this. What is over it comes as an interval of its own, without a length.
        while self.has_more() && whole.series.len() < MAX_SERIES && buckets < self.limits.joined {
            let next = self.read_interval()?;
            match next {
                Some(part) if self.continues() => buckets += whole.absorb(part),
                // A damaged end of the interval was left out.
                next => {
                    self.ahead = next;
                    break;
                }
            }
        }
        Ok(Some(whole))
    }

    /// Takes the next line.
    fn read_line(&mut self, lines: &mut Lines) -> Result<Line> {
        let skips = self.on_damage == OnDamage::Skip;
        let (line, bytes) = lines.next(&mut self.input, &self.limits, skips, !self.without_series)?;
        self.line += u64::from(line != Line::End);
        self.offset += bytes;
        Ok(line)
    }

    /// Notes that the latest line is damaged; returns `why` where that is an error.
    fn found(&mut self, why: anyhow::Error) -> Result<()> {
        if self.on_damage == OnDamage::Refuse {
            return Err(why);
        }
        if self.since_damage.is_none() {
            match &mut self.damage {
                Some(damage) => damage.add_line(self.line),
                none => *none = Some(Damage::at(self.line, format!("{why:#}"))),
            }
            self.since_damage = Some(0);
        }
        Ok(())
    }

    fn refusal(&self, why: &anyhow::Error) -> anyhow::Error {
        anyhow!("line {} is damaged: {why:#} (--skip-damaged leaves out its interval and reads the rest)", self.line)
    }

    /// Counts the intervals left out since the last whole one. `number`: of the interval after them, where it is known.
    fn count_left_out(&mut self, number: Option<u64>) {
        let since = self.since_damage.take().unwrap_or(0);
        if let Some(damage) = &mut self.damage {
            let missing = number.filter(|_| self.sealed).map(|n| n.saturating_sub(self.latest.number + 1));
            damage.intervals = damage.intervals.saturating_add(missing.unwrap_or(since));
        }
    }

    /// Takes a line; returns whether it completes the interval.
    fn take(&mut self, lines: &mut Lines, draft: &mut Draft) -> Result<bool> {
        ensure!(self.end.is_none(), "it comes after the last line");
        let text = lines.text();
        if text.starts_with(note::BEGINNING) {
            self.check_seal(text)?;
            return match note::parse(text)? {
                Note::Vm(vm) => self.take_vm(vm).map(|()| false),
                Note::Interval(note) => self.take_interval(*note, draft),
                Note::End { end, intervals } => self.take_end(end, intervals).map(|()| false),
            };
        }
        self.crc.update(text);
        if text.starts_with(block::HISTOGRAM) {
            if self.without_series {
                draft.without_series = true;
            } else {
                let decoded = lines.histogram()?;
                let encoded =
                    self.as_written.as_ref().filter(|_| decoded.is_exact).and_then(|_| tag_and_histogram(lines.text()));
                self.take_histogram(decoded, encoded.map(|(_, encoded)| encoded), draft)?;
            }
        } else if !text.starts_with(b"#") && !text.starts_with(b"\"StartTimestamp\"") {
            bail!("neither a histogram nor a comment");
        }
        Ok(false)
    }

    /// Holds the checksum of a JSON line against the bytes since the last one.
    fn check_seal(&mut self, text: &[u8]) -> Result<()> {
        let mut crc = std::mem::replace(&mut self.crc, seal::begin(&self.header));
        match seal::split(text, Closing::Note) {
            Some((body, expected)) => {
                if !self.sealed {
                    // The header's own checksum cannot be recognised any more.
                    self.sealed = true;
                    self.found(anyhow!("the header's checksum is missing"))?;
                }
                crc.update(body);
                ensure!(crc.sum() == expected, "the checksum of this line and those before it is wrong");
            }
            None => ensure!(!self.sealed, "its checksum is missing"),
        }
        Ok(())
    }

    fn take_vm(&mut self, vm: Vm) -> Result<()> {
        let id = vm.id;
        ensure!(self.vms.insert(id, Arc::new(vm)).is_none(), "vm {id} is introduced twice");
        Ok(())
    }

    /// Completes an interval, unless it is damaged.
    fn take_interval(&mut self, note: note::Interval, draft: &mut Draft) -> Result<bool> {
        let note::Interval { start_ns, length_ns, totals, times, window, source, number, more } = note;
        ensure!(!draft.damaged, "a line of its interval is damaged");
        let source = source.unwrap_or(0) as usize;
        ensure!(
            source < self.header.sources.len().max(1),
            "an interval of recording {source}, which the header does not know"
        );
        for n in totals.counts() {
            draft.counts = self.count(n, draft)?;
        }
        let has_series = draft.has_series();
        let interval = &mut draft.interval;
        (interval.start_ns, interval.length_ns, interval.totals) = (start_ns, length_ns, totals);
        if !draft.without_series {
            take_times(times, interval)?;
            sums::check(interval, self.header.aggregation_of(source), Some(&draft.spans))?;
        }
        let expected = self.latest.number + 1;
        let number = if self.sealed { number.context("an interval without a number")? } else { expected };
        ensure!(number >= expected, "interval {number} comes after interval {}", self.latest.number);
        if number > expected {
            self.found(anyhow!("interval {number} comes after interval {}", self.latest.number))?;
        }
        // What goes on has no length; after damage the next interval may be another one.
        let continues = self.latest.more && number == expected && length_ns == 0;
        // An interval that was split comes without the time of a lost first part: its rates would be wrong.
        ensure!(length_ns > 0 || !has_series || continues || !self.sealed, "its interval began in a part that is lost");
        self.counts += draft.counts;
        self.sums.iter_mut().for_each(|sums| sums.merge(&interval.totals));
        self.count_left_out(Some(number));
        self.latest = Latest { window, source, number, continues, more };
        if let Some(as_written) = &mut self.as_written {
            *as_written = std::mem::take(&mut draft.as_written);
        }
        Ok(true)
    }

    fn take_end(&mut self, end: End, intervals: Option<u64>) -> Result<()> {
        self.count(end.accounting.open, &Draft::default())?;
        if let Some(intervals) = intervals {
            let read = self.latest.number;
            ensure!(intervals >= read, "the recording has {intervals} intervals, and this file {read}");
            if intervals > read {
                self.found(anyhow!("the recording has {intervals} intervals, and this file {read}"))?;
            }
            self.count_left_out(Some(intervals + 1));
        }
        let accounted = self.check_accounting(&end);
        self.end = Some(end);
        accounted.or_else(|why| self.found(why))
    }

    /// Holds the intervals against the accounting at the end, where it is of this recording and of all its intervals: not of a merge, whose
    /// recordings may have ended without one, and not where earlier recorders left intervals out and did not count them.
    fn check_accounting(&self, end: &End) -> Result<()> {
        let Some(read) = self.sums.filter(|_| self.header.sources.is_empty() && self.damage.is_none()) else {
            return Ok(());
        };
        let is_known = !end.accounting.cpus.is_empty() && end.accounting.exact;
        let may_lack = !self.sealed && end.reason.contains("KVM module");
        if !is_known || may_lack { Ok(()) } else { sums::check_accounting(&read, &end.accounting) }
    }

    /// Takes the histogram of a line; `encoded`: as it is written, where that is kept.
    fn take_histogram(&mut self, decoded: Decoded, encoded: Option<&[u8]>, draft: &mut Draft) -> Result<()> {
        let Decoded { key, figure, histogram, span, .. } = decoded;
        let at = self.place_of(key, &mut draft.interval)?;
        let series = &mut draft.interval.series[at];
        ensure!(series[figure].count() == 0, "a histogram twice in an interval: '{}'", tag(&key, figure));
        let sum = histogram.count();
        ensure!(sum > 0, "a histogram without values");
        draft.buckets += histogram.len();
        if draft.buckets > self.limits.buckets {
            bail!("more than {} buckets in an interval", self.limits.buckets);
        }
        series[figure] = histogram;
        draft.spans.resize(draft.interval.series.len(), Default::default());
        if let Some(time) = TIMES.iter().position(|time| *time == figure) {
            draft.spans[at][time] = span;
        }
        if let Some(encoded) = encoded {
            draft.as_written.resize(draft.interval.series.len(), Default::default());
            draft.as_written[at][figure as usize] = Some(encoded.into());
        }
        draft.counts = self.count(sum, draft)?;
        Ok(())
    }

    /// Place of a key's series, which may be new.
    fn place_of(&mut self, key: Key, interval: &mut Interval) -> Result<usize> {
        let known = interval.series.len();
        // Mostly, the line before was of the same series.
        if interval.series.last().is_some_and(|(last, _)| *last == key) {
            return Ok(known - 1);
        }
        let vm = match self.vms.get(&key.vm) {
            Some(vm) => vm,
            // Its line was damaged; its entries need not be lost with its name.
            None if self.damage.is_some() && self.sealed => {
                let nameless = Vm { id: key.vm, name: format!("vm-{}", key.vm), ..Vm::default() };
                self.vms.entry(key.vm).or_insert_with(|| Arc::new(nameless))
            }
            None => bail!("vm {} was not introduced", key.vm),
        };
        interval.vms.entry(key.vm).or_insert_with(|| Arc::clone(vm));
        match interval.series.entry(key) {
            Entry::Occupied(series) => Ok(series.index()),
            Entry::Vacant(_) if known >= self.limits.series => {
                bail!("more than {} series in an interval", self.limits.series)
            }
            Entry::Vacant(place) => {
                place.insert(Series::default());
                Ok(known)
            }
        }
    }

    /// The draft's counts with `n` more. Bounds the sum of all counts, so that sums of counts never overflow downstream.
    fn count(&self, n: u64, draft: &Draft) -> Result<u64> {
        let counts = draft.counts.saturating_add(n);
        if self.counts.saturating_add(counts) > self.limits.counts {
            bail!("its counts add up to more than {}", self.limits.counts);
        }
        Ok(counts)
    }
}

impl<R: BufRead + Seek> Reader<R> {
    /// Goes on at another place, before which `vms` were introduced. What was left out until now is forgotten.
    pub(super) fn jump(&mut self, mark: Mark, vms: Vec<Arc<Vm>>) -> Result<()> {
        self.input.seek(SeekFrom::Start(mark.offset)).context("read")?;
        self.damage = None;
        self.stand_at(mark, vms);
        Ok(())
    }
}

impl<R: BufRead> Reader<R> {
    /// Goes on as if it had come to a place, from which on the input has the recording.
    pub(super) fn stand_at(&mut self, mark: Mark, vms: Vec<Arc<Vm>>) {
        (self.offset, self.line) = (mark.offset, mark.line);
        self.vms = vms.into_iter().map(|vm| (vm.id, vm)).collect();
        self.latest = Latest { number: mark.number, ..Latest::default() };
        self.crc = seal::begin(&self.header);
        self.ahead = None;
        self.lines.clear();
        (self.since_damage, self.end, self.torn, self.counts) = (None, None, false, 0);
        self.sums = None;
    }
}

impl Draft {
    fn has_series(&self) -> bool {
        self.without_series || !self.interval.series.is_empty()
    }
}

/// Gives series their sums of times: those of the interval's line, or else of their distributions.
fn take_times(times: Option<Vec<Times>>, interval: &mut Interval) -> Result<()> {
    let Some(times) = times else {
        interval.series.values_mut().for_each(|series| series.budget = Budget::of_distributions(series));
        return Ok(());
    };
    let series = interval.series.len();
    ensure!(times.len() == series, "sums of times of {} series, and there are {series}", times.len());
    for (times, series) in times.iter().zip(interval.series.values_mut()) {
        series.budget = times.0;
    }
    Ok(())
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}
