//! Whole comparisons of synthetic windows.

use std::time::Instant;

use tracer_common::{Isa, rules::TimerCause};

use super::{random::Random, *};
use crate::model::{
    budget::Budget,
    figures::Figure,
    histogram::Histogram,
    knowledge::{Knowledge, Subject},
    measurement::Latency,
    number::truncated_u64,
    series::Level,
};
use crate::recording::Reader;

const CPUID: u32 = 10;
const TIMER: u32 = 52;

fn stratum(reason: u32, cause: Option<TimerCause>) -> Stratum {
    Stratum { level: Level::L1, isa: Isa::Vmx, reason: Some(reason), cause }
}

/// A window of `n` entries around `level` ns, with `writes` pin writes each.
fn window(start: u64, level: f64, n: u64, writes: u64, random: &mut Random) -> Window {
    let mut window = Window { start_unix_ns: start, length_ns: 1_000_000_000, ..Window::default() };
    window.vcpus.insert(("vm".to_owned(), 0));
    for (reason, cause) in [(CPUID, None), (TIMER, Some(TimerCause::Deadline))] {
        let series = window.strata.entry(stratum(reason, cause)).or_default();
        for _ in 0..n {
            let spread = 0.7 + random.below(1000) as f64 / 1000.0 * 0.6;
            series[Figure::EntryToExit].record(truncated_u64(level * spread));
            series[Figure::ExitToEntry].record(truncated_u64(2.0 * level * spread));
            series[Figure::PinWrites].record(writes);
        }
    }
    window.totals.entries = 2 * n;
    window
}

fn rounds(count: u64, effect: f64, seed: u64) -> Vec<ExperimentRound> {
    let mut random = Random::new(seed);
    (0..count)
        .map(|r| {
            let a_first = random.coin();
            let places = if a_first { [0, 3, 1, 2] } else { [1, 2, 0, 3] };
            let mut of = |place: u64, effect: f64, writes| {
                let level = (980 + random.below(40)) as f64 * effect;
                window((4 * r + place) * 1_000_000_000, level, 250, writes, &mut random)
            };
            let a = [of(places[0], 1.0, 0), of(places[1], 1.0, 0)];
            let b = [of(places[2], effect, 2), of(places[3], effect, 2)];
            ExperimentRound { a, b, a_first }
        })
        .collect()
}

fn swapped(rounds: &[ExperimentRound]) -> Vec<ExperimentRound> {
    rounds.iter().map(|r| ExperimentRound { a: r.b.clone(), b: r.a.clone(), a_first: !r.a_first }).collect()
}

fn quick() -> Options {
    Options { resamples: 40, permutations: 200, ..Options::default() }
}

fn row<'a>(rows: &'a [Row], figure: &str, stat: &str) -> &'a Row {
    rows.iter().find(|r| r.figure == figure && r.stat == stat).unwrap()
}

/// Checks the invariants of every comparison.
fn sound(c: &Comparison) {
    assert_eq!((c.rows.len(), c.stratified.len()), (24, 11));
    for row in c.rows.iter().chain(&c.stratified) {
        let name = format!("{}.{}: {row:?}", row.figure, row.stat);
        let is_exact = row.why.as_ref().is_some_and(|why| why.contains("exact test"));
        assert!(row.p.is_none_or(|p| p > 0.0 && p <= 1.0 && (is_exact || p >= c.least_p - 1e-12)), "{name}");
        assert!(row.p_holm.is_none_or(|p| p <= 1.0 && row.p.is_some_and(|raw| raw <= p)), "{name}");
        for e in [row.difference, row.ratio].into_iter().flatten() {
            assert!(e.value.is_finite(), "{name}");
            assert!(
                e.low.zip(e.high).is_none_or(|(low, high)| low.is_finite() && low <= high && high.is_finite()),
                "{name}"
            );
        }
        assert!(
            row.noise.is_none_or(f64::is_finite) && row.detectable.is_none_or(|d| d.is_finite() && d > 0.0),
            "{name}"
        );
        let unknown = row.a.is_none() || row.b.is_none() || row.verdict == Verdict::NotEnoughData;
        assert!(!unknown || row.why.is_some(), "{name}");
    }
    assert!((0.0..=1.0).contains(&c.mix.distance) && (0.0..=1.0).contains(&c.mix.covered));
}

