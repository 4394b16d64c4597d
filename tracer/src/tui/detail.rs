//! The detail of one row: distributions, exit reasons, time series, spurious exits.

use std::{collections::BTreeMap, sync::Arc};

use tracer_common::{Isa, rules::TimerCause};

use super::{
    columns::Values,
    filter::Matcher,
    history::Slice,
    node::Node,
    sum::{Sum, SumCache},
};
use crate::model::{
    exit_reasons::name_or_unknown,
    figures::Figure,
    histogram::Histogram,
    series::{EntryKind, Series},
};

/// Spurious exits that are listed, at most.
const LISTED: usize = 16;

/// The data that a detail is computed from.
pub struct View<'a> {
    /// the window
    pub window: &'a [Arc<Slice>],
    /// the latest intervals, oldest first
    pub latest: &'a [Arc<Slice>],
    /// the filter
    pub matcher: &'a Matcher,
}

/// A row's detail.
#[derive(Clone, Debug)]
pub struct Detail {
    /// the row
    pub node: Node,
    /// its name, with those of the rows that hold it
    pub name: String,
    /// everything in the window
    pub sum: Sum,
    /// guest time of entries without pin-control writes
    pub clean: Histogram,
    /// guest time of entries with pin-control writes
    pub dirty: Histogram,
    /// guest time of entries whose pin-control writes are unknown
    pub unknown: Histogram,
    /// transition of clean and of dirty entries, as far as it is known
    pub transition: [Histogram; 2],
    /// exit reasons, most entries first
    pub reasons: Vec<Reason>,
    /// values of the columns in each of the latest intervals, oldest first
    pub latest: Vec<Values>,
    /// spurious exits of the latest intervals, newest first
    pub spurious: Vec<Spurious>,
}

/// The entries of an exit reason.
#[derive(Clone, Debug)]
pub struct Reason {
    /// its name
    pub name: String,
    /// its distributions
    pub series: Series,
}

/// Spurious exits of a vCPU with the same guest time, within the precision of a bucket.
#[derive(Clone, Debug)]
pub struct Spurious {
    /// seconds between the end of its interval and the end of the window
    pub ago_s: f64,
    /// the VM
    pub vm: u32,
    /// the vCPU
    pub vcpu: u32,
    /// guest time, ns
    pub guest_ns: u64,
    /// how many
    pub count: u64,
}

impl Detail {
    /// Of a node in a window and the latest intervals.
    pub fn of(node: Node, name: String, view: &View, sums: &mut SumCache) -> Self {
        let View { window, latest, matcher } = view;
        let mut detail = Self {
            node,
            name,
            sum: Sum::of(window, node, matcher, sums),
            clean: Histogram::default(),
            dirty: Histogram::default(),
            unknown: Histogram::default(),
            transition: Default::default(),
            reasons: Vec::new(),
            latest: latest.iter().map(|s| Sum::of(std::slice::from_ref(s), node, matcher, sums).values()).collect(),
            spurious: spurious(node, latest, matcher),
        };
        let mut reasons: BTreeMap<(Isa, Option<u32>), Series> = BTreeMap::new();
        for slice in *window {
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
        detail.reasons = reasons
            .into_iter()
            .map(|((isa, r), series)| Reason { name: name_or_unknown(isa, r).into_owned(), series })
            .collect();
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
                guest_ns: low + width / 2,
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
