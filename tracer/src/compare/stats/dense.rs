//! A figure as arrays: cumulative counts of every window, by bucket and stratum. Pooling windows is then an addition, and a quantile of
//! any pool, weighted by strata or not, a binary search.

use std::collections::BTreeSet;

use crate::{
    compare::windows::{Stratum, Window},
    model::{figures::Figure, histogram::Histogram},
};

/// Buckets times strata of one part at most; beyond, the width of the buckets is doubled until they fit.
const CELLS: usize = 8_192;
/// The same for all parts together: 32 MB.
const ALL_CELLS: usize = 4 << 20;
/// Values below 2 to this power have a bucket of their own in an HDR histogram.
const EXACT_BITS: u32 = 10;

/// Counts of one part of the data, or of several parts together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    /// `[bucket][stratum]`: number of values in this bucket and all below
    below: Vec<f64>,
    /// `[stratum]`: number of values; seconds for rates
    n: Vec<f64>,
    /// `[stratum]`: sum of the values; number of events for rates
    sum: Vec<f64>,
}

impl Counts {
    /// Adds another's counts, `times` over.
    pub(crate) fn add(&mut self, other: &Counts, times: f64) {
        let add = |mine: &mut [f64], theirs: &[f64]| mine.iter_mut().zip(theirs).for_each(|(m, t)| *m += times * t);
        add(&mut self.below, &other.below);
        add(&mut self.n, &other.n);
        add(&mut self.sum, &other.sum);
    }

    /// Sets all counts to 0.
    pub(crate) fn clear(&mut self) {
        [&mut self.below, &mut self.n, &mut self.sum].into_iter().for_each(|v| v.fill(0.0));
    }
}

/// Counts minus other counts.
#[derive(Clone, Copy)]
pub(crate) struct CountsView<'a> {
    /// all counts
    pub all: &'a Counts,
    /// the counts to subtract
    pub but: Option<&'a Counts>,
}

impl<'a> CountsView<'a> {
    /// All counts.
    pub(crate) fn of(all: &'a Counts) -> Self {
        Self { all, but: None }
    }

    /// All counts minus others.
    pub(crate) fn without(all: &'a Counts, but: &'a Counts) -> Self {
        Self { all, but: Some(but) }
    }

    /// Number of values of a stratum; seconds for rates.
    pub(crate) fn n(&self, stratum: usize) -> f64 {
        self.all.n[stratum] - self.but.map_or(0.0, |b| b.n[stratum])
    }

    /// Sum of a stratum's values; number of events for rates.
    pub(crate) fn sum(&self, stratum: usize) -> f64 {
        self.all.sum[stratum] - self.but.map_or(0.0, |b| b.sum[stratum])
    }

    /// Weighted share of the values in a bucket and all below.
    fn below(&self, bucket: usize, weights: &[f64]) -> f64 {
        let row = bucket * weights.len()..(bucket + 1) * weights.len();
        let all = &self.all.below[row.clone()];
        match self.but {
            None => all.iter().zip(weights).map(|(n, w)| n * w).sum(),
            Some(but) => all.iter().zip(&but.below[row]).zip(weights).map(|((n, b), w)| (n - b) * w).sum(),
        }
    }
}

/// One figure, of all parts.
#[derive(Clone, Debug)]
pub(crate) struct Dense {
    /// lowest value of each bucket
    low: Vec<f64>,
    /// width of each bucket
    width: Vec<f64>,
    /// number of strata; 1 if all exits are one stratum
    pub strata: usize,
    /// counts of each part
    pub parts: Vec<Counts>,
    /// highest value of each part; NaN without values
    pub maxima: Vec<f64>,
}

/// Weight of a value on both sides, by stratum.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weights {
    /// weights of A
    pub a: Vec<f64>,
    /// weights of B
    pub b: Vec<f64>,
}