#[test]
fn a_plain_difference_is_found_with_its_size() {
    let c = compare(&Windows::Rounds(rounds(12, 1.2, 1)), &quick());
    sound(&c);
    let p50 = row(&c.rows, "entry_to_exit_ns", "p50");
    assert!(p50.verdict == Verdict::Worse && p50.p.is_some_and(|p| p < 0.001), "{:?}", p50.p);
    let ratio = p50.ratio.unwrap();
    assert!((ratio.value - 1.2).abs() < 0.02 && ratio.low.unwrap() < 1.2 && ratio.high.unwrap() > 1.19, "{ratio:?}");
    assert!(p50.noise.unwrap() < 0.05 && p50.detectable.unwrap() < 100.0);
    let writes = row(&c.rows, "pin_writes", "mean");
    assert_eq!((writes.a, writes.b, writes.verdict), (Some(0.0), Some(2.0), Verdict::Worse));
    assert_eq!(writes.difference, Some(Estimate { value: 2.0, low: Some(2.0), high: Some(2.0) }));
    assert_eq!((writes.ratio, writes.detectable), (None, None));
    assert_eq!(row(&c.stratified, "entry_to_exit_ns", "p50").verdict, Verdict::Worse);
    assert_eq!((c.a.pin_writes, c.b.pin_writes), (Some(0), Some(24_000)));
    assert_eq!(c.distributions[0].shifts.len(), 21);
    assert!(c.timeline.is_sorted_by_key(|p| p.start_unix_ns) && c.timeline.len() == 48);
    assert!(c.checks.iter().all(|c| !c.alarm), "{:?}", c.checks);
}

#[test]
fn a_change_below_the_limit_is_ignored_and_one_from_0_never_is() {
    let with = |ignore_below| {
        let c = compare(&Windows::Rounds(rounds(12, 1.2, 1)), &Options { ignore_below, ..quick() });
        let verdicts = [("entry_to_exit_ns", "p50"), ("exit_to_entry_ns", "mean"), ("pin_writes", "mean")];
        (
            verdicts.map(|(figure, stat)| row(&c.rows, figure, stat).verdict),
            row(&c.rows, "entry_to_exit_ns", "p50").p_holm,
        )
    };
    let (all, p) = with(0.1);
    assert_eq!(all, [Verdict::Worse; 3]);
    let (ignored, same_p) = with(0.3);
    assert_eq!(ignored, [Verdict::Ignored, Verdict::Ignored, Verdict::Worse]);
    assert_eq!(p, same_p, "the limit is none of the test's");
}

#[test]
fn units_that_are_needed_give_verdicts_and_one_less_does_not() {
    let needed = compare(&Windows::Rounds(rounds(4, 2.0, 1)), &Options::default()).needed;
    let verdict = |count| {
        let c =
            compare(&Windows::Rounds(rounds(count as u64, 2.0, 1)), &Options { resamples: 40, ..Options::default() });
        row(&c.rows, "entry_to_exit_ns", "p50").verdict
    };
    let without_any = compare(&Windows::Rounds(vec![]), &Options::default());
    assert_eq!(without_any.needed, 11, "2^10 is above 20 times the 24 figures");
    assert_eq!((verdict(needed), verdict(needed - 5)), (Verdict::Worse, Verdict::NotEnoughData), "{needed}");
}

#[test]
fn a_figure_with_one_value_everywhere_is_not_tested() {
    let c = compare(&Windows::Rounds(rounds(12, 1.0, 1)), &quick());
    let spurious = row(&c.rows, "timer_exits.spurious", "per_second");
    assert_eq!((spurious.a, spurious.b, spurious.p), (Some(0.0), Some(0.0), None));
    assert_eq!(spurious.verdict, Verdict::NoDetectableChange);
    let entries = row(&c.rows, "entries", "per_second");
    assert_eq!((entries.a, entries.count_a, entries.verdict), (Some(500.0), 12_000, Verdict::NoDetectableChange));
    assert!(!c.rows.iter().any(|r| r.verdict == Verdict::Changed));
}

#[test]
fn swapping_the_sides_mirrors_the_differences() {
    let rounds =
        budgets([[600_000, 90_000, 80_000, 50_000, 100_000, 9_000], [610_000, 90_000, 80_000, 50_000, 90_000, 9_000]]);
    let there = compare(&Windows::Rounds(rounds.clone()), &quick());
    let back = compare(&Windows::Rounds(swapped(&rounds)), &quick());
    for (x, y) in there.rows.iter().chain(&there.stratified).zip(back.rows.iter().chain(&back.stratified)) {
        assert_eq!((x.a, x.b), (y.b, y.a), "{}.{}", x.figure, x.stat);
        for (p, mirrored) in [(x.p, y.p), (x.p_holm, y.p_holm)] {
            let [p, mirrored] = [p, mirrored].map(|p| p.unwrap_or(2.0));
            assert!((p / mirrored - 1.0).abs() < 1e-9, "{}.{}: {p} {mirrored}", x.figure, x.stat);
        }
        let (x, y) = (x.difference.unwrap(), y.difference.unwrap());
        assert!((x.value + y.value).abs() < 1e-9);
        assert!(
            x.low.zip(y.high).is_none_or(|(low, high)| (low + high).abs() < 1e-6 * (low.abs() + 1.0)),
            "{x:?} {y:?}"
        );
    }
}

