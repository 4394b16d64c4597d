//! What a calibration found, as numbers: distributions of each exit's parts, and what a control write costs. Pure.

use serde::Serialize;

use super::sample::{Apart, Sample, Samples};
use crate::{guest::calibration::Step, model::policy::Policy};

/// A distribution of durations in TSC cycles.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Distribution {
    /// number of values
    pub count: u64,
    /// the least
    pub floor: f64,
    /// median
    pub p50: f64,
    /// 90 % are not above
    pub p90: f64,
    /// 99 % are not above
    pub p99: f64,
    /// the largest
    pub max: f64,
    /// arithmetic mean
    pub mean: f64,
}

impl Distribution {
    /// Of these values; none of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (floor, max) = (*sorted.first()?, *sorted.last()?);
        let at = |q: f64| sorted[((q * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len()) - 1];
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

    /// The same in another unit.
    pub fn scaled(&self, factor: f64) -> Self {
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

/// A value and bounds that hold it with 95 % at least.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// the median
    pub value: f64,
    /// lower bound
    pub low: f64,
    /// upper bound
    pub high: f64,
}

impl Interval {
    /// The median of repetitions, with the order statistics that hold the true one with 95 % whatever the distribution (the sign
    /// test's interval); none of fewer than six, of which no two bounds do.
    pub fn of_median(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        // Chance that at most `below` of n lie under the median.
        let mut chance = 0.5_f64.powi(i32::try_from(n).ok()?);
        let (mut below, mut tail) = (0, chance);
        if 2.0 * tail > 0.05 {
            return None;
        }
        loop {
            chance *= (n - below) as f64 / (below + 1) as f64;
            if 2.0 * (tail + chance) > 0.05 {
                break;
            }
            tail += chance;
            below += 1;
        }
        let middle = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0;
        Some(Self { value: middle, low: sorted[below], high: sorted[n - 1 - below] })
    }

    /// The same in another unit.
    pub fn scaled(&self, factor: f64) -> Self {
        Self { value: self.value * factor, low: self.low * factor, high: self.high * factor }
    }
}

/// What one exit of the guest takes.
#[derive(Clone, Debug, PartialEq)]
pub struct ExitCost {
    /// name of the exit, e.g. "cpuid"
    pub exit: &'static str,
    /// timer policy meanwhile
    pub policy: Policy,
    /// last stamp -> program on kvm_exit
    pub exit_latency: Option<Distribution>,
    /// program on kvm_exit -> program on kvm_entry
    pub host: Option<Distribution>,
    /// program on kvm_entry -> first stamp
    pub entry_latency: Option<Distribution>,
    /// of those, entries without a pin-control write before them
    pub clean: Option<Distribution>,
    /// entries with one
    pub dirty: Option<Distribution>,
    /// between the guest's stamps
    pub guest: Option<Distribution>,
    /// stamp -> stamp while it was traced, by the guest's own list
    pub round_trip: Option<Distribution>,
    /// the same without any program
    pub untraced: Option<Distribution>,
    /// cycles an iteration of the guest takes without any program, whole: as kvm-unit-tests' vmexit counts
    pub per_iteration: Option<f64>,
    /// a round trip lasts until a timer comes, however long its parts are
    pub waits: bool,
    /// VM entry and VM exit where no guest instruction runs, or by the stopwatch
    pub transition: Option<Distribution>,
    /// records that are in no figure
    pub apart: Apart,
    /// rounds whose parts add up to entry_to_exit within the clocks' error, and those whose parts do not
    pub consistent: u64,
    /// see above
    pub inconsistent: u64,
    /// why there are no figures
    pub unavailable: Option<String>,
}

impl ExitCost {
    /// An exit without figures, and why.
    pub fn unavailable(exit: &'static str, policy: Policy, why: String) -> Self {
        Self { unavailable: Some(why), ..Self::of(exit, policy, &Samples::default(), &[], &[]) }
    }

    /// From the samples of traced runs and the guest's own lists, traced and not.
    pub fn of(exit: &'static str, policy: Policy, found: &Samples, traced: &[u32], untraced: &[u32]) -> Self {
        let all = |f: fn(&Sample) -> f64| Distribution::of(found.samples.iter().map(f));
        let entries = |dirty: bool| {
            let of_kind = move |s: &&Sample| s.pin_writes.is_some_and(|writes| (writes > 0) == dirty);
            Distribution::of(found.samples.iter().filter(of_kind).map(|s| s.entry_latency))
        };
        // 0 says that there was no such exit.
        let listed = |list: &[u32]| Distribution::of(list.iter().filter(|cycles| **cycles > 0).map(|c| f64::from(*c)));
        Self {
            exit,
            policy,
            exit_latency: all(|s| s.exit_latency),
            host: all(|s| s.host),
            entry_latency: all(|s| s.entry_latency),
            clean: entries(false),
            dirty: entries(true),
            guest: Distribution::of(found.samples.iter().filter_map(|s| s.guest)),
            round_trip: listed(traced),
            untraced: listed(untraced),
            per_iteration: None,
            waits: false,
            transition: None,
            apart: found.apart,
            consistent: found.consistent,
            inconsistent: found.inconsistent,
            unavailable: None,
        }
    }

    /// What tracing adds to a round trip at the median, cycles; none where the round trip ends when a timer comes.
    pub fn tracing(&self) -> Option<f64> {
        (!self.waits).then_some(self.round_trip?.p50 - self.untraced?.p50)
    }
}

/// What a write to a control costs.
#[derive(Clone, Debug, PartialEq)]
pub struct WriteCost {
    /// the control, as in [`Control::ALL`](tracer_common::rules::Control::ALL)
    pub control: &'static str,
    /// how the writes were caused, and what the entries without one are
    pub how: &'static str,
    /// entry_latency of entries with a write before them
    pub dirty: Option<Distribution>,
    /// without
    pub clean: Option<Distribution>,
    /// difference of the medians, by round, cycles
    pub cost: Option<Interval>,
    /// ratio of the medians, by round
    pub ratio: Option<Interval>,
    /// ratio of entries without a write against others without one: what chance and position do
    pub control_ratio: Option<Interval>,
    /// difference of untraced round trips, by round, cycles; none where these differ in more than the write
    pub untraced: Option<Interval>,
    /// rounds
    pub rounds: usize,
    /// entries that were expected to be dirty and are not, or the reverse: in no figure
    pub unexpected: u64,
    /// records that are in no figure
    pub apart: Apart,
    /// why there are no figures
    pub unavailable: Option<String>,
}

/// One round of an experiment: medians of entry_latency, and of untraced round trips where these can be compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Round {
    /// entries with a write
    pub dirty: f64,
    /// without
    pub clean: f64,
    /// others without
    pub control: Option<f64>,
    /// untraced round trips with and without
    pub untraced: Option<(f64, f64)>,
}

impl WriteCost {
    /// An experiment without figures, and why.
    pub fn unavailable(control: &'static str, how: &'static str, why: String) -> Self {
        Self { unavailable: Some(why), ..Self::of(control, how, &[], &[], &[]) }
    }

