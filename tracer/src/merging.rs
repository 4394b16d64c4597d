//! `vmentry merge`: many recordings in, one out. Nothing is summed up: every interval is kept, with the recording it is of, so that
//! a report on the merge is a report on the recordings.

use std::{collections::BTreeMap, fs, io::Write, path::Path};

use anyhow::{Context, Result, bail};

use crate::{
    cli::MergeArgs,
    clock::Anchor,
    collect::Accounting,
    host::{Host, Policy},
    output,
    recording::{End, FORMAT, Header, MAX_LINE, PinSource, Reader, Source, VERSION, Writer},
    report::Report,
    reporting::{open, read_from},
    say,
};

/// Merges as the arguments say.
pub fn run(args: &MergeArgs) -> Result<()> {
    let target = fs::canonicalize(&args.output).ok();
    let mut whole = Report::default();
    for path in &args.files {
        if path == Path::new("-") {
            bail!("merge reads its files twice: name them");
        }
        if target.is_some() && fs::canonicalize(path).ok() == target {
            bail!("{} is to be read and to be written: choose another name with -o", path.display());
        }
        let input = open(path).with_context(|| format!("read {}", path.display()))?;
        read_from(input, path.display().to_string(), &mut whole).with_context(|| format!("read {}", path.display()))?;
    }
    let sources = whole.sources;
    let count = sources.len();
    let out = output::create(&args.output, args.overwrite)?;
    let failed = || format!("write {}", args.output.display());
    let header = header(&sources, std::env::args().collect());
    if serde_json::to_vec(&header)?.len() as u64 + 2 > MAX_LINE {
        bail!("merge {count} recordings: their headers are more than {MAX_LINE} bytes: merge fewer");
    }
    let mut writer = Writer::new(out, &header).with_context(failed)?;
    let mut numbering = Report { sources, ..Report::default() };
    let mut first = 0;
    for path in &args.files {
        let input = open(path).with_context(|| format!("read {}", path.display()))?;
        let mut reader = Reader::new(input).with_context(|| format!("read {}", path.display()))?;
        append(&mut reader, first, &mut numbering, &mut writer)
            .with_context(|| format!("merge {} into {}", path.display(), args.output.display()))?;
        first += reader.header().sources.len().max(1);
    }
    writer.finish(end(&numbering.sources)).with_context(failed)?;
    if args.output != Path::new("-") {
        say!("merged {count} recordings; next: vmentry report {} --by host,reason", args.output.display());
    }
    Ok(())
}

/// Copies a recording's intervals, with numbers of VMs that are unique in the merge, and with the wall's time.
fn append<W: Write>(
    reader: &mut Reader<impl std::io::BufRead>,
    first: usize,
    numbering: &mut Report,
    writer: &mut Writer<W>,
) -> Result<()> {
    let anchor = reader.header().anchor;
    let mut vms = BTreeMap::new();
    while let Some(interval) = reader.read_interval()? {
        let at = first + reader.source();
        let mut interval = numbering.renumber(at, interval, &mut vms);
        interval.start_ns = anchor.to_unix_ns(interval.start_ns);
        writer.write_of(&interval, at)?;
    }
    Ok(())
}

/// The merge's own header: what all have in common, or that it is not known.
fn header(sources: &[Source], command: Vec<String>) -> Header {
    fn common<T: PartialEq>(sources: &[Source], of: impl Fn(&Source) -> T) -> Option<T> {
        let first = of(sources.first()?);
        sources.iter().all(|s| of(s) == first).then_some(first)
    }
    let emulated = sources.iter().any(|s| s.header.host.emulated);
    let host = common(sources, |s| s.header.host.clone()).unwrap_or_else(|| Host {
        name: format!("{} recordings", sources.len()),
        emulated,
        ..Host::default()
    });
    let unix_ns = sources.iter().map(|s| s.header.anchor.unix_ns).min().unwrap_or(0);
    Header {
        format: FORMAT.into(),
        version: VERSION,
        tool: format!("vmentry {}", env!("CARGO_PKG_VERSION")),
        command,
        label: None,
        // Clocks of several hosts: times are the wall's.
        anchor: Anchor { monotonic_ns: unix_ns, unix_ns },
        interval_ns: sources.iter().map(|s| s.header.interval_ns).max().unwrap_or(0),
        ring_bytes: common(sources, |s| s.header.ring_bytes).unwrap_or(0),
        host,
        policy: common(sources, Source::policy).unwrap_or(Policy::Unknown),
        pin_writes_source: common(sources, |s| s.header.pin_writes_source).unwrap_or(PinSource::None),
        latency: Report { sources: sources.to_vec(), ..Report::default() }.latency(),
        timer: common(sources, |s| s.header.timer.clone()).flatten(),
        tickless_cpus: common(sources, |s| s.header.tickless_cpus.clone()).unwrap_or_default(),
        sites: common(sources, |s| s.header.sites.clone()).unwrap_or_default(),
        missing: common(sources, |s| s.header.missing.clone()).unwrap_or_default(),
        experiment: None,
        sources: sources.to_vec(),
    }
}

fn end(sources: &[Source]) -> End {
    let ends = || sources.iter().filter_map(|s| s.end.as_ref());
    End {
        reason: "merge".into(),
        accounting: Accounting {
            exact: ends().all(|e| e.accounting.exact),
            open: ends().map(|e| e.accounting.open).fold(0, u64::saturating_add),
            cpus: Vec::new(),
        },
        tsc_khz: None,
        policy_changed: ends().any(|e| e.policy_changed),
    }
}
