//! The budget of a row: its guest time and the parts of its host time, as far as they are known.

use ratatui::style::Style;

use super::{palette::Palette, sum::Sum};
use crate::model::{
    budget::Phase,
    figures::Figure,
    knowledge::{Knowledge, Subject, Unknown},
};

/// Where vCPUs' time goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// guest time
    Guest,
    /// host time, of which no part is known
    Host,
    /// a part of the host time
    Part(Phase),
}

impl Kind {
    /// Name for people.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Host => "host",
            Self::Part(phase) => phase.name(),
        }
    }

    /// Character of its part of the bar, and the same in ASCII: neighbours differ without colours, too.
    pub(super) const fn glyph(self) -> (&'static str, &'static str) {
        match self {
            Self::Guest => ("█", "#"),
            Self::Host | Self::Part(Phase::Kernel) => ("▓", "="),
            Self::Part(Phase::User) => ("▒", "+"),
            Self::Part(Phase::Polled) => ("▚", "o"),
            Self::Part(Phase::Idle) => ("░", "."),
            Self::Part(Phase::Steal) => ("▞", "x"),
        }
    }

    /// Its colour.
    pub(super) fn style(self, palette: Palette) -> Style {
        match self {
            Self::Guest => palette.clean(),
            Self::Host | Self::Part(Phase::Kernel) => palette.host(),
            Self::Part(Phase::User) => palette.user(),
            Self::Part(Phase::Polled) => palette.dirty(),
            Self::Part(Phase::Idle) => palette.quiet(),
            Self::Part(Phase::Steal) => palette.higher(),
        }
    }
}

/// A part of the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// its kind
    pub(super) kind: Kind,
    /// ns
    pub(super) ns: u64,
}

/// The parts of a row's time that are known, in the order of the bar, or the reason why none is.
pub(super) fn parts(sum: &Sum, knowledge: &Knowledge) -> Result<Vec<Part>, Unknown> {
    knowledge.known(Subject::Times).map_err(Unknown::clone)?;
    let Some(budget) = sum.series.budget() else { return Err(Unknown::because("times are not known")) };
    if sum.series[Figure::ExitToEntry].count() == 0 {
        return Err(Unknown::because("no entry was seen after its exits, so their host time is not known"));
    }
    let mut parts = vec![Part { kind: Kind::Guest, ns: budget.guest_ns }];
    let known = |phase: Phase| sum.series.phase(phase).map(|ns| Part { kind: Kind::Part(phase), ns });
    let others: Vec<_> = Phase::ALL.into_iter().filter(|p| *p != Phase::Kernel).filter_map(known).collect();
    let rest_ns = others.iter().fold(budget.host_ns, |rest, part| rest.saturating_sub(part.ns));
    parts.push(Part { kind: if others.is_empty() { Kind::Host } else { Kind::Part(Phase::Kernel) }, ns: rest_ns });
    parts.extend(others);
    // A detail has no guest time: it has exits alone.
    parts.retain(|part| part.kind != Kind::Guest || part.ns > 0);
    Ok(parts)
}

/// The parts of the host time that are not known, each with the reason: they are in the kernel's part.
pub(super) fn unknown(knowledge: &Knowledge) -> impl Iterator<Item = (Phase, &Unknown)> {
    Phase::ALL.into_iter().filter_map(|phase| Some((phase, knowledge.known(Subject::of_phase(phase)?).err()?)))
}
