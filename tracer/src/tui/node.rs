//! The nodes of the tree that the table shows: VMs, vCPUs, exit reasons.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tracer_common::Isa;

use super::history::Slice;
use crate::model::{self, interval::Vm, series::Key};

/// A node of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Node {
    /// a VM
    Vm(u32),
    /// a vCPU of a VM
    Vcpu(u32, u32),
    /// an exit reason of a vCPU
    Exit(u32, u32, Isa, Option<u32>),
    /// an exit reason of all vCPUs
    Reason(Isa, Option<u32>),
}

impl Node {
    /// The keys that belong to it.
    pub fn keys(self, slice: &Slice) -> impl Iterator<Item = &(Key, u64)> {
        let keys = &slice.keys[..];
        let range = match self {
            Self::Vm(vm) => range(keys, |k| k.vm.cmp(&vm)),
            Self::Vcpu(vm, vcpu) | Self::Exit(vm, vcpu, ..) => range(keys, |k| (k.vm, k.vcpu).cmp(&(vm, vcpu))),
            Self::Reason(..) => keys,
        };
        range.iter().filter(move |(key, _)| match self {
            Self::Vm(_) | Self::Vcpu(..) => true,
            Self::Exit(_, _, isa, reason) | Self::Reason(isa, reason) => key.isa == isa && key.reason == reason,
        })
    }

    /// Its parent in the tree; none at the first level.
    pub fn parent(self, group: Group) -> Option<Self> {
        match self {
            Self::Vcpu(vm, _) if group == Group::Vm => Some(Self::Vm(vm)),
            Self::Exit(vm, vcpu, ..) => Some(Self::Vcpu(vm, vcpu)),
            _ => None,
        }
    }

    pub(super) fn unfolds(self) -> bool {
        matches!(self, Self::Vm(_) | Self::Vcpu(..))
    }

    /// The child of `parent` that a key belongs to; without a parent, a node of the first level.
    pub(super) fn of(key: &Key, group: Group, parent: Option<Node>) -> Node {
        match (parent, group) {
            (None, Group::Vm) => Self::Vm(key.vm),
            (None, Group::Vcpu) | (Some(Self::Vm(_)), _) => Self::Vcpu(key.vm, key.vcpu),
            (None, Group::Reason) => Self::Reason(key.isa, key.reason),
            (Some(_), _) => Self::Exit(key.vm, key.vcpu, key.isa, key.reason),
        }
    }
}

fn range(keys: &[(Key, u64)], order: impl Fn(&Key) -> Ordering) -> &[(Key, u64)] {
    let from = keys.partition_point(|(k, _)| order(k) == Ordering::Less);
    let length = keys[from..].partition_point(|(k, _)| order(k) == Ordering::Equal);
    &keys[from..from + length]
}

/// How the table is grouped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Group {
    /// VMs, unfolding to vCPUs and exit reasons
    #[default]
    Vm,
    /// vCPUs of all VMs, unfolding to exit reasons
    Vcpu,
    /// exit reasons of all vCPUs
    Reason,
}

impl Group {
    /// The next grouping.
    pub fn next(self) -> Self {
        match self {
            Self::Vm => Self::Vcpu,
            Self::Vcpu => Self::Reason,
            Self::Reason => Self::Vm,
        }
    }

    /// Title of the first column.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Vm => "VM",
            Self::Vcpu => "VCPU",
            Self::Reason => "EXIT REASON",
        }
    }
}

/// Names of the VMs of some intervals.
pub(crate) fn vm_names(slices: &[Arc<Slice>]) -> HashMap<u32, String> {
    let vms: BTreeMap<u32, &Vm> = slices.iter().flat_map(|s| &s.interval.vms).map(|(id, vm)| (*id, &**vm)).collect();
    model::vm_names::vm_names(vms.into_values()).into_iter().map(|(id, name)| (id, name.on_host)).collect()
}

/// Name of a vCPU within its VM.
pub(crate) fn vcpu_name(vcpu: u32) -> String {
    format!("vcpu {vcpu}")
}
