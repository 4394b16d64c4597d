//! Rounds of recordings, and whole experiments that are written and read.

use super::*;
use crate::{
    model::{
        accounting::Accounting,
        interval::{
            Interval,
            tests::{event, vm},
        },
    },
    recording::{End, Writer, tests::header},
};

fn window(length_ns: u64) -> Window {
    Window { length_ns, ..Window::default() }
}

fn labelled(windows: &[(u8, u32, u8)]) -> Vec<(Option<Label>, Window)> {
    let label = |&(arm, round, place)| (Some(Label { arm, round, place }), window(u64::from(place) + 1));
    windows.iter().map(label).chain([(None, window(99))]).collect()
}

#[test]
fn rounds_that_did_not_end_are_left_out_and_counted() {
    let abba = [(0, 0, 0), (1, 0, 1), (1, 0, 2), (0, 0, 3)];
    let baab = [(1, 1, 0), (0, 1, 1), (0, 1, 2), (1, 1, 3)];
    let (rounds, left_out) = whole_rounds(labelled(&[&abba[..], &baab[..], &[(0, 2, 0)]].concat()));
    assert_eq!((rounds.len(), left_out), (2, 1));
    assert_eq!((rounds[0].a_first, rounds[1].a_first), (true, false));
    assert_eq!(rounds[1].a, [window(2), window(3)]);
    assert_eq!(rounds[1].b, [window(1), window(4)]);
    // A damaged or foreign file may have any labels.
    assert_eq!(whole_rounds(labelled(&[(0, 0, 0), (0, 0, 1), (0, 0, 2), (1, 0, 3)])), (vec![], 4));
}

#[test]
fn a_stub_joins_its_neighbour_and_a_long_recording_is_merged() {
    assert_eq!(merge_neighbours(vec![window(10), window(10), window(3)], 10), [window(10), window(13)]);
    assert_eq!(merge_neighbours(vec![window(3)], 10), [window(3)]);
    let merged = merge_neighbours(vec![window(10); 1025], 10);
    assert_eq!(merged.len(), 342);
    assert_eq!(merged.iter().map(|w| w.length_ns).sum::<u64>(), 10_250);
}

/// An experiment of eight rounds of VMs 1 to 3, of two vCPUs each that make `entries` in a window, by VM, vCPU, round and place.
fn experiment(folder: &Path, entries: impl Fn(u32, u32, u32, u8) -> u64) -> PathBuf {
    let mut header = header();
    let arms = ["soft".to_owned(), "hard".to_owned()];
    let (window_ns, washout_ns) = (1_000_000_000, 0);
    header.experiment = Some(Experiment {
        arms: arms.clone(),
        switches: arms,
        window_ns,
        washout_ns,
        rounds: 8,
        seed: 3,
        primary: vec![],
    });
    let path = folder.join("ab.hlog");
    let mut writer = Writer::new(std::fs::File::create(&path).unwrap(), &header).unwrap();
    for (n, label) in schedule::windows(3, 8).enumerate() {
        let mut interval = Interval { length_ns: window_ns, ..Interval::starting(n as u64 * window_ns) };
        for (id, vcpu) in [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)] {
            for n in 0..entries(id, vcpu, label.round, label.place) {
                interval.record(&event(vcpu, 10, 1000 + 200 * u64::from(label.arm) + n, label.arm), &vm(id));
                interval.totals.entries += 1;
                interval.totals.delivered += 1;
            }
        }
        writer.write_window(&interval, Some(label)).unwrap();
    }
    let accounting = Accounting { exact: true, ..Accounting::default() };
    let end = End { reason: "rounds".into(), accounting, tsc_khz: None, policy_changed: false, other_tracers: None };
    writer.finish(end).unwrap();
    path
}

fn compared(file: &Path, filters: &[Filter], limit: MaxBuckets) -> Result<(Comparison, Setting)> {
    let files = [file.to_owned()];
    let (seed, ignore_below, on_damage) = (1, 0.0, OnDamage::Refuse);
    load(&Request { files: &files, with: &[], filters, seed, ignore_below, on_damage, limit })
}

