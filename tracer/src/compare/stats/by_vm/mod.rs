//! The effect on each VM, from its own rounds, and what the VMs say together: a meta-analysis in which every VM is a study.

mod combined;
mod primary;

use std::collections::BTreeMap;

pub(crate) use self::primary::{Primary, primaries};
use super::sequential;
use crate::{
    compare::{
        comparison::{ByVm, Combined, Estimate, FigureByVm, VmEffect},
        windows::{ExperimentRound, Window, Windows},
    },
    model::series::Series,
};

/// VMs that are compared at most: those with the most entries.
const MOST_VMS: usize = 16;
/// Chance that an interval does not contain the true value.
const LEVEL: f64 = 0.05;

/// 95 % confidence interval of the rounds' differences, valid whenever the experiment stops; none from too few rounds.
fn round_interval(differences: &[f64]) -> Option<[f64; 2]> {
    sequential::interval(differences, LEVEL)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The sample's variance; 0 if the values differ by no more than rounding.
fn variance(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    if squares <= 1e-24 * values.iter().map(|v| v * v).sum::<f64>() {
        0.0
    } else {
        squares / (values.len() as f64 - 1.0)
    }
}

/// Compares the VMs of an experiment: `figures` of each.
pub(crate) fn of(windows: &Windows, figures: &[Primary]) -> ByVm {
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
    let names: Vec<&str> = vms.into_iter().map(|(vm, _)| vm).collect();
    let of_figure = |figure: &Primary| of_figure(figure, &names, rounds);
    ByVm { figures: figures.iter().filter_map(of_figure).collect(), more }
}

/// A figure of each VM; none if no VM has a value of it on both sides, and if all values are 0.
fn of_figure(figure: &Primary, vms: &[&str], rounds: &[ExperimentRound]) -> Option<FigureByVm> {
    let values: Vec<Vec<Option<[f64; 2]>>> =
        vms.iter().map(|vm| rounds.iter().map(|round| figure.values(round, vm)).collect()).collect();
    let effects: Vec<(VmEffect, &Vec<Option<[f64; 2]>>)> =
        vms.iter().zip(&values).filter_map(|(vm, values)| Some((effect(vm, values)?, values))).collect();
    let all = together(&effects);
    let vms: Vec<VmEffect> = effects.into_iter().map(|(effect, _)| effect).collect();
    let Primary { figure, stat, unit, .. } = *figure;
    // None of an event anywhere is no news of any VM.
    vms.iter().any(|vm| (vm.a, vm.b) != (0.0, 0.0)).then_some(FigureByVm { figure, stat, unit, vms, all })
}

/// The effect on a VM with these values of A and B in each round.
fn effect(vm: &str, values: &[Option<[f64; 2]>]) -> Option<VmEffect> {
    let known: Vec<[f64; 2]> = values.iter().flatten().copied().collect();
    if known.is_empty() {
        return None;
    }
    let [a, b] = [0, 1].map(|side| mean(&known.iter().map(|values| values[side]).collect::<Vec<_>>()));
    let bounds = round_interval(&differences(values));
    let difference = Estimate { value: b - a, low: bounds.map(|b| b[0]), high: bounds.map(|b| b[1]) };
    Some(VmEffect { vm: vm.to_owned(), rounds: known.len(), a, b, difference })
}

/// B - A of each round with values of both.
fn differences(values: &[Option<[f64; 2]>]) -> Vec<f64> {
    values.iter().flatten().map(|[a, b]| b - a).collect()
}

/// The VMs with an interval together.
fn together(effects: &[(VmEffect, &Vec<Option<[f64; 2]>>)]) -> Option<Combined> {
    let with_interval: Vec<_> = effects.iter().filter(|(effect, _)| effect.difference.low.is_some()).collect();
    let studies: Vec<combined::Study> = with_interval
        .iter()
        .map(|(effect, values)| combined::Study {
            effect: effect.difference.value,
            variance: variance(&differences(values)) / effect.rounds as f64,
        })
        .collect();
    let pooled = combined::pool(&studies)?;
    // All VMs share each round's coin, and the host's noise: the VMs are fewer independent witnesses than they seem.
    let of_round = |round: usize| {
        let there = with_interval.iter().zip(&pooled.weights).filter_map(|((_, values), w)| Some((values[round]?, *w)));
        let (sum, weights) = there.fold((0.0, 0.0), |(sum, all), ([a, b], w)| (sum + w * (b - a), all + w));
        (weights > 0.0).then(|| sum / weights)
    };
    let rounds = with_interval.first().map_or(0, |(_, values)| values.len());
    let by_round: Vec<f64> = (0..rounds).filter_map(of_round).collect();
    let [low, high] = round_interval(&by_round)?;
    let centre = mean(&by_round);
    let value = pooled.mean;
    Some(Combined {
        vms: studies.len(),
        a: with_interval.iter().zip(&pooled.weights).map(|((effect, _), w)| effect.a * w).sum(),
        difference: Estimate {
            value,
            low: Some(value - pooled.half.max(centre - low)),
            high: Some(value + pooled.half.max(high - centre)),
        },
        tau: pooled.tau_squared.sqrt(),
        i_squared: pooled.i_squared,
    })
}

#[cfg(test)]
mod tests;
