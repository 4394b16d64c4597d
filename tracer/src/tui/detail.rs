//! The detail of one row: distributions, exit reasons, time series, spurious and early timer exits.

use std::{collections::BTreeMap, sync::Arc};

use tracer_common::rules::TimerCause;

use super::{
    columns::Values,
    filter::Matcher,
    history::Slice,
    node::{Node, Scope},
    sum::{Sum, SumCache},
    weight::{Weight, Whole},
};
use crate::model::{
    exit_reasons::name_or_unknown,
    figures::Figure,
    histogram::Histogram,
    knowledge::{Knowledge, Shown, Subject},
    series::{EntryKind, Series},
};

/// Untimely exits that are listed, at most.
const LISTED: usize = 16;

/// The data that a detail is computed from.
pub(super) struct View<'a> {
    /// the window
    pub(super) window: &'a [Arc<Slice>],
    /// the latest intervals, oldest first
    pub(super) latest: &'a [Arc<Slice>],
    /// the filter
    pub(super) matcher: &'a Matcher,
    /// what is known
    pub(super) knowledge: &'a Knowledge,
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
    /// exit reasons, most host time first
    pub reasons: Vec<Reason>,
    /// of an exit reason: the details of its exits, most host time first
    pub details: Vec<Reason>,
    /// values of the columns in each of the latest intervals, oldest first
    pub latest: Vec<Values>,
    /// spurious and early timer exits of the latest intervals, newest first
    pub untimely: Vec<Untimely>,
}

/// The exits of a reason, or of one with a detail.
#[derive(Clone, Debug)]
pub struct Reason {
    /// its name
    pub name: String,
    /// its exits and their host time
    pub weight: Weight,
    /// its distributions
    pub series: Shown,
}

/// Spurious or early timer exits of a vCPU with the same time, within the precision of a bucket.
#[derive(Clone, Debug)]
pub struct Untimely {
    /// spurious or early
    pub cause: TimerCause,
    /// seconds between the end of its interval and the end of the window
    pub ago_s: f64,
    /// the VM
    pub vm: u32,
    /// the vCPU
    pub vcpu: u32,
    /// guest time of a spurious exit, time that remained until the deadline of an early one, ns
    pub ns: u64,
    /// how many
    pub count: u64,
}

impl Detail {
    /// Of a node in a window and the latest intervals.
    pub(super) fn of(node: Node, name: String, view: &View, sums: &mut SumCache) -> Self {
        let View { window, latest, matcher, knowledge } = view;
        let mut sum = |slices: &[Arc<Slice>]| Sum::of(slices, node, matcher, sums, knowledge);
        let mut detail = Self {
            node,
            name,
            sum: sum(window),
            clean: Histogram::default(),
            dirty: Histogram::default(),
            unknown: Histogram::default(),
            transition: Default::default(),
            reasons: Vec::new(),
            details: Vec::new(),
            latest: latest
                .iter()
                .map(std::slice::from_ref)
                .map(|slice| sum(slice).values(&Whole::of(slice, matcher, knowledge)))
                .collect(),
            untimely: untimely(node, view),
        };
        let mut reasons: BTreeMap<Node, (Weight, Series)> = BTreeMap::new();
        let mut details: BTreeMap<Node, (Weight, Series)> = BTreeMap::new();
        let [times, kinds, transitions] =
            [Figure::EntryToExit, Figure::PinWrites, Figure::Transition].map(|figure| knowledge.figure(figure).is_ok());
        for slice in *window {
            for (key, weight) in node.keys(slice).filter(|(key, _)| matcher.passes(key)) {
                let Some(series) = slice.interval.series.get(key) else { continue };
                let kind = if kinds { key.entry } else { EntryKind::Unknown };
                let (of_kind, transition) = match kind {
                    EntryKind::Clean => (&mut detail.clean, Some(0)),
                    EntryKind::Dirty => (&mut detail.dirty, Some(1)),
                    EntryKind::Unknown => (&mut detail.unknown, None),
                };
                if times {
                    of_kind.merge(&series[Figure::EntryToExit]);
                }
                if let Some(at) = transition.filter(|_| transitions) {
                    detail.transition[at].merge(&series[Figure::Transition]);
                }
                let reason = Node::Exit(Scope::Host, key.isa, key.reason);
                let detail = Node::Detail(Scope::Host, key.isa, key.reason, key.detail);
                for (sums, node) in [(&mut reasons, reason), (&mut details, detail)] {
                    let sum = sums.entry(node).or_default();
                    sum.0.add(&node.weigh(*weight));
                    sum.1.merge(series);
                }
            }
        }
        let is_timed = knowledge.known(Subject::Times).is_ok();
        let ranked = |sums: BTreeMap<Node, (Weight, Series)>| {
            let known = sums.into_iter().map(|(node, (weight, series))| {
                let name = match node {
                    Node::Exit(_, isa, reason) => name_or_unknown(isa, reason).into_owned(),
                    Node::Detail(.., Some(detail)) => detail.to_string(),
                    _ => "-".to_owned(),
                };
                Reason { name, weight, series: knowledge.show(series) }
            });
            let mut reasons: Vec<_> = known.filter(|reason| reason.weight.exits > 0).collect();
            let rank = |r: &Reason| if is_timed { r.weight.host_ns } else { r.weight.exits };
            reasons.sort_by_key(|r| std::cmp::Reverse(rank(r)));
            reasons
        };
        detail.reasons = ranked(reasons);
        if matches!(node, Node::Exit(..)) && knowledge.known(Subject::Detail).is_ok() {
            detail.details = ranked(details);
        }
        detail
    }
}

/// The last spurious and early exits; none where causes or times are not known.
fn untimely(node: Node, view: &View) -> Vec<Untimely> {
    let View { latest, matcher, knowledge, .. } = view;
    let mut found = Vec::new();
    if knowledge.known(Subject::TimerCause).is_err() || knowledge.known(Subject::Times).is_err() {
        return found;
    }
    let mut ago_ns: u64 = 0;
    for slice in latest.iter().rev() {
        for (key, _) in node.keys(slice).filter(|(key, _)| matcher.passes(key)) {
            let (cause, figure) = match key.cause {
                Some(cause @ TimerCause::Spurious) => (cause, Figure::EntryToExit),
                Some(cause @ TimerCause::Early) => (cause, Figure::DeadlineRemaining),
                _ => continue,
            };
            let Some(series) = slice.interval.series.get(key).filter(|_| knowledge.figure(figure).is_ok()) else {
                continue;
            };
            found.extend(series[figure].buckets().map(|(low, width, count)| Untimely {
                cause,
                ago_s: ago_ns as f64 / 1e9,
                vm: key.vm,
                vcpu: key.vcpu,
                ns: low + width / 2,
                count,
            }));
        }
        if found.len() >= LISTED {
            break;
        }
        ago_ns = ago_ns.saturating_add(slice.interval.length_ns);
    }
    found.truncate(LISTED);
    found
}