    /// From its rounds, and all entries.
    pub fn of(control: &'static str, how: &'static str, rounds: &[Round], dirty: &[f64], clean: &[f64]) -> Self {
        Self {
            control,
            how,
            dirty: Distribution::of(dirty.iter().copied()),
            clean: Distribution::of(clean.iter().copied()),
            cost: Interval::of_median(rounds.iter().map(|r| r.dirty - r.clean)),
            ratio: Interval::of_median(rounds.iter().map(|r| r.dirty / r.clean)),
            control_ratio: Interval::of_median(rounds.iter().filter_map(|r| Some(r.control? / r.clean))),
            untraced: Interval::of_median(rounds.iter().filter_map(|r| r.untraced).map(|(dirty, clean)| dirty - clean)),
            rounds: rounds.len(),
            unexpected: 0,
            apart: Apart::default(),
            unavailable: None,
        }
    }
}

/// entry_latency after the exits of a step, of entries that were written before as `written` says.
pub fn entries_after(samples: &[Sample], step: Step, written: impl Fn(&Sample) -> bool) -> Vec<f64> {
    samples.iter().filter(|s| s.step == step && written(s)).map(|s| s.entry_latency).collect()
}

/// Median; none of none.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    Distribution::of(values).map(|d| d.p50)
}

/// Mean of two medians, of values of two kinds that differ by themselves.
pub fn mean_of_medians(a: &[f64], b: &[f64]) -> Option<f64> {
    Some((median(a.iter().copied())? + median(b.iter().copied())?) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_is_told_by_its_own_values() {
        let d = Distribution::of((1..=100).rev().map(f64::from)).unwrap();
        assert_eq!((d.count, d.floor, d.p50, d.p90, d.p99, d.max, d.mean), (100, 1.0, 50.0, 90.0, 99.0, 100.0, 50.5));
        assert_eq!(Distribution::of([]), None);
        assert_eq!(d.scaled(2.0).p90, 180.0);
    }

    #[test]
    fn the_interval_of_a_median_is_the_sign_tests() {
        // Of 12 values the 3rd and the 10th: 96.1 %, where the 4th and the 9th are only 85.4 %.
        let i = Interval::of_median((1..=12).map(f64::from)).unwrap();
        assert_eq!((i.value, i.low, i.high), (6.5, 3.0, 10.0));
        let six = Interval::of_median((1..=6).map(f64::from)).unwrap();
        assert_eq!((six.low, six.high), (1.0, 6.0));
        assert_eq!(Interval::of_median((1..=5).map(f64::from)), None, "five cannot");
    }

    #[test]
    fn the_interval_holds_the_median_as_often_as_it_says() {
        let mut random = crate::compare::random::Random::new(7);
        let held = (0..4000)
            .filter(|_| {
                // Skewed: the square of a uniform, whose median is 1/4.
                let values = (0..12).map(|_| (random.below(1 << 20) as f64 / f64::from(1 << 20)).powi(2));
                let i = Interval::of_median(values).unwrap();
                i.low <= 0.25 && 0.25 <= i.high
            })
            .count();
        assert!((3800..3900).contains(&held), "{held} of 4000, 96.1 % are meant");
    }

    #[test]
    fn a_write_that_adds_a_hundred_cycles_costs_a_hundred_cycles() {
        let round = |n: u32| Round {
            dirty: 300.0 + f64::from(n),
            clean: 200.0 + f64::from(n),
            control: Some(200.0 + f64::from(n)),
            untraced: Some((1100.0, 1000.0)),
        };
        let rounds: Vec<_> = (0..12).map(round).collect();
        let cost = WriteCost::of("pin", "", &rounds, &[300.0], &[200.0]);
        assert_eq!(cost.cost.unwrap(), Interval { value: 100.0, low: 100.0, high: 100.0 });
        let ratio = cost.ratio.unwrap();
        assert!(ratio.low < ratio.value && (1.48..1.50).contains(&ratio.value), "{ratio:?}");
        assert_eq!(cost.control_ratio.unwrap().value, 1.0);
        assert_eq!(cost.untraced.unwrap().value, 100.0);
        assert_eq!(WriteCost::of("pin", "", &rounds[..5], &[], &[]).cost, None, "too few rounds say nothing");
    }
}
