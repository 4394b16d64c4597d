//! Shares of a limited number of places. At the limit, places of a process that has been silent go first, then the least recently used ones
//! of the process that holds most, so that nobody can take the places of others.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use crate::model::interval::Vm;

/// Silence after which a process gives its places to others at the limit, ns: longer than most times between two scrapes.
const SILENT_NS: u64 = 60_000_000_000;

/// A process of a VMM. It chooses the names of its VMs and their number, so that shares go by process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Process {
    host: Option<String>,
    pub(super) tgid: u32,
    /// a process with the same number is another one if it started at another time
    start_ticks: u64,
}

impl Process {
    /// The process of a VM.
    pub(super) fn of(vm: &Vm) -> Self {
        Self { host: vm.host.clone(), tgid: vm.tgid, start_ticks: vm.start_ticks }
    }
}

/// A moment, at which an interval was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment {
    /// CLOCK_MONOTONIC, ns
    pub(super) ns: u64,
    /// number of the interval
    pub(super) interval: u64,
}

/// Places of one process.
#[derive(Debug)]
struct Holding<T> {
    /// the least recently used one first
    places: BTreeSet<(Moment, T)>,
    last_use: Moment,
}

/// Who holds which places.
#[derive(Debug)]
pub(super) struct Shares<T> {
    limit: usize,
    owners: BTreeMap<T, (Process, Moment)>,
    holdings: BTreeMap<Process, Holding<T>>,
    /// processes by their number of places, and by the time without a use
    by_size: BTreeSet<(usize, Reverse<Moment>, Process)>,
    by_use: BTreeSet<(Moment, Process)>,
}

