//! The test of the method: comparisons of simulated windows whose true values are known. Fails if a bound is broken; each bound is shown
//! next to a naive method that breaks it.

use std::{f64::consts::TAU, process::ExitCode, time::Instant};

use tracer_common::{Isa, rules::TimerCause};
use vmentry::{
    compare::{self, ExperimentRound, Options, Row, Stratum, Verdict, Window, Windows, random::Random},
    model::{figures::Figure, histogram::Histogram, number::truncated_u64, series::Level},
};

const TRIALS: u64 = 1000;
const ROUNDS: usize = 12;
/// Windows of a recording if nothing is randomised.
const RUN: usize = 160;
const EFFECT: f64 = 1.05;
const ALPHA: f64 = 0.05;
const THREADS: u64 = 2;
/// The tail: share of the values, start in medians, exponent.
const TAIL: (f64, f64, f64) = (0.02, 3.0, 2.5);

/// Exits: reason, cause, level of their times in ns, pin writes.
const KINDS: [(u32, Option<TimerCause>, f64, u64); 2] =
    [(10, None, 400.0, 0), (52, Some(TimerCause::Deadline), 800.0, 2)];

/// A process that makes windows.
#[derive(Clone, Copy)]
struct World {
    /// coefficient of the AR(1) process of the windows' log level
    rho: f64,
    /// its spread
    spread: f64,
    /// growth of the log level from the first window to the last
    drift: f64,
    /// entries per window, on average
    entries: f64,
    /// spread of its log, and the coefficient of its own AR(1) process
    rate: (f64, f64),
    /// share of timer exits of A and of B
    timer: [f64; 2],
    /// factor of B's times
    effect: f64,
}

/// Random parameters of a window.
struct Drawn {
    /// start, s
    second: u64,
    entries: f64,
    /// share of timer exits
    timer: f64,
    /// level of the times, ns
    level: f64,
}

const WORLD: World =
    World { rho: 0.6, spread: 0.05, drift: 0.1, entries: 700.0, rate: (0.2, 0.0), timer: [0.3, 0.3], effect: 1.0 };

