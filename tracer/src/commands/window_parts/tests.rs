//! Windows of an experiment whose vCPUs come, go and pause.

use super::*;
use crate::{
    compare::schedule,
    model::interval::tests::{event, vm},
    recording::{Provenance, tests::header},
};

/// A report on one recording, as far as windows need it.
fn report() -> Report {
    Report { sources: vec![Provenance::unread("ab.hlog".into(), header())], ..Report::default() }
}

/// The parts of an experiment of three rounds of VMs 1 and 2, whose vCPUs 0 and 1 make as many entries in each window as `entries` says
/// by VM, vCPU, round and place.
fn parts(report: &mut Report, filters: &[Filter], entries: impl Fn(u32, u32, u32, u8) -> u64) -> AllParts {
    let (mut parts, mut numbers) = (AllParts::default(), BTreeMap::new());
    for label in schedule::windows(3, 3) {
        let mut interval = Interval { length_ns: 1000, ..Interval::starting(0) };
        for (id, vcpu) in [(1, 0), (1, 1), (2, 0), (2, 1)] {
            for n in 0..entries(id, vcpu, label.round, label.place) {
                interval.record(&event(vcpu, 10, 100 + n, 0), &vm(id));
                interval.totals.entries += 1;
            }
        }
        let interval = report.renumber(0, interval, &mut numbers);
        parts.add(Some(label), false, Parts::of(&interval, report, filters, Apart::ByVcpu));
    }
    parts
}

fn of(window: &Window) -> u64 {
    window.strata.values().map(Series::entries).sum()
}

/// VM 2's vCPU 1 pauses in round 1, at place 2.
fn paused(vm: u32, vcpu: u32, round: u32, place: u8) -> u64 {
    if (vm, vcpu, round, place) == (2, 1, 1, 2) { 0 } else { 20 }
}

#[test]
fn a_vcpu_that_paused_is_left_out_of_all_windows_of_the_round_and_the_number_is_kept() {
    let mut report = report();
    let parts = parts(&mut report, &[], paused);
    let (windows, left_out) = parts.into_windows(&Names { report: &report, filters: &[] }, true);
    for (label, window) in &windows {
        let is_left_out = label.unwrap().round == 1;
        let [entries, totals, out] = match (is_left_out, label.unwrap().place) {
            (true, 2) => [60, 60, 0],
            (true, _) => [60, 80, 20],
            _ => [80, 80, 0],
        };
        assert_eq!([of(window), window.totals.entries, window.left_out], [entries, totals, out], "{label:?}");
        assert_eq!(window.vcpus.contains(&("vm2".into(), 1)), !is_left_out);
        let of_vm = |name: &str| window.vms[name].values().map(Series::entries).sum::<u64>();
        assert_eq!([of_vm("vm1"), of_vm("vm2")], [40, if is_left_out { 20 } else { 40 }], "{label:?}");
        assert_eq!((window.strata.len(), window.length_ns), (1, 1000));
    }
    assert_eq!(left_out, [LeftOut { vm: "vm2".into(), vcpu: 1, rounds: [1].into(), entries: 60 }]);
}

#[test]
fn what_filters_leave_out_is_not_said_and_a_vcpu_with_other_exits_is_not_absent() {
    let mut report = report();
    let by_vcpu = ["vcpu=0".parse::<Filter>().unwrap()];
    let parts_of = parts(&mut report, &by_vcpu, paused);
    let by_vm = ["vm=vm1".parse::<Filter>().unwrap()];
    let (windows, left_out) = parts_of.into_windows(&Names { report: &report, filters: &by_vm }, false);
    assert!(left_out.is_empty() && windows.iter().all(|(_, w)| (of(w), w.left_out, w.vms.len()) == (20, 0, 0)));
    // The exit that is asked for happens in few windows, the vCPU enters in all.
    let rare = ["reason=HLT".parse::<Filter>().unwrap()];
    let (windows, left_out) =
        parts(&mut report, &rare, |_, _, _, _| 20).into_windows(&Names { report: &report, filters: &[] }, false);
    assert!(left_out.is_empty() && windows.iter().all(|(_, w)| (of(w), w.left_out) == (0, 0)));
}

#[test]
fn vcpus_that_were_there_in_the_whole_round_do_not_take_memory_apart() {
    let mut report = report();
    let mut all = parts(&mut report, &[], paused);
    let buckets = |all: &AllParts| all.course.parts().iter().map(|(_, parts)| parts.buckets()).sum::<usize>();
    assert_eq!(all.buckets, buckets(&all), "the count is right");
    all.end_round();
    assert_eq!(all.buckets, buckets(&all), "the count is right");
    let apart = |round: u32| {
        let of_round = all.course.parts().iter().filter(|(label, _)| label.unwrap().round == round);
        let owners: BTreeSet<Owner> = of_round.flat_map(|(_, parts)| parts.strata.keys().copied()).collect();
        owners.into_iter().filter(|owner| matches!(owner, Owner::Vcpu(_))).count()
    };
    assert_eq!([apart(0), apart(1), apart(2)], [0, 1, 0]);
}
