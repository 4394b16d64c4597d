//! The comparison itself: every figure's rows, both sides, the time series and the method.

use std::collections::{BTreeMap, BTreeSet};

use tracer_common::rules::TimerCause;

use super::{
    checks,
    comparison::{Better, Comparison, Distributions, Point, Side},
    stats::{
        by_vm,
        dense::{self, Dense},
        design::{Design, Units},
        judging,
        measure::{Draft, Measure},
        mix, rows, shares,
    },
    windows::{Arm, Options, Stratum, Window, Windows, why_unknown},
};
use crate::{
    model::{
        figures::{Figure, Unit},
        histogram::Histogram,
        knowledge::TimerExits,
        series::{Key, Series},
        totals::Totals,
    },
    recording::Spans,
};

/// Strata of the stratified comparison at most: those with the most entries.
const MAX_STRATA: usize = 64;

/// Events per second: name, better direction, and the cause if only timer exits count. The workload decides how often timers are
/// due and entries happen.
const RATES: [(&str, Better, Option<TimerCause>); 5] = [
    ("timer_exits.deadline", Better::Neither, Some(TimerCause::Deadline)),
    ("timer_exits.immediate", Better::Neither, Some(TimerCause::Immediate)),
    ("timer_exits.spurious", Better::Lower, Some(TimerCause::Spurious)),
    ("timer_exits.early", Better::Lower, Some(TimerCause::Early)),
    ("entries", Better::Neither, None),
];

/// Every figure that can be compared, in the order of the rows: times first.
fn figures() -> impl Iterator<Item = Figure> {
    let (times, counts): (Vec<_>, Vec<_>) = Figure::ALL.into_iter().partition(|figure| figure.is_time());
    times.into_iter().chain(counts)
}

/// Every statistic that can be compared, as `--fail-if` names it, and its unit.
pub(crate) fn statistics() -> Vec<(String, Unit)> {
    let rates = RATES.map(|(name, better, _)| Measure::rate(name, better));
    figures().map(Measure::of).chain(rates).chain(shares::measures()).flat_map(|measure| measure.statistics()).collect()
}

/// Compares the two sides.
pub fn compare(windows: &Windows, options: &Options) -> Comparison {
    let units = Units::of(windows);
    let [a, b] = [Arm::A, Arm::B].map(|arm| side(&units, arm, options));
    let mut drafts = Drafts::default();
    drafts.add_figures(&units, options);
    drafts.add_rates(&units, [&a, &b], options);
    let mut rows = judging::judge(drafts.raw, units.design, options);
    // A family of their own, so that they take no power from the other figures.
    let shares = judging::judge(shares::drafts(&units, options), units.design, options);
    let stratified = judging::judge(drafts.stratified, units.design, options);
    let least_p = units.design.least_p(options.permutations);
    // Without any window, every figure may get values.
    let tests = match rows.iter().filter(|r| r.a.is_some() && r.b.is_some()).count() {
        0 => rows.len(),
        with_values => with_values,
    };
    let families = [&rows, &stratified, &shares].map(|rows| judging::family(rows));
    rows.extend(shares);
    Comparison {
        method: method(&units, options, least_p, families),
        seed: options.seed,
        alpha: options.alpha,
        ignore_below: options.ignore_below,
        unit: units.unit,
        units: units.design.units(),
        needed: units.design.needed(tests, options),
        least_p,
        rows,
        stratified,
        mix: mix::of(&units, options),
        distributions: drafts.distributions,
        timeline: timeline(&units, options),
        checks: checks::of(windows, [&a, &b], options),
        by_vm: by_vm::of(windows, &by_vm::primaries([&a, &b], options)),
        a,
        b,
    }
}

/// Rows before they are judged together.
#[derive(Default)]
struct Drafts {
    raw: Vec<Draft>,
    stratified: Vec<Draft>,
    distributions: Vec<Distributions>,
}

impl Drafts {
    fn add_figures(&mut self, units: &Units, options: &Options) {
        let strata = dense::strata(&units.windows, MAX_STRATA);
        for figure in figures() {
            // Without any value, their rows would be n/a in every comparison.
            let has_values = || units.windows.iter().any(|w| w.strata.values().any(|s| s[figure].count() > 0));
            if figure.is_rare() && !has_values() {
                continue;
            }
            let measure = Measure::of(figure);
            if let Some(why) = options.incomparable(figure) {
                let drafts = measure.unknown(&why);
                self.stratified.extend(without_maxima(drafts.clone()));
                self.raw.extend(drafts);
                continue;
            }
            let (drafts, shifts) = rows::compare(&measure, &Dense::of(&units.windows, None, figure), units, options);
            self.stratified.extend(within_strata(figure, &drafts, &strata, units, options));
            self.raw.extend(drafts);
            if figure.is_time() {
                let [a, b] = [Arm::A, Arm::B].map(|arm| pooled(units, arm, figure));
                self.distributions.push(Distributions { figure, a, b, shifts });
            }
        }
    }

