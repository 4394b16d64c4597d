//! Axes: the places of values, and round numbers for ticks.

use crate::model::{
    figures::Unit,
    number::{truncated_i32, truncated_usize},
};

/// A range of values along an edge of a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Axis {
    low: f64,
    high: f64,
    log: bool,
}

impl Axis {
    /// Equal differences are equal distances. An empty or infinite range becomes one that can be drawn.
    pub(crate) fn linear(low: f64, high: f64) -> Self {
        let (low, high) = if low.is_finite() && high.is_finite() { (low, high) } else { (0.0, 1.0) };
        let high = if high > low { high } else { low + if low == 0.0 { 1.0 } else { low.abs() } };
        Self { low, high, log: false }
    }

    /// Equal ratios are equal distances.
    pub(crate) fn log(low: f64, high: f64) -> Self {
        let low = if low.is_finite() { low.max(1e-9) } else { 1.0 };
        let high = if high.is_finite() && high > low { high } else { low * 2.0 };
        Self { low, high, log: true }
    }

    /// Place of a value, 0..1 from the low to the high end; values beyond an end are at the end.
    pub(crate) fn share(&self, value: f64) -> f64 {
        let share = if self.log {
            (value.max(1e-9) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
    }

    /// Value at a place: the inverse of [`Axis::share`].
    pub(crate) fn value(&self, share: f64) -> f64 {
        if self.log { self.low * (self.high / self.low).powf(share) } else { self.low + (self.high - self.low) * share }
    }

    /// Round values within the range, about `wanted` of them, and at least two if the range has them.
    pub(crate) fn ticks(&self, wanted: usize) -> Vec<f64> {
        let inside = |v: &f64| *v >= self.low * (1.0 - 1e-9) - 1e-12 && *v <= self.high * (1.0 + 1e-9) + 1e-12;
        if !self.log {
            return self.linear_ticks(wanted).into_iter().filter(inside).collect();
        }
        let (first, last) = (truncated_i32(self.low.log10().floor()), truncated_i32(self.high.log10().ceil()));
        for steps in [&[1.0, 2.0, 5.0][..], &[1.0, 3.0], &[1.0]] {
            let decades = (first..=last).flat_map(|d| steps.iter().map(move |s| s * 10f64.powi(d)));
            let ticks: Vec<_> = decades.filter(inside).collect();
            if ticks.len() <= wanted {
                return if ticks.len() >= 2 {
                    ticks
                } else {
                    self.linear_ticks(wanted).into_iter().filter(inside).collect()
                };
            }
        }
        let decades: Vec<_> = (first..=last).map(|d| 10f64.powi(d)).filter(inside).collect();
        let every = decades.len().div_ceil(wanted.max(1));
        decades.into_iter().step_by(every).collect()
    }

    fn linear_ticks(&self, wanted: usize) -> Vec<f64> {
        let rough = (self.high - self.low) / wanted.max(1) as f64;
        let magnitude = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|s| s * magnitude).into_iter().find(|s| *s >= rough).unwrap_or(rough);
        let first = (self.low / step).ceil();
        let count = truncated_usize((self.high / step).floor() - first) + 1;
        (0..count.min(100)).map(|n| (first + n as f64) * step).collect()
    }
}

/// A tick's value in short: "20us", "1.5k".
pub(crate) fn label(value: f64, unit: Unit) -> String {
    let (scale, suffix) = match (unit, value.abs() * 1.000_001) {
        (Unit::Ns, v) if v < 1e3 => (1.0, "ns"),
        (Unit::Ns, v) if v < 1e6 => (1e3, "us"),
        (Unit::Ns, v) if v < 1e9 => (1e6, "ms"),
        (Unit::Ns, _) => (1e9, "s"),
        (_, v) if v < 1e4 => (1.0, ""),
        (_, v) if v < 1e6 => (1e3, "k"),
        (_, v) if v < 1e9 => (1e6, "M"),
        _ => (1e9, "G"),
    };
    // A tick that is not 0 does not read 0.
    let scaled = value / scale;
    let small = if scaled != 0.0 && scaled.abs() < 0.1 { truncated_usize((-scaled.abs().log10()).ceil()) } else { 0 };
    let text = format!("{scaled:.*}", (2 + small).clamp(3, 12));
    let text = text.trim_end_matches('0').trim_end_matches('.');
    let text = if text == "-0" { "0" } else { text };
    format!("{text}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_values_are_inverse() {
        for axis in [Axis::linear(-3.0, 9.0), Axis::log(10.0, 1e7)] {
            for share in [0.0, 0.2, 0.5, 1.0] {
                assert!((axis.share(axis.value(share)) - share).abs() < 1e-9);
            }
        }
        assert_eq!(Axis::log(10.0, 1000.0).share(0.0), 0.0);
        assert_eq!(Axis::linear(0.0, 0.0).share(f64::NAN), 0.0);
    }

    #[test]
    fn ticks_are_round_few_and_inside() {
        assert_eq!(Axis::log(3.0, 2e6).ticks(8), [10.0, 100.0, 1e3, 1e4, 1e5, 1e6]);
        assert_eq!(Axis::log(90.0, 600.0).ticks(8), [100.0, 200.0, 500.0]);
        assert_eq!(Axis::linear(0.0, 10.0).ticks(5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        for axis in [Axis::log(1.0, 1e19), Axis::log(5.1, 5.2), Axis::linear(-1e-7, 1e-7), Axis::linear(7.0, 7.0)] {
            let ticks = axis.ticks(6);
            assert!((2..=8).contains(&ticks.len()), "{axis:?} {ticks:?}");
        }
    }

    #[test]
    fn labels_are_short() {
        let ns = [500.0, 1000.0, 2e6, 1.5e9, 0.0, -200.0].map(|v| label(v, Unit::Ns));
        assert_eq!(ns, ["500ns", "1us", "2ms", "1.5s", "0ns", "-200ns"]);
        let counts = [0.0, 0.25, 2000.0, 20_000.0, 3e6].map(|v| label(v, Unit::Count));
        assert_eq!(counts, ["0", "0.25", "2000", "20k", "3M"]);
        let small = [0.0005, 0.001, 0.000_012_5, 0.05, 1e-9].map(|v| label(v, Unit::Count));
        assert_eq!(small, ["0.0005", "0.001", "0.0000125", "0.05", "0.000000001"]);
    }
}
