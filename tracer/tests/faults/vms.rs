//! VMs that are killed, restarted, and created and destroyed by the hundred.

use serde_json::Value;

use crate::rig::{Rounds, Shape, Vm, assert_exact, assert_nothing_left, in_totals};

/// Entries of each process of a report.
fn by_process(report: &Value) -> std::collections::BTreeMap<u64, u64> {
    let mut entries = std::collections::BTreeMap::new();
    for series in report["series"].as_array().unwrap() {
        *entries.entry(series["tgid"].as_u64().unwrap()).or_default() += series["entries"].as_u64().unwrap();
    }
    entries
}

#[test]
#[ignore = "needs root and the module kvm"]
fn a_vm_that_is_killed_and_restarted_is_two_vms_with_all_their_entries() {
    let host = Shape::intel().build();
    let (mut first_pid, mut second_pid) = (0, 0);
    let report = host.recorded(&[], |recorder| {
        let mut first = Vm::start();
        first_pid = first.pid().into();
        first.run(&[recorder], &Rounds::vmx(97));
        // Killed in the middle of further rounds, one of which it may leave open.
        first.begin(&[recorder], &Rounds { pause_us: 200, ..Rounds::vmx(100_000) });
        std::thread::sleep(std::time::Duration::from_millis(150));
        drop(first);
        let mut second = Vm::start();
        second_pid = second.pid().into();
        second.run(&[recorder], &Rounds { pin_writes: 5, ..Rounds::vmx(23) });
    });
    let entries = by_process(&report);
    assert!(entries[&first_pid] > 97, "{entries:?}");
    assert_eq!((entries.len(), entries[&second_pid], in_totals(&report, "pin_writes")), (2, 23, 5));
    assert_eq!(entries.values().sum::<u64>(), in_totals(&report, "entries"));
    assert_nothing_left(&host);
}

#[test]
#[ignore = "needs root and the module kvm"]
fn five_hundred_vms_at_the_same_address_are_five_hundred_vms() {
    let host = Shape::intel().build();
    for place in [&[][..], &["--aggregate", "in-kernel"]] {
        let report = host.recorded(place, |recorder| {
            Vm::start().run(&[recorder], &Rounds { new_vms: Some(500), pin_writes: 1, ..Rounds::vmx(3) });
        });
        assert_exact(&report);
        let counts = ["entries", "dropped", "pin_writes"].map(|name| in_totals(&report, name));
        assert_eq!(counts, [1500, 0, 500], "{place:?}");
        let entries = by_process(&report);
        assert_eq!((entries.len(), entries.values().all(|n| *n == 3)), (500, true), "{place:?}");
        // A new vCPU does not inherit the exit of the dead one at its address.
        let host_times = report["series"].as_array().unwrap().iter();
        let host_times = host_times.filter_map(|series| series["exit_to_entry_ns"]["count"].as_u64()).sum::<u64>();
        assert_eq!(host_times, 1000, "{place:?}");
    }
    assert_nothing_left(&host);
}