fn uniform(random: &mut Random) -> f64 {
    ((random.bits() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

fn normal(random: &mut Random) -> f64 {
    (-2.0 * uniform(random).ln()).sqrt() * (TAU * uniform(random)).cos()
}

/// Times in units of the level: lognormal, with a Pareto tail.
fn shapes() -> Vec<f64> {
    let mut random = Random::new(77);
    let (share, from, exponent) = TAIL;
    let one = |random: &mut Random| {
        if uniform(random) < share {
            from * uniform(random).powf(-1.0 / exponent)
        } else {
            (0.25 * normal(random)).exp()
        }
    };
    (0..1 << 16).map(|_| one(&mut random)).collect()
}

impl World {
    /// Consecutive windows of the given sides.
    fn windows(&self, sides: &[usize], shapes: &[f64], random: &mut Random) -> Vec<Window> {
        let mut level = normal(random);
        let mut rate = normal(random);
        let last = sides.len().max(2) - 1;
        let window = |(i, &side): (usize, &usize)| {
            level = self.rho * level + (1.0 - self.rho * self.rho).sqrt() * normal(random);
            let effect = if side == 1 { self.effect } else { 1.0 };
            let log = self.spread * level + self.drift * i as f64 / last as f64;
            let (spread, rho) = self.rate;
            rate = rho * rate + (1.0 - rho * rho).sqrt() * normal(random);
            let drawn = Drawn {
                second: i as u64,
                entries: self.entries * (spread * rate).exp(),
                timer: self.timer[side],
                level: log.exp() * effect,
            };
            Self::window(&drawn, shapes, random)
        };
        sides.iter().enumerate().map(window).collect()
    }

    fn window(drawn: &Drawn, shapes: &[f64], random: &mut Random) -> Window {
        let Drawn { second, entries, timer, level } = *drawn;
        let mut window =
            Window { start_unix_ns: second * 1_000_000_000, length_ns: 1_000_000_000, ..Window::default() };
        window.vcpus.insert(("vm".to_owned(), 0));
        for (kind, (reason, cause, scale, writes)) in KINDS.into_iter().enumerate() {
            let n = truncated_u64((entries * if kind == 1 { timer } else { 1.0 - timer }).round());
            if n == 0 {
                continue;
            }
            let stratum = Stratum { level: Level::L1, isa: Isa::Vmx, reason: Some(reason), cause };
            let series = window.strata.entry(stratum).or_default();
            // Entries come in bursts of similar length.
            let mut burst = 1.0;
            for entry in 0..n {
                if entry % 40 == 0 {
                    burst = (0.08 * normal(random)).exp();
                }
                let mut value = || truncated_u64((level * scale * burst * shapes[random.below(shapes.len())]).round());
                series[Figure::EntryToExit].record(value());
                series[Figure::ExitToEntry].record(value());
            }
            series[Figure::PinWrites].record_n(writes, n);
            window.totals.entries += n;
        }
        window
    }

    fn rounds(&self, shapes: &[f64], random: &mut Random) -> Windows {
        Windows::Rounds(self.experiment(ROUNDS, shapes, random))
    }

    fn experiment(&self, rounds: usize, shapes: &[f64], random: &mut Random) -> Vec<ExperimentRound> {
        let firsts: Vec<bool> = (0..rounds).map(|_| random.coin()).collect();
        let sides: Vec<usize> = firsts.iter().flat_map(|&a| if a { [0, 1, 1, 0] } else { [1, 0, 0, 1] }).collect();
        let mut windows = self.windows(&sides, shapes, random).into_iter();
        let mut next = || windows.next().unwrap_or_default();
        let round = |&a_first: &bool| {
            let [w, x, y, z] = [next(), next(), next(), next()];
            let (a, b) = if a_first { ([w, z], [x, y]) } else { ([x, y], [w, z]) };
            ExperimentRound { a, b, a_first }
        };
        firsts.iter().map(round).collect()
    }

    fn run(&self, side: usize, shapes: &[f64], random: &mut Random) -> Vec<Window> {
        self.windows(&[side; RUN], shapes, random)
    }
}

fn options(seed: u64, resamples: u32) -> Options {
    Options { seed, resamples, permutations: 1000, alpha: ALPHA, ..Options::default() }
}

/// The results of all trials, in order; runs two threads.
fn each<T: Send>(trials: u64, trial: impl Fn(u64) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let half = |thread| {
            let trial = &trial;
            scope.spawn(move || {
                (trials * thread / THREADS..trials * (thread + 1) / THREADS).map(trial).collect::<Vec<_>>()
            })
        };
        let threads: Vec<_> = (0..THREADS).map(half).collect();
        threads.into_iter().filter_map(|t| t.join().ok()).flatten().collect()
    })
}

/// Checks bounds, and remembers the broken ones.
#[derive(Default)]
struct Bounds {
    broken: Vec<String>,
}

impl Bounds {
    fn hold(&mut self, name: &str, value: f64, low: f64, high: f64, trials: u64) {
        let held = (low..=high).contains(&value);
        let error = (value * (1.0 - value) / trials as f64).sqrt();
        let mark = if held { "ok" } else { "BROKEN" };
        println!(
            "  {name:<58}{:>6.1} % +-{:>4.1}   [{:>5.1}, {:>5.1}] {mark}",
            100.0 * value,
            100.0 * error,
            100.0 * low,
            100.0 * high
        );
        if !held {
            self.broken.push(name.to_owned());
        }
    }

    /// Checks that a naive method breaks the bound.
    fn catch(&mut self, name: &str, value: f64, low: f64, high: f64) {
        let caught = !(low..=high).contains(&value);
        let mark = if caught { "breaks it, as it should" } else { "NOT CAUGHT" };
        println!("    naive: {name:<50}{:>6.1} %{:>26}", 100.0 * value, mark);
        if !caught {
            self.broken.push(format!("naive {name} was not caught"));
        }
    }
}

fn share(of: impl Iterator<Item = bool>) -> f64 {
    let (mut yes, mut all) = (0u32, 0u32);
    of.for_each(|x| {
        yes += u32::from(x);
        all += 1;
    });
    f64::from(yes) / f64::from(all.max(1))
}

fn alarm(rows: &[Row]) -> bool {
    rows.iter().any(|r| r.p_holm.is_some_and(|p| p <= ALPHA))
}

fn row<'a>(rows: &'a [Row], stat: &str) -> Option<&'a Row> {
    rows.iter().find(|r| r.figure == "entry_to_exit_ns" && r.stat == stat)
}

