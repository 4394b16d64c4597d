//! The columns of the report's table, in sets: each with its headings, its cells, and how soon it makes room on a narrow terminal.

use clap::ValueEnum;
use tracer_common::rules::TimerCause;

use super::grid::TOGETHER;
use crate::{
    model::{
        budget::Phase,
        figures::{Figure, Stat, Unit, human},
        histogram::Histogram,
        knowledge::Knowledge,
        number::truncated_u64,
        policy::Policy,
    },
    output::grouped,
    report::{Report, Row, Rows},
};

/// What the table of a text report shows about each row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColumnSet {
    /// exits, their shares, and the usual statistics of host and guest time
    #[default]
    Time,
    /// percentiles of host and guest time
    Latency,
    /// parts of the host time
    Phases,
    /// pin writes, causes of timer exits, transition, distances to timers' deadlines
    Timer,
    /// all of these
    All,
}

/// A cell without a value: there are too few to say it.
pub(super) const TOO_FEW: &str = "-";
/// A cell of none.
pub(super) const ZERO: &str = "0";
/// A cell whose value is not known.
const UNKNOWN: &str = "n/a";

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Exits,
    ExitShare,
    Rate,
    HostTimeShare,
    Stat(Figure, Stat),
    Cause(TimerCause),
    Part(Phase),
}

/// What all cells of a table have in common.
pub(super) struct Context<'a> {
    pub(super) total: &'a Row,
    pub(super) knowledge: &'a Knowledge,
    /// digits after the point of shares of host time
    pub(super) digits: usize,
}

impl ColumnSet {
    /// The set's columns from left to right, each with its rank: the highest is the first that a narrow terminal leaves out. Only those that
    /// hold something are left in.
    pub(super) fn fields(self, report: &Report, rows: &Rows) -> Vec<(Field, u8)> {
        let host = |stat, rank| (Field::Stat(Figure::ExitToEntry, stat), rank);
        let guest = |stat, rank| (Field::Stat(Figure::EntryToExit, stat), rank);
        let counts = [(Field::Exits, 0), (Field::ExitShare, 5), (Field::Rate, 8), (Field::HostTimeShare, 2)];
        let pin = (Field::Stat(Figure::PinWrites, Stat::Mean), 6);
        let all: Vec<_> = match self {
            Self::Time => counts
                .into_iter()
                .chain([host(Stat::Mean, 3), host(Stat::P50, 7), host(Stat::P99, 4), host(Stat::Max, 10)])
                .chain([guest(Stat::Mean, 12), guest(Stat::P50, 9), guest(Stat::P99, 11), pin])
                .collect(),
            Self::Phases => {
                [(Field::Exits, 0), (Field::HostTimeShare, 2), host(Stat::Mean, 9)].into_iter().chain(parts()).collect()
            }
            Self::Latency => [(Field::Exits, 0)].into_iter().chain(percentiles()).collect(),
            Self::Timer => [(Field::Exits, 0), pin].into_iter().chain(timer()).collect(),
            Self::All => {
                let means = [host(Stat::Mean, 3), guest(Stat::Mean, 12)];
                let [host_mean, guest_mean] = means;
                let (host, guest): (Vec<_>, Vec<_>) =
                    percentiles().partition(|(field, _)| matches!(field, Field::Stat(Figure::ExitToEntry, _)));
                counts
                    .into_iter()
                    .chain([host_mean])
                    .chain(host)
                    .chain(parts())
                    .chain([guest_mean])
                    .chain(guest)
                    .chain([pin])
                    .chain(timer())
                    .collect()
            }
        };
        let is_shown =
            |field: &Field| field.is_shown(report, &rows.total) && !(rows.by_detail && field.is_of_entries());
        all.into_iter().filter(|(field, _)| is_shown(field)).collect()
    }
}

fn percentiles() -> impl Iterator<Item = (Field, u8)> {
    let ranked = [(Stat::Min, 8), (Stat::P50, 2), (Stat::P90, 6), (Stat::P99, 3), (Stat::P999, 4), (Stat::Max, 5)];
    // Guest time makes room before host time does.
    let of = move |figure, less: u8| ranked.map(|(stat, rank)| (Field::Stat(figure, stat), rank + less));
    of(Figure::ExitToEntry, 0).into_iter().chain(of(Figure::EntryToExit, 7))
}

fn parts() -> impl Iterator<Item = (Field, u8)> {
    Phase::ALL.into_iter().map(|phase| (Field::Part(phase), TOGETHER))
}

fn timer() -> impl Iterator<Item = (Field, u8)> {
    let stat = |figure, stat, rank| (Field::Stat(figure, stat), rank);
    TimerCause::ALL.map(|cause| (Field::Cause(cause), 3)).into_iter().chain([
        stat(Figure::Transition, Stat::P50, 4),
        stat(Figure::Transition, Stat::P99, 7),
        stat(Figure::DeadlineLate, Stat::P50, 5),
        stat(Figure::DeadlineLate, Stat::P99, 8),
        stat(Figure::DeadlineLate, Stat::Max, 10),
        stat(Figure::DeadlineRemaining, Stat::Min, 6),
        stat(Figure::DeadlineRemaining, Stat::P50, 9),
    ])
}

