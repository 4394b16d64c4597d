//! Plays a recording in the live view: at any speed, with pauses and jumps.

use std::{path::Path, time::Duration};

use anyhow::Result;
use tokio::time::Instant;

use super::{
    line,
    stage::{Stage, frames},
};
use crate::{
    commands::child::Endings,
    model::interval::Interval,
    output,
    recording::{Provenance, tape::Tape},
    tui::{Effect, Info, Origin, ReplayCommand, terminal},
};

/// Time before the destination of a jump whose intervals the screen loads, seconds.
const MEMORY_S: f64 = 600.0;

/// Plays the recording in a file: on the terminal, or as one line per interval.
pub(super) async fn play(path: &Path) -> Result<()> {
    let mut tape = Tape::open(path)?;
    if !terminal::is_usable() {
        let knowledge = tape.header().knowledge();
        while let Some(interval) = tape.next()? {
            output::print(&line(&interval, &knowledge))?;
        }
        return Ok(());
    }
    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let origin = Origin::Replay { file: file.clone() };
    let mut stage = Stage::new(Info::of(tape.header(), tape.end(), origin), None, None)?;
    stage.played = Some(Provenance { end: tape.end().cloned(), ..Provenance::unread(file, tape.header().clone()) });
    Player { stage, next: tape.next()?, tape, due: Instant::now(), speed: 1.0, paused: false }.run().await
}

/// A tape on its way to the screen.
struct Player {
    stage: Stage,
    tape: Tape,
    /// none at the end of the tape
    next: Option<Interval>,
    /// when `next` is shown
    due: Instant,
    /// times real time
    speed: f64,
    paused: bool,
}

impl Player {
    /// Plays until the user or a signal ends it; the last interval stays on the screen.
    async fn run(mut self) -> Result<()> {
        let mut endings = Endings::new()?;
        let mut frames = frames();
        let mut dirty = true;
        loop {
            self.stage.app.set_replay(self.speed, self.paused, self.tape.position());
            tokio::select! {
                _ = endings.next() => return Ok(()),
                input = self.stage.input() => {
                    dirty = true;
                    match self.stage.take(input)? {
                        Effect::Quit => return Ok(()),
                        Effect::Replay(command) => self.steer(command)?,
                        effect => self.stage.carry_out(effect)?,
                    }
                }
                () = tokio::time::sleep_until(self.due), if !self.paused && self.next.is_some() => {
                    self.show_next()?;
                    dirty = true;
                }
                _ = frames.tick(), if dirty => dirty = !self.stage.draw()?,
            }
        }
    }

    fn steer(&mut self, command: ReplayCommand) -> Result<()> {
        match command {
            ReplayCommand::Pause => self.paused = !self.paused,
            ReplayCommand::Faster => self.speed = (self.speed * 2.0).min(1024.0),
            ReplayCommand::Slower => self.speed = (self.speed / 2.0).max(1.0 / 16.0),
            ReplayCommand::SeekBy(seconds) => {
                let remembered = self.tape.seek_by(seconds, MEMORY_S)?;
                self.stage.app.reset();
                remembered.into_iter().for_each(|i| self.stage.app.push(i));
                self.next = self.tape.next()?;
                self.due = Instant::now();
            }
        }
        Ok(())
    }

    fn show_next(&mut self) -> Result<()> {
        if let Some(interval) = self.next.take() {
            let length_s = interval.length_ns as f64 / 1e9 / self.speed;
            self.due = Instant::now() + Duration::from_secs_f64(length_s.clamp(0.0, 3600.0));
            self.stage.app.push(interval);
            self.next = self.tape.next()?;
        }
        Ok(())
    }
}
