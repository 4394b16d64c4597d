//! The results of a calibration as numbers: distributions of each exit's parts, and the cost of control writes. Pure.

use serde::Serialize;

use super::sample::{Excluded, Sample, Samples};
use crate::{guest::calibration::Step, model::policy::Policy};

/// A distribution of durations in TSC cycles.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Distribution {
    /// number of values
    pub(crate) count: u64,
    /// the smallest value
    pub(crate) floor: f64,
    /// median
    pub(crate) p50: f64,
    /// 90th percentile
    pub(crate) p90: f64,
    /// 99th percentile
    pub(crate) p99: f64,
    /// the largest value
    pub(crate) max: f64,
    /// arithmetic mean
    pub(crate) mean: f64,
}

impl Distribution {
    /// The distribution of these values; none if there are none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (floor, max) = (*sorted.first()?, *sorted.last()?);
        let at = |q: f64| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to the number of values")]
            let rank = (q * sorted.len() as f64).ceil() as usize;
            sorted[rank.clamp(1, sorted.len()) - 1]
        };
        Some(Self {
            count: sorted.len() as u64,
            floor,
            p50: at(0.50),
            p90: at(0.90),
            p99: at(0.99),
            max,
            mean: sorted.iter().sum::<f64>() / sorted.len() as f64,
        })
    }

    /// The same values multiplied by `factor`.
    pub(crate) fn scaled(&self, factor: f64) -> Self {
        Self {
            count: self.count,
            floor: self.floor * factor,
            p50: self.p50 * factor,
            p90: self.p90 * factor,
            p99: self.p99 * factor,
            max: self.max * factor,
            mean: self.mean * factor,
        }
    }
}

/// A median and its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct MedianInterval {
    /// the sample median
    pub(crate) value: f64,
    /// lower bound
    pub(crate) low: f64,
    /// upper bound
    pub(crate) high: f64,
}

impl MedianInterval {
    /// The median of repetitions, and the narrowest symmetric pair of order statistics that contains the true median with at least 95 %
    /// for any distribution (the interval of the sign test); none for fewer than six values, for which there is no such pair.
    pub(crate) fn of_median(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        // Probability that exactly `below` of n values are below the true median; `tail` is that of at most `below`.
        let mut probability = 0.5_f64.powi(i32::try_from(n).ok()?);
        let (mut below, mut tail) = (0, probability);
        if 2.0 * tail > 0.05 {
            return None;
        }
        loop {
            probability *= (n - below) as f64 / (below + 1) as f64;
            if 2.0 * (tail + probability) > 0.05 {
                break;
            }
            tail += probability;
            below += 1;
        }
        let middle = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0;
        Some(Self { value: middle, low: sorted[below], high: sorted[n - 1 - below] })
    }

    /// The same values multiplied by `factor`.
    pub(crate) fn scaled(&self, factor: f64) -> Self {
        Self { value: self.value * factor, low: self.low * factor, high: self.high * factor }
    }
}

/// The durations of one exit of the guest, in TSC cycles.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExitCost {
    /// name of the exit, e.g. "cpuid"
    pub(crate) exit: &'static str,
    /// timer policy during the measurement
    pub(crate) policy: Policy,
    /// last stamp -> program on kvm_exit; none without samples, as all distributions below
    pub(crate) exit_latency: Option<Distribution>,
    /// host time: program on kvm_exit -> program on kvm_entry
    pub(crate) host: Option<Distribution>,
    /// VM-entry latency: program on kvm_entry -> first stamp
    pub(crate) entry_latency: Option<Distribution>,
    /// VM-entry latency of entries without a pin-control write before them
    pub(crate) clean: Option<Distribution>,
    /// VM-entry latency of entries with one
    pub(crate) dirty: Option<Distribution>,
    /// first stamp -> last stamp
    pub(crate) guest: Option<Distribution>,
    /// last stamp -> first stamp in traced runs, from the guest's list
    pub(crate) round_trip: Option<Distribution>,
    /// the same in untraced runs
    pub(crate) untraced: Option<Distribution>,
    /// mean cycles of a whole iteration in untraced runs, as kvm-unit-tests' vmexit counts
    pub(crate) per_iteration: Option<f64>,
    /// whether a round trip lasts until a timer expires, however long its parts are
    pub(crate) waits: bool,
    /// transition time (VM entry + VM exit without guest code): of entries that run no guest instruction, or by the stopwatch
    pub(crate) transition: Option<Distribution>,
    /// records that are excluded from every figure
    pub(crate) excluded: Excluded,
    /// rounds whose parts add up to the guest time within the clocks' error
    pub(crate) consistent: u64,
    /// rounds whose parts do not
    pub(crate) inconsistent: u64,
    /// the reason why there are no figures; none if there are
    pub(crate) unavailable: Option<String>,
}

