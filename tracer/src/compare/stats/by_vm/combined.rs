//! Random-effects meta-analysis: DerSimonian and Laird (1986) for the spread of the true effects; Hartung and Knapp (2001), Sidik and
//! Jonkman (2002) for the interval, because there are few VMs and the usual one is too narrow then.

use super::{super::student, LEVEL};

/// An effect that was measured with an error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Study {
    pub(super) effect: f64,
    /// square of the effect's standard error; 0 if it was the same each time
    pub(super) variance: f64,
}

/// Studies together.
#[derive(Clone, Debug)]
pub(super) struct Pooled {
    /// weight of each study; their sum is 1
    pub(super) weights: Vec<f64>,
    /// the mean effect
    pub(super) mean: f64,
    /// half the 95 % confidence interval of `mean`
    pub(super) half: f64,
    /// variance of the true effects
    pub(super) tau_squared: f64,
    /// share of the effects' spread that is not chance, 0..1
    pub(super) i_squared: f64,
}

/// The mean effect of studies; none of fewer than two.
pub(super) fn pool(studies: &[Study]) -> Option<Pooled> {
    let k = studies.len();
    if k < 2 {
        return None;
    }
    let df = k as f64 - 1.0;
    // An effect without error would have all the weight: then all studies weigh the same.
    let has_errors = studies.iter().all(|s| s.variance > 0.0);
    let [tau_squared, i_squared] = if has_errors { by_weight(studies, df) } else { by_number(studies, df) };
    let weight = |s: &Study| if has_errors { 1.0 / (s.variance + tau_squared) } else { 1.0 };
    let all: f64 = studies.iter().map(weight).sum();
    let weights: Vec<f64> = studies.iter().map(|s| weight(s) / all).collect();
    let mean: f64 = weights.iter().zip(studies).map(|(w, s)| w * s.effect).sum();
    let spread: f64 = weights.iter().zip(studies).map(|(w, s)| w * (s.effect - mean).powi(2)).sum::<f64>() / df;
    let half = student::critical(df, LEVEL) * spread.sqrt();
    Some(Pooled { weights, mean, half, tau_squared, i_squared })
}

/// tau^2 and I^2 of DerSimonian and Laird, and of Higgins and Thompson (2002).
fn by_weight(studies: &[Study], df: f64) -> [f64; 2] {
    let weights = || studies.iter().map(|s| 1.0 / s.variance);
    let (sum, squares) = (weights().sum::<f64>(), weights().map(|w| w * w).sum::<f64>());
    let mean = weights().zip(studies).map(|(w, s)| w * s.effect).sum::<f64>() / sum;
    let q: f64 = weights().zip(studies).map(|(w, s)| w * (s.effect - mean).powi(2)).sum();
    let beyond = (q - df).max(0.0);
    [beyond / (sum - squares / sum), if beyond > 0.0 { beyond / q } else { 0.0 }]
}

/// The same of studies with equal weights (Hedges and Olkin 1985).
fn by_number(studies: &[Study], df: f64) -> [f64; 2] {
    let mean_of = |of: &dyn Fn(&Study) -> f64| studies.iter().map(of).sum::<f64>() / (df + 1.0);
    let (mean, error) = (mean_of(&|s| s.effect), mean_of(&|s| s.variance));
    let spread = studies.iter().map(|s| (s.effect - mean).powi(2)).sum::<f64>() / df;
    // Effects that are the same but for rounding.
    let spread = if spread <= 1e-24 * mean * mean { 0.0 } else { spread };
    let tau_squared = (spread - error).max(0.0);
    [tau_squared, if tau_squared > 0.0 { tau_squared / spread } else { 0.0 }]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// BCG against tuberculosis (Colditz et al. 1994; as in Viechtbauer 2010, J Stat Softw 36(3)): persons with and without
    /// tuberculosis of the vaccinated, and of the others.
    const BCG: [[f64; 4]; 13] = [
        [4.0, 119.0, 11.0, 128.0],
        [6.0, 300.0, 29.0, 274.0],
        [3.0, 228.0, 11.0, 209.0],
        [62.0, 13_536.0, 248.0, 12_619.0],
        [33.0, 5036.0, 47.0, 5761.0],
        [180.0, 1361.0, 372.0, 1079.0],
        [8.0, 2537.0, 10.0, 619.0],
        [505.0, 87_886.0, 499.0, 87_892.0],
        [29.0, 7470.0, 45.0, 7232.0],
        [17.0, 1699.0, 65.0, 1600.0],
        [186.0, 50_448.0, 141.0, 27_197.0],
        [5.0, 2493.0, 3.0, 2338.0],
        [27.0, 16_886.0, 29.0, 17_825.0],
    ];

    #[test]
    fn the_textbook_example_gives_the_published_numbers() {
        // Log relative risks and their sampling variances.
        let study = |[a, b, c, d]: [f64; 4]| Study {
            effect: (a / (a + b) / (c / (c + d))).ln(),
            variance: 1.0 / a - 1.0 / (a + b) + 1.0 / c - 1.0 / (c + d),
        };
        let pooled = pool(&BCG.map(study)).unwrap();
        // DerSimonian and Laird: tau^2 0.3088, I^2 92.12 %, mean -0.7141 (Viechtbauer 2010).
        for (is, published) in [(pooled.tau_squared, 0.3088), (pooled.i_squared, 0.9212), (pooled.mean, -0.7141)] {
            assert!((is - published).abs() < 5e-5, "{is} not {published}");
        }
        // The formula of Hartung and Knapp by itself: standard error 0.1807 on 12 degrees of freedom.
        let [low, high] = [pooled.mean - pooled.half, pooled.mean + pooled.half];
        assert!((low + 1.1078).abs() < 1e-4 && (high + 0.3204).abs() < 1e-4, "[{low}, {high}]");
        assert!((pooled.weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn studies_of_one_precision_have_the_interval_of_their_effects() {
        let effects = [3.0, 5.0, 4.0, 8.0];
        let pooled = |variance| pool(&effects.map(|effect| Study { effect, variance })).unwrap();
        // Student's t on 3 degrees of freedom: 3.182446; mean 5, standard deviation 2.160247.
        for pooled in [pooled(0.7), pooled(0.0)] {
            assert!((pooled.mean - 5.0).abs() < 1e-12 && (pooled.half - 3.437_413).abs() < 1e-3, "{pooled:?}");
        }
        assert!((pooled(0.7).tau_squared - (14.0 / 3.0 - 0.7)).abs() < 1e-9, "{:?}", pooled(0.7));
        assert!((pooled(0.0).tau_squared - 14.0 / 3.0).abs() < 1e-9 && pooled(0.0).i_squared == 1.0);
    }

    #[test]
    fn effects_that_are_the_same_each_time_and_everywhere_do_not_differ() {
        let pooled = pool(&[Study { effect: 2.0, variance: 0.0 }; 3]).unwrap();
        assert_eq!((pooled.mean, pooled.half, pooled.tau_squared, pooled.i_squared), (2.0, 0.0, 0.0, 0.0));
        assert!(pool(&[Study { effect: 2.0, variance: 1.0 }]).is_none());
    }
}
