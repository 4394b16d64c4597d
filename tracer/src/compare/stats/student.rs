//! Student's t distribution, central and noncentral, for power and minimum detectable effects. By hand: no small crate has the
//! noncentral one.

use std::f64::consts::{FRAC_1_SQRT_2, LN_2};

/// Steps of the integration over the estimated spread; even.
const STEPS: usize = 100;

fn normal_cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x * FRAC_1_SQRT_2)
}

/// The distribution of (Z + shift) / S with S^2 = chi^2 / df: a difference in units of its estimated standard error, if the true
/// difference is `shift` true standard errors.
struct Law {
    /// values of S and their weights, by Simpson's rule; good to 1e-7 for df >= 2
    spreads: Vec<(f64, f64)>,
}

impl Law {
    fn new(df: f64) -> Self {
        let df = df.clamp(1.0, 1e6);
        // Density of S: 2 (df/2)^(df/2) / gamma(df/2) s^(df-1) exp(-df s^2 / 2).
        let scale = LN_2 + df / 2.0 * (df / 2.0).ln() - libm::lgamma(df / 2.0);
        let density = |s: f64| match (s > 0.0, df > 1.0) {
            (false, true) => 0.0,
            (false, false) => scale.exp(),
            (true, _) => (scale + (df - 1.0) * s.ln() - df * s * s / 2.0).exp(),
        };
        let spread = (0.5 / df).sqrt();
        let (from, to) = ((1.0 - 9.0 * spread).max(0.0), 1.0 + 9.0 * spread);
        let step = (to - from) / STEPS as f64;
        let node = |i: usize| {
            let s = from + i as f64 * step;
            let weight = if i == 0 || i == STEPS { 1.0 } else { (2 + 2 * (i % 2)) as f64 };
            (s, weight * step / 3.0 * density(s))
        };
        Self { spreads: (0..=STEPS).map(node).collect() }
    }

    /// P(T <= t).
    fn cdf(&self, t: f64, shift: f64) -> f64 {
        self.spreads.iter().map(|(s, weight)| weight * normal_cdf(t * s - shift)).sum::<f64>().clamp(0.0, 1.0)
    }

    /// The t that |T| stays below with chance `1 - level` without a difference.
    fn critical(&self, level: f64) -> f64 {
        let wanted = 1.0 - level.clamp(1e-12, 1.0) / 2.0;
        let mut high = 2.0;
        while self.cdf(high, 0.0) < wanted && high < 1e6 {
            high *= 2.0;
        }
        solve(wanted, 0.0, high, |t| self.cdf(t, 0.0))
    }

    /// The chance of |T| beyond `critical`.
    fn beyond(&self, critical: f64, shift: f64) -> f64 {
        // Beyond this the power is 1, and the integration runs out of digits.
        if shift > 30.0 * critical { 1.0 } else { 1.0 - self.cdf(critical, shift) + self.cdf(-critical, shift) }
    }
}

/// The x in `low..high` where an increasing function reaches `wanted`.
fn solve(wanted: f64, mut low: f64, mut high: f64, f: impl Fn(f64) -> f64) -> f64 {
    for _ in 0..34 {
        let middle = f64::midpoint(low, high);
        if f(middle) < wanted { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

/// The t that |T| exceeds with chance `level` without a difference, on `df` degrees of freedom.
pub(super) fn critical(df: f64, level: f64) -> f64 {
    Law::new(df).critical(level)
}

/// The chance that a two-sided test at `level` finds a true difference of `effect`, estimated with standard error `se` on `df`
/// degrees of freedom.
pub(super) fn power(effect: f64, se: f64, df: f64, level: f64) -> f64 {
    let law = Law::new(df);
    law.beyond(law.critical(level), effect.abs() / se)
}

/// The least true difference that a two-sided test at `level` finds with chance `power`, in standard errors.
pub(super) fn detectable(df: f64, level: f64, power: f64) -> f64 {
    let law = Law::new(df);
    let critical = law.critical(level);
    solve(power, 0.0, 10.0 * critical.max(1.0), |shift| law.beyond(critical, shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn critical_values_match_the_tables() {
        let table = [
            (0.05, 2.0, 4.302_65),
            (0.05, 5.0, 2.570_58),
            (0.05, 11.0, 2.200_99),
            (0.01, 11.0, 3.105_81),
            (0.001, 30.0, 3.645_96),
            (0.05, 1e6, 1.959_97),
        ];
        for (level, df, t) in table {
            let is = Law::new(df).critical(level);
            assert!((is / t - 1.0).abs() < 2e-5, "{level} {df}: {is} not {t}");
        }
    }

    #[test]
    fn power_matches_the_tables() {
        // Paired t test, d = 0.5 and 0.8 with n = 34 and 15: G*Power 3.1 says 0.808 and 0.821; d = 1, n = 10: 0.8031.
        for (d, n, wanted) in [(0.5, 34.0, 0.8078), (0.8, 15.0, 0.8213), (1.0, 10.0, 0.8031)] {
            let is = power(d, 1.0 / f64::sqrt(n), n - 1.0, 0.05);
            assert!((is - wanted).abs() < 2e-3, "{d} {n}: {is} not {wanted}");
        }
        assert!((power(0.0, 1.0, 11.0, 0.003) - 0.003).abs() < 1e-6);
        assert!(power(1e9, 1.0, 11.0, 0.003) > 0.999_999);
    }

    #[test]
    fn the_detectable_difference_has_the_power_asked_for() {
        for (df, level) in [(2.0, 0.05), (4.0, 0.01), (11.0, 0.003), (200.0, 0.05)] {
            assert!((power(detectable(df, level, 0.8), 1.0, df, level) - 0.8).abs() < 1e-5, "{df} {level}");
        }
    }
}
