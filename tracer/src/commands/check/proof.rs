//! The proof of `vmentry check`: the built-in guest makes a known number of exits while the programs are attached, and what arrives is
//! held against them.

use anyhow::{Context, Result};
use serde::Serialize;
use tracer_common::Slot;

use crate::{
    collect::collector::{Attached, Collection},
    commands::session::ensure_exact,
    guest::{self, ExercisePlan, Scenario},
    host::{
        facts::Facts,
        pid_namespace,
        problems::{self, Problem},
        roots::Roots,
    },
    kernel::{
        layout::Layout,
        options::Options,
        tracer::{Tracer, ring_bytes_of_host},
    },
    model::{
        exit_reasons,
        figures::Figure,
        interval::Interval,
        series::{Key, Level, Series},
    },
};

/// CPUID exits that the guest makes: an odd number, which nothing else makes by chance.
const EXITS: u64 = 23;

/// Whether VM entries and exits arrive as a guest makes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(super) enum Proof {
    /// they do
    Passed(Seen),
    /// they do not
    Failed {
        /// the reason
        why: String,
        /// how to fix it
        fix: &'static str,
        /// what arrived; null where the programs could not be loaded or attached
        seen: Option<Seen>,
    },
    /// the guest made no exits, so that nothing is known
    NotMade {
        /// the reason
        why: String,
    },
}

/// The guest's exits, and the VM entries that arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Seen {
    /// CPUID exits that the guest made
    exits: u64,
    /// VM entries of the guest that arrived; it makes a few more than its CPUID exits
    entries: u64,
    /// VM entries of the guest that were counted and lost
    dropped: u64,
    /// entries that ended with a CPUID exit; 0 where exit reasons cannot be read
    cpuid: u64,
    /// entries whose exit reason was read
    with_reason: u64,
    /// entries whose level (L1 or L2) was read
    with_level: u64,
    /// entries whose pin writes were known
    with_pin_writes: u64,
}

/// The properties of an entry that this kernel's layout says can be read.
#[derive(Clone, Copy)]
struct Readable {
    reason: bool,
    level: bool,
    pin_writes: bool,
}

/// Lets the guest run, for some tenths of a second, or says why not. The programs are detached on return.
pub(super) fn make(facts: &Facts, wanted: bool) -> Proof {
    let not_made = |why: &str| Proof::NotMade { why: why.into() };
    if !wanted {
        return not_made("--no-proof");
    }
    if problems::errors(&facts.problems()).is_some() {
        return not_made("this host cannot be traced");
    }
    if !facts.dev_kvm {
        return not_made("/dev/kvm cannot be used, so that no exits could be made");
    }
    let Some(layout) = &facts.layout else { return not_made("there is no layout") };
    let Some(this_process) = pid_namespace::this_process(&Roots::default().proc) else {
        return not_made("in a PID namespace of its own, the guest's entries cannot be told from others");
    };
    let started = ring_bytes_of_host()
        .map(|ring_bytes| Options { tgids: Some(vec![this_process]), ring_bytes, ..Options::default() })
        .and_then(|options| Tracer::load(layout, &options))
        .and_then(Attached::new)
        .and_then(|a| Collection::start(a, None));
    let mut collection = match started {
        Ok(collection) => collection,
        Err(error) => {
            let (why, fix) = (
                format!("the programs cannot be attached: {error:#}"),
                "'vmentry help troubleshooting' explains errors",
            );
            return Proof::Failed { why, fix, seen: None };
        }
    };
    let plan = ExercisePlan { scenario: Scenario::Cpuid, count: EXITS, vcpus: 1, delta: None };
    let ran = guest::run(&plan);
    let seen = rest(&mut collection).and_then(|seen| ensure_exact(&collection.join()?, "this check").map(|()| seen));
    match (ran, seen) {
        (Err(error), _) => not_made(&format!("the built-in guest cannot run here: {error:#}")),
        (_, Err(error)) => {
            let fix = "report this as a bug, with the output of 'vmentry check --format json'";
            Proof::Failed { why: format!("{error:#}"), fix, seen: None }
        }
        (Ok(_), Ok(seen)) => judge(seen, Readable::of(layout)),
    }
}

/// Stops the collection and sums up what has arrived.
fn rest(collection: &mut Collection) -> Result<Seen> {
    collection.stop();
    let mut seen = Seen { exits: EXITS, ..Seen::default() };
    let mut any = None;
    while let Some(interval) = collection.intervals.blocking_recv() {
        seen.add(&interval);
        any = Some(());
    }
    any.context("the collector ended without an interval")?;
    Ok(seen)
}

impl Seen {
    /// Adds an interval, all of whose entries are the guest's.
    fn add(&mut self, interval: &Interval) {
        let entries = |is: &dyn Fn(&(&Key, &Series)) -> bool| -> u64 {
            interval.series.iter().filter(is).map(|(_, series)| series.entries()).sum()
        };
        self.entries += entries(&|_| true);
        self.dropped += interval.totals.dropped;
        self.cpuid += entries(&|(key, _)| key.reason.is_some_and(|r| exit_reasons::name(key.isa, r) == "CPUID"));
        self.with_reason += entries(&|(key, _)| key.reason.is_some());
        self.with_level += entries(&|(key, _)| key.level != Level::Unknown);
        self.with_pin_writes += interval.series.values().map(|series| series[Figure::PinWrites].count()).sum::<u64>();
    }
}

