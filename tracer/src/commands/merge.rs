//! `vmentry merge`: many recordings in, one out. Every interval is kept, with the recording that it comes from, so that a report on
//! the merge equals a report on the recordings.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};

use crate::{
    commands::{
        args::MergeArgs,
        damaged::done,
        session::{command_line, look_again},
        usage::{refuse, refuse_document_name, refuse_overlap},
    },
    host::{clock::Anchor, machine::Host},
    model::{accounting::Accounting, measurement::PinSource, policy::Policy},
    output,
    recording::{self, End, FORMAT, Header, OnDamage, Provenance, VERSION, Writer},
    report::{
        Report,
        input::{self, Input},
    },
    say,
};

/// Merges as the arguments say. Whoever closes the pipe that it writes to has read enough.
pub(super) fn run(args: &MergeArgs) -> Result<ExitCode> {
    let is_closed = |error: &anyhow::Error| {
        let errors = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
        errors.map(io::Error::kind).any(|kind| kind == io::ErrorKind::BrokenPipe)
    };
    match merge(args) {
        Err(error) if args.output == Path::new("-") && is_closed(&error) => Ok(ExitCode::SUCCESS),
        result => result,
    }
}

fn merge(args: &MergeArgs) -> Result<ExitCode> {
    refuse_document_name(&args.output)?;
    let on_damage = OnDamage::skip_if(args.skip_damaged);
    let sources = read_sources(args, on_damage)?;
    let count = sources.len();
    let damage = recording::damage(&sources);
    let failed = || format!("write {}", output::shown(&args.output));
    let header = header(&sources, command_line(&[], false));
    let mut out = output::WholeFile::create(&args.output, args.overwrite)?;
    let mut writer = Writer::new(&mut out, &header).with_context(failed)?;
    let mut numbering = Report { sources, ..Report::default() };
    for path in &args.files {
        append(path, on_damage, &mut numbering, &mut writer)
            .with_context(|| format!("merge {} into {}", output::shown(path), output::shown(&args.output)))?;
    }
    writer.finish(end(&numbering.sources)).with_context(failed)?;
    out.take_place().with_context(failed)?;
    if let Some(look) = look_again("report", &args.output) {
        say!("merged {count} recordings; next: {look} --by host,reason");
    }
    Ok(done(damage.as_deref()))
}

/// Reads every recording once, for their headers and ends.
fn read_sources(args: &MergeArgs, on_damage: OnDamage) -> Result<Vec<Provenance>> {
    refuse_overlap(args.files.iter().map(PathBuf::as_path), &args.output)?;
    let mut whole = Report::default();
    for path in &args.files {
        if path == Path::new("-") {
            return refuse("merge reads its files twice, and '-' is read once: name a file");
        }
        input::read_sources(path, on_damage, &mut whole)?;
    }
    whole.repeats.iter().for_each(|repeat| say!("{repeat}"));
    Ok(whole.sources)
}

/// Copies a recording's intervals, with VM numbers that are unique in the merge, and with wall-clock times.
fn append<W: Write>(path: &Path, on_damage: OnDamage, numbering: &mut Report, writer: &mut Writer<W>) -> Result<()> {
    let name = output::shown(path);
    let reader = input::open(path, on_damage)?.keeping_as_written();
    let mut input = Input::new(reader, name, &mut numbering.sources, &mut numbering.readings)?;
    let mut vms = BTreeMap::new();
    while let Some((at, read)) = input.next(&mut numbering.readings)? {
        let series = read.interval.series.len();
        let interval = numbering.renumber(at, read.interval, &mut vms);
        // Where two VMs of the file became one, the histograms of their series did, too. Otherwise only keys have changed.
        let as_written = (interval.series.len() == series).then_some(&read.as_written);
        writer.write_of(&interval, as_written, at, read.has_more)?;
    }
    Ok(())
}