#[test]
fn the_order_in_which_rounds_are_given_is_irrelevant() {
    let mut rounds = rounds(8, 1.01, 7);
    let there = compare(&Windows::Rounds(rounds.clone()), &quick());
    Random::new(1).shuffle(&mut rounds);
    assert_eq!(there, compare(&Windows::Rounds(rounds), &quick()));
}

#[test]
fn few_rounds_are_not_enough_and_say_so() {
    let c = compare(&Windows::Rounds(rounds(4, 2.0, 1)), &quick());
    sound(&c);
    let p50 = row(&c.rows, "entry_to_exit_ns", "p50");
    assert!(p50.verdict == Verdict::NotEnoughData && p50.p.is_some_and(|p| p > 0.125), "{:?}", p50.p);
    let writes = row(&c.rows, "pin_writes", "mean");
    let why = writes.why.as_deref().unwrap();
    assert!(writes.verdict == Verdict::Worse && why.contains("exact test: 0 events of A, 8,000 events of B"), "{why}");
    assert!(p50.why.as_deref().unwrap().contains("4"), "{:?}", p50.why);
    assert_eq!((p50.difference.unwrap().low, c.least_p), (None, 0.125));
}

#[test]
fn one_block_gives_no_verdict() {
    let mut random = Random::new(3);
    let mut run = |n: u64| (0..n).map(|i| window(i, 1000.0 + i as f64 % 7.0, 20, 1, &mut random)).collect::<Vec<_>>();
    let several: Vec<_> = (0..4).map(|_| run(20)).collect();
    let c = compare(&Windows::Runs { a: several, b: vec![run(1)] }, &Options { alpha: 0.999, ..quick() });
    assert_eq!(c.units[1], 1);
    let tested: Vec<_> = c.rows.iter().filter(|r| r.p.is_some() && r.stat != "max").collect();
    assert!(!tested.is_empty() && tested.iter().all(|r| r.verdict == Verdict::NotEnoughData), "{tested:?}");
}

#[test]
fn a_side_without_entries_gives_no_verdict() {
    let mut rounds = rounds(10, 1.0, 1);
    for round in &mut rounds {
        for w in round.b.iter_mut() {
            w.strata.clear();
        }
    }
    let c = compare(&Windows::Rounds(rounds.clone()), &quick());
    let spurious = row(&c.rows, "timer_exits.spurious", "per_second");
    assert_eq!((spurious.a, spurious.b, spurious.verdict), (None, None, Verdict::NotEnoughData));
    assert!(spurious.why.as_deref().unwrap().contains("there is no entry"), "{:?}", spurious.why);
    for w in rounds.iter_mut().flat_map(|r| r.a.iter_mut().chain(&mut r.b)) {
        w.vcpus.clear();
    }
    let c = compare(&Windows::Rounds(rounds), &quick());
    assert!(c.checks.iter().any(|c| c.name == "vcpus" && c.alarm && c.text == "no VM entered"));
}

#[test]
fn a_shifted_mix_is_no_difference_within_strata() {
    let slow = stratum(TIMER, Some(TimerCause::Immediate));
    let mut rounds = rounds(12, 1.0, 3);
    for (i, round) in rounds.iter_mut().enumerate() {
        let mut random = Random::new(i as u64);
        let mut add = |w: &mut Window, n| {
            w.strata.insert(slow, window(0, 4000.0, n, 1, &mut random).strata[&stratum(CPUID, None)].clone())
        };
        round.a.iter_mut().for_each(|w| drop(add(w, 120)));
        round.b.iter_mut().for_each(|w| drop(add(w, 300)));
    }
    let only_a = window(0, 100.0, 50, 0, &mut Random::new(1)).strata[&stratum(CPUID, None)].clone();
    rounds[0].a[0].strata.insert(stratum(1, None), only_a);
    let c = compare(&Windows::Rounds(rounds), &quick());
    sound(&c);
    let p50 = |rows| row(rows, "exit_to_entry_ns", "p50").verdict;
    assert_eq!((p50(&c.rows), p50(&c.stratified)), (Verdict::Worse, Verdict::NoDetectableChange));
    assert!(c.mix.p.unwrap() < 0.001 && c.mix.distance > 0.05 && c.mix.covered < 1.0, "{:?}", c.mix);
    assert!(c.mix.rows.is_sorted_by_key(|r| std::cmp::Reverse(r.entries[0] + r.entries[1])));
}

