//! The permutation test and the A/A noise: values again under other labels.

use super::{
    dense::{Counts, CountsView, Dense, Weights},
    design::Design,
    random::Random,
};
use crate::model::number::truncated_usize;

/// Random splits of each side into halves.
const SPLITS: usize = 100;
/// Values of a trend test at most; every random order looks at every pair.
const MAX_ORDERED: usize = 200;
/// Quantile of the half-against-half differences that is the A/A noise.
const NOISE_QUANTILE: f64 = 0.95;

/// Parts of a figure, split into A and B.
pub(crate) struct Split<'a> {
    dense: &'a Dense,
    quantiles: &'a [f64],
    labels: Vec<Option<bool>>,
    total: Counts,
    a: Counts,
    weights: Weights,
}

impl<'a> Split<'a> {
    /// Splits the parts that have a label, `true` for A.
    pub(crate) fn new(dense: &'a Dense, quantiles: &'a [f64], labels: &[Option<bool>]) -> Self {
        let (mut total, mut a) = (dense.empty(), dense.empty());
        for (part, label) in dense.parts.iter().zip(labels) {
            if label.is_some() {
                total.add(part, 1.0);
            }
            if *label == Some(true) {
                a.add(part, 1.0);
            }
        }
        Self { dense, quantiles, labels: labels.to_vec(), total, a, weights: Weights::default() }
    }

    /// Changes the labels of parts that have one.
    pub(crate) fn relabel(&mut self, labels: impl Iterator<Item = Option<bool>>) {
        for (part, new) in labels.enumerate() {
            if self.labels[part] != new {
                self.a.add(&self.dense.parts[part], if new == Some(true) { 1.0 } else { -1.0 });
                self.labels[part] = new;
            }
        }
    }

    /// Quantiles, mean and maximum of A and of B; NaN without values.
    pub(crate) fn values(&mut self) -> [Vec<f64>; 2] {
        let (a, b) = (CountsView::of(&self.a), CountsView::without(&self.total, &self.a));
        self.weights.set(a, b, self.dense.strata);
        let side = |view, weights: &[f64], arm| {
            let mut values = vec![f64::NAN; self.quantiles.len() + 2];
            self.dense.values(view, weights, self.quantiles, &mut values);
            let maxima = self.dense.maxima.iter().zip(&self.labels).filter(|(_, l)| **l == Some(arm));
            values[self.quantiles.len() + 1] = maxima.map(|(m, _)| *m).fold(f64::NAN, f64::max);
            values
        };
        [side(a, &self.weights.a, true), side(b, &self.weights.b, false)]
    }
}

/// The actual labels.
pub(crate) fn labels(design: Design) -> Vec<Option<bool>> {
    (0..design.parts()).map(|p| Some(design.is_a(p))).collect()
}

/// Two-sided p of `|b - a|` of blocks for every quantile, the mean and the maximum; none without units. A labelling that leaves a side without
/// values counts against a difference.
pub(crate) fn p_values(
    dense: &Dense,
    design: Design,
    quantiles: &[f64],
    permutations: u32,
    seed: u64,
) -> Option<Vec<f64>> {
    let mut split = Split::new(dense, quantiles, &labels(design));
    let mut hits = vec![0u32; quantiles.len() + 2];
    let mut seen: Option<Vec<f64>> = None;
    let mut tried = 0u32;
    design.labellings(permutations, seed, |labels| {
        split.relabel(labels.iter().map(|l| Some(*l)));
        let [a, b] = split.values();
        let seen = seen.get_or_insert_with(|| a.iter().zip(&b).map(|(a, b)| (b - a).abs()).collect());
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            // Rounding must not break ties, and NaN is not less than anything.
            let less = (b - a).abs() < seen[i] - 1e-9 * (a.abs() + b.abs());
            hits[i] += u32::from(!less);
        }
        tried += 1;
    });
    // Random draws from few choices may by chance hit fewer extreme labellings than there are.
    let least = design.least_p(permutations);
    (tried > 0).then(|| hits.iter().map(|&h| (f64::from(h) / f64::from(tried)).max(least)).collect())
}

/// A/A noise: 95th percentile of |ratio - 1| between random halves of a side, over both sides; for every quantile, the mean and the
/// maximum. `windows` are A, A, B, B of each round, or the blocks. None if a side cannot be split.
pub(crate) fn noise(windows: &Dense, design: Design, quantiles: &[f64], seed: u64) -> Option<Vec<f64>> {
    let mut random = Random::new(seed ^ 0xaa);
    let mut ratios = vec![vec![]; quantiles.len() + 2];
    for arm in [true, false] {
        let own: Vec<usize> = match design {
            Design::Rounds(n) => (0..4 * n).filter(|w| (w % 4 < 2) == arm).collect(),
            Design::Blocks { .. } => (0..design.parts()).filter(|&p| design.is_a(p) == arm).collect(),
        };
        if own.len() < 2 {
            return None;
        }
        let mut labels = vec![None; windows.parts.len()];
        own.iter().enumerate().for_each(|(i, &w)| labels[w] = Some(i % 2 == 0));
        let mut split = Split::new(windows, quantiles, &labels);
        for _ in 0..SPLITS {
            let mut halves: Vec<bool> = (0..own.len()).map(|i| i % 2 == 0).collect();
            match design {
                Design::Rounds(_) => halves.chunks_mut(2).filter(|_| random.coin()).for_each(|pair| pair.swap(0, 1)),
                Design::Blocks { .. } => random.shuffle(&mut halves),
            }
            own.iter().zip(halves).for_each(|(&w, half)| labels[w] = Some(half));
            split.relabel(labels.iter().copied());
            let [x, y] = split.values();
            for (ratios, (x, y)) in ratios.iter_mut().zip(x.iter().zip(&y)) {
                ratios.push((y / x - 1.0).abs());
            }
        }
    }
    let quantile = |mut ratios: Vec<f64>| {
        if ratios.iter().any(|r| !r.is_finite()) {
            return f64::NAN;
        }
        ratios.sort_by(f64::total_cmp);
        ratios[truncated_usize((ratios.len() - 1) as f64 * NOISE_QUANTILE)]
    };
    Some(ratios.into_iter().map(quantile).collect())
}

