//! Actions of keys and the mouse: changes of the screen's state, or effects for the caller.

use ratatui::{
    crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind},
    layout::Position,
};

use super::{App, Places, ReplayCommand, replay::JUMP_S};
use crate::{
    model::policy::Policy,
    tui::{
        columns::{COLUMNS, Units},
        keys::{Action, Mode, Question, action_of},
        node::Group,
        rows::Order,
    },
};

/// Characters of a filter, or of a moment.
const MAX_TYPED: usize = 64;

/// An action that is left to the caller.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// nothing
    None,
    /// end
    Quit,
    /// stop this process until the shell continues it
    Suspend,
    /// redraw
    Redraw,
    /// switch the timer policy
    SwitchPolicy(Policy),
    /// save [`App::history`] as recording
    SaveRecording,
    /// save [`App::visible`] as report
    SaveReport,
    /// steer the replay
    Replay(ReplayCommand),
}

impl App {
    /// Takes a key in: one of the table of keys, or a character of the filter.
    pub fn key(&mut self, event: KeyEvent) -> Effect {
        if let Some(action) = action_of(&event, &self.mode) {
            return self.act(action);
        }
        let typed = event.kind != KeyEventKind::Release
            && !event.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT);
        if let KeyCode::Char(c) = event.code
            && typed
            && !c.is_control()
        {
            self.edit(|text| {
                if text.chars().count() < MAX_TYPED {
                    text.push(c);
                }
            });
        }
        Effect::None
    }

    /// Takes a mouse event in.
    pub fn mouse(&mut self, event: MouseEvent) -> Effect {
        match event.kind {
            MouseEventKind::ScrollUp => self.scroll(-3),
            MouseEventKind::ScrollDown => self.scroll(3),
            MouseEventKind::Down(MouseButton::Left) if self.mode == Mode::Table => {
                return self.click(Position { x: event.column, y: event.row });
            }
            _ => {}
        }
        Effect::None
    }

    /// A click selects a row or unfolds the selected one; on a title it sorts, or reverses the order.
    fn click(&mut self, at: Position) -> Effect {
        let Places { rows, titles, title_line, .. } = &self.places;
        if rows.contains(at) {
            let row = self.first + usize::from(at.y - rows.top());
            if row < self.seen.rows.len() {
                if row == self.selected {
                    return self.act(Action::Toggle);
                }
                self.select(row);
            }
        } else if at.y == *title_line
            && let Some(&(.., column)) = titles.iter().find(|(left, right, _)| (*left..*right).contains(&at.x))
        {
            if column == self.order.column {
                return self.act(Action::Reverse);
            }
            self.order_by(Order { column, ascending: false });
        }
        Effect::None
    }

    /// Does an action: changes the state, or returns the effect that is left to the caller.
    pub fn act(&mut self, action: Action) -> Effect {
        self.status.clear();
        if let Some(effect) = self.effect_of(action) {
            return effect;
        }
        self.refresh();
        match action {
            Action::Up => self.scroll(-1),
            Action::Down => self.scroll(1),
            Action::PageUp => self.scroll(-self.page()),
            Action::PageDown => self.scroll(self.page()),
            Action::First => self.select(0),
            Action::Last => self.select(usize::MAX),
            Action::Toggle => self.toggle(),
            Action::Expand => self.expand(),
            Action::Collapse => self.collapse(),
            Action::Detail => self.toggle_detail(),
            Action::NextFigure => self.figure = self.column_after(Some(self.figure), 1, false).unwrap_or(self.figure),
            Action::PreviousFigure => {
                self.figure = self.column_after(Some(self.figure), COLUMNS.len(), false).unwrap_or(self.figure);
            }
            Action::Group => self.group_by(self.group.next()),
            Action::SortNext => self.sort_by(1),
            Action::SortPrevious => self.sort_by(COLUMNS.len()),
            Action::Reverse => self.order_by(Order { ascending: !self.order.ascending, ..self.order }),
            Action::NextWindow => self.look_at(self.window.next()),
            Action::Window(window) => self.look_at(window),
            Action::Back => self.step(-1),
            Action::Forward => self.step(1),
            Action::Units => self.next_units(),
            Action::Baseline => self.mark_baseline(),
            Action::ClearBaseline => self.clear_baseline(),
            Action::Reset => self.mode = Mode::Confirm(Question::Forget),
            Action::Help => self.open_help(),
            Action::Filter => self.mode = Mode::Filter,
            Action::Apply | Action::Close | Action::No | Action::Yes => self.mode = Mode::Table,
            Action::ClearFilter => {
                self.mode = Mode::Table;
                self.filter.clear();
                self.stale = true;
            }
            Action::Erase => self.edit(erase_last),
            Action::EraseAll => self.edit(String::clear),
            // Done by effect_of.
            Action::Pause
            | Action::Policy
            | Action::SaveRecording
            | Action::SaveReport
            | Action::Faster
            | Action::Slower
            | Action::SeekBack
            | Action::SeekForward
            | Action::AskMoment
            | Action::Jump
            | Action::Redraw
            | Action::Quit
            | Action::Suspend => {}
        }
        Effect::None
    }

    /// The effect of an action that the caller must know of; none of actions that only change the state.
    fn effect_of(&mut self, action: Action) -> Option<Effect> {
        Some(match action {
            Action::Quit => Effect::Quit,
            Action::Suspend => Effect::Suspend,
            Action::Redraw => Effect::Redraw,
            Action::SaveRecording => Effect::SaveRecording,
            Action::SaveReport => Effect::SaveReport,
            Action::Yes => match std::mem::replace(&mut self.mode, Mode::Table) {
                Mode::Confirm(Question::Policy(policy)) => Effect::SwitchPolicy(policy),
                Mode::Confirm(Question::Forget) => {
                    self.forget();
                    Effect::None
                }
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
            Action::AskMoment => self.ask_for_moment(),
            Action::Jump => self.jump_to_moment(),
            Action::SeekBack => self.steer(ReplayCommand::SeekBy(-JUMP_S)),
            Action::SeekForward => self.steer(ReplayCommand::SeekBy(JUMP_S)),
            _ => return None,
        })
    }

    fn ask_for_policy(&mut self) {
        let other = match self.info.policy {
            Policy::Soft => Some(Policy::Hard),
            Policy::Hard => Some(Policy::Soft),
            Policy::Off | Policy::Unknown => None,
        };
        match other {
            _ if self.is_replay() => self.status = "the policy of a recording cannot be switched".into(),
            _ if !self.info.switchable => {
                self.status = "this kernel cannot switch the policy: it needs the companion patch".into();
            }
            None => self.status = format!("policy is {}: there is nothing to switch", self.info.policy.name()),
            Some(policy) => self.mode = Mode::Confirm(Question::Policy(policy)),
        }
    }

    fn sort_by(&mut self, by: usize) {
        self.order_by(Order { column: self.column_after(self.order.column, by, true), ascending: false });
    }

    /// The next column that is shown, `by` steps after one; none is the name, which comes after the last column where it is wanted.
    fn column_after(&self, from: Option<usize>, by: usize, with_name: bool) -> Option<usize> {
        let mut at = from.unwrap_or(COLUMNS.len());
        for _ in 0..=COLUMNS.len() {
            at = (at + by) % (COLUMNS.len() + 1);
            match at < COLUMNS.len() {
                true if self.shows_column(at) => return Some(at),
                false if with_name => return None,
                _ => {}
            }
        }
        from
    }

    fn order_by(&mut self, order: Order) {
        self.order = order;
        self.stale = true;
    }

    fn group_by(&mut self, group: Group) {
        self.group = group;
        self.stale = true;
    }

    fn toggle_detail(&mut self) {
        self.detail = Some(!self.places.detail);
        self.seen.detail = None;
    }

    /// Edits the text that is typed, if one is.
    fn edit(&mut self, edit: impl FnOnce(&mut String)) {
        match self.mode {
            Mode::Filter => {
                edit(&mut self.filter);
                self.stale = true;
            }
            Mode::Moment => {
                self.status.clear();
                edit(&mut self.moment);
            }
            Mode::Table | Mode::Help | Mode::Confirm(_) => {}
        }
    }

    fn open_help(&mut self) {
        self.mode = Mode::Help;
        self.help_line = 0;
    }

    fn forget(&mut self) {
        self.reset();
        self.status = "reset: everything seen so far is forgotten".into();
    }

    fn next_units(&mut self) {
        self.units = match (self.units, self.info.tsc_khz) {
            (Units::Scaled, _) => Units::Ns,
            (Units::Ns, Some(khz)) => Units::Cycles(khz),
            (Units::Ns | Units::Cycles(_), _) => Units::Scaled,
        };
    }
}

fn erase_last(text: &mut String) {
    text.pop();
}