    fn add_rates(&mut self, units: &Units, sides: [&Side; 2], options: &Options) {
        let covered = sides.map(Side::covered_share);
        for (name, better, cause) in RATES {
            let measure = Measure::rate(name, better);
            let count = |side: &Side| cause.and_then(|cause| side.timer_exits.get(&cause)).cloned().unwrap_or(Ok(0));
            if let Some(why) = why_unknown(sides.map(count)) {
                self.raw.extend(measure.unknown(&why));
                continue;
            }
            let events = |w: &Window| {
                let counted = w.strata.iter().filter(|(s, _)| cause.is_none() || s.cause == cause);
                counted.map(|(_, s)| s.entries() as f64).sum()
            };
            let seconds = |w: &Window, arm: Arm| covered[usize::from(arm == Arm::B)] * w.length_ns as f64 / 1e9;
            let parts = units.windows.iter().zip(&units.arms).map(|(w, arm)| (events(w), seconds(w, *arm)));
            self.raw.extend(rows::compare(&measure, &Dense::ratio(parts), units, options).0);
        }
    }
}

/// Drops maxima, because weights do not change them.
fn without_maxima(drafts: Vec<Draft>) -> impl Iterator<Item = Draft> {
    drafts.into_iter().filter(|d| d.row.stat != "max")
}

/// The figure's rows with both sides weighted to one mix; with a single exit, the raw rows.
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

fn side(units: &Units, arm: Arm, options: &Options) -> Side {
    let knowledge = &options.knowledge[usize::from(arm == Arm::B)];
    let (mut covered, mut timer_exits) = (Spans::default(), TimerExits::default());
    let mut side = Side {
        windows: 0,
        length_ns: 0,
        recorded_ns: 0,
        totals: Totals::default(),
        pin_writes: None,
        timer_exits: BTreeMap::new(),
        vcpus: BTreeSet::new(),
        left_out: 0,
    };
    for window in of_arm(units, arm) {
        side.windows += 1;
        side.recorded_ns = side.recorded_ns.saturating_add(window.length_ns);
        covered.add(window.start_unix_ns, window.length_ns);
        side.totals.merge(&window.totals);
        side.vcpus.extend(window.vcpus.iter().cloned());
        side.left_out = side.left_out.saturating_add(window.left_out);
        for (stratum, series) in &window.strata {
            let Stratum { isa, reason, cause, .. } = *stratum;
            timer_exits.count(&Key { isa, reason, cause, ..Key::default() }, series.entries());
            if knowledge.figure(Figure::PinWrites).is_ok() && series[Figure::PinWrites].count() > 0 {
                let writes = series[Figure::PinWrites].sum();
                side.pin_writes = Some(side.pin_writes.unwrap_or(0).saturating_add(writes));
            }
        }
    }
    side.length_ns = covered.length_ns();
    let by_cause = TimerCause::ALL.map(|cause| (cause, timer_exits.of(cause, knowledge)));
    // Exits of unknown cause are named only if there are some.
    side.timer_exits = by_cause.into_iter().filter(|(c, n)| *c != TimerCause::Unknown || *n != Ok(0)).collect();
    side
}

fn timeline(units: &Units, options: &Options) -> Vec<Point> {
    let [times, pin_writes] = [Figure::EntryToExit, Figure::PinWrites].map(|f| options.incomparable(f).is_none());
    let point = |(window, arm): (&&Window, &Arm)| {
        let mut all = Series::default();
        window.strata.values().for_each(|s| all.merge(s));
        let quantile = |q| all[Figure::EntryToExit].quantile(q).filter(|_| times).map(|v| v as f64);
        Point {
            arm: *arm,
            start_unix_ns: window.start_unix_ns,
            length_ns: window.length_ns,
            entries: all.entries(),
            entry_to_exit: quantile(0.5).zip(quantile(0.99)).map(|(p50, p99)| [p50, p99]),
            pin_writes: all[Figure::PinWrites].mean().filter(|_| pin_writes),
        }
    };
    let mut points: Vec<Point> = units.windows.iter().zip(&units.arms).map(point).collect();
    points.sort_by_key(|p| p.start_unix_ns);
    points
}

fn method(units: &Units, options: &Options, least_p: f64, [raw, stratified, shares]: [usize; 3]) -> Vec<String> {
    let labellings = match (units.design, units.design.all_labellings()) {
        (Design::Rounds(n), Some(_)) => format!("all 2^{n} ways of swapping the sides within rounds"),
        (Design::Rounds(_), None) => format!("{} random swaps of the sides within rounds", options.permutations),
        (Design::Blocks { .. }, Some(n)) => format!("all {n:.0} ways of choosing A's blocks"),
        (Design::Blocks { .. }, None) => format!("{} random choices of A's blocks", options.permutations),
    };
    let mut method = units.method.clone();
    method.extend([
        format!(
            "p: {labellings}, two-sided on |b - a| of all windows of a side together; the lowest possible p is {least_p:.5}"
        ),
        format!(
            "adjusted p (Holm): the chance of any false alarm among all figures is at most {}; {raw} figures were tested, and \
             {stratified} with both sides weighted to one mix of exits; {shares} shares of the vCPUs' time, for which the chance is \
             as high once more",
            options.alpha
        ),
        format!(
            "95 % confidence intervals: studentised bootstrap of the units, {} resamples, leave-one-out standard errors",
            options.resamples
        ),
        "MDE: smallest change found with 80 % power, at Holm's first step; A/A noise: 95th percentile of half-against-half \
         differences within a side, from half of the data"
            .to_owned(),
        "quantiles are interpolated within their bucket of 0.1 %; host time (exit_to_entry_ns) contains the time that halted vCPUs \
         wait, which depends on the guest's load"
            .to_owned(),
        format!("seed {}", options.seed),
    ]);
    method
}
