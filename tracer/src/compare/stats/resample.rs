//! The studentised bootstrap of the blocks of both sides: each resample's deviation is divided by its own standard error, so that intervals keep their level
//! with a dozen units (Efron and Tibshirani 1993, 12.5).

use super::{
    blocks,
    dense::{Counts, CountsView, Dense, Weights},
    random::Random,
};
use crate::model::number::truncated_usize;

/// Fewest units of a side for an interval; fewer do not determine their own spread.
pub(super) const MIN_UNITS: usize = 6;
/// Chance that an interval misses at either end.
const TAIL: f64 = 0.025;
/// Largest share of resamples without a value.
const MAX_UNKNOWN: f64 = 0.01;
/// Lower limit of a resample's standard error, as a share of the sample's: a tiny one carries no information on the spread.
const LEAST_ERROR: f64 = 0.1;
/// Largest share of resamples below that limit; more would form the tails.
const MAX_FLOORED: f64 = 0.02;
/// Largest distance of a bound from the value, in standard errors.
const MAX_DEVIATION: f64 = 15.0;
/// Standard errors that a bound may lie beyond possible values, because a side's value is not known better.
const SLACK: f64 = 3.0;
/// Units of a side above which neighbours are merged, for the bootstrap and the jackknife only.
const MAX_UNITS: usize = 100;

/// The spread of one statistic, from its units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    /// standard error of b - a; NaN if not known
    pub difference_se: f64,
    /// standard error of ln(b / a); NaN if not known
    pub log_ratio_se: f64,
    /// degrees of freedom of `difference_se`
    pub df: f64,
    /// 95 % confidence interval of b - a
    pub difference: Option<[f64; 2]>,
    /// 95 % confidence interval of b / a
    pub ratio: Option<[f64; 2]>,
    /// reason why an interval is none although its standard error is known
    pub why: Option<&'static str>,
}

/// Merges neighbouring units of a side if there are more than the bootstrap can afford; none if there are not.
fn grouped(dense: &Dense, [a, b]: [usize; 2]) -> Option<(Dense, [usize; 2])> {
    if a.max(b) <= MAX_UNITS {
        return None;
    }
    let cut = |n: usize| blocks::cut(n, n.div_ceil(MAX_UNITS)).collect::<Vec<_>>();
    let [of_a, of_b] = [cut(a), cut(b)];
    let units = [of_a.len(), of_b.len()];
    let of_b = of_b.into_iter().map(|r| r.map(|i| a + i).collect());
    let groups: Vec<Vec<usize>> = of_a.into_iter().map(Iterator::collect).chain(of_b).collect();
    Some((dense.merged(&groups), units))
}

/// Values of both sides, by statistic.
#[derive(Default)]
struct Pair {
    a: Vec<f64>,
    b: Vec<f64>,
}

impl Pair {
    fn sized(n: usize) -> Self {
        Self { a: vec![f64::NAN; n], b: vec![f64::NAN; n] }
    }

    /// b - a and ln(b / a).
    fn contrasts(&self, i: usize) -> [f64; 2] {
        let (a, b) = (self.a[i], self.b[i]);
        [b - a, (b / a).ln()]
    }
}

/// Sums over one side's leave-one-out values.
#[derive(Clone, Copy, Default)]
struct Moments {
    n: f64,
    sum: [f64; 2],
    squares: [f64; 2],
}

impl Moments {
    fn take(&mut self, times: f64, deviations: [f64; 2]) {
        self.n += times;
        for (i, d) in deviations.into_iter().enumerate() {
            self.sum[i] += times * d;
            self.squares[i] += times * d * d;
        }
    }

    /// The jackknife's variance of either contrast.
    fn variance(&self, contrast: usize) -> f64 {
        let mean = self.sum[contrast] / self.n;
        (self.n - 1.0) * (self.squares[contrast] / self.n - mean * mean).max(0.0)
    }
}

struct Sampler<'a> {
    dense: &'a Dense,
    /// units of A, whose parts come first, and of B
    units: [usize; 2],
    quantiles: &'a [f64],
    pools: [Counts; 2],
    weights: Weights,
    whole: Pair,
    rest: Pair,
    moments: Vec<[Moments; 2]>,
}

