//! The result of a comparison.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use tracer_common::rules::TimerCause;

use super::windows::{Arm, Stratum};
use crate::{
    model::{
        figures::{Figure, Unit},
        histogram::Histogram,
        knowledge::Unknown,
        totals::Totals,
    },
    recording::{Experiment, Provenance},
};

/// The direction that is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// lower values
    Lower,
    /// neither: the workload decides the value
    Neither,
}

/// The verdict on a figure's statistic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// B is significantly better
    Better,
    /// B is significantly worse
    Worse,
    /// B differs significantly, in a figure that is neither good nor bad
    Changed,
    /// B differs by less than [`Comparison::ignore_below`]: significantly so, or its whole interval does
    Ignored,
    /// the difference may be chance
    NoDetectableChange,
    /// the difference of a primary figure may be chance, and may be as large as its interval
    Undecided,
    /// a primary figure before it is undecided, so it was not tested
    NotTested,
    /// so few data could not have shown a difference
    NotEnoughData,
}

/// A value with its 95 % confidence interval; a bound is none if there is no valid way to get it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// point estimate
    pub value: f64,
    /// lower bound
    pub low: Option<f64>,
    /// upper bound
    pub high: Option<f64>,
}

/// One statistic of a figure, compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// e.g. "entry_to_exit_ns", "timer_exits.spurious"
    pub figure: &'static str,
    /// e.g. "p99"; "per_second" for rates
    pub stat: &'static str,
    /// unit of `a`, `b` and `difference`
    pub unit: Unit,
    /// direction that is better
    pub better: Better,
    /// value of all of A's windows together
    pub a: Option<f64>,
    /// value of all of B's windows together
    pub b: Option<f64>,
    /// number of values that `a` is of
    pub count_a: u64,
    /// number of values that `b` is of
    pub count_b: u64,
    /// b - a
    pub difference: Option<Estimate>,
    /// b / a; none if a is 0
    pub ratio: Option<Estimate>,
    /// two-sided p, for an experiment valid whenever it stops; none for a figure that is not tested
    pub p: Option<f64>,
    /// adjusted p: of a primary figure the highest p up to it, of others after Holm's correction
    pub p_holm: Option<f64>,
    /// minimum detectable effect: the smallest |b - a| found with 80 % power
    pub detectable: Option<f64>,
    /// A/A noise: 95th percentile of |ratio - 1| between halves of a side, from half of the data
    pub noise: Option<f64>,
    /// place among the primary figures, from 0; none for others
    pub primary: Option<usize>,
    /// rounds after which a primary figure was decided at the full level; none if it was not, or for others
    pub decided_after: Option<usize>,
    /// the verdict
    pub verdict: Verdict,
    /// reason for whatever is none above
    pub why: Option<String>,
}

/// Both sides' values at a quantile.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Shift {
    /// 0..1
    pub quantile: f64,
    /// A's value
    pub a: f64,
    /// b - a
    pub difference: Estimate,
}

/// A figure's two distributions.
#[derive(Clone, Debug, PartialEq)]
pub struct Distributions {
    /// the figure, a time
    pub figure: Figure,
    /// all of A
    pub a: Histogram,
    /// all of B
    pub b: Histogram,
    /// the shift function: b - a at each quantile
    pub shifts: Vec<Shift>,
}

/// One exit of the mix, on both sides.
#[derive(Clone, Debug, PartialEq)]
pub struct MixRow {
    /// the exit
    pub stratum: Stratum,
    /// entries of A and B
    pub entries: [u64; 2],
    /// median guest time (entry_to_exit_ns) of A and B; none without entries
    pub entry_to_exit_p50: [Option<f64>; 2],
    /// median host time (exit_to_entry_ns) of A and B; none without exits
    pub exit_to_entry_p50: [Option<f64>; 2],
}

/// The mix of exits on both sides.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    /// exits, most entries first
    pub rows: Vec<MixRow>,
    /// total variation distance of the mixes, 0..1
    pub distance: f64,
    /// p of the permutation test on `distance`; none if a side has no entries
    pub p: Option<f64>,
    /// share of entries whose exit both sides have, 0..1; the stratified comparison covers these
    pub covered: f64,
}

/// One window in the time series.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// side of the window
    pub arm: Arm,
    /// start, ns since the epoch
    pub start_unix_ns: u64,
    /// observed time, ns
    pub length_ns: u64,
    /// number of entries
    pub entries: u64,
    /// median and p99 of entry_to_exit_ns; none without entries or comparable times
    pub entry_to_exit: Option<[f64; 2]>,
    /// mean of pin writes per entry; none if not known
    pub pin_writes: Option<f64>,
}

/// A check of whether the windows can be compared at all.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// e.g. "drift", "order", "carry-over"
    pub name: &'static str,
    /// subject and result, with numbers
    pub text: String,
    /// p of its test; none if there is no test
    pub p: Option<f64>,
    /// whether the reader must see it before the table
    pub alarm: bool,
}

