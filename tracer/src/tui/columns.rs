//! The table's columns: statistics of the figures of [`crate::model::figures`], and counts over several series.

use tracer_common::rules::TimerCause;

use super::sum::Sum;
use crate::model::figures::{Figure, Stat, Unit, human};

/// Values of all columns; none if unknown.
pub(super) type Values = [Option<f64>; COLUMNS.len()];

/// Kind of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// ns
    Time,
    /// per second
    Rate,
    /// a count in the window
    Count,
    /// mean of counts
    Mean,
    /// share, in percent
    Percent,
}

/// Where a column's values come from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Derivation {
    /// a statistic of a figure
    Stat(Figure, Stat),
    /// a value of all series
    Sum(fn(&Sum) -> Option<f64>),
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// title of the figure, above the titles of its columns
    pub group: &'static str,
    /// the same where there is little room
    pub short_group: &'static str,
    /// title
    pub title: &'static str,
    /// characters, without the gap
    pub width: u16,
    /// when there is not enough room, the column of the highest rank is dropped first
    pub rank: u8,
    /// kind of its values
    pub kind: Kind,
    /// where they come from
    pub of: Derivation,
}

const fn stat(figure: Figure, stat: Stat, rank: u8) -> Column {
    let kind = if figure.is_time() { Kind::Time } else { Kind::Mean };
    // Pin writes stand alone: their column has a title of its own.
    let (group, short_group) = match figure {
        Figure::PinWrites => ("", ""),
        figure => (figure.title(), figure.short_title()),
    };
    Column { group, short_group, title: stat.title(), width: 7, rank, kind, of: Derivation::Stat(figure, stat) }
}

const fn timer(title: &'static str, rank: u8, of: fn(&Sum) -> Option<f64>) -> Column {
    let (group, short_group) = ("timer exits", "timer");
    Column { group, short_group, title, width: 8, rank, kind: Kind::Count, of: Derivation::Sum(of) }
}

fn exits(sum: &Sum, cause: TimerCause) -> Option<f64> {
    sum.timer_exits(cause).ok().map(|n| n as f64)
}

/// All columns, in the order of the table; at first, rows are sorted by the first column.
pub(super) const COLUMNS: [Column; 15] = [
    Column {
        group: "",
        short_group: "",
        title: "ENTRIES/S",
        width: 9,
        rank: 0,
        kind: Kind::Rate,
        of: Derivation::Sum(|s| (s.seconds > 0.0).then(|| s.series.entries() as f64 / s.seconds)),
    },
    stat(Figure::EntryToExit, Stat::P50, 1),
    stat(Figure::EntryToExit, Stat::P99, 2),
    stat(Figure::EntryToExit, Stat::Max, 8),
    stat(Figure::ExitToEntry, Stat::P50, 6),
    stat(Figure::ExitToEntry, Stat::P99, 7),
    stat(Figure::ExitToEntry, Stat::Max, 9),
    Column { title: "PIN/E", width: 6, ..stat(Figure::PinWrites, Stat::Mean, 3) },
    Column {
        group: "",
        short_group: "",
        title: "DIRTY%",
        width: 6,
        rank: 4,
        kind: Kind::Percent,
        of: Derivation::Sum(|s| s.dirty.map(|share| 100.0 * share)),
    },
    timer("DEADLINE", 12, |s| exits(s, TimerCause::Deadline)),
    Column { width: 9, ..timer("IMMEDIATE", 13, |s| exits(s, TimerCause::Immediate)) },
    timer("SPURIOUS", 5, |s| exits(s, TimerCause::Spurious)),
    Column { width: 6, ..timer("EARLY", 11, |s| exits(s, TimerCause::Early)) },
    // Shown last: without the companion patch's stopwatch there are few values.
    stat(Figure::Transition, Stat::P50, 14),
    stat(Figure::Transition, Stat::P99, 15),
];

/// Rank of the sparkline among the columns.
pub(super) const SPARK_RANK: u8 = 10;

/// Unit of times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Units {
    /// three digits with ns, us, ms or s
    #[default]
    Scaled,
    /// whole ns
    Ns,
    /// TSC cycles of this frequency, kHz
    Cycles(u32),
}

impl Units {
    /// Name in the header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scaled => "ns/us",
            Self::Ns => "ns",
            Self::Cycles(_) => "TSC cycles",
        }
    }

    /// A time.
    pub fn time(self, ns: f64, width: u16) -> String {
        match self {
            Self::Ns if ns < 10f64.powi(i32::from(width)) => format!("{ns:.0}"),
            Self::Cycles(khz) => short(ns * f64::from(khz) / 1e6),
            _ => human(Some(ns), Unit::Ns),
        }
    }
}

impl Column {
    /// A value as the table shows it; "n/a" if it is unknown.
    pub(super) fn text(&self, value: Option<f64>, units: Units) -> String {
        let Some(value) = value else { return "n/a".into() };
        match self.kind {
            Kind::Time => units.time(value, self.width),
            Kind::Rate if value < 1e6 => human(Some(value), Unit::PerSecond),
            Kind::Rate | Kind::Count => short(value),
            Kind::Mean if value == 0.0 => "0".into(),
            Kind::Mean => format!("{value:.3}"),
            Kind::Percent => format!("{value:.1}"),
        }
    }

    /// Title with the figure's, for a panel.
    pub(super) fn full_name(&self) -> String {
        match self.group {
            "" => self.title.to_lowercase(),
            group => format!("{group} {}", self.title.to_lowercase()),
        }
    }
}

/// A count in at most five characters.
pub(super) fn short(value: f64) -> String {
    let (scaled, suffix) = match value {
        v if v < 1e4 => return format!("{v:.0}"),
        v if v < 1e6 => (v / 1e3, "k"),
        v if v < 1e9 => (v / 1e6, "M"),
        v => (v / 1e9, "G"),
    };
    let digits = usize::from(scaled < 100.0);
    format!("{scaled:.digits$}{suffix}")
}

/// Change against a baseline in percent; none if either is unknown, or if only the baseline is 0.
pub(super) fn change(now: Option<f64>, before: Option<f64>) -> Option<f64> {
    let (now, before) = (now?, before?);
    if now == before {
        return Some(0.0);
    }
    (before != 0.0).then(|| 100.0 * (now / before - 1.0))
}

/// A change as the table shows it.
pub(super) fn change_text(percent: Option<f64>) -> String {
    match percent {
        None => "n/a".into(),
        Some(p) if p.abs() < 0.05 => "=".into(),
        Some(p) if p.abs() < 9.95 => format!("{p:+.1}%"),
        Some(p) if p < 999.5 => format!("{p:+.0}%"),
        Some(_) => ">999%".into(),
    }
}
