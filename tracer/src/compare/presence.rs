//! Who was there: vCPUs that paused, ended or had not yet started in a window are left out of its whole round, so that both sides lose
//! the same.

use std::collections::{BTreeMap, BTreeSet};

use super::schedule::PLACES;
use crate::{output::grouped, recording::Label};

/// A vCPU: the number of its VM within the recordings, and KVM's number of the vCPU.
pub(crate) type Vcpu = (u32, u32);

/// Entries from which a window counts as one in which a vCPU ran as usual, so that a window with none says that it was absent.
const PLENTY: u64 = 10;
/// Lines that are said at most; the vCPUs of the others are counted.
const MAX_LINES: usize = 5;
/// Stretches of rounds or vCPUs that a line names at most.
const MAX_STRETCHES: usize = 6;

/// Entries of every vCPU in a window.
pub(crate) type Entries = BTreeMap<Vcpu, u64>;

/// Something of each window of a round: two of A, two of B.
type OfRound<T> = [[T; 2]; 2];

/// The rounds in which each vCPU was absent from a window: it had no entry there, although it had at least [`PLENTY`] in the other
/// window of the same side, or in half of the recording's windows of that side. A vCPU that never enters under one side is not absent.
/// `windows` are those of one recording, with the entries of each vCPU; rounds that are not whole are passed over.
pub(crate) fn absences(windows: &[(Label, &Entries)]) -> BTreeMap<Vcpu, BTreeSet<u32>> {
    let rounds = whole_rounds(windows);
    let vcpus: BTreeSet<Vcpu> =
        rounds.values().flatten().flatten().flat_map(|entries| entries.keys().copied()).collect();
    let of_vcpu = |vcpu: Vcpu| {
        let count = |entries: &&Entries| entries.get(&vcpu).copied().unwrap_or(0);
        let counts =
            rounds.iter().map(|(round, sides)| (*round, sides.map(|side| side.map(|entries| count(&entries)))));
        (vcpu, absent_in(&counts.collect::<Vec<_>>()))
    };
    vcpus.into_iter().map(of_vcpu).filter(|(_, rounds)| !rounds.is_empty()).collect()
}

/// The windows of each whole round. Of two windows in one place, the later one counts.
fn whole_rounds<'a>(windows: &[(Label, &'a Entries)]) -> BTreeMap<u32, OfRound<&'a Entries>> {
    let mut by_round: BTreeMap<u32, BTreeMap<u8, usize>> = BTreeMap::new();
    for (at, (Label { round, place, .. }, _)) in windows.iter().enumerate() {
        by_round.entry(*round).or_default().insert(*place, at);
    }
    let sides = |places: BTreeMap<u8, usize>| {
        let of = |arm: u8| -> Option<[&'a Entries; 2]> {
            let of_arm = places.values().map(|&at| windows[at]).filter(|(label, _)| u8::from(label.arm != 0) == arm);
            of_arm.map(|(_, entries)| entries).collect::<Vec<_>>().try_into().ok()
        };
        Some([of(0)?, of(1)?]).filter(|_| places.len() == usize::from(PLACES))
    };
    by_round.into_iter().filter_map(|(round, places)| Some((round, sides(places)?))).collect()
}

/// The rounds in which a vCPU with these entries was absent.
fn absent_in(rounds: &[(u32, OfRound<u64>)]) -> BTreeSet<u32> {
    let entered = |(_, counts): &(u32, OfRound<u64>)| counts.iter().flatten().any(|n| *n > 0);
    let (first, last) = (rounds.iter().position(entered), rounds.iter().rposition(entered));
    // Of a VM that was there for a quarter of the experiment, the other windows say nothing.
    let lived = first.zip(last).map_or(&[][..], |(first, last)| &rounds[first..=last]);
    let usual = [0, 1].map(|side| median(lived.iter().flat_map(|(_, counts)| counts[side])));
    let is_absent = |counts: &OfRound<u64>| {
        counts.iter().zip(usual).any(|([first, second], usual)| {
            [(first, second), (second, first)].iter().any(|(here, other)| **here == 0 && usual.max(**other) >= PLENTY)
        })
    };
    rounds.iter().filter(|(_, counts)| is_absent(counts)).map(|(round, _)| *round).collect()
}