/// b - a of the means and its standard error, as if all entries were independent.
fn entries_independent(c: &compare::Comparison) -> [f64; 2] {
    let of = |h: &Histogram| {
        let mean = h.mean().unwrap_or(0.0);
        let squares: f64 =
            h.buckets().map(|(low, width, n)| ((low + width / 2) as f64 - mean).powi(2) * n as f64).sum();
        [mean, squares / (h.count() as f64).powi(2)]
    };
    let d = &c.distributions[0];
    let ([a, var_a], [b, var_b]) = (of(&d.a), of(&d.b));
    [b - a, (var_a + var_b).sqrt()]
}

fn same_policy_twice(trials: u64, shapes: &[f64], bounds: &mut Bounds) {
    println!("{trials} experiments of {ROUNDS} rounds, soft against soft: any of all figures reported as different");
    let results = each(trials, |seed| {
        let c = compare::compare(&WORLD.rounds(shapes, &mut Random::new(seed)), &options(seed, 0));
        let [difference, se] = entries_independent(&c);
        // 2.98: two-sided 5 % over 17 figures.
        (
            alarm(&c.rows),
            alarm(&c.stratified),
            difference.abs() > 2.98 * se,
            c.rows.iter().filter(|r| r.p.is_some()).count(),
        )
    });
    let figures = results.iter().map(|r| r.3).min().unwrap_or(0);
    println!("  ({figures} figures or more tested at once)");
    bounds.hold("false alarm", share(results.iter().map(|r| r.0)), 0.0, ALPHA, trials);
    bounds.hold("false alarm, one mix of exits", share(results.iter().map(|r| r.1)), 0.0, ALPHA, trials);
    bounds.catch("z test of the mean, entries independent", share(results.iter().map(|r| r.2)), 0.0, ALPHA);
}

fn recordings_of_one_policy(trials: u64, shapes: &[f64], bounds: &mut Bounds) {
    println!(
        "{trials} pairs of recordings of {RUN} windows, nothing randomised, one policy: any figure reported as different"
    );
    let world = World { spread: 0.15, entries: 120.0, rate: (0.3, 0.6), drift: 0.0, timer: [0.0; 2], ..WORLD };
    let results = each(trials, |seed| {
        let mut random = Random::new(seed + 1_000_000);
        let [a, b] = [0, 1].map(|side| world.run(side, shapes, &mut random));
        let c = compare::compare(&Windows::Runs { a: vec![a.clone()], b: vec![b.clone()] }, &options(seed, 0));
        let conclusive = c.rows.iter().any(|r| r.p.is_some() && r.verdict != Verdict::NotEnoughData);
        let alarmed =
            c.rows.iter().any(|r| r.p_holm.is_some_and(|p| p <= ALPHA) && r.verdict != Verdict::NotEnoughData);
        // The same windows, each as a recording of its own.
        let naive = (seed % 4 == 0).then(|| {
            let alone = |run: Vec<Window>| run.into_iter().map(|w| vec![w]).collect();
            alarm(&compare::compare(&Windows::Runs { a: alone(a), b: alone(b) }, &options(seed, 0)).rows)
        });
        (alarmed, conclusive, naive, c.units[0])
    });
    let mut units: Vec<usize> = results.iter().map(|r| r.3).collect();
    units.sort_unstable();
    let conclusive = share(results.iter().map(|r| r.1));
    println!(
        "  (blocks per side: median {}, {:.1} % of pairs had enough of them)",
        units[units.len() / 2],
        100.0 * conclusive
    );
    // Without a verdict there can be no false alarm.
    bounds.hold("pairs with enough blocks for a verdict", conclusive, 0.5, 1.0, trials);
    bounds.hold("false alarm", share(results.iter().map(|r| r.0)), 0.0, ALPHA, trials);
    bounds.catch("single windows independent", share(results.iter().filter_map(|r| r.2)), 0.0, ALPHA);
}

/// Result of one experiment with an effect.
struct Trial {
    rows: Vec<Row>,
    units: [usize; 2],
    /// difference and standard error by the naive method
    naive: [f64; 2],
}