#[test]
fn runs_are_compared_by_blocks_or_by_run() {
    let mut random = Random::new(9);
    let mut run = |effect: f64| -> Vec<Window> {
        let level = |random: &mut Random| (980 + random.below(40)) as f64 * effect;
        (0..40)
            .map(|i| {
                let l = level(&mut random);
                window(i * 1_000_000_000, l, 100, 1, &mut random)
            })
            .collect()
    };
    let one = Windows::Runs { a: vec![run(1.0)], b: vec![run(1.2)] };
    let c = compare(&one, &quick());
    sound(&c);
    assert!(c.method.iter().any(|m| m.contains("nothing was randomised")));
    assert!(c.units[0] >= 7, "{:?}", c.units);
    assert_eq!(row(&c.rows, "entry_to_exit_ns", "p50").verdict, Verdict::Worse);
    let several = Windows::Runs { a: (0..6).map(|_| run(1.0)).collect(), b: (0..7).map(|_| run(1.2)).collect() };
    let c = compare(&several, &quick());
    sound(&c);
    assert_eq!(c.units, [6, 7]);
    assert_eq!(row(&c.rows, "entry_to_exit_ns", "p50").verdict, Verdict::Worse);
}

#[test]
fn incomparable_figures_are_unknown() {
    let unknown = Subject::ALL.map(|subject| (subject.name().to_owned(), "kvm_intel has no BTF".to_owned()));
    let unknown = Knowledge::from_file(&unknown.into()).with_latency(Latency::Disturbed);
    let options = Options { knowledge: [Knowledge::complete(), unknown], ..quick() };
    let c = compare(&Windows::Rounds(rounds(10, 1.2, 1)), &options);
    sound(&c);
    let known: Vec<_> = c.rows.iter().filter(|r| r.a.is_some()).map(|r| r.figure).collect();
    assert_eq!(known, ["entries"]);
    for (figure, stat) in [("pin_writes", "mean"), ("timer_exits.spurious", "per_second")] {
        assert_eq!(row(&c.rows, figure, stat).why.as_deref(), Some("not known of B: kvm_intel has no BTF"));
    }
    assert!(c.a.timer_exits.values().all(Result::is_ok) && c.b.timer_exits.values().all(Result::is_err));
    assert!(c.b.pin_writes.is_none());
    assert!(
        c.distributions.is_empty() && c.timeline.iter().all(|p| p.entry_to_exit.is_none() && p.pin_writes.is_none())
    );
}

/// Rounds whose windows spend these ns in the guest and in each part of the host time, of A and of B.
fn budgets(of: [[u64; 6]; 2]) -> Vec<ExperimentRound> {
    let mut rounds = rounds(12, 1.0, 7);
    let mut random = Random::new(3);
    for round in &mut rounds {
        for (windows, ns) in [(&mut round.a, of[0]), (&mut round.b, of[1])] {
            for series in windows.iter_mut().flat_map(|w| w.strata.values_mut()) {
                let [guest_ns, kernel, user_ns, polled_ns, idle_ns, steal_ns] =
                    ns.map(|ns| ns + random.below(100) as u64);
                let host_ns = kernel + user_ns + polled_ns + idle_ns + steal_ns;
                series.budget = Budget { guest_ns, host_ns, user_ns, polled_ns, idle_ns, steal_ns };
            }
        }
    }
    rounds
}

