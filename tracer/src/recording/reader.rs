//! Reads a recording, interval by interval, within the limits.

use std::{
    collections::BTreeMap,
    io::{self, BufRead},
    sync::Arc,
};

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine as _;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use serde::Deserialize;

use super::{
    hdr,
    header::{End, FORMAT, Header, Label, VERSION},
    limits::{MAX_BUCKETS, MAX_COUNTS, MAX_LINE, MAX_SERIES},
    note::Note,
    tag::parse_tag,
};
use crate::model::{
    figures::Figure,
    interval::{Interval, Vm},
    series::Series,
};

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
    /// Reads the header. Foreign files, and recordings of a later version, are an error.
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

    /// The last line, after all intervals were read; none where the recording was cut off.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// The window that the latest interval belongs to; none between windows and outside of experiments.
    pub fn window(&self) -> Option<Label> {
        self.window
    }

    /// Index in [`Header::sources`] of the latest interval; 0 where the recording is no merge.
    pub fn source(&self) -> usize {
        self.source
    }

    /// Whether the file ended within an interval or a line: the recorder was killed, the disk was full.
    pub(crate) fn is_torn(&self) -> bool {
        self.torn
    }

    /// The next whole interval; none at the end.
    pub(crate) fn read_interval(&mut self) -> Result<Option<Interval>> {
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

    /// Bounds the sum of all counts, so that sums of counts never overflow downstream.
    fn count(&mut self, n: u64) -> Result<()> {
        self.counts = self.counts.saturating_add(n);
        if self.counts > MAX_COUNTS {
            bail!("its counts add up to more than 2^53");
        }
        Ok(())
    }
}
