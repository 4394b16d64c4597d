//! The state of the screen: what was seen, what of it is looked at, and what keys make of it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ratatui::{
    crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind},
    layout::Rect,
};

use crate::{
    model::{interval::Interval, policy::Policy},
    tui::{
        Info, Origin, Palette,
        columns::{COLUMNS, Kind, Parts, Sum, Units, Values, change},
        detail::Detail,
        history::{History, Slice},
        keys::{Action, Mode, action_of},
        rows::{Group, Making, Matcher, Node, Order, Row, vm_names},
    },
};

/// Intervals that sparklines and time series look back at most.
pub const LATEST: usize = 120;
/// Intervals of a sparkline.
pub const SPARK: usize = 16;
/// Seconds that a replay is sought by.
const SEEK_S: f64 = 10.0;
/// Characters of a filter.
const MAX_FILTER: usize = 64;

/// Time that figures are of.
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
    /// As the header shows it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Second => "1 s",
            Self::TenSeconds => "10 s",
            Self::Minute => "60 s",
            Self::Start => "since start",
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Second => Self::TenSeconds,
            Self::TenSeconds => Self::Minute,
            Self::Minute => Self::Start,
            Self::Start => Self::Second,
        }
    }

    /// Its length; none of all time.
    const fn seconds(self) -> Option<f64> {
        match self {
            Self::Second => Some(1.0),
            Self::TenSeconds => Some(10.0),
            Self::Minute => Some(60.0),
            Self::Start => None,
        }
    }
}

/// What the screen asks of whoever runs it.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// nothing
    None,
    /// end
    Quit,
    /// stop this process until the shell continues it
    Suspend,
    /// clear the terminal and draw anew
    Redraw,
    /// switch the timer policy
    SwitchPolicy(Policy),
    /// save [`App::visible`] as recording
    SaveRecording,
    /// save [`App::visible`] as report
    SaveReport,
    /// steer the replay
    Replay(ReplayCommand),
}

/// What a replay is to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ReplayCommand {
    /// stop, or go on
    Pause,
    /// go faster
    Faster,
    /// go slower
    Slower,
    /// skip so many seconds; back where negative
    SeekBy(f64),
}

/// What is compared with.
#[derive(Clone, Debug)]
pub struct Baseline {
    /// its window
    pub slices: Vec<Arc<Slice>>,
    /// policy in force then
    pub policy: Policy,
    /// Values by node, as far as somebody wanted to see them.
    values: HashMap<Node, Values>,
}

impl Baseline {
    /// Seconds of observation.
    pub fn seconds(&self) -> f64 {
        self.slices.iter().map(|s| s.interval.length_ns as f64 / 1e9).sum()
    }
}

/// State of a replay.
#[derive(Clone, Copy, Debug)]
pub struct Replay {
    /// times real time
    pub speed: f64,
    /// stopped
    pub paused: bool,
    /// share of the recording that was played, `0.0..=1.0`
    pub position: f64,
}

/// Where things were drawn, for the mouse.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// rows of the table
    pub rows: Rect,
    /// titles of its columns: left, right (exclusive), column; none is the name
    pub titles: Vec<(u16, u16, Option<usize>)>,
    /// line of the titles
    pub title_line: u16,
}

/// What is looked at, made when an interval or an action changed it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// the window
    pub slices: Vec<Arc<Slice>>,
    /// the latest intervals, oldest first
    pub latest: Vec<Arc<Slice>>,
    /// names of the VMs
    pub names: HashMap<u32, String>,
    /// the filter
    pub matcher: Matcher,
    /// rows, top to bottom
    pub rows: Vec<Row>,
    /// entries by the kernel's count
    pub entries: u64,
    /// seconds of observation
    pub seconds: f64,
    /// detail of the selected row, while it is shown
    pub detail: Option<Detail>,
}

