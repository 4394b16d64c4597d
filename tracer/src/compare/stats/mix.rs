//! The mix of exits on both sides, and whether it changed.

use std::collections::BTreeMap;

use super::design::Units;
use crate::{
    compare::{
        comparison::{Mix, MixRow},
        windows::{Arm, Options, Stratum},
    },
    model::{figures::Figure, series::Series},
};

/// Computes the mix, its distance and the p of that.
pub(crate) fn of(units: &Units, options: &Options) -> Mix {
    let mut merged: BTreeMap<Stratum, [Series; 2]> = BTreeMap::new();
    for (window, arm) in units.windows.iter().zip(&units.arms) {
        for (stratum, series) in &window.strata {
            merged.entry(*stratum).or_default()[usize::from(*arm == Arm::B)].merge(series);
        }
    }
    let strata: Vec<Stratum> = merged.keys().copied().collect();
    let entries = |part: &Vec<usize>| -> Vec<f64> {
        let count = |s| part.iter().filter_map(|&w| units.windows[w].strata.get(s)).map(|s| s.entries() as f64).sum();
        strata.iter().map(count).collect()
    };
    let parts: Vec<Vec<f64>> = units.parts.iter().map(entries).collect();
    let (distance, p) = distance(&parts, units, options);
    let both = |side: usize, figure: Figure, series: &[Series; 2]| {
        series[side][figure].quantile(0.5).filter(|_| options.incomparable(figure).is_none()).map(|v| v as f64)
    };
    let mut rows: Vec<MixRow> = merged
        .iter()
        .map(|(stratum, series)| MixRow {
            stratum: *stratum,
            entries: [series[0].entries(), series[1].entries()],
            entry_to_exit_p50: [0, 1].map(|side| both(side, Figure::EntryToExit, series)),
            exit_to_entry_p50: [0, 1].map(|side| both(side, Figure::ExitToEntry, series)),
        })
        .collect();
    let sum = |row: &MixRow| row.entries[0].saturating_add(row.entries[1]);
    rows.sort_by_key(|row| std::cmp::Reverse(sum(row)));
    let all: f64 = rows.iter().map(|r| sum(r) as f64).sum();
    let common: f64 = rows.iter().filter(|r| r.entries.iter().all(|&n| n > 0)).map(|r| sum(r) as f64).sum();
    Mix { rows, distance, p, covered: if all > 0.0 { common / all } else { 0.0 } }
}

/// Total variation distance of the mixes and its p; 0 and none if a side has no entries.
fn distance(parts: &[Vec<f64>], units: &Units, options: &Options) -> (f64, Option<f64>) {
    let mut labels: Vec<bool> = vec![false; parts.len()];
    let strata = parts.first().map_or(0, Vec::len);
    let (mut a, mut total) = (vec![0.0; strata], vec![0.0; strata]);
    parts.iter().for_each(|part| total.iter_mut().zip(part).for_each(|(t, n)| *t += n));
    let all: f64 = total.iter().sum();
    let (mut seen, mut tried, mut hits) = (None, 0u32, 0u32);
    units.design.labellings(options.permutations, options.seed, |new| {
        for (part, (old, new)) in parts.iter().zip(labels.iter_mut().zip(new)) {
            if old != new {
                let sign = if *new { 1.0 } else { -1.0 };
                a.iter_mut().zip(part).for_each(|(a, n)| *a += sign * n);
                *old = *new;
            }
        }
        let n: f64 = a.iter().sum();
        let apart: f64 = a.iter().zip(&total).map(|(a, t)| (a / n - (t - a) / (all - n)).abs()).sum::<f64>() / 2.0;
        let seen = *seen.get_or_insert(apart);
        // A labelling that leaves a side without entries counts against a difference.
        hits += u32::from(apart.is_nan() || apart >= seen - 1e-12);
        tried += 1;
    });
    let seen: Option<f64> = seen.filter(|d: &f64| d.is_finite());
    (seen.unwrap_or(0.0), seen.map(|_| f64::from(hits) / f64::from(tried)))
}
