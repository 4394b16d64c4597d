//! A series: the distributions of the entries that have VM, vCPU, level, exit reason, kind of entry and timer cause in common.

use std::{
    hash::{Hash, Hasher},
    ops::{Index, IndexMut},
};

use tracer_common::{Isa, Outline, rules::TimerCause};

use crate::model::{budget::Budget, detail::Detail, figures::Figure, histogram::Histogram};

/// The level that an entry enters: the host's guest or a nested one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// the host's guest
    L1,
    /// a nested guest
    L2,
    /// not readable on this kernel
    Unknown,
}

/// Whether pin controls were written before the entry: the natural experiment on what a write costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// no write since the previous kvm_exit
    Clean,
    /// at least one
    Dirty,
    /// not known: no source of the figure, or the first entries of a vCPU
    Unknown,
}

/// Identifies a series within an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// [`Vm::id`]
    pub vm: u32,
    /// KVM's number of the vCPU
    pub vcpu: u32,
    /// level that the entry entered
    pub level: Level,
    /// the instruction set that `reason` is a code of
    pub isa: Isa,
    /// exit reason that ended the entry; none where it could not be read
    pub reason: Option<u32>,
    /// with or without pin-control writes
    pub entry: EntryKind,
    /// cause of a preemption-timer exit; none for other exits
    pub cause: Option<TimerCause>,
    /// what the exits were about, of a series of exits alone: it has host times and no entries. None where that was not asked for, and where
    /// it is not known
    pub detail: Option<Detail>,
}

impl Default for Key {
    /// An entry of which nothing is known.
    fn default() -> Self {
        Self::of(0, 0, &Outline::default())
    }
}

/// The distributions of the entries of one key, one a [`Figure`], empty where nothing is known.
///
/// The count of [`Figure::EntryToExit`] is the number of entries. [`Figure::ExitToEntry`] has as many values as these entries' exits were
/// followed by another entry; [`Figure::Transition`] those of immediate timer exits, or with the stopwatch all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Series {
    distributions: [Histogram; Figure::ALL.len()],
    /// exact sums of the times
    pub budget: Budget,
}

impl Index<Figure> for Series {
    type Output = Histogram;

    fn index(&self, figure: Figure) -> &Histogram {
        &self.distributions[figure as usize]
    }
}

impl IndexMut<Figure> for Series {
    fn index_mut(&mut self, figure: Figure) -> &mut Histogram {
        &mut self.distributions[figure as usize]
    }
}

impl Series {
    /// With a distribution of each figure, and sums of times as exact as these are.
    pub fn from_fn(distribution: impl FnMut(Figure) -> Histogram) -> Self {
        let mut series = Self { distributions: Figure::ALL.map(distribution), budget: Budget::default() };
        series.budget = Budget::of_distributions(&series);
        series
    }

    /// With these distributions, by [`Figure`], and sums of times.
    pub(crate) fn of(distributions: [Histogram; Figure::ALL.len()], budget: Budget) -> Self {
        Self { distributions, budget }
    }

    /// Its distributions, by [`Figure`].
    pub(crate) fn into_distributions(self) -> [Histogram; Figure::ALL.len()] {
        self.distributions
    }

    /// Adds another's values.
    pub fn merge(&mut self, other: &Series) {
        for (mine, theirs) in self.distributions.iter_mut().zip(&other.distributions) {
            mine.merge(theirs);
        }
        self.budget.merge(&other.budget);
    }

    /// Adds another's values; returns by how many histogram buckets this one grew.
    pub(crate) fn absorb(&mut self, other: &Series) -> usize {
        let before = self.buckets();
        self.merge(other);
        self.buckets() - before
    }

    /// Buckets of all its histograms.
    pub(crate) fn buckets(&self) -> usize {
        self.distributions.iter().map(Histogram::len).sum()
    }

    /// Number of entries.
    pub fn entries(&self) -> u64 {
        self[Figure::EntryToExit].count()
    }

    /// Whether it has no value of any figure.
    pub fn is_empty(&self) -> bool {
        Figure::ALL.into_iter().all(|figure| self[figure].count() == 0)
    }
}

impl Key {
    /// The key of a round's series.
    pub fn of(vm: u32, vcpu: u32, round: &Outline) -> Self {
        Self {
            vm,
            vcpu,
            level: match round.is_l2() {
                Some(false) => Level::L1,
                Some(true) => Level::L2,
                None => Level::Unknown,
            },
            isa: round.isa(),
            reason: round.reason(),
            entry: match round.known_pin_writes() {
                Some(0) => EntryKind::Clean,
                Some(_) => EntryKind::Dirty,
                None => EntryKind::Unknown,
            },
            cause: round.timer_cause(),
            detail: None,
        }
    }
}

impl Hash for Key {
    /// Two words instead of eight: hashing was a tenth of the collector's time (benches/collect.rs).
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.vm) << 32 | u64::from(self.vcpu));
        let small = [
            self.level as u32,
            self.isa as u32,
            u32::from(self.reason.is_some()),
            self.entry as u32,
            self.cause.map_or(0, |cause| 1 + cause as u32),
        ];
        let small = small.iter().fold(0, |word, field| word << 3 | field);
        state.write_u64(u64::from(self.reason.unwrap_or(0)) << 32 | u64::from(small));
        if let Some(detail) = self.detail {
            detail.hash(state);
        }
    }
}

macro_rules! names {
    ($type:ty { $($variant:ident = $name:literal),+ $(,)? }) => {
        impl $type {
            /// Name in reports and files.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// From its name.
            pub fn parse(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

names!(Level { L1 = "L1", L2 = "L2", Unknown = "unknown" });
names!(EntryKind { Clean = "clean", Dirty = "dirty", Unknown = "unknown" });
