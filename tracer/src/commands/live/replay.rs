//! Plays a recording in the live view: at any speed, with pauses and jumps.

use std::{path::Path, sync::mpsc as blocking, time::Duration};

use anyhow::{Context, Result};
use tokio::{sync::mpsc, time::Instant};

use super::stage::{Stage, frames};
use crate::{
    commands::{args::Moment, child::Endings, usage::refuse},
    model::interval::Interval,
    output,
    recording::{
        Damage, Header, OnDamage, Provenance,
        tape::{Seek, Tape},
    },
    tui::{Effect, Info, Origin, ReplayCommand, app::Replay},
};

/// Jumps to a moment that the user named.
pub(super) fn seek_at(tape: &mut Tape, at: &Moment) -> Result<Option<(Interval, f64)>> {
    let anchor = tape.header().anchor;
    let find = |(first_ns, last_ns)| {
        let unix_ns = at.within((anchor.to_unix_ns(first_ns), anchor.to_unix_ns(last_ns)))?;
        Ok(anchor.to_monotonic_ns(unix_ns))
    };
    tape.seek_at(find, at.is_from_end())
}

/// Plays the recording in a file on the terminal. Returns what was left out because it is damaged.
pub(super) async fn play(path: &Path, on_damage: OnDamage, at: Option<&Moment>) -> Result<Option<Damage>> {
    let tape = Tape::open(path, on_damage)?;
    refuse_merge(tape.header(), path)?;
    let file = output::shown(path.file_name().map_or(path, Path::new));
    let origin = Origin::Replay { file: file.clone() };
    let mut stage = Stage::new(Info::of(tape.header(), tape.end(), origin), None, None)?;
    stage.played = Some(Provenance { end: tape.end().cloned(), ..Provenance::unread(file, tape.header().clone()) });
    let mut player = Player::new(stage, tape, at.cloned())?;
    player.run().await.with_context(|| format!("read {}", output::shown(path)))?;
    Ok(player.damage)
}

/// Refuses a merge: its recordings may overlap in time, and the screen has one host and one clock.
pub(super) fn refuse_merge(header: &Header, path: &Path) -> Result<()> {
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
    At(Moment),
}

/// An answer of the tape.
struct Played {
    interval: Answer,
    /// share that was played
    position: f64,
    /// CLOCK_MONOTONIC of the beginning and the end, ns, as far as they are known
    range_ns: Option<(u64, u64)>,
    damage: Option<Damage>,
}

/// An interval of the tape.
enum Answer {
    /// none at the end of the tape
    Next(Option<Interval>),
    /// at the place of a jump; none where no interval is known
    Jumped(Option<Interval>),
    /// before all others since the last jump; nobody asks for it
    Earlier(Interval),
}

/// Reads the tape on a thread of its own, so that neither keys nor frames wait for a disk.
fn start(
    mut tape: Tape,
    orders: blocking::Receiver<Order>,
    answers: mpsc::UnboundedSender<Result<Played>>,
) -> Result<()> {
    let work = move || {
        let mut has_earlier = false;
        loop {
            // What came before the place of a jump is read while nothing else is wanted.
            let order = match orders.try_recv() {
                Ok(order) => order,
                Err(blocking::TryRecvError::Disconnected) => return,
                Err(blocking::TryRecvError::Empty) if has_earlier => {
                    let earlier = tape.earlier();
                    has_earlier = matches!(earlier, Ok(Some(_)));
                    let position = tape.position();
                    let earlier = earlier.map(|interval| Some((Answer::Earlier(interval?), position)));
                    if tell(&tape, earlier, &answers) { continue } else { return }
                }
                Err(blocking::TryRecvError::Empty) => match orders.recv() {
                    Ok(order) => order,
                    Err(_) => return,
                },
            };
            let position = tape.position();
            has_earlier |= !matches!(order, Order::Next);
            let jumped = |to: Option<(Interval, f64)>| {
                let (interval, position) = to.unzip();
                Some((Answer::Jumped(interval), position.unwrap_or_default()))
            };
            let answer = match order {
                Order::Next => tape.next().map(|interval| Some((Answer::Next(interval), position))),
                Order::Seek(to) => tape.seek(to).map(jumped),
                Order::At(at) => seek_at(&mut tape, &at).map(jumped),
            };
            if !tell(&tape, answer, &answers) {
                return;
            }
        }
    };
    std::thread::Builder::new().name("tape".into()).spawn(work).context("start the thread that reads")?;
    Ok(())
}

/// Sends an answer, where there is one; returns whether anybody waits for more.
fn tell(tape: &Tape, answer: Result<Option<(Answer, f64)>>, answers: &mpsc::UnboundedSender<Result<Played>>) -> bool {
    let played = |(interval, position)| Played { interval, position, range_ns: tape.range_ns(), damage: tape.damage() };
    match answer.map(|answer| answer.map(played)).transpose() {
        Some(answer) => answers.send(answer).is_ok(),
        None => !answers.is_closed(),
    }
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
    fn new(mut stage: Stage, tape: Tape, at: Option<Moment>) -> Result<Self> {
        let ((orders, wanted), (send, answers)) = (blocking::channel(), mpsc::unbounded_channel());
        start(tape, wanted, send)?;
        if let Some(at) = &at {
            stage.app.set_status(format!("looking for {at}"));
        }
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
        player.order(at.map_or(Order::Next, Order::At));
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
        self.state.range_ns = played.range_ns;
        let position = played.position.clamp(0.0, 1.0);
        match played.interval {
            Answer::Earlier(interval) => self.stage.app.push_earlier(interval),
            Answer::Next(next) => {
                self.is_waiting = false;
                (self.next, self.state.position) = (next, position);
            }
            Answer::Jumped(interval) => {
                self.is_waiting = false;
                self.stage.app.set_status(String::new());
                if let Some(interval) = interval {
                    self.stage.app.reset_for_jump();
                    (self.next, self.state.position) = (None, position);
                    // Also where the replay is paused.
                    self.show(interval);
                    if self.jump.is_none() {
                        self.order(Order::Next);
                    }
                }
            }
        }
        if let Some(damage) = played.damage.filter(|new| self.damage.as_ref() != Some(new)) {
            self.stage.app.set_status(format!("DAMAGED: {damage}"));
            if let Some(source) = &mut self.stage.played {
                source.damage = vec![damage.clone()];
            }
            self.damage = Some(damage);
        }
        if !self.is_waiting
            && let Some(seek) = self.jump.take()
        {
            self.order(Order::Seek(seek));
        }
    }

    fn show_next(&mut self) {
        if let Some(interval) = self.next.take() {
            self.show(interval);
            if !self.is_waiting {
                self.order(Order::Next);
            }
        }
    }

    fn show(&mut self, interval: Interval) {
        let length_s = interval.length_ns as f64 / 1e9 / self.state.speed;
        self.due = Instant::now() + Duration::from_secs_f64(length_s.clamp(0.0, 3600.0));
        self.stage.app.push(interval);
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
