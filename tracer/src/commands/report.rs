//! `vmentry report`: recordings in, text, JSON, HTML or CSV out.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Result, bail};

use crate::{
    commands::{
        args::{DEFAULT_RECORDING, Moment, ReportArgs, ReportFormat},
        damaged::done,
        document,
        usage::{refuse, refuse_overlap},
        vm_labels::vm_labels,
    },
    output::{self, Paint},
    recording::OnDamage,
    report::{
        Choices, Dimension, Report, View,
        claims::{self, Evidence},
        csv, html, input, json, openmetrics,
        text::{self, Layout},
    },
    say,
    tui::{clock, terminal},
};

/// Rows of the table on a terminal where `--top` does not say it.
const ROWS_ON_TERMINAL: usize = 20;

/// Reads, merges and prints.
pub(super) fn run(args: &ReportArgs) -> Result<ExitCode> {
    let format = args.format().or_else(refuse)?;
    if args.files == [Path::new(DEFAULT_RECORDING)] && !Path::new(DEFAULT_RECORDING).exists() {
        bail!("there is no {DEFAULT_RECORDING} in this folder: name a recording, or make one with 'vmentry record'");
    }
    refuse_wrong(args, format)?;
    let out = document::create(&args.document)?;
    let (text, damage) = if args.claims {
        check_claims(args, format, out.is_none())?
    } else {
        render(args, format, view(args), out.is_none())?
    };
    match out {
        Some(file) => document::write(file, &text, &args.document)?,
        None if format == ReportFormat::Text && !args.no_pager && terminal::is_output() => output::page(&text)?,
        None => output::print(&text)?,
    }
    Ok(done(damage.as_deref()))
}

/// Refuses arguments that do not fit each other, before any work.
fn refuse_wrong(args: &ReportArgs, format: ReportFormat) -> Result<()> {
    refuse_overlap(args.files.iter().map(PathBuf::as_path), args.document.output.as_deref().unwrap_or(Path::new("-")))?;
    if let Some(twice) = args.by.iter().enumerate().find_map(|(n, by)| args.by[..n].contains(by).then_some(by)) {
        return refuse(format!("--by: {} is given twice", twice.name()));
    }
    match format {
        ReportFormat::Html | ReportFormat::Csv | ReportFormat::Openmetrics if args.claims => {
            refuse("--claims prints text or json: choose one of these formats")
        }
        _ if args.claims && args.files.iter().any(|path| path == Path::new("-")) => {
            refuse("--claims reads its files twice, and '-' is read once: name a file")
        }
        ReportFormat::Openmetrics if !args.by.is_empty() || args.top.is_some() => {
            refuse("--format openmetrics has its own labels: leave --by and --top out")
        }
        format if args.labels.vm_labels != ["name"] && format != ReportFormat::Openmetrics => {
            refuse("--vm-labels is for --format openmetrics: other formats have the labels of VMs in JSON alone")
        }
        format if args.columns.is_some() && format != ReportFormat::Text => {
            refuse("--columns is for text: the other formats have all columns")
        }
        _ => Ok(()),
    }
}

/// The report and what was left out of it.
fn render(
    args: &ReportArgs,
    format: ReportFormat,
    mut view: View,
    to_stdout: bool,
) -> Result<(String, Option<String>)> {
    let on_damage = OnDamage::skip_if(args.skip_damaged);
    // A host has tens of vCPUs for each VM: their histograms are kept apart only where rows or filters tell them apart.
    let is_by_vm = view.filters.is_empty() && !view.by.contains(&Dimension::Vcpu);
    let vcpus = (is_by_vm && matches!(format, ReportFormat::Text | ReportFormat::Csv)).then(Default::default);
    let mut report = Report { limit: args.max_buckets, vcpus, ..Report::default() };
    read(args, on_damage, &mut report)?;
    report.repeats.iter().for_each(|repeat| say!("{repeat}"));
    let mut choices = Choices::default();
    choices.add(&report, report.whole.series.keys(), &view.filters);
    if let Some(why) = choices.refusal(&view.filters) {
        return refuse(why);
    }
    if args.by.is_empty() && report.has_hosts() {
        view.by.insert(0, Dimension::Host);
    }
    let text = match format {
        ReportFormat::Openmetrics => {
            let keys: BTreeSet<_> = report.whole.vms.values().flat_map(|vm| vm.labels.keys()).collect();
            let labels = vm_labels(&args.labels.vm_labels, keys, "or a label that the recordings have")?;
            if let Some(shown) = &report.shown {
                say!("SHOWN: {shown}");
            }
            openmetrics::labelled(&report, &view, labels)
        }
        ReportFormat::Text => text::render_in(&report, &view, &layout(args, to_stdout)),
        ReportFormat::Html => html::render(&report, &view),
        ReportFormat::Csv => {
            // A spreadsheet has no place for loss and provenance.
            say!("{}", text::preamble(&report).trim_end());
            csv::render(&report, &view)
        }
        ReportFormat::Json => {
            let by = (!args.by.is_empty()).then_some(view.by.as_slice());
            serde_json::to_string_pretty(&json::render(&report, &view, by))? + "\n"
        }
    };
    Ok((text, report.damage()))
}

