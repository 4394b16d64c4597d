//! Writes a recording: an interval is one write and one flush, so that a kill leaves whole intervals.

use std::{
    collections::{BTreeMap, HashSet},
    io::Write,
    time::Duration,
};

use anyhow::{Result, anyhow};
use hdrhistogram::serialization::{
    V2DeflateSerializer,
    interval_log::{IntervalLogWriterBuilder, Tag},
};

use super::{
    header::{End, Header, Label},
    note::{self, Note},
    tag::tag,
};
use crate::{
    host::clock::Anchor,
    model::{
        figures::Figure,
        histogram::{DIGITS, Histogram},
        interval::{Interval, Vm},
    },
};

const LEGEND: &str = "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";

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
    pub(crate) fn write_of(&mut self, interval: &Interval, source: usize) -> Result<()> {
        self.write_noted(interval, None, Some(u32::try_from(source)?))
    }

    /// Appends an interval of an experiment. `window` is none for the time between windows.
    pub(crate) fn write_window(&mut self, interval: &Interval, window: Option<Label>) -> Result<()> {
        self.write_noted(interval, window, None)
    }

    fn write_noted(&mut self, interval: &Interval, window: Option<Label>, source: Option<u32>) -> Result<()> {
        let mut text = Vec::new();
        for (id, vm) in &interval.vms {
            if self.known_vms.insert(*id) {
                note::append(&mut text, &Note::Vm(Vm::clone(vm)))?;
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
        note::append(&mut text, &Note::Interval { start_ns, length_ns, totals: Box::new(totals), window, source })?;
        self.append(&text)
    }

    /// Ends the recording in order.
    pub fn finish(mut self, end: End) -> Result<()> {
        let mut text = Vec::new();
        note::append(&mut text, &Note::End(end))?;
        self.append(&text)
    }

    fn append(&mut self, text: &[u8]) -> Result<()> {
        self.out.write_all(text)?;
        Ok(self.out.flush()?)
    }
}

fn to_hdr(histogram: &Histogram) -> Result<hdrhistogram::Histogram<u64>> {
    let highest = histogram.max().unwrap_or(0).max(2);
    let mut hdr = hdrhistogram::Histogram::new_with_bounds(1, highest, DIGITS)?;
    for (low, _, n) in histogram.buckets() {
        hdr.record_n(low, n)?;
    }
    Ok(hdr)
}
