//! Plays a recording in the live view: at any speed, with pauses and jumps.

use std::{path::Path, sync::mpsc as blocking, time::Duration};

use anyhow::{Context, Result};
use tokio::{sync::mpsc, time::Instant};

use super::{
    lines::Lines,
    stage::{Stage, frames},
    tell_emulated,
};
use crate::{
    commands::{args::LiveArgs, child::Endings, session::nanoseconds, usage::refuse},
    model::{interval::Interval, measurement::OtherTracers},
    output,
    recording::{
        self, Damage, Header, OnDamage, Provenance,
        tape::{self, Tape},
    },
    say,
    tui::{Effect, Info, Origin, ReplayCommand, app::Replay},
};

/// Time before the destination of a jump whose intervals the screen loads, seconds.
const MEMORY_S: f64 = 600.0;

/// Prints the recording in a file as lines. Returns what was left out because it is damaged.
pub(super) fn print_lines(path: &Path, on_damage: OnDamage, args: &LiveArgs) -> Result<Option<Damage>> {
    let mut reader = tape::open(path, on_damage)?;
    refuse_merge(reader.header(), path)?;
    let header = reader.header();
    let mut lines = Lines::new(args.format(), args.lines_wanted(), header).for_output();
    tell_emulated(header);
    let at_first = recording::other_tracers(header, None);
    tell_shared(&at_first);
    let length_ns = args.interval.map_or(0, nanoseconds);
    let mut whole = Interval::default();
    while !lines.are_done() {
        let next = reader.read_joined().with_context(|| format!("read {}", output::shown(path)))?;
        let is_last = next.is_none();
        if let Some(interval) = next {
            whole.merge(&interval);
        }
        let is_some = whole.length_ns > 0 || whole.totals.entries > 0;
        if is_some && (is_last || whole.length_ns >= length_ns) {
            output::print(&lines.line(&std::mem::take(&mut whole)))?;
        }
        if is_last {
            if reader.end().is_none() {
                let file = output::shown(path);
                say!(
                    "cut off: {file} was not ended by its recorder; everything up to its last whole interval is above"
                );
            }
            break;
        }
    }
    let all = recording::other_tracers(reader.header(), reader.end());
    if all.names != at_first.names {
        tell_shared(&all);
    }
    Ok(reader.damage_of(&output::shown(path)))
}

/// Plays the recording in a file on the terminal. Returns what was left out because it is damaged.
pub(super) async fn play(path: &Path, on_damage: OnDamage) -> Result<Option<Damage>> {
    let tape = Tape::open(path, on_damage)?;
    refuse_merge(tape.header(), path)?;
    let file = output::shown(path.file_name().map_or(path, Path::new));
    let origin = Origin::Replay { file: file.clone() };
    let mut stage = Stage::new(Info::of(tape.header(), tape.end(), origin), None, None)?;
    stage.played = Some(Provenance { end: tape.end().cloned(), ..Provenance::unread(file, tape.header().clone()) });
    let mut player = Player::new(stage, tape)?;
    player.run().await.with_context(|| format!("read {}", output::shown(path)))?;
    Ok(player.damage)
}

/// Says, beside the lines, that other tracers were on the tracepoints.
fn tell_shared(tracers: &OtherTracers) {
    if let Some(shared) = tracers.shared("were") {
        say!("SHARED: {shared}");
    }
}

/// Refuses a merge: its recordings may overlap in time, and the screen has one host and one clock.
fn refuse_merge(header: &Header, path: &Path) -> Result<()> {
    match header.sources.len() {
        0 => Ok(()),
        n => refuse(format!(
            "live: {file} is a merge of {n} recordings: play each of them, or see them together with 'vmentry report {file}'",
            file = output::shown(path)
        )),
    }
}

/// What is wanted of the tape.
enum Order {
    Next,
    Seek(Seek),
}

/// A jump of the tape.
#[derive(Clone, Copy)]
enum Seek {
    /// by seconds
    By(f64),
    /// to a moment of the recorder's CLOCK_MONOTONIC, ns
    To(u64),
}

/// An answer of the tape.
struct Played {
    /// after a jump, the intervals before the new place
    remembered: Option<Vec<Interval>>,
    /// none at the end of the tape
    next: Option<Interval>,
    /// share that was played
    position: f64,
    /// CLOCK_MONOTONIC of the beginning and the end, ns, as far as they are known
    range_ns: Option<(u64, u64)>,
    damage: Option<Damage>,
}

/// Reads the tape on a thread of its own, so that neither keys nor frames wait for a disk.
fn start(
    mut tape: Tape,
    orders: blocking::Receiver<Order>,
    answers: mpsc::UnboundedSender<Result<Played>>,
) -> Result<()> {
    let play = move |tape: &mut Tape, order| -> Result<Played> {
        let remembered = match order {
            Order::Next => None,
            Order::Seek(Seek::By(seconds)) => Some(tape.seek_by(seconds, MEMORY_S)?),
            Order::Seek(Seek::To(moment_ns)) => Some(tape.seek_to(moment_ns, MEMORY_S)?),
        };
        let position = tape.position();
        let next = tape.next()?;
        Ok(Played { remembered, next, position, range_ns: tape.range_ns(), damage: tape.damage() })
    };
    let work = move || {
        while let Ok(order) = orders.recv() {
            if answers.send(play(&mut tape, order)).is_err() {
                break;
            }
        }
    };
    std::thread::Builder::new().name("tape".into()).spawn(work).context("start the thread that reads")?;
    Ok(())
}