/// The median, of an even number the lower of both; 0 of none.
fn median(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0)
}

/// A vCPU that was left out of rounds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LeftOut {
    /// name of its VM
    pub(crate) vm: String,
    /// KVM's number of it
    pub(crate) vcpu: u32,
    /// from 0
    pub(crate) rounds: BTreeSet<u32>,
    /// entries of both sides that were left out with it
    pub(crate) entries: u64,
}

/// vCPUs of a VM that were left out of the same rounds.
struct Group {
    vcpus: BTreeSet<u32>,
    entries: u64,
}

impl Group {
    fn line(&self, vm: &str, rounds: &BTreeSet<u32>) -> String {
        let numbers: BTreeSet<u32> = rounds.iter().map(|round| round.saturating_add(1)).collect();
        let vcpu = if self.vcpus.len() == 1 { "vCPU" } else { "vCPUs" };
        let [round, of] = if rounds.len() == 1 { ["round", "it"] } else { ["rounds", "each"] };
        format!(
            "vm {vm}, {vcpu} {}: left out of {round} {} ({} entries): no entries in a window of {of} (not started, paused, or ended)",
            stretches(&self.vcpus),
            stretches(&numbers),
            grouped(self.entries)
        )
    }
}

/// A line about each VM's vCPUs that were left out of the same rounds, most entries first.
pub(crate) fn lines(left_out: &[LeftOut]) -> Vec<String> {
    let mut groups: BTreeMap<(&str, &BTreeSet<u32>), Group> = BTreeMap::new();
    for LeftOut { vm, vcpu, rounds, entries } in left_out {
        let empty = || Group { vcpus: BTreeSet::new(), entries: 0 };
        let group = groups.entry((vm, rounds)).or_insert_with(empty);
        group.entries = group.entries.saturating_add(*entries);
        group.vcpus.insert(*vcpu);
    }
    // A round that it was absent from altogether lost nothing.
    let mut groups: Vec<_> = groups.into_iter().filter(|(_, group)| group.entries > 0).collect();
    groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.entries));
    let (named, others) = groups.split_at(groups.len().min(MAX_LINES));
    let mut lines: Vec<String> = named.iter().map(|((vm, rounds), group)| group.line(vm, rounds)).collect();
    if !others.is_empty() {
        let vcpus: usize = others.iter().map(|(_, group)| group.vcpus.len()).sum();
        let entries = others.iter().fold(0u64, |sum, (_, group)| sum.saturating_add(group.entries));
        lines.push(format!("and {vcpus} more vCPUs: left out of rounds, too ({} entries)", grouped(entries)));
    }
    lines
}

