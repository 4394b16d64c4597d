//! The comparison itself: every figure's rows, both sides, the time series and the method.

use std::collections::{BTreeMap, BTreeSet};

use tracer_common::rules::TimerCause;

pub(crate) use super::stats::statistic::{named, statistics};
use super::{
    checks,
    comparison::{Comparison, Distributions, Point, Row, Side},
    stats::{
        by_vm,
        dense::{self, Dense},
        design::{Design, Units},
        judging,
        measure::{Draft, Measure},
        mix,
        rates::{RATES, Rate},
        rows, shares,
        statistic::{OF_POLICIES, figures},
    },
    windows::{Arm, Options, Stratum, Window, Windows, why_unknown},
};
use crate::{
    model::{
        figures::Figure,
        histogram::Histogram,
        knowledge::TimerExits,
        series::{Key, Series},
        totals::Totals,
    },
    recording::Spans,
};

/// Strata of the stratified comparison at most: those with the most entries.
const MAX_STRATA: usize = 64;

/// Rounds from which so many figures that are tested at once can be decided, if all rounds agree.
pub(crate) fn first_rounds(tests: usize) -> u32 {
    u32::try_from(Design::Rounds(1).needed(tests, &Options::default())).unwrap_or(u32::MAX)
}

/// Compares the two sides.
pub fn compare(windows: &Windows, options: &Options) -> Comparison {
    let units = Units::of(windows);
    let [a, b] = [Arm::A, Arm::B].map(|arm| side(&units, arm, options));
    let mut drafts = Drafts::default();
    drafts.add_figures(&units, options);
    drafts.add_rates(&units, [&a, &b], options);
    drafts.raw.extend(shares::drafts(&units, options));
    let rows = judging::judge(drafts.raw, units.design, options);
    let stratified = judging::judge(drafts.stratified, units.design, options);
    let least_p = units.design.least_p(options.permutations);
    // Without any window, every figure may get values.
    let has_values = |r: &&Row| r.primary.is_none() && r.a.is_some() && r.b.is_some();
    let tests = match rows.iter().filter(has_values).count() {
        0 => rows.len(),
        with_values => with_values,
    };
    let families = [&rows, &stratified].map(|rows| judging::family(rows));
    let by_vm = by_vm::of(windows, &by_vm_figures(&rows, &options.primary));
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
        by_vm,
        a,
        b,
    }
}

/// Rows of the figures that are compared by VM, if both sides have a value: the primary ones in their order; of an experiment that names
/// none, those of policies.
fn by_vm_figures<'a>(rows: &'a [Row], primary: &[String]) -> Vec<&'a Row> {
    let of_policies = || OF_POLICIES.map(str::to_owned).to_vec();
    let names = if primary.is_empty() { of_policies() } else { primary.to_vec() };
    let row = |name: &String| rows.iter().find(|row| *name == format!("{}.{}", row.figure, row.stat));
    names.iter().filter_map(row).filter(|row| row.a.is_some() && row.b.is_some()).collect()
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
        for Rate { measure, cause } in RATES {
            let count = |side: &Side| cause.and_then(|cause| side.timer_exits.get(&cause)).cloned().unwrap_or(Ok(0));
            if let Some(why) = why_unknown(sides.map(count)) {
                self.raw.extend(measure.unknown(&why));
                continue;
            }
            let windows = Rate { measure, cause }.dense(units, covered);
            self.raw.extend(rows::compare(&measure, &windows, units, options).0);
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

fn permuted(labellings: &str, least_p: f64) -> String {
    format!(
        "p: {labellings}, two-sided on |b - a| of all windows of a side together; the lowest possible p is {least_p:.5}"
    )
}

fn method(units: &Units, options: &Options, least_p: f64, [raw, stratified]: [usize; 2]) -> Vec<String> {
    let mut method = units.method.clone();
    let (alpha, resamples) = (options.alpha, options.resamples);
    method.push(match (units.design, units.design.all_labellings()) {
        (Design::Rounds(_), _) => format!(
            "p: anytime-valid, two-sided, from the coin of each round and its difference b - a (of logarithms where both are above 0, but for shares): 1 / \
             the most evidence of an e-process after any round, so it holds whenever the experiment stops; below {least_p:.5} it cannot be"
        ),
        (_, Some(n)) => permuted(&format!("all {n:.0} ways of choosing A's blocks"), least_p),
        (_, None) => permuted(&format!("{} random choices of A's blocks", options.permutations), least_p),
    });
    method.push(match options.primary.as_slice() {
        [] => format!(
            "adjusted p (Holm): the chance of any false alarm among all figures is at most {alpha}; {raw} figures were tested, and \
             {stratified} with both sides weighted to one mix of exits"
        ),
        primary => format!(
            "primary figures, named before the data: {}; each is tested at the full level of {alpha} if those before it are decided. Then \
             {raw} others under Holm's correction ({stratified} with both sides weighted to one mix of exits): the chance of any false \
             alarm is at most {alpha}",
            primary.join(", ")
        ),
    });
    method.push(match units.design {
        Design::Rounds(_) => "95 % confidence intervals: all changes that this evidence has not ruled out after any round (a confidence \
                              sequence), so they hold whenever the experiment stops"
            .to_owned(),
        Design::Blocks { .. } => format!(
            "95 % confidence intervals: studentised bootstrap of the units, {resamples} resamples, leave-one-out standard errors"
        ),
    });
    method.extend([
        "where one side has no event at all and the units are too few: exact test of the windows with events, which are taken to be as \
         likely on either side"
            .to_owned(),
        "MDE: smallest change found with 80 % power, of primary figures at the full level, of others at Holm's first step; A/A noise: \
         95th percentile of half-against-half differences within a side, from half of the data"
            .to_owned(),
        "quantiles are interpolated within their bucket of 0.1 %; host time (exit_to_entry_ns) contains the time that halted vCPUs \
         wait, which depends on the guest's load"
            .to_owned(),
        format!("seed {}", options.seed),
    ]);
    method
}
