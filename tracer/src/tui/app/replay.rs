//! A replay: its state, and the commands that steer it.

use super::{App, Effect};
use crate::tui::{Origin, clock, keys::Mode};

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
    /// jump to a moment of the recorder's CLOCK_MONOTONIC, ns
    SeekTo(u64),
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
    /// CLOCK_MONOTONIC of the recorder's host at the beginning and the end of the recording, ns; none while unknown
    pub range_ns: Option<(u64, u64)>,
}

impl App {
    pub(super) fn is_replay(&self) -> bool {
        self.info.origin != Origin::Live
    }

    pub(super) fn steer(&mut self, command: ReplayCommand) -> Effect {
        if self.is_replay() {
            return Effect::Replay(command);
        }
        self.status = "only a replay has a speed and can jump: vmentry live FILE".into();
        Effect::None
    }

    /// Beginning and end of the recording, ns since 1970; none while unknown, and where this host is traced.
    fn replay_unix_ns(&self) -> Option<(u64, u64)> {
        let (first_ns, last_ns) = self.replay?.range_ns?;
        let anchor = self.info.anchor;
        Some((anchor.to_unix_ns(first_ns), anchor.to_unix_ns(last_ns)))
    }

    /// Beginning and end of the recording, as the prompt for a moment shows them; empty while unknown.
    pub(crate) fn replay_range(&self) -> String {
        self.replay_unix_ns().map(clock::range).unwrap_or_default()
    }

    /// Lets the user type a moment.
    pub(super) fn ask_for_moment(&mut self) -> Effect {
        if !self.is_replay() {
            return self.steer(ReplayCommand::SeekBy(0.0));
        }
        self.mode = Mode::Moment;
        self.moment.clear();
        Effect::None
    }

    /// Jumps to the typed moment; where there is no such one, the prompt stays and says why.
    pub(super) fn jump_to_moment(&mut self) -> Effect {
        let Some((first, last)) = self.replay_unix_ns() else {
            self.status = "no interval of the recording is known yet: press Enter again".into();
            return Effect::None;
        };
        match clock::find(&self.moment, (first, last)) {
            Ok(unix_ns) => {
                self.mode = Mode::Table;
                Effect::Replay(ReplayCommand::SeekTo(self.info.anchor.to_monotonic_ns(unix_ns)))
            }
            Err(why) => {
                self.status = why;
                Effect::None
            }
        }
    }
}
