//! The primary figures of an experiment while it runs: which are decided, and how much longer the others take.

use std::cell::OnceCell;

pub(crate) use super::stats::statistic::OF_POLICIES;
use super::{
    stats::{
        design::Units,
        pairs::{Pairs, mean},
        sequential, statistic,
    },
    windows::{ExperimentRound, Options, Stratum, Window, Windows},
};
use crate::model::{figures::Unit, interval::Interval};

/// Primary figures of other settings.
pub(crate) const OF_OTHERS: [&str; 2] = ["exit_to_entry_ns.p50", "entry_to_exit_ns.p50"];

/// A window of all VMs together.
pub(crate) fn window(interval: &Interval) -> Window {
    let Interval { start_ns: start_unix_ns, length_ns, totals, .. } = *interval;
    let mut window = Window { start_unix_ns, length_ns, totals, ..Window::default() };
    for (key, series) in &interval.series {
        let stratum = Stratum { level: key.level, isa: key.isa, reason: key.reason, cause: key.cause };
        window.strata.entry(stratum).or_default().merge(series);
    }
    window
}

/// One primary figure.
struct Primary {
    /// as FIGURE.STATISTIC
    name: String,
    unit: Unit,
    /// A's value and B's in every round
    values: Vec<[f64; 2]>,
}

/// All primary figures, in their order.
pub(crate) struct Primaries {
    figures: Vec<Primary>,
    alpha: f64,
    ignore_below: f64,
    /// how far the figures are after the last round, because simulating what open ones still take is slow
    standings: OnceCell<Vec<Standing>>,
}

/// How far a primary figure is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum State {
    /// no round has a value on both sides, or all have the same
    Nothing,
    /// a change, found after so many rounds
    Changed { after: usize, up: bool },
    /// its whole interval is below the limit
    Small,
    /// open; rounds that a change as large as the one so far takes to be found, if that can be told
    Open { rounds: Option<usize> },
}

/// A primary figure and its interval so far.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Standing {
    /// as FIGURE.STATISTIC
    pub(crate) name: String,
    pub(crate) unit: Unit,
    pub(crate) state: State,
    /// confidence sequence: of b / a if `is_ratio`, else of b - a
    pub(crate) interval: Option<[f64; 2]>,
    pub(crate) is_ratio: bool,
}

impl Primaries {
    /// The figures by their names, which must be of [`statistic::statistics`].
    pub(crate) fn new(names: &[String], options: &Options) -> Self {
        let units = statistic::statistics();
        let unit = |name: &String| units.iter().find(|(known, _)| known == name).map(|(_, unit)| *unit);
        let figure = |name: &String| Some(Primary { name: name.clone(), unit: unit(name)?, values: Vec::new() });
        Self {
            figures: names.iter().filter_map(figure).collect(),
            alpha: options.alpha,
            ignore_below: options.ignore_below,
            standings: OnceCell::new(),
        }
    }

    /// Takes the next round.
    pub(crate) fn take(&mut self, round: ExperimentRound) {
        let windows = Windows::Rounds(vec![round]);
        let units = Units::of(&windows);
        for figure in &mut self.figures {
            figure.values.extend(statistic::of_rounds(&figure.name, &units).unwrap_or_else(|| vec![[f64::NAN; 2]]));
        }
        self.standings.take();
    }

    /// Sets the first figure's values in every round.
    #[cfg(test)]
    pub(crate) fn set(&mut self, values: &[[f64; 2]]) {
        self.figures[0].values = values.to_vec();
        self.standings.take();
    }

    /// Number of rounds that were taken.
    pub(crate) fn rounds(&self) -> usize {
        self.figures.first().map_or(0, |figure| figure.values.len())
    }

    /// How far each figure is.
    pub(crate) fn standings(&self) -> &[Standing] {
        self.standings.get_or_init(|| self.figures.iter().map(|figure| self.standing(figure)).collect())
    }

    fn standing(&self, figure: &Primary) -> Standing {
        let pairs = Pairs::of(&figure.values, figure.unit);
        let (is_ratio, tested) = (pairs.is_ratio(), pairs.tested());
        let interval = if is_ratio { pairs.ratio(self.alpha) } else { pairs.difference(self.alpha) };
        let none = if is_ratio { 1.0 } else { 0.0 };
        let is_small = |bounds: [f64; 2]| bounds.iter().all(|bound| (bound - none).abs() < self.ignore_below);
        // Without a ratio, no change is small: see the verdicts.
        let can_be_small = is_ratio || figure.unit == Unit::Share;
        let state = if tested.iter().all(|difference| *difference == 0.0) {
            State::Nothing
        } else if can_be_small && interval.is_some_and(is_small) {
            State::Small
        } else if let Some(after) = pairs.decided_after(self.alpha) {
            State::Changed { after, up: tested.iter().sum::<f64>() > 0.0 }
        } else {
            let effect = pairs.deviation().map(|deviation| mean(tested).abs() / deviation);
            State::Open { rounds: effect.and_then(|effect| sequential::rounds_for(effect, self.alpha)) }
        };
        Standing { name: figure.name.clone(), unit: figure.unit, state, interval, is_ratio }
    }