impl Field {
    /// Whether the column says anything here. Times that are not known are left out, with their reason elsewhere.
    fn is_shown(self, report: &Report, total: &Row) -> bool {
        match self {
            Self::Exits | Self::ExitShare | Self::Rate => true,
            Self::HostTimeShare => total.series.host_ns().is_some(),
            // No pin-control write is what the soft policy is for.
            Self::Stat(Figure::PinWrites, _) => {
                let pin = &total.series[Figure::PinWrites];
                let is_hard = || report.sources.iter().any(|source| source.policy() == Policy::Hard);
                pin.sum() > 0 || pin.count() > 0 && is_hard()
            }
            Self::Stat(figure, _) => total.series[figure].count() > 0,
            // Without the others, the kernel's part is all of the host time.
            Self::Part(Phase::Kernel) => Phase::ALL[1..].iter().any(|other| total.series.phase(*other).is_some()),
            Self::Part(phase) => total.series.phase(phase).is_some(),
            Self::Cause(cause) => total.timer_exits.of(cause, &report.knowledge()).is_ok_and(|n| n > 0),
        }
    }

    /// Whether it is about entries, which the rows of details do not have.
    const fn is_of_entries(self) -> bool {
        match self {
            Self::Exits | Self::ExitShare | Self::Rate | Self::HostTimeShare | Self::Part(_) => false,
            Self::Stat(figure, _) => !matches!(figure, Figure::ExitToEntry),
            Self::Cause(_) => true,
        }
    }

    /// The heading over neighbouring columns; empty for a column of its own.
    pub(super) const fn group(self) -> &'static str {
        match self {
            Self::HostTimeShare | Self::Stat(Figure::ExitToEntry, _) => "HOST TIME",
            Self::Stat(Figure::EntryToExit, _) => "GUEST TIME",
            Self::Stat(Figure::Transition, _) => "TRANSITION",
            Self::Stat(Figure::DeadlineLate, _) => "TIMER LATE",
            Self::Stat(Figure::DeadlineRemaining, _) => "TIMER EARLY BY",
            Self::Cause(_) => "TIMER EXITS",
            Self::Part(_) => "% OF ITS HOST TIME",
            Self::Exits | Self::ExitShare | Self::Rate | Self::Stat(Figure::PinWrites, _) => "",
        }
    }

    pub(super) fn title(self) -> String {
        match self {
            Self::Exits => "EXITS".into(),
            Self::ExitShare => "EXIT%".into(),
            Self::Rate => "/S".into(),
            Self::HostTimeShare => "TIME%".into(),
            Self::Stat(Figure::PinWrites, _) => "PIN/ENTRY".into(),
            Self::Stat(_, stat) => stat.title().into(),
            Self::Cause(cause) => cause.name().to_uppercase(),
            Self::Part(phase) => phase.name().to_uppercase(),
        }
    }

    /// The column's cell of a row.
    pub(super) fn cell(self, row: &Row, context: &Context<'_>) -> String {
        let exits = row.exits;
        match self {
            Self::Exits => grouped(exits),
            Self::ExitShare => percent(row.exit_share(context.total), 1),
            Self::Rate => rate(row.rate(exits)),
            Self::HostTimeShare => percent(row.host_time_share(context.total), context.digits),
            Self::Stat(Figure::PinWrites, _) => human(row.series[Figure::PinWrites].mean(), Unit::Count),
            Self::Stat(figure, stat) => time(&row.series[figure], stat),
            Self::Part(phase) => percent(row.part(phase), 1),
            Self::Cause(cause) => row.timer_exits.of(cause, context.knowledge).map_or(UNKNOWN.into(), grouped),
        }
    }
}

/// A share, 0..1, as a number of percent with so many digits after the point.
pub(super) fn percent(share: Option<f64>, digits: usize) -> String {
    match share {
        // No value is not an unknown one: the row's exits were the last of their vCPUs.
        None => TOO_FEW.into(),
        Some(0.0) => ZERO.into(),
        Some(share) => {
            let (percent, least) = (share * 100.0, 0.1_f64.powi(i32::try_from(digits).unwrap_or(1)));
            if percent < least / 2.0 { format!("<{least:.digits$}") } else { format!("{percent:.digits$}") }
        }
    }
}

/// Events a second; with tenths below 100.
fn rate(rate: Option<f64>) -> String {
    match rate {
        None => UNKNOWN.into(),
        Some(0.0) => ZERO.into(),
        Some(rate) if rate < 0.05 => "<0.1".into(),
        Some(rate) if rate < 100.0 => format!("{rate:.1}"),
        Some(rate) => grouped(truncated_u64(rate.round())),
    }
}

/// A statistic of times, unless the values are too few for it. A single value is one number, whatever its bucket's bounds are.
fn time(values: &Histogram, stat: Stat) -> String {
    if !stat.is_carried(values.count()) {
        return TOO_FEW.into();
    }
    human(if values.count() == 1 { values.mean() } else { stat.of(values) }, Unit::Ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_that_the_count_cannot_carry_is_a_dash() {
        let of = |n: u64, stat| {
            let mut values = Histogram::default();
            values.record_n(5000, n);
            time(&values, stat)
        };
        let texts = [(99, Stat::P99), (100, Stat::P99), (1, Stat::P50), (2, Stat::P50), (0, Stat::Max)];
        assert_eq!(texts.map(|(n, stat)| of(n, stat)), ["-", "5.00us", "-", "5.00us", "-"]);
    }

    #[test]
    fn a_single_value_is_one_number() {
        let mut values = Histogram::default();
        values.record(73_150);
        let texts = [Stat::Min, Stat::Max, Stat::Mean].map(|stat| time(&values, stat));
        assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    }

    #[test]
    fn none_and_a_little_are_told_apart() {
        assert_eq!([None, Some(0.0), Some(0.0001), Some(0.512)].map(|s| percent(s, 1)), ["-", "0", "<0.1", "51.2"]);
        assert_eq!([0.000_001, 0.000_42].map(|s| percent(Some(s), 3)), ["<0.001", "0.042"]);
        let rates = [None, Some(0.0), Some(0.01), Some(9.96), Some(123_456.7)].map(rate);
        assert_eq!(rates, ["n/a", "0", "<0.1", "10.0", "123,457"]);
    }
}