/// Origin of the windows, printed around a [`Comparison`].
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// e.g. ["soft", "hard"], or the recordings' labels or names
    pub(crate) names: [String; 2],
    /// recordings of A and of B; the recordings of an experiment are in both
    pub(crate) sources: [Vec<Provenance>; 2],
    /// the experiment; none for recordings made one after the other
    pub(crate) experiment: Option<Experiment>,
    /// differences besides the compared one, and missing data; most important first
    pub(crate) warnings: Vec<String>,
}

/// One side as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    /// number of windows
    pub windows: usize,
    /// ns that the windows cover; a moment that several recordings cover counts once
    pub length_ns: u64,
    /// ns of the windows, each counted: more than `length_ns` where recordings overlap in time
    pub recorded_ns: u64,
    /// counts
    pub totals: Totals,
    /// pin-control writes of all entries whose writes are known; none if there is no such entry
    pub pin_writes: Option<u64>,
    /// preemption-timer exits by cause, or the reason why their number is not known
    pub timer_exits: BTreeMap<TimerCause, Result<u64, Unknown>>,
    /// VM name and vCPU number of every vCPU that entered
    pub vcpus: BTreeSet<(String, u32)>,
    /// of `totals.entries`: those of vCPUs that came, went or paused, which are left out of their rounds
    pub left_out: u64,
}

impl Side {
    /// Share of the recorded time that the windows cover, 0..=1: 1 where no recordings overlap in time. Rates are per second of
    /// the time that is covered, as in a report on the side's recordings.
    pub(crate) fn covered_share(&self) -> f64 {
        if self.recorded_ns > self.length_ns { self.length_ns as f64 / self.recorded_ns as f64 } else { 1.0 }
    }
}

/// What each VM's rounds say by themselves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ByVm {
    /// the figures that have a value of at least one VM
    pub figures: Vec<FigureByVm>,
    /// VMs beyond the 16 with the most entries, which are not compared
    pub more: usize,
}

/// A figure of each VM, and of the VMs together.
#[derive(Clone, Debug, PartialEq)]
pub struct FigureByVm {
    /// as in [`Row::figure`]
    pub figure: &'static str,
    /// e.g. "p50"; "per_second" for rates
    pub stat: &'static str,
    /// unit of its values
    pub unit: Unit,
    /// whether changes are b / a, because both sides of every VM are above 0 in all of its rounds; else b - a
    pub is_ratio: bool,
    /// VMs with a value, most entries first
    pub vms: Vec<VmEffect>,
    /// all VMs that have an interval together; none with fewer than two
    pub all: Option<Combined>,
}

/// A figure of one VM: means over the rounds in which both sides have a value of it.
#[derive(Clone, Debug, PartialEq)]
pub struct VmEffect {
    /// its name
    pub vm: String,
    /// number of its rounds
    pub rounds: usize,
    /// value of A
    pub a: f64,
    /// value of B
    pub b: f64,
    /// b / a if [`FigureByVm::is_ratio`], the geometric mean of the rounds, else b - a; with its 95 % confidence interval
    pub change: Estimate,
}

/// The mean effect on VMs like these, and how much the effects differ (random effects).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Combined {
    /// number of VMs
    pub vms: usize,
    /// value of A, weighted as the change
    pub a: f64,
    /// b / a if [`FigureByVm::is_ratio`], else b - a; with its 95 % confidence interval
    pub change: Estimate,
    /// standard deviation of the true changes between VMs; of ln(b / a) if [`FigureByVm::is_ratio`]
    pub tau: f64,
    /// share of the spread of the VMs' differences that is not chance, 0..1
    pub i_squared: f64,
}

/// The result of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// A
    pub a: Side,
    /// B
    pub b: Side,
    /// description of the statistics for the reader: units, relabellings, seed
    pub method: Vec<String>,
    /// seed of everything random
    pub seed: u64,
    /// chance of one false alarm among all figures, 0..1
    pub alpha: f64,
    /// share of A below which a significant change is [`Verdict::Ignored`]; 0 for none
    pub ignore_below: f64,
    /// name of a unit: "round", "block" (of windows) or "recording"
    pub unit: &'static str,
    /// units of A and of B
    pub units: [usize; 2],
    /// units of each side from which every figure with a value can get a verdict
    pub needed: usize,
    /// lowest p that so many units can give
    pub least_p: f64,
    /// statistics of every figure
    pub rows: Vec<Row>,
    /// the same, both sides weighted to one mix of exits
    pub stratified: Vec<Row>,
    /// the mix of exits
    pub mix: Mix,
    /// distributions of the times
    pub distributions: Vec<Distributions>,
    /// windows in the order of time
    pub timeline: Vec<Point>,
    /// drift, order, carry-over, vCPUs, loss
    pub checks: Vec<Check>,
    /// what each VM's rounds say by themselves; empty with one VM, and for recordings made one after the other
    pub by_vm: ByVm,
}
