//! What is compared and what comes out.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use tracer_common::{Isa, rules::TimerCause};

use super::{
    checks,
    stats::{
        dense::{self, Dense},
        design::{Design, Units},
        mix,
        rows::{self, Draft, Measure, family},
    },
};
use crate::{
    model::{
        figures::{Figure, Unit},
        histogram::Histogram,
        interval::{Level, Series, Totals},
    },
    recording::{Experiment, Provenance},
};

/// Kinds of exits that the stratified comparison tells apart at most: those with the most entries.
const MAX_STRATA: usize = 64;

/// One of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Arm {
    /// the one that is compared against
    A,
    /// the one that is judged
    B,
}

/// What kind of exit ended an entry: the parts of the workload's mix. Never by clean and dirty, which is what a policy changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stratum {
    /// who was running
    pub level: Level,
    /// whose code `reason` is
    pub isa: Isa,
    /// exit reason
    pub reason: Option<u32>,
    /// cause of a preemption-timer exit
    pub cause: Option<TimerCause>,
}

/// A stretch of time of one side: the block of all statistics, since single entries are not independent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window {
    /// ns since the epoch at its beginning
    pub start_unix_ns: u64,
    /// ns of observation
    pub length_ns: u64,
    /// distributions by kind of exit
    pub strata: BTreeMap<Stratum, Series>,
    /// name of the VM and number of the vCPU, of all that entered
    pub vcpus: BTreeSet<(String, u32)>,
    /// counts
    pub totals: Totals,
}

impl Window {
    /// Takes another's part of the time in.
    pub fn merge(&mut self, other: &Window) {
        self.start_unix_ns = self.start_unix_ns.min(other.start_unix_ns);
        self.length_ns = self.length_ns.saturating_add(other.length_ns);
        for (stratum, series) in &other.strata {
            self.strata.entry(*stratum).or_default().merge(series);
        }
        self.vcpus.extend(other.vcpus.iter().cloned());
        self.totals.merge(&other.totals);
    }
}

/// How the windows came about: what may be swapped under "there is no difference".
#[derive(Clone, Debug, PartialEq)]
pub enum Windows {
    /// Of one `ab` recording: each round holds two windows of either side, in the random order ABBA or BAAB.
    Rounds(Vec<Round>),
    /// Of recordings made one after the other: a list of runs per side, each run's windows in order. Nothing was randomised.
    Runs {
        /// one list of consecutive windows per recording of A
        a: Vec<Vec<Window>>,
        /// the same of B
        b: Vec<Vec<Window>>,
    },
}

/// Two windows of either side, next to each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// in the order of time
    pub a: [Window; 2],
    /// in the order of time
    pub b: [Window; 2],
    /// the first and the last of the four were A's (ABBA); else BAAB
    pub a_first: bool,
}

/// What to compute, and how finely.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// of everything random; printed with the result
    pub seed: u64,
    /// resamples of the bootstrap
    pub resamples: u32,
    /// random relabellings of the permutation test where not all are tried
    pub permutations: u32,
    /// chance of one false alarm among all figures
    pub alpha: f64,
    /// latencies are comparable
    pub latencies: bool,
    /// `transition_ns` is from the same source on both sides
    pub transitions: bool,
    /// pin writes are known, from the same source on both sides
    pub pin_writes: bool,
    /// VMX: there are preemption-timer exits
    pub timer: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            resamples: 2000,
            permutations: 10_000,
            alpha: 0.05,
            latencies: true,
            transitions: true,
            pin_writes: true,
            timer: true,
        }
    }
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// less of it
    Lower,
    /// neither: it tells of the workload
    Neither,
}

/// What the windows say about a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// B is better, beyond chance
    Better,
    /// B is worse, beyond chance
    Worse,
    /// another value beyond chance, of a figure that is neither good nor bad
    Changed,
    /// may be chance
    NoDetectableChange,
    /// these windows could not have told
    NotEnoughData,
}

/// A value with the interval that holds the true one in 95 of 100 experiments; the bounds are none where there is no valid way
/// to get them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// the value seen
    pub value: f64,
    /// lower bound
    pub low: Option<f64>,
    /// upper bound
    pub high: Option<f64>,
}