/// The measurements that an [`ExitCost`] is computed from.
#[derive(Clone, Copy)]
pub(crate) struct ExitSource<'a> {
    /// samples of traced runs
    pub(crate) samples: &'a Samples,
    /// round trips of traced runs as the guest listed them, cycles; 0 if there was no exit
    pub(crate) traced: &'a [u32],
    /// round trips of untraced runs
    pub(crate) untraced: &'a [u32],
}

impl ExitCost {
    /// An exit without figures, and the reason.
    pub(crate) fn unavailable(exit: &'static str, policy: Policy, why: String) -> Self {
        let nothing = ExitSource { samples: &Samples::default(), traced: &[], untraced: &[] };
        Self { unavailable: Some(why), ..Self::of(exit, policy, nothing) }
    }

    /// Computes the distributions of an exit.
    pub(crate) fn of(exit: &'static str, policy: Policy, source: ExitSource<'_>) -> Self {
        let ExitSource { samples, traced, untraced } = source;
        let all = |f: fn(&Sample) -> f64| Distribution::of(samples.samples.iter().map(f));
        let entries = |dirty: bool| {
            let is_wanted = move |s: &&Sample| s.pin_writes.is_some_and(|writes| (writes > 0) == dirty);
            Distribution::of(samples.samples.iter().filter(is_wanted).map(|s| s.entry_latency))
        };
        let listed = |list: &[u32]| Distribution::of(list.iter().filter(|cycles| **cycles > 0).map(|c| f64::from(*c)));
        Self {
            exit,
            policy,
            exit_latency: all(|s| s.exit_latency),
            host: all(|s| s.host),
            entry_latency: all(|s| s.entry_latency),
            clean: entries(false),
            dirty: entries(true),
            guest: Distribution::of(samples.samples.iter().filter_map(|s| s.guest)),
            round_trip: listed(traced),
            untraced: listed(untraced),
            per_iteration: None,
            waits: false,
            transition: None,
            excluded: samples.excluded,
            consistent: samples.consistent,
            inconsistent: samples.inconsistent,
            unavailable: None,
        }
    }

    /// The cost of tracing: the difference of the median round trips, cycles; none if a round trip lasts until a timer expires.
    pub(crate) fn tracing(&self) -> Option<f64> {
        (!self.waits).then_some(self.round_trip?.p50 - self.untraced?.p50)
    }
}

/// The cost of a write to a control.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WriteCost {
    /// the control, as in [`Control::ALL`](tracer_common::rules::Control::ALL)
    pub(crate) control: &'static str,
    /// how the writes were caused, and which entries they are compared with
    pub(crate) how: &'static str,
    /// VM-entry latency of entries with a write before them, cycles
    pub(crate) dirty: Option<Distribution>,
    /// VM-entry latency of entries without one, cycles
    pub(crate) clean: Option<Distribution>,
    /// median over the rounds of the difference of the medians, cycles
    pub(crate) cost: Option<MedianInterval>,
    /// median over the rounds of the ratio of the medians
    pub(crate) ratio: Option<MedianInterval>,
    /// the same ratio between two groups of entries without a write, which shows the effect of chance and position
    pub(crate) control_ratio: Option<MedianInterval>,
    /// median over the rounds of the difference of untraced round trips, cycles; none if these differ in more than the write
    pub(crate) untraced: Option<MedianInterval>,
    /// number of rounds
    pub(crate) rounds: usize,
    /// entries with a write where none was expected, or the reverse; excluded from every figure
    pub(crate) unexpected: u64,
    /// records that are excluded from every figure
    pub(crate) excluded: Excluded,
    /// the reason why there are no figures; none if there are
    pub(crate) unavailable: Option<String>,
}

/// One round of an experiment: median VM-entry latencies, and median untraced round trips if these can be compared. In cycles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct CostRound {
    /// VM-entry latency of entries with a write
    pub(crate) dirty: f64,
    /// VM-entry latency of entries without one
    pub(crate) clean: f64,
    /// VM-entry latency of other entries without one, as a control
    pub(crate) control: Option<f64>,
    /// untraced round trips with and without a write
    pub(crate) untraced: Option<(f64, f64)>,
}

impl WriteCost {
    /// An experiment without figures, and the reason.
    pub(crate) fn unavailable(control: &'static str, how: &'static str, why: String) -> Self {
        Self { unavailable: Some(why), ..Self::of(control, how, &[], &[], &[]) }
    }

