//! The budget of a row: its guest time and the parts of its host time.

use ratatui::style::Style;

use super::{palette::Palette, sum::Sum};
use crate::model::{
    figures::Figure,
    knowledge::{Knowledge, Unknown},
};

/// Where a vCPU's time goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// kvm_entry to kvm_exit
    Guest,
    /// kvm_exit to kvm_entry
    Host,
}

impl Kind {
    /// Name for people.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Host => "host",
        }
    }

    /// Character of its part of the bar.
    pub(super) const fn glyph(self) -> &'static str {
        match self {
            Self::Guest => "█",
            Self::Host => "▓",
        }
    }

    /// The same in ASCII.
    pub(super) const fn ascii(self) -> &'static str {
        match self {
            Self::Guest => "#",
            Self::Host => "=",
        }
    }

    /// Its colour.
    pub(super) fn style(self, palette: Palette) -> Style {
        match self {
            Self::Guest => palette.clean(),
            Self::Host => palette.host(),
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

/// The parts of a row's time, in the order of the bar, or the reason why they are not known.
pub(super) fn parts(sum: &Sum, knowledge: &Knowledge) -> Result<Vec<Part>, Unknown> {
    [(Kind::Guest, Figure::EntryToExit), (Kind::Host, Figure::ExitToEntry)]
        .into_iter()
        .map(|(kind, figure)| {
            knowledge.figure(figure).map_err(Unknown::clone)?;
            Ok(Part { kind, ns: super::weight::total_ns(&sum.series[figure]) })
        })
        .collect()
}
