//! The one table of figures and statistics. Tags, reports, CSV, JSON, HTML, triggers and comparisons walk it. A new figure is a variant
//! here and its places in the accumulator and the in-kernel series; the live view's columns and the exported histograms are a choice of
//! figures, listed in `tui/columns.rs` and `export/state.rs`.

use tracer_common::Event;

use crate::{
    model::{histogram::Histogram, knowledge::Shown, number::truncated_u64, suggestion::did_you_mean},
    output::grouped,
};

/// Unit of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// nanoseconds
    Ns,
    /// plain number
    Count,
    /// per second
    PerSecond,
    /// part of a whole, 0 to 1
    Share,
}

/// A distribution that every series has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Figure {
    /// kvm_entry to kvm_exit, ns
    EntryToExit,
    /// kvm_exit to the vCPU's next kvm_entry, ns; belongs to the exit that the host handled
    ExitToEntry,
    /// pin-control writes per entry
    PinWrites,
    /// VM entry and VM exit without guest code, ns
    Transition,
    /// from the deadline of the timer that caused the exit to kvm_exit, ns
    DeadlineLate,
    /// from an exit that came before the deadline of its timer to that deadline, ns
    DeadlineRemaining,
}

/// A row of the table.
struct Entry {
    name: &'static str,
    title: &'static str,
    short_title: &'static str,
    help: &'static str,
    counts_exits: bool,
    unit: Unit,
}

impl Figure {
    /// Every figure, in the order of files and tables.
    pub(crate) const ALL: [Self; 6] = [
        Self::EntryToExit,
        Self::ExitToEntry,
        Self::PinWrites,
        Self::Transition,
        Self::DeadlineLate,
        Self::DeadlineRemaining,
    ];

    const fn entry(self) -> Entry {
        match self {
            Self::EntryToExit => Entry {
                name: "entry_to_exit_ns",
                title: "guest time",
                short_title: "guest",
                help: "kvm_entry -> kvm_exit: timer VMWRITEs + VM entry + guest + VM exit",
                counts_exits: false,
                unit: Unit::Ns,
            },
            Self::ExitToEntry => Entry {
                name: "exit_to_entry_ns",
                title: "host time",
                short_title: "host",
                help: "kvm_exit -> next kvm_entry: the host's work on that exit, halts included",
                counts_exits: true,
                unit: Unit::Ns,
            },
            Self::PinWrites => Entry {
                name: "pin_writes",
                title: "pin writes",
                short_title: "pin",
                help: "pin-control VMCS writes per entry, since the previous kvm_exit",
                counts_exits: false,
                unit: Unit::Count,
            },
            Self::Transition => Entry {
                name: "transition_ns",
                title: "transition",
                short_title: "trans",
                help: "VM entry + VM exit without guest code: immediate timer exits, or every entry with the companion patch's stopwatch",
                counts_exits: false,
                unit: Unit::Ns,
            },
            Self::DeadlineLate => Entry {
                name: "deadline_late_ns",
                title: "timer lateness",
                short_title: "late",
                help: "timer's deadline -> kvm_exit: how late the VMX-preemption timer was, exits at or after their deadline only",
                counts_exits: false,
                unit: Unit::Ns,
            },
            Self::DeadlineRemaining => Entry {
                name: "deadline_remaining_ns",
                title: "timer's remaining time",
                short_title: "left",
                help: "kvm_exit -> timer's deadline: how early the VMX-preemption timer was, exits before their deadline only",
                counts_exits: false,
                unit: Unit::Ns,
            },
        }
    }

    /// Name in files and on command lines, with its unit as suffix.
    pub const fn name(self) -> &'static str {
        self.entry().name
    }

    /// Name for people.
    pub const fn title(self) -> &'static str {
        self.entry().title
    }

    /// Name for people where there is little room: at most 5 characters.
    pub(crate) const fn short_title(self) -> &'static str {
        self.entry().short_title
    }

    /// Both names: "guest time (entry_to_exit_ns)".
    pub fn heading(self) -> String {
        format!("{} ({})", self.title(), self.name())
    }

    /// What the values contain, in a line.
    pub const fn help(self) -> &'static str {
        self.entry().help
    }

    /// Whether there is one value per handled exit instead of one per entry.
    pub(crate) const fn counts_exits(self) -> bool {
        self.entry().counts_exits
    }

    /// Unit of the values.
    pub(crate) const fn unit(self) -> Unit {
        self.entry().unit
    }

    /// Whether many hosts and guests have no value of it, so that a view without values leaves it out.
    pub(crate) const fn is_rare(self) -> bool {
        matches!(self, Self::Transition | Self::DeadlineLate | Self::DeadlineRemaining)
    }

    /// Whether the values are times, which hooks before the VM entry disturb.
    pub(crate) const fn is_time(self) -> bool {
        matches!(self.unit(), Unit::Ns)
    }

    /// From its name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|figure| figure.name() == name)
    }

    /// From what people write: its name, or its short title.
    pub fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|figure| figure.name() == text || figure.short_title() == text)
    }

    /// The value of one event; none where it is not known.
    pub(crate) fn of_event(self, event: &Event) -> Option<u64> {
        match self {
            Self::EntryToExit => Some(event.entry_to_exit_ns()),
            Self::ExitToEntry => (event.exit_to_entry_ns != Event::UNKNOWN_NS).then_some(event.exit_to_entry_ns),
            Self::PinWrites => event.outline().known_pin_writes().map(u64::from),
            Self::Transition => event.known_transition_ns(),
            Self::DeadlineLate => event.deadline_late_ns(),
            Self::DeadlineRemaining => event.deadline_remaining_ns(),
        }
    }
}