#[test]
fn shares_of_the_vcpus_time_are_compared_in_the_family_of_all_figures() {
    let same = [600_000, 100_000, 100_000, 50_000, 140_000, 10_000];
    // 6 % of the time went from the guest to waiting for a CPU.
    let starved = [540_000, 100_000, 100_000, 50_000, 140_000, 70_000];
    let options = Options { permutations: 10_000, ..quick() };
    let c = compare(&Windows::Rounds(budgets([same, starved])), &options);
    sound(&c);
    let share = |part: &str| row(&c.rows, part, "share");
    let [guest, kernel, steal] = ["time.guest", "time.kernel", "time.steal"].map(share);
    assert_eq!(
        [guest, kernel, steal].map(|r| r.verdict),
        [Verdict::Changed, Verdict::NoDetectableChange, Verdict::Worse]
    );
    for (row, [a, b]) in [(guest, [0.6, 0.54]), (kernel, [0.1, 0.1]), (steal, [0.01, 0.07])] {
        let off = [row.a.unwrap() - a, row.b.unwrap() - b].map(f64::abs);
        assert!(off.into_iter().all(|off| off < 1e-3), "{row:?}");
    }
    let sum = |side: fn(&Row) -> Option<f64>| -> f64 {
        c.rows.iter().filter(|r| r.stat == "share").map(|r| side(r).unwrap()).sum()
    };
    assert!((sum(|r| r.a) - 1.0).abs() < 1e-9 && (sum(|r| r.b) - 1.0).abs() < 1e-9);
    assert_eq!([steal.count_a, steal.count_b], [12 * 2 * 500; 2]);
    // Five points are a large change of time, also where they are seven times A; six are not ignored below five.
    let ignoring = |ignore_below| {
        let c = compare(&Windows::Rounds(budgets([same, starved])), &Options { ignore_below, ..options.clone() });
        row(&c.rows, "time.steal", "share").verdict
    };
    assert_eq!([ignoring(0.05), ignoring(0.07)], [Verdict::Worse, Verdict::Ignored]);
}

#[test]
fn parts_that_a_side_does_not_know_are_not_0_and_neither_is_the_kernels_that_contains_them() {
    let part = [600_000, 100_000, 100_000, 50_000, 140_000, 10_000];
    let shares = |unknown: &[Subject], why: &str| {
        let side = Knowledge::complete().without(unknown.iter().copied(), why);
        let options = Options { knowledge: [Knowledge::complete(), side], ..quick() };
        let c = compare(&Windows::Rounds(budgets([part, part])), &options);
        let all: Vec<_> = c.rows.into_iter().filter(|r| r.stat == "share").collect();
        assert_eq!(all.len(), 6);
        let (known, unknown): (Vec<_>, Vec<_>) = all.into_iter().partition(|r| r.a.is_some() && r.b.is_some());
        assert!(unknown.iter().all(|r| r.a.is_none() && r.b.is_none() && r.why.as_ref().unwrap().ends_with(why)));
        known.iter().map(|r| r.figure).collect::<Vec<_>>()
    };
    let of_earlier_version =
        Reader::new(include_bytes!("../../tests/data/lab.hlog").as_slice()).unwrap().header().knowledge();
    let older = [Subject::UserTime, Subject::HaltTime, Subject::StealTime];
    let why = of_earlier_version.known(Subject::UserTime).unwrap_err().to_string();
    assert!(older.iter().all(|subject| of_earlier_version.known(*subject).is_err()));
    assert_eq!(shares(&older, &why), ["time.guest"]);
    let without_steal = ["time.guest", "time.user", "time.polled", "time.idle"];
    assert_eq!(
        shares(&[Subject::StealTime], "field task_struct.sched_info.run_delay is not in this kernel"),
        without_steal
    );
    assert_eq!(shares(&[], "").len(), 6);
}

#[test]
fn transitions_are_compared_where_there_are_any_and_from_one_source() {
    let mut rounds = rounds(12, 1.0, 5);
    let has_rows = |c: &Comparison| c.rows.iter().any(|r| r.figure == "transition_ns");
    assert!(!has_rows(&compare(&Windows::Rounds(rounds.clone()), &Options { permutations: 2000, ..quick() })));
    let mut random = Random::new(9);
    for round in &mut rounds {
        for (windows, level) in [(&mut round.a, 500), (&mut round.b, 1100)] {
            for series in windows.iter_mut().flat_map(|w| w.strata.values_mut()) {
                (0..200).for_each(|_| series[Figure::Transition].record(level + random.below(40) as u64));
            }
        }
    }
    let c = compare(&Windows::Rounds(rounds.clone()), &Options { permutations: 2000, ..quick() });
    let p50 = row(&c.rows, "transition_ns", "p50");
    assert_eq!(p50.verdict, Verdict::Worse, "{p50:?}");
    assert!((2.1..2.3).contains(&p50.ratio.unwrap().value), "{p50:?}");
    let other = compare(&Windows::Rounds(rounds), &Options { transitions: false, ..quick() });
    let p50 = row(&other.rows, "transition_ns", "p50");
    assert!(p50.p.is_none() && p50.why.as_ref().unwrap().contains("stopwatch"), "{p50:?}");
}