fn a_true_effect(trials: u64, shapes: &[f64], bounds: &mut Bounds) {
    println!("{trials} experiments, B slower by {:.0} %", 100.0 * (EFFECT - 1.0));
    let world = World { effect: EFFECT, timer: [0.0; 2], ..WORLD };
    let seen = each(trials, |seed| {
        let windows = world.rounds(shapes, &mut Random::new(seed + 2_000_000));
        let options = Options { primary: vec!["entry_to_exit_ns.p50".to_owned()], ..options(seed, 0) };
        let c = compare::compare(&windows, &options);
        Trial { units: c.units, naive: entries_independent(&c), rows: c.rows }
    });
    // A's true values, from far more windows than an experiment has.
    let mut all = Histogram::default();
    let still = World { effect: 1.0, ..world };
    let many =
        each((trials / 2).max(2), |seed| still.windows(&[0; 4 * ROUNDS], shapes, &mut Random::new(seed + 3_000_000)));
    many.iter().flatten().flat_map(|w| w.strata.values()).for_each(|s| all.merge(&s[Figure::EntryToExit]));
    let truth = |stat: &str| {
        let q = match stat {
            "p50" => 0.5,
            "p90" => 0.9,
            "p99" => 0.99,
            _ => return all.mean(),
        };
        all.quantile(q).map(|v| v as f64)
    };
    for stat in ["p50", "p90", "p99", "mean"] {
        let true_difference = truth(stat).unwrap_or(0.0) * (EFFECT - 1.0);
        let held = |e: Option<compare::Estimate>, truth: f64| {
            let bounds = e.and_then(|e| e.low.zip(e.high));
            bounds.is_some_and(|(low, high)| low <= truth && truth <= high)
        };
        let rows = || seen.iter().filter_map(|s| row(&s.rows, stat));
        let ratio = share(rows().map(|r| held(r.ratio, EFFECT)));
        let difference = share(rows().map(|r| held(r.difference, true_difference)));
        bounds.hold(&format!("95 % interval of the ratio contains it, {stat}"), ratio, 1.0 - ALPHA, 1.0, trials);
        bounds.hold(
            &format!("95 % interval of the difference contains it, {stat}"),
            difference,
            1.0 - ALPHA,
            1.0,
            trials,
        );
        if stat == "mean" {
            let naive = share(seen.iter().map(|s| (s.naive[0] - true_difference).abs() <= 1.96 * s.naive[1]));
            bounds.catch("difference of means, entries independent", naive, 1.0 - ALPHA, 1.0);
        }
    }
    let true_difference = truth("p50").unwrap_or(0.0) * (EFFECT - 1.0);
    let (mut promised, mut found) = (vec![], vec![]);
    for s in &seen {
        let Some(row) = row(&s.rows, "p50") else { continue };
        // A primary figure that is the first has the full level.
        promised.extend(compare::promised_power(row, true_difference, s.units, true, ALPHA));
        found.push(row.verdict == Verdict::Worse);
    }
    let promised = promised.iter().sum::<f64>() / promised.len().max(1) as f64;
    println!("  (the reports promised to find it in {:.1} % on average)", 100.0 * promised);
    let (low, high) = (promised - 0.07, promised + 0.07);
    bounds.hold("p50, primary: its verdict is worse, against the promise", share(found.into_iter()), low, high, trials);
    bounds.hold("promised power is neither none nor certain", promised, 0.3, 0.98, trials);
}

/// Primary figures of a timer policy, in their order.
fn primary() -> Vec<String> {
    ["pin_writes.mean", "entry_to_exit_ns.p50", "timer_exits.spurious.per_second"].map(str::to_owned).into()
}