/// The screen's state.
#[derive(Debug)]
pub struct App {
    /// what the header tells
    pub info: Info,
    /// colours and characters
    pub palette: Palette,
    /// what the user is doing
    pub mode: Mode,
    /// time that figures are of
    pub window: Window,
    /// number of the interval that the window ends with; none follows the newest
    pub end: Option<u64>,
    /// stopped by the user, not by looking back
    pub paused: bool,
    /// how rows are grouped
    pub group: Group,
    /// how they are sorted
    pub order: Order,
    /// text of the filter
    pub filter: String,
    /// how times are written
    pub units: Units,
    /// what figures are compared with
    pub baseline: Option<Baseline>,
    /// whether the detail is shown
    pub detail: bool,
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
    /// entries since the start of which nothing is known but that they were
    pub lost: u64,
    /// percent of a CPU that this process takes; none where not known
    pub own_cpu: Option<f64>,
    /// state of the replay
    pub replay: Option<Replay>,
    /// where things were drawn
    pub places: Places,
    /// what is looked at
    pub seen: Seen,
    history: History,
    parts: Parts,
    /// The filter that sums of parts and of the baseline were made with.
    summed_filter: String,
    unfolded: HashSet<Node>,
    selected_node: Option<Node>,
    stale: bool,
}

impl App {
    /// A screen that has seen nothing.
    pub fn new(info: Info, palette: Palette) -> Self {
        Self {
            info,
            palette,
            mode: Mode::Table,
            window: Window::default(),
            end: None,
            paused: false,
            group: Group::default(),
            order: Order { column: Some(0), ascending: false },
            filter: String::new(),
            units: Units::default(),
            baseline: None,
            detail: false,
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
            parts: Parts::default(),
            summed_filter: String::new(),
            unfolded: HashSet::new(),
            selected_node: None,
            stale: false,
        }
    }

    /// Takes an interval in.
    pub fn push(&mut self, interval: Interval) {
        if self.end.is_none() {
            // Held no longer than it is looked at: what was seen since the start would be copied otherwise.
            self.seen.slices.clear();
            self.stale = true;
        }
        let totals = &interval.totals;
        self.lost += totals.dropped + totals.malformed + totals.not_kept;
        self.history.push(interval);
    }

    /// Forgets every interval: the user's reset, or a replay that was sought back. The baseline stays.
    pub fn reset(&mut self) {
        self.history = self.history.emptied();
        self.lost = 0;
        self.end = None;
        self.paused = false;
        self.seen = Seen::default();
        self.stale = true;
    }

    /// Tells which policy is in force.
    pub fn set_policy(&mut self, policy: Policy) {
        self.info.policy = policy;
    }

    /// Tells what this process takes, percent of one CPU.
    pub fn set_own_cpu(&mut self, percent: Option<f64>) {
        self.own_cpu = percent;
    }

    /// Shows a message until the next key.
    pub fn set_status(&mut self, status: String) {
        self.status = status;
    }

    /// Tells how the replay stands.
    pub fn set_replay(&mut self, speed: f64, paused: bool, position: f64) {
        self.replay = Some(Replay { speed, paused, position: position.clamp(0.0, 1.0) });
    }

    /// What is seen: the merge of the window, whatever the filter.
    pub fn visible(&mut self) -> Interval {
        self.refresh();
        let mut whole = Interval::default();
        self.seen.slices.iter().for_each(|s| whole.merge(&s.interval));
        whole
    }

    /// The intervals that are kept apart, oldest first.
    pub fn history(&self) -> impl Iterator<Item = &Interval> {
        self.history.slices().map(|s| &s.interval)
    }

    /// Seconds between the end of what is shown and the newest interval.
    pub fn behind_s(&self) -> f64 {
        let Some(end) = self.end else { return 0.0 };
        self.history.slices().filter(|s| s.number > end).map(|s| s.interval.length_ns as f64 / 1e9).sum()
    }

