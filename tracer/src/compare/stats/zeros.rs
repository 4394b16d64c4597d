//! The exact test of a structural zero: events that one side never has.

use super::dense::{CountsView, Dense};
use crate::{compare::windows::Arm, model::number::truncated_u64, output::grouped};

/// Events that count as one at least, however regular they look: those of neighbouring entries depend on each other.
const LEAST_CLUSTER: f64 = 10.0;

/// A side without any event, against one that has some.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Zero {
    /// p of the exact test, two-sided
    pub p: f64,
    /// 95 % confidence interval of b - a
    pub difference: [f64; 2],
    /// counts for the reader
    pub text: String,
}

/// Events of a side, and its entries or seconds, by window.
#[derive(Default)]
struct Events {
    windows: Vec<[f64; 2]>,
}

impl Events {
    fn sum(&self) -> f64 {
        self.windows.iter().map(|[events, _]| events).sum()
    }

    fn exposure(&self) -> f64 {
        self.windows.iter().map(|[_, exposure]| exposure).sum()
    }

    /// How many events count as one: Pearson's index of dispersion of the windows, as in the design effect of clustered counts (Rao and
    /// Scott, Statistics in Medicine 18, 1999). All of them if there is one window.
    fn cluster(&self) -> f64 {
        let rate = self.sum() / self.exposure();
        let excess = |[events, exposure]: &[f64; 2]| (events - rate * exposure).powi(2) / (rate * exposure);
        match self.windows.len() {
            0 | 1 => self.sum(),
            n => self.windows.iter().map(excess).sum::<f64>() / (n as f64 - 1.0),
        }
        .max(LEAST_CLUSTER)
    }
}

/// The structural zero of a count or a rate; none if both sides have events, or neither has. If events were as frequent on both sides,
/// each cluster of them would have fallen on a side by that side's share of the entries, or of the time.
pub(crate) fn of(windows: &Dense, arms: &[Arm]) -> Option<Zero> {
    let mut sides = [Events::default(), Events::default()];
    for (counts, arm) in windows.parts.iter().zip(arms) {
        let view = CountsView::of(counts);
        let strata = 0..windows.strata;
        let [events, exposure] = [strata.clone().map(|s| view.sum(s)).sum(), strata.map(|s| view.n(s)).sum::<f64>()];
        // A window without entries could not have had any event.
        if exposure > 0.0 {
            sides[usize::from(*arm == Arm::B)].windows.push([events, exposure]);
        }
    }
    let [a, b] = &sides;
    let (zero, other, sign) = match (a.sum() > 0.0, b.sum() > 0.0) {
        (false, true) => (a, b, 1.0),
        (true, false) => (b, a, -1.0),
        _ => return None,
    };
    let (exposure, without) = (other.exposure(), zero.exposure());
    if without <= 0.0 {
        return None;
    }
    let cluster = other.cluster();
    let clusters = (other.sum() / cluster).floor();
    // Below the smallest number it is still no impossibility.
    let p = (2.0 * (exposure / (exposure + without)).powf(clusters)).clamp(f64::MIN_POSITIVE, 1.0);
    // ln(1 / 0.025) clusters more would have been seen.
    let at_most = 3.69 * cluster / without;
    let [low, high] = poisson(clusters).map(|n| n * cluster / exposure);
    // The bounds of both sides together (MOVER: Zou and Donner, Statistics in Medicine 27, 2008).
    let rate = other.sum() / exposure;
    let bounds = [rate - (rate - low).hypot(at_most), high].map(|bound| sign * bound);
    let of = |side: &Events| format!("{} events", grouped(truncated_u64(side.sum())));
    let text = format!("exact test: {} of A, {} of B, of which {cluster:.0} count as one", of(a), of(b));
    Some(Zero { p, difference: [bounds[0].min(bounds[1]), bounds[0].max(bounds[1])], text })
}

/// 95 % confidence interval of a Poisson mean, by Wilson and Hilferty's approximation of the exact one (Breslow and Day 1987, 2.10).
fn poisson(n: f64) -> [f64; 2] {
    let bound = |n: f64, z: f64| n * (1.0 - 1.0 / (9.0 * n) + z / (3.0 * n.sqrt())).powi(3);
    [if n > 0.0 { bound(n, -1.96).max(0.0) } else { 0.0 }, bound(n + 1.0, 1.96)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zero(of_a: &[f64], of_b: &[f64]) -> Option<Zero> {
        let windows = Dense::ratio(of_a.iter().chain(of_b).map(|events| (*events, 1000.0)));
        let arms: Vec<_> = of_a.iter().map(|_| Arm::A).chain(of_b.iter().map(|_| Arm::B)).collect();
        of(&windows, &arms)
    }

    #[test]
    fn thousands_of_events_in_every_window_against_none_are_no_chance() {
        let many = zero(&[0.0; 3], &[800.0, 830.0, 790.0]).unwrap();
        assert!(many.p < 1e-9, "{many:?}");
        let [low, high] = many.difference;
        assert!(0.6 < low && low < 0.8 && 0.82 < high && high < 1.0, "{low} {high}");
        assert_eq!(many.text, "exact test: 0 events of A, 2,420 events of B, of which 10 count as one");
        let mirrored = zero(&[800.0, 830.0, 790.0], &[0.0; 3]).unwrap();
        assert_eq!((mirrored.p, mirrored.difference), (many.p, [-high, -low]));
        assert!(zero(&[0.0; 3], &[80_000.0; 3]).unwrap().p > 0.0);
    }

    #[test]
    fn one_burst_is_chance_and_so_are_few_events() {
        assert!(zero(&[0.0; 5], &[0.0, 0.0, 5000.0, 0.0, 0.0]).unwrap().p > 0.5);
        assert!(zero(&[0.0; 5], &[1.0, 2.0, 0.0, 1.0, 1.0]).unwrap().p > 0.5);
        assert!(zero(&[0.0], &[5000.0]).unwrap().p > 0.5, "one window may be a burst");
    }

    #[test]
    fn events_on_both_sides_or_on_neither_are_no_structural_zero() {
        assert_eq!(zero(&[0.0; 4], &[0.0; 4]), None);
        assert_eq!(zero(&[0.0, 1.0], &[5.0, 5.0]), None);
        assert_eq!(zero(&[], &[5.0, 5.0]), None);
    }

    #[test]
    fn bounds_of_a_count_are_those_of_the_tables() {
        // Garwood's exact limits of 10: 4.80 and 18.39; of 0: 0 and 3.69.
        let [low, high] = poisson(10.0);
        assert!((low - 4.80).abs() < 0.02 && (high - 18.39).abs() < 0.02, "{low} {high}");
        assert!((poisson(0.0)[1] - 3.69).abs() < 0.1);
    }
}
