//! Recordings: an HDR interval log (HdrHistogram tools open it) whose comment lines carry, as JSON, what is no
//! distribution. Documented in the README's format section.
//!
//! ```text
//! #{"format":"vmentry-recording","version":2,...}              header, first line
//! #{"vm":{"id":0,"name":"web1",...}}                           before the first interval that speaks of it
//! Tag=vm=0;vcpu=0;level=L1;isa=vmx;reason=52;entry=clean;cause=deadline;figure=entry_to_exit_ns,<start>,<length>,<max>,HIST...
//! #{"interval":{"start_ns":...,"length_ns":...,"totals":{...}}} completes an interval; with "window" one of an experiment
//! #{"end":{...}}                                               only when the recording ended in order
//! ```

pub mod hdr;
pub(crate) mod tape;

use std::{
    collections::{BTreeMap, HashSet},
    io::{self, BufRead, Write},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine as _;
use hdrhistogram::serialization::{
    V2DeflateSerializer,
    interval_log::{IntervalLogIterator, IntervalLogWriterBuilder, LogEntry, Tag},
};
use serde::{Deserialize, Serialize};
use tracer_common::{Isa, rules::TimerCause};

use crate::{
    host::{clock::Anchor, machine::Host},
    kernel::vmwrite_sites::Site,
    model::{
        accounting::Accounting,
        figures::Figure,
        histogram::{DIGITS, Histogram},
        interval::{EntryKind, Interval, Key, Level, MAX_SERIES, Series, Totals, Vm},
        measurement::{Aggregation, Latency, PinSource, Stopwatch, Timer},
        policy::Policy,
    },
};

/// Value of [`Header::format`].
pub const FORMAT: &str = "vmentry-recording";
/// Version this program writes; it reads no later one. 2 has the figure `transition_ns`, which readers of 1 refuse.
pub const VERSION: u32 = 2;

const LEGEND: &str = "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";

/// Bytes of a line at most: a histogram with every bucket there is takes 700 KiB.
pub const MAX_LINE: u64 = 4 << 20;
/// All counts of a recording together: more is not counted in a human's life, and sums of these need no care.
const MAX_COUNTS: u64 = 1 << 53;
/// Buckets of an interval's histograms: 200 MB of memory. A line of a few hundred bytes could make a megabyte of them.
const MAX_BUCKETS: usize = 8 << 20;

/// First line of a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`]
    pub format: String,
    /// [`VERSION`] of the writer
    pub version: u32,
    /// e.g. "vmentry 0.1.0"
    pub tool: String,
    /// the recorder's command line
    pub command: Vec<String>,
    /// what the user called it
    pub label: Option<String>,
    /// the same moment on CLOCK_MONOTONIC and on the wall
    pub anchor: Anchor,
    /// length of an interval that was asked for, ns
    pub interval_ns: u64,
    /// bytes of one CPU's ring
    pub ring_bytes: u32,
    /// the host
    pub host: Host,
    /// timer policy at the beginning
    pub policy: Policy,
    /// source of `pin_writes`
    pub pin_writes_source: PinSource,
    /// what the latencies are worth
    #[serde(default)]
    pub latency: Latency,
    /// where entries were counted
    #[serde(default, skip_serializing_if = "Aggregation::is_usual")]
    pub aggregation: Aggregation,
    /// the preemption timer; none without VMX
    #[serde(default)]
    pub timer: Option<Timer>,
    /// CPUs without a periodic tick, as in nohz_full
    #[serde(default)]
    pub tickless_cpus: String,
    /// the stopwatch that `transition_ns` comes from; none where it is that of entries that were forced to exit at once
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopwatch: Option<Stopwatch>,
    /// VMWRITE sites of the pin controls that were counted
    #[serde(default)]
    pub sites: Vec<Site>,
    /// what this kernel does not tell: field and what is n/a without it
    pub missing: Vec<String>,
    /// the experiment that this is a recording of; none of an ordinary one
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experiment: Option<Experiment>,
    /// the recordings that this one is a merge of; empty of an ordinary one. What they differ in is told by their own headers
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Provenance>,
}

