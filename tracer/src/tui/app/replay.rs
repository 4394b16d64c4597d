//! A replay: its state, and the commands that steer it.

use super::{App, Effect};
use crate::tui::Origin;

/// Seconds of a jump.
pub(super) const JUMP_S: f64 = 10.0;

/// A command for a replay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ReplayCommand {
    /// pause or continue
    Pause,
    /// go faster
    Faster,
    /// go slower
    Slower,
    /// jump by seconds, back if negative
    SeekBy(f64),
}

/// The state of a replay.
#[derive(Clone, Copy, Debug)]
pub struct Replay {
    /// times real time
    pub speed: f64,
    /// paused
    pub paused: bool,
    /// share of the recording that was played, `0.0..=1.0`
    pub position: f64,
}

impl App {
    pub(super) fn is_replay(&self) -> bool {
        self.info.origin != Origin::Live
    }

    pub(super) fn steer(&mut self, command: ReplayCommand) -> Effect {
        if self.is_replay() {
            return Effect::Replay(command);
        }
        self.status = "only a replay has a speed and can jump: vmentry live --replay FILE".into();
        Effect::None
    }
}
