//! The effect on each VM, from its own rounds, and what the VMs say together: a meta-analysis in which every VM is a study.

mod combined;

use std::collections::BTreeMap;

use super::{
    design::Units,
    pairs::{Pairs, deviation, mean},
    sequential, statistic,
};
use crate::{
    compare::{
        comparison::{ByVm, Combined, Estimate, FigureByVm, Row, VmEffect},
        windows::{ExperimentRound, Window, Windows},
    },
    model::{figures::Unit, series::Series},
};

/// VMs that are compared at most: those with the most entries.
const MOST_VMS: usize = 16;
/// Chance that an interval does not contain the true value.
const LEVEL: f64 = 0.05;

/// Compares the VMs of an experiment: the figures of these rows.
pub(crate) fn of(windows: &Windows, figures: &[&Row]) -> ByVm {
    let Windows::Rounds(rounds) = windows else { return ByVm::default() };
    let mut entries: BTreeMap<&str, u64> = BTreeMap::new();
    for (vm, strata) in rounds.iter().flat_map(|r| r.a.iter().chain(&r.b)).flat_map(|window: &Window| &window.vms) {
        let sum = entries.entry(vm).or_default();
        *sum = strata.values().map(Series::entries).fold(*sum, u64::saturating_add);
    }
    if entries.len() < 2 {
        return ByVm::default();
    }
    let mut vms: Vec<(&str, u64)> = entries.into_iter().collect();
    vms.sort_by_key(|(_, entries)| std::cmp::Reverse(*entries));
    let more = vms.len().saturating_sub(MOST_VMS);
    vms.truncate(MOST_VMS);
    let mut values: Vec<Vec<Vm>> = vec![Vec::new(); figures.len()];
    for (vm, _) in vms {
        let rounds = rounds_of(rounds, vm);
        for (of, row) in values.iter_mut().zip(figures) {
            of.push(Vm { name: vm, values: values_of(&rounds, &format!("{}.{}", row.figure, row.stat)) });
        }
    }
    let figures = figures.iter().zip(values);
    ByVm { figures: figures.filter_map(|(row, vms)| of_figure(row, vms)).collect(), more }
}

/// A figure of a VM.
#[derive(Clone)]
struct Vm<'a> {
    name: &'a str,
    /// A and B in each round; NaN if the VM has no entries, or no value, on a side
    values: Vec<[f64; 2]>,
}

/// The rounds as if there were only this VM.
fn rounds_of(rounds: &[ExperimentRound], vm: &str) -> Windows {
    let only = |window: &Window| Window {
        start_unix_ns: window.start_unix_ns,
        length_ns: window.length_ns,
        strata: window.vms.get(vm).cloned().unwrap_or_default(),
        ..Window::default()
    };
    let of = |round: &ExperimentRound| ExperimentRound {
        a: round.a.each_ref().map(only),
        b: round.b.each_ref().map(only),
        a_first: round.a_first,
    };
    Windows::Rounds(rounds.iter().map(of).collect())
}

/// A statistic of both sides in every round in which both have entries; NaN in others.
fn values_of(rounds: &Windows, name: &str) -> Vec<[f64; 2]> {
    let units = Units::of(rounds);
    let mut values = statistic::of_rounds(name, &units).unwrap_or_default();
    let has_entries =
        |part: &Vec<usize>| part.iter().any(|at| units.windows[*at].strata.values().any(|s| s.entries() > 0));
    for (values, sides) in values.iter_mut().zip(units.parts.chunks_exact(2)) {
        if !sides.iter().all(has_entries) {
            *values = [f64::NAN; 2];
        }
    }
    values
}

/// A figure of each VM; none if no VM has a value of it on both sides, and if all values are 0.
fn of_figure(row: &Row, mut vms: Vec<Vm>) -> Option<FigureByVm> {
    vms.retain(|vm| vm.known().next().is_some());
    // None of an event anywhere is no news of any VM.
    if vms.iter().flat_map(Vm::known).all(|values| values == [0.0; 2]) {
        return None;
    }
    let scale = Scale::of(&vms, row.unit);
    let effects: Vec<VmEffect> = vms.iter().map(|vm| vm.effect(scale)).collect();
    let all = together(&vms, &effects, scale);
    let is_ratio = scale == Scale::LogRatio;
    Some(FigureByVm { figure: row.figure, stat: row.stat, unit: row.unit, is_ratio, vms: effects, all })
}