impl Header {
    /// Where `transition_ns` comes from: "stopwatch", or "immediate" for that of entries that were forced to exit at once.
    pub fn transition_source(&self) -> &'static str {
        if self.stopwatch.is_some() { "stopwatch" } else { "immediate" }
    }
}

/// One recording of several that are reported on, or were merged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// the file, as it was given
    pub name: String,
    /// its header
    pub header: Header,
    /// how it ended; none where it was cut off
    pub end: Option<End>,
    /// ended within an interval or a line
    pub torn: bool,
    /// whole intervals read
    pub intervals: u64,
    /// ns of observation
    pub length_ns: u64,
}

/// Where entries were counted, of several recordings: the coarsest.
pub fn aggregation(sources: &[Provenance]) -> Aggregation {
    let in_kernel = sources.iter().any(|s| s.header.aggregation == Aggregation::InKernel);
    if in_kernel { Aggregation::InKernel } else { Aggregation::Records }
}

impl Provenance {
    /// The timer policy, where it was the same from beginning to end.
    pub fn policy(&self) -> Policy {
        let changed = self.end.as_ref().is_some_and(|e| e.policy_changed) || self.header.experiment.is_some();
        if changed { Policy::Unknown } else { self.header.policy }
    }

    /// The policy in words, also where it changed.
    pub fn policy_text(&self) -> String {
        let name = self.header.policy.name();
        match &self.header.experiment {
            Some(e) => format!(
                "{name} at the beginning, then {} and {} by turns (see 'vmentry compare')",
                e.arms[0], e.arms[1]
            ),
            None if self.policy() == self.header.policy => name.into(),
            None => format!("{name} at the beginning, another at the end"),
        }
    }
}

/// Two settings of the host, by turns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Experiment {
    /// name of each setting, e.g. "soft": A, then B
    pub arms: [String; 2],
    /// what switches to each: a policy's name, or a command of the user's
    pub switches: [String; 2],
    /// length of a window that was asked for, ns
    pub window_ns: u64,
    /// what is left out after each switch, ns
    pub washout_ns: u64,
    /// rounds that were asked for, of four windows each
    pub rounds: u32,
    /// of the order of the windows
    pub seed: u64,
}

/// Which window of an experiment an interval is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// 0 for A, 1 for B
    pub arm: u8,
    /// from 0
    pub round: u32,
    /// place within the round, 0..=3
    pub place: u8,
}

/// Last line of a recording that ended in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// why it ended, e.g. "duration", "SIGINT"
    pub reason: String,
    /// the balance
    pub accounting: Accounting,
    /// TSC frequency measured over the recording, kHz; none of a recording under a tenth of a second
    #[serde(default)]
    pub tsc_khz: Option<u32>,
    /// the timer policy at the end was another than at the beginning
    #[serde(default)]
    pub policy_changed: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Note {
    Vm(Vm),
    Interval {
        start_ns: u64,
        length_ns: u64,
        totals: Box<Totals>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window: Option<Label>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<u32>,
    },
    End(End),
}

fn tag(key: &Key, figure: Figure) -> String {
    let isa = match key.isa {
        Isa::Vmx => "vmx",
        Isa::Svm => "svm",
        Isa::Other => "other",
    };
    let reason = key.reason.map_or("unknown".to_owned(), |r| r.to_string());
    let mut tag = format!(
        "vm={};vcpu={};level={};isa={isa};reason={reason};entry={};",
        key.vm,
        key.vcpu,
        key.level.name(),
        key.entry.name(),
    );
    if let Some(cause) = key.cause {
        tag += &format!("cause={};", cause.name());
    }
    tag + "figure=" + figure.name()
}

fn parse_tag(tag: &str) -> Option<(Key, Figure)> {
    let mut key = Key {
        vm: 0,
        vcpu: 0,
        level: Level::Unknown,
        isa: Isa::Other,
        reason: None,
        entry: EntryKind::Unknown,
        cause: None,
    };
    let mut figure = None;
    for part in tag.split(';') {
        let (name, value) = part.split_once('=')?;
        match name {
            "vm" => key.vm = value.parse().ok()?,
            "vcpu" => key.vcpu = value.parse().ok()?,
            "level" => key.level = Level::parse(value)?,
            "isa" => {
                key.isa = match value {
                    "vmx" => Isa::Vmx,
                    "svm" => Isa::Svm,
                    "other" => Isa::Other,
                    _ => return None,
                }
            }
            "reason" if value == "unknown" => key.reason = None,
            "reason" => key.reason = Some(value.parse().ok()?),
            "entry" => key.entry = EntryKind::parse(value)?,
            "cause" => key.cause = Some(TimerCause::ALL.into_iter().find(|c| c.name() == value)?),
            "figure" => figure = Some(Figure::parse(value)?),
            // A later version of the format may tell series further apart: it must raise VERSION then.
            _ => return None,
        }
    }
    Some((key, figure?))
}