/// Stops an experiment after the first round at which any figure has a verdict, which is the worst moment to stop at.
fn stopping_at_the_worst_moment(trials: u64, shapes: &[f64], bounds: &mut Bounds) {
    const MOST: usize = 24;
    println!(
        "{trials} experiments of one policy, looked at after every round up to {MOST}: any figure ever reported as different"
    );
    let results = each(trials, |seed| {
        let all = WORLD.experiment(MOST, shapes, &mut Random::new(seed + 5_000_000));
        let alarm_after = |rounds: usize| {
            let options = Options { primary: primary(), permutations: 10, ..options(seed, 0) };
            let c = compare::compare(&Windows::Rounds(all[..rounds].to_vec()), &options);
            let primary = c.rows.iter().any(|r| r.primary.is_some() && is_change(r));
            let [difference, se] = entries_independent(&c);
            // Fixed-size tests of each look, as who stops when p < 0.05 makes them: t of the rounds' means.
            (primary, c.rows.iter().any(is_change), difference.abs() > 1.96 * se)
        };
        let looks: Vec<_> = (6..=MOST).step_by(3).map(alarm_after).collect();
        let ever = |of: fn(&(bool, bool, bool)) -> bool| looks.iter().any(of);
        (ever(|l| l.0), ever(|l| l.1), ever(|l| l.2))
    });
    bounds.hold("false alarm of a primary figure, ever", share(results.iter().map(|r| r.0)), 0.0, ALPHA, trials);
    bounds.hold("false alarm of any figure, ever", share(results.iter().map(|r| r.1)), 0.0, ALPHA, trials);
    bounds.catch("z test of the mean at each look", share(results.iter().map(|r| r.2)), 0.0, ALPHA);
}

/// Stops when p50's interval first excludes no change, and asks whether it contains the truth then: also the worst moment.
fn intervals_at_the_worst_moment(trials: u64, shapes: &[f64], bounds: &mut Bounds) {
    const MOST: usize = 24;
    println!(
        "{trials} experiments, B slower by {:.0} %, stopped when the change is found, or after {MOST} rounds",
        100.0 * (EFFECT - 1.0)
    );
    let world = World { effect: EFFECT, timer: [0.0; 2], ..WORLD };
    let results = each(trials, |seed| {
        let all = world.experiment(MOST, shapes, &mut Random::new(seed + 6_000_000));
        let mut rounds = 6;
        loop {
            let primary = vec!["entry_to_exit_ns.p50".to_owned()];
            let options = Options { primary, permutations: 10, ..options(seed, 0) };
            let c = compare::compare(&Windows::Rounds(all[..rounds].to_vec()), &options);
            let row = row(&c.rows, "p50").cloned();
            let found = row.as_ref().is_some_and(is_change);
            if found || rounds == MOST {
                let bounds = row.and_then(|r| r.ratio).and_then(|e| e.low.zip(e.high));
                return (rounds, found, bounds.is_some_and(|(low, high)| low <= EFFECT && EFFECT <= high));
            }
            rounds += 3;
        }
    });
    let mut rounds: Vec<_> = results.iter().map(|r| r.0).collect();
    rounds.sort_unstable();
    println!(
        "  (median of rounds: {}, found in {:.1} %)",
        rounds[rounds.len() / 2],
        100.0 * share(results.iter().map(|r| r.1))
    );
    bounds.hold("interval of p50's ratio contains it", share(results.iter().map(|r| r.2)), 1.0 - ALPHA, 1.0, trials);
}

/// A policy that never writes against one that does, in as few rounds and windows as people try.
fn a_structural_zero(trials: u64, shapes: &[f64], bounds: &mut Bounds) {
    println!(
        "{trials} experiments of 6 rounds, and of 2 rounds cut short: no pin writes against about 0.6 an entry, and none against none"
    );
    let writes = |windows: &mut [Window], on: bool| {
        for series in windows.iter_mut().flat_map(|w| w.strata.values_mut()) {
            if !on {
                let entries = series[Figure::PinWrites].count();
                series[Figure::PinWrites] = Histogram::default();
                series[Figure::PinWrites].record_n(0, entries);
            }
        }
    };
    let verdict = |seed: u64, rounds: usize, b_writes: bool| {
        let mut all = WORLD.experiment(rounds, shapes, &mut Random::new(seed + 7_000_000));
        for round in &mut all {
            writes(&mut round.a, false);
            writes(&mut round.b, b_writes);
        }
        let options = Options { primary: primary(), ..options(seed, 0) };
        let c = compare::compare(&Windows::Rounds(all), &options);
        c.rows.iter().find(|r| r.figure == "pin_writes").map(|r| r.verdict)
    };
    for rounds in [6, 2] {
        let found = each(trials, |seed| verdict(seed, rounds, true) == Some(Verdict::Worse));
        bounds.hold(
            &format!("pin writes are worse after {rounds} rounds"),
            share(found.into_iter()),
            0.99,
            1.0,
            trials,
        );
        let alarms = each(trials, |seed| verdict(seed, rounds, false) == Some(Verdict::Worse));
        bounds.hold(&format!("none against none, {rounds} rounds"), share(alarms.into_iter()), 0.0, 0.0, trials);
    }
}

