//! The state of the screen: the intervals seen, the window shown of them, and how.

mod actions;
mod baseline;
mod navigation;
mod replay;
mod seen;
mod window;

use std::collections::HashSet;

use ratatui::layout::Rect;

use crate::{
    model::{figures::Figure, interval::Interval, policy::Policy},
    tui::{
        Info, Palette,
        columns::{EXITS, HOST_TIME, Units},
        history::History,
        keys::Mode,
        node::{Group, Node},
        rows::Order,
        sum::SumCache,
    },
};
pub use actions::Effect;
pub(crate) use baseline::Baseline;
pub use replay::{Replay, ReplayCommand};
pub use seen::Seen;
pub use window::Window;

/// Intervals of a sparkline or time series, at most.
pub(crate) const LATEST: usize = 120;
/// Intervals of a sparkline.
pub(crate) const SPARK: u16 = 16;

/// Places of rows and titles on the screen, for the mouse.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// rows of the table
    pub rows: Rect,
    /// titles of its columns: left, right (exclusive), column; none is the name
    pub titles: Vec<(u16, u16, Option<usize>)>,
    /// line of the titles
    pub title_line: u16,
    /// whether the detail is shown
    pub detail: bool,
}

/// The screen's state.
#[derive(Debug)]
pub struct App {
    /// host and sources of figures
    pub info: Info,
    /// colours and characters
    pub palette: Palette,
    /// mode, which decides the meaning of keys
    pub mode: Mode,
    /// length of the window
    pub window: Window,
    /// number of the last interval of the window; none follows the newest
    pub end: Option<u64>,
    /// stopped by the user, not by looking back
    pub paused: bool,
    /// how rows are grouped
    pub group: Group,
    /// how they are sorted
    pub order: Order,
    /// text of the filter
    pub filter: String,
    /// text of the moment to jump to
    pub moment: String,
    /// how times are written
    pub units: Units,
    /// the window that values are compared with
    pub baseline: Option<Baseline>,
    /// whether the detail is shown; none shows it where there is room
    pub detail: Option<bool>,
    /// figure of the detail's time series: index into [`COLUMNS`]
    pub figure: usize,
    /// index of the selected row
    pub selected: usize,
    /// index of the first row on the screen
    pub first: usize,
    /// first line of the help on the screen
    pub help_line: usize,
    /// a message
    pub status: String,
    /// entries since the start that are missing from all figures
    pub lost: u64,
    /// percent of a CPU that this process takes; none if unknown
    pub own_cpu: Option<f64>,
    /// state of the replay
    pub replay: Option<Replay>,
    /// places on the screen as last drawn
    pub places: Places,
    /// content of the screen
    pub seen: Seen,
    history: History,
    sums: SumCache,
    /// The filter of `sums` and of the baseline's values.
    summed_filter: String,
    unfolded: HashSet<Node>,
    /// Nodes that were unfolded because they were alone.
    unfolded_alone: HashSet<Node>,
    selected_node: Option<Node>,
    stale: bool,
}

impl App {
    /// A screen that has seen nothing.
    pub fn new(info: Info, palette: Palette) -> Self {
        let first = if info.knowledge.figure(Figure::ExitToEntry).is_ok() { HOST_TIME } else { EXITS };
        Self {
            info,
            palette,
            mode: Mode::Table,
            window: Window::default(),
            end: None,
            paused: false,
            group: Group::default(),
            order: Order { column: Some(first), ascending: false },
            filter: String::new(),
            moment: String::new(),
            units: Units::default(),
            baseline: None,
            detail: None,
            figure: 0,
            selected: 0,
            first: 0,
            help_line: 0,
            status: String::new(),
            lost: 0,
            own_cpu: None,
            replay: None,
            places: Places::default(),
            seen: Seen::default(),
            history: History::default(),
            sums: SumCache::default(),
            summed_filter: String::new(),
            unfolded: HashSet::new(),
            unfolded_alone: HashSet::new(),
            selected_node: None,
            stale: false,
        }
    }

    /// Adds an interval.
    pub fn push(&mut self, interval: Interval) {
        if self.end.is_none() {
            // A second reference would make the history copy the sum since the start.
            self.seen.slices.clear();
            self.stale = true;
        }
        let totals = &interval.totals;
        self.lost += totals.dropped + totals.malformed + totals.not_kept;
        self.history.push(interval);
    }

    /// Adds an interval of a replay before all others since the last jump, unless it has no room for it.
    pub(crate) fn push_earlier(&mut self, interval: Interval) {
        let totals = &interval.totals;
        let lost = totals.dropped + totals.malformed + totals.not_kept;
        self.seen.slices.clear();
        self.stale = true;
        if self.history.push_earlier(interval) {
            self.lost += lost;
        }
    }

    /// Forgets every interval, for the user. The baseline stays.
    pub(crate) fn reset(&mut self) {
        self.begin(self.history.emptied());
    }

    /// The same before a jump in a replay, after which earlier intervals may come.
    pub(crate) fn reset_for_jump(&mut self) {
        self.begin(self.history.emptied_for_earlier());
    }

    fn begin(&mut self, history: History) {
        self.history = history;
        self.lost = 0;
        self.end = None;
        self.paused = false;
        self.seen = Seen::default();
        self.stale = true;
    }

    /// Sets the policy in force.
    pub fn set_policy(&mut self, policy: Policy) {
        self.info.policy = policy;
    }

    /// Sets this process's share of a CPU, percent.
    pub fn set_own_cpu(&mut self, percent: Option<f64>) {
        self.own_cpu = percent;
    }

    /// Shows a message until the next key.
    pub(crate) fn set_status(&mut self, status: String) {
        self.status = status;
    }

    /// Sets the state of the replay.
    pub fn set_replay(&mut self, replay: Replay) {
        self.replay = Some(replay);
    }

    /// The intervals of the window merged, whatever the filter.
    pub fn visible(&mut self) -> Interval {
        self.refresh_whole();
        let mut whole = Interval::default();
        self.seen.slices.iter().for_each(|s| whole.merge(&s.interval));
        whole
    }

    /// Says which VMs' series the window is without, which is since the start; none where it has all.
    pub(crate) fn left_out(&self) -> Option<String> {
        let series = self.history.left_out();
        let is_cut = self.window == Window::Start && series > 0;
        is_cut.then(|| format!("{series} series of VMs that ended are left out"))
    }

    /// The intervals that are kept, oldest first.
    pub fn history(&self) -> impl Iterator<Item = &Interval> {
        self.history.slices().map(|s| &s.interval)
    }
}