impl<'a> Sampler<'a> {
    fn new(dense: &'a Dense, units: [usize; 2], quantiles: &'a [f64]) -> Self {
        let n = quantiles.len() + 1;
        Self {
            dense,
            units,
            quantiles,
            pools: [dense.empty(), dense.empty()],
            weights: Weights::default(),
            whole: Pair::sized(n),
            rest: Pair::sized(n),
            moments: vec![],
        }
    }

    fn evaluate(&mut self, without: [Option<usize>; 2]) {
        let [a, b] = [0, 1].map(|side| CountsView {
            all: &self.pools[side],
            but: without[side].map(|part: usize| &self.dense.parts[part]),
        });
        self.weights.set(a, b, self.dense.strata);
        let pair = if without == [None, None] { &mut self.whole } else { &mut self.rest };
        self.dense.values(a, &self.weights.a, self.quantiles, &mut pair.a);
        self.dense.values(b, &self.weights.b, self.quantiles, &mut pair.b);
    }

    /// Takes each part `times` over, and writes the results into `whole` and `moments`.
    fn sample(&mut self, times: &[f64]) {
        self.pools.iter_mut().for_each(Counts::clear);
        for (part, &times) in times.iter().enumerate().filter(|(_, t)| **t > 0.0) {
            self.pools[usize::from(part >= self.units[0])].add(&self.dense.parts[part], times);
        }
        self.evaluate([None, None]);
        self.moments.clear();
        self.moments.resize(self.whole.a.len(), Default::default());
        for (part, &times) in times.iter().enumerate().filter(|(_, t)| **t > 0.0) {
            let side = usize::from(part >= self.units[0]);
            self.evaluate([0, 1].map(|of| (of == side).then_some(part)));
            for (i, moments) in self.moments.iter_mut().enumerate() {
                // Deviations from the whole's values, so that squares do not cancel.
                let ([d, l], [whole_d, whole_l]) = (self.rest.contrasts(i), self.whole.contrasts(i));
                moments[side].take(times, [d - whole_d, l - whole_l]);
            }
        }
    }

    /// Standard errors of both contrasts.
    fn errors(&self, i: usize) -> [f64; 2] {
        let [first, second] = &self.moments[i];
        [0, 1].map(|c| (first.variance(c) + second.variance(c)).sqrt())
    }

    /// Degrees of freedom of the difference's standard error, by Welch and Satterthwaite.
    fn df(&self, i: usize) -> f64 {
        let [first, second] = self.moments[i];
        let (a, b) = (first.variance(0), second.variance(0));
        (a + b).powi(2) / (a * a / (first.n - 1.0) + b * b / (second.n - 1.0))
    }

    fn draw(&self, random: &mut Random, times: &mut [f64]) {
        times.fill(0.0);
        let [a, b] = self.units;
        (0..a).for_each(|_| times[random.below(a)] += 1.0);
        (0..b).for_each(|_| times[a + random.below(b)] += 1.0);
    }
}

/// The spread of every quantile and of the mean, from the parts of A and then of B, whose numbers are `units`; none with fewer than two
/// of a side.
pub(super) fn spreads(
    dense: &Dense,
    units: [usize; 2],
    quantiles: &[f64],
    resamples: u32,
    seed: u64,
) -> Option<Vec<Spread>> {
    if units.iter().any(|&n| n < 2) {
        return None;
    }
    let grouped = grouped(dense, units);
    let (dense, units) = grouped.as_ref().map_or((dense, units), |(dense, units)| (dense, *units));
    let mut sampler = Sampler::new(dense, units, quantiles);
    sampler.sample(&vec![1.0; dense.parts.len()]);
    let count = quantiles.len() + 1;
    let whole: Vec<[f64; 2]> = (0..count).map(|i| [sampler.whole.a[i], sampler.whole.b[i]]).collect();
    let seen: Vec<[f64; 2]> = (0..count).map(|i| sampler.whole.contrasts(i)).collect();
    let mut spreads: Vec<Spread> = (0..count).map(|i| sampler.spread(i)).collect();
    if resamples == 0 || units.iter().any(|&n| n < MIN_UNITS) {
        return Some(spreads);
    }
    let deviations = sampler.deviations(&seen, resamples, seed);
    for (((spread, deviations), seen), whole) in spreads.iter_mut().zip(deviations).zip(seen).zip(whole) {
        spread.set_intervals(whole, seen, deviations);
    }
    Some(spreads)
}