/// Writes a recording. Each interval is one write and one flush.
pub struct Writer<W: Write> {
    out: W,
    anchor: Anchor,
    known_vms: HashSet<u32>,
    serializer: V2DeflateSerializer,
}

impl<W: Write> Writer<W> {
    /// Begins a recording with its header.
    pub fn new(mut out: W, header: &Header) -> Result<Self> {
        let mut text = format!("#{}\n", serde_json::to_string(header)?);
        text += &format!("#[StartTime: {:.3} (seconds since epoch)]\n", header.anchor.unix_ns as f64 / 1e9);
        text += LEGEND;
        out.write_all(text.as_bytes())?;
        out.flush()?;
        Ok(Self { out, anchor: header.anchor, known_vms: HashSet::new(), serializer: V2DeflateSerializer::new() })
    }

    /// Appends an interval.
    pub fn write(&mut self, interval: &Interval) -> Result<()> {
        self.write_noted(interval, None, None)
    }

    /// Appends an interval of one of the header's [`Header::sources`].
    pub fn write_of(&mut self, interval: &Interval, source: usize) -> Result<()> {
        self.write_noted(interval, None, Some(u32::try_from(source)?))
    }

    /// Appends an interval that is a window of an experiment; none for one between windows.
    pub fn write_window(&mut self, interval: &Interval, window: Option<Label>) -> Result<()> {
        self.write_noted(interval, window, None)
    }

    fn write_noted(&mut self, interval: &Interval, window: Option<Label>, source: Option<u32>) -> Result<()> {
        let mut text = Vec::new();
        for (id, vm) in &interval.vms {
            if self.known_vms.insert(*id) {
                note(&mut text, &Note::Vm(Vm::clone(vm)))?;
            }
        }
        let start = Duration::from_nanos(self.anchor.to_unix_ns(interval.start_ns));
        let length = Duration::from_nanos(interval.length_ns);
        // Ordered, so that equal intervals make equal files.
        let ordered: BTreeMap<_, _> = interval.series.iter().collect();
        let mut log = IntervalLogWriterBuilder::new().begin_log_with(&mut text, &mut self.serializer)?;
        for (key, series) in ordered {
            for figure in Figure::ALL {
                let histogram = &series[figure];
                if histogram.count() == 0 {
                    continue;
                }
                let tag = tag(key, figure);
                let tag = Tag::new(&tag).ok_or_else(|| anyhow!("tag {tag}: not allowed in an interval log"))?;
                log.write_histogram(&to_hdr(histogram)?, start, length, Some(tag))
                    .map_err(|e| anyhow!("encode a histogram: {e}"))?;
            }
        }
        let Interval { start_ns, length_ns, totals, .. } = *interval;
        note(&mut text, &Note::Interval { start_ns, length_ns, totals: Box::new(totals), window, source })?;
        self.append(&text)
    }

    /// Ends the recording in order.
    pub fn finish(mut self, end: End) -> Result<()> {
        let mut text = Vec::new();
        note(&mut text, &Note::End(end))?;
        self.append(&text)
    }

    fn append(&mut self, text: &[u8]) -> Result<()> {
        self.out.write_all(text)?;
        Ok(self.out.flush()?)
    }
}

fn note(text: &mut Vec<u8>, note: &Note) -> Result<()> {
    text.push(b'#');
    serde_json::to_writer(&mut *text, note)?;
    text.push(b'\n');
    Ok(())
}

fn to_hdr(histogram: &Histogram) -> Result<hdrhistogram::Histogram<u64>> {
    let highest = histogram.max().unwrap_or(0).max(2);
    let mut hdr = hdrhistogram::Histogram::new_with_bounds(1, highest, DIGITS)?;
    for (low, _, n) in histogram.buckets() {
        hdr.record_n(low, n)?;
    }
    Ok(hdr)
}

