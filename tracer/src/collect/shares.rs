//! Messages about processes that hold their share of the series that the programs count.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use tracer_common::in_kernel_series::MAX_IN_KERNEL_SERIES;

use crate::{kernel::in_kernel_series::Owner, output::say_over_progress};

/// Processes that are named when they have their share.
const MOST_NAMED: usize = 64;
/// Processes that are named at the end, because they lost the most entries.
const MOST_LOST: usize = 5;

/// The processes that were named.
#[derive(Default)]
pub(super) struct Named(BTreeSet<u32>);

impl Named {
    /// Names processes that get no further series, each once.
    pub(super) fn say_limited(&mut self, limited: &[Owner]) {
        for Owner { tgid, .. } in limited {
            if self.0.len() < MOST_NAMED && self.0.insert(*tgid) {
                say_over_progress(&format!(
                    "process {tgid} has its share of the {MAX_IN_KERNEL_SERIES} series that the kernel counts: entries of its \
                     further exit reasons and vCPUs are dropped"
                ));
            }
        }
    }
}

/// Says what processes lost because they had their share of the series.
pub(super) fn say_lost(lost: BTreeMap<u32, u64>) {
    let mut lost: Vec<_> = lost.into_iter().collect();
    lost.sort_by_key(|(tgid, entries)| (Reverse(*entries), *tgid));
    for (tgid, entries) in lost.iter().take(MOST_LOST) {
        say_over_progress(&format!(
            "{entries} dropped entries are of process {tgid}, which had its share of the series"
        ));
    }
}