impl Weights {
    /// Sets the weights. With one stratum every value has the same weight. With several, both sides get one mix, the mean of theirs
    /// over the strata that both have; other strata get weight 0.
    pub(crate) fn set(&mut self, a: CountsView, b: CountsView, strata: usize) {
        self.a.clear();
        self.b.clear();
        if strata == 1 {
            self.a.push(1.0 / a.n(0));
            self.b.push(1.0 / b.n(0));
            return;
        }
        let common = |s: usize| a.n(s) > 0.0 && b.n(s) > 0.0;
        let (mut all_a, mut all_b) = (0.0, 0.0);
        for s in (0..strata).filter(|&s| common(s)) {
            all_a += a.n(s);
            all_b += b.n(s);
        }
        for s in 0..strata {
            let share = if common(s) { (a.n(s) / all_a + b.n(s) / all_b) / 2.0 } else { 0.0 };
            self.a.push(if share > 0.0 { share / a.n(s) } else { 0.0 });
            self.b.push(if share > 0.0 { share / b.n(s) } else { 0.0 });
        }
    }
}

/// Lowest value of the bucket that contains `low` if buckets are 2^`coarser` times as wide.
fn group(low: u64, coarser: u32) -> u64 {
    let shift = (low.max(1).ilog2() + coarser).saturating_sub(EXACT_BITS);
    if coarser == 0 { low } else { low.checked_shr(shift).unwrap_or(0) << shift.min(63) }
}

fn group_width(low: u64, width: u64, coarser: u32) -> f64 {
    let shift = (low.max(1).ilog2() + coarser).saturating_sub(EXACT_BITS);
    if coarser == 0 { width as f64 } else { f64::from(shift).exp2() }
}

/// Lowest value and width of every bucket that holds a value, ascending.
fn buckets(parts: &[&Window], index: &impl Fn(&Stratum) -> Option<usize>, figure: Figure) -> Vec<(u64, u64)> {
    let mut all = Histogram::default();
    for window in parts {
        for (_, series) in window.strata.iter().filter(|(s, _)| index(s).is_some()) {
            all.merge(&series[figure]);
        }
    }
    all.buckets().map(|(low, width, _)| (low, width)).collect()
}

/// Lowest value and width of at most `room` merged buckets, and by how many powers of two they are wider.
fn grouped(buckets: &[(u64, u64)], room: usize) -> (Vec<(u64, f64)>, u32) {
    let groups = |coarser| -> Vec<(u64, f64)> {
        let mut groups: Vec<_> =
            buckets.iter().map(|&(l, w)| (group(l, coarser), group_width(l, w, coarser))).collect();
        groups.dedup_by_key(|g| g.0);
        groups
    };
    let coarser = (0..EXACT_BITS).find(|&c| groups(c).len() <= room).unwrap_or(EXACT_BITS);
    (groups(coarser), coarser)
}

impl Dense {
    /// A distribution by bucket; each window is a part. Without `strata` all exits are one stratum.
    pub(crate) fn of(parts: &[&Window], strata: Option<&[Stratum]>, figure: Figure) -> Self {
        let index = |s: &Stratum| strata.map_or(Some(0), |all| all.iter().position(|x| x == s));
        let count = strata.map_or(1, |s| s.len().max(1));
        let room = CELLS.min(ALL_CELLS / parts.len().max(1)) / count;
        let (groups, coarser) = grouped(&buckets(parts, &index, figure), room);
        let dense = |window: &&Window| {
            let mut counts =
                Counts { below: vec![0.0; groups.len() * count], n: vec![0.0; count], sum: vec![0.0; count] };
            for (stratum, series) in &window.strata {
                let Some(s) = index(stratum) else { continue };
                let mut at = 0;
                for (low, width, n) in series[figure].buckets() {
                    let wanted = group(low, coarser);
                    while groups[at].0 < wanted {
                        at += 1;
                    }
                    counts.below[at * count + s] += n as f64;
                    counts.n[s] += n as f64;
                    counts.sum[s] += n as f64 * (low as f64 + (width - 1) as f64 / 2.0);
                }
            }
            for at in count..counts.below.len() {
                counts.below[at] += counts.below[at - count];
            }
            counts
        };
        let highest = |window: &&Window| {
            let counted = window.strata.iter().filter(|(s, _)| index(s).is_some());
            counted.filter_map(|(_, series)| series[figure].max()).max().map_or(f64::NAN, |m| m as f64)
        };
        Self {
            low: groups.iter().map(|g| g.0 as f64).collect(),
            width: groups.iter().map(|g| g.1).collect(),
            strata: count,
            parts: parts.iter().map(dense).collect(),
            maxima: parts.iter().map(highest).collect(),
        }
    }

