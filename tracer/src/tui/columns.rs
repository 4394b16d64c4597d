//! The table's columns: statistics of the figures of [`crate::model::figures`], shares and counts over several series.

use tracer_common::rules::TimerCause;

use super::weight::{Weight, Whole};
use crate::model::{
    figures::{Figure, Stat, Unit, human},
    knowledge::{Knowledge, Subject},
    policy::Policy,
};
use crate::output::grouped;

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
    /// follows from this weight of the row, of which it is a share or a rate
    Weight(fn(&Weight) -> u64, Per),
    /// share of dirty entries
    Dirty,
    /// timer exits of a cause
    Timer(TimerCause),
}

/// What a weight is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Per {
    /// a second of the window
    Second,
    /// everything in the window, in percent
    Whole,
    /// the host time of everything in the window, in percent
    WholeHostTime,
    /// the row's host time, in percent
    HostTime,
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
    /// characters at least, without the gap
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

const fn alone(title: &'static str, width: u16, rank: u8, kind: Kind, of: Derivation) -> Column {
    Column { group: "", short_group: "", title, width, rank, kind, of }
}

const fn timer(title: &'static str, rank: u8, cause: TimerCause) -> Column {
    let (group, short_group) = ("timer exits", "timer");
    Column { group, short_group, title, width: 8, rank, kind: Kind::Count, of: Derivation::Timer(cause) }
}

/// All columns, in the order of the table.
pub(super) const COLUMNS: [Column; 18] = [
    alone("EXITS/S", 8, 1, Kind::Rate, Derivation::Weight(|w| w.exits, Per::Second)),
    alone("EXIT%", 6, 4, Kind::Percent, Derivation::Weight(|w| w.exits, Per::Whole)),
    alone("TIME%", 6, 0, Kind::Percent, Derivation::Weight(|w| w.host_ns, Per::WholeHostTime)),
    alone("HALT%", 6, 5, Kind::Percent, Derivation::Weight(|w| w.halted_ns, Per::HostTime)),
    stat(Figure::ExitToEntry, Stat::Mean, 2),
    stat(Figure::ExitToEntry, Stat::P50, 7),
    stat(Figure::ExitToEntry, Stat::P99, 3),
    stat(Figure::ExitToEntry, Stat::Max, 10),
    stat(Figure::EntryToExit, Stat::P50, 6),
    stat(Figure::EntryToExit, Stat::P99, 9),
    Column { title: "PIN/E", width: 6, ..stat(Figure::PinWrites, Stat::Mean, 8) },
    alone("DIRTY%", 6, 11, Kind::Percent, Derivation::Dirty),
    timer("DEADLINE", 15, TimerCause::Deadline),
    Column { width: 9, ..timer("IMMEDIATE", 16, TimerCause::Immediate) },
    timer("SPURIOUS", 12, TimerCause::Spurious),
    Column { width: 6, ..timer("EARLY", 13, TimerCause::Early) },
    // Shown last: without the companion patch's stopwatch there are few values.
    stat(Figure::Transition, Stat::P50, 17),
    stat(Figure::Transition, Stat::P99, 18),
];
/// The column of the share of host time: rows are sorted by it at first.
pub(super) const HOST_TIME: usize = 2;
/// The column that rows are sorted by where host times are not known.
pub(super) const EXITS: usize = 0;

/// Rank of the sparkline among the columns.
pub(super) const SPARK_RANK: u8 = 14;

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
    pub fn time(self, ns: f64) -> String {
        match self {
            Self::Scaled => human(Some(ns), Unit::Ns),
            Self::Ns => thousands(ns),
            Self::Cycles(khz) => thousands(ns * f64::from(khz) / 1e6),
        }
    }

    /// Characters that the times of a panel take.
    pub(super) const fn width(self) -> u16 {
        match self {
            Self::Scaled => 7,
            // Up to 99 seconds.
            Self::Ns | Self::Cycles(_) => 14,
        }
    }
}

/// Stands for a percentile that so few values do not carry, and for times where there are none.
pub(super) const TOO_FEW: &str = "-";

impl Column {
    /// A row's value as the table shows it: "n/a" where it cannot be known, "-" where the row has too few values for it, or none.
    pub(super) fn text_of_row(&self, value: Option<f64>, units: Units, knowledge: &Knowledge) -> String {
        let is_known = |subjects: &[Subject]| subjects.iter().all(|subject| knowledge.known(*subject).is_ok());
        let could_be_known = match self.of {
            // Entries whose pin-control writes are not known have no value, however many they are.
            Derivation::Stat(Figure::PinWrites, _)
            | Derivation::Dirty
            | Derivation::Timer(_)
            | Derivation::Weight(_, Per::Second | Per::Whole) => false,
            Derivation::Stat(figure, _) => knowledge.figure(figure).is_ok(),
            Derivation::Weight(_, Per::HostTime) => is_known(&[Subject::Times, Subject::HaltTime]),
            Derivation::Weight(_, Per::WholeHostTime) => is_known(&[Subject::Times]),
        };
        if value.is_none() && could_be_known { TOO_FEW.into() } else { self.text(value, units) }
    }

