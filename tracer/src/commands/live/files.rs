//! Recordings and reports that are saved from the live view.

use std::{io::Write, path::PathBuf};

use anyhow::{Context, Result};

use crate::{
    host::clock::Anchor,
    model::{accounting::Accounting, figures::Column},
    output,
    recording::{End, Header, Provenance, Writer},
    report::{Dimension, Report, View, text},
    tui::App,
};

/// Saves the intervals that are kept as recording; `header` is none while a recording is played.
pub(super) fn save_recording(header: Option<&Header>, policy_changed: bool, app: &App) -> Result<PathBuf> {
    let header = header.context("a replay is already a recording")?;
    let path = new_path("hlog");
    let mut writer = Writer::new(output::create(&path, false)?, header)?;
    for interval in app.history() {
        writer.write(interval).with_context(|| format!("write {}", path.display()))?;
    }
    writer.finish(end(policy_changed))?;
    Ok(path)
}

/// Saves a report on the window that is shown.
pub(super) fn save_report(header: Option<&Header>, policy_changed: bool, app: &mut App) -> Result<PathBuf> {
    let path = new_path("txt");
    let whole = app.visible();
    let sources = header.into_iter().map(|header| Provenance {
        name: "live view".into(),
        header: header.clone(),
        end: Some(end(policy_changed)),
        torn: false,
        damage: vec![],
        intervals: 1,
        length_ns: whole.length_ns,
    });
    let view = View {
        by: vec![Dimension::Vm, Dimension::Level, Dimension::Reason],
        filters: Vec::new(),
        sort: Column::Entries,
        top: None,
    };
    let report = Report { sources: sources.collect(), whole, ..Report::default() };
    output::create(&path, false)?
        .write_all(text::render(&report, &view).as_bytes())
        .with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// A name in this folder that has not been used: with the seconds since the epoch.
fn new_path(extension: &str) -> PathBuf {
    format!("vmentry-{}.{extension}", Anchor::now().unix_ns / 1_000_000_000).into()
}

/// The end of a saved recording. The collection goes on and checks its accounting when it ends itself.
fn end(policy_changed: bool) -> End {
    End {
        reason: "saving it from the live view".into(),
        accounting: Accounting { exact: true, ..Accounting::default() },
        tsc_khz: None,
        policy_changed,
    }
}