/// A tape on its way to the screen.
struct Player {
    stage: Stage,
    orders: blocking::Sender<Order>,
    answers: mpsc::UnboundedReceiver<Result<Played>>,
    /// an answer is on its way
    is_waiting: bool,
    /// the jump when it has come
    jump: Option<Seek>,
    /// none at the end of the tape, and while it is read
    next: Option<Interval>,
    /// when `next` is shown
    due: Instant,
    state: Replay,
    damage: Option<Damage>,
}

impl Player {
    fn new(stage: Stage, tape: Tape) -> Result<Self> {
        let ((orders, wanted), (send, answers)) = (blocking::channel(), mpsc::unbounded_channel());
        start(tape, wanted, send)?;
        let mut player = Self {
            stage,
            orders,
            answers,
            is_waiting: false,
            jump: None,
            next: None,
            due: Instant::now(),
            state: Replay { speed: 1.0, paused: false, position: 0.0, range_ns: None },
            damage: None,
        };
        player.order(Order::Next);
        Ok(player)
    }

    /// Plays until the user or a signal ends it; the last interval stays on the screen.
    async fn run(&mut self) -> Result<()> {
        let mut endings = Endings::new()?;
        let mut frames = frames();
        let mut dirty = true;
        loop {
            self.stage.app.set_replay(self.state);
            tokio::select! {
                _ = endings.next() => return Ok(()),
                input = self.stage.input() => {
                    dirty = true;
                    match self.stage.take(input)? {
                        Effect::Quit => return Ok(()),
                        Effect::Replay(command) => self.steer(command),
                        effect => self.stage.carry_out(effect)?,
                    }
                }
                Some(played) = self.answers.recv() => {
                    self.take(played?);
                    dirty = true;
                }
                () = tokio::time::sleep_until(self.due), if !self.state.paused && self.next.is_some() => {
                    self.show_next();
                    dirty = true;
                }
                _ = frames.tick(), if dirty => dirty = !self.stage.draw()?,
            }
        }
    }

    fn order(&mut self, order: Order) {
        self.is_waiting = true;
        // Without its thread there is no answer, and what was shown stays.
        let _ = self.orders.send(order);
    }

    fn steer(&mut self, command: ReplayCommand) {
        match command {
            ReplayCommand::Pause => self.state.paused = !self.state.paused,
            ReplayCommand::Faster => self.state.speed = (self.state.speed * 2.0).min(1024.0),
            ReplayCommand::Slower => self.state.speed = (self.state.speed / 2.0).max(1.0 / 16.0),
            ReplayCommand::SeekBy(seconds) => self.seek(Seek::By(seconds)),
            ReplayCommand::SeekTo(moment_ns) => self.seek(Seek::To(moment_ns)),
        }
    }

    /// Jumps, or remembers to: jumps by seconds add up, and of others the last one counts.
    fn seek(&mut self, seek: Seek) {
        match (self.is_waiting, seek, self.jump) {
            (true, Seek::By(more_s), Some(Seek::By(s))) => self.jump = Some(Seek::By(s + more_s)),
            (true, ..) => self.jump = Some(seek),
            (false, ..) => self.order(Order::Seek(seek)),
        }
    }

    fn take(&mut self, played: Played) {
        self.is_waiting = false;
        if let Some(remembered) = played.remembered {
            self.stage.app.reset();
            remembered.into_iter().for_each(|i| self.stage.app.push(i));
            self.due = Instant::now();
        }
        self.next = played.next;
        (self.state.position, self.state.range_ns) = (played.position.clamp(0.0, 1.0), played.range_ns);
        if let Some(damage) = played.damage.filter(|new| self.damage.as_ref() != Some(new)) {
            self.stage.app.set_status(format!("DAMAGED: {damage}"));
            if let Some(source) = &mut self.stage.played {
                source.damage = vec![damage.clone()];
            }
            self.damage = Some(damage);
        }
        if let Some(seek) = self.jump.take() {
            self.order(Order::Seek(seek));
        }
    }

    fn show_next(&mut self) {
        if let Some(interval) = self.next.take() {
            let length_s = interval.length_ns as f64 / 1e9 / self.state.speed;
            self.due = Instant::now() + Duration::from_secs_f64(length_s.clamp(0.0, 3600.0));
            self.stage.app.push(interval);
            if !self.is_waiting {
                self.order(Order::Next);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{commands::usage::WrongCommandLine, recording::tests::header};

    #[test]
    fn a_merge_is_refused_and_the_error_names_the_command_that_shows_it() {
        let part = Provenance::unread("a.hlog".into(), header());
        let merge = Header { sources: vec![part.clone(), part], ..header() };
        let error = refuse_merge(&merge, Path::new("m.hlog")).unwrap_err();
        assert!(error.to_string().contains("2 recordings") && error.to_string().contains("vmentry report m.hlog"));
        assert!(error.is::<WrongCommandLine>());
        assert!(refuse_merge(&header(), Path::new("a.hlog")).is_ok());
    }
}