    /// A value as the table shows it; "n/a" if it is unknown.
    pub(super) fn text(&self, value: Option<f64>, units: Units) -> String {
        let Some(value) = value else { return "n/a".into() };
        match self.kind {
            Kind::Time => units.time(value),
            Kind::Rate if value < 1e6 => human(Some(value), Unit::PerSecond),
            Kind::Count if value < 1e6 => thousands(value),
            Kind::Rate | Kind::Count => short(value),
            Kind::Mean if value == 0.0 => "0".into(),
            Kind::Mean if value < 0.0005 => "<0.001".into(),
            Kind::Mean => format!("{value:.3}"),
            Kind::Percent if value == 0.0 => "0".into(),
            Kind::Percent if value < 0.05 => "<0.1".into(),
            Kind::Percent => format!("{value:.1}"),
        }
    }

    /// Whether any row of a window has a value in it that says something: counts of timer exits, and of pin-control writes under the
    /// soft policy, do so only above 0.
    pub(super) fn has_values(&self, whole: &Whole, knowledge: &Knowledge, policy: Policy) -> bool {
        let writes = whole.knows_writes && (whole.dirty > 0 || policy == Policy::Hard);
        match self.of {
            Derivation::Stat(Figure::Transition, _) => whole.weight.transitions > 0,
            Derivation::Stat(Figure::PinWrites, _) | Derivation::Dirty => writes,
            Derivation::Stat(figure, _) => knowledge.figure(figure).is_ok(),
            Derivation::Weight(_, Per::HostTime) => {
                [Subject::Times, Subject::HaltTime].iter().all(|subject| knowledge.known(*subject).is_ok())
                    && whole.weight.halted_ns > 0
            }
            Derivation::Weight(_, Per::WholeHostTime) => knowledge.known(Subject::Times).is_ok(),
            Derivation::Weight(..) => true,
            Derivation::Timer(cause) => whole.timer_exits.of(cause, knowledge).is_ok_and(|n| n > 0),
        }
    }

    /// Whether exits alone, without the entries before them, have values in it.
    pub(super) fn is_of_exits(&self) -> bool {
        match self.of {
            Derivation::Stat(figure, _) => figure.counts_exits(),
            Derivation::Weight(..) => true,
            Derivation::Dirty | Derivation::Timer(_) => false,
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

/// A number without decimals, with thousands separators.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and `as` saturates")]
pub(super) fn thousands(value: f64) -> String {
    grouped(value.round() as u64)
}

/// A change against a baseline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// either value is unknown
    Unknown,
    /// the baseline has 0 or nothing, now there is something
    New,
    /// percent of the baseline's value; of a share, points of percent
    By(f64),
}

impl Change {
    /// From the baseline's value to that of now.
    pub(super) fn of(kind: Kind, before: Option<f64>, now: Option<f64>) -> Self {
        match (before, now) {
            (Some(before), Some(now)) if before == now => Self::By(0.0),
            (Some(before), Some(now)) if kind == Kind::Percent => Self::By(now - before),
            (None | Some(0.0), Some(now)) if now != 0.0 => Self::New,
            (Some(before), Some(now)) => Self::By(100.0 * (now / before - 1.0)),
            _ => Self::Unknown,
        }
    }

    /// As the table shows it, in at most [`CHANGE_WIDTH`] characters.
    pub(super) fn text(self, kind: Kind) -> String {
        match self {
            Self::Unknown => String::new(),
            Self::New => "new".into(),
            Self::By(by) if by.abs() < 0.05 => "=".into(),
            Self::By(by) if kind == Kind::Percent => format!("{by:+.1}"),
            Self::By(by) if by.abs() < 9.95 => format!("{by:+.1}%"),
            Self::By(by) if by < 999.5 => format!("{by:+.0}%"),
            Self::By(_) => ">999%".into(),
        }
    }
}

/// Characters that a change takes beside its value, with the gap.
pub(super) const CHANGE_WIDTH: u16 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_times_of_a_column_have_the_same_unit_where_ns_or_cycles_are_asked_for() {
        assert_eq!([812.0, 2_598_911.0, 234e6].map(|ns| Units::Ns.time(ns)), ["812", "2,598,911", "234,000,000"]);
        assert_eq!([812.0, 234e6].map(|ns| Units::Cycles(2_000_000).time(ns)), ["1,624", "468,000,000"]);
        assert_eq!([0.0, 999.5, 1e12].map(thousands), ["0", "1,000", "1,000,000,000,000"]);
    }

    #[test]
    fn a_share_that_is_not_zero_does_not_read_zero() {
        let of = |kind, value| Column { kind, ..COLUMNS[EXITS] }.text(Some(value), Units::Scaled);
        assert_eq!([0.0, 0.01, 0.06, 100.0].map(|v| of(Kind::Percent, v)), ["0", "<0.1", "0.1", "100.0"]);
        assert_eq!([0.0, 0.0001, 0.0006].map(|v| of(Kind::Mean, v)), ["0", "<0.001", "0.001"]);
    }

    #[test]
    fn a_change_is_relative_for_values_and_in_points_for_shares() {
        let text = |kind, before, now| Change::of(kind, before, now).text(kind);
        assert_eq!(text(Kind::Time, Some(100.0), Some(150.0)), "+50%");
        assert_eq!(text(Kind::Time, Some(100.0), Some(98.5)), "-1.5%");
        assert_eq!(text(Kind::Percent, Some(48.0), Some(51.2)), "+3.2");
        assert_eq!(text(Kind::Count, Some(0.0), Some(3.0)), "new");
        assert_eq!(text(Kind::Count, Some(0.0), Some(0.0)), "=");
        assert_eq!(text(Kind::Time, None, Some(1.0)), "new");
        assert_eq!(text(Kind::Time, Some(1.0), None), "");
        assert_eq!(text(Kind::Time, Some(1.0), Some(1e6)), ">999%");
    }
}
