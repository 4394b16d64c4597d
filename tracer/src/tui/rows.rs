//! The rows of the table: a node each, unfolded and sorted.

use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    columns::{COLUMNS, Derivation, Per, Values},
    filter::Matcher,
    history::Slice,
    node::{Group, Node},
    sum::{Sum, SumCache},
    weight::{Weight, Whole},
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
    /// exits and host time in the window
    pub weight: Weight,
    /// values of the columns; none until the row is shown
    pub values: Option<Values>,
    /// values of the baseline
    pub before: Option<Values>,
    /// exits per second of the latest intervals, oldest first, none of one without length; none until the row is shown
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
    /// everything in the window
    pub whole: &'a Whole,
    /// what is known
    pub knowledge: &'a Knowledge,
}

impl RowBuilder<'_> {
    /// All rows, top to bottom.
    pub(super) fn rows(&self, unfolded: &HashSet<Node>, sums: &mut SumCache) -> Vec<Row> {
        let mut rows = Vec::new();
        for row in self.children(None, 0, unfolded, sums) {
            self.add(row, unfolded, &mut rows, sums);
        }
        rows
    }

    /// Adds a row and, where it is unfolded, those below it.
    fn add(&self, row: Row, unfolded: &HashSet<Node>, rows: &mut Vec<Row>, sums: &mut SumCache) {
        let (node, depth, is_unfolded) = (row.node, row.depth, row.unfolded == Some(true));
        rows.push(row);
        if is_unfolded {
            for child in self.children(Some(node), depth + 1, unfolded, sums) {
                self.add(child, unfolded, rows, sums);
            }
        }
    }

    fn children(&self, parent: Option<Node>, depth: u16, unfolded: &HashSet<Node>, sums: &mut SumCache) -> Vec<Row> {
        let row = |(node, weight): (Node, Weight)| Row {
            node,
            depth,
            name: self.name(node),
            unfolded: node.unfolds(&weight).then(|| unfolded.contains(&node)),
            weight: node.weigh(weight),
            values: None,
            before: None,
            spark: None,
        };
        let mut rows: Vec<Row> = self.weights(parent).into_iter().map(row).collect();
        rows.retain(|row| row.weight.exits > 0 || !matches!(row.node, Node::Detail(..)));
        self.sort(&mut rows, sums);
        rows
    }

    /// Weight of each child. Distributions are merged later, for rows that are shown or sorted by them.
    fn weights(&self, parent: Option<Node>) -> HashMap<Node, Weight> {
        let mut children: HashMap<Node, Weight> = HashMap::new();
        for slice in self.slices {
            let all = parent.is_none().then(|| slice.keys.iter());
            let some = parent.map(|p| p.keys(slice));
            // Neighbours mostly belong to the same node: one look-up for all of them.
            let mut run: Option<(Node, Weight)> = None;
            for (key, weight) in all.into_iter().flatten().chain(some.into_iter().flatten()) {
                if !self.matcher.passes(key) {
                    continue;
                }
                let node = Node::of(key, self.group, parent);
                match &mut run {
                    Some((of, sum)) if *of == node => sum.add(weight),
                    _ => {
                        if let Some((of, sum)) = run.replace((node, *weight)) {
                            children.entry(of).or_default().add(&sum);
                        }
                    }
                }
            }
            if let Some((of, sum)) = run {
                children.entry(of).or_default().add(&sum);
            }
        }
        children
    }

    fn name(&self, node: Node) -> String {
        let vm_name = |vm: u32| self.names.get(&vm).cloned().unwrap_or_else(|| format!("vm-{vm}"));
        match node {
            Node::Vm(vm) => vm_name(vm),
            Node::Vcpu(vm, vcpu) => format!("{}/{vcpu}", vm_name(vm)),
            Node::Exit(_, isa, reason) => name_or_unknown(isa, reason).into_owned(),
            Node::Detail(.., Some(detail)) => detail.to_string(),
            Node::Detail(.., None) => "-".to_owned(),
        }
    }

    fn sort(&self, rows: &mut [Row], sums: &mut SumCache) {
        let turn = |order: Ordering| if self.order.ascending { order } else { order.reverse() };
        match self.order.column {
            None => rows.sort_by(|a, b| turn(natural(&b.name, &a.name)).then(a.node.cmp(&b.node))),
            Some(column)
                if let Derivation::Weight(of, Per::Second | Per::Whole | Per::WholeHostTime) = COLUMNS[column].of =>
            {
                rows.sort_by(|a, b| turn(of(&a.weight).cmp(&of(&b.weight))).then(a.node.cmp(&b.node)));
            }
            Some(column) => {
                for row in rows.iter_mut() {
                    let sum = Sum::of(self.slices, row.node, self.matcher, sums, self.knowledge);
                    row.values = Some(sum.values(self.whole));
                }
                let value = |r: &Row| r.values.and_then(|v| v[column]);
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
