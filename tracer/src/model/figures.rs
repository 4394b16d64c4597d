//! The one table of figures: name, title, unit, help and how to get it. Text, JSON, and everything else that shows
//! figures walks it.

use crate::model::{histogram::Histogram, interval::Series};

/// Unit of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// nanoseconds
    Ns,
    /// plain number
    Count,
    /// per second
    PerSecond,
}

/// A distribution that every series has.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// name in files, with its unit as suffix
    pub name: &'static str,
    /// what it contains, for the reader of a report
    pub help: &'static str,
    /// what is counted, as the heading of a column
    pub counted: &'static str,
    /// unit of its values
    pub unit: Unit,
    /// the distribution
    pub of: fn(&Series) -> &Histogram,
}

/// All figures.
pub const FIGURES: [Figure; 4] = [
    Figure {
        name: "entry_to_exit_ns",
        help: "kvm_entry -> kvm_exit: timer VMWRITEs + VM-entry + guest + VM-exit",
        counted: "ENTRIES",
        unit: Unit::Ns,
        of: |s| &s.entry_to_exit,
    },
    Figure {
        name: "exit_to_entry_ns",
        help: "kvm_exit -> next kvm_entry: the host's handling of that exit, halts included",
        counted: "EXITS",
        unit: Unit::Ns,
        of: |s| &s.exit_to_entry,
    },
    Figure {
        name: "pin_writes",
        help: "pin-control VMCS writes per entry, since the previous kvm_exit",
        counted: "ENTRIES",
        unit: Unit::Count,
        of: |s| &s.pin_writes,
    },
    Figure {
        name: "transition_ns",
        help: "VM-entry + VM-exit without guest time: entries forced to exit at once, or all by the companion patch's stopwatch",
        counted: "ENTRIES",
        unit: Unit::Ns,
        of: |s| &s.transition,
    },
];

/// A number that sums a distribution up.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// name in files
    pub name: &'static str,
    /// heading of its column
    pub title: &'static str,
    /// the number; none of an empty distribution
    pub of: fn(&Histogram) -> Option<f64>,
}

fn quantile(h: &Histogram, q: f64) -> Option<f64> {
    h.quantile(q).map(|v| v as f64)
}

/// All statistics of a figure.
pub const STATS: [Stat; 7] = [
    Stat { name: "min", title: "MIN", of: |h| h.min().map(|v| v as f64) },
    Stat { name: "p50", title: "P50", of: |h| quantile(h, 0.50) },
    Stat { name: "p90", title: "P90", of: |h| quantile(h, 0.90) },
    Stat { name: "p99", title: "P99", of: |h| quantile(h, 0.99) },
    Stat { name: "p999", title: "P99.9", of: |h| quantile(h, 0.999) },
    Stat { name: "max", title: "MAX", of: |h| h.max().map(|v| v as f64) },
    Stat { name: "mean", title: "MEAN", of: Histogram::mean },
];

/// Something to sort by.
#[derive(Clone, Copy, Debug)]
pub enum Column {
    /// number of entries
    Entries,
    /// a statistic of a figure
    Stat(Figure, Stat),
}

impl Column {
    /// From "entries", "entry_to_exit_ns.p99" and the like.
    pub fn parse(name: &str) -> Option<Self> {
        if name == "entries" {
            return Some(Self::Entries);
        }
        let (figure, stat) = name.split_once('.')?;
        let figure = FIGURES.into_iter().find(|f| f.name == figure)?;
        let stat = STATS.into_iter().find(|s| s.name == stat)?;
        Some(Self::Stat(figure, stat))
    }

    /// Every name that [`Column::parse`] knows.
    pub fn names() -> Vec<String> {
        let stats = FIGURES.iter().flat_map(|f| STATS.iter().map(move |s| format!("{}.{}", f.name, s.name)));
        std::iter::once("entries".to_owned()).chain(stats).collect()
    }

    /// The column's value; none where it is not known.
    pub fn value(&self, series: &Series) -> Option<f64> {
        match self {
            Self::Entries => Some(series.entries() as f64),
            Self::Stat(figure, stat) => (stat.of)((figure.of)(series)),
        }
    }
}

/// A value as people read it: "812ns", "1.23us", "0.10"; "n/a" where it is not known.
pub fn human(value: Option<f64>, unit: Unit) -> String {
    let Some(value) = value else { return "n/a".into() };
    match unit {
        Unit::Ns => {
            let (scaled, suffix) = match value {
                v if v < 1e3 => return format!("{v:.0}ns"),
                v if v < 1e6 => (v / 1e3, "us"),
                v if v < 1e9 => (v / 1e6, "ms"),
                v => (v / 1e9, "s"),
            };
            let digits = match scaled {
                s if s < 10.0 => 2,
                s if s < 100.0 => 1,
                _ => 0,
            };
            format!("{scaled:.digits$}{suffix}")
        }
        Unit::Count if value.fract() == 0.0 => format!("{value:.0}"),
        Unit::Count => format!("{value:.3}"),
        Unit::PerSecond if value < 100.0 => format!("{value:.1}"),
        Unit::PerSecond => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_reads_n_a_and_never_zero() {
        assert_eq!(human(None, Unit::Ns), "n/a");
        assert_eq!(human(Some(0.0), Unit::Ns), "0ns");
        assert!(STATS.iter().all(|s| (s.of)(&Histogram::default()).is_none()));
    }

    #[test]
    fn three_digits_tell_a_duration() {
        let texts: Vec<_> = [999.0, 1000.0, 12_345.0, 123_456.0, 1.5e9].map(|v| human(Some(v), Unit::Ns)).to_vec();
        assert_eq!(texts, ["999ns", "1.00us", "12.3us", "123us", "1.50s"]);
    }

    #[test]
    fn every_column_is_found_by_its_name() {
        assert!(Column::names().iter().all(|n| Column::parse(n).is_some()));
        assert!(Column::parse("entry_to_exit_ns.p98").is_none());
    }
}
