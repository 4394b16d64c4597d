//! The VMs of an experiment: it ends when nothing of them is left to compare.

use std::collections::BTreeSet;

use rustix::{
    io::Errno,
    process::{Pid, test_kill_process},
};

use crate::model::interval::Interval;

/// Reason of an experiment's end: every round was recorded.
pub(super) const ROUNDS: &str = "rounds";
/// Reason of an experiment's end: every primary figure is decided.
pub(super) const DECIDED: &str = "decided";
/// Reason of an experiment's end: no process of a VM that had entered exists any more.
pub(super) const LAST_VM: &str = "the end of the last VM";
/// Reason of an experiment's end: VMs exist, and none entered in a whole round.
pub(super) const NO_ENTRIES: &str = "a round without entries";

/// Whether an experiment ended by itself, and not by a signal or its command.
pub(super) fn is_own_end(reason: &str) -> bool {
    [ROUNDS, DECIDED, LAST_VM, NO_ENTRIES].contains(&reason)
}

/// What follows a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// the next window
    GoOn,
    /// the end, for this reason
    End(&'static str),
    /// an error: no VM has entered since the experiment began
    NoVm,
}

/// Decides by the entries of a window, and of its round if it was the last one of it. `earlier`: whether earlier rounds have entries.
pub(super) fn next(window: u64, round: Option<u64>, earlier: bool, is_any_alive: impl FnOnce() -> bool) -> Next {
    match round {
        _ if window == 0 && !is_any_alive() => Next::End(LAST_VM),
        Some(0) if earlier => Next::End(NO_ENTRIES),
        Some(0) => Next::NoVm,
        _ => Next::GoOn,
    }
}

/// The processes of the VMs that have entered so far.
#[derive(Default)]
pub(super) struct Guests {
    tgids: BTreeSet<u32>,
}

impl Guests {
    /// Notes the VMs of an interval.
    pub(super) fn see(&mut self, interval: &Interval) {
        self.tgids.extend(interval.vms.values().map(|vm| vm.tgid));
    }

    /// Whether a process of them exists; also before any VM has entered.
    pub(super) fn is_any_alive(&self) -> bool {
        self.tgids.is_empty() || self.tgids.iter().any(|tgid| exists(*tgid))
    }
}

/// Whether a process exists. One that must not be signalled does.
fn exists(tgid: u32) -> bool {
    let pid = tgid.try_into().ok().and_then(Pid::from_raw);
    pid.is_none_or(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::model::interval::{Vm, tests::vm};

    #[test]
    fn the_experiment_ends_with_the_last_vm_and_not_while_one_exists() {
        let ended = || false;
        assert_eq!(next(0, None, false, ended), Next::End(LAST_VM));
        assert_eq!(next(0, Some(0), true, ended), Next::End(LAST_VM));
        // Its last entries are in this window.
        assert_eq!(next(1, None, true, ended), Next::GoOn);
        assert_eq!(next(0, None, true, || true), Next::GoOn);
        assert_eq!(next(5, Some(5), true, || true), Next::GoOn);
    }

    #[test]
    fn a_whole_round_without_entries_ends_it_and_is_an_error_only_if_there_was_never_one() {
        assert_eq!(next(0, Some(0), true, || true), Next::End(NO_ENTRIES));
        assert_eq!(next(0, Some(0), false, || true), Next::NoVm);
        assert_eq!(next(0, Some(7), false, || true), Next::GoOn);
        assert!(is_own_end(LAST_VM) && is_own_end(NO_ENTRIES) && !is_own_end("SIGINT") && !is_own_end("command"));
    }

    #[test]
    fn a_vm_lives_as_long_as_its_process() {
        let seen = |tgid| {
            let vm = std::sync::Arc::new(Vm { tgid, ..Vm::clone(&vm(0)) });
            let mut guests = Guests::default();
            guests.see(&Interval { vms: [(0, vm)].into(), ..Interval::default() });
            guests.is_any_alive()
        };
        assert!(Guests::default().is_any_alive(), "nothing was seen to end");
        // Process 1 is another user's: it exists, although it must not be signalled.
        assert!(seen(std::process::id()) && seen(1));
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(!seen(child.id()));
    }
}
