//! Effects on VMs whose truth is known.

use tracer_common::{Isa, rules::TimerCause};

use super::*;
use crate::{
    compare::{random::Random, stats::measure::Measure, windows::Stratum},
    model::{
        figures::{Figure, Unit},
        number::truncated_u64,
        series::Level,
    },
};

/// A normal random number, to three standard deviations.
fn normal(random: &mut Random) -> f64 {
    (0..12).map(|_| random.below(1 << 20) as f64 / f64::from(1 << 20)).sum::<f64>() - 6.0
}

/// 12 rounds of VMs with these true effects: each VM has noise of its own, and all share the `host`'s.
fn simulated(effects: &[f64], own: f64, host: f64, random: &mut Random) -> Vec<Vm<'static>> {
    let shared: Vec<f64> = (0..12).map(|_| host * normal(random)).collect();
    let of_vm = |effect: &f64| Vm {
        name: "vm",
        values: shared.iter().map(|shared| [100.0, 100.0 + effect + shared + own * normal(random)]).collect(),
    };
    effects.iter().map(of_vm).collect()
}

/// Simulated experiments of a test.
const TRIALS: u32 = 300;

/// The share of experiments whose combined interval contains the true mean, the mean of their tau^2, and the share whose interval
/// would contain it if the VMs were independent.
fn trials(vms: usize, tau: f64, own: f64, host: f64) -> [f64; 3] {
    let mut random = Random::new(23);
    let (mut covered, mut tau_squared, mut naive) = (0.0, 0.0, 0.0);
    for _ in 0..TRIALS {
        let truth: Vec<f64> = (0..vms).map(|_| 5.0 + tau * normal(&mut random)).collect();
        let vms = simulated(&truth, own, host, &mut random);
        // The intervals of single VMs take time, and only whether they are known matters here.
        let known = |_: &Vm| {
            let change = Estimate { value: f64::NAN, low: Some(f64::NAN), high: None };
            VmEffect { vm: "vm".into(), rounds: 12, a: 100.0, b: 100.0, change }
        };
        let effects: Vec<_> = vms.iter().map(known).collect();
        let all = together(&vms, &effects, Scale::Difference).unwrap();
        let Estimate { value, low, high } = all.change;
        covered += f64::from(u8::from(low.unwrap() <= 5.0 && 5.0 <= high.unwrap()));
        tau_squared += all.tau * all.tau;
        let study = |vm: &Vm| {
            let changes = vm.changes(Scale::Difference);
            combined::Study { effect: mean(&changes), variance: deviation(&changes).unwrap().powi(2) / 12.0 }
        };
        let studies: Vec<_> = vms.iter().map(study).collect();
        naive += f64::from(u8::from((value - 5.0).abs() <= combined::pool(&studies).unwrap().half));
    }
    [covered, tau_squared, naive].map(|sum| sum / f64::from(TRIALS))
}

#[test]
fn the_combined_interval_contains_the_true_mean_and_tau_is_that_of_the_truth() {
    let [covered, tau_squared, _] = trials(8, 2.0, 3.0, 1.0);
    assert!((0.93..=1.0).contains(&covered), "{covered}");
    assert!((3.3..4.7).contains(&tau_squared), "{tau_squared}");
    let [covered, tau_squared, _] = trials(4, 0.0, 3.0, 0.0);
    assert!(covered >= 0.94 && tau_squared < 0.5, "{covered} {tau_squared}");
}

#[test]
fn noise_that_all_vms_share_is_in_the_combined_interval() {
    // Without the rounds' interval, VMs that are all disturbed alike would count as so many witnesses.
    let [covered, _, naive] = trials(8, 0.0, 1.0, 3.0);
    assert!(covered >= 0.93 && naive < 0.6, "{covered} {naive}");
}

