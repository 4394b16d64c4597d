//! The figures that are compared by VM, and their values in one round.

use std::collections::BTreeMap;

use tracer_common::rules::TimerCause;

use crate::{
    compare::{
        comparison::Side,
        windows::{ExperimentRound, Options, Stratum, Window, why_unknown},
    },
    model::{
        figures::{Figure, Stat, Unit},
        histogram::Histogram,
        series::Series,
    },
};

/// A figure that is compared by VM.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Primary {
    /// as in `Row::figure`
    pub(crate) figure: &'static str,
    /// as in `Row::stat`
    pub(crate) stat: &'static str,
    /// unit of its values
    pub(crate) unit: Unit,
    source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Source {
    /// a statistic of a distribution
    Of(Figure, Stat),
    /// timer exits of these causes per second
    TimerExits(&'static [TimerCause]),
}

impl Primary {
    /// A statistic of a figure.
    pub(crate) const fn of(figure: Figure, stat: Stat) -> Self {
        Self { figure: figure.name(), stat: stat.name(), unit: figure.unit(), source: Source::Of(figure, stat) }
    }

    /// Timer exits of these causes per second; `figure` is their name.
    const fn timer_exits(figure: &'static str, causes: &'static [TimerCause]) -> Self {
        Self { figure, stat: "per_second", unit: Unit::PerSecond, source: Source::TimerExits(causes) }
    }

    /// Values of A and B of a VM in a round; none if it has no entries, or no value, on a side.
    pub(super) fn values(&self, round: &ExperimentRound, vm: &str) -> Option<[f64; 2]> {
        Some([self.of_side(&round.a, vm)?, self.of_side(&round.b, vm)?])
    }

    fn of_side(&self, windows: &[Window; 2], vm: &str) -> Option<f64> {
        let series = || windows.iter().filter_map(|w| w.vms.get(vm)).flat_map(BTreeMap::iter);
        match self.source {
            Source::Of(figure, stat) => {
                let mut all = Histogram::default();
                series().for_each(|(_, series)| all.merge(&series[figure]));
                stat.quantile().map_or_else(|| stat.of(&all), |q| quantile(&all, q))
            }
            Source::TimerExits(causes) => {
                // From 0: the sum of nothing is -0.
                let count = |is_meant: &dyn Fn(&Stratum) -> bool| {
                    let meant = series().filter(|(stratum, _)| is_meant(stratum));
                    meant.fold(0.0, |sum, (_, series): (_, &Series)| sum + series.entries() as f64)
                };
                let seconds: f64 = windows.iter().map(|w| w.length_ns as f64 / 1e9).sum();
                let exits = count(&|stratum| stratum.cause.is_some_and(|cause| causes.contains(&cause)));
                (count(&|_| true) > 0.0 && seconds > 0.0).then(|| exits / seconds)
            }
        }
    }
}

/// A quantile, interpolated within its bucket as in the rows of all VMs.
fn quantile(histogram: &Histogram, q: f64) -> Option<f64> {
    let wanted = q * histogram.count() as f64;
    let mut below = 0.0;
    for (low, width, n) in histogram.buckets() {
        if below + n as f64 >= wanted {
            return Some(low as f64 - 0.5 + width as f64 * (wanted - below) / n as f64);
        }
        below += n as f64;
    }
    None
}

/// The figures that are compared by VM: those of them that are known on both sides.
pub(crate) fn primaries(sides: [&Side; 2], options: &Options) -> Vec<Primary> {
    let figures = [(Figure::PinWrites, Stat::Mean), (Figure::Transition, Stat::P50), (Figure::EntryToExit, Stat::P50)];
    let known = figures.into_iter().filter(|(figure, _)| options.incomparable(*figure).is_none());
    let mut primaries: Vec<_> = known.map(|(figure, stat)| Primary::of(figure, stat)).collect();
    let knows = |cause| {
        let count = |side: &Side| side.timer_exits.get(&cause).cloned().unwrap_or(Ok(0));
        why_unknown(sides.map(count)).is_none()
    };
    // Early ones are not known where deadlines are not: they are among those at their deadline.
    let exits = match [TimerCause::Early, TimerCause::Spurious].map(knows) {
        [true, true] => {
            Some(Primary::timer_exits("timer_exits.early+spurious", &[TimerCause::Early, TimerCause::Spurious]))
        }
        [false, true] => Some(Primary::timer_exits("timer_exits.spurious", &[TimerCause::Spurious])),
        _ => None,
    };
    primaries.extend(exits);
    primaries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{Windows, compare, fixture, random::Random};
    use crate::model::knowledge::{Knowledge, Subject};

    #[test]
    fn a_quantile_is_interpolated_as_in_the_rows() {
        let mut histogram = Histogram::default();
        assert_eq!(quantile(&histogram, 0.5), None);
        // A bucket of 1 ns holds the values that round to it: the lower half of 4, and all of 3.
        histogram.record_n(3, 25);
        histogram.record_n(4, 50);
        histogram.record_n(9, 25);
        assert_eq!([0.25, 0.5, 0.75].map(|q| quantile(&histogram, q)), [3.5, 4.0, 4.5].map(Some));
        let mut random = Random::new(4);
        (0..5000).for_each(|_| histogram.record(100_000 + random.below(50_000) as u64));
        let (fine, coarse) = (quantile(&histogram, 0.5).unwrap(), histogram.quantile(0.5).unwrap() as f64);
        assert!((fine / coarse - 1.0).abs() < 2e-3, "{fine} {coarse}");
    }

    #[test]
    fn figures_that_a_side_does_not_know_are_left_out() {
        let c = fixture::comparison();
        let names = |a: Side, options: &Options| -> Vec<String> {
            primaries([&a, &c.b], options).iter().map(|p| format!("{}.{}", p.figure, p.stat)).collect()
        };
        let all = names(c.a.clone(), &Options::default());
        assert_eq!(
            all,
            ["pin_writes.mean", "transition_ns.p50", "entry_to_exit_ns.p50", "timer_exits.early+spurious.per_second"]
        );
        let options = Options { pin_writes: false, transitions: false, ..Options::default() };
        assert_eq!(names(c.a.clone(), &options), all[2..]);
        let no_deadline = Knowledge::complete().without([Subject::Deadline], "no field");
        let side =
            compare(&Windows::Rounds(vec![]), &Options { knowledge: [no_deadline.clone(), no_deadline], ..options });
        let early = side.a.timer_exits[&TimerCause::Early].clone();
        assert!(early.is_err(), "{early:?}");
        let mut a = c.a.clone();
        a.timer_exits.insert(TimerCause::Early, early);
        assert_eq!(names(a, &Options::default())[3], "timer_exits.spurious.per_second");
    }
}