impl Readable {
    fn of(layout: &Layout) -> Self {
        let has = |slots: &[Slot]| slots.iter().all(|slot| layout.config.get(*slot).is_some());
        Self {
            reason: has(&[Slot::VmxExitReason]) || has(&[Slot::SvmVmcb, Slot::VmcbExitCode]),
            level: has(&[Slot::VmxLoadedVmcs, Slot::VmxVmcs01]),
            pin_writes: has(&[Slot::VmxLoadedVmcs, Slot::VmcsPin]),
        }
    }
}

/// Holds what arrived against the guest's exits.
fn judge(seen: Seen, readable: Readable) -> Proof {
    let Seen { exits, entries, dropped, cpuid, .. } = seen;
    let arrived = entries + dropped;
    let silent = "no VM of this host can be traced: its KVM enters guests without kvm_entry and kvm_exit, as kvm_pvm does; record on a \
                  host with kvm_intel or kvm_amd";
    let misread =
        "the kernel's structures are not as its BTF says: load the module that is installed, or report this as a bug";
    let failed = if arrived == 0 {
        Some((format!("kvm's tracepoints do not fire: {exits} exits were made and none arrived"), silent))
    } else if arrived < exits {
        Some((format!("kvm's tracepoints do not fire for each exit: {exits} were made and {arrived} arrived"), silent))
    } else if readable.reason && dropped == 0 && cpuid != exits {
        Some((
            format!("exit reasons are wrong: {exits} CPUID exits were made, and {cpuid} of {entries} entries show one"),
            misread,
        ))
    } else if readable.level && seen.with_level == 0 {
        Some((format!("the level (L1 or L2) could be read of none of {entries} entries"), misread))
    } else if readable.pin_writes && seen.with_pin_writes == 0 {
        Some((format!("pin writes could be read of none of {entries} entries"), misread))
    } else {
        None
    };
    match failed {
        Some((why, fix)) => Proof::Failed { why, fix, seen: Some(seen) },
        None => Proof::Passed(seen),
    }
}

impl Proof {
    /// The problem that a failed proof is.
    pub(super) fn problem(&self) -> Option<Problem> {
        let Self::Failed { why, fix, .. } = self else { return None };
        Some(problems::error(why, *fix))
    }

    /// For people, on one line.
    pub(super) fn text(&self) -> String {
        match self {
            Self::NotMade { why } => format!("not made: {why}"),
            Self::Failed { seen: None, .. } => "failed".into(),
            Self::Passed(seen) | Self::Failed { seen: Some(seen), .. } => {
                let Seen { exits, entries, dropped, with_reason, with_level, with_pin_writes, .. } = seen;
                let lost = if *dropped == 0 { "none lost".into() } else { format!("{dropped} lost") };
                format!(
                    "{exits} CPUID exits made, {entries} entries arrived, {lost}; known: exit reason of {with_reason}, level of {with_level}, \
                     pin writes of {with_pin_writes}"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Readable = Readable { reason: true, level: true, pin_writes: true };
    const NONE: Readable = Readable { reason: false, level: false, pin_writes: false };

    fn good() -> Seen {
        Seen { exits: 23, entries: 25, dropped: 0, cpuid: 23, with_reason: 25, with_level: 25, with_pin_writes: 24 }
    }

    fn why(seen: Seen, readable: Readable) -> Option<String> {
        judge(seen, readable).problem().map(|problem| problem.what)
    }

    #[test]
    fn exits_that_arrive_as_they_were_made_are_a_proof() {
        assert_eq!(judge(good(), ALL), Proof::Passed(good()));
        let bare = Seen { exits: 23, entries: 24, ..Seen::default() };
        assert_eq!(why(bare, NONE), None, "what cannot be read is not missed");
        assert_eq!(why(Seen { entries: 20, dropped: 5, cpuid: 19, ..good() }, ALL), None, "losses are counted");
    }

    #[test]
    fn tracepoints_that_do_not_fire_are_no_host_that_is_ready() {
        let none = Seen { exits: 23, ..Seen::default() };
        let silent = "kvm's tracepoints do not fire: 23 exits were made and none arrived";
        assert_eq!(why(none, ALL).as_deref(), Some(silent));
        assert_eq!(why(none, NONE).as_deref(), Some(silent));
        assert!(why(Seen { entries: 3, ..none }, NONE).unwrap().contains("23 were made and 3 arrived"));
    }

    #[test]
    fn what_the_layout_promises_must_be_readable() {
        assert!(why(Seen { cpuid: 22, ..good() }, ALL).unwrap().contains("exit reasons are wrong"));
        assert!(why(Seen { with_level: 0, ..good() }, ALL).unwrap().contains("level"));
        assert!(why(Seen { with_pin_writes: 0, ..good() }, ALL).unwrap().contains("pin writes"));
        assert_eq!(why(Seen { with_level: 0, with_pin_writes: 0, ..good() }, Readable { reason: true, ..NONE }), None);
    }

    #[test]
    fn json_names_the_outcome_and_the_counts() {
        let json = serde_json::to_value(Proof::Passed(good())).unwrap();
        assert_eq!((json["outcome"].as_str(), json["entries"].as_u64()), (Some("passed"), Some(25)));
        let json = serde_json::to_value(judge(Seen { exits: 23, ..Seen::default() }, ALL)).unwrap();
        assert_eq!((json["outcome"].as_str(), json["seen"]["entries"].as_u64()), (Some("failed"), Some(0)));
        let json = serde_json::to_value(Proof::NotMade { why: "x".into() }).unwrap();
        assert_eq!((json["outcome"].as_str(), json["why"].as_str()), (Some("not_made"), Some("x")));
    }
}