impl<T: Clone + Ord> Shares<T> {
    /// No place is held, of so many.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            owners: BTreeMap::new(),
            holdings: BTreeMap::new(),
            by_size: BTreeSet::new(),
            by_use: BTreeSet::new(),
        }
    }

    /// Number of places that are held.
    pub(super) fn held(&self) -> usize {
        self.owners.len()
    }

    /// Places at most.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether a place is held.
    pub(super) fn has(&self, place: &T) -> bool {
        self.owners.contains_key(place)
    }

    /// Notes that a place is used, if it is held.
    pub(super) fn touch(&mut self, place: &T, now: Moment) {
        let Some((owner, used)) = self.owners.get_mut(place) else { return };
        let before = std::mem::replace(used, now);
        let Some(holding) = self.holdings.get_mut(owner).filter(|_| before != now) else { return };
        holding.places.remove(&(before, place.clone()));
        holding.places.insert((now, place.clone()));
        if holding.last_use != now {
            let owner = owner.clone();
            self.change(&owner, |holding| holding.last_use = now);
        }
    }

    /// Gives all of these new places to a process, or none of them; whether it did. Adds places that others lose to `lost`.
    pub(super) fn claim(&mut self, process: &Process, places: &[T], now: Moment, lost: &mut BTreeSet<T>) -> bool {
        while self.held() + places.len() > self.limit {
            let Some(victim) = self.victim(process, places.len(), now) else { return false };
            self.remove(&victim);
            lost.insert(victim);
        }
        for place in places {
            self.owners.insert(place.clone(), (process.clone(), now));
            self.change(process, |holding| {
                holding.places.insert((now, place.clone()));
                holding.last_use = now;
            });
        }
        true
    }

    /// The place that is given up for a process that wants so many more; none if all others have no more than it would have then, and its
    /// own ones are in use.
    fn victim(&self, process: &Process, more: usize, now: Moment) -> Option<T> {
        let oldest = |process: &Process| self.holdings.get(process).and_then(|h| h.places.first());
        let (last_use, silent) = self.by_use.first()?;
        if silent != process && now.ns.saturating_sub(last_use.ns) > SILENT_NS {
            return oldest(silent).map(|(_, place)| place.clone());
        }
        let wanted = self.holdings.get(process).map_or(0, |h| h.places.len()) + more;
        let (most, Reverse(last_use), largest) = self.by_size.last()?;
        let has_more = *most > wanted || (*most == wanted && *last_use < now);
        if largest != process && has_more {
            return oldest(largest).map(|(_, place)| place.clone());
        }
        oldest(process).filter(|(used, _)| *used < now).map(|(_, place)| place.clone())
    }

    /// Gives a place up.
    pub(super) fn remove(&mut self, place: &T) {
        let Some((owner, used)) = self.owners.remove(place) else { return };
        self.change(&owner, |holding| {
            holding.places.remove(&(used, place.clone()));
        });
    }

    /// Changes what a process holds, and keeps the orders of processes.
    fn change(&mut self, process: &Process, change: impl FnOnce(&mut Holding<T>)) {
        let mut holding = match self.holdings.remove(process) {
            Some(holding) => {
                self.by_size.remove(&(holding.places.len(), Reverse(holding.last_use), process.clone()));
                self.by_use.remove(&(holding.last_use, process.clone()));
                holding
            }
            None => Holding { places: BTreeSet::new(), last_use: Moment::default() },
        };
        change(&mut holding);
        if !holding.places.is_empty() {
            self.by_size.insert((holding.places.len(), Reverse(holding.last_use), process.clone()));
            self.by_use.insert((holding.last_use, process.clone()));
            self.holdings.insert(process.clone(), holding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(tgid: u32) -> Process {
        Process::of(&Vm { tgid, ..Vm::default() })
    }

    fn second(n: u64) -> Moment {
        Moment { ns: n * 1_000_000_000, interval: n }
    }

    /// Whether a process gets a place, and the places that others lose for it.
    fn claim(shares: &mut Shares<u32>, tgid: u32, place: u32, at: u64) -> (bool, Vec<u32>) {
        let mut lost = BTreeSet::new();
        (shares.claim(&process(tgid), &[place], second(at), &mut lost), lost.into_iter().collect())
    }

    #[test]
    fn below_the_limit_a_process_may_hold_everything() {
        let mut shares = Shares::new(10);
        assert!((0..10).all(|place| claim(&mut shares, 1, place, 1) == (true, vec![])));
        assert_eq!(claim(&mut shares, 1, 10, 1), (false, vec![]), "all are in use");
    }

    #[test]
    fn at_the_limit_the_largest_gives_its_least_recently_used_places_until_all_have_equally_many() {
        let mut shares = Shares::new(10);
        for place in 0..10 {
            claim(&mut shares, 1, place, u64::from(place));
        }
        shares.touch(&0, second(20));
        let lost: Vec<_> = (10..15).map(|place| claim(&mut shares, 2, place, 20)).collect();
        assert_eq!(lost, (1..6).map(|place| (true, vec![place])).collect::<Vec<_>>());
        assert_eq!(claim(&mut shares, 2, 15, 20), (false, vec![]), "each has five");
        assert_eq!(claim(&mut shares, 1, 16, 20), (true, vec![6]), "the largest takes from itself");
    }

    #[test]
    fn processes_that_were_silent_for_a_minute_go_first() {
        let mut shares = Shares::new(4);
        claim(&mut shares, 1, 0, 0);
        for place in 1..4 {
            claim(&mut shares, 2, place, 30);
        }
        assert_eq!(claim(&mut shares, 2, 4, 60), (true, vec![1]));
        assert_eq!(claim(&mut shares, 2, 5, 61), (true, vec![0]));
    }

    #[test]
    fn a_newcomer_finds_a_place_among_more_processes_than_places() {
        let mut shares = Shares::new(4);
        for n in 0..100 {
            let (is_given, lost) = claim(&mut shares, n, n, n.into());
            assert_eq!((is_given, lost), (true, n.checked_sub(4).into_iter().collect()));
        }
    }

    #[test]
    fn several_places_are_given_together_or_not_at_all() {
        let mut shares = Shares::new(3);
        let mut lost = BTreeSet::new();
        assert!(shares.claim(&process(1), &[1, 2], second(1), &mut lost));
        assert!(!shares.claim(&process(2), &[3, 4], second(1), &mut lost));
        assert_eq!((shares.held(), lost.len()), (2, 0));
        assert!(shares.claim(&process(2), &[3], second(1), &mut lost));
        shares.remove(&2);
        assert_eq!([1, 2, 3].map(|place| shares.has(&place)), [true, false, true]);
    }
}
