//! `vmentry report`: recordings in, text, JSON, HTML or CSV out.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

use anyhow::{Context, Result, anyhow, bail};

use crate::{
    commands::args::{ReportArgs, ReportFormat},
    model::policy::Policy,
    output,
    recording::{Header, Provenance, Reader},
    report::{
        Dimension, Filter, Report, View,
        claims::{self, Evidence},
        csv, html, json, openmetrics, text,
    },
    say,
};

/// Reads, merges and prints.
pub fn run(args: &ReportArgs) -> Result<()> {
    let mut view = view(args)?;
    if args.claims {
        return claims_on(args);
    }
    let mut report = Report::default();
    for path in &args.files {
        read(path, &mut report).with_context(|| format!("read {}", path.display()))?;
    }
    if args.by.is_empty() && report.has_hosts() {
        view.by.insert(0, Dimension::Host);
    }
    match args.format {
        ReportFormat::Openmetrics => {
            if !args.by.is_empty() || args.top.is_some() {
                bail!("--format openmetrics has labels of its own: leave --by and --top out");
            }
            output::print(&openmetrics::render(&report, &view))
        }
        ReportFormat::Text => output::print(&text::render(&report, &view)),
        ReportFormat::Html => output::print(&html::render(&report, &view)),
        ReportFormat::Csv => {
            // The table has no place for what it is worth.
            say!("{}", text::preamble(&report).trim_end());
            output::print(&csv::render(&report, &view))
        }
        ReportFormat::Json => {
            let by = (!args.by.is_empty()).then_some(view.by.as_slice());
            let json = serde_json::to_string_pretty(&json::render(&report, &view, by))?;
            output::print(&(json + "\n"))
        }
    }
}

fn claims_on(args: &ReportArgs) -> Result<()> {
    let mut evidence = Evidence::default();
    for path in &args.files {
        let failed = || format!("read {}", path.display());
        read(path, &mut evidence.whole).with_context(failed)?;
        if evidence.whole.sources.last().is_some_and(|s| s.name != path.display().to_string()) {
            bail!("--claims: {} is a merge: name the recordings themselves", path.display());
        }
        let policy = evidence.whole.sources.last().map_or(Policy::Unknown, Provenance::policy);
        if path == Path::new("-") {
            bail!("--claims reads its files twice: name them");
        }
        read(path, evidence.by_policy.entry(policy).or_default()).with_context(failed)?;
    }
    let text = match args.format {
        ReportFormat::Html | ReportFormat::Csv | ReportFormat::Openmetrics => {
            bail!("--claims is printed as text or json: choose one of these formats")
        }
        ReportFormat::Text => claims::text(&evidence),
        ReportFormat::Json => {
            let json = serde_json::json!({
                "format": "vmentry-claims/1",
                "emulated": evidence.whole.is_emulated(),
                "claims": claims::claims(&evidence),
            });
            serde_json::to_string_pretty(&json)? + "\n"
        }
    };
    output::print(&text)
}

fn view(args: &ReportArgs) -> Result<View> {
    let by = args.by.iter().filter_map(|name| Dimension::parse(name)).collect();
    let filters = args.filter.iter().map(|f| Filter::parse(f)).collect::<Result<_, _>>().map_err(|e| anyhow!(e))?;
    Ok(View {
        by: if args.by.is_empty() { vec![Dimension::Vm, Dimension::Level, Dimension::Reason] } else { by },
        filters,
        sort: args.sort,
        top: args.top.map(|n| n as usize),
    })
}

/// Opens a recording; '-' is standard input.
pub fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        bail!("it is a folder");
    }
    Ok(Box::new(BufReader::with_capacity(1 << 16, file)))
}

/// A recording of which nothing but the header was read.
pub fn source(name: String, header: &Header) -> Provenance {
    Provenance { name, header: header.clone(), end: None, torn: false, intervals: 0, length_ns: 0 }
}

fn read(path: &Path, report: &mut Report) -> Result<()> {
    read_from(open(path)?, path.display().to_string(), report)
}

/// Adds a recording, or those it is a merge of, to a report.
pub fn read_from(input: impl BufRead, name: String, report: &mut Report) -> Result<()> {
    let mut reader = Reader::new(input)?;
    let first = report.sources.len();
    if reader.header().sources.is_empty() {
        report.sources.push(source(name, reader.header()));
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
