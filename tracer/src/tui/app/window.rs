//! The window of time that is shown: its length, and whether it follows what happens.

use super::App;

/// Length of the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Window {
    /// the last second
    Second,
    /// the last ten
    #[default]
    TenSeconds,
    /// the last minute
    Minute,
    /// everything
    Start,
}

impl Window {
    /// Name in the header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Second => "1 s",
            Self::TenSeconds => "10 s",
            Self::Minute => "60 s",
            Self::Start => "since start",
        }
    }

    pub(super) fn next(self) -> Self {
        match self {
            Self::Second => Self::TenSeconds,
            Self::TenSeconds => Self::Minute,
            Self::Minute => Self::Start,
            Self::Start => Self::Second,
        }
    }

    /// In seconds; none since the start.
    pub(super) const fn seconds(self) -> Option<f64> {
        match self {
            Self::Second => Some(1.0),
            Self::TenSeconds => Some(10.0),
            Self::Minute => Some(60.0),
            Self::Start => None,
        }
    }
}

impl App {
    /// Number of the intervals in the window, as last refreshed.
    pub(crate) fn intervals_seen(&self) -> u64 {
        match (self.window, self.seen.slices.last()) {
            (Window::Start, Some(whole)) => self.history.count_to(whole.number),
            _ => self.seen.slices.len() as u64,
        }
    }

    /// CLOCK_MONOTONIC of the recorder's host at the end of the window, ns; none if nothing was seen.
    pub(crate) fn seen_until_ns(&self) -> Option<u64> {
        self.seen.latest.last().map(|s| s.interval.start_ns.saturating_add(s.interval.length_ns))
    }

    /// Seconds between the end of the window and the newest interval.
    pub fn behind_s(&self) -> f64 {
        let Some(end) = self.end else { return 0.0 };
        self.history.slices().filter(|s| s.number > end).map(|s| s.interval.length_ns as f64 / 1e9).sum()
    }

    pub(super) fn pause(&mut self) {
        self.refresh();
        self.paused = self.end.is_none();
        self.end = if self.paused { self.history.newest() } else { None };
        self.paused &= self.end.is_some();
        self.stale |= !self.paused;
    }

    /// Moves the window back or forward by intervals.
    pub(super) fn step(&mut self, by: i64) {
        let (Some(oldest), Some(newest)) = (self.history.oldest(), self.history.newest()) else { return };
        let to = self.end.unwrap_or(newest).saturating_add_signed(by).max(oldest);
        self.end = (to < newest).then_some(to);
        self.paused = false;
        self.stale = true;
        if self.window == Window::Start {
            self.window = Window::default();
        }
    }

    pub(super) fn look_at(&mut self, window: Window) {
        self.window = window;
        self.stale = true;
    }
}