impl serde::Serialize for Figure {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A number that sums a distribution up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stat {
    /// lowest value
    Min,
    /// median
    P50,
    /// 90th percentile
    P90,
    /// 99th percentile
    P99,
    /// 99.9th percentile
    P999,
    /// highest value
    Max,
    /// mean
    Mean,
}

impl Stat {
    /// Every statistic, in the order of files and tables.
    pub(crate) const ALL: [Self; 7] = [Self::Min, Self::P50, Self::P90, Self::P99, Self::P999, Self::Max, Self::Mean];

    /// Name in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Min => "min",
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P99 => "p99",
            Self::P999 => "p999",
            Self::Max => "max",
            Self::Mean => "mean",
        }
    }

    /// From what people write: its name, or its title in letters of either case, such as "p99.9".
    pub fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stat| stat.name() == text || stat.title().eq_ignore_ascii_case(text))
    }

    /// Heading of its column.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Min => "MIN",
            Self::P50 => "P50",
            Self::P90 => "P90",
            Self::P99 => "P99",
            Self::P999 => "P99.9",
            Self::Max => "MAX",
            Self::Mean => "MEAN",
        }
    }

    /// Its value; none of an empty distribution.
    pub fn of(self, histogram: &Histogram) -> Option<f64> {
        if let Some(q) = self.quantile() {
            return histogram.quantile(q).map(|v| v as f64);
        }
        match self {
            Self::Min => histogram.min().map(|v| v as f64),
            Self::Max => histogram.max().map(|v| v as f64),
            _ => histogram.mean(),
        }
    }

    /// The quantile that it is, 0..1; none for the others.
    pub const fn quantile(self) -> Option<f64> {
        match self {
            Self::P50 => Some(0.5),
            Self::P90 => Some(0.9),
            Self::P99 => Some(0.99),
            Self::P999 => Some(0.999),
            Self::Min | Self::Max | Self::Mean => None,
        }
    }

    /// Whether so many values carry it: a percentile needs one value beyond it, e.g. the 99th a hundred values.
    pub fn is_carried(self, count: u64) -> bool {
        self.quantile().map_or(count > 0, |q| is_carried(q, count))
    }
}

/// Whether so many values carry a quantile, 0..1; the highest value counts as one.
pub(crate) fn is_carried(quantile: f64, count: u64) -> bool {
    // 1 - 0.99 is a little more than 0.01.
    count > 0 && (quantile >= 1.0 || count as f64 * (1.0 - quantile) > 1.0 - 1e-9)
}

/// A figure and a statistic, from what people write: FIGURE.STATISTIC such as "guest.p99", or a statistic of host time such as "p99.9".
pub(crate) fn figure_and_stat(text: &str) -> Option<(Figure, Stat)> {
    match text.split_once('.') {
        // "p99.9" is a statistic alone.
        Some((figure, stat)) if Figure::named(figure).is_some() => Some((Figure::named(figure)?, Stat::named(stat)?)),
        _ => Some((Figure::ExitToEntry, Stat::named(text)?)),
    }
}

/// FIGURE.STATISTIC with the figures' short titles, such as "guest.p99".
pub(crate) fn short_names() -> impl Iterator<Item = String> {
    Figure::ALL.into_iter().flat_map(|f| Stat::ALL.map(|s| format!("{}.{}", f.short_title(), s.name())))
}

/// The name that was meant by a wrong FIGURE.STATISTIC: "exit.p99" means that of the figure whose name begins so; empty if none is alike.
pub(crate) fn figure_meant(text: &str, known: &[String]) -> String {
    let begun = text.split_once('.').and_then(|(begin, stat)| {
        let figure = Figure::ALL.into_iter().find(|figure| !begin.is_empty() && figure.name().starts_with(begin))?;
        Some(format!("{}.{}", figure.name(), Stat::named(stat)?.name()))
    });
    match begun.filter(|name| known.contains(name)) {
        Some(name) => format!("did you mean {name}? "),
        None => did_you_mean(text, known.iter().cloned().chain(short_names())),
    }
}

/// A column to sort by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// number of entries, which is that of exits
    Entries,
    /// sum of the host times, ns
    HostTime,
    /// a statistic of a figure
    Stat(Figure, Stat),
}

