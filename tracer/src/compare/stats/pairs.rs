//! The values of both sides in every round of an experiment.

use super::{
    dense::{CountsView, Dense, Weights},
    sequential,
};
use crate::model::figures::Unit;

/// One statistic of the rounds that have a value on both sides, in the order of time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pairs {
    /// b - a
    pub differences: Vec<f64>,
    /// ln(b / a); none unless both sides are above 0 in all of these rounds
    log_ratios: Option<Vec<f64>>,
    /// whether it is a share of the time, whose changes are percentage points
    is_share: bool,
    /// the largest |a| + |b|
    level: f64,
}

impl Pairs {
    /// The pairs of `[a, b]`; those with NaN are left out.
    pub(crate) fn of(values: &[[f64; 2]], unit: Unit) -> Self {
        let known: Vec<_> = values.iter().filter(|pair| pair.iter().all(|v| v.is_finite())).collect();
        let log_ratios: Vec<f64> = known.iter().map(|[a, b]| (b / a).ln()).collect();
        let have_ratios = known.iter().all(|[a, b]| *a > 0.0 && *b > 0.0);
        Self {
            differences: known.iter().map(|[a, b]| b - a).collect(),
            log_ratios: have_ratios.then_some(log_ratios),
            is_share: unit == Unit::Share,
            level: known.iter().map(|[a, b]| a.abs() + b.abs()).fold(0.0, f64::max),
        }
    }

    /// Whether the change is b / a, because rounds then differ by their level, too; else it is b - a.
    pub(crate) const fn is_ratio(&self) -> bool {
        self.log_ratios.is_some() && !self.is_share
    }

    /// The change in every round, on the scale of the test: ln(b / a) if it is a ratio, else b - a.
    pub(crate) fn tested(&self) -> &[f64] {
        self.log_ratios.as_ref().filter(|_| self.is_ratio()).unwrap_or(&self.differences)
    }

    /// Anytime-valid p of no effect.
    pub(crate) fn p(&self) -> f64 {
        sequential::p(self.tested())
    }

    /// Number of rounds after which p first was at most `level`.
    pub(crate) fn decided_after(&self, level: f64) -> Option<usize> {
        sequential::decided_after(self.tested(), level)
    }

    /// Anytime-valid confidence interval of b - a.
    pub(crate) fn difference(&self, alpha: f64) -> Option<[f64; 2]> {
        sequential::interval(&self.differences, alpha)
    }

    /// Anytime-valid confidence interval of b / a.
    pub(crate) fn ratio(&self, alpha: f64) -> Option<[f64; 2]> {
        Some(sequential::interval(self.log_ratios.as_ref()?, alpha)?.map(f64::exp))
    }

    /// Standard deviation of a round's change, on the scale of the test; none from fewer than two rounds, or if they agree but for
    /// rounding.
    pub(crate) fn deviation(&self) -> Option<f64> {
        let rounding = 1e-12 * if self.is_ratio() { 1.0 } else { self.level };
        deviation(self.tested()).filter(|deviation| *deviation > rounding)
    }

    /// The smallest change that is found, if that is so many standard deviations of a round's: b / a - 1 if it is a ratio, else
    /// b - a. None as for the deviation.
    pub(crate) fn detectable(&self, deviations: f64) -> Option<f64> {
        let change = deviations * self.deviation()?;
        Some(if self.is_ratio() { change.exp_m1() } else { change })
    }
}

/// Mean of a sample; NaN of none.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Standard deviation of a sample, 0 if its values differ by no more than rounding; none from fewer than two.
pub(crate) fn deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    let is_rounding = squares <= 1e-24 * values.iter().map(|v| v * v).sum::<f64>();
    let squares = if is_rounding { 0.0 } else { squares };
    (values.len() > 1).then(|| (squares / (values.len() as f64 - 1.0)).sqrt())
}

