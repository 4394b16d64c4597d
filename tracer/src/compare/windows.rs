//! The input of a comparison: windows of both sides, how they were arranged, and options.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use tracer_common::{Isa, rules::TimerCause};

use crate::model::{
    figures::Figure,
    knowledge::{Knowledge, Unknown},
    series::{Level, Series},
    totals::Totals,
};

/// One of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Arm {
    /// the baseline
    A,
    /// the side that is judged
    B,
}

/// The exit that ended an entry, as the mix of exits counts it. Clean and dirty entries are the same exit, because a policy
/// changes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stratum {
    /// guest or nested guest
    pub level: Level,
    /// instruction set that `reason` is a code of
    pub isa: Isa,
    /// exit reason; none if it could not be read
    pub reason: Option<u32>,
    /// cause of a preemption-timer exit; none for other exits
    pub cause: Option<TimerCause>,
}

/// A stretch of time of one side. Statistics treat it as one block, because single entries are not independent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window {
    /// start, ns since the epoch
    pub start_unix_ns: u64,
    /// observed time, ns
    pub length_ns: u64,
    /// distributions by exit
    pub strata: BTreeMap<Stratum, Series>,
    /// the same of each VM, by its name; empty unless it is a window of an experiment with several VMs
    pub vms: BTreeMap<String, BTreeMap<Stratum, Series>>,
    /// VM name and vCPU number of every vCPU that entered
    pub vcpus: BTreeSet<(String, u32)>,
    /// counts of all that was traced
    pub totals: Totals,
    /// of `totals.entries`: those of vCPUs that are left out of the round, because they were absent from one of its windows
    pub left_out: u64,
}

/// Adds distributions by exit to others.
fn merge_strata(mine: &mut BTreeMap<Stratum, Series>, theirs: &BTreeMap<Stratum, Series>) {
    for (stratum, series) in theirs {
        mine.entry(*stratum).or_default().merge(series);
    }
}

impl Window {
    /// Adds another stretch of the same side.
    pub(crate) fn merge(&mut self, other: &Window) {
        self.start_unix_ns = self.start_unix_ns.min(other.start_unix_ns);
        self.length_ns = self.length_ns.saturating_add(other.length_ns);
        merge_strata(&mut self.strata, &other.strata);
        for (vm, strata) in &other.vms {
            merge_strata(self.vms.entry(vm.clone()).or_default(), strata);
        }
        self.left_out = self.left_out.saturating_add(other.left_out);
        self.vcpus.extend(other.vcpus.iter().cloned());
        self.totals.merge(&other.totals);
    }
}

impl Windows {
    /// Counts early timer exits as those at their deadline, as a side counts them that does not tell deadlines.
    pub(crate) fn fold_early(&mut self) {
        let windows: Vec<&mut Window> = match self {
            Self::Rounds(rounds) => rounds.iter_mut().flat_map(|r| r.a.iter_mut().chain(&mut r.b)).collect(),
            Self::Runs { a, b } => a.iter_mut().chain(b).flatten().collect(),
        };
        for strata in windows.into_iter().flat_map(|w| w.vms.values_mut().chain([&mut w.strata])) {
            for (stratum, series) in std::mem::take(strata) {
                let cause = match stratum.cause {
                    Some(TimerCause::Early) => Some(TimerCause::Deadline),
                    cause => cause,
                };
                strata.entry(Stratum { cause, ..stratum }).or_default().merge(&series);
            }
        }
    }
}

/// The arrangement of the windows, which decides what the permutation test may swap.
#[derive(Clone, Debug, PartialEq)]
pub enum Windows {
    /// `ab` recordings: each round has two windows of either side, in the random order ABBA or BAAB
    Rounds(Vec<ExperimentRound>),
    /// recordings made one after the other, without randomisation: a list of runs per side, each run's windows in order
    Runs {
        /// consecutive windows of each recording of A
        a: Vec<Vec<Window>>,
        /// consecutive windows of each recording of B
        b: Vec<Vec<Window>>,
    },
}

/// Two adjacent windows of either side.
#[derive(Clone, Debug, PartialEq)]
pub struct ExperimentRound {
    /// in the order of time
    pub a: [Window; 2],
    /// in the order of time
    pub b: [Window; 2],
    /// whether the order was ABBA, else BAAB
    pub a_first: bool,
}

/// Extent and precision of the computation.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// seed of everything random; printed with the result
    pub seed: u64,
    /// resamples of the bootstrap; 0 for no intervals of blocks and of the shift function
    pub resamples: u32,
    /// random relabellings of the permutation test if there are too many to try all
    pub permutations: u32,
    /// chance of one false alarm among all figures, 0..1
    pub alpha: f64,
    /// share of A below which a significant change gets no verdict of better, worse or changed; 0 for none
    pub ignore_below: f64,
    /// primary figures of an experiment in their order, as FIGURE.STATISTIC, chosen before its data; empty for none
    pub primary: Vec<String>,
    /// what is known of A's entries and of B's
    pub knowledge: [Knowledge; 2],
    /// whether `transition_ns` has the same source on both sides
    pub transitions: bool,
    /// whether pin writes have the same source on both sides
    pub pin_writes: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            resamples: 2000,
            permutations: 10_000,
            alpha: 0.05,
            ignore_below: 0.0,
            primary: Vec::new(),
            knowledge: [Knowledge::complete(), Knowledge::complete()],
            transitions: true,
            pin_writes: true,
        }
    }
}

impl Options {
    /// Reason why a figure's values are not compared; none if they are.
    pub(crate) fn incomparable(&self, figure: Figure) -> Option<String> {
        let known = self.knowledge.each_ref().map(|known| known.figure(figure).map_err(Unknown::clone));
        let differ = match figure {
            Figure::Transition if !self.transitions => Some("the stopwatch, and immediate timer exits"),
            Figure::PinWrites if !self.pin_writes => Some("the shadow copy, the tracepoint, or none"),
            _ => None,
        };
        why_unknown(known).or_else(|| differ.map(|which| format!("the sides have different sources: {which}")))
    }
}

/// Reason why something is not known of both sides; none if it is.
pub(super) fn why_unknown<T>(sides: [Result<T, Unknown>; 2]) -> Option<String> {
    match sides.map(Result::err) {
        [None, None] => None,
        [Some(a), None] => Some(format!("not known of A: {a}")),
        [None, Some(b)] => Some(format!("not known of B: {b}")),
        [Some(a), Some(b)] if a == b => Some(a.to_string()),
        [Some(a), Some(b)] => Some(format!("not known of A: {a}; of B: {b}")),
    }
}
