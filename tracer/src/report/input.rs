//! Opens recordings and adds them to a report.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

use anyhow::{Context, Result, bail};

use super::Report;
use crate::recording::{Header, Provenance, Reader};

/// Opens a recording and reads its header; '-' is standard input.
pub(crate) fn open(path: &Path) -> Result<Reader<Box<dyn BufRead>>> {
    bytes(path).and_then(Reader::new).with_context(|| format!("read {}", path.display()))
}

fn bytes(path: &Path) -> Result<Box<dyn BufRead>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        bail!("it is a folder");
    }
    Ok(Box::new(BufReader::with_capacity(1 << 16, file)))
}

/// The provenance of a recording of which only the header was read.
pub(crate) fn unread(name: String, header: &Header) -> Provenance {
    Provenance { name, header: header.clone(), end: None, torn: false, intervals: 0, length_ns: 0, damage: None }
}

/// Adds the recording in a file to a report; '-' is standard input.
pub(crate) fn read(path: &Path, report: &mut Report) -> Result<()> {
    let name = path.display().to_string();
    let failed = format!("read {name}");
    add(open(path)?, name, report).context(failed)
}

/// Adds a recording, or the recordings that it is a merge of, to a report. `name` is shown for its file.
pub fn read_from(input: impl BufRead, name: String, report: &mut Report) -> Result<()> {
    add(Reader::new(input)?, name, report)
}

fn add(mut reader: Reader<impl BufRead>, name: String, report: &mut Report) -> Result<()> {
    let first = report.sources.len();
    if reader.header().sources.is_empty() {
        report.sources.push(unread(name, reader.header()));
    }
    let merged = reader.header().sources.iter().cloned();
    report.sources.extend(merged.map(|s| Provenance { intervals: 0, length_ns: 0, ..s }));
    let mut vms = BTreeMap::new();
    while let Some(interval) = reader.read_interval()? {
        let at = first + reader.source();
        report.sources[at].intervals += 1;
        let length_ns = &mut report.sources[at].length_ns;
        *length_ns = length_ns.saturating_add(interval.length_ns);
        report.timeline.add(at, reader.header().anchor.to_unix_ns(interval.start_ns), &interval);
        report.add(at, interval, &mut vms);
    }
    for source in &mut report.sources[first..] {
        if reader.header().sources.is_empty() {
            source.end = reader.end().cloned();
        } else if reader.end().is_none() {
            // A merge that was cut off may lack the rest of any of them.
            source.end = None;
        }
        source.torn |= reader.is_torn();
    }
    Ok(())
}
