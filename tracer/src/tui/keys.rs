//! The one table of keys: their actions, and their texts in footer and help.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::app::Window;
use crate::model::policy::Policy;

/// Mode of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// the table is shown
    Table,
    /// a filter is typed
    Filter,
    /// the help is shown
    Help,
    /// a moment to jump to is typed
    Moment,
    /// the user is asked something
    Confirm(Question),
}

/// A question that is answered with yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// whether to switch to this policy
    Policy(Policy),
    /// whether to forget everything that was seen
    Forget,
}

/// An action of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the table of keys says what each does")]
pub enum Action {
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    Toggle,
    Expand,
    Collapse,
    Detail,
    NextFigure,
    PreviousFigure,
    Group,
    SortNext,
    SortPrevious,
    Reverse,
    Filter,
    ClearFilter,
    NextWindow,
    Window(Window),
    Pause,
    Back,
    Forward,
    Units,
    Baseline,
    ClearBaseline,
    Reset,
    Policy,
    SaveRecording,
    SaveReport,
    Faster,
    Slower,
    SeekBack,
    SeekForward,
    AskMoment,
    Jump,
    Help,
    Redraw,
    Quit,
    Suspend,
    Apply,
    Erase,
    EraseAll,
    Close,
    Yes,
    No,
}

/// Modes in which a binding is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// all of them
    Any,
    /// [`Mode::Table`]
    Table,
    /// [`Mode::Filter`]
    Filter,
    /// [`Mode::Help`]
    Help,
    /// [`Mode::Moment`]
    Moment,
    /// [`Mode::Confirm`]
    Confirm,
}

impl Scope {
    /// Whether it covers a mode.
    pub fn covers(self, mode: &Mode) -> bool {
        match self {
            Self::Any => true,
            Self::Table => *mode == Mode::Table,
            Self::Filter => *mode == Mode::Filter,
            Self::Help => *mode == Mode::Help,
            Self::Moment => *mode == Mode::Moment,
            Self::Confirm => matches!(mode, Mode::Confirm(_)),
        }
    }
}

/// A key with its modifiers; without Shift for characters, whose case says it.
pub(crate) type Chord = (KeyCode, KeyModifiers);

/// Keys, their action and their texts.
#[derive(Debug)]
pub struct Binding {
    /// any of these
    pub keys: &'static [Chord],
    /// the action
    pub action: Action,
    /// one word, for the footer
    pub name: &'static str,
    /// a line, for the help
    pub help: &'static str,
    /// whether the footer shows it
    pub footer: bool,
    /// modes in which it is active
    pub scope: Scope,
}

const fn key(code: KeyCode) -> Chord {
    (code, KeyModifiers::NONE)
}

const fn ch(c: char) -> Chord {
    key(KeyCode::Char(c))
}

const fn ctrl(c: char) -> Chord {
    (KeyCode::Char(c), KeyModifiers::CONTROL)
}

const fn shift(code: KeyCode) -> Chord {
    (code, KeyModifiers::SHIFT)
}

macro_rules! table {
    ($($scope:ident [$($key:expr),+] $action:expr, $name:literal, $help:literal, $footer:literal;)+) => {
        /// Every binding, in the order of the help.
        pub const KEYS: &[Binding] = &[
            $(Binding {
                keys: &[$($key),+],
                action: $action,
                name: $name,
                help: $help,
                footer: $footer,
                scope: Scope::$scope,
            },)+
        ];
    };
}

