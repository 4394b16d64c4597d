//! The values of both sides in every round of an experiment.

use super::{
    dense::{CountsView, Dense, Weights},
    sequential,
};

/// One statistic of the rounds that have a value on both sides, in the order of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pairs {
    /// b - a
    pub differences: Vec<f64>,
    /// ln(b / a); none unless both sides are above 0 in all of these rounds
    pub log_ratios: Option<Vec<f64>>,
}

impl Pairs {
    /// The pairs of `[a, b]`; those with NaN are left out.
    pub(crate) fn of(values: &[[f64; 2]]) -> Self {
        let known: Vec<_> = values.iter().filter(|pair| pair.iter().all(|v| v.is_finite())).collect();
        let log_ratios: Vec<f64> = known.iter().map(|[a, b]| (b / a).ln()).collect();
        let have_ratios = known.iter().all(|[a, b]| *a > 0.0 && *b > 0.0);
        Self { differences: known.iter().map(|[a, b]| b - a).collect(), log_ratios: have_ratios.then_some(log_ratios) }
    }

    /// The scale of the test: ratios where there are any, because rounds then differ by their level, too.
    fn tested(&self) -> &[f64] {
        self.log_ratios.as_ref().unwrap_or(&self.differences)
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

    /// Standard deviation of a round's difference; none from fewer than two.
    pub(crate) fn deviation(&self) -> Option<f64> {
        deviation(&self.differences)
    }
}

/// Standard deviation of a sample; none from fewer than two values.
pub(crate) fn deviation(values: &[f64]) -> Option<f64> {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt())
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
        let pairs = Pairs::of(&[[1.0, 2.0], [f64::NAN, 3.0], [2.0, 1.0]]);
        assert_eq!(pairs.differences, [1.0, -1.0]);
        assert_eq!(pairs.log_ratios, Some(vec![2f64.ln(), 0.5f64.ln()]));
        assert_eq!(Pairs::of(&[[0.0, 2.0], [1.0, 2.0]]).log_ratios, None);
        assert_eq!(
            (Pairs::of(&[[1.0, 2.0]]).deviation(), Pairs::of(&[[0.0, 2.0], [0.0, 4.0]]).deviation()),
            (None, Some(2f64.sqrt()))
        );
    }

    #[test]
    fn every_round_has_both_sides_means() {
        let dense = Dense::ratio([(3.0, 1.0), (8.0, 2.0), (0.0, 0.0), (1.0, 1.0)].into_iter());
        let of = of_rounds(&dense, &[]);
        assert_eq!(of[0][0], [3.0, 4.0]);
        assert!(of[0][1][0].is_nan() && of[0][1][1] == 1.0);
    }
}
