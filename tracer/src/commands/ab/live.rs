//! What an experiment has found so far, while it runs.

use crate::{
    commands::{
        ab::plan::{PILOT, Plan},
        progress::ProgressLine,
    },
    compare::{
        ExperimentRound, Window,
        primary::{Primaries, Standing, State, window},
        schedule::PLACES,
        wording,
    },
    model::interval::Interval,
    recording::Label,
    say,
};

/// The primary figures while the experiment runs.
pub(super) struct Live<'a> {
    plan: &'a Plan,
    primaries: Primaries,
    /// the windows of the round that runs, in the order of time
    windows: Vec<(Label, Window)>,
    /// names of the figures whose decision was said
    said: Vec<String>,
}

impl<'a> Live<'a> {
    /// Begins without any round.
    pub(super) fn new(plan: &'a Plan) -> Self {
        Self { plan, primaries: plan.primaries(), windows: Vec::new(), said: Vec::new() }
    }

    /// Takes the next window.
    pub(super) fn take(&mut self, interval: &Interval, label: Label) {
        if label.place == 0 {
            self.windows.clear();
        }
        self.windows.push((label, window(interval)));
        if label.place + 1 == PLACES {
            let first = self.windows.first().is_some_and(|(label, _)| label.arm == 0);
            let (a, b): (Vec<_>, Vec<_>) = self.windows.drain(..).partition(|(label, _)| label.arm == 0);
            let side = |windows: Vec<(Label, Window)>| {
                <[Window; 2]>::try_from(windows.into_iter().map(|(_, w)| w).collect::<Vec<_>>())
            };
            // A round whose VMs did nothing says nothing.
            if let (Ok(a), Ok(b)) = (side(a), side(b)) {
                let has_entries = |side: &[Window; 2]| side.iter().any(|window| window.totals.entries > 0);
                if has_entries(&a) || has_entries(&b) {
                    self.primaries.take(ExperimentRound { a, b, a_first: first });
                }
            }
        }
    }

    /// Says what the round that ended has decided; returns whether the experiment may end.
    pub(super) fn ends_with_round(&mut self, line: &ProgressLine, round: u32) -> bool {
        for standing in self.primaries.standings() {
            if matches!(standing.state, State::Changed { .. } | State::Small) && !self.said.contains(&standing.name) {
                line.clear();
                say!("{}", decision(standing, round));
                self.said.push(standing.name.clone());
            }
        }
        if round as usize == PILOT
            && let Some(promise) = self.plan.promise(&self.primaries)
        {
            line.clear();
            say!("{promise}, by the spread of the first {PILOT}");
        }
        self.plan.stops_when_decided && self.primaries.is_decided()
    }

    /// The first figure that is not decided, for the progress line; empty if there is none.
    pub(super) fn text(&self) -> String {
        let standings = self.primaries.standings();
        let open = standings.iter().find_map(|standing| match standing.state {
            State::Open { rounds } => Some((standing, rounds)),
            _ => None,
        });
        let Some((standing, rounds)) = open else { return String::new() };
        let Some(interval) = bounds(standing) else { return String::new() };
        let done = self.primaries.rounds();
        let more = rounds.map(|rounds| rounds.saturating_sub(done)).filter(|more| *more > 0);
        let more = more.map(|more| format!(", about {} more", self.plan.time_of(more))).unwrap_or_default();
        format!(" {}: still between {interval}{more}.", wording::title_of_name(&standing.name, standing.unit))
    }
}

/// "decided after 7 rounds: pin writes per entry rose by +0.610 to +0.930".
fn decision(standing: &Standing, round: u32) -> String {
    let title = wording::title_of_name(&standing.name, standing.unit);
    let bounds = bounds(standing).map(|bounds| bounds.replace(" and ", " to "));
    match (&standing.state, bounds) {
        (State::Changed { after, up }, Some(bounds)) => {
            format!("decided after {after} rounds: {title} {} by {bounds}", if *up { "rose" } else { "fell" })
        }
        (State::Changed { after, up }, None) => {
            format!("decided after {after} rounds: {title} {}", if *up { "rose" } else { "fell" })
        }
        (_, bounds) => {
            format!("decided after {round} rounds: {title} changes by {} at most", bounds.unwrap_or_default())
        }
    }
}

/// "-2.1% and +3.0%"; none without an interval.
fn bounds(standing: &Standing) -> Option<String> {
    let show = |bound: f64| {
        if standing.is_ratio { wording::percent(bound - 1.0) } else { wording::signed(bound, standing.unit) }
    };
    standing.interval.map(|[low, high]| format!("{} and {}", show(low), show(high)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::figures::Unit;

    fn standing(name: &str, unit: Unit, state: State, interval: [f64; 2], is_ratio: bool) -> Standing {
        Standing { name: name.into(), unit, state, interval: Some(interval), is_ratio }
    }

    #[test]
    fn a_decision_is_said_with_its_size() {
        let pins = State::Changed { after: 7, up: true };
        let pins = standing("pin_writes.mean", Unit::Count, pins, [0.61, 0.93], false);
        assert_eq!(decision(&pins, 9), "decided after 7 rounds: pin writes per entry rose by +0.610 to +0.930");
        let small = standing("entry_to_exit_ns.p50", Unit::Ns, State::Small, [0.99, 1.012], true);
        assert_eq!(decision(&small, 9), "decided after 9 rounds: guest time p50 changes by -1.0% to +1.2% at most");
        assert_eq!(bounds(&small).unwrap(), "-1.0% and +1.2%");
    }
}