/// VM 2 ends in round 5 after its first window, VM 3's vCPU 1 pauses in round 2.
fn ends(vm: u32, vcpu: u32, round: u32, place: u8) -> u64 {
    match (vm, vcpu) {
        (2, _) if (round, place) > (5, 0) => 0,
        (3, 1) if (round, place) == (2, 3) => 0,
        _ => 20,
    }
}

#[test]
fn vms_that_end_are_left_out_said_and_counted_and_the_others_are_compared_by_vm() {
    let folder = tempfile::tempdir().unwrap();
    let file = experiment(folder.path(), ends);
    let (c, setting) = compared(&file, &[], MaxBuckets::default()).unwrap();
    let why = "no entries in a window of";
    let said: Vec<_> = setting.warnings.iter().filter(|warning| warning.starts_with("vm ")).cloned().collect();
    assert_eq!(
        said,
        [
            format!("vm vm3, vCPU 1: left out of round 3 (60 entries): {why} it (not started, paused, or ended)"),
            format!(
                "vm vm2, vCPUs 0 to 1: left out of rounds 6 to 8 (40 entries): {why} each (not started, paused, or ended)"
            ),
        ]
    );
    // Of 8 rounds, VM 1 has 16 windows of 40 a side, VM 2 has 10, VM 3 16 but for one vCPU in two windows.
    let compared_of = |side: usize| c.mix.rows.iter().map(|row| row.entries[side]).sum::<u64>();
    assert_eq!([compared_of(0), compared_of(1)], [40 * (16 + 10 + 15); 2]);
    let all = |side: &crate::compare::Side| side.totals.entries - side.left_out;
    assert_eq!((all(&c.a), all(&c.b)), (compared_of(0), compared_of(1)));
    assert_eq!(c.a.left_out + c.b.left_out, 100);
    assert!(c.checks.iter().all(|check| check.name != "vcpus" || !check.alarm), "{:?}", c.checks);
    let names: Vec<_> = c.by_vm.figures.iter().map(|f| f.figure).collect();
    assert_eq!(names, ["pin_writes", "entry_to_exit_ns"], "no timer exit, and no transition");
    let p50 = &c.by_vm.figures[1];
    let rounds: BTreeMap<_, _> = p50.vms.iter().map(|vm| (vm.vm.as_str(), vm.rounds)).collect();
    assert_eq!(rounds, [("vm1", 8), ("vm2", 5), ("vm3", 8)].into());
    assert!(p50.vms.iter().all(|vm| p50.is_ratio && (vm.change.value - 1.198).abs() < 0.01), "{p50:?}");
    assert_eq!(p50.all.unwrap().vms, 2, "five rounds give no interval");
}

#[test]
fn a_round_of_which_every_vcpu_is_left_out_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = experiment(folder.path(), |_, _, round, place| if (round, place) == (4, 2) { 0 } else { 20 });
    let (c, setting) = compared(&file, &[], MaxBuckets::default()).unwrap();
    assert_eq!(c.units, [7, 7]);
    let said = setting.warnings.join("\n");
    assert!(said.contains(": 1 round of which every vCPU is left out is left out"), "{said}");
    assert!(said.contains("vm vm1, vCPUs 0 to 1: left out of round 5"), "{said}");
}

#[test]
fn one_vm_has_no_table_by_vm_and_its_filter_says_nothing_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let file = experiment(folder.path(), ends);
    let (c, setting) = compared(&file, &["vm=vm1".parse().unwrap()], MaxBuckets::default()).unwrap();
    assert!(c.by_vm.figures.is_empty() && c.a.left_out == 0);
    assert!(!setting.warnings.iter().any(|warning| warning.contains("left out of")), "{:?}", setting.warnings);
}

#[test]
fn the_limit_of_buckets_counts_what_is_kept_by_vm() {
    let folder = tempfile::tempdir().unwrap();
    let file = experiment(folder.path(), |_, _, _, _| 3);
    let refused = |limit| compared(&file, &[], MaxBuckets(limit)).err().map(|error| format!("{error:#}"));
    // In each of 32 windows, the VMs are pooled to one series each, of 3 guest times, one host time and one number of writes; twice,
    // because the distributions of all together are kept, too; vCPUs are apart only within a round.
    let pooled = 2 * 32 * 3 * 5;
    assert!(refused(pooled / 2).unwrap().contains("--max-buckets"));
    assert_eq!(refused(2 * pooled), None);
}