/// Reads all files, or the parts of them that are wanted.
fn read(args: &ReportArgs, on_damage: OnDamage, report: &mut Report) -> Result<()> {
    let ReportArgs { since, until, .. } = args;
    let asked = [("--since", since), ("--until", until)].map(|(name, at)| Some(format!("{name} {}", at.as_ref()?)));
    let asked = asked.into_iter().flatten().collect::<Vec<_>>().join(" ");
    if asked.is_empty() {
        args.files.iter().try_for_each(|path| input::read(path, on_damage, report).map(drop))?;
        return refuse_cut(report);
    }
    let mut known = Vec::new();
    for path in &args.files {
        let name = output::shown(path);
        let find = |ends| {
            let at = |moment: &Option<Moment>, none| moment.as_ref().map_or(Ok(none), |moment| moment.unix_ns(ends));
            let find = || Ok(at(since, 0)?..at(until, u64::MAX)?);
            let span = find().or_else(|why: String| refuse(format!("{name}: {why}")))?;
            if span.is_empty() && since.is_some() && until.is_some() {
                let (asked_of, own) = (clock::range((span.start, span.end)), clock::range(ends));
                return refuse(format!("{name}: {asked} is no span: {asked_of}; the recording is {own}"));
            }
            known.push(format!("{name}: {}", clock::range(ends)));
            Ok(span)
        };
        input::read_part(path, on_damage, find, report)?;
    }
    let intervals: u64 = report.sources.iter().map(|source| source.intervals).sum();
    let Some(ends) = report.covered.ends().filter(|_| intervals > 0) else {
        return refuse(format!("no interval begins in {asked}: {}", known.join("; ")));
    };
    let noun = if intervals == 1 { "interval" } else { "intervals" };
    report.shown = Some(format!("{} {noun}, {}, of {asked}", output::grouped(intervals), clock::range(ends)));
    Ok(())
}

/// Refuses recordings that have no whole interval, because they were cut off before its end: "no loss" would be no answer.
fn refuse_cut(report: &Report) -> Result<()> {
    let sources = &report.sources;
    match sources.first() {
        Some(first)
            if sources
                .iter()
                .all(|source| source.intervals == 0 && source.end.is_none() && source.damage.is_empty()) =>
        {
            bail!(
                "{}: it was cut off before the end of its first interval, so that nothing in it can be counted: record again, and end it \
             by Ctrl-C or --duration",
                output::shown(Path::new(&first.name))
            )
        }
        _ => Ok(()),
    }
}

fn check_claims(args: &ReportArgs, format: ReportFormat, to_stdout: bool) -> Result<(String, Option<String>)> {
    let on_damage = OnDamage::skip_if(args.skip_damaged);
    let empty = || Report { limit: args.max_buckets, ..Report::default() };
    let mut evidence = Evidence { whole: empty(), ..Evidence::default() };
    for path in &args.files {
        let Some(at) = input::read(path, on_damage, &mut evidence.whole)? else {
            bail!("--claims: {} is a merge: name the recordings themselves", output::shown(path));
        };
        let policy = evidence.whole.sources[at].policy();
        input::read(path, on_damage, evidence.by_policy.entry(policy).or_insert_with(empty))?;
    }
    refuse_cut(&evidence.whole)?;
    evidence.whole.repeats.iter().for_each(|repeat| say!("{repeat}"));
    let text = match format {
        ReportFormat::Json => {
            let json = serde_json::json!({
                "format": "vmentry-claims/1",
                "emulated": evidence.whole.is_emulated(),
                "damaged": json::damaged(&evidence.whole.sources),
                "claims": claims::claims(&evidence),
            });
            serde_json::to_string_pretty(&json)? + "\n"
        }
        _ => claims::text_in(&evidence, &layout(args, to_stdout)),
    };
    Ok((text, evidence.whole.damage()))
}

fn view(args: &ReportArgs) -> View {
    let mut by = if args.by.is_empty() { View::default().by } else { args.by.clone() };
    // The details of two exit reasons may read the same, and those without one are halts and others.
    if let Some(at) = by.iter().position(|d| *d == Dimension::Detail).filter(|_| !by.contains(&Dimension::Reason)) {
        by.insert(at, Dimension::Reason);
    }
    View { by, filters: args.filter.clone(), sort: args.sort, top: args.top }
}

/// How the text is laid out: for the terminal where it goes to one.
fn layout(args: &ReportArgs, to_stdout: bool) -> Layout {
    let on_terminal = to_stdout && terminal::is_output();
    Layout {
        columns: args.columns.unwrap_or_default(),
        is_usual_view: args.by.is_empty(),
        most: on_terminal.then_some(ROWS_ON_TERMINAL),
        width: on_terminal.then(terminal::width),
        paint: if on_terminal { terminal::paint() } else { Paint::default() },
    }
}