/// Rounds in which VM n has entries of `level(n, is_b, round)` ns; none where it is not there.
fn rounds(count: u64, vms: usize, level: impl Fn(usize, bool, u64) -> Option<f64>) -> Vec<ExperimentRound> {
    let stratum = Stratum { level: Level::L1, isa: Isa::Vmx, reason: Some(10), cause: None };
    let window = |is_b, round| {
        let mut window = Window { length_ns: 1_000_000_000, ..Window::default() };
        for vm in 0..vms {
            let Some(level) = level(vm, is_b, round) else { continue };
            let mut series = Series::default();
            (0..50).for_each(|n| series[Figure::EntryToExit].record(truncated_u64(level) + n));
            // The VM with the lowest number has the most entries.
            (vm..vms).for_each(|_| series[Figure::EntryToExit].record(truncated_u64(level)));
            series[Figure::PinWrites].record_n(if is_b { 2 } else { 0 }, 50);
            window.vms.insert(format!("vm{vm}"), [(stratum, series)].into());
        }
        window
    };
    let round = |round| {
        let [a, b] = [false, true].map(|is_b| [0, 1].map(|_| window(is_b, round)));
        ExperimentRound { a, b, a_first: true }
    };
    (0..count).map(round).collect()
}

fn row(measure: &Measure, stat: &'static str) -> Row {
    measure.draft(stat, None).row
}

/// Compares mean pin-control writes and median guest time by VM.
fn compared(windows: &Windows) -> ByVm {
    let rows = [row(&Measure::of(Figure::PinWrites), "mean"), row(&Measure::of(Figure::EntryToExit), "p50")];
    of(windows, &rows.iter().collect::<Vec<_>>())
}

#[test]
fn vms_whose_effects_differ_are_told_apart() {
    // VM 2 gains what the others lose; rounds differ a little.
    let level = |vm, is_b, round| {
        let effect = if vm == 2 { -100.0 } else { 100.0 };
        Some(1000.0 + 7.0 * (round % 4) as f64 + if is_b { effect + (round * 3 % 5) as f64 } else { 0.0 })
    };
    let by_vm = compared(&Windows::Rounds(rounds(12, 3, level)));
    assert_eq!((by_vm.figures.len(), by_vm.more), (2, 0));
    let p50 = &by_vm.figures[1];
    assert_eq!((p50.figure, p50.stat, p50.unit, p50.is_ratio), ("entry_to_exit_ns", "p50", Unit::Ns, true));
    let names: Vec<&str> = p50.vms.iter().map(|vm| vm.vm.as_str()).collect();
    assert_eq!(names, ["vm0", "vm1", "vm2"], "most entries first");
    let all = p50.all.unwrap();
    // ln 1.1 and ln 0.9.
    assert!(all.i_squared > 0.95 && (0.09..0.12).contains(&all.tau), "{all:?}");
    assert!(all.change.low.unwrap() < 1.0 && all.change.high.unwrap() > 1.1, "{all:?}");
    let [first, .., last] = p50.vms.as_slice() else { panic!("{p50:?}") };
    assert!(first.change.low.unwrap() > 1.09 && last.change.high.unwrap() < 0.91, "{p50:?}");
    assert!((first.b / first.a - first.change.value).abs() < 1e-3);
    // Pin-control writes are the same in every round and VM, and A has none.
    let writes = by_vm.figures[0].all.unwrap();
    assert_eq!(writes.change, Estimate { value: 2.0, low: Some(2.0), high: Some(2.0) });
    assert_eq!((writes.tau, writes.i_squared, writes.a, by_vm.figures[0].is_ratio), (0.0, 0.0, 0.0, false));
}

#[test]
fn a_time_never_falls_by_more_than_all_of_it() {
    // One VM has a tenth in B, and rounds differ tenfold: b - a of a slow round is many times the mean of A.
    let level = |vm, is_b, round| {
        let slow = if round % 4 == 0 { 40_000.0 } else { 2000.0 };
        Some(if is_b && vm == 1 { slow / 10.0 } else { slow } + (round % 3) as f64)
    };
    let by_vm = compared(&Windows::Rounds(rounds(12, 2, level)));
    let p50 = &by_vm.figures[1];
    let fell = p50.vms.iter().find(|vm| vm.vm == "vm1").unwrap().change;
    assert!(p50.is_ratio && (0.09..0.13).contains(&fell.value), "{fell:?}");
    assert!(0.05 < fell.low.unwrap() && fell.high.unwrap() < 0.2, "{fell:?}");
    assert!(p50.all.unwrap().change.low.unwrap() > 0.0, "{:?}", p50.all);
}

