//! Plays a recording in the live view: at any speed, with pauses and jumps.

use std::{path::Path, sync::mpsc as blocking, time::Duration};

use anyhow::{Context, Result};
use tokio::{sync::mpsc, time::Instant};

use super::{
    line,
    stage::{Stage, frames},
};
use crate::{
    commands::{child::Endings, usage::refuse},
    model::{interval::Interval, measurement::OtherTracers},
    output,
    recording::{
        self, Damage, Header, OnDamage, Provenance,
        tape::{self, Tape},
    },
    say,
    tui::{Effect, Info, Origin, ReplayCommand, terminal},
};

/// Time before the destination of a jump whose intervals the screen loads, seconds.
const MEMORY_S: f64 = 600.0;

/// Plays the recording in a file: on the terminal, or as one line per interval. Returns what was left out because it is damaged.
pub(super) async fn play(path: &Path, on_damage: OnDamage) -> Result<Option<Damage>> {
    if !terminal::is_usable() {
        let mut reader = tape::open(path, on_damage)?;
        refuse_merge(reader.header(), path)?;
        let knowledge = reader.header().knowledge();
        let at_first = recording::other_tracers(reader.header(), None);
        tell_shared(&at_first);
        while let Some(interval) = reader.read_joined().with_context(|| format!("read {}", output::shown(path)))? {
            output::print(&line(&interval, &knowledge))?;
        }
        let all = recording::other_tracers(reader.header(), reader.end());
        if all.names != at_first.names {
            tell_shared(&all);
        }
        return Ok(reader.damage_of(&output::shown(path)));
    }
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
            "--replay: {file} is a merge of {n} recordings: play each of them, or see them together with 'vmentry report {file}'",
            file = output::shown(path)
        )),
    }
}

/// What is wanted of the tape.
enum Order {
    Next,
    SeekBy(f64),
}

/// An answer of the tape.
struct Played {
    /// after a jump, the intervals before the new place
    remembered: Option<Vec<Interval>>,
    /// none at the end of the tape
    next: Option<Interval>,
    /// share that was played
    position: f64,
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
            Order::SeekBy(seconds) => Some(tape.seek_by(seconds, MEMORY_S)?),
        };
        let position = tape.position();
        Ok(Played { remembered, next: tape.next()?, position, damage: tape.damage() })
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
    /// seconds to jump when it has come
    jump_s: f64,
    /// none at the end of the tape, and while it is read
    next: Option<Interval>,
    /// when `next` is shown
    due: Instant,
    /// times real time
    speed: f64,
    paused: bool,
    position: f64,
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
            jump_s: 0.0,
            next: None,
            due: Instant::now(),
            speed: 1.0,
            paused: false,
            position: 0.0,
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
            self.stage.app.set_replay(self.speed, self.paused, self.position);
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
                () = tokio::time::sleep_until(self.due), if !self.paused && self.next.is_some() => {
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
            ReplayCommand::Pause => self.paused = !self.paused,
            ReplayCommand::Faster => self.speed = (self.speed * 2.0).min(1024.0),
            ReplayCommand::Slower => self.speed = (self.speed / 2.0).max(1.0 / 16.0),
            ReplayCommand::SeekBy(seconds) if self.is_waiting => self.jump_s += seconds,
            ReplayCommand::SeekBy(seconds) => self.order(Order::SeekBy(seconds)),
        }
    }

    fn take(&mut self, played: Played) {
        self.is_waiting = false;
        if let Some(remembered) = played.remembered {
            self.stage.app.reset();
            remembered.into_iter().for_each(|i| self.stage.app.push(i));
            self.due = Instant::now();
        }
        (self.next, self.position) = (played.next, played.position);
        if let Some(damage) = played.damage.filter(|new| self.damage.as_ref() != Some(new)) {
            self.stage.app.set_status(format!("DAMAGED: {damage}"));
            if let Some(source) = &mut self.stage.played {
                source.damage = vec![damage.clone()];
            }
            self.damage = Some(damage);
        }
        if self.jump_s != 0.0 {
            let jump = Order::SeekBy(std::mem::take(&mut self.jump_s));
            self.order(jump);
        }
    }

    fn show_next(&mut self) {
        if let Some(interval) = self.next.take() {
            let length_s = interval.length_ns as f64 / 1e9 / self.speed;
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