/// The merge's own header: values that all recordings share; unknown where they differ.
fn header(sources: &[Provenance], command: Vec<String>) -> Header {
    fn common<T: PartialEq>(sources: &[Provenance], of: impl Fn(&Provenance) -> T) -> Option<T> {
        let first = of(sources.first()?);
        sources.iter().all(|s| of(s) == first).then_some(first)
    }
    let emulated = sources.iter().any(|s| s.header.host.emulated);
    let host = common(sources, |s| s.header.host.clone()).unwrap_or_else(|| Host {
        name: format!("{} recordings", sources.len()),
        emulated,
        ..Host::default()
    });
    let report = Report { sources: sources.to_vec(), ..Report::default() };
    let unix_ns = sources.iter().map(|s| s.header.anchor.unix_ns).min().unwrap_or(0);
    Header {
        format: FORMAT.into(),
        version: VERSION,
        tool: format!("vmentry {}", env!("CARGO_PKG_VERSION")),
        command,
        label: None,
        // The monotonic clocks of several hosts differ: times are wall-clock times.
        anchor: Anchor { monotonic_ns: unix_ns, unix_ns },
        interval_ns: sources.iter().map(|s| s.header.interval_ns).max().unwrap_or(0),
        ring_bytes: common(sources, |s| s.header.ring_bytes).unwrap_or(0),
        host,
        policy: common(sources, Provenance::policy).unwrap_or(Policy::Unknown),
        pin_writes_source: common(sources, |s| s.header.pin_writes_source).unwrap_or(PinSource::None),
        latency: report.latency(),
        aggregation: report.aggregation(),
        timer: common(sources, |s| s.header.timer.clone()).flatten(),
        soft_delay: common(sources, |s| s.header.soft_delay).flatten(),
        tickless_cpus: common(sources, |s| s.header.tickless_cpus.clone()).flatten(),
        stopwatch: common(sources, |s| s.header.stopwatch).flatten(),
        phases: common(sources, |s| s.header.phases).unwrap_or(false),
        detail: common(sources, |s| s.header.detail).unwrap_or(false),
        sites: common(sources, |s| s.header.sites.clone()).unwrap_or_default(),
        missing: common(sources, |s| s.header.missing.clone()).unwrap_or_default(),
        unknown: None,
        other_tracers: None,
        experiment: None,
        sources: report.sources,
    }
}