    /// Computes the cost from the rounds and from the VM-entry latencies of all entries.
    pub(crate) fn of(
        control: &'static str,
        how: &'static str,
        rounds: &[CostRound],
        dirty: &[f64],
        clean: &[f64],
    ) -> Self {
        Self {
            control,
            how,
            dirty: Distribution::of(dirty.iter().copied()),
            clean: Distribution::of(clean.iter().copied()),
            cost: MedianInterval::of_median(rounds.iter().map(|r| r.dirty - r.clean)),
            ratio: MedianInterval::of_median(rounds.iter().map(|r| r.dirty / r.clean)),
            control_ratio: MedianInterval::of_median(rounds.iter().filter_map(|r| Some(r.control? / r.clean))),
            untraced: MedianInterval::of_median(
                rounds.iter().filter_map(|r| r.untraced).map(|(dirty, clean)| dirty - clean),
            ),
            rounds: rounds.len(),
            unexpected: 0,
            excluded: Excluded::default(),
            unavailable: None,
        }
    }
}

/// VM-entry latencies after the exits of a step, of the samples that `is_wanted` accepts.
pub(crate) fn entries_after(samples: &[Sample], step: Step, is_wanted: impl Fn(&Sample) -> bool) -> Vec<f64> {
    samples.iter().filter(|s| s.step == step && is_wanted(s)).map(|s| s.entry_latency).collect()
}

/// The median; none if there are no values.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    Distribution::of(values).map(|d| d.p50)
}

/// The mean of the medians of two groups whose values differ; none if a group is empty.
pub(crate) fn mean_of_medians(a: &[f64], b: &[f64]) -> Option<f64> {
    Some((median(a.iter().copied())? + median(b.iter().copied())?) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_of_the_distribution() {
        let d = Distribution::of((1..=100).rev().map(f64::from)).unwrap();
        assert_eq!((d.count, d.floor, d.p50, d.p90, d.p99, d.max, d.mean), (100, 1.0, 50.0, 90.0, 99.0, 100.0, 50.5));
        assert_eq!(Distribution::of([]), None);
        assert_eq!(d.scaled(2.0).p90, 180.0);
    }

    #[test]
    fn the_interval_of_a_median_is_that_of_the_sign_test() {
        // The 3rd and the 10th of 12 values contain it with 96.1 %, the 4th and the 9th with only 85.4 %.
        let i = MedianInterval::of_median((1..=12).map(f64::from)).unwrap();
        assert_eq!((i.value, i.low, i.high), (6.5, 3.0, 10.0));
        let six = MedianInterval::of_median((1..=6).map(f64::from)).unwrap();
        assert_eq!((six.low, six.high), (1.0, 6.0));
        assert_eq!(MedianInterval::of_median((1..=5).map(f64::from)), None, "five values have no such interval");
    }

    #[test]
    fn the_interval_contains_the_median_as_often_as_claimed() {
        let mut random = crate::compare::random::Random::new(7);
        let contained = (0..4000)
            .filter(|_| {
                // A skewed distribution with median 1/4: the square of a uniform value.
                let values = (0..12).map(|_| (random.below(1 << 20) as f64 / f64::from(1 << 20)).powi(2));
                let i = MedianInterval::of_median(values).unwrap();
                i.low <= 0.25 && 0.25 <= i.high
            })
            .count();
        assert!((3800..3900).contains(&contained), "{contained} of 4000, expected 96.1 %");
    }

    #[test]
    fn a_write_that_adds_a_hundred_cycles_costs_a_hundred_cycles() {
        let round = |n: u32| CostRound {
            dirty: 300.0 + f64::from(n),
            clean: 200.0 + f64::from(n),
            control: Some(200.0 + f64::from(n)),
            untraced: Some((1100.0, 1000.0)),
        };
        let rounds: Vec<_> = (0..12).map(round).collect();
        let cost = WriteCost::of("pin", "", &rounds, &[300.0], &[200.0]);
        assert_eq!(cost.cost.unwrap(), MedianInterval { value: 100.0, low: 100.0, high: 100.0 });
        let ratio = cost.ratio.unwrap();
        assert!(ratio.low < ratio.value && (1.48..1.50).contains(&ratio.value), "{ratio:?}");
        assert_eq!(cost.control_ratio.unwrap().value, 1.0);
        assert_eq!(cost.untraced.unwrap().value, 100.0);
        assert_eq!(WriteCost::of("pin", "", &rounds[..5], &[], &[]).cost, None, "too few rounds for an interval");
    }
}