/// One figure's statistic, compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// e.g. "entry_to_exit_ns", "timer_exits.spurious"
    pub figure: &'static str,
    /// e.g. "p99"; "per_second" of rates
    pub stat: &'static str,
    /// of `a`, `b` and `difference`
    pub unit: Unit,
    /// which way is better
    pub better: Better,
    /// of all of A's windows together
    pub a: Option<f64>,
    /// of all of B's
    pub b: Option<f64>,
    /// values behind `a`
    pub count_a: u64,
    /// values behind `b`
    pub count_b: u64,
    /// b - a
    pub difference: Option<Estimate>,
    /// b / a; none where a is 0
    pub ratio: Option<Estimate>,
    /// of the permutation test, two-sided; none of a figure that is not tested
    pub p: Option<f64>,
    /// the same after Holm's correction over all figures tested
    pub p_holm: Option<f64>,
    /// |b - a| that these windows would have found in 80 of 100 experiments
    pub detectable: Option<f64>,
    /// |ratio - 1| that 95 of 100 comparisons of a side with itself stay below, from the same windows; of half the data
    pub noise: Option<f64>,
    /// the verdict
    pub verdict: Verdict,
    /// why something of the above is none
    pub why: Option<String>,
}

/// Both sides' values at a quantile.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Shift {
    /// 0..1
    pub quantile: f64,
    /// of A
    pub a: f64,
    /// b - a with its interval
    pub difference: Estimate,
}

/// A figure's two distributions.
#[derive(Clone, Debug, PartialEq)]
pub struct Distributions {
    /// a figure that is a time
    pub figure: Figure,
    /// all of A
    pub a: Histogram,
    /// all of B
    pub b: Histogram,
    /// the shift function: at which quantiles B differs, and by how much
    pub shifts: Vec<Shift>,
}

/// How often a kind of exit came on either side.
#[derive(Clone, Debug, PartialEq)]
pub struct MixRow {
    /// the kind
    pub stratum: Stratum,
    /// entries of A and B
    pub entries: [u64; 2],
    /// median of entry_to_exit_ns of A and B; none without entries
    pub entry_to_exit_p50: [Option<f64>; 2],
    /// median of exit_to_entry_ns of A and B
    pub exit_to_entry_p50: [Option<f64>; 2],
}

/// The mix of exits.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    /// most entries first
    pub rows: Vec<MixRow>,
    /// share of entries that would have to change their kind to make the mixes alike, 0..1
    pub distance: f64,
    /// of the permutation test on `distance`
    pub p: Option<f64>,
    /// share of entries whose kind both sides have: what the stratified comparison speaks of
    pub covered: f64,
}

/// One window's point in a time series.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// its side
    pub arm: Arm,
    /// ns since the epoch at its beginning
    pub start_unix_ns: u64,
    /// ns
    pub length_ns: u64,
    /// entries
    pub entries: u64,
    /// median and p99 of entry_to_exit_ns; none without entries or latencies
    pub entry_to_exit: Option<[f64; 2]>,
    /// mean of pin writes per entry, where known
    pub pin_writes: Option<f64>,
}

/// A look at whether the windows can be compared at all.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// e.g. "drift", "order", "carry-over"
    pub name: &'static str,
    /// what it looks at and what was found, with numbers
    pub text: String,
    /// of its test
    pub p: Option<f64>,
    /// something is wrong: the reader must be told before the table
    pub alarm: bool,
}

/// Where the windows come from: what is printed around a [`Comparison`].
#[derive(Clone, Debug)]
pub struct Setting {
    /// e.g. ["soft", "hard"], or the recordings' labels or names
    pub names: [String; 2],
    /// recordings of A and of B; of an experiment, the one recording is in both
    pub sources: [Vec<Provenance>; 2],
    /// the experiment; none where recordings were made one after the other
    pub experiment: Option<Experiment>,
    /// what differs between the sides besides what is compared, and what is missing; loudest first
    pub warnings: Vec<String>,
}

/// One side as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    /// windows that count
    pub windows: usize,
    /// ns of observation
    pub length_ns: u64,
    /// counts
    pub totals: Totals,
    /// all pin-control writes of entries where they are known; none where none is
    pub pin_writes: Option<u64>,
    /// preemption-timer exits by cause
    pub timer_exits: BTreeMap<TimerCause, u64>,
    /// VMs and vCPUs seen
    pub vcpus: BTreeSet<(String, u32)>,
}