/// Reads a recording interval by interval.
pub struct Reader<R: BufRead> {
    input: R,
    line: u64,
    header: Header,
    vms: BTreeMap<u32, Arc<Vm>>,
    window: Option<Label>,
    source: usize,
    end: Option<End>,
    torn: bool,
    counts: u64,
    buckets: usize,
}

impl<R: BufRead> Reader<R> {
    /// Reads the header. Anything else than a recording of this version, or an earlier one, is an error.
    pub fn new(mut input: R) -> Result<Self> {
        let mut first = Vec::new();
        // A header is a few kilobytes, that of a merge has those of its sources; a foreign file may be one line without end.
        io::Read::take(&mut input, MAX_LINE).read_until(b'\n', &mut first).context("read the header")?;
        #[derive(Deserialize)]
        struct Any {
            format: String,
            version: u32,
        }
        let json = first.strip_prefix(b"#").unwrap_or_default();
        let any: Any = serde_json::from_slice(json).map_err(|_| {
            if first.is_empty() {
                anyhow!("the file is empty: nothing was recorded")
            } else if first.starts_with(b"#{\"format\":\"vmentry-recording\"") {
                anyhow!("the header is cut off: nothing was recorded")
            } else {
                anyhow!("not a vmentry recording (its first line is no vmentry header): record one with 'vmentry record -o FILE'")
            }
        })?;
        if any.format != FORMAT {
            bail!("not a vmentry recording: format is '{}', not '{FORMAT}'", any.format);
        }
        if any.version > VERSION {
            bail!(
                "recording of format version {}, this vmentry reads up to {VERSION}: use a newer vmentry",
                any.version
            );
        }
        Ok(Self {
            header: serde_json::from_slice(json).context("read the header")?,
            input,
            line: 1,
            vms: BTreeMap::new(),
            window: None,
            source: 0,
            end: None,
            torn: false,
            counts: 0,
            buckets: 0,
        })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The last line, once everything was read; none where the recording was cut off.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Which window of an experiment the interval read last is; none of an ordinary recording and between windows.
    pub fn window(&self) -> Option<Label> {
        self.window
    }

    /// Which of the header's [`Header::sources`] the interval read last is of; 0 of a recording that is no merge.
    pub fn source(&self) -> usize {
        self.source
    }

    /// Whether the file ended within an interval or a line: the recorder was killed, the disk was full.
    pub fn is_torn(&self) -> bool {
        self.torn
    }

    /// The next whole interval; none at the end.
    pub fn read_interval(&mut self) -> Result<Option<Interval>> {
        let mut interval = Interval::default();
        let mut text = Vec::new();
        self.buckets = 0;
        loop {
            text.clear();
            if io::Read::take(&mut self.input, MAX_LINE).read_until(b'\n', &mut text).context("read")? == 0 {
                self.torn |= !interval.series.is_empty();
                return Ok(None);
            }
            self.line += 1;
            if text.last() != Some(&b'\n') {
                if text.len() as u64 == MAX_LINE {
                    bail!("line {} is damaged: it is longer than {MAX_LINE} bytes", self.line);
                }
                self.torn = true;
                return Ok(None);
            }
            let done = self.take(&text, &mut interval).with_context(|| format!("line {} is damaged", self.line))?;
            if done {
                let odd = |s: &Series| s[Figure::PinWrites].count() > s.entries();
                if interval.series.values().any(odd) {
                    bail!("the interval that ends in line {} is damaged: more pin writes than entries", self.line);
                }
                return Ok(Some(interval));
            }
        }
    }

    fn take(&mut self, text: &[u8], interval: &mut Interval) -> Result<bool> {
        if let Some(json) = text.strip_prefix(b"#{") {
            let note = serde_json::from_slice([b"{", json].concat().as_slice())?;
            match note {
                Note::Vm(vm) => drop(self.vms.insert(vm.id, Arc::new(vm))),
                Note::Interval { start_ns, length_ns, totals, window, source } => {
                    self.window = window;
                    self.source = source.unwrap_or(0) as usize;
                    if self.source >= self.header.sources.len().max(1) {
                        bail!("an interval of recording {}, which the header does not know", self.source);
                    }
                    interval.start_ns = start_ns;
                    interval.length_ns = length_ns;
                    interval.totals = *totals;
                    totals.counts().try_for_each(|n| self.count(n))?;
                    return Ok(true);
                }
                Note::End(end) => {
                    self.count(end.accounting.open)?;
                    self.end = Some(end);
                }
            }
        } else if text.starts_with(b"Tag=") {
            self.take_histogram(text, interval)?;
        } else if !text.starts_with(b"#") && !text.starts_with(b"\"StartTimestamp\"") {
            bail!("neither a histogram nor a comment");
        }
        Ok(false)
    }

    fn take_histogram(&mut self, text: &[u8], interval: &mut Interval) -> Result<()> {
        let entry = match IntervalLogIterator::new(text).next() {
            Some(Ok(LogEntry::Interval(entry))) => entry,
            _ => bail!("not a line of an HDR interval log"),
        };
        let tag = entry.tag().context("a histogram without a tag")?;
        let (key, figure) = parse_tag(&tag).with_context(|| format!("unknown tag '{}'", tag.as_str()))?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(entry.encoded_histogram())?;
        let vm = self.vms.get(&key.vm).with_context(|| format!("vm {} was not introduced", key.vm))?;
        interval.vms.entry(key.vm).or_insert_with(|| Arc::clone(vm));
        if interval.series.len() >= MAX_SERIES && !interval.series.contains_key(&key) {
            bail!("more than {MAX_SERIES} series in an interval");
        }
        let series = interval.series.entry(key).or_default();
        let histogram = &mut series[figure];
        let (sum, buckets) = hdr::decode_into(&bytes, histogram).context("decode a histogram")?;
        if figure == Figure::PinWrites && histogram.max() > Some(u8::MAX.into()) {
            bail!("more pin writes of an entry than are counted");
        }
        self.buckets += buckets;
        if self.buckets > MAX_BUCKETS {
            bail!("more than {MAX_BUCKETS} buckets in an interval");
        }
        self.count(sum)
    }

    /// Sums up what is counted, so that nobody downstream has to fear for sums.
    fn count(&mut self, n: u64) -> Result<()> {
        self.counts = self.counts.saturating_add(n);
        if self.counts > MAX_COUNTS {
            bail!("its counts add up to more than 2^53");
        }
        Ok(())
    }
}

#[cfg(test)]
pub mod tests {
    //! Tests, and made-up values for those of other modules.