#[test]
fn vms_that_change_by_the_same_share_do_not_differ_whatever_their_level() {
    let level = |vm, is_b, round| {
        let level = if vm == 0 { 100_000.0 } else { 5_000_000.0 } * (1.0 + 0.01 * (round * 7 % 5) as f64);
        Some(level * if is_b { 1.1 + 0.01 * (round * 3 % 4) as f64 } else { 1.0 })
    };
    let by_vm = compared(&Windows::Rounds(rounds(12, 2, level)));
    let all = by_vm.figures[1].all.unwrap();
    assert!(all.i_squared < 0.5 && (1.1..1.13).contains(&all.change.value), "{all:?}");
}

#[test]
fn a_vm_that_was_there_for_few_rounds_has_values_and_no_interval() {
    let level = |vm, _, round| (vm == 0 || vm == 1 && round < 5 || vm == 2).then_some(1000.0 + round as f64);
    let by_vm = compared(&Windows::Rounds(rounds(12, 3, level)));
    let p50 = &by_vm.figures[1];
    let of_vm = |name: &str| p50.vms.iter().find(|vm| vm.vm == name).unwrap();
    assert_eq!((of_vm("vm1").rounds, of_vm("vm1").change.low), (5, None));
    assert_eq!((of_vm("vm0").rounds, p50.all.unwrap().vms), (12, 2));
}

#[test]
fn one_vm_and_recordings_without_rounds_are_not_compared_by_vm() {
    let by_vm = |rounds| compared(&Windows::Rounds(rounds));
    assert_eq!(by_vm(rounds(12, 1, |_, _, _| Some(1000.0))), ByVm::default());
    assert_eq!(by_vm(vec![]), ByVm::default());
    assert_eq!(compared(&Windows::Runs { a: vec![], b: vec![] }), ByVm::default());
}

#[test]
fn vms_beyond_the_most_are_counted() {
    let by_vm = compared(&Windows::Rounds(rounds(6, 19, |_, _, _| Some(1000.0))));
    assert_eq!((by_vm.figures[0].vms.len(), by_vm.more), (16, 3));
    assert_eq!(by_vm.figures[0].vms[0].vm, "vm0");
}

#[test]
fn timer_exits_are_per_second_of_both_windows_and_none_of_a_vm_that_was_not_there() {
    let stratum = |cause| Stratum { level: Level::L1, isa: Isa::Vmx, reason: Some(52), cause: Some(cause) };
    let window = |exits: &[(TimerCause, u64)], there: bool| {
        let mut window = Window { length_ns: 2_000_000_000, ..Window::default() };
        let of_cause = |&(cause, n): &(TimerCause, u64)| {
            let mut series = Series::default();
            series[Figure::EntryToExit].record_n(1000, n);
            (stratum(cause), series)
        };
        let strata: BTreeMap<_, _> = exits.iter().map(of_cause).collect();
        window.vms.extend(there.then(|| ("vm".to_owned(), strata)));
        window
    };
    let usual = || window(&[(TimerCause::Deadline, 50)], true);
    let odd = window(&[(TimerCause::Early, 3), (TimerCause::Spurious, 5), (TimerCause::Immediate, 9)], true);
    let empty = || window(&[], false);
    let rate = |name, a, b| {
        let round = ExperimentRound { a, b, a_first: true };
        values_of(&rounds_of(&[round], "vm"), name)[0]
    };
    let there = || [odd.clone(), usual()];
    assert_eq!(rate("timer_exits.early.per_second", [usual(), usual()], there()), [0.0, 0.75]);
    assert_eq!(
        rate("timer_exits.spurious.per_second", [usual(), usual()], there()),
        [0.0, 1.25],
        "not with early ones"
    );
    let [a, b] = rate("timer_exits.early.per_second", [usual(), usual()], [empty(), empty()]);
    assert!(a.is_nan() && b.is_nan(), "{a} {b}");
}