#[test]
fn other_vcpus_and_losses_are_alarms() {
    let mut rounds = rounds(6, 1.0, 1);
    rounds[2].b[1].vcpus.insert(("vm".to_owned(), 7));
    rounds[3].b[0].totals.dropped = 400;
    let c = compare(&Windows::Rounds(rounds), &quick());
    let check = |name| c.checks.iter().find(|c| c.name == name).unwrap();
    assert!(check("vcpus").alarm && check("vcpus").text.contains("vm/7"), "{}", check("vcpus").text);
    assert!(check("loss").alarm && check("loss").text.contains("400"), "{}", check("loss").text);
}

#[test]
fn drift_order_and_carry_over_are_distinguished() {
    let slower = |rounds: Vec<ExperimentRound>, factor: &dyn Fn(usize, usize) -> f64| -> Vec<ExperimentRound> {
        let scale = |w: &Window, by: f64| {
            let mut scaled = w.clone();
            for series in scaled.strata.values_mut() {
                let mut h = Histogram::default();
                series[Figure::EntryToExit].buckets().for_each(|(v, _, n)| h.record_n(truncated_u64(v as f64 * by), n));
                series[Figure::EntryToExit] = h;
            }
            scaled
        };
        let each = |(i, r): (usize, ExperimentRound)| {
            let (a, b) = if r.a_first { ([0, 3], [1, 2]) } else { ([1, 2], [0, 3]) };
            ExperimentRound {
                a: [0, 1].map(|k| scale(&r.a[k], factor(i, a[k]))),
                b: [0, 1].map(|k| scale(&r.b[k], factor(i, b[k]))),
                a_first: r.a_first,
            }
        };
        rounds.into_iter().enumerate().map(each).collect()
    };
    let alarms = |rounds: Vec<ExperimentRound>| -> Vec<&'static str> {
        let c = compare(&Windows::Rounds(rounds), &quick());
        c.checks.iter().filter(|c| c.alarm).map(|c| c.name).collect()
    };
    assert_eq!(alarms(slower(rounds(12, 1.2, 1), &|i, _| 1.0 + 0.02 * i as f64)), ["drift"]);
    let within = alarms(slower(rounds(12, 1.2, 1), &|_, place| 1.0 + 0.05 * place as f64));
    assert_eq!(within, ["order"]);
    let after_other = alarms(slower(rounds(12, 1.2, 1), &|_, place| if place == 1 || place == 3 { 1.1 } else { 1.0 }));
    assert!(after_other.contains(&"carry-over"), "{after_other:?}");
}

fn below(random: &mut Random, n: usize) -> u32 {
    u32::try_from(random.below(n)).unwrap()
}

/// A random window: may be empty, huge, without length.
fn anything(random: &mut Random) -> Window {
    let mut window = Window { start_unix_ns: random.bits() >> random.below(64), ..Window::default() };
    window.length_ns = if random.below(4) == 0 { 0 } else { random.bits() >> (20 + random.below(40)) };
    for _ in 0..random.below(4) {
        let cause = [None, Some(TimerCause::Spurious), Some(TimerCause::Unknown)][random.below(3)];
        let series = window.strata.entry(stratum(below(random, 3), cause)).or_default();
        for _ in 0..random.below(6) {
            let n = (random.bits() >> 24) >> random.below(41);
            series[Figure::EntryToExit].record_n(random.bits() >> random.below(64), n);
            series[Figure::ExitToEntry].record_n(random.bits() >> random.below(64), n >> random.below(30));
            series[Figure::PinWrites].record_n(random.below(4) as u64, n);
        }
    }
    window.totals.dropped = random.below(3) as u64;
    window.vcpus.extend((0..below(random, 9)).map(|v| ("vm".to_owned(), v)));
    window
}

#[test]
fn no_input_panics() {
    let mut random = Random::new(11);
    let options = |random: &mut Random| Options {
        seed: random.bits(),
        resamples: below(random, 20),
        permutations: below(random, 20),
        transitions: random.coin(),
        ..Options::default()
    };
    for n in 0..60 {
        let windows = if n % 2 == 0 {
            let count = random.below(9);
            let mut round = || {
                let [a, b, c, d] = [0; 4].map(|_| anything(&mut random));
                ExperimentRound { a: [a, b], b: [c, d], a_first: random.coin() }
            };
            Windows::Rounds((0..count).map(|_| round()).collect())
        } else {
            let mut side = || -> Vec<Vec<Window>> {
                let runs = random.below(7);
                (0..runs).map(|_| (0..random.below(9)).map(|_| anything(&mut random)).collect()).collect()
            };
            Windows::Runs { a: side(), b: side() }
        };
        let c = compare(&windows, &options(&mut random));
        assert_eq!((c.rows.len(), c.stratified.len()), (24, 11));
        assert!(c.rows.iter().all(|r| r.p.is_none_or(|p| p > 0.0 && p <= 1.0)));
    }
}

