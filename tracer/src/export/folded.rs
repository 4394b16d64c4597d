//! The processes whose entries count for the VM "other", for people: a metric by VM would need the series that there is no room for.

use std::{collections::BTreeMap, fmt::Write};

use super::{shares::Process, state::MAX_LABEL, sums::grow};
use crate::model::interval::Vm;

/// Processes that are remembered; those with the fewest entries are forgotten.
const PROCESSES: usize = 64;
/// Processes that are shown.
const SHOWN: usize = 5;
/// Shortest time between two messages, ns.
const REST_NS: u64 = 60_000_000_000;

/// Entries of a process that count for "other".
#[derive(Debug)]
struct Entries {
    /// name of the VM that was first
    vm: String,
    entries: u64,
    is_said: bool,
}

/// Processes whose entries count for "other".
#[derive(Debug, Default)]
pub(super) struct Folded {
    by_process: BTreeMap<Process, Entries>,
    /// CLOCK_MONOTONIC of the last message, ns
    said_ns: Option<u64>,
}

impl Folded {
    /// Adds entries of a process.
    pub(super) fn add(&mut self, process: &Process, vm: &Vm, entries: u64) {
        if !self.by_process.contains_key(process) && self.by_process.len() >= PROCESSES {
            let fewest = self.by_process.iter().min_by_key(|(_, e)| e.entries).map(|(process, _)| process.clone());
            self.by_process.remove(&fewest.unwrap_or_else(|| process.clone()));
        }
        let new = || Entries { vm: vm.name.chars().take(MAX_LABEL).collect(), entries: 0, is_said: false };
        grow(&mut self.by_process.entry(process.clone()).or_insert_with(new).entries, entries);
    }

    /// A message about the processes that no message named yet, at most once a minute.
    pub(super) fn message(&mut self, limit: usize, now_ns: u64) -> Option<String> {
        if self.said_ns.is_some_and(|said_ns| now_ns.saturating_sub(said_ns) < REST_NS) {
            return None;
        }
        let mut new: Vec<_> = self.by_process.iter_mut().filter(|(_, e)| !e.is_said).collect();
        let (process, largest) = new.iter_mut().max_by_key(|(_, e)| e.entries)?;
        let named = format!("VM {} (process {})", largest.vm, process.tgid);
        new.iter_mut().for_each(|(_, e)| e.is_said = true);
        self.said_ns = Some(now_ns);
        let (who, have) = match new.len() - 1 {
            0 => (named, "has"),
            more => (format!("{named} and {more} more"), "have"),
        };
        Some(format!(
            "{who} {have} no room for further histograms (--max-series {limit}): entries count for vm=\"other\""
        ))
    }

    /// Lines about the processes with the most entries; empty if there are none.
    pub(super) fn lines(&self) -> String {
        let mut by_entries: Vec<_> = self.by_process.iter().collect();
        by_entries.sort_by_key(|(process, e)| (u64::MAX - e.entries, *process));
        by_entries.iter().take(SHOWN).fold(String::new(), |mut lines, (process, e)| {
            let _ = writeln!(
                lines,
                "counted for vm=\"other\": {} entries of VM {} (process {})",
                e.entries, e.vm, process.tgid
            );
            lines
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(folded: &mut Folded, tgid: u32, entries: u64) {
        let vm = Vm { tgid, name: format!("vm{tgid}"), ..Vm::default() };
        folded.add(&Process::of(&vm), &vm, entries);
    }

    #[test]
    fn each_process_is_named_once_and_a_crowd_in_one_message_a_minute() {
        let mut folded = Folded::default();
        assert_eq!((folded.message(10, 0), folded.lines()), (None, String::new()));
        add(&mut folded, 7, 5);
        let said = folded.message(10, 0).unwrap();
        assert!(said.starts_with("VM vm7 (process 7) has no room") && said.contains("--max-series 10)"), "{said}");
        for tgid in 8..18 {
            add(&mut folded, tgid, tgid.into());
        }
        assert_eq!(folded.message(10, REST_NS - 1), None);
        let said = folded.message(10, REST_NS).unwrap();
        assert!(said.starts_with("VM vm17 (process 17) and 9 more have no room"), "{said}");
        add(&mut folded, 7, 5);
        assert_eq!(folded.message(10, 9 * REST_NS), None);
    }

    #[test]
    fn of_many_processes_those_with_the_most_entries_are_shown() {
        let mut folded = Folded::default();
        for tgid in 1..10_000 {
            add(&mut folded, tgid, 1);
            add(&mut folded, 1, 1);
        }
        assert_eq!(folded.by_process.len(), PROCESSES);
        let lines = folded.lines();
        assert_eq!(lines.lines().count(), SHOWN);
        assert!(lines.starts_with("counted for vm=\"other\": 10000 entries of VM vm1 (process 1)\n"), "{lines}");
    }
}
