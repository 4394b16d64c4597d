//! Measures, which are figures or rates with their statistics, and their rows before judging.

use super::{pairs::Pairs, zeros::Zero};
use crate::{
    compare::comparison::{Better, Row, Verdict},
    model::figures::{Figure, Stat, Unit},
};

/// Something that is compared: a [`Figure`] or a rate, with its statistics.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measure {
    /// as in [`Row::figure`]
    name: &'static str,
    unit: Unit,
    better: Better,
    /// names as in [`Row::stat`]
    pub stats: &'static [(&'static str, Stat)],
}

const fn named(stat: Stat) -> (&'static str, Stat) {
    (stat.name(), stat)
}

/// Statistics of times.
const TIMES: &[(&str, Stat)] =
    &[named(Stat::P50), named(Stat::P90), named(Stat::P99), named(Stat::P999), named(Stat::Max), named(Stat::Mean)];
/// Statistics of counts.
const COUNTS: &[(&str, Stat)] = &[named(Stat::Mean)];

impl Measure {
    /// A figure: quantiles, maximum and mean of times; the mean of counts.
    pub(crate) const fn of(figure: Figure) -> Self {
        let stats = if figure.is_time() { TIMES } else { COUNTS };
        Self { name: figure.name(), unit: figure.unit(), better: Better::Lower, stats }
    }

    /// Events per second.
    pub(crate) const fn rate(name: &'static str, better: Better) -> Self {
        Self { name, unit: Unit::PerSecond, better, stats: &[("per_second", Stat::Mean)] }
    }

    /// Share of the vCPUs' time.
    pub(crate) const fn share(name: &'static str, better: Better) -> Self {
        Self { name, unit: Unit::Share, better, stats: &[("share", Stat::Mean)] }
    }

    /// Unit of its statistics.
    pub(crate) const fn unit(&self) -> Unit {
        self.unit
    }

    /// Its statistics, joined to its name by a dot, and their unit.
    pub(crate) fn statistics(&self) -> impl Iterator<Item = (String, Unit)> + use<> {
        let Self { name, unit, stats, .. } = *self;
        stats.iter().map(move |(stat, _)| (format!("{name}.{stat}"), unit))
    }

    /// Whether it is of single events: their number per entry or second.
    pub(crate) fn counts_events(&self) -> bool {
        matches!(self.unit, Unit::Count | Unit::PerSecond)
    }

    /// A draft without any value.
    pub(crate) fn draft(&self, stat: &'static str, why: Option<String>) -> Draft {
        let row = Row {
            figure: self.name,
            stat,
            unit: self.unit,
            better: self.better,
            a: None,
            b: None,
            count_a: 0,
            count_b: 0,
            difference: None,
            ratio: None,
            p: None,
            p_holm: None,
            detectable: None,
            noise: None,
            primary: None,
            decided_after: None,
            verdict: Verdict::NotEnoughData,
            why,
        };
        Draft { row, se: f64::NAN, df: f64::NAN, same: false, pairs: None, zero: None }
    }

    /// Its rows if nothing about it is known.
    pub(crate) fn unknown(&self, why: &str) -> Vec<Draft> {
        self.stats.iter().map(|(name, _)| self.draft(name, Some(why.to_owned()))).collect()
    }
}

/// A row that is not yet judged with the others.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    /// the row, without the fields that depend on other rows
    pub row: Row,
    /// standard error of the difference of blocks; NaN if not known
    pub se: f64,
    /// degrees of freedom of `se`; NaN if not known
    pub df: f64,
    /// whether every unit of both sides has the same value, so that there is nothing to test
    pub same: bool,
    /// the rounds' values; none without rounds
    pub pairs: Option<Pairs>,
    /// the exact test of a side that has no event at all
    pub zero: Option<Zero>,
}