    use tracer_common::Event;

    use super::*;
    use crate::model::interval::tests::{event, vm};

    /// A header for tests.
    pub fn header() -> Header {
        Header {
            format: FORMAT.into(),
            version: VERSION,
            tool: "vmentry test".into(),
            command: vec!["vmentry".into(), "record".into()],
            label: Some("a label".into()),
            anchor: Anchor { monotonic_ns: 1_000, unix_ns: 1_700_000_000_000_000_000 },
            interval_ns: 1_000_000_000,
            ring_bytes: 4096,
            host: Host::default(),
            policy: Policy::Soft,
            pin_writes_source: PinSource::Shadow,
            latency: Latency::Clean,
            aggregation: Aggregation::Records,
            timer: None,
            tickless_cpus: String::new(),
            stopwatch: None,
            sites: vec![],
            missing: vec![],
            experiment: None,
            sources: vec![],
        }
    }

    fn interval(start_ns: u64) -> Interval {
        let mut i = Interval::starting(start_ns);
        i.length_ns = 1_000_000_000;
        for n in 0..100 {
            i.record(&event(0, 10, 900 + n * n * n, 0), &vm(0));
            i.record(&event(1, 52, 1 << (n % 60), (n % 3) as u8), &vm(3));
        }
        i.record(&Event { exit_to_entry_ns: Event::UNKNOWN_NS, ..event(0, 0x8000_0021, 0, 0) }, &vm(0));
        i.totals = Totals { entries: 205, delivered: 201, dropped: 4, unmatched: 1, ..Totals::default() };
        i
    }