    /// A key was pressed.
    pub fn key(&mut self, event: KeyEvent) -> Effect {
        if let Some(action) = action_of(&event, &self.mode) {
            return self.act(action);
        }
        let typed = event.kind != KeyEventKind::Release
            && !event.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT);
        if let KeyCode::Char(c) = event.code
            && typed
            && self.mode == Mode::Filter
            && !c.is_control()
            && self.filter.chars().count() < MAX_FILTER
        {
            self.filter.push(c);
            self.stale = true;
        }
        Effect::None
    }

    /// The mouse was used.
    pub fn mouse(&mut self, event: MouseEvent) -> Effect {
        let (x, y) = (event.column, event.row);
        match event.kind {
            MouseEventKind::ScrollUp => self.scroll(-3),
            MouseEventKind::ScrollDown => self.scroll(3),
            MouseEventKind::Down(MouseButton::Left) if self.mode == Mode::Table => {
                let rows = self.places.rows;
                let inside = x >= rows.left() && x < rows.right() && y >= rows.top() && y < rows.bottom();
                if inside {
                    let row = self.first + usize::from(y - rows.top());
                    if row < self.seen.rows.len() {
                        if row == self.selected {
                            return self.act(Action::Toggle);
                        }
                        self.select(row);
                    }
                } else if y == self.places.title_line
                    && let Some((.., column)) = self.places.titles.iter().find(|(l, r, _)| (*l..*r).contains(&x))
                {
                    let column = *column;
                    if column == self.order.column {
                        return self.act(Action::Reverse);
                    }
                    self.order = Order { column, ascending: false };
                    self.stale = true;
                }
            }
            _ => {}
        }
        Effect::None
    }

    /// Does what a key stands for.
    pub fn act(&mut self, action: Action) -> Effect {
        self.status.clear();
        if let Some(effect) = self.ask(action) {
            return effect;
        }
        self.refresh();
        let page = usize::from(self.places.rows.height).max(1) as isize;
        match action {
            Action::Up => self.scroll(-1),
            Action::Down => self.scroll(1),
            Action::PageUp => self.scroll(-page),
            Action::PageDown => self.scroll(page),
            Action::First => self.select(0),
            Action::Last => self.select(usize::MAX),
            Action::Toggle => self.toggle(),
            Action::Expand => self.expand(),
            Action::Collapse => self.collapse(),
            Action::Detail => {
                self.detail = !self.detail;
                self.seen.detail = None;
            }
            Action::NextFigure => self.figure = (self.figure + 1) % COLUMNS.len(),
            Action::PreviousFigure => self.figure = (self.figure + COLUMNS.len() - 1) % COLUMNS.len(),
            Action::Group => {
                self.group = self.group.next();
                self.stale = true;
            }
            Action::SortNext => self.sort_by(1),
            Action::SortPrevious => self.sort_by(COLUMNS.len()),
            Action::Reverse => {
                self.order.ascending = !self.order.ascending;
                self.stale = true;
            }
            Action::NextWindow => self.look_at(self.window.next()),
            Action::Window(window) => self.look_at(window),
            Action::Back => self.step(-1),
            Action::Forward => self.step(1),
            Action::Units => self.next_units(),
            Action::Baseline => self.mark_baseline(),
            Action::ClearBaseline => {
                self.baseline = None;
                self.stale = true;
            }
            Action::Reset => {
                self.reset();
                self.status = "reset: everything seen so far is forgotten".into();
            }
            Action::Help => {
                self.mode = Mode::Help;
                self.help_line = 0;
            }
            Action::Filter => self.mode = Mode::Filter,
            Action::Apply | Action::Close | Action::No | Action::Yes => self.mode = Mode::Table,
            Action::ClearFilter => {
                self.filter.clear();
                self.mode = Mode::Table;
                self.stale = true;
            }
            Action::Erase => {
                self.filter.pop();
                self.stale = true;
            }
            Action::EraseAll => {
                self.filter.clear();
                self.stale = true;
            }
            // Asked of whoever runs the screen.
            Action::Pause
            | Action::Policy
            | Action::SaveRecording
            | Action::SaveReport
            | Action::Faster
            | Action::Slower
            | Action::SeekBack
            | Action::SeekForward
            | Action::Redraw
            | Action::Quit
            | Action::Suspend => {}
        }
        Effect::None
    }

    /// What an action asks of whoever runs the screen; none where it is the screen's own business.
    fn ask(&mut self, action: Action) -> Option<Effect> {
        Some(match action {
            Action::Quit => Effect::Quit,
            Action::Suspend => Effect::Suspend,
            Action::Redraw => Effect::Redraw,
            Action::SaveRecording => Effect::SaveRecording,
            Action::SaveReport => Effect::SaveReport,
            Action::Yes => match std::mem::replace(&mut self.mode, Mode::Table) {
                Mode::Confirm(policy) => Effect::SwitchPolicy(policy),
                _ => Effect::None,
            },
            Action::Policy => {
                self.ask_for_policy();
                Effect::None
            }
            Action::Pause if self.is_replay() => Effect::Replay(ReplayCommand::Pause),
            Action::Pause => {
                self.pause();
                Effect::None
            }
            Action::Faster => self.steer(ReplayCommand::Faster),
            Action::Slower => self.steer(ReplayCommand::Slower),
            Action::SeekBack => self.steer(ReplayCommand::SeekBy(-SEEK_S)),
            Action::SeekForward => self.steer(ReplayCommand::SeekBy(SEEK_S)),
            _ => return None,
        })
    }

    fn is_replay(&self) -> bool {
        self.info.origin != Origin::Live
    }

    fn steer(&mut self, command: ReplayCommand) -> Effect {
        if self.is_replay() {
            return Effect::Replay(command);
        }
        self.status = "only a replay has a speed and a place: vmentry live --replay FILE".into();
        Effect::None
    }

    fn ask_for_policy(&mut self) {
        let other = match self.info.policy {
            Policy::Soft => Some(Policy::Hard),
            Policy::Hard => Some(Policy::Soft),
            Policy::Off | Policy::Unknown => None,
        };
        match other {
            _ if self.is_replay() => self.status = "a recording's policy is what it was".into(),
            _ if !self.info.switchable => {
                self.status =
                    "this kernel cannot switch the policy: it takes the companion patch (patches/README.md)".into();
            }
            None => self.status = format!("policy is {}: there is nothing to switch", self.info.policy.name()),
            Some(policy) => self.mode = Mode::Confirm(policy),
        }
    }

    fn pause(&mut self) {
        self.refresh();
        self.paused = self.end.is_none();
        self.end = if self.paused { self.history.newest() } else { None };
        self.paused &= self.end.is_some();
        self.stale |= !self.paused;
    }

    /// Looks back or forward by an interval.
    fn step(&mut self, by: i64) {
        let (Some(oldest), Some(newest)) = (self.history.oldest(), self.history.newest()) else { return };
        let to = self.end.unwrap_or(newest).saturating_add_signed(by).max(oldest);
        self.end = (to < newest).then_some(to);
        self.paused = false;
        self.stale = true;
        if self.window == Window::Start {
            self.window = Window::default();
        }
    }

    fn look_at(&mut self, window: Window) {
        self.window = window;
        self.stale = true;
    }

    fn sort_by(&mut self, by: usize) {
        // The name comes after the last column.
        let at = self.order.column.unwrap_or(COLUMNS.len());
        let to = (at + by) % (COLUMNS.len() + 1);
        self.order = Order { column: (to < COLUMNS.len()).then_some(to), ascending: false };
        self.stale = true;
    }

    fn next_units(&mut self) {
        self.units = match (self.units, self.info.tsc_khz) {
            (Units::Scaled, _) => Units::Ns,
            (Units::Ns, Some(khz)) => Units::Cycles(khz),
            (Units::Ns | Units::Cycles(_), _) => Units::Scaled,
        };
    }

    fn mark_baseline(&mut self) {
        if self.seen.slices.is_empty() {
            self.status = "nothing was seen yet: no baseline".into();
            return;
        }
        let slices = self.seen.slices.clone();
        self.baseline = Some(Baseline { slices, policy: self.info.policy, values: HashMap::new() });
        self.status = "baseline marked: figures are differences to it; B forgets it".into();
        self.stale = true;
    }

    fn scroll(&mut self, by: isize) {
        if self.mode == Mode::Help {
            self.help_line = self.help_line.saturating_add_signed(by);
        } else {
            self.select(self.selected.saturating_add_signed(by));
        }
    }

    fn select(&mut self, row: usize) {
        self.selected = row.min(self.seen.rows.len().saturating_sub(1));
        let node = self.seen.rows.get(self.selected).map(|r| r.node);
        if node != self.selected_node {
            self.selected_node = node;
            self.seen.detail = None;
        }
    }

    fn toggle(&mut self) {
        match self.seen.rows.get(self.selected) {
            Some(Row { unfolded: Some(true), .. }) => self.collapse(),
            Some(Row { unfolded: Some(false), .. }) => self.expand(),
            _ => self.detail = true,
        }
    }

    fn expand(&mut self) {
        match self.seen.rows.get(self.selected) {
            Some(Row { unfolded: Some(true), .. }) => self.select(self.selected + 1),
            Some(Row { unfolded: Some(false), node, .. }) => {
                self.unfolded.insert(*node);
                self.stale = true;
            }
            _ => {}
        }
    }

    fn collapse(&mut self) {
        let Some(row) = self.seen.rows.get(self.selected) else { return };
        if row.unfolded == Some(true) {
            self.unfolded.remove(&row.node);
            self.stale = true;
        } else if let Some(parent) = row.node.parent(self.group)
            && let Some(at) = self.seen.rows.iter().position(|r| r.node == parent)
        {
            self.select(at);
        }
    }

    /// Makes what is looked at anew, if an interval or an action changed it.
    pub fn refresh(&mut self) {
        if !std::mem::take(&mut self.stale) {
            return;
        }
        self.seen.slices.clear();
        let Some(newest) = self.history.newest() else {
            self.seen = Seen::default();
            return;
        };
        let end = self.end.unwrap_or(newest).max(self.history.oldest().unwrap_or(0));
        let slices = match self.window.seconds() {
            Some(seconds) => self.history.window(seconds, end),
            None => vec![self.history.since_start(end)],
        };
        let mut latest: Vec<_> =
            self.history.slices().rev().skip_while(|s| s.number > end).take(LATEST).cloned().collect();
        latest.reverse();
        let names = vm_names(&slices);
        let before = self.baseline.iter().flat_map(|b| &b.slices);
        let matcher = Matcher::new(&self.filter, slices.iter().chain(before), &names);
        if self.summed_filter != self.filter {
            self.summed_filter.clone_from(&self.filter);
            self.parts = Parts::default();
            self.baseline.iter_mut().for_each(|b| b.values.clear());
        }
        self.parts.keep(slices.iter().chain(self.baseline.iter().flat_map(|b| &b.slices)));
        let making = Making {
            slices: &slices,
            names: &names,
            matcher: &matcher,
            group: self.group,
            order: self.order,
            unfolded: &self.unfolded,
        };
        let rows = making.rows(&mut self.parts);
        let entries = slices.iter().map(|s| s.interval.totals.entries).sum();
        let seconds = slices.iter().map(|s| s.interval.length_ns as f64 / 1e9).sum();
        self.seen = Seen { slices, latest, names, matcher, rows, entries, seconds, detail: None };
        let kept = self.selected_node.and_then(|node| self.seen.rows.iter().position(|r| r.node == node));
        self.select(kept.unwrap_or(self.selected));
    }

    /// A value against the baseline's, percent; none where either is not known. Counts are compared per second.
    pub fn change(&self, row: &Row, column: usize) -> Option<f64> {
        let per = |seconds: f64| if COLUMNS[column].kind == Kind::Count { seconds } else { 1.0 };
        let now = row.values?[column]? / per(self.seen.seconds);
        let before = row.before?[column]? / per(self.baseline.as_ref()?.seconds());
        change(Some(now), Some(before))
    }

    /// Makes the values of the rows that are about to be drawn.
    pub fn prepare_rows(&mut self, first: usize, count: usize) {
        let Seen { slices, latest, matcher, rows, .. } = &mut self.seen;
        let spark = &latest[latest.len().saturating_sub(SPARK)..];
        for row in rows.iter_mut().skip(first).take(count) {
            let node = row.node;
            row.values.get_or_insert_with(|| Sum::of(slices, node, matcher, &mut self.parts).values());
            row.spark.get_or_insert_with(|| spark.iter().map(|s| rate(s, node, matcher)).collect());
            if let Some(baseline) = &mut self.baseline {
                let of = || Sum::of(&baseline.slices, node, matcher, &mut self.parts).values();
                row.before = Some(*baseline.values.entry(node).or_insert_with(of));
            }
        }
    }

    /// Makes the detail of the selected row.
    pub fn prepare_detail(&mut self) {
        let Some(row) = self.seen.rows.get(self.selected) else {
            self.seen.detail = None;
            return;
        };
        if self.seen.detail.as_ref().is_some_and(|d| d.node == row.node) {
            return;
        }
        let mut names = vec![row.name.clone()];
        let mut node = row.node;
        while let Some(parent) = node.parent(self.group) {
            names.extend(self.seen.rows.iter().find(|r| r.node == parent).map(|r| r.name.clone()));
            node = parent;
        }
        names.reverse();
        let Seen { slices, latest, matcher, .. } = &self.seen;
        self.seen.detail = Some(Detail::of(row.node, names.join(" / "), slices, latest, matcher, &mut self.parts));
    }
}

fn rate(slice: &Slice, node: Node, matcher: &Matcher) -> f64 {
    let entries: u64 = node.keys(slice).filter(|(k, _)| matcher.passes(k)).map(|(_, n)| n).sum();
    entries as f64 * 1e9 / slice.interval.length_ns.max(1) as f64
}
