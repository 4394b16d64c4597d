//! A recording as lines, from its beginning or from a moment on.

use std::path::Path;

use anyhow::{Context, Result};

use super::{
    lines::Lines,
    replay::{refuse_merge, seek_at},
    tell_emulated,
};
use crate::{
    commands::{
        args::{LiveArgs, Moment},
        session::nanoseconds,
    },
    model::{interval::Interval, measurement::OtherTracers},
    output,
    recording::{
        self, Damage, OnDamage,
        tape::{self, Tape},
    },
    say,
};

/// Prints the recording in a file as lines. Returns what was left out because it is damaged.
pub(super) fn print_lines(path: &Path, on_damage: OnDamage, args: &LiveArgs) -> Result<Option<Damage>> {
    let mut reader = tape::open(path, on_damage)?;
    refuse_merge(reader.header(), path)?;
    if let Some(at) = &args.at {
        return print_lines_at(path, on_damage, args, at);
    }
    let mut lines = Lines::new(args.format(), args.lines_wanted(), reader.header()).for_output();
    tell_emulated(reader.header());
    let at_first = recording::other_tracers(reader.header(), None);
    tell_shared(&at_first);
    let next = || reader.read_joined().with_context(|| format!("read {}", output::shown(path)));
    print_all(next, args, &mut lines)?;
    if !lines.are_done() && reader.end().is_none() {
        tell_cut(path);
    }
    let all = recording::other_tracers(reader.header(), reader.end());
    if all.names != at_first.names {
        tell_shared(&all);
    }
    Ok(reader.damage_of(&output::shown(path)))
}

/// Prints intervals as lines, as many as are wanted.
fn print_all(mut next: impl FnMut() -> Result<Option<Interval>>, args: &LiveArgs, lines: &mut Lines) -> Result<()> {
    let length_ns = args.interval.map_or(0, nanoseconds);
    let mut whole = Interval::default();
    while !lines.are_done() {
        let next = next()?;
        let is_last = next.is_none();
        if let Some(interval) = next {
            whole.merge(&interval);
        }
        let is_some = whole.length_ns > 0 || whole.totals.entries > 0;
        if is_some && (is_last || whole.length_ns >= length_ns) {
            output::print(&lines.line(&std::mem::take(&mut whole)))?;
        }
        if is_last {
            break;
        }
    }
    Ok(())
}

/// Prints the recording from a moment on.
fn print_lines_at(path: &Path, on_damage: OnDamage, args: &LiveArgs, at: &Moment) -> Result<Option<Damage>> {
    let mut tape = Tape::open(path, on_damage)?;
    let mut lines = Lines::new(args.format(), args.lines_wanted(), tape.header()).for_output();
    let failed = || format!("read {}", output::shown(path));
    let mut first = seek_at(&mut tape, at).with_context(failed)?.map(|(interval, _)| interval);
    tell_emulated(tape.header());
    tell_shared(&recording::other_tracers(tape.header(), tape.end()));
    print_all(
        || first.take().map_or_else(|| tape.next().with_context(failed), |first| Ok(Some(first))),
        args,
        &mut lines,
    )?;
    if !lines.are_done() && tape.end().is_none() {
        tell_cut(path);
    }
    Ok(tape.damage())
}

fn tell_cut(path: &Path) {
    let file = output::shown(path);
    say!("cut off: {file} was not ended by its recorder; everything up to its last whole interval is above");
}

/// Says, beside the lines, that other tracers were on the tracepoints.
fn tell_shared(tracers: &OtherTracers) {
    if let Some(shared) = tracers.shared("were") {
        say!("SHARED: {shared}");
    }
}
