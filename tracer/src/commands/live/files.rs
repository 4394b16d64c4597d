//! Recordings and reports that are saved from the live view.

use std::{collections::BTreeMap, io::Write, path::PathBuf};

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

/// What is traced, as the source of a report.
pub(super) fn live_source(header: &Header, policy_changed: bool) -> Provenance {
    Provenance { end: Some(end(policy_changed)), ..Provenance::unread("live view".into(), header.clone()) }
}

/// Saves a report on the window that is shown, of the recording or the host that it comes from.
pub(super) fn save_report(source: Option<Provenance>, app: &mut App) -> Result<PathBuf> {
    let path = new_path("txt");
    output::create(&path, false)?
        .write_all(report_text(source, app).as_bytes())
        .with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

fn report_text(source: Option<Provenance>, app: &mut App) -> String {
    let whole = app.visible();
    let intervals = app.seen.slices.len() as u64;
    let source = source.map(|source| Provenance { intervals, length_ns: whole.length_ns, ..source });
    let view = View {
        by: vec![Dimension::Vm, Dimension::Level, Dimension::Reason],
        filters: Vec::new(),
        sort: Column::Entries,
        top: None,
    };
    let mut report = Report { sources: source.into_iter().collect(), ..Report::default() };
    report.add(0, whole, &mut BTreeMap::new());
    text::render(&report, &view)
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
        other_tracers: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{
            interval::{
                Interval,
                tests::{event, vm},
            },
            measurement::Latency,
        },
        recording::tests::header,
        tui::{Colors, Info, Origin, Palette},
    };

    /// The report that a replay of a recording with this header saves.
    fn saved(header: &Header) -> String {
        let info = Info::of(header, None, Origin::Replay { file: "a.hlog".into() });
        let mut app = App::new(info, Palette { color: Colors::None, ascii: true });
        let mut interval = Interval { length_ns: 1_000_000_000, ..Interval::default() };
        interval.record(&event(0, 10, 5_000, 1), &vm(0));
        app.push(interval);
        report_text(Some(Provenance::unread("a.hlog".into(), header.clone())), &mut app)
    }

    #[test]
    fn a_report_saved_from_a_replay_says_what_the_report_on_its_recording_says() {
        let mut emulated = header();
        emulated.host.emulated = true;
        emulated.host.name = "kvm7".into();
        let text = saved(&emulated);
        for part in ["EMULATED: ", "recording  a.hlog", "host       kvm7: ", "policy     soft; ", "5.00us"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let disturbed = Header { latency: Latency::Disturbed, ..header() };
        let text = saved(&disturbed);
        assert!(text.contains("times are not shown") && !text.contains("5.00us"), "{text}");
    }
}
