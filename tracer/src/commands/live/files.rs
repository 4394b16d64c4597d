//! Recordings and reports that are saved from the live view.

use std::{collections::BTreeMap, io::Write, path::PathBuf};

use anyhow::{Context, Result};

use crate::{
    host::clock::Anchor,
    html::moment::{file_stamp, utc},
    model::accounting::Accounting,
    output,
    recording::{End, Header, Provenance, Writer},
    report::{Report, View, text},
    tui::{App, Origin},
};

/// Saves the intervals that are kept as recording; `header` is none while a recording is played.
pub(super) fn save_recording(header: Option<&Header>, policy_changed: bool, app: &App) -> Result<PathBuf> {
    let header = header.context("a replay is already a recording")?;
    let path = new_path("hlog");
    let mut writer = Writer::new(output::create(&path, false)?, header)?;
    for interval in app.history() {
        writer.write(interval).with_context(|| format!("write {}", output::shown(&path)))?;
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
    let mut out = output::create(&path, false)?;
    out.write_all(report_text(source, app).as_bytes())
        .and_then(|()| out.flush())
        .with_context(|| format!("write {}", output::shown(&path)))?;
    Ok(path)
}

fn report_text(source: Option<Provenance>, app: &mut App) -> String {
    let whole = app.visible();
    let intervals = app.intervals_seen();
    let until_ns = app.seen_until_ns().filter(|_| app.info.origin != Origin::Live);
    let shown = source.as_ref().zip(until_ns).map(|(source, until_ns)| {
        let until = utc(source.header.anchor.to_unix_ns(until_ns));
        format!("{:.1} s of the recording, up to {until}", whole.length_ns as f64 / 1e9)
    });
    let shown: Vec<_> = shown.into_iter().chain(app.left_out()).collect();
    let shown = (!shown.is_empty()).then(|| shown.join("; "));
    let source = source.map(|source| Provenance { intervals, length_ns: whole.length_ns, ..source });
    let mut report = Report { sources: source.into_iter().collect(), shown, ..Report::default() };
    report.add(0, whole, &mut BTreeMap::new());
    text::render(&report, &View::default())
}

/// A name in this folder that has not been used: with the time, "vmentry-2026-11-26T111620Z.txt".
fn new_path(extension: &str) -> PathBuf {
    format!("vmentry-{}.{extension}", file_stamp(Anchor::now().unix_ns)).into()
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
        recording::{Damage, tests::header},
        tui::{Colors, Info, Palette, app::Window},
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

    #[test]
    fn a_report_saved_from_a_replay_says_the_part_it_is_of_and_what_was_left_out() {
        let info = Info::of(&header(), None, Origin::Replay { file: "a.hlog".into() });
        let mut app = App::new(info, Palette { color: Colors::None, ascii: true });
        for n in 0..12 {
            let mut interval = Interval { length_ns: 1_000_000_000, ..Interval::starting(1_000 + n * 1_000_000_000) };
            interval.record(&event(0, 10, 5_000, 1), &vm(0));
            interval.totals.dropped = u64::from(n == 0);
            interval.totals.entries = 1 + interval.totals.dropped;
            interval.totals.delivered = 1;
            app.push(interval);
        }
        let damage = Damage { file: "a.hlog".into(), intervals: 1, lines: vec![9], why: "cut".into() };
        let source = Provenance { damage: vec![damage], ..Provenance::unread("a.hlog".into(), header()) };
        // The dropped entry came before the last ten seconds.
        let text = report_text(Some(source.clone()), &mut app);
        let first: Vec<_> = text.lines().take(4).collect();
        assert_eq!(first[0], "DAMAGED: a.hlog: 1 interval left out (line 9: cut)");
        assert_eq!(first[1], "SHOWN: 10.0 s of the recording, up to 2023-11-14 22:13:32 UTC");
        assert_eq!(first[2], "no loss in this part: 10 entries, all delivered");
        assert!(first[3].contains("in 10 intervals"), "{text}");
        app.window = Window::Start;
        app.push(Interval { length_ns: 1_000_000_000, ..Interval::starting(12_000_001_000) });
        let text = report_text(Some(source), &mut app);
        assert!(text.contains("SHOWN: 13.0 s of the recording, up to 2023-11-14 22:13:33 UTC"), "{text}");
        assert!(
            text.contains("% of 13 entries of this part: 12 delivered") && text.contains("in 13 intervals"),
            "{text}"
        );
    }
}