    /// Whether nothing is left to find: every figure has changed, or is known to have not; behind one that has not, nothing is
    /// tested.
    pub(crate) fn is_decided(&self) -> bool {
        let standings = self.standings();
        let open = standings.iter().find(|s| !matches!(s.state, State::Changed { .. } | State::Nothing));
        // Nothing but figures without a value says nothing.
        standings.iter().any(|s| s.state != State::Nothing) && open.is_none_or(|s| s.state == State::Small)
    }

    /// The smallest change of each figure that so many rounds find with a power of 80 %.
    pub(crate) fn detectable(&self, rounds: usize) -> Vec<Detectable> {
        let effect = sequential::detectable(rounds, self.alpha);
        let of = |figure: &Primary| {
            let pairs = Pairs::of(&figure.values, figure.unit);
            Detectable {
                name: figure.name.clone(),
                unit: figure.unit,
                least: effect.and_then(|effect| pairs.detectable(effect)),
                is_ratio: pairs.is_ratio(),
            }
        };
        self.figures.iter().map(of).collect()
    }
}

/// The smallest change of a primary figure that an experiment finds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Detectable {
    /// as FIGURE.STATISTIC
    pub(crate) name: String,
    pub(crate) unit: Unit,
    /// b / a - 1 if `is_ratio`, else b - a; none where the rounds agree, or are too few
    pub(crate) least: Option<f64>,
    pub(crate) is_ratio: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn primaries(ignore_below: f64, values: &[(&str, &[[f64; 2]])]) -> Primaries {
        let names: Vec<String> = values.iter().map(|(name, _)| (*name).to_owned()).collect();
        let mut primaries = Primaries::new(&names, &Options { ignore_below, ..Options::default() });
        for (figure, (_, values)) in primaries.figures.iter_mut().zip(values) {
            figure.values = values.to_vec();
        }
        primaries
    }

    #[test]
    fn figures_are_decided_by_a_change_or_by_an_interval_that_is_small() {
        let writes: &[[f64; 2]] = &[[0.0, 0.8]; 6];
        let flat: Vec<[f64; 2]> =
            (0..40).map(|r| [1000.0 + f64::from(r * 7 % 5), 1000.0 + f64::from(r * 3 % 5)]).collect();
        let both =
            |ignore_below| primaries(ignore_below, &[("pin_writes.mean", writes), ("entry_to_exit_ns.p50", &flat)]);
        let open = both(0.0);
        let [first, second] = open.standings() else { panic!() };
        assert_eq!(first.state, State::Changed { after: 6, up: true });
        assert!(matches!(second.state, State::Open { .. }) && second.is_ratio && !open.is_decided(), "{second:?}");
        let decided = both(0.02);
        assert!(decided.standings()[1].state == State::Small && decided.is_decided());
        assert!(!primaries(0.0, &[("pin_writes.mean", &[[0.0, 0.0]; 9])]).is_decided(), "no value anywhere");
    }

    #[test]
    fn how_far_figures_are_is_computed_once_a_round() {
        let mut one = primaries(0.0, &[("pin_writes.mean", &[[0.0, 0.8]; 6])]);
        let (first, again) = (one.standings().as_ptr(), one.standings().as_ptr());
        assert_eq!(first, again);
        let round = ExperimentRound { a: Default::default(), b: Default::default(), a_first: true };
        one.set(&[[0.0, 0.8]; 5]);
        assert!(matches!(one.standings()[0].state, State::Open { .. }));
        one.take(round);
        assert_eq!(one.rounds(), 6, "a round without a value is one");
    }

    #[test]
    fn what_is_promised_shrinks_with_the_rounds() {
        let values: Vec<[f64; 2]> = (0..8).map(|r| [1000.0, 1000.0 + 20.0 * f64::from(r % 4)]).collect();
        let of = |rounds| primaries(0.0, &[("entry_to_exit_ns.p50", &values)]).detectable(rounds)[0].least;
        let (Some(few), Some(many)) = (of(12), of(48)) else { panic!("{:?} {:?}", of(12), of(48)) };
        assert!(many < few && (0.01..0.1).contains(&few), "{few} {many}");
        assert_eq!(of(5), None);
    }
}
