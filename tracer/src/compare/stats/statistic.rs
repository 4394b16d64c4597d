//! Every statistic that can be compared, by its name, and its values in the rounds of an experiment.

use super::{dense::Dense, design::Units, measure::Measure, pairs, rates::RATES, rows::place, shares};
use crate::model::figures::{Figure, Stat, Unit, figure_and_stat, figure_meant};

/// Primary figures of timer policies, in their order: those that a policy changes by itself come first.
pub(crate) const OF_POLICIES: [&str; 5] = [
    "pin_writes.mean",
    "transition_ns.p50",
    "entry_to_exit_ns.p50",
    "timer_exits.early.per_second",
    "timer_exits.spurious.per_second",
];

/// Every figure that can be compared, in the order of the rows: times first.
pub(crate) fn figures() -> impl Iterator<Item = Figure> {
    let (times, counts): (Vec<_>, Vec<_>) = Figure::ALL.into_iter().partition(|figure| figure.is_time());
    times.into_iter().chain(counts)
}

/// Every statistic that can be compared, as `--fail-if` names it, and its unit.
pub(crate) fn statistics() -> Vec<(String, Unit)> {
    figures()
        .map(Measure::of)
        .chain(RATES.map(|rate| rate.measure))
        .chain(shares::measures().map(|(measure, _)| measure))
        .flat_map(|measure| measure.statistics())
        .collect()
}

/// The statistic of that name, as [`statistics`] has it, and its unit. Figures' short titles and a statistic of host time alone are
/// understood as by `report --sort`; the error suggests a name that is written like it.
pub(crate) fn named(text: &str) -> Result<(String, Unit), String> {
    let known = statistics();
    let find = |text: &str| known.iter().find(|(name, _)| name == text).cloned();
    let short = || figure_and_stat(text).map(|(figure, stat)| format!("{}.{}", figure.name(), stat.name()));
    find(text).or_else(|| find(&short()?)).ok_or_else(|| {
        let names: Vec<_> = known.iter().map(|(name, _)| name.clone()).collect();
        format!("there is no '{text}': {}there are {}", figure_meant(text, &names), names.join(", "))
    })
}

/// `[a, b]` of a statistic in every round, in the order of time; NaN for a side without values. None if there is no such statistic.
pub(crate) fn of_rounds(name: &str, units: &Units) -> Option<Vec<[f64; 2]>> {
    let (dense, stat) = dense(name, units)?;
    let quantiles: Vec<f64> = stat.quantile().into_iter().collect();
    let mut values = pairs::of_rounds(&dense.merged(&units.parts), &quantiles);
    Some(values.swap_remove(place(stat, &quantiles)))
}

/// A statistic's values by window.
fn dense(name: &str, units: &Units) -> Option<(Dense, Stat)> {
    let stat = |measure: &Measure| {
        let stats = measure.statistics().zip(measure.stats);
        stats.into_iter().find(|((known, _), _)| known == name).map(|(_, (_, stat))| *stat)
    };
    let of_figures = figures().find_map(|figure| {
        let stat = stat(&Measure::of(figure))?;
        Some((Dense::of(&units.windows, None, figure), stat))
    });
    let of_rates = || RATES.iter().find_map(|rate| Some((rate.dense(units, [1.0; 2]), stat(&rate.measure)?)));
    let of_shares =
        || shares::measures().find_map(|(measure, part)| Some((shares::dense(units, part), stat(&measure)?)));
    of_figures.or_else(of_rates).or_else(of_shares)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::windows::{ExperimentRound, Stratum, Window, Windows};
    use crate::model::series::{Level, Series};
    use tracer_common::Isa;

    #[test]
    fn short_names_are_understood_as_by_report_sort_and_a_slip_finds_its_name() {
        let name = |text: &str| named(text).map(|(name, _)| name);
        for (short, full) in [
            ("guest.p50", "entry_to_exit_ns.p50"),
            ("guest.p99.9", "entry_to_exit_ns.p999"),
            ("p99.9", "exit_to_entry_ns.p999"),
            ("host.P99", "exit_to_entry_ns.p99"),
            ("pin.mean", "pin_writes.mean"),
            ("entry_to_exit_ns.p99", "entry_to_exit_ns.p99"),
        ] {
            assert_eq!(name(short).as_deref(), Ok(full), "{short}");
        }
        assert!(statistics().iter().all(|(known, _)| name(known).as_ref() == Ok(known)));
        for slip in ["guset.p50", "entry_to_exit_ns.p98", "pin_write.mean"] {
            assert!(name(slip).unwrap_err().contains("did you mean "), "{slip}: {:?}", name(slip));
        }
    }

    #[test]
    fn every_statistic_of_a_round_is_its_own() {
        let window = |values: &[u64]| {
            let mut series = Series::default();
            values.iter().for_each(|value| series[Figure::EntryToExit].record(*value));
            let stratum = Stratum { level: Level::L1, isa: Isa::Vmx, reason: Some(10), cause: None };
            Window { length_ns: 1_000_000_000, strata: [(stratum, series)].into(), ..Window::default() }
        };
        let a = [window(&[10, 20]), window(&[30, 100])];
        let rounds = Windows::Rounds(vec![ExperimentRound { a, b: [window(&[40]), window(&[80])], a_first: true }]);
        let units = Units::of(&rounds);
        let of = |name| of_rounds(name, &units).map(|values| values[0]);
        assert_eq!(of("entry_to_exit_ns.max"), Some([100.0, 80.0]), "and not the mean");
        assert_eq!(of("entry_to_exit_ns.mean"), Some([40.0, 60.0]));
        assert_eq!(of("entry_to_exit_ns.p50"), Some([20.5, 40.5]));
        assert_eq!(of("entries.per_second"), Some([2.0, 1.0]));
        assert_eq!(of("entries.p50"), None);
    }
}
