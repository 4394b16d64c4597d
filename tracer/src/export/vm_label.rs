//! Labels that tell VMs apart in metrics.

use crate::{export::metrics::VM_LABELS, model::interval::Vm};

/// Labels that may identify VMs in addition to their names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum VmLabel {
    /// name of the host
    Host,
    /// process of the VMM
    Pid,
    /// effective user of that process
    Uid,
    /// number of the VM within its process
    Ordinal,
    /// one of its labels, by key
    Key(String),
}

impl VmLabel {
    /// The names that `--vm-labels` knows without a rule file.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        ["name"].into_iter().chain(VM_LABELS.into_iter().filter(|label| *label != "host"))
    }

    /// The label of this name, as `--vm-labels` has it; none of "name", which every VM has.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "name" => None,
            "pid" => Some(Self::Pid),
            "uid" => Some(Self::Uid),
            "ordinal" => Some(Self::Ordinal),
            key => Some(Self::Key(key.to_owned())),
        }
    }

    /// Its name in metrics.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Host => "host",
            Self::Pid => "pid",
            Self::Uid => "uid",
            Self::Ordinal => "ordinal",
            Self::Key(key) => key,
        }
    }

    /// The value; empty where it is not known, so that all series of a metric have the same labels.
    pub(super) fn of(&self, vm: &Vm) -> String {
        match self {
            Self::Host => vm.host.clone().unwrap_or_default(),
            Self::Pid => vm.tgid.to_string(),
            Self::Uid => vm.uid.map(|uid| uid.to_string()).unwrap_or_default(),
            Self::Ordinal => vm.ordinal.to_string(),
            Self::Key(key) => vm.labels.get(key).unwrap_or_default().to_owned(),
        }
    }
}
