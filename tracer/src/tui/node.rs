//! The nodes of the tree that the table shows: VMs, vCPUs, exit reasons.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tracer_common::Isa;

use super::{history::Slice, weight::Weight};
use crate::model::{
    self,
    detail::Detail,
    interval::Vm,
    series::{Key, Level},
};

/// A node of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Node {
    /// a VM
    Vm(u32),
    /// a vCPU of a VM
    Vcpu(u32, u32),
    /// an exit reason of some vCPUs
    Exit(Scope, Isa, Option<u32>),
    /// exits of a reason with this detail; none are those whose detail is not known
    Detail(Scope, Isa, Option<u32>, Option<Detail>),
}

/// The vCPUs whose exits a row holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// all of the host
    Host,
    /// those of a VM
    Vm(u32),
    /// a vCPU of a VM
    Vcpu(u32, u32),
}

impl Node {
    /// The keys that belong to it, found without a look at the others: a table may have a row for each of them.
    pub fn keys(self, slice: &Slice) -> impl Iterator<Item = &(Key, Weight)> {
        let keys = &slice.keys[..];
        let none = &keys[..0];
        let (node, detail) = match self {
            Self::Detail(scope, isa, reason, detail) => (Self::Exit(scope, isa, reason), Some(detail)),
            node => (node, None),
        };
        let (ranges, of_reason) = match node {
            Self::Vm(vm) => ([range(keys, |k| k.vm.cmp(&vm)), none, none], None),
            Self::Vcpu(vm, vcpu) => ([range(keys, |k| (k.vm, k.vcpu).cmp(&(vm, vcpu))), none, none], None),
            Self::Exit(Scope::Vcpu(vm, vcpu), isa, reason) | Self::Detail(Scope::Vcpu(vm, vcpu), isa, reason, _) => {
                let of_level = |level| {
                    range(keys, |k| (k.vm, k.vcpu, k.level, k.isa, k.reason).cmp(&(vm, vcpu, level, isa, reason)))
                };
                ([Level::L1, Level::L2, Level::Unknown].map(of_level), None)
            }
            Self::Exit(Scope::Vm(vm), isa, reason) | Self::Detail(Scope::Vm(vm), isa, reason, _) => {
                ([none; 3], Some(slice.of_reason(isa, reason, Some(vm))))
            }
            Self::Exit(Scope::Host, isa, reason) | Self::Detail(Scope::Host, isa, reason, _) => {
                ([none; 3], Some(slice.of_reason(isa, reason, None)))
            }
        };
        let keys = ranges.into_iter().flatten().chain(of_reason.into_iter().flatten());
        keys.filter(move |(key, _)| detail.is_none_or(|detail| key.detail == detail))
    }

    /// Its parent in the tree; none at the first level.
    pub fn parent(self) -> Option<Self> {
        match self {
            Self::Exit(Scope::Vm(vm), ..) => Some(Self::Vm(vm)),
            Self::Exit(Scope::Vcpu(vm, vcpu), ..) => Some(Self::Vcpu(vm, vcpu)),
            Self::Detail(scope, isa, reason, _) => Some(Self::Exit(scope, isa, reason)),
            _ => None,
        }
    }

    /// Whether there are nodes below it: below an exit reason, where details of its exits are known.
    pub(super) fn unfolds(self, weight: &Weight) -> bool {
        match self {
            Self::Vm(_) | Self::Vcpu(..) => true,
            Self::Exit(..) => weight.detailed > 0,
            Self::Detail(..) => false,
        }
    }

    /// The weight of its keys as this node has it: a detail has no entries, so its exits are those that were followed by an entry.
    pub(super) fn weigh(self, weight: Weight) -> Weight {
        match self {
            Self::Detail(..) => Weight { exits: weight.handled, ..weight },
            _ => weight,
        }
    }

    /// The child of `parent` that a key belongs to; without a parent, a node of the first level.
    pub(super) fn of(key: &Key, group: Group, parent: Option<Node>) -> Node {
        match (parent, group) {
            (None, Group::Vm) => Self::Vm(key.vm),
            (None, Group::Vcpu) => Self::Vcpu(key.vm, key.vcpu),
            (Some(Self::Vm(vm)), _) => Self::Exit(Scope::Vm(vm), key.isa, key.reason),
            (Some(Self::Vcpu(vm, vcpu)), _) => Self::Exit(Scope::Vcpu(vm, vcpu), key.isa, key.reason),
            (Some(Self::Exit(scope, isa, reason)), _) => Self::Detail(scope, isa, reason, key.detail),
            (None, Group::Reason) | (Some(_), _) => Self::Exit(Scope::Host, key.isa, key.reason),
        }
    }
}

fn range(keys: &[(Key, Weight)], order: impl Fn(&Key) -> Ordering) -> &[(Key, Weight)] {
    let from = keys.partition_point(|(k, _)| order(k) == Ordering::Less);
    let length = keys[from..].partition_point(|(k, _)| order(k) == Ordering::Equal);
    &keys[from..from + length]
}

/// How the table is grouped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Group {
    /// VMs, unfolding to exit reasons
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tracer_common::{Event, Flags};

    use super::*;
    use crate::{
        model::interval::{
            Interval,
            tests::{event, vm},
        },
        tui::history::History,
    };

    #[test]
    fn the_keys_of_a_node_are_those_that_a_look_at_all_of_them_finds() {
        let mut interval = Interval { length_ns: 1, ..Interval::default() };
        for n in 0..200u32 {
            let mut event = event(n % 3, 10 + n % 4, 900, (n % 2) as u8);
            event.flags = if n % 5 == 0 { event.flags | Flags::L2 } else { event.flags };
            interval.record(&Event { isa: 1 + (n % 2) as u8, ..event }, &vm(n % 7));
        }
        let mut history = History::default();
        history.push(interval);
        let slice = history.slices().next().unwrap();
        let found = |node: Node| node.keys(slice).map(|(key, _)| *key).collect::<Vec<_>>();
        let of = |belongs: &dyn Fn(&Key) -> bool| {
            slice.keys.iter().filter(|(key, _)| belongs(key)).map(|(key, _)| *key).collect::<BTreeSet<_>>()
        };
        for (key, _) in &slice.keys {
            let Key { vm, vcpu, isa, reason, .. } = *key;
            for (node, all) in [
                (Node::Vm(vm), of(&|k| k.vm == vm)),
                (Node::Vcpu(vm, vcpu), of(&|k| (k.vm, k.vcpu) == (vm, vcpu))),
                (
                    Node::Exit(Scope::Vcpu(vm, vcpu), isa, reason),
                    of(&|k| (k.vm, k.vcpu, k.isa, k.reason) == (vm, vcpu, isa, reason)),
                ),
                (Node::Exit(Scope::Vm(vm), isa, reason), of(&|k| (k.vm, k.isa, k.reason) == (vm, isa, reason))),
                (Node::Exit(Scope::Host, isa, reason), of(&|k| (k.isa, k.reason) == (isa, reason))),
            ] {
                assert!(found(node).len() == all.len() && found(node).iter().all(|key| all.contains(key)), "{node:?}");
            }
        }
        assert!(slice.keys.len() > 100);
    }
}
