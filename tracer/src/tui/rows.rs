//! The rows of the table: what they stand for, how they unfold, their order.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use tracer_common::Isa;

use super::{
    columns::{COLUMNS, Parts, Sum, Values},
    history::Slice,
};
use crate::model::{
    exit_reasons,
    interval::{Key, Vm},
};

/// What a row stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Node {
    /// a VM
    Vm(u32),
    /// a vCPU of a VM
    Vcpu(u32, u32),
    /// an exit reason of a vCPU
    Exit(u32, u32, Isa, Option<u32>),
    /// an exit reason of all
    Reason(Isa, Option<u32>),
}

impl Node {
    /// The keys that make it up.
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

    /// The row that holds it in the tree.
    pub fn parent(self, group: Group) -> Option<Self> {
        match self {
            Self::Vcpu(vm, _) if group == Group::Vm => Some(Self::Vm(vm)),
            Self::Exit(vm, vcpu, ..) => Some(Self::Vcpu(vm, vcpu)),
            _ => None,
        }
    }

    fn unfolds(self) -> bool {
        matches!(self, Self::Vm(_) | Self::Vcpu(..))
    }

    /// The node within `parent` that a key belongs to; `parent` none is the first level of a grouping.
    fn of(key: &Key, group: Group, parent: Option<Node>) -> Node {
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
    /// exit reasons of all
    Reason,
}

impl Group {
    /// The next one.
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

/// The order of rows that have the same parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// index into [`COLUMNS`]; none sorts by name
    pub column: Option<usize>,
    /// lowest first
    pub ascending: bool,
}

/// Names of the VMs: with the process where several share one, and a number where a process has several.
pub fn vm_names(slices: &[Arc<Slice>]) -> HashMap<u32, String> {
    let vms: BTreeMap<u32, &Arc<Vm>> = slices.iter().flat_map(|s| &s.interval.vms).map(|(id, vm)| (*id, vm)).collect();
    let mut namesakes: HashMap<&str, Vec<&Vm>> = HashMap::new();
    vms.values().for_each(|vm| namesakes.entry(&vm.name).or_default().push(vm));
    let name = |vm: &Vm| {
        let process = |v: &Vm| (v.tgid, v.start_ticks);
        let alike = namesakes.get(&*vm.name).map_or(&[][..], Vec::as_slice);
        let others = alike.iter().any(|v| process(v) != process(vm));
        let siblings = alike.iter().any(|v| v.id != vm.id && process(v) == process(vm));
        let process = if others { format!("[{}]", vm.tgid) } else { String::new() };
        let ordinal = if siblings { format!("#{}", vm.ordinal) } else { String::new() };
        format!("{}{process}{ordinal}", vm.name)
    };
    vms.iter().map(|(id, vm)| (*id, name(vm))).collect()
}

/// Name of an exit reason.
pub fn reason_name(isa: Isa, reason: Option<u32>) -> String {
    reason.map_or_else(|| "unknown".into(), |r| exit_reasons::name(isa as u32, r).into_owned())
}

/// Name of a vCPU within its VM.
pub fn vcpu_name(vcpu: u32) -> String {
    format!("vcpu {vcpu}")
}

/// Which series a filter's text lets through: those of VMs, vCPUs or exit reasons whose name contains it.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    /// None without a filter.
    chosen: Option<Chosen>,
}

#[derive(Clone, Debug, Default)]
struct Chosen {
    vms: HashSet<u32>,
    vcpus: HashSet<u32>,
    reasons: HashSet<(Isa, Option<u32>)>,
}

impl Matcher {
    /// From the filter's text, compared without case.
    pub fn new<'a>(text: &str, slices: impl Iterator<Item = &'a Arc<Slice>>, names: &HashMap<u32, String>) -> Self {
        let text = text.trim().to_lowercase();
        if text.is_empty() {
            return Self::default();
        }
        let matches = |name: &str| name.to_lowercase().contains(&text);
        let (mut vcpus, mut reasons) = (BTreeSet::new(), BTreeSet::new());
        for (key, _) in slices.flat_map(|s| &s.keys) {
            vcpus.insert(key.vcpu);
            reasons.insert((key.isa, key.reason));
        }
        let chosen = Chosen {
            vms: names.iter().filter(|(_, name)| matches(name)).map(|(id, _)| *id).collect(),
            vcpus: vcpus.into_iter().filter(|v| matches(&vcpu_name(*v))).collect(),
            reasons: reasons.into_iter().filter(|&(isa, reason)| matches(&reason_name(isa, reason))).collect(),
        };
        Self { chosen: Some(chosen) }
    }

    /// Whether a series is let through.
    pub fn passes(&self, key: &Key) -> bool {
        self.chosen.as_ref().is_none_or(|c| {
            c.vms.contains(&key.vm) || c.vcpus.contains(&key.vcpu) || c.reasons.contains(&(key.isa, key.reason))
        })
    }
}

