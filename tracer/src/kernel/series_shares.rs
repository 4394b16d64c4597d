//! Which of the series that the programs count are taken back, so that neither VMs that have ended nor one with many vCPUs keep all places.

use std::collections::{BTreeMap, BTreeSet};

use tracer_common::{in_kernel_series::MAX_IN_KERNEL_SERIES, state::WAY_BITS};

/// Series above which those are taken back that nobody counts in. Sets of 16 places with 8 in use have one free for each newcomer.
const ROOMY: usize = MAX_IN_KERNEL_SERIES / 2;
/// Series of all processes together at most, after a look. The rest is free, so that newcomers are seen, which then get their share.
const FULL: usize = MAX_IN_KERNEL_SERIES / 4 * 3;
/// Series below which a process that had its share may have more again.
const RELEASED: usize = FULL / 4 * 3;
/// Looks without a new entry after which nobody counts in a series.
const SILENT: u32 = 2;

/// A series in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) place: usize,
    /// process of the VMM; its VMs and vCPUs are as many as it likes, so that shares go by process
    pub(super) tgid: u32,
    /// looks since its last entry
    pub(super) silent: u32,
}

/// The next steps.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// places to take back
    pub(super) back: Vec<usize>,
    /// processes that get no further series
    pub(super) limited: BTreeSet<u32>,
}

/// Plans what is taken back from whom. `limited` are the processes that get no further series now.
pub(super) fn plan(mut uses: Vec<Use>, limited: &BTreeSet<u32>) -> Plan {
    let mut plan = Plan::default();
    // The least recently used ones last; of those alike, as many of each set.
    uses.sort_by_key(|u| (u.silent, u.place % (1 << WAY_BITS), u.place));
    while uses.len() > ROOMY
        && let Some(silent) = uses.pop_if(|u| u.silent >= SILENT)
    {
        plan.back.push(silent.place);
    }
    let mut by_process: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for u in &uses {
        by_process.entry(u.tgid).or_default().push(u.place);
    }
    if uses.len() > RELEASED {
        plan.limited = limited.iter().filter(|tgid| by_process.contains_key(tgid)).copied().collect();
    }
    let mut by_size: Vec<_> = by_process.into_iter().collect();
    by_size.sort_by_key(|(tgid, places)| (places.len(), *tgid));
    let (mut room, processes) = (FULL, by_size.len());
    for (n, (tgid, mut places)) in by_size.into_iter().enumerate() {
        let share = places.len().min(room / (processes - n));
        room -= share;
        if places.len() > share {
            plan.back.extend(places.drain(share..));
            plan.limited.insert(tgid);
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many series of a process, each silent for so many looks.
    fn series(uses: &mut Vec<Use>, tgid: u32, count: usize, silent: u32) {
        (0..count).for_each(|_| uses.push(Use { place: uses.len(), tgid, silent }));
    }

    /// Numbers of series that are taken back, by process.
    fn taken(uses: &[Use], plan: &Plan) -> BTreeMap<u32, usize> {
        let mut by_process = BTreeMap::new();
        for place in &plan.back {
            *by_process.entry(uses[*place].tgid).or_default() += 1;
        }
        by_process
    }

    #[test]
    fn while_there_is_room_nothing_is_taken_back() {
        let mut uses = Vec::new();
        series(&mut uses, 1, ROOMY, 1000);
        assert_eq!(plan(uses, &BTreeSet::new()), Plan::default());
    }

    #[test]
    fn series_without_entries_go_first_those_silent_longest_before_others() {
        let mut uses = Vec::new();
        series(&mut uses, 1, ROOMY, 0);
        series(&mut uses, 2, 10, 5);
        series(&mut uses, 3, 10, 50);
        series(&mut uses, 4, 10, SILENT - 1);
        let all = plan(uses.clone(), &BTreeSet::new());
        assert_eq!((taken(&uses, &all), all.limited.len()), (BTreeMap::from([(2, 10), (3, 10)]), 0));
        assert!(all.back[..10].iter().all(|place| uses[*place].tgid == 3));
    }

    #[test]
    fn a_process_with_thousands_of_busy_series_leaves_the_others_theirs() {
        let mut uses = Vec::new();
        series(&mut uses, 1, MAX_IN_KERNEL_SERIES - 300, 0);
        series(&mut uses, 2, 300, 0);
        let first = plan(uses.clone(), &BTreeSet::new());
        assert_eq!(taken(&uses, &first), BTreeMap::from([(1, MAX_IN_KERNEL_SERIES - FULL)]));
        assert_eq!(first.limited, BTreeSet::from([1]));
        uses.retain(|u| !first.back.contains(&u.place));
        let second = plan(uses.clone(), &first.limited);
        assert_eq!((second.back.len(), &second.limited), (0, &first.limited), "it stays limited");
        uses.truncate(RELEASED);
        assert_eq!(plan(uses, &second.limited), Plan::default());
    }

    #[test]
    fn the_largest_process_has_what_the_others_leave() {
        let mut uses = Vec::new();
        series(&mut uses, 1, 2500, 0);
        series(&mut uses, 2, 1500, 0);
        series(&mut uses, 3, 72, 0);
        let plan = plan(uses.clone(), &BTreeSet::new());
        assert_eq!(taken(&uses, &plan), BTreeMap::from([(1, 1000)]));
        assert_eq!(plan.limited, BTreeSet::from([1]));
    }
}