/// `[a, b]` of every round, by statistic: the quantiles, the mean, the maximum. Parts 2r and 2r + 1 are the sides of round r, which are
/// weighted to one mix of exits if there are strata.
pub(crate) fn of_rounds(dense: &Dense, quantiles: &[f64]) -> Vec<Vec<[f64; 2]>> {
    let mut of = vec![Vec::with_capacity(dense.parts.len() / 2); quantiles.len() + 2];
    let (mut weights, mut values) = (Weights::default(), [vec![], vec![]]);
    for (parts, maxima) in dense.parts.chunks_exact(2).zip(dense.maxima.chunks_exact(2)) {
        let [a, b] = [CountsView::of(&parts[0]), CountsView::of(&parts[1])];
        weights.set(a, b, dense.strata);
        for (values, (view, weights)) in values.iter_mut().zip([(a, &weights.a), (b, &weights.b)]) {
            values.clear();
            values.resize(quantiles.len() + 1, f64::NAN);
            dense.values(view, weights, quantiles, values);
        }
        let maxima = [maxima[0], maxima[1]];
        for (at, of) in of.iter_mut().enumerate() {
            of.push(if at > quantiles.len() { maxima } else { [values[0][at], values[1][at]] });
        }
    }
    of
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_without_a_value_on_a_side_are_left_out_and_zeros_have_no_ratio() {
        let of = |values: &[[f64; 2]]| Pairs::of(values, Unit::Ns);
        let pairs = of(&[[1.0, 2.0], [f64::NAN, 3.0], [2.0, 1.0]]);
        assert_eq!(pairs.differences, [1.0, -1.0]);
        assert!(pairs.is_ratio() && pairs.tested() == [2f64.ln(), 0.5f64.ln()]);
        let zero = of(&[[0.0, 2.0], [0.0, 4.0]]);
        assert!(!zero.is_ratio() && zero.ratio(0.05).is_none());
        assert_eq!((of(&[[1.0, 2.0]]).deviation(), zero.deviation()), (None, Some(2f64.sqrt())));
    }

    #[test]
    fn a_share_changes_by_percentage_points_in_its_test_too() {
        let share = Pairs::of(&[[0.1, 0.2], [0.4, 0.5]], Unit::Share);
        assert!(!share.is_ratio() && share.tested() == share.differences);
        assert!(share.deviation().is_none(), "both rounds change by 10 points");
        assert!(Pairs::of(&[[0.1, 0.2], [0.4, 0.5]], Unit::Count).deviation().unwrap() > 0.3);
    }

    #[test]
    fn a_deviation_that_is_only_rounding_is_none() {
        let sum = 0.1 + 0.2;
        assert_eq!(
            (deviation(&[sum, 0.3, sum]), deviation(&[1.0, 3.0]), deviation(&[1.0])),
            (Some(0.0), Some(2f64.sqrt()), None)
        );
        let agreeing = Pairs::of(&[[1000.0, 1000.0 + 1e-10], [1000.0, 1000.0]], Unit::Ns);
        assert_eq!((agreeing.deviation(), agreeing.detectable(2.0)), (None, None));
    }

    #[test]
    fn a_detectable_ratio_is_that_of_the_logarithms() {
        // Each round is four times or a quarter: in logarithms, sqrt(2) ln 4.
        let pairs = Pairs::of(&[[1.0, 4.0], [4.0, 1.0]], Unit::Ns);
        assert!((pairs.detectable(1.0).unwrap() - (2f64.sqrt() * 4f64.ln()).exp_m1()).abs() < 1e-12);
    }

    #[test]
    fn every_round_has_both_sides_means() {
        let dense = Dense::ratio([(3.0, 1.0), (8.0, 2.0), (0.0, 0.0), (1.0, 1.0)].into_iter());
        let of = of_rounds(&dense, &[]);
        assert_eq!(of[0][0], [3.0, 4.0]);
        assert!(of[0][1][0].is_nan() && of[0][1][1] == 1.0);
    }
}
