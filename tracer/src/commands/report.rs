//! `vmentry report`: recordings in, text, JSON, HTML or CSV out.

use std::{path::Path, process::ExitCode};

use anyhow::{Result, anyhow, bail};

use crate::{
    commands::args::{ReportArgs, ReportFormat},
    model::policy::Policy,
    output,
    recording::Provenance,
    report::{
        Dimension, Filter, Report, View,
        claims::{self, Evidence},
        csv, html, input, json, openmetrics, text,
    },
    say,
};

/// Reads, merges and prints.
pub(super) fn run(args: &ReportArgs) -> Result<ExitCode> {
    let view = view(args)?;
    let text = if args.claims { check_claims(args)? } else { render(args, view)? };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn render(args: &ReportArgs, mut view: View) -> Result<String> {
    let mut report = Report::default();
    for path in &args.files {
        input::read(path, &mut report)?;
    }
    if args.by.is_empty() && report.has_hosts() {
        view.by.insert(0, Dimension::Host);
    }
    Ok(match args.format {
        ReportFormat::Openmetrics if !args.by.is_empty() || args.top.is_some() => {
            bail!("--format openmetrics has its own labels: leave --by and --top out")
        }
        ReportFormat::Openmetrics => openmetrics::render(&report, &view),
        ReportFormat::Text => text::render(&report, &view),
        ReportFormat::Html => html::render(&report, &view),
        ReportFormat::Csv => {
            // A spreadsheet has no place for loss and provenance.
            say!("{}", text::preamble(&report).trim_end());
            csv::render(&report, &view)?
        }
        ReportFormat::Json => {
            let by = (!args.by.is_empty()).then_some(view.by.as_slice());
            serde_json::to_string_pretty(&json::render(&report, &view, by))? + "\n"
        }
    })
}

fn check_claims(args: &ReportArgs) -> Result<String> {
    let mut evidence = Evidence::default();
    for path in &args.files {
        input::read(path, &mut evidence.whole)?;
        if evidence.whole.sources.last().is_some_and(|s| s.name != path.display().to_string()) {
            bail!("--claims: {} is a merge: name the recordings themselves", path.display());
        }
        let policy = evidence.whole.sources.last().map_or(Policy::Unknown, Provenance::policy);
        if path == Path::new("-") {
            bail!("--claims reads its files twice: name them");
        }
        input::read(path, evidence.by_policy.entry(policy).or_default())?;
    }
    Ok(match args.format {
        ReportFormat::Html | ReportFormat::Csv | ReportFormat::Openmetrics => {
            bail!("--claims prints text or json: choose one of these formats")
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
    })
}

fn view(args: &ReportArgs) -> Result<View> {
    let by = args.by.iter().filter_map(|name| Dimension::parse(name)).collect();
    let filters = args.filter.iter().map(|f| Filter::parse(f)).collect::<Result<_, _>>().map_err(|e| anyhow!(e))?;
    Ok(View {
        by: if args.by.is_empty() { vec![Dimension::Vm, Dimension::Level, Dimension::Reason] } else { by },
        filters,
        sort: args.sort,
        top: args.top.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
    })
}