    fn recording() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut w = Writer::new(&mut bytes, &header()).unwrap();
        w.write(&interval(2_000)).unwrap();
        w.write(&Interval::starting(7)).unwrap();
        w.write(&interval(3_000)).unwrap();
        w.finish(End {
            reason: "duration".into(),
            accounting: Accounting::default(),
            tsc_khz: None,
            policy_changed: false,
        })
        .unwrap();
        bytes
    }

    fn read(bytes: &[u8]) -> (Vec<Interval>, Reader<&[u8]>) {
        let mut reader = Reader::new(bytes).unwrap();
        let mut intervals = Vec::new();
        while let Some(i) = reader.read_interval().unwrap() {
            intervals.push(i);
        }
        (intervals, reader)
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let bytes = recording();
        let (intervals, reader) = read(&bytes);
        assert_eq!(intervals, [interval(2_000), Interval::starting(7), interval(3_000)]);
        assert_eq!(reader.header(), &header());
        assert_eq!(reader.end().map(|e| e.reason.as_str()), Some("duration"));
        assert!(!reader.is_torn());
    }

    #[test]
    fn every_prefix_gives_its_whole_intervals_or_a_clear_error() {
        let bytes = recording();
        let header_end = bytes.iter().position(|&b| b == b'\n').unwrap();
        let whole: Vec<_> = read(&bytes).0;
        for end in (0..bytes.len()).step_by(7) {
            if end < header_end {
                assert!(Reader::new(&bytes[..end]).is_err(), "{end}");
                continue;
            }
            let (intervals, reader) = read(&bytes[..end]);
            assert_eq!(intervals, whole[..intervals.len()], "{end}");
            assert_eq!(reader.end(), None, "{end}");
        }
    }

    #[test]
    fn an_interval_without_its_last_line_is_torn() {
        let text = String::from_utf8(recording()).unwrap();
        let cut = text.rfind("#{\"interval\"").unwrap();
        let (intervals, reader) = read(&text.as_bytes()[..cut]);
        assert_eq!(intervals.len(), 2);
        assert!(reader.is_torn());
    }

    #[test]
    fn foreign_files_are_named_as_such() {
        let message = |bytes: &[u8]| Reader::new(bytes).err().unwrap().to_string();
        assert!(message(b"PERFILE2\0\0").contains("not a vmentry recording"));
        assert!(message(b"#[StartTime: 1.0]\n").contains("not a vmentry recording"));
        assert!(message(b"#{\"format\":\"x\",\"version\":1}\n").contains("format is 'x'"));
        assert!(message(b"#{\"format\":\"vmentry-recording\",\"version\":99}\n").contains("99"));
        assert!(message(b"").contains("empty"));
    }

    #[test]
    fn a_damaged_line_is_an_error_with_its_number() {
        let text = String::from_utf8(recording()).unwrap().replacen(",HISTFAAA", ",HISTXAAA", 1);
        let mut reader = Reader::new(text.as_bytes()).unwrap();
        let message = format!("{:#}", reader.read_interval().err().unwrap());
        assert!(message.starts_with("line "), "{message}");
    }

    #[test]
    fn hdr_tools_open_a_recording() {
        let bytes = recording();
        let histograms = IntervalLogIterator::new(&bytes).filter(|e| matches!(e, Ok(LogEntry::Interval(_)))).count();
        assert!(IntervalLogIterator::new(&bytes).all(|e| e.is_ok()));
        assert_eq!(histograms, bytes.windows(4).filter(|w| w == b"Tag=").count());
    }

    #[test]
    fn tags_survive_the_way_through_the_file() {
        let key = Key {
            vm: 7,
            vcpu: 3,
            level: Level::L2,
            isa: Isa::Vmx,
            reason: Some(0x8000_0021),
            entry: EntryKind::Dirty,
            cause: Some(TimerCause::Spurious),
        };
        assert_eq!(parse_tag(&tag(&key, Figure::PinWrites)), Some((key, Figure::PinWrites)));
        let unknown = Key { reason: None, cause: None, ..key };
        assert_eq!(parse_tag(&tag(&unknown, Figure::Transition)), Some((unknown, Figure::Transition)));
        assert_eq!(parse_tag("vm=1;color=red;figure=pin_writes"), None);
        assert_eq!(parse_tag("vm=1;figure=x"), None);
    }
}
