//! The KVM module that runs the VMs: kvm_intel or kvm_amd.

use serde::{Deserialize, Serialize};
use tracer_common::Isa;

/// The module that runs VMs on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vendor {
    /// kvm_intel: VMX
    Intel,
    /// kvm_amd: SVM
    Amd,
    /// another module: entries and exits only, no reasons
    Other,
}

impl Vendor {
    /// Name of its kernel module; none for a module that is neither kvm_intel nor kvm_amd.
    pub const fn module(self) -> Option<&'static str> {
        match self {
            Self::Intel => Some("kvm_intel"),
            Self::Amd => Some("kvm_amd"),
            Self::Other => None,
        }
    }

    /// The instruction set that it runs guests with; none for a module that is neither kvm_intel nor kvm_amd.
    pub(crate) const fn isa(self) -> Option<Isa> {
        match self {
            Self::Intel => Some(Isa::Vmx),
            Self::Amd => Some(Isa::Svm),
            Self::Other => None,
        }
    }
}
