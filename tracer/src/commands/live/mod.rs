//! `vmentry live`: traces and draws, or plays a recording; prints one line per interval if there is no terminal.

mod files;
mod replay;
mod stage;

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::sync::mpsc;

use crate::{
    collect::collector::{Attached, Collection},
    commands::{
        args::LiveArgs,
        child::Endings,
        damaged::done,
        following::follow,
        privileges,
        session::{
            command_line, detach, header, next_writable, runtime, selected_tgids, selected_vcpus, traceable_host,
        },
        usage::refuse_overlap,
    },
    host::{facts::Facts, stopwatch},
    kernel::{layout::Layout, options::Options, tracer::Tracer},
    model::{
        figures::{Figure, Stat, Unit, human},
        interval::Interval,
        knowledge::{Knowledge, Subject},
        series::{Level, Series},
    },
    output::{self, Background},
    recording::OnDamage,
    tui::{Info, Origin, terminal},
};
use stage::Stage;

/// Length of an interval.
const PERIOD: Duration = Duration::from_secs(1);

/// Traces, or plays a recording.
pub(super) fn run(args: &LiveArgs) -> Result<ExitCode> {
    let runtime = runtime()?;
    if let Some(file) = &args.replay {
        refuse_overlap([file.as_path()], Path::new("-"))?;
        let damage = runtime.block_on(replay::play(file, OnDamage::skip_if(args.skip_damaged)))?;
        return Ok(done(damage.map(|damage| damage.to_string()).as_deref()));
    }
    let hint = "; 'vmentry live --replay FILE' plays a recording";
    let (facts, layout) = traceable_host("trace", hint, true)?;
    let options = Options {
        tgids: selected_tgids(&args.targets)?,
        vcpu_ids: selected_vcpus(&args.targets),
        stopwatch: stopwatch::start(&facts)?,
        ..Options::default()
    };
    runtime.block_on(trace(args, &facts, &layout, &options))?;
    Ok(ExitCode::SUCCESS)
}

async fn trace(args: &LiveArgs, facts: &Facts, layout: &Layout, options: &Options) -> Result<()> {
    // Before anything is attached: a signal must not end this process without restoring the terminal and the policy.
    let mut endings = Endings::new()?;
    let header = header(facts, layout, options, PERIOD, command_line(&[], false));
    let mut tracer = Tracer::load(layout, options)?;
    let on_screen = terminal::is_usable();
    let (send, notes) = mpsc::unbounded_channel();
    let tell = move |note: &str| {
        if on_screen {
            // Without a receiver the view has ended.
            let _ = send.send(note.to_owned());
        } else {
            output::say(note);
        }
    };
    let _following = follow(&args.targets, options.tgids.as_deref(), &mut tracer, tell)?;
    let attached = Attached::new(tracer)?;
    privileges::of_live_view()?;
    let mut collection = Collection::start(attached, Some(PERIOD))?;
    let shown = if on_screen {
        let info = Info { switchable: facts.companion_patch, ..Info::of(&header, None, Origin::Live) };
        let mut stage = Stage::new(info, Some(header), Some(notes))?;
        stage.watch(&mut collection.intervals, &mut endings).await
    } else {
        print_lines(&mut collection.intervals, &mut endings, &header.knowledge()).await
    };
    detach(collection, shown, "what was shown").await
}

/// Prints one line per interval. While nobody reads, intervals are left to the collector, which makes them longer.
async fn print_lines(
    intervals: &mut mpsc::Receiver<Interval>,
    endings: &mut Endings,
    knowledge: &Knowledge,
) -> Result<()> {
    let (mut out, _) = Background::start(output::create(Path::new("-"), false)?)?;
    loop {
        let interval = tokio::select! {
            _ = endings.next() => return Ok(()),
            interval = next_writable(&out, intervals) => interval,
        };
        let Some(interval) = interval else { return Ok(()) };
        match out.write_all(line(&interval, knowledge).as_bytes()) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.context("write to standard output")?,
        }
    }
}

/// "12.0s entries 345 (345/s, L2 0) guest p50 1.20us p99 4.50us host p50 ... pin/entry 0.100 dropped 0".
pub(super) fn line(interval: &Interval, knowledge: &Knowledge) -> String {
    let mut all = Series::default();
    interval.series.values().for_each(|s| all.merge(s));
    let all = knowledge.show(all);
    let times = |figure: Figure| {
        let value = |stat: Stat| human(stat.of(&all[figure]), figure.unit());
        format!("{} p50 {} p99 {}", figure.short_title(), value(Stat::P50), value(Stat::P99))
    };
    let rate = interval.entries_per_s(interval.totals.entries);
    let rate = rate.map_or("n/a".into(), |rate| format!("{}/s", human(Some(rate), Unit::PerSecond)));
    let of_level = |level| interval.series.iter().filter(move |(k, _)| k.level == level).map(|(_, s)| s.entries());
    let unread: u64 = of_level(Level::Unknown).sum();
    let l2 = match knowledge.known(Subject::Level) {
        Ok(()) if unread == 0 => of_level(Level::L2).sum::<u64>().to_string(),
        _ => "n/a".into(),
    };
    format!(
        "{:.1}s entries {} ({rate}, L2 {l2}) {} {} pin/entry {} dropped {}\n",
        interval.start_ns.saturating_add(interval.length_ns) as f64 / 1e9,
        interval.totals.entries,
        times(Figure::EntryToExit),
        times(Figure::ExitToEntry),
        human(Stat::Mean.of(&all[Figure::PinWrites]), Unit::Count),
        interval.totals.dropped,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::totals::Totals;

    #[test]
    fn a_line_of_any_start_and_length_has_a_rate_only_with_a_length() {
        let totals = Totals { entries: 123, delivered: 123, ..Totals::default() };
        let of = |start_ns, length_ns| {
            line(&Interval { start_ns, length_ns, totals, ..Interval::default() }, &Knowledge::complete())
        };
        assert!(of(0, 2_000_000_000).starts_with("2.0s entries 123 (61.5/s"), "{}", of(0, 2_000_000_000));
        assert!(of(1_000_000_000, 0).starts_with("1.0s entries 123 (n/a, "), "{}", of(1_000_000_000, 0));
        assert!(of(u64::MAX, u64::MAX).starts_with("18446744073.7s entries 123"), "{}", of(u64::MAX, u64::MAX));
    }
}
