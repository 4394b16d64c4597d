//! The rounds of an experiment's recording, and of one that an experiment is sized by.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Result, bail};

use super::{Recording, Together};
use crate::{
    compare::{ExperimentRound, Setting, Window, Windows, schedule, wording},
    model::series::Series,
    recording::{Experiment, Label, OnDamage},
    report::input,
};

/// The rounds of experiments of 'vmentry ab', which must be of the same settings.
pub(super) fn rounds(recordings: Vec<Recording>) -> Result<(Windows, Setting)> {
    let (mut rounds, mut sources, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    let mut experiment: Option<Experiment> = None;
    for recording in recordings {
        let Some(this) = &recording.source.header.experiment else { continue };
        match &experiment {
            Some(first) if (&first.arms, &first.switches) != (&this.arms, &this.switches) => bail!(
                "the experiments compare different settings: {} against {}, and {} against {}",
                first.arms[0],
                first.arms[1],
                this.arms[0],
                this.arms[1]
            ),
            Some(_) => {}
            None => experiment = Some(this.clone()),
        }
        let name = &recording.source.name;
        let asked_for = this.rounds as usize;
        let (whole, left_out) = whole_rounds(recording.windows);
        if left_out > 0 {
            let (windows, are) =
                (wording::counted(left_out as u64, "window"), if left_out == 1 { "is" } else { "are" });
            warnings.push(format!("{name}: {windows} of a round that did not end {are} left out"));
        }
        if whole.len() < asked_for {
            let asked_for = wording::counted(asked_for as u64, "round");
            warnings.push(format!("{name}: {} of {asked_for}; it ended early", whole.len()));
        }
        let (kept, empty): (Vec<_>, Vec<_>) = whole.into_iter().partition(has_entries);
        let without = empty.iter().filter(|round| windows_of(round).all(|w| w.totals.entries == 0)).count();
        for (count, why) in
            [(without, "in which no VM entered"), (empty.len() - without, "of which every vCPU is left out")]
        {
            if count > 0 {
                let (rounds, are) = (wording::counted(count as u64, "round"), if count == 1 { "is" } else { "are" });
                warnings.push(format!("{name}: {rounds} {why} {are} left out"));
            }
        }
        rounds.extend(kept);
        sources.push(recording.source);
    }
    let setting = Setting { names: Default::default(), sources: [sources.clone(), sources], experiment, warnings };
    Ok((Windows::Rounds(rounds), setting))
}

fn windows_of(round: &ExperimentRound) -> impl Iterator<Item = &Window> {
    round.a.iter().chain(&round.b)
}

/// Whether any VM entered in a round, and is not left out of it.
fn has_entries(round: &ExperimentRound) -> bool {
    let is_left = |window: &Window| window.strata.values().any(|series: &Series| series.entries() > 0);
    let is_untouched = windows_of(round).all(|window| window.left_out == 0);
    windows_of(round).any(|window| window.totals.entries > 0) && (is_untouched || windows_of(round).any(is_left))
}

/// Rounds with all their windows, and the number of windows of others.
pub(super) fn whole_rounds(windows: Vec<(Option<Label>, Window)>) -> (Vec<ExperimentRound>, usize) {
    let mut by_round: BTreeMap<u32, BTreeMap<u8, (u8, Window)>> = BTreeMap::new();
    for (label, window) in windows {
        if let Some(Label { arm, round, place }) = label {
            by_round.entry(round).or_default().insert(place, (arm, window));
        }
    }
    let (mut rounds, mut left_out) = (Vec::new(), 0);
    for places in by_round.into_values() {
        let windows = places.len();
        let a_first = places.get(&0).is_some_and(|w| w.0 == 0);
        let (a, b): (Vec<_>, Vec<_>) = places.into_values().partition(|(arm, _)| *arm == 0);
        let pair = |side: Vec<(u8, Window)>| <[Window; 2]>::try_from(side.into_iter().map(|s| s.1).collect::<Vec<_>>());
        match (pair(a), pair(b)) {
            (Ok(a), Ok(b)) if windows == usize::from(schedule::PLACES) => {
                rounds.push(ExperimentRound { a, b, a_first })
            }
            _ => left_out += windows,
        }
    }
    (rounds, left_out)
}

/// A recording of the same load, by which an experiment is sized.
pub(crate) struct Like {
    /// those of an experiment, or groups of four windows, as ABBA
    pub(crate) rounds: Vec<ExperimentRound>,
    /// the windows are as long as they are
    pub(crate) is_experiment: bool,
    /// it was made on an emulated CPU
    pub(crate) is_emulated: bool,
}

impl Like {
    /// Reads it. Intervals of a recording that is no experiment are joined to windows of `length` or more.
    pub(crate) fn read(path: &Path, length: Duration) -> Result<Self> {
        let recording = Together::default().read(path, input::open(path, OnDamage::Refuse)?)?;
        let header = &recording.source.header;
        let (is_experiment, is_emulated) = (header.experiment.is_some(), header.host.emulated);
        let rounds = if is_experiment {
            whole_rounds(recording.windows).0
        } else {
            let windows = joined(recording.windows.into_iter().map(|(_, window)| window), length);
            let round = |[first, second, third, last]: [Window; 4]| ExperimentRound {
                a: [first, last],
                b: [second, third],
                a_first: true,
            };
            windows.as_chunks::<4>().0.iter().cloned().map(round).collect()
        };
        Ok(Self { rounds: rounds.into_iter().filter(has_entries).collect(), is_experiment, is_emulated })
    }

    /// Mean length of a window, ns; none without any.
    pub(crate) fn window_ns(&self) -> Option<f64> {
        let lengths: Vec<f64> = self.rounds.iter().flat_map(windows_of).map(|w| w.length_ns as f64).collect();
        (!lengths.is_empty()).then(|| lengths.iter().sum::<f64>() / lengths.len() as f64)
    }
}

/// Neighbours joined to windows of `length` or more.
fn joined(windows: impl Iterator<Item = Window>, length: Duration) -> Vec<Window> {
    let mut joined: Vec<Window> = Vec::new();
    for next in windows {
        match joined.last_mut().filter(|last| u128::from(last.length_ns) < length.as_nanos()) {
            Some(last) => last.merge(&next),
            None => joined.push(next),
        }
    }
    joined
}