/// The scale on which the changes of all VMs are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scale {
    /// ln(b / a): the same change in % weighs the same whatever a VM's level
    LogRatio,
    /// b - a
    Difference,
}

impl Scale {
    /// Ratios if every VM has them.
    fn of(vms: &[Vm], unit: Unit) -> Self {
        let is_ratio = vms.iter().all(|vm| Pairs::of(&vm.values, unit).is_ratio());
        if is_ratio { Self::LogRatio } else { Self::Difference }
    }

    /// The change of a round.
    fn change(self, [a, b]: [f64; 2]) -> f64 {
        match self {
            Self::LogRatio => (b / a).ln(),
            Self::Difference => b - a,
        }
    }

    /// A change as it is shown: b / a, or b - a.
    fn shown(self, change: f64) -> f64 {
        match self {
            Self::LogRatio => change.exp(),
            Self::Difference => change,
        }
    }
}

impl Vm<'_> {
    /// Rounds with a value of both sides.
    fn known(&self) -> impl Iterator<Item = [f64; 2]> {
        self.values.iter().copied().filter(|values| values.iter().all(|value| value.is_finite()))
    }

    fn changes(&self, scale: Scale) -> Vec<f64> {
        self.known().map(|values| scale.change(values)).collect()
    }

    fn effect(&self, scale: Scale) -> VmEffect {
        let [a, b] = [0, 1].map(|side| mean(&self.known().map(|values| values[side]).collect::<Vec<_>>()));
        let changes = self.changes(scale);
        // Valid whenever the experiment stops; none from too few rounds.
        let bounds = sequential::interval(&changes, LEVEL);
        let [low, high] = [0, 1].map(|at| bounds.map(|bounds| scale.shown(bounds[at])));
        let change = Estimate { value: scale.shown(mean(&changes)), low, high };
        VmEffect { vm: self.name.to_owned(), rounds: changes.len(), a, b, change }
    }
}

/// The VMs with an interval together.
fn together(vms: &[Vm], effects: &[VmEffect], scale: Scale) -> Option<Combined> {
    let with_interval: Vec<_> = vms.iter().zip(effects).filter(|(_, effect)| effect.change.low.is_some()).collect();
    let study = |vm: &Vm| {
        let changes = vm.changes(scale);
        let variance = deviation(&changes)?.powi(2) / changes.len() as f64;
        Some(combined::Study { effect: mean(&changes), variance })
    };
    let studies: Vec<_> = with_interval.iter().map(|(vm, _)| study(vm)).collect::<Option<_>>()?;
    let pooled = combined::pool(&studies)?;
    // All VMs share each round's coin, and the host's noise: the VMs are fewer independent witnesses than they seem.
    let of_round = |round: usize| {
        let changes =
            with_interval.iter().zip(&pooled.weights).map(|((vm, _), w)| (scale.change(vm.values[round]), *w));
        let there = changes.filter(|(change, _)| change.is_finite());
        let (sum, weights) = there.fold((0.0, 0.0), |(sum, all), (change, w)| (sum + w * change, all + w));
        (weights > 0.0).then(|| sum / weights)
    };
    let rounds = with_interval.first().map_or(0, |(vm, _)| vm.values.len());
    let by_round: Vec<f64> = (0..rounds).filter_map(of_round).collect();
    let [low, high] = sequential::interval(&by_round, LEVEL)?;
    let centre = mean(&by_round);
    let [low, high] = [pooled.mean - pooled.half.max(centre - low), pooled.mean + pooled.half.max(high - centre)];
    let [value, low, high] = [pooled.mean, low, high].map(|change| scale.shown(change));
    Some(Combined {
        vms: studies.len(),
        a: with_interval.iter().zip(&pooled.weights).map(|((_, effect), w)| effect.a * w).sum(),
        change: Estimate { value, low: Some(low), high: Some(high) },
        tau: pooled.tau_squared.sqrt(),
        i_squared: pooled.i_squared,
    })
}

#[cfg(test)]
mod tests;
