//! The table's columns: the figures of [`crate::model::figures`] and the counts that need more than one series.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tracer_common::{Isa, rules::TimerCause};

use super::{
    history::Slice,
    rows::{Matcher, Node},
    series_sum::Tally,
};
use crate::model::{
    figures::{Figure, Stat, Unit, human},
    interval::{EntryKind, Series},
};

/// Sums of single intervals that are remembered at most.
const MAX_PARTS: usize = 4096;

/// What sums are made of: windows share all of their intervals but one with the next one.
#[derive(Debug, Default)]
pub struct Parts {
    sums: HashMap<(u64, Node), Sum>,
    slice: Tally,
    window: Tally,
}

impl Parts {
    /// Forgets all sums but those of these intervals.
    pub fn keep<'a>(&mut self, slices: impl Iterator<Item = &'a Arc<Slice>>) {
        let numbers: HashSet<u64> = slices.map(|s| s.number).collect();
        self.sums.retain(|(number, _), _| numbers.contains(number));
    }
}

/// What was seen of a node in a window.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    /// seconds of observation
    pub seconds: f64,
    /// all its distributions, merged
    pub series: Series,
    /// entries with pin-control writes
    pub dirty: u64,
    /// entries of which it is known whether they had some
    pub known: u64,
    /// timer exits in the order of [`TimerCause::ALL`]
    pub timer_exits: [u64; 4],
    /// every exit was one of VMX
    pub vmx: bool,
}

impl Sum {
    /// Of a node in a window.
    pub fn of(slices: &[Arc<Slice>], node: Node, matcher: &Matcher, parts: &mut Parts) -> Self {
        if let [slice] = slices {
            return Self::of_slice(slice, node, matcher, &mut parts.slice);
        }
        let mut sum = Self { vmx: true, ..Self::default() };
        for slice in slices {
            if let Some(part) = parts.sums.get(&(slice.number, node)) {
                sum.add(part, &mut parts.window);
                continue;
            }
            let part = Self::of_slice(slice, node, matcher, &mut parts.slice);
            sum.add(&part, &mut parts.window);
            if parts.sums.len() < MAX_PARTS {
                parts.sums.insert((slice.number, node), part);
            }
        }
        sum.series = parts.window.take();
        sum
    }

    fn of_slice(slice: &Slice, node: Node, matcher: &Matcher, tally: &mut Tally) -> Self {
        let mut sum = Self { vmx: true, seconds: slice.interval.length_ns as f64 / 1e9, ..Self::default() };
        for (key, entries) in node.keys(slice).filter(|(key, _)| matcher.passes(key)) {
            if let Some(series) = slice.interval.series.get(key) {
                tally.add(series);
            }
            sum.vmx &= key.isa == Isa::Vmx;
            if key.entry != EntryKind::Unknown {
                sum.known += entries;
                sum.dirty += if key.entry == EntryKind::Dirty { *entries } else { 0 };
            }
            if let Some(at) = key.cause.and_then(|c| TimerCause::ALL.iter().position(|&a| a == c)) {
                sum.timer_exits[at] += entries;
            }
        }
        sum.series = tally.take();
        sum
    }

    /// Adds another's counts; its distributions go to the tally.
    fn add(&mut self, other: &Self, tally: &mut Tally) {
        tally.add(&other.series);
        self.seconds += other.seconds;
        self.dirty += other.dirty;
        self.known += other.known;
        self.vmx &= other.vmx;
        for (mine, theirs) in self.timer_exits.iter_mut().zip(other.timer_exits) {
            *mine += theirs;
        }
    }

    /// Timer exits of a cause; none where causes are not known of all.
    fn timer_exits(&self, cause: TimerCause) -> Option<f64> {
        let of = |c| TimerCause::ALL.iter().zip(self.timer_exits).find(|(a, _)| **a == c).map_or(0, |(_, n)| n);
        (self.vmx && self.series.entries() > 0 && of(TimerCause::Unknown) == 0).then(|| of(cause) as f64)
    }

    /// The values of all columns.
    pub fn values(&self) -> Values {
        COLUMNS.map(|column| match column.of {
            Derivation::Stat(figure, stat) => stat.of(&self.series[figure]),
            Derivation::Sum(of) => of(self),
        })
    }
}

/// Values of all columns; none where not known.
pub type Values = [Option<f64>; COLUMNS.len()];

/// What a column's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ns
    Time,
    /// per second
    Rate,
    /// in the window
    Count,
    /// mean of counts
    Mean,
    /// share, in percent
    Percent,
}

/// Where a column's values come from.
#[derive(Clone, Copy, Debug)]
pub enum Derivation {
    /// a statistic of a figure
    Stat(Figure, Stat),
    /// more than one series
    Sum(fn(&Sum) -> Option<f64>),
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// name of the figure, above the titles of its columns
    pub group: &'static str,
    /// the same where there is no room for it
    pub short_group: &'static str,
    /// title
    pub title: &'static str,
    /// characters, without the gap
    pub width: u16,
    /// 0 is dropped last when there is not enough room
    pub rank: u8,
    /// what its values are
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
    Column { group, short_group, title, width: 6, rank, kind: Kind::Count, of: Derivation::Sum(of) }
}

/// All columns, in the order they are shown; the first is what rows are sorted by at first.
pub const COLUMNS: [Column; 14] = [
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
        of: Derivation::Sum(|s| (s.known > 0).then(|| 100.0 * s.dirty as f64 / s.known as f64)),
    },
    timer("DUE", 11, |s| s.timer_exits(TimerCause::Deadline)),
    timer("IMMED", 12, |s| s.timer_exits(TimerCause::Immediate)),
    timer("SPUR", 5, |s| s.timer_exits(TimerCause::Spurious)),
    // Last to be given room: without the companion patch's stopwatch there are few values.
    stat(Figure::Transition, Stat::P50, 13),
    stat(Figure::Transition, Stat::P99, 14),
];

/// Rank of the sparkline among the columns.
pub const SPARK_RANK: u8 = 10;

/// How times are written.
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
    /// A value as the table shows it; "n/a" where it is not known.
    pub fn text(&self, value: Option<f64>, units: Units) -> String {
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

    /// Name with its figure, for a title that stands alone.
    pub fn full_name(&self) -> String {
        match self.group {
            "" => self.title.to_lowercase(),
            group => format!("{group} {}", self.title.to_lowercase()),
        }
    }
}

/// A count in five characters.
pub fn short(value: f64) -> String {
    let (scaled, suffix) = match value {
        v if v < 1e4 => return format!("{v:.0}"),
        v if v < 1e6 => (v / 1e3, "k"),
        v if v < 1e9 => (v / 1e6, "M"),
        v => (v / 1e9, "G"),
    };
    let digits = usize::from(scaled < 100.0);
    format!("{scaled:.digits$}{suffix}")
}

/// Change against a baseline in percent; none where either is not known, or where there was nothing to grow from.
pub fn change(now: Option<f64>, before: Option<f64>) -> Option<f64> {
    let (now, before) = (now?, before?);
    if now == before {
        return Some(0.0);
    }
    (before != 0.0).then(|| 100.0 * (now / before - 1.0))
}

/// A change as the table shows it.
pub fn change_text(percent: Option<f64>) -> String {
    match percent {
        None => "n/a".into(),
        Some(p) if p.abs() < 0.05 => "=".into(),
        Some(p) if p.abs() < 9.95 => format!("{p:+.1}%"),
        Some(p) if p < 999.5 => format!("{p:+.0}%"),
        Some(_) => ">999%".into(),
    }
}