/// A row.
#[derive(Clone, Debug)]
pub struct Row {
    /// what it stands for
    pub node: Node,
    /// how deep in the tree
    pub depth: u16,
    /// name
    pub name: String,
    /// whether its children follow; none where it has none
    pub unfolded: Option<bool>,
    /// entries in the window
    pub entries: u64,
    /// values of the columns, once somebody wanted to see them
    pub values: Option<Values>,
    /// the same of the baseline
    pub before: Option<Values>,
    /// entries per second of the latest intervals, oldest first, once somebody wanted to see them
    pub spark: Option<Vec<f64>>,
}

/// What rows are made of.
pub struct Making<'a> {
    /// the window
    pub slices: &'a [Arc<Slice>],
    /// names of its VMs
    pub names: &'a HashMap<u32, String>,
    /// the filter
    pub matcher: &'a Matcher,
    /// how they are grouped
    pub group: Group,
    /// how they are sorted
    pub order: Order,
    /// which are unfolded
    pub unfolded: &'a HashSet<Node>,
}

impl Making<'_> {
    /// All rows, top to bottom.
    pub fn rows(&self, parts: &mut Parts) -> Vec<Row> {
        let mut rows = Vec::new();
        self.add(None, 0, &mut rows, parts);
        rows
    }

    fn add(&self, parent: Option<Node>, depth: u16, rows: &mut Vec<Row>, parts: &mut Parts) {
        let mut children: Vec<Row> =
            self.entries(parent).into_iter().map(|(node, entries)| self.row(node, depth, entries)).collect();
        self.sort(&mut children, parts);
        for child in children {
            let (node, unfolded) = (child.node, child.unfolded == Some(true));
            rows.push(child);
            if unfolded {
                self.add(Some(node), depth + 1, rows, parts);
            }
        }
    }

    /// Entries of each child. Only counts: distributions are merged for what is seen or sorted by.
    fn entries(&self, parent: Option<Node>) -> HashMap<Node, u64> {
        let mut children = HashMap::new();
        for slice in self.slices {
            let all = parent.is_none().then(|| slice.keys.iter());
            let some = parent.map(|p| p.keys(slice));
            // Neighbours mostly belong together: one look-up for all of them.
            let mut run: Option<(Node, u64)> = None;
            for (key, entries) in all.into_iter().flatten().chain(some.into_iter().flatten()) {
                if !self.matcher.passes(key) {
                    continue;
                }
                let node = Node::of(key, self.group, parent);
                match &mut run {
                    Some((of, sum)) if *of == node => *sum += entries,
                    _ => {
                        if let Some((of, sum)) = run.replace((node, *entries)) {
                            *children.entry(of).or_default() += sum;
                        }
                    }
                }
            }
            if let Some((of, sum)) = run {
                *children.entry(of).or_default() += sum;
            }
        }
        children
    }

    fn row(&self, node: Node, depth: u16, entries: u64) -> Row {
        let unfolded = node.unfolds().then(|| self.unfolded.contains(&node));
        Row { node, depth, name: self.name(node), unfolded, entries, values: None, before: None, spark: None }
    }

    fn name(&self, node: Node) -> String {
        let vm_name = |vm: u32| self.names.get(&vm).cloned().unwrap_or_else(|| format!("vm-{vm}"));
        match node {
            Node::Vm(vm) => vm_name(vm),
            Node::Vcpu(_, vcpu) if self.group == Group::Vm => vcpu_name(vcpu),
            Node::Vcpu(vm, vcpu) => format!("{}/{vcpu}", vm_name(vm)),
            Node::Exit(_, _, isa, reason) | Node::Reason(isa, reason) => reason_name(isa, reason),
        }
    }

    fn sort(&self, rows: &mut [Row], parts: &mut Parts) {
        let turn = |order: Ordering| if self.order.ascending { order } else { order.reverse() };
        match self.order.column {
            None => rows.sort_by(|a, b| turn(natural(&b.name, &a.name)).then(a.node.cmp(&b.node))),
            Some(0) => rows.sort_by(|a, b| turn(a.entries.cmp(&b.entries)).then(a.node.cmp(&b.node))),
            Some(column) => {
                for row in rows.iter_mut() {
                    row.values = Some(Sum::of(self.slices, row.node, self.matcher, parts).values());
                }
                let value = |r: &Row| r.values.and_then(|v| v[column.min(COLUMNS.len() - 1)]);
                // What is not known comes last, whatever the order.
                let order = |a, b| match (a, b) {
                    (Some(a), Some(b)) => turn(f64::total_cmp(&a, &b)),
                    (a, b) => b.is_some().cmp(&a.is_some()),
                };
                rows.sort_by(|a, b| order(value(a), value(b)).then(a.node.cmp(&b.node)));
            }
        }
    }
}

/// By letters, but numbers at their end by value: vm2 before vm10.
fn natural(a: &str, b: &str) -> Ordering {
    let split = |s: &str| {
        let stem = s.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        (s[..stem].to_owned(), s[stem..].parse::<u64>().ok())
    };
    split(a).cmp(&split(b))
}
