//! The rows of the table: a node each, unfolded and sorted.

use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    columns::{COLUMNS, Values},
    filter::Matcher,
    history::Slice,
    node::{Group, Node, vcpu_name},
    sum::{Sum, SumCache},
};

use crate::model::{exit_reasons::name_or_unknown, knowledge::Knowledge};

/// The order of rows that have the same parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// index into [`COLUMNS`]; none sorts by name
    pub column: Option<usize>,
    /// lowest first
    pub ascending: bool,
}

/// A row.
#[derive(Clone, Debug)]
pub struct Row {
    /// its node
    pub node: Node,
    /// depth in the tree
    pub depth: u16,
    /// name
    pub name: String,
    /// whether its children follow; none if it has no children
    pub unfolded: Option<bool>,
    /// entries in the window
    pub entries: u64,
    /// values of the columns; none until the row is shown
    pub values: Option<Values>,
    /// the same of the baseline
    pub before: Option<Values>,
    /// entries per second of the latest intervals, oldest first, none of one without length; none until the row is shown
    pub spark: Option<Vec<Option<f64>>>,
}

/// Builds the rows of a window.
pub(super) struct RowBuilder<'a> {
    /// the window
    pub slices: &'a [Arc<Slice>],
    /// names of its VMs
    pub names: &'a HashMap<u32, String>,
    /// the filter
    pub matcher: &'a Matcher,
    /// grouping
    pub group: Group,
    /// order
    pub order: Order,
    /// unfolded nodes
    pub unfolded: &'a HashSet<Node>,
    /// what is known
    pub knowledge: &'a Knowledge,
}

impl RowBuilder<'_> {
    /// All rows, top to bottom.
    pub(super) fn rows(&self, sums: &mut SumCache) -> Vec<Row> {
        let mut rows = Vec::new();
        self.add(None, 0, &mut rows, sums);
        rows
    }

    fn add(&self, parent: Option<Node>, depth: u16, rows: &mut Vec<Row>, sums: &mut SumCache) {
        let mut children: Vec<Row> =
            self.entries(parent).into_iter().map(|(node, entries)| self.row(node, depth, entries)).collect();
        self.sort(&mut children, sums);
        for child in children {
            let (node, unfolded) = (child.node, child.unfolded == Some(true));
            rows.push(child);
            if unfolded {
                self.add(Some(node), depth + 1, rows, sums);
            }
        }
    }

    /// Entries of each child. Distributions are merged later, for rows that are shown or sorted by them.
    fn entries(&self, parent: Option<Node>) -> HashMap<Node, u64> {
        let mut children = HashMap::new();
        for slice in self.slices {
            let all = parent.is_none().then(|| slice.keys.iter());
            let some = parent.map(|p| p.keys(slice));
            // Neighbours mostly belong to the same node: one look-up for all of them.
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
            Node::Exit(_, _, isa, reason) | Node::Reason(isa, reason) => name_or_unknown(isa, reason).into_owned(),
        }
    }

    fn sort(&self, rows: &mut [Row], sums: &mut SumCache) {
        let turn = |order: Ordering| if self.order.ascending { order } else { order.reverse() };
        match self.order.column {
            None => rows.sort_by(|a, b| turn(natural(&b.name, &a.name)).then(a.node.cmp(&b.node))),
            Some(0) => rows.sort_by(|a, b| turn(a.entries.cmp(&b.entries)).then(a.node.cmp(&b.node))),
            Some(column) => {
                for row in rows.iter_mut() {
                    row.values = Some(Sum::of(self.slices, row.node, self.matcher, sums, self.knowledge).values());
                }
                let value = |r: &Row| r.values.and_then(|v| v[column.min(COLUMNS.len() - 1)]);
                // Unknown values come last in either order.
                let order = |a, b| match (a, b) {
                    (Some(a), Some(b)) => turn(f64::total_cmp(&a, &b)),
                    (a, b) => b.is_some().cmp(&a.is_some()),
                };
                rows.sort_by(|a, b| order(value(a), value(b)).then(a.node.cmp(&b.node)));
            }
        }
    }
}

/// Compares names; numbers at their ends by value: vm2 comes before vm10.
fn natural(a: &str, b: &str) -> Ordering {
    let split = |s: &str| {
        let stem = s.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        (s[..stem].to_owned(), s[stem..].parse::<u64>().ok())
    };
    split(a).cmp(&split(b))
}
