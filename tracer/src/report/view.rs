//! How a report is cut: dimensions, filters, order.

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
}

impl Dimension {
    /// Every dimension, in the order of a report's columns.
    pub(crate) const ALL: [Dimension; 7] =
        [Self::Host, Self::Vm, Self::Vcpu, Self::Level, Self::Reason, Self::Entry, Self::Cause];

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
        }
    }

    /// From its name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|d| d.name() == name)
    }
}

/// Keeps entries whose dimension has one of the values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// the dimension
    pub dimension: Dimension,
    /// as shown in reports; case is ignored
    pub values: Vec<String>,
}

impl Filter {
    /// From "reason=CPUID,HLT".
    pub fn parse(text: &str) -> Result<Self, String> {
        let names = || Dimension::ALL.map(Dimension::name).join(", ");
        let (name, values) =
            text.split_once('=').ok_or_else(|| format!("filter '{text}': write DIMENSION=VALUE[,VALUE...]"))?;
        let dimension = Dimension::parse(name)
            .ok_or_else(|| format!("filter '{text}': no dimension '{name}' (there are {})", names()))?;
        Ok(Self { dimension, values: values.split(',').map(|v| v.trim().to_lowercase()).collect() })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_filter_is_refused_with_the_dimensions_there_are() {
        assert!(Filter::parse("color=red").unwrap_err().contains("host, vm, vcpu, level"));
        assert!(Filter::parse("reason").unwrap_err().contains("DIMENSION=VALUE"));
    }
}
