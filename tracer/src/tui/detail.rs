//! Everything about one row: what the detail pane shows.

use std::{collections::BTreeMap, sync::Arc};

use tracer_common::{Isa, rules::TimerCause};

use super::{
    columns::{Parts, Sum, Values},
    history::Slice,
    rows::{Matcher, Node, reason_name},
};
use crate::model::{
    figures::Figure,
    histogram::Histogram,
    interval::{EntryKind, Series},
};

/// Spurious exits that are listed at most.
const LISTED: usize = 16;

/// A row's detail.
#[derive(Clone, Debug)]
pub struct Detail {
    /// the row
    pub node: Node,
    /// its name, with those of the rows that hold it
    pub name: String,
    /// everything in the window
    pub sum: Sum,
    /// entry_to_exit of entries without pin-control writes
    pub clean: Histogram,
    /// of those with
    pub dirty: Histogram,
    /// of those of which it is not known
    pub unknown: Histogram,
    /// transition of clean and of dirty entries, where it is known
    pub transition: [Histogram; 2],
    /// exit reasons, most entries first
    pub reasons: Vec<Reason>,
    /// values of the columns in each of the latest intervals, oldest first
    pub latest: Vec<Values>,
    /// spurious exits of the latest intervals, newest first
    pub spurious: Vec<Spurious>,
}

/// An exit reason's part.
#[derive(Clone, Debug)]
pub struct Reason {
    /// its name
    pub name: String,
    /// its distributions
    pub series: Series,
}

/// Spurious exits of a vCPU that came after the same time.
#[derive(Clone, Debug)]
pub struct Spurious {
    /// seconds between the end of its interval and the end of what is shown
    pub ago_s: f64,
    /// the VM
    pub vm: u32,
    /// the vCPU
    pub vcpu: u32,
    /// ns the guest had run; VM entry and exit are in it
    pub ran_ns: u64,
    /// how many
    pub count: u64,
}

impl Detail {
    /// Of a node in a window and the latest intervals.
    pub fn of(
        node: Node,
        name: String,
        window: &[Arc<Slice>],
        latest: &[Arc<Slice>],
        matcher: &Matcher,
        parts: &mut Parts,
    ) -> Self {
        let mut detail = Self {
            node,
            name,
            sum: Sum::of(window, node, matcher, parts),
            clean: Histogram::default(),
            dirty: Histogram::default(),
            unknown: Histogram::default(),
            transition: Default::default(),
            reasons: Vec::new(),
            latest: latest.iter().map(|s| Sum::of(std::slice::from_ref(s), node, matcher, parts).values()).collect(),
            spurious: spurious(node, latest, matcher),
        };
        let mut reasons: BTreeMap<(Isa, Option<u32>), Series> = BTreeMap::new();
        for slice in window {
            for (key, _) in node.keys(slice).filter(|(key, _)| matcher.passes(key)) {
                let Some(series) = slice.interval.series.get(key) else { continue };
                let of_kind = match key.entry {
                    EntryKind::Clean => &mut detail.clean,
                    EntryKind::Dirty => &mut detail.dirty,
                    EntryKind::Unknown => &mut detail.unknown,
                };
                of_kind.merge(&series[Figure::EntryToExit]);
                if let Some(at) = [EntryKind::Clean, EntryKind::Dirty].iter().position(|kind| *kind == key.entry) {
                    detail.transition[at].merge(&series[Figure::Transition]);
                }
                reasons.entry((key.isa, key.reason)).or_default().merge(series);
            }
        }
        detail.reasons =
            reasons.into_iter().map(|((isa, r), series)| Reason { name: reason_name(isa, r), series }).collect();
        detail.reasons.sort_by_key(|r| std::cmp::Reverse(r.series.entries()));
        detail
    }
}

fn spurious(node: Node, latest: &[Arc<Slice>], matcher: &Matcher) -> Vec<Spurious> {
    let mut found = Vec::new();
    let mut ago_ns = 0;
    for slice in latest.iter().rev() {
        for (key, _) in node.keys(slice).filter(|(k, _)| k.cause == Some(TimerCause::Spurious) && matcher.passes(k)) {
            let Some(series) = slice.interval.series.get(key) else { continue };
            found.extend(series[Figure::EntryToExit].buckets().map(|(low, width, count)| Spurious {
                ago_s: ago_ns as f64 / 1e9,
                vm: key.vm,
                vcpu: key.vcpu,
                ran_ns: low + width / 2,
                count,
            }));
        }
        if found.len() >= LISTED {
            break;
        }
        ago_ns += slice.interval.length_ns;
    }
    found.truncate(LISTED);
    found
}