table! {
    Table [ch('q')] Action::Quit, "quit", "quit", true;
    Table [ch('?'), key(KeyCode::F(1))] Action::Help, "help", "this help", true;
    Table [ch('w')] Action::NextWindow, "window", "next window: 1 s, 10 s, 60 s, since start", true;
    Table [ch(' ')] Action::Pause, "pause", "pause or continue; a live view keeps collecting", true;
    Table [ch('d'), key(KeyCode::Tab)] Action::Detail, "detail", "show or hide the detail of the selected row; it is shown from 30 lines on", true;
    Table [ch('g')] Action::Group, "group", "group by VM, vCPU or exit reason", true;
    Table [ch('s'), ch('>')] Action::SortNext, "sort", "sort by the next column", true;
    Table [ch('/')] Action::Filter, "filter", "filter by VM, vCPU or exit reason", true;
    Table [ch('b')] Action::Baseline, "baseline", "set the baseline: show values with their difference to this window's", true;
    Table [ch('u')] Action::Units, "units", "times as ns/us/ms, all as ns, all as TSC cycles", true;
    Table [ch('p')] Action::Policy, "policy", "switch the timer policy (companion patch; asks first)", true;
    Table [ch('o')] Action::SaveRecording, "save", "save all intervals in memory as a recording", true;
    Table [ch('e')] Action::SaveReport, "report", "save a report on the window", true;
    Table [key(KeyCode::Up), ch('k')] Action::Up, "up", "select the row above", false;
    Table [key(KeyCode::Down), ch('j')] Action::Down, "down", "select the row below", false;
    Table [key(KeyCode::PageUp)] Action::PageUp, "page up", "a page up", false;
    Table [key(KeyCode::PageDown)] Action::PageDown, "page down", "a page down", false;
    Table [key(KeyCode::Home)] Action::First, "first", "select the first row", false;
    Table [key(KeyCode::End)] Action::Last, "last", "select the last row", false;
    Table [key(KeyCode::Enter)] Action::Toggle, "toggle", "unfold or fold the row; without rows below it, show its detail", false;
    Table [key(KeyCode::Right), ch('l')] Action::Expand, "unfold", "unfold: a VM or vCPU to exit reasons, these to details", false;
    Table [key(KeyCode::Left), ch('h')] Action::Collapse, "fold", "fold, or go to the parent row", false;
    Table [ch('f')] Action::NextFigure, "figure", "next figure in the detail's time series", false;
    Table [ch('F')] Action::PreviousFigure, "figure", "previous figure in the detail's time series", false;
    Table [ch('S'), ch('<')] Action::SortPrevious, "sort", "sort by the previous column", false;
    Table [ch('r')] Action::Reverse, "reverse", "reverse the order", false;
    Table [key(KeyCode::Esc)] Action::ClearFilter, "clear", "clear the filter", false;
    Table [ch('1')] Action::Window(Window::Second), "1 s", "window of 1 s", false;
    Table [ch('2')] Action::Window(Window::TenSeconds), "10 s", "window of 10 s", false;
    Table [ch('3')] Action::Window(Window::Minute), "60 s", "window of 60 s", false;
    Table [ch('4')] Action::Window(Window::Start), "start", "window since start", false;
    Table [ch('['), shift(KeyCode::Left)] Action::Back, "back", "move the window back by an interval", false;
    Table [ch(']'), shift(KeyCode::Right)] Action::Forward, "forward", "move the window forward; at the end, live again", false;
    Table [ch('B')] Action::ClearBaseline, "no baseline", "clear the baseline", false;
    Table [ch('x')] Action::Reset, "reset", "forget everything seen so far except the baseline (asks first)", false;
    Table [ch('+'), ch('=')] Action::Faster, "faster", "replay faster", false;
    Table [ch('-')] Action::Slower, "slower", "replay slower", false;
    Table [ch('.')] Action::SeekForward, "seek", "replay: skip 10 s", false;
    Table [ch(',')] Action::SeekBack, "seek", "replay: 10 s back", false;
    Table [ch('t')] Action::AskMoment, "time", "replay: jump to a clock time (UTC)", false;
    Any [ctrl('l')] Action::Redraw, "redraw", "redraw the screen", false;
    Any [ctrl('z')] Action::Suspend, "suspend", "suspend; 'fg' brings it back", false;
    Any [ctrl('c')] Action::Quit, "quit", "quit, whatever is on the screen", false;
    Filter [key(KeyCode::Enter)] Action::Apply, "apply", "filter: keep it and go back to the table", true;
    Filter [key(KeyCode::Esc)] Action::ClearFilter, "clear", "filter: clear it and go back to the table", true;
    Filter [key(KeyCode::Backspace), ctrl('h')] Action::Erase, "erase", "filter: erase the last character", false;
    Filter [ctrl('u')] Action::EraseAll, "erase all", "filter: erase all of it", false;
    Moment [key(KeyCode::Enter)] Action::Jump, "jump", "time: jump there", true;
    Moment [key(KeyCode::Esc)] Action::Close, "cancel", "time: stay, and go back to the table", true;
    Moment [key(KeyCode::Backspace), ctrl('h')] Action::Erase, "erase", "time: erase the last character", false;
    Moment [ctrl('u')] Action::EraseAll, "erase all", "time: erase all of it", false;
    Help [key(KeyCode::Esc), ch('?'), ch('q'), key(KeyCode::Enter), key(KeyCode::F(1))] Action::Close, "close", "help: close", true;
    Help [key(KeyCode::Up), ch('k')] Action::Up, "up", "help: a line up", false;
    Help [key(KeyCode::Down), ch('j')] Action::Down, "down", "help: a line down", true;
    Help [key(KeyCode::PageUp)] Action::PageUp, "page up", "help: a page up", false;
    Help [key(KeyCode::PageDown), ch(' ')] Action::PageDown, "page down", "help: a page down", false;
    Confirm [ch('y')] Action::Yes, "yes", "question: yes", true;
    Confirm [ch('n'), key(KeyCode::Esc), ch('q')] Action::No, "no", "question: no", true;
}

/// The action of a key in a mode; none if it has none.
pub fn action_of(event: &KeyEvent, mode: &Mode) -> Option<Action> {
    if event.kind == KeyEventKind::Release {
        return None;
    }
    let chord = chord_of(event);
    KEYS.iter().find(|b| b.scope.covers(mode) && b.keys.contains(&chord)).map(|b| b.action)
}

fn chord_of(event: &KeyEvent) -> Chord {
    let mut modifiers = event.modifiers & (KeyModifiers::CONTROL | KeyModifiers::ALT | KeyModifiers::SHIFT);
    if matches!(event.code, KeyCode::Char(_)) {
        modifiers -= KeyModifiers::SHIFT;
    }
    (event.code, modifiers)
}

/// Name of a key for people.
pub fn label(&(code, modifiers): &Chord, ascii: bool) -> String {
    let name = match code {
        KeyCode::Char(' ') => "Space".to_owned(),
        KeyCode::Char(c) if modifiers.contains(KeyModifiers::CONTROL) => c.to_uppercase().to_string(),
        KeyCode::Char(c) => c.to_string(),
        KeyCode::F(n) => format!("F{n}"),
        KeyCode::Up => if ascii { "Up" } else { "↑" }.to_owned(),
        KeyCode::Down => if ascii { "Down" } else { "↓" }.to_owned(),
        KeyCode::Left => if ascii { "Left" } else { "←" }.to_owned(),
        KeyCode::Right => if ascii { "Right" } else { "→" }.to_owned(),
        KeyCode::PageUp => "PgUp".to_owned(),
        KeyCode::PageDown => "PgDn".to_owned(),
        other => format!("{other:?}"),
    };
    let control = if modifiers.contains(KeyModifiers::CONTROL) { "Ctrl-" } else { "" };
    let shift = if modifiers.contains(KeyModifiers::SHIFT) { "Shift-" } else { "" };
    format!("{control}{shift}{name}")
}