/// Events that come in a single burst, in one window of either side: a structural zero by chance alone.
fn a_burst(trials: u64, shapes: &[f64], bounds: &mut Bounds) {
    println!(
        "{trials} experiments of 3 rounds and one policy, all spurious timer exits in one burst of up to two windows"
    );
    let spurious = Stratum { level: Level::L1, isa: Isa::Vmx, reason: Some(52), cause: Some(TimerCause::Spurious) };
    let alarms = each(trials, |seed| {
        let mut random = Random::new(seed + 8_000_000);
        let mut all = WORLD.experiment(3, shapes, &mut random);
        let (first, long) = (random.below(12), 1 + random.below(2));
        for (r, round) in all.iter_mut().enumerate() {
            let order = if round.a_first { [(0, 0), (1, 0), (1, 1), (0, 1)] } else { [(1, 0), (0, 0), (0, 1), (1, 1)] };
            for (place, (side, at)) in order.into_iter().enumerate() {
                if (first..first + long).contains(&(4 * r + place)) {
                    let window = if side == 0 { &mut round.a[at] } else { &mut round.b[at] };
                    let series = window.strata.entry(spurious).or_default();
                    series[Figure::EntryToExit].record_n(800, 500);
                    series[Figure::PinWrites].record_n(0, 500);
                }
            }
        }
        let options = Options { primary: vec!["timer_exits.spurious.per_second".to_owned()], ..options(seed, 0) };
        let c = compare::compare(&Windows::Rounds(all), &options);
        c.rows.iter().any(|r| r.figure == "timer_exits.spurious" && is_change(r))
    });
    bounds.hold("false alarm of spurious exits", share(alarms.into_iter()), 0.0, ALPHA, trials);
}

fn is_change(row: &Row) -> bool {
    matches!(row.verdict, Verdict::Better | Verdict::Worse | Verdict::Changed)
}

fn another_workload(trials: u64, shapes: &[f64], bounds: &mut Bounds) {
    println!("{trials} experiments, B has 36 % timer exits instead of 30 %, no exit is slower");
    let world = World { timer: [0.30, 0.36], ..WORLD };
    let results = each(trials, |seed| {
        let c = compare::compare(&world.rounds(shapes, &mut Random::new(seed + 4_000_000)), &options(seed, 0));
        let raw = c.rows.iter().any(|r| r.figure.ends_with("_ns") && r.p_holm.is_some_and(|p| p <= ALPHA));
        (raw, alarm(&c.stratified), c.mix.p.is_some_and(|p| p < 0.01))
    });
    bounds.hold(
        "one mix of exits: a time or pin writes reported",
        share(results.iter().map(|r| r.1)),
        0.0,
        ALPHA,
        trials,
    );
    bounds.hold("the change of the mix is seen (p < 0.01)", share(results.iter().map(|r| r.2)), 0.95, 1.0, trials);
    bounds.catch("all entries together: a time reported", share(results.iter().map(|r| r.0)), 0.0, ALPHA);
}

fn main() -> ExitCode {
    // `cargo test` also runs benches, to check that they work.
    let bench = std::env::args().any(|a| a == "--bench");
    let trials = if bench { TRIALS } else { 4 };
    let (shapes, mut bounds, start) = (shapes(), Bounds::default(), Instant::now());
    type Part = fn(u64, &[f64], &mut Bounds);
    let parts: [(Part, u64); 8] = [
        (same_policy_twice, 1),
        (recordings_of_one_policy, 4),
        (a_true_effect, 1),
        (another_workload, 5),
        (stopping_at_the_worst_moment, 4),
        (intervals_at_the_worst_moment, 4),
        (a_structural_zero, 10),
        (a_burst, 1),
    ];
    for (part, fewer) in parts {
        let begin = Instant::now();
        part((trials / fewer).max(2), &shapes, &mut bounds);
        println!("  {:.1} s", begin.elapsed().as_secs_f64());
    }
    println!("{:.1} s in all", start.elapsed().as_secs_f64());
    if bench && !bounds.broken.is_empty() {
        eprintln!("method: broken: {}", bounds.broken.join("; "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
