//! VMs, vCPUs and details of exits that commands trace.

use std::{ops::RangeInclusive, path::PathBuf};

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::candidates::{running_vms, vm_labels};
use crate::{host::labels::rules::LabelRules, model::vcpu_range::vcpu_range};

/// VMs and vCPUs to trace; without arguments, all.
#[derive(Debug, Default, PartialEq, Eq, Args)]
pub struct Targets {
    /// Only VMs of this name, process or LABEL=VALUE
    #[arg(long, value_name = "VM", add = running_vms())]
    pub vm: Vec<String>,
    /// Only VMs of this process [repeatable]
    #[arg(long, value_name = "PID")]
    pub pid: Vec<u32>,
    /// Only these vCPU numbers, e.g. 0-3,7
    #[arg(long, value_name = "N|N-M,..", value_delimiter = ',', value_parser = vcpu_range)]
    pub vcpu: Vec<RangeInclusive<u32>>,
}

/// The labels that metrics have of VMs.
#[derive(Debug, Args)]
pub struct VmLabelNames {
    /// Labels of VMs in metrics, e.g. name,uuid
    #[arg(long, value_name = "LABEL,..", value_delimiter = ',', default_value = "name", add = vm_labels())]
    pub vm_labels: Vec<String>,
}

/// The file of rules for labels of VMs.
#[derive(Debug, Default, Args)]
pub struct LabelRulesFile {
    /// File of rules for labels ('vmentry help metrics')
    #[arg(long, value_name = "F")]
    pub vm_label_rules: Option<PathBuf>,
}

impl LabelRulesFile {
    /// Reads the rules; there are none without a file.
    pub(crate) fn read(&self) -> Result<LabelRules> {
        self.vm_label_rules.as_deref().map(LabelRules::read).transpose().map(Option::unwrap_or_default)
    }
}

/// Which details of exits are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DetailKind {
    /// what registers and the VMCS tell
    Exits,
    /// also guest-physical addresses of accesses that KVM emulates, by its tracepoints kvm_mmio and kvm_fast_mmio
    Addresses,
}

/// Whether exits are looked at beyond their reasons.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Details {
    /// Tell exits apart by MSR, port, CPUID leaf, vector, etc.; =addresses adds those of emulated accesses
    #[arg(long, value_name = "WHAT", value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "exits",
          hide_possible_values = true)]
    pub detail: Option<DetailKind>,
}

impl Details {
    /// Whether details were asked for.
    pub(crate) fn are_wanted(self) -> bool {
        self.detail.is_some()
    }

    /// Whether addresses were asked for, too.
    pub(crate) fn have_addresses(self) -> bool {
        self.detail == Some(DetailKind::Addresses)
    }
}