impl Column {
    /// From "time", "exits", a statistic of host time such as "mean" or "p99.9", or FIGURE.STATISTIC such as "entry_to_exit_ns.p99" or
    /// "guest.p99".
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "exits" | "entries" => Some(Self::Entries),
            "time" => Some(Self::HostTime),
            _ => figure_and_stat(name).map(|(figure, stat)| Self::Stat(figure, stat)),
        }
    }

    /// The names for people to choose from: the short ones, then FIGURE.STATISTIC of every figure.
    pub fn names() -> Vec<String> {
        let short = ["time", "exits"].into_iter().chain(Stat::ALL.map(Stat::name));
        let stats = Figure::ALL.into_iter().flat_map(|f| Stat::ALL.map(|s| format!("{}.{}", f.name(), s.name())));
        short.map(str::to_owned).chain(stats).collect()
    }

    /// The column's value; none where it is not known, and of a percentile that the number of values cannot carry.
    pub fn value(self, series: &Shown) -> Option<f64> {
        match self {
            Self::Entries => Some(series.entries() as f64),
            Self::HostTime => series.host_ns().map(|ns| ns as f64),
            Self::Stat(figure, stat) => stat.of(&series[figure]).filter(|_| stat.is_carried(series[figure].count())),
        }
    }
}

/// A value as people read it: "812ns", "1.23us", "0.10"; "n/a" where it is not known.
pub(crate) fn human(value: Option<f64>, unit: Unit) -> String {
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
                // 171.8 s names an erratum, and 172 s does not.
                s if s < 100.0 || suffix == "s" => 1,
                _ => 0,
            };
            format!("{scaled:.digits$}{suffix}")
        }
        Unit::Count if value.fract() == 0.0 => format!("{value:.0}"),
        // 0.000 would read as none.
        Unit::Count if value > 0.0 && value < 0.0005 => "<0.001".into(),
        Unit::Count => format!("{value:.3}"),
        Unit::PerSecond if value < 100.0 => format!("{value:.1}"),
        Unit::PerSecond => grouped(truncated_u64(value.round())),
        Unit::Share => format!("{:.1}%", value * 100.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_reads_n_a_and_never_zero() {
        assert_eq!(human(None, Unit::Ns), "n/a");
        assert_eq!(human(Some(0.0), Unit::Ns), "0ns");
        assert!(Stat::ALL.iter().all(|s| s.of(&Histogram::default()).is_none()));
    }

    #[test]
    fn three_digits_tell_a_duration_and_minutes_have_tenths_of_a_second() {
        let values = [999.0, 1000.0, 12_345.0, 123_456.0, 1.5e9, 1.718e11];
        let texts = values.map(|v| human(Some(v), Unit::Ns));
        assert_eq!(texts, ["999ns", "1.00us", "12.3us", "123us", "1.50s", "171.8s"]);
    }

    #[test]
    fn every_column_is_found_by_its_name() {
        assert!(Column::names().iter().all(|n| Column::parse(n).is_some()));
        let host = |stat| Some(Column::Stat(Figure::ExitToEntry, stat));
        let guest = Some(Column::Stat(Figure::EntryToExit, Stat::P999));
        assert_eq!((Column::parse("time"), Column::parse("entries")), (Some(Column::HostTime), Some(Column::Entries)));
        assert_eq!((Column::parse("p99"), Column::parse("mean")), (host(Stat::P99), host(Stat::Mean)));
        assert_eq!((Column::parse("p99.9"), Column::parse("p999")), (host(Stat::P999), host(Stat::P999)));
        assert_eq!((Column::parse("entry_to_exit_ns.p99.9"), Column::parse("guest.p999")), (guest, guest));
        assert!(["entry_to_exit_ns.p98", "entry_to_exit_ns", "", "."].iter().all(|n| Column::parse(n).is_none()));
    }

    #[test]
    fn a_slip_finds_the_figure_by_its_short_title_or_by_the_beginning_of_its_name() {
        let meant = |text| figure_meant(text, &Column::names());
        assert_eq!(meant("guset.p50"), "did you mean guest.p50? ");
        assert_eq!(meant("exit.p99.9"), "did you mean exit_to_entry_ns.p999? ");
        assert_eq!((meant("entry.p50"), meant("zzz")), ("did you mean entry_to_exit_ns.p50? ".into(), String::new()));
    }

    #[test]
    fn a_percentile_needs_a_value_beyond_it() {
        let least = |stat: Stat| (1..2000).find(|n| stat.is_carried(*n));
        assert_eq!([Stat::P50, Stat::P90, Stat::P99, Stat::P999].map(least), [2, 10, 100, 1000].map(Some));
        assert_eq!([Stat::Min, Stat::Max, Stat::Mean].map(least), [Some(1); 3]);
    }

    #[test]
    fn a_little_is_not_none() {
        assert_eq!([0.0, 0.0001, 0.003, 7.0].map(|v| human(Some(v), Unit::Count)), ["0", "<0.001", "0.003", "7"]);
    }

    #[test]
    fn a_figure_has_a_place_of_its_own_in_a_series() {
        let places: Vec<_> = Figure::ALL.iter().map(|&figure| figure as usize).collect();
        assert_eq!(places, [0, 1, 2, 3, 4, 5]);
    }
}