/// The result.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// A
    pub a: Side,
    /// B
    pub b: Side,
    /// how the statistics were made, for the reader: units resampled, relabellings tried, seed
    pub method: Vec<String>,
    /// seed of everything random here
    pub seed: u64,
    /// false alarm rate of the family
    pub alpha: f64,
    /// rounds, or blocks of windows, that were resampled and relabelled: of A and of B
    pub units: [usize; 2],
    /// the lowest p that so few units can give
    pub least_p: f64,
    /// every figure's statistics
    pub rows: Vec<Row>,
    /// the same with both sides weighted to one mix of exits
    pub stratified: Vec<Row>,
    /// the mix of exits
    pub mix: Mix,
    /// distributions of the latencies
    pub distributions: Vec<Distributions>,
    /// windows in the order of time
    pub timeline: Vec<Point>,
    /// drift, order, carry-over, and the like
    pub checks: Vec<Check>,
}

/// Compares the two sides.
pub fn compare(windows: &Windows, options: &Options) -> Comparison {
    let units = Units::of(windows);
    let design = units.design;
    let mix = mix::of(&units, options);
    let strata = dense::strata(&units.windows, MAX_STRATA);
    let (mut raw, mut stratified, mut distributions) = (vec![], vec![], vec![]);
    // Times first: the order of the rows.
    let (times, counts): (Vec<_>, Vec<_>) = Figure::ALL.into_iter().partition(|figure| figure.is_time());
    for figure in times.into_iter().chain(counts) {
        // Not a row of n/a in every comparison: it takes a stopwatch, or exits that KVM forces.
        let has_values = || units.windows.iter().any(|w| w.strata.values().any(|s| s[figure].count() > 0));
        if figure == Figure::Transition && !has_values() {
            continue;
        }
        let measure = Measure::of(figure);
        if let Some(why) = incomparable(figure, options) {
            let drafts = measure.unknown(why);
            stratified.extend(without_maxima(drafts.clone()));
            raw.extend(drafts);
            continue;
        }
        let (drafts, shifts) = rows::compare(&measure, &Dense::of(&units.windows, None, figure), &units, options);
        stratified.extend(within_strata(figure, &drafts, &strata, &units, options));
        raw.extend(drafts);
        if figure.is_time() {
            let [a, b] = [Arm::A, Arm::B].map(|arm| pooled(&units, arm, figure));
            distributions.push(Distributions { figure, a, b, shifts });
        }
    }
    for (name, better, cause) in RATES {
        let measure = Measure::rate(name, better);
        if cause.is_some() && !options.timer {
            raw.extend(measure.unknown("no VMX-preemption timer on a side"));
            continue;
        }
        let events = |w: &Window| {
            let counted = w.strata.iter().filter(|(s, _)| cause.is_none() || s.cause == cause);
            counted.map(|(_, s)| s.entries() as f64).sum()
        };
        let parts = units.windows.iter().map(|w| (events(w), w.length_ns as f64 / 1e9));
        raw.extend(rows::compare(&measure, &Dense::ratio(parts), &units, options).0);
    }

    let [a, b] = [Arm::A, Arm::B].map(|arm| side(&units, arm));
    let rows = rows::judge(raw, design, options);
    let stratified = rows::judge(stratified, design, options);
    let least_p = design.least_p(options.permutations);
    Comparison {
        method: method(&units, options, least_p, [family(&rows), family(&stratified)]),
        seed: options.seed,
        alpha: options.alpha,
        units: design.units(),
        least_p,
        rows,
        stratified,
        mix,
        distributions,
        timeline: timeline(&units, options),
        checks: checks::of(windows, [&a, &b], options),
        a,
        b,
    }
}

/// Why the two sides' values of a figure cannot be compared; none where they can.
const fn incomparable(figure: Figure, options: &Options) -> Option<&'static str> {
    match figure {
        _ if figure.is_time() && !options.latencies => Some("latencies of these recordings cannot be compared"),
        Figure::Transition if !options.transitions => {
            Some("one side's is the stopwatch's, the other's of immediate timer exits")
        }
        Figure::PinWrites if !options.pin_writes => Some("pin writes are not known, or not from one source"),
        _ => None,
    }
}

/// Weights do not move a maximum.
fn without_maxima(drafts: Vec<Draft>) -> impl Iterator<Item = Draft> {
    drafts.into_iter().filter(|d| d.row.stat != "max")
}

/// Events per second, and the timer's cause of those that are not all entries. How often timers are due and entries come is the
/// workload's doing.
const RATES: [(&str, Better, Option<TimerCause>); 4] = [
    ("timer_exits.deadline", Better::Neither, Some(TimerCause::Deadline)),
    ("timer_exits.immediate", Better::Neither, Some(TimerCause::Immediate)),
    ("timer_exits.spurious", Better::Lower, Some(TimerCause::Spurious)),
    ("entries", Better::Neither, None),
];

