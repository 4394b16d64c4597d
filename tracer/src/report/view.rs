//! How a report is cut: dimensions, filters, order.

use super::Filter;
use crate::model::figures::Column;

/// A property that entries are grouped and filtered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dimension {
    /// name of the host
    Host,
    /// name of the VM
    Vm,
    /// KVM's number of the vCPU
    Vcpu,
    /// L1, L2
    Level,
    /// exit reason
    Reason,
    /// clean, dirty
    Entry,
    /// cause of a timer exit
    Cause,
    /// what an exit was about beyond its reason: rows of exits, without entries
    Detail,
}

impl Dimension {
    /// Every dimension, in the order of a report's columns.
    pub(crate) const ALL: [Dimension; 8] =
        [Self::Host, Self::Vm, Self::Vcpu, Self::Level, Self::Reason, Self::Entry, Self::Cause, Self::Detail];

    /// Name on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Vm => "vm",
            Self::Vcpu => "vcpu",
            Self::Level => "level",
            Self::Reason => "reason",
            Self::Entry => "entry",
            Self::Cause => "cause",
            Self::Detail => "detail",
        }
    }

    /// From its name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|d| d.name() == name)
    }
}

/// How a report is cut.
#[derive(Clone, Debug)]
pub struct View {
    /// dimensions that make a row
    pub by: Vec<Dimension>,
    /// all must pass
    pub filters: Vec<Filter>,
    /// rows with the highest value come first
    pub sort: Column,
    /// rows shown; none for all
    pub top: Option<usize>,
}

impl Default for View {
    /// By VM, level and exit reason, those of most host time first.
    fn default() -> Self {
        Self {
            by: vec![Dimension::Vm, Dimension::Level, Dimension::Reason],
            filters: vec![],
            sort: Column::HostTime,
            top: None,
        }
    }
}