/// p of the mean of signed units, e.g. differences, under random signs; none without units.
pub(crate) fn sign_p(units: &[f64], permutations: u32, seed: u64) -> Option<f64> {
    let seen = units.iter().sum::<f64>().abs();
    let (mut tried, mut hits) = (0u32, 0u32);
    Design::Rounds(units.len()).labellings(permutations, seed, |labels| {
        let sum: f64 = units.iter().enumerate().map(|(i, x)| if labels[2 * i] { *x } else { -x }).sum();
        hits += u32::from(sum.abs() >= seen * (1.0 - 1e-9));
        tried += 1;
    });
    (tried > 0).then(|| f64::from(hits) / f64::from(tried))
}

/// p of Kendall's rank correlation with the order, from random orders; none for fewer than three values. Neighbours are averaged if
/// there are many values.
pub(crate) fn trend_p(values: &[f64], permutations: u32, seed: u64) -> Option<f64> {
    let kendall = |values: &[f64]| -> i64 {
        let pairs = values.iter().enumerate().flat_map(|(i, x)| values[..i].iter().map(move |y| (y, x)));
        pairs.map(|(y, x)| i64::from(x > y) - i64::from(x < y)).sum()
    };
    let size = values.len().div_ceil(MAX_ORDERED).max(1);
    let mut values: Vec<f64> = values.chunks(size).map(|c| c.iter().sum::<f64>() / c.len() as f64).collect();
    let seen = kendall(&values).abs();
    let mut random = Random::new(seed ^ 0xd1);
    let mut hits = 1u32;
    for _ in 0..permutations {
        random.shuffle(&mut values);
        hits += u32::from(kendall(&values).abs() >= seen);
    }
    (values.len() > 2).then(|| f64::from(hits) / (f64::from(permutations) + 1.0))
}

/// Holm's correction: adjusted p, to be compared with the false alarm rate of the whole family.
pub(crate) fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&i, &j| p[i].total_cmp(&p[j]));
    let mut adjusted = vec![1.0; p.len()];
    let mut highest: f64 = 0.0;
    for (rank, &i) in order.iter().enumerate() {
        highest = highest.max(p[i] * (p.len() - rank) as f64).min(1.0);
        adjusted[i] = highest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn means(values: &[f64]) -> Dense {
        Dense::ratio(values.iter().map(|v| (*v, 1.0)))
    }

    #[test]
    fn holms_correction_matches_the_textbook() {
        assert_eq!(holm(&[0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02]);
        assert_eq!(holm(&[0.6, 0.7]), [1.0, 1.0]);
        assert!(holm(&[]).is_empty());
    }

    const BLOCKS: Design = Design::Blocks { a: 6, b: 6 };

    #[test]
    fn the_clearest_difference_has_the_least_p() {
        let blocks: Vec<f64> = (0..6).chain(100..106).map(f64::from).collect();
        assert_eq!(p_values(&means(&blocks), BLOCKS, &[], 0, 1).unwrap()[0], 2.0 / 924.0);
        assert_eq!(sign_p(&[5.0; 10], 0, 1), Some(1.0 / 512.0));
    }

    #[test]
    fn equal_sides_have_p_one() {
        assert_eq!(p_values(&means(&[3.0; 12]), BLOCKS, &[], 0, 1).unwrap()[0], 1.0);
        assert_eq!(p_values(&means(&[]), Design::Blocks { a: 0, b: 0 }, &[], 9, 1), None);
        assert_eq!((sign_p(&[1.0, -1.0], 0, 1), sign_p(&[], 9, 1)), (Some(1.0), None));
    }

    #[test]
    fn the_exact_p_is_the_share_of_labellings_as_far_apart() {
        // |sum| of the eight signs of 1, 2, 4 is 7, 5, 3, 1, twice each.
        let p = |units: [f64; 3]| sign_p(&units, 0, 1).unwrap();
        assert_eq!([p([1.0, 2.0, 4.0]), p([-1.0, 2.0, 4.0]), p([1.0, 2.0, -4.0])], [0.25, 0.5, 1.0]);
        // The six choices of two of these four differ by 10.5, 1.5 and 0.5, twice each.
        let p = |values: [f64; 4]| p_values(&means(&values), Design::Blocks { a: 2, b: 2 }, &[], 0, 1).unwrap()[0];
        assert_eq!([p([0.0, 1.0, 10.0, 12.0]), p([0.0, 12.0, 1.0, 10.0])], [2.0 / 6.0, 1.0]);
        assert_eq!(p([0.0, 10.0, 1.0, 12.0]), 4.0 / 6.0);
    }

    #[test]
    fn a_trend_is_found_in_a_rise_and_not_in_noise() {
        let rising: Vec<f64> = (0..12).map(f64::from).collect();
        assert!(trend_p(&rising, 1000, 1).unwrap() < 0.002);
        assert!(trend_p(&[3.0, 1.0, 4.0, 1.0, 5.0, 2.0, 6.0, 0.0], 1000, 1).unwrap() > 0.3);
        assert_eq!(trend_p(&[1.0, 2.0], 10, 1), None);
        let many: Vec<f64> = (0..100_000).map(|i| f64::from(i) + f64::from(i % 7)).collect();
        assert!(trend_p(&many, 200, 1).unwrap() < 0.01);
    }
}