/// The end of a merge: the recordings' accounting taken together.
fn end(sources: &[Provenance]) -> End {
    let ends = || sources.iter().filter_map(|s| s.end.as_ref());
    End {
        reason: "merge".into(),
        accounting: Accounting {
            exact: ends().all(|e| e.accounting.exact),
            open: ends().map(|e| e.accounting.open).fold(0, u64::saturating_add),
            ..Accounting::default()
        },
        tsc_khz: None,
        policy_changed: ends().any(|e| e.policy_changed),
        other_tracers: None,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        model::{
            figures::Column,
            interval::{
                Interval, Vm,
                tests::{event, vm},
            },
            totals::Totals,
        },
        recording::tests::header as a_header,
        report::{View, json, openmetrics, text},
    };

    /// A recording: its host, its boot, its start, and by interval and entry: VM, vCPU, whether a timer exit, ns and writes. Those of
    /// one boot and start are one recording, of which a file may have less.
    type Made = (u8, u8, u8, Vec<Vec<(u32, u32, bool, u64, u8)>>);

    fn recordings() -> impl Strategy<Value = Vec<Made>> {
        let entry = (0..3u32, 0..2u32, any::<bool>(), 0..1u64 << 40, 0..3u8);
        let intervals = proptest::collection::vec(proptest::collection::vec(entry, 0..8), 0..4);
        proptest::collection::vec((0..3u8, 0..2u8, 0..3u8, intervals), 1..5)
    }

    fn write(path: &Path, (host, boot, start, intervals): &Made, ends: bool) {
        let mut header = a_header();
        header.host.name = format!("host{host}");
        header.host.boot_id = format!("boot{boot}");
        header.policy = if *host == 0 { Policy::Soft } else { Policy::Hard };
        header.anchor.unix_ns += u64::from(*host) * 1_000 + u64::from(*start) * 15;
        let mut writer = Writer::new(fs::File::create(path).unwrap(), &header).unwrap();
        for (n, entries) in intervals.iter().enumerate() {
            let mut interval = Interval { start_ns: n as u64 * 10, length_ns: 10, ..Interval::default() };
            for &(id, vcpu, is_timer, ns, writes) in entries {
                let vm = if id == 2 { Arc::new(Vm { name: "vm0".into(), ..Vm::clone(&vm(2)) }) } else { vm(id) };
                interval.record(&event(vcpu, if is_timer { 52 } else { 10 }, ns, writes), &vm);
            }
            let delivered = entries.len() as u64;
            interval.totals = Totals { entries: delivered + 1, delivered, dropped: 1, ..interval.totals };
            writer.write(&interval).unwrap();
        }
        // A recorder that dies before its first interval leaves nothing.
        if ends || intervals.is_empty() {
            writer.finish(end(&[])).unwrap();
        }
    }

    /// Every view of a report.
    fn reports(files: &[PathBuf]) -> [String; 3] {
        let mut report = Report::default();
        for file in files {
            input::read(file, OnDamage::Refuse, &mut report).unwrap();
        }
        let by = crate::report::Dimension::ALL.to_vec();
        let view = View { by, filters: vec![], sort: Column::Entries, top: None };
        [
            json::render(&report, &view, None).to_string(),
            text::render(&report, &view),
            openmetrics::render(&report, &view),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn a_report_on_any_merge_is_the_report_on_its_recordings(made in recordings()) {
            let dir = tempfile::tempdir().unwrap();
            let file = |name: String| dir.path().join(name);
            let files: Vec<_> = (0..made.len()).map(|n| file(format!("{n}.hlog"))).collect();
            for (n, made) in made.iter().enumerate() {
                write(&files[n], made, n % 3 != 2);
            }
            let merge = |from: &[PathBuf], to: &str| {
                let output = file(to.into());
                run(&MergeArgs { files: from.to_vec(), output: output.clone(), overwrite: true, skip_damaged: false }).unwrap();
                output
            };
            let whole = reports(&files);
            prop_assert_eq!(&reports(&[merge(&files, "all.hlog")]), &whole);
            // A merge of a merge, and one beside a recording.
            let (some, rest) = files.split_at(files.len() / 2);
            if !some.is_empty() {
                let some = merge(some, "some.hlog");
                let nested: Vec<_> = std::iter::once(some).chain(rest.iter().cloned()).collect();
                prop_assert_eq!(&reports(&nested), &whole);
                prop_assert_eq!(&reports(&[merge(&nested, "nested.hlog")]), &whole);
            }
        }
    }

    #[test]
    fn histograms_of_vms_that_are_one_are_added_up_and_others_stay_as_they_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        let mut interval = Interval { length_ns: 10, ..Interval::default() };
        for (n, id) in [0, 1, 7].into_iter().enumerate() {
            // A recorder that has forgotten a VM gives it another number.
            let vm = if id == 7 { Arc::new(Vm { id, ..Vm::clone(&vm(0)) }) } else { vm(id) };
            (0..90).for_each(|ns| interval.record(&event(0, 10, 1_000 * (n as u64 + 1) + ns, 0), &vm));
        }
        interval.totals = Totals { entries: 270, delivered: 270, ..interval.totals };
        let mut writer = Writer::new(fs::File::create(file("one.hlog")).unwrap(), &a_header()).unwrap();
        writer.write(&interval).unwrap();
        interval.series.retain(|key, _| key.vm == 1);
        interval.totals = Totals { entries: 90, delivered: 90, ..interval.totals };
        writer.write(&Interval { start_ns: 10, ..interval }).unwrap();
        writer.finish(end(&[])).unwrap();
        let (files, output) = (vec![file("one.hlog")], file("all.hlog"));
        run(&MergeArgs { files: files.clone(), output: output.clone(), overwrite: false, skip_damaged: false })
            .unwrap();
        let histograms = |path: &Path| {
            let text = fs::read_to_string(path).unwrap();
            let lines = text.lines().filter(|line| line.starts_with("Tag="));
            lines.map(|line| line.rsplit_once(',').unwrap().1.to_owned()).collect::<Vec<_>>()
        };
        let (before, after) = (histograms(&files[0]), histograms(&output));
        assert!(after.len() < before.len());
        assert_eq!(after[after.len() - 3..], before[before.len() - 3..]);
        assert_eq!(reports(&[output]), reports(&files));
    }
}