/// Deviations of the resamples' contrasts with their standard errors, of one statistic: of b - a, and of ln(b / a).
type Deviations = [Vec<[f64; 2]>; 2];

impl Sampler<'_> {
    /// Standard errors of a statistic, without intervals.
    fn spread(&self, i: usize) -> Spread {
        let [difference_se, log_ratio_se] = self.errors(i);
        Spread { difference_se, log_ratio_se, df: self.df(i), difference: None, ratio: None, why: None }
    }

    /// Resamples the units; the deviations from the contrasts `seen`, by statistic.
    fn deviations(&mut self, seen: &[[f64; 2]], resamples: u32, seed: u64) -> Vec<Deviations> {
        let mut random = Random::new(seed ^ 0xb0);
        let mut times = vec![0.0; self.dense.parts.len()];
        let mut deviations: Vec<Deviations> = vec![[vec![], vec![]]; seen.len()];
        for _ in 0..resamples {
            self.draw(&mut random, &mut times);
            self.sample(&times);
            for (i, deviations) in deviations.iter_mut().enumerate() {
                let (contrasts, errors) = (self.whole.contrasts(i), self.errors(i));
                for c in 0..2 {
                    deviations[c].push([contrasts[c] - seen[i][c], errors[c]]);
                }
            }
        }
        deviations
    }
}

impl Spread {
    /// Sets the intervals from both sides' values, their contrasts, and the resamples' deviations from these.
    fn set_intervals(&mut self, [a, b]: [f64; 2], seen: [f64; 2], [of_difference, of_ratio]: Deviations) {
        let slack = SLACK * self.difference_se;
        // No figure is below 0.
        let possible = |[low, high]: [f64; 2]| low >= -a - slack && high <= b + slack;
        let difference = interval(seen[0], self.difference_se, &of_difference)
            .and_then(|i| if possible(i) { Ok(i) } else { Err(Some(IMPOSSIBLE)) });
        let ratio = interval(seen[1], self.log_ratio_se, &of_ratio);
        self.why = difference.err().or(ratio.err()).flatten();
        self.difference = difference.ok();
        self.ratio = ratio.ok().map(|i| i.map(f64::exp));
    }
}

const IMPOSSIBLE: &str = "no interval: the units differ so much that its bounds would be impossible values";
const UNSTABLE: &str = "no interval: a few units make nearly all of the spread";