    /// A ratio of two sums of each part, e.g. events and seconds.
    pub(crate) fn ratio(parts: impl Iterator<Item = (f64, f64)>) -> Self {
        let parts: Vec<_> = parts.map(|(sum, n)| Counts { below: vec![], n: vec![n], sum: vec![sum] }).collect();
        let maxima = vec![f64::NAN; parts.len()];
        Self { low: vec![], width: vec![], strata: 1, parts, maxima }
    }

    /// Merges the parts of each group of indices.
    pub(crate) fn merged(&self, groups: &[Vec<usize>]) -> Self {
        let merge = |group: &Vec<usize>| {
            let mut sum = self.empty();
            group.iter().for_each(|&p| sum.add(&self.parts[p], 1.0));
            sum
        };
        let highest = |group: &Vec<usize>| group.iter().map(|&p| self.maxima[p]).fold(f64::NAN, f64::max);
        Self {
            low: self.low.clone(),
            width: self.width.clone(),
            strata: self.strata,
            parts: groups.iter().map(merge).collect(),
            maxima: groups.iter().map(highest).collect(),
        }
    }

    /// Whether it was made by [`Dense::ratio`].
    pub(crate) fn is_rate(&self) -> bool {
        self.low.is_empty() && self.maxima.iter().all(|m| m.is_nan())
    }

    /// Counts of no value.
    pub(crate) fn empty(&self) -> Counts {
        Counts {
            below: vec![0.0; self.low.len() * self.strata],
            n: vec![0.0; self.strata],
            sum: vec![0.0; self.strata],
        }
    }

    /// Writes the quantiles and then the mean of the weighted values; NaN without values.
    pub(crate) fn values(&self, view: CountsView, weights: &[f64], quantiles: &[f64], values: &mut [f64]) {
        for (value, &q) in values.iter_mut().zip(quantiles) {
            *value = self.quantile(view, weights, q);
        }
        let mean: f64 = weights.iter().enumerate().map(|(s, &w)| if w == 0.0 { 0.0 } else { w * view.sum(s) }).sum();
        let known = weights.iter().any(|w| w.is_finite() && *w > 0.0);
        values[quantiles.len()] = if known { mean } else { f64::NAN };
    }

    /// The quantile, interpolated within its bucket; a bucket of 1 ns holds the values that round to it.
    fn quantile(&self, view: CountsView, weights: &[f64], q: f64) -> f64 {
        let (mut from, mut to) = (0, self.low.len());
        let (mut under, mut over) = (0.0, f64::NAN);
        while from < to {
            let middle = usize::midpoint(from, to);
            let share = view.below(middle, weights);
            if share.is_nan() {
                return f64::NAN;
            }
            if share < q {
                (from, under) = (middle + 1, share);
            } else {
                (to, over) = (middle, share);
            }
        }
        if from == self.low.len() || over <= under {
            return f64::NAN;
        }
        self.low[from] - 0.5 + self.width[from] * ((q - under) / (over - under))
    }
}

/// The strata of all windows with the most values, at most `limit`.
pub(crate) fn strata(windows: &[&Window], limit: usize) -> Vec<Stratum> {
    let all: BTreeSet<Stratum> = windows.iter().flat_map(|w| w.strata.keys().copied()).collect();
    let count = |stratum: &Stratum| -> u64 {
        let of = |w: &&Window| w.strata.get(stratum).map_or(0, |s| s.entries() + s[Figure::ExitToEntry].count());
        windows.iter().map(of).fold(0, u64::saturating_add)
    };
    let mut all: Vec<_> = all.into_iter().map(|s| (count(&s), s)).collect();
    all.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    all.into_iter().take(limit).map(|(_, s)| s).collect()
}