/// The figure's rows with both sides weighted to one mix; with one kind of exit, the raw ones.
fn within_strata(
    figure: Figure,
    raw: &[Draft],
    strata: &[Stratum],
    units: &Units,
    options: &Options,
) -> impl Iterator<Item = Draft> + use<> {
    without_maxima(if strata.len() > 1 {
        rows::compare(&Measure::of(figure), &Dense::of(&units.windows, Some(strata), figure), units, options).0
    } else {
        raw.to_vec()
    })
}

fn of_arm<'a>(units: &'a Units, arm: Arm) -> impl Iterator<Item = &'a Window> {
    units.windows.iter().zip(&units.arms).filter(move |(_, a)| **a == arm).map(|(w, _)| *w)
}

fn pooled(units: &Units, arm: Arm, figure: Figure) -> Histogram {
    let mut all = Histogram::default();
    of_arm(units, arm).flat_map(|w| w.strata.values()).for_each(|s| all.merge(&s[figure]));
    all
}

fn side(units: &Units, arm: Arm) -> Side {
    let mut side = Side {
        windows: 0,
        length_ns: 0,
        totals: Totals::default(),
        pin_writes: None,
        timer_exits: BTreeMap::new(),
        vcpus: BTreeSet::new(),
    };
    for window in of_arm(units, arm) {
        side.windows += 1;
        side.length_ns = side.length_ns.saturating_add(window.length_ns);
        side.totals.merge(&window.totals);
        side.vcpus.extend(window.vcpus.iter().cloned());
        for (stratum, series) in &window.strata {
            if let Some(cause) = stratum.cause {
                *side.timer_exits.entry(cause).or_default() += series.entries();
            }
            if let Some(mean) = series[Figure::PinWrites].mean() {
                let writes = mean * series[Figure::PinWrites].count() as f64;
                side.pin_writes = Some(side.pin_writes.unwrap_or(0).saturating_add(writes.round() as u64));
            }
        }
    }
    side
}

fn timeline(units: &Units, options: &Options) -> Vec<Point> {
    let point = |(window, arm): (&&Window, &Arm)| {
        let mut all = Series::default();
        window.strata.values().for_each(|s| all.merge(s));
        let quantile = |q| all[Figure::EntryToExit].quantile(q).filter(|_| options.latencies).map(|v| v as f64);
        Point {
            arm: *arm,
            start_unix_ns: window.start_unix_ns,
            length_ns: window.length_ns,
            entries: all.entries(),
            entry_to_exit: quantile(0.5).zip(quantile(0.99)).map(|(p50, p99)| [p50, p99]),
            pin_writes: all[Figure::PinWrites].mean().filter(|_| options.pin_writes),
        }
    };
    let mut points: Vec<Point> = units.windows.iter().zip(&units.arms).map(point).collect();
    points.sort_by_key(|p| p.start_unix_ns);
    points
}

fn method(units: &Units, options: &Options, least_p: f64, families: [usize; 2]) -> Vec<String> {
    let mut method = units.method.clone();
    let labellings = match (units.design, units.design.all_labellings()) {
        (Design::Rounds(n), Some(_)) => format!("all 2^{n} ways of swapping the sides within rounds"),
        (Design::Rounds(_), None) => format!("{} random swaps of the sides within rounds", options.permutations),
        (Design::Blocks { .. }, Some(n)) => format!("all {n:.0} ways of choosing A's blocks"),
        (Design::Blocks { .. }, None) => format!("{} random choices of A's blocks", options.permutations),
    };
    method.push(format!(
        "p: {labellings}, two-sided on |b - a| of all windows of a side together; the lowest possible is {least_p:.5}"
    ));
    method.push(format!(
        "chance of one false alarm among all figures {}, by Holm's correction over {} figures, and over {} with both sides \
         weighted to one mix of exits",
        options.alpha, families[0], families[1]
    ));
    method.push(format!(
        "intervals hold the true value in 95 of 100 experiments: studentised bootstrap of the units, {} resamples, standard \
         errors by leaving one unit out",
        options.resamples
    ));
    method.push(
        "detectable: found in 80 of 100 experiments at Holm's first step; noise: 95 % of random splits of a side's own windows \
         stay below, with half of the data"
            .to_owned(),
    );
    method.push(
        "quantiles are interpolated within their bucket of 0.1 %; exit_to_entry_ns holds the time that halted vCPUs wait, which \
         the guest's load decides"
            .to_owned(),
    );
    method.push(format!("seed {}", options.seed));
    method
}