#[test]
#[ignore = "measures time: cargo test --release -- --ignored --nocapture"]
fn a_large_comparison_is_quick() {
    let mut random = Random::new(2);
    let mut large = || {
        let mut w = Window { length_ns: 5_000_000_000, ..Window::default() };
        for reason in 0..40 {
            let series = w.strata.entry(stratum(reason, None)).or_default();
            for _ in 0..400 {
                series[Figure::EntryToExit].record(truncated_u64(900.0 * (random.below(1000) as f64 / 600.0).exp()));
                series[Figure::ExitToEntry].record(truncated_u64(900.0 * (random.below(1000) as f64 / 600.0).exp()));
                series[Figure::PinWrites].record(random.below(3) as u64);
            }
        }
        w
    };
    let rounds =
        (0..12).map(|_| ExperimentRound { a: [large(), large()], b: [large(), large()], a_first: true }).collect();
    let windows = Windows::Rounds(rounds);
    let start = Instant::now();
    let c = compare(&windows, &Options::default());
    println!("{} rows in {:?}; {} buckets", c.rows.len(), start.elapsed(), c.distributions[0].a.buckets().count());
    assert!(start.elapsed().as_secs() < 2);
}

/// Names of the primary figures, and what was found of each row by name.
fn with_primary(rounds: Vec<ExperimentRound>, primary: &[&str]) -> impl Fn(&str) -> Row {
    let primary = primary.iter().map(|name| (*name).to_owned()).collect();
    let c = compare(&Windows::Rounds(rounds), &Options { primary, ..quick() });
    sound(&c);
    move |name| c.rows.iter().find(|r| format!("{}.{}", r.figure, r.stat) == name).unwrap().clone()
}

#[test]
fn primary_figures_are_tested_at_the_full_level_in_fewer_rounds_than_others_need() {
    let of = with_primary(rounds(6, 1.2, 1), &["pin_writes.mean", "entry_to_exit_ns.p50"]);
    let (writes, p50, p90) = (of("pin_writes.mean"), of("entry_to_exit_ns.p50"), of("entry_to_exit_ns.p90"));
    assert_eq!((writes.primary, writes.verdict, writes.decided_after), (Some(0), Verdict::Worse, Some(6)));
    assert_eq!((p50.primary, p50.verdict, p50.decided_after), (Some(1), Verdict::Worse, Some(6)));
    assert!(p50.p_holm == p50.p && p50.detectable.is_some(), "{p50:?}");
    assert_eq!((p90.primary, p90.verdict), (None, Verdict::NotEnoughData), "17 others need more rounds");
}

#[test]
fn behind_an_undecided_primary_figure_nothing_is_tested() {
    let of = with_primary(rounds(12, 1.0, 1), &["entry_to_exit_ns.p50", "pin_writes.mean"]);
    let (p50, writes, p90) = (of("entry_to_exit_ns.p50"), of("pin_writes.mean"), of("exit_to_entry_ns.p90"));
    assert_eq!(p50.verdict, Verdict::Undecided);
    assert_eq!((writes.verdict, p90.verdict), (Verdict::NotTested, Verdict::NotTested));
    assert!(writes.p.is_some_and(|p| p < 0.001) && writes.p_holm == p50.p, "it would have been found: {writes:?}");
    // A primary figure that has the same value everywhere says nothing, and closes no gate.
    let of = with_primary(rounds(12, 1.2, 1), &["timer_exits.spurious.per_second", "pin_writes.mean"]);
    assert_eq!(of("pin_writes.mean").verdict, Verdict::Worse);
}

#[test]
fn an_interval_within_the_limit_is_no_change_of_that_size() {
    let none = |ignore_below, primary: &[&str]| {
        let primary = primary.iter().map(|name| (*name).to_owned()).collect();
        let c = compare(&Windows::Rounds(rounds(12, 1.0, 1)), &Options { ignore_below, primary, ..quick() });
        row(&c.rows, "entry_to_exit_ns", "p50").verdict
    };
    assert_eq!([none(0.0, &[]), none(0.1, &[])], [Verdict::NoDetectableChange, Verdict::Ignored]);
    // A primary figure that may still have changed is undecided, and no finding of "no change".
    let primary = ["entry_to_exit_ns.p50"];
    assert_eq!([none(0.0, &primary), none(0.1, &primary)], [Verdict::Undecided, Verdict::Ignored]);
}