/// "4 to 6, 9" of 4, 5, 6 and 9.
fn stretches(numbers: &BTreeSet<u32>) -> String {
    let mut stretches: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match stretches.last_mut().filter(|(_, last)| *last + 1 == number) {
            Some((_, last)) => *last = number,
            None => stretches.push((number, number)),
        }
    }
    let text = |&(first, last): &(u32, u32)| {
        if first == last { first.to_string() } else { format!("{first} to {last}") }
    };
    let (named, others) = stretches.split_at(stretches.len().min(MAX_STRETCHES));
    let more: u32 = others.iter().map(|(first, last)| last - first + 1).sum();
    let named = named.iter().map(text).collect::<Vec<_>>().join(", ");
    if more == 0 { named } else { format!("{named} and {more} more") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::schedule;

    /// Windows of an experiment of four rounds, whose vCPU 0 of VM 7 has as many entries as `of` says by round, side, and window of
    /// the side.
    fn absent(of: impl Fn(u32, u8, usize) -> u64) -> Vec<u32> {
        let mut seen = [0; 2];
        let counts: Vec<_> = schedule::windows(5, 4)
            .map(|label| {
                let nth = seen[usize::from(label.arm)] % 2;
                seen[usize::from(label.arm)] += 1;
                let entries = match of(label.round, label.arm, nth) {
                    0 => BTreeMap::new(),
                    n => BTreeMap::from([((7, 0), n)]),
                };
                (label, entries)
            })
            .collect();
        let windows: Vec<_> = counts.iter().map(|(label, entries)| (*label, entries)).collect();
        absences(&windows).remove(&(7, 0)).into_iter().flatten().collect()
    }

    #[test]
    fn a_vcpu_that_pauses_is_absent_from_the_rounds_of_its_empty_windows() {
        assert_eq!(absent(|_, _, _| 100), [0; 0]);
        // Both windows of A in round 1: the other rounds tell that A has entries.
        assert_eq!(absent(|round, side, _| if (round, side) == (1, 0) { 0 } else { 100 }), [1]);
        assert_eq!(absent(|round, side, nth| if (round, side, nth) == (2, 1, 1) { 0 } else { 100 }), [2]);
    }

    #[test]
    fn a_vcpu_that_comes_or_goes_is_absent_also_where_it_was_there_for_few_rounds() {
        // It ended after the first of B's windows in round 1, and the medians of the whole recording are 0.
        let ended = |round, side, nth| if round == 0 || (round, side, nth) == (1, 1, 0) { 100 } else { 0 };
        assert_eq!(absent(ended), [1, 2, 3]);
        assert_eq!(absent(|round, _, _| if round < 3 { 0 } else { 100 }), [0, 1, 2]);
    }

    #[test]
    fn a_vcpu_that_never_enters_under_one_side_or_enters_rarely_is_not_absent() {
        assert_eq!(absent(|_, side, _| if side == 0 { 0 } else { 5000 }), [0; 0]);
        assert_eq!(absent(|round, _, nth| if round == 1 && nth == 0 { 0 } else { 9 }), [0; 0]);
        assert_eq!(absent(|round, _, nth| if round == 1 && nth == 0 { 0 } else { 10 }), [1]);
    }

    #[test]
    fn rounds_that_did_not_end_say_nothing() {
        let (entries, none) = (BTreeMap::from([((7, 0), 100)]), BTreeMap::new());
        let label = |arm, place| Label { arm, round: 0, place };
        assert!(absences(&[(label(0, 0), &entries), (label(1, 1), &none), (label(1, 2), &entries)]).is_empty());
        // A damaged or foreign file may have any labels.
        let odd = [(label(0, 0), &entries), (label(0, 1), &none), (label(0, 2), &none), (label(1, 3), &entries)];
        assert!(absences(&odd).is_empty());
    }

    #[test]
    fn vcpus_that_are_left_out_together_are_one_line_and_lines_are_few() {
        let left_out = |vm: &str, vcpu, rounds: &[u32], entries| LeftOut {
            vm: vm.into(),
            vcpu,
            rounds: rounds.iter().copied().collect(),
            entries,
        };
        let said =
            lines(&[left_out("web1", 2, &[3, 4, 5], 1602), left_out("db", 0, &[3], 7), left_out("db", 1, &[3], 8)]);
        assert_eq!(
            said,
            [
                "vm web1, vCPU 2: left out of rounds 4 to 6 (1,602 entries): no entries in a window of each (not started, paused, or ended)",
                "vm db, vCPUs 0 to 1: left out of round 4 (15 entries): no entries in a window of it (not started, paused, or ended)",
            ]
        );
        let many: Vec<_> = (0..9).map(|n| left_out(&format!("vm{n}"), 0, &[n], 5)).collect();
        let said = lines(&many);
        assert_eq!((said.len(), said[5].as_str()), (6, "and 4 more vCPUs: left out of rounds, too (20 entries)"));
        assert!(lines(&[]).is_empty());
        let odd: BTreeSet<u32> = (0..30).map(|n| 2 * n).collect();
        assert_eq!(stretches(&odd), "0, 2, 4, 6, 8, 10 and 24 more");
    }
}