/// The interval of a value from its deviations and their standard errors; or the reason for none, if it is not obvious.
fn interval(seen: f64, se: f64, drawn: &[[f64; 2]]) -> Result<[f64; 2], Option<&'static str>> {
    let known = drawn.iter().filter(|[d, e]| d.is_finite() && e.is_finite());
    let floored = known.clone().filter(|[_, e]| *e < LEAST_ERROR * se).count() as f64;
    let mut deviations: Vec<f64> = known.map(|[d, e]| d / e.max(LEAST_ERROR * se)).collect();
    let drawn = drawn.len() as f64;
    if !seen.is_finite() || se.is_nan() || se <= 0.0 || drawn - deviations.len() as f64 > MAX_UNKNOWN * drawn {
        return Err(None);
    }
    if floored > MAX_FLOORED * drawn {
        return Err(Some(UNSTABLE));
    }
    deviations.sort_by(f64::total_cmp);
    let last = deviations.len().checked_sub(1).ok_or(None)?;
    let tail = truncated_usize((TAIL * (deviations.len() as f64 + 1.0)).round().max(1.0)) - 1;
    let tail = tail.min(last / 2);
    let tails = [deviations[last - tail], deviations[tail]];
    if tails.iter().any(|t| t.abs() > MAX_DEVIATION) {
        return Err(Some(UNSTABLE));
    }
    let bounds = tails.map(|t| seen - t * se);
    if bounds.iter().all(|b| b.is_finite()) { Ok(bounds) } else { Err(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn means(values: &[f64]) -> Dense {
        Dense::ratio(values.iter().map(|v| (*v, 1.0)))
    }

    #[test]
    fn the_jackknifes_error_of_a_difference_matches_the_textbook() {
        let values = [1.0, 4.0, 2.0, 8.0, 5.0, 7.0];
        let mean = values.iter().sum::<f64>() / 6.0;
        let se = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 5.0 / 6.0).sqrt();
        // Welch: the same numbers on either side have twice the variance, and both sides' degrees of freedom.
        let spread = spreads(&means(&[values, values].concat()), [6, 6], &[], 0, 1).unwrap()[0];
        assert!((spread.difference_se - se * 2f64.sqrt()).abs() < 1e-12 && (spread.df - 10.0).abs() < 1e-9);
        assert!(spread.difference.is_none());
        // A side that is the same everywhere adds nothing.
        let spread = spreads(&means(&[values, [3.0; 6]].concat()), [6, 6], &[], 0, 1).unwrap()[0];
        assert!((spread.difference_se - se).abs() < 1e-12 && (spread.df - 5.0).abs() < 1e-9);
    }

    #[test]
    fn intervals_contain_the_value_and_mirror_with_the_sides() {
        let a: Vec<f64> = (0..12).map(|r| 100.0 + f64::from(r * 7 % 5)).collect();
        let b: Vec<f64> = (0..12).map(|r| 110.0 + f64::from(r * 3 % 7)).collect();
        let of = |a: &[f64], b: &[f64]| spreads(&means(&[a, b].concat()), [12, 12], &[], 2000, 3).unwrap()[0];
        let (there, back) = (of(&a, &b), of(&b, &a));
        let ([low, high], [back_low, back_high]) = (there.difference.unwrap(), back.difference.unwrap());
        assert!(low < 11.0 && 10.0 < high && low > 5.0 && high < 16.0, "{low} {high}");
        // The draws of either side are others, so the bounds are the same but for chance.
        assert!((low + back_high).abs() < 0.3 && (high + back_low).abs() < 0.3, "{low} {high} {back_low} {back_high}");
        let [low, high] = there.ratio.unwrap();
        assert!(1.05 < low && low < 1.107 && 1.107 < high && high < 1.15, "{low} {high}");
    }

    #[test]
    fn one_outlier_gives_no_wild_bounds() {
        // All units but one agree, so resamples without it have hardly any standard error.
        let mut wild: Vec<f64> = (0..12).map(|r| 10.0 + 0.001 * f64::from(r)).collect();
        wild.extend((0..12).map(|r| 10.001 + 0.002 * f64::from(r)));
        wild[17] = 900.0;
        let spread = spreads(&means(&wild), [12, 12], &[], 300, 1).unwrap()[0];
        assert!(spread.difference_se > 0.0 && spread.why.is_some());
        assert_eq!((spread.difference, spread.ratio), (None, None));
    }

    #[test]
    fn neighbours_of_many_units_are_merged() {
        let mut values = vec![100.0; 1000];
        values.extend((0..1000).map(|r| 105.0 + f64::from(r * 7 % 11)));
        let (dense, units) = grouped(&means(&values), [1000, 1000]).unwrap();
        assert_eq!((units, dense.parts.len()), ([100, 100], 200));
        assert!(grouped(&means(&values[..200]), [100, 100]).is_none());
        let (dense, units) = grouped(&means(&values), [1950, 50]).unwrap();
        assert_eq!((units[1], dense.parts.len()), (50, units[0] + 50));
        let spread = spreads(&means(&values), [1000, 1000], &[], 100, 1).unwrap()[0];
        let [low, high] = spread.difference.unwrap();
        assert!((spread.df - 99.0).abs() < 1e-6 && low < 10.0 && 9.99 < high && high - low < 1.0, "{low} {high}");
    }

    #[test]
    fn a_constant_has_no_studentised_interval() {
        let constant = spreads(&means(&[[2.0; 8], [0.0; 8]].concat()), [8, 8], &[], 200, 1).unwrap()[0];
        assert_eq!((constant.difference_se, constant.difference, constant.ratio), (0.0, None, None));
        assert!(spreads(&means(&[1.0, 2.0]), [1, 1], &[], 9, 1).is_none());
    }
}