#[test]
fn the_report_and_the_plan_promise_the_same() {
    let name = "entry_to_exit_ns.p50".to_owned();
    let options = Options { primary: vec![name.clone()], ..quick() };
    let mut planned = primary::Primaries::new(&[name], &options);
    let mut rounds = rounds(12, 1.0, 3);
    // Rounds of levels that differ threefold, so that a difference means little.
    for (n, round) in rounds.iter_mut().enumerate() {
        let mut random = Random::new(n as u64);
        let mut again = |window: &mut Window| {
            let level = if n % 2 == 0 { 1000.0 } else { 3000.0 } * (1.0 + random.below(100) as f64 / 1000.0);
            *window = self::window(window.start_unix_ns, level, 250, 1, &mut random);
        };
        round.a.iter_mut().chain(&mut round.b).for_each(&mut again);
    }
    rounds.iter().for_each(|round| planned.take(round.clone()));
    let c = compare(&Windows::Rounds(rounds), &options);
    let p50 = row(&c.rows, "entry_to_exit_ns", "p50");
    let (reported, planned) = (p50.detectable.unwrap() / p50.a.unwrap(), planned.detectable(12)[0].least.unwrap());
    assert!((reported / planned - 1.0).abs() < 1e-9, "{reported} {planned}");
    // The power that a row promises at its own MDE is the MDE's.
    let power = promised_power(p50, p50.detectable.unwrap(), c.units, true, options.alpha).unwrap();
    assert!((power - 0.8).abs() < 0.02, "{power}");
}

#[test]
fn a_zero_that_one_round_cannot_decide_has_not_enough_data() {
    for primary in [vec![], vec!["pin_writes.mean".to_owned()]] {
        let mut few = rounds(1, 1.0, 1);
        // Some writes, in one of B's windows alone: they may be one burst.
        few[0].b[0] = window(0, 1000.0, 250, 0, &mut Random::new(1));
        let c = compare(&Windows::Rounds(few), &Options { primary, ..quick() });
        let writes = row(&c.rows, "pin_writes", "mean");
        assert_eq!((writes.verdict, writes.p.unwrap() > 0.05), (Verdict::NotEnoughData, true), "{writes:?}");
        let why = writes.why.as_deref().unwrap();
        assert!(why.contains("1 of A and 1 of B give no p below 1.0") && why.contains("0 events of A"), "{why}");
    }
}

#[test]
fn every_primary_figure_is_compared_by_vm_by_itself() {
    let spurious = stratum(TIMER, Some(TimerCause::Spurious));
    let mut rounds = rounds(8, 1.2, 5);
    for round in &mut rounds {
        round.b.iter_mut().for_each(|w| w.strata.entry(spurious).or_default()[Figure::EntryToExit].record_n(900, 7));
        for window in round.a.iter_mut().chain(&mut round.b) {
            window.vms = ["x", "y"].map(|vm| (vm.to_owned(), window.strata.clone())).into();
        }
    }
    let of = |primary: &[&str]| {
        let primary = primary.iter().map(|name| (*name).to_owned()).collect();
        let c = compare(&Windows::Rounds(rounds.clone()), &Options { primary, ..quick() });
        let spurious = row(&c.rows, "timer_exits.spurious", "per_second").clone();
        (c.by_vm.figures, spurious)
    };
    let (figures, spurious) = of(&["timer_exits.spurious.per_second", "exit_to_entry_ns.p99"]);
    let names: Vec<_> = figures.iter().map(|f| (f.figure, f.stat, f.is_ratio)).collect();
    assert_eq!(names, [("timer_exits.spurious", "per_second", false), ("exit_to_entry_ns", "p99", true)]);
    assert!(figures[0].vms.iter().all(|vm| Some(vm.b) == spurious.b), "{figures:?}");
    // Without primary figures, those of policies; early exits are 0 on both sides everywhere.
    let names: Vec<_> = of(&[]).0.iter().map(|f| f.figure).collect();
    assert_eq!(names, ["pin_writes", "entry_to_exit_ns", "timer_exits.spurious"]);
}

#[test]
fn a_side_without_any_write_is_told_apart_from_one_with_thousands_in_a_single_recording_each() {
    let mut random = Random::new(5);
    let mut run = |writes| vec![(0..4).map(|i| window(i * 1_000_000_000, 1000.0, 200, writes, &mut random)).collect()];
    let c = compare(&Windows::Runs { a: run(0), b: run(2) }, &quick());
    let writes = row(&c.rows, "pin_writes", "mean");
    assert_eq!(writes.verdict, Verdict::Worse, "{writes:?}");
    assert!(writes.why.as_deref().unwrap().contains("exact test: 0 events of A, 3,200 events of B"), "{writes:?}");
}
