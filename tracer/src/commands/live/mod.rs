//! `vmentry live`: traces and draws, or plays a recording; prints one line per interval if there is no terminal.

mod columns;
mod files;
mod lines;
mod replay;
mod stage;
mod transcript;

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::sync::mpsc;

use crate::{
    collect::collector::{Attached, Collection},
    commands::{
        args::{LiveArgs, RingKib},
        child::Endings,
        damaged::done,
        following::follow,
        privileges,
        session::{
            command_line, detach, header, next_writable, ring_bytes, runtime, say_missing_details, selected_tgids,
            selected_vcpus, traceable_host,
        },
        usage::refuse_overlap,
    },
    host::{facts::Facts, stopwatch},
    kernel::{layout::Layout, options::Options, tracer::Tracer},
    model::{interval::Interval, measurement::EMULATED},
    output::{self, Background},
    recording::{self, Header, OnDamage},
    say,
    tui::{Info, Origin, terminal},
};
pub(super) use lines::Lines;
use stage::Stage;

/// Length of an interval.
const PERIOD: Duration = Duration::from_secs(1);

/// Traces, or plays a recording.
pub(super) fn run(args: &LiveArgs) -> Result<ExitCode> {
    let runtime = runtime()?;
    if let Some(file) = &args.file {
        refuse_overlap([file.as_path()], Path::new("-"))?;
        if !file.exists() && file != Path::new("-") {
            let name = output::shown(file);
            let meant = recording::similar(file).map(|meant| format!(": {meant}")).unwrap_or_default();
            bail!("there is no recording {name}{meant}\n  -> to watch a VM of this name: vmentry live --vm {name}");
        }
        let on_damage = OnDamage::skip_if(args.skip_damaged);
        let damage = if args.wants_lines() || !terminal::is_usable() {
            transcript::print_lines(file, on_damage, args)?
        } else {
            runtime.block_on(replay::play(file, on_damage, args.at.as_ref()))?
        };
        return Ok(done(damage.map(|damage| damage.to_string()).as_deref()));
    }
    let hint = "; 'vmentry live FILE' plays a recording";
    let (facts, layout) = traceable_host("trace", hint, true)?;
    let options = Options {
        tgids: selected_tgids(&args.targets)?,
        vcpu_ids: selected_vcpus(&args.targets),
        stopwatch: stopwatch::start(&facts)?,
        detail: args.details.are_wanted(),
        addresses: args.details.have_addresses(),
        ring_bytes: ring_bytes(RingKib::Auto)?,
        ..Options::default()
    };
    say_missing_details(&options, &layout.config);
    runtime.block_on(trace(args, &facts, &layout, &options))?;
    Ok(ExitCode::SUCCESS)
}

async fn trace(args: &LiveArgs, facts: &Facts, layout: &Layout, options: &Options) -> Result<()> {
    // Before anything is attached: a signal must not end this process without restoring the terminal and the policy.
    let mut endings = Endings::new()?;
    let period = args.interval.unwrap_or(PERIOD);
    let header = header(facts, layout, options, period, command_line(&[], false));
    let mut tracer = Tracer::load(layout, options)?;
    let on_screen = !args.wants_lines() && terminal::is_usable();
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
    let mut collection = Collection::start(attached, Some(period))?;
    let shown = if on_screen {
        let info = Info { switchable: facts.companion_patch, ..Info::of(&header, None, Origin::Live) };
        let mut stage = Stage::new(info, Some(header), Some(notes))?;
        stage.watch(&mut collection.intervals, &mut endings).await
    } else {
        let lines = Lines::new(args.format(), args.lines_wanted(), &header).for_output();
        tell_emulated(&header);
        print_lines(&mut collection.intervals, &mut endings, lines).await
    };
    detach(collection, shown, "what was shown").await
}

/// Says, beside the lines, that the CPU was emulated.
fn tell_emulated(header: &Header) {
    if header.host.emulated {
        say!("EMULATED: {EMULATED}");
    }
}

/// Prints a line per interval. While nobody reads, intervals are left to the collector, which makes them longer.
async fn print_lines(intervals: &mut mpsc::Receiver<Interval>, endings: &mut Endings, mut lines: Lines) -> Result<()> {
    let (mut out, mut written) = Background::start(output::create(Path::new("-"), false)?)?;
    while !lines.are_done() {
        let interval = tokio::select! {
            _ = endings.next() => return Ok(()),
            interval = next_writable(&out, intervals) => interval,
        };
        let Some(interval) = interval else { return Ok(()) };
        match out.write_all(lines.line(&interval).as_bytes()) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.context("write to standard output")?,
        }
    }
    drop(out);
    written.wait().await.context("write to standard output")
}
