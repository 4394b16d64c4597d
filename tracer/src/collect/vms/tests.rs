//! Tests of the VMs' numbers and names, on processes made up in a folder.

use std::fs;

use tracer_common::Event;

use super::*;
use crate::{
    host::{process::made_up::add, roots::made_up::Folder},
    model::interval::tests::event,
};

fn process(host: &Folder, tgid: u32, name: &str) {
    let cmdline = format!("qemu\0-name\0{name}\0");
    add(&host.roots.proc, [tgid, tgid, 1], cmdline.as_bytes(), b"qemu", &[]);
}

/// A process that started at this tick.
fn started(host: &Folder, tgid: u32, name: &str, ticks: u64) {
    process(host, tgid, name);
    host.write(&format!("proc/{tgid}/stat"), format!("{tgid} (qemu) S {}{ticks} 0\n", "0 ".repeat(18)));
}

/// The VMs of an interval with an entry of each of these.
fn interval(vms: &mut Vms, of: &[Identity]) -> Vec<Vm> {
    let mut interval = Interval::default();
    for (tgid, kvm) in of {
        interval.record(&Event { tgid: *tgid, ..event(0, 10, 5, 0) }, &vms.get(*tgid, *kvm).vm);
    }
    vms.keep_asking();
    vms.end(interval).complete().vms.into_values().map(Arc::unwrap_or_clone).collect()
}

fn numbers(vms: &[Vm]) -> Vec<(u32, &str, u64, u32)> {
    vms.iter().map(|vm| (vm.id, vm.name.as_str(), vm.start_ticks, vm.ordinal)).collect()
}

/// Ends intervals without entries until the processes have been asked about so many times.
fn ask(vms: &mut Vms, times: u32) {
    for _ in 0..times {
        vms.asked -= EVERY;
        interval(vms, &[]);
        while vms.is_asked {
            sleep(Duration::from_millis(1));
            vms.asked = Instant::now();
            interval(vms, &[]);
        }
    }
}

#[test]
fn a_vm_is_named_after_its_process_and_numbered_once() {
    let host = Folder::new();
    process(&host, 40, "web1");
    let mut vms = Vms::new(&host.roots, LabelRules::default()).unwrap();
    let first = interval(&mut vms, &[(40, 0x1000), (40, 0x2000), (50, 0x1000)]);
    let expected = [(0, "web1", 1040, 0), (1, "web1", 1040, 1), (2, "pid-50", 0, 0)];
    assert_eq!(numbers(&first), expected, "another VM of the same process, and a process that is gone");
    assert_eq!((first[0].uid, first[2].uid), (Some(64055), None));
    assert_eq!(numbers(&interval(&mut vms, &[(50, 0x1000), (40, 0x2000), (40, 0x1000)])), expected);
}

#[test]
fn a_vm_is_labelled_by_its_manager_and_by_the_rules() {
    let host = Folder::new();
    process(&host, 40, "web1");
    host.write("proc/40/cgroup", "0::/qemu.slice/101.scope\n");
    host.write("rules", "tier arguments -name ([a-z]+)\nvmid cgroup (qemu)\n");
    let rules = LabelRules::read(&host.roots.proc.join("../rules")).unwrap();
    let mut vms = Vms::new(&host.roots, rules).unwrap();
    let found = interval(&mut vms, &[(40, 0x1000), (50, 0x1000)]);
    let of = |key| (found[0].labels.get(key), found[1].labels.get(key));
    assert_eq!(
        ["manager", "vmid", "tier"].map(of),
        [("proxmox", None), ("101", None), ("web", None)].map(|(a, b)| (Some(a), b))
    );
}

#[test]
fn a_process_that_is_never_read_keeps_neither_entries_nor_other_names_waiting() {
    let host = Folder::new();
    fs::create_dir_all(host.roots.proc.join("40")).unwrap();
    // Opening it waits for a writer, as reading waits for a process that changes its memory map.
    rustix::fs::mkfifoat(rustix::fs::CWD, host.roots.proc.join("40/status"), rustix::fs::Mode::RWXU).unwrap();
    let mut vms = Vms::new(&host.roots, LabelRules::default()).unwrap();
    let (vm, naming) = (Arc::clone(&vms.get(40, 0x1000).vm), Arc::clone(&vms.get(40, 0x1000).naming));
    let mut counted = Interval::default();
    counted.record(&event(0, 10, 5, 0), &vm);
    let unnamed = vms.end(counted);
    assert!(!unnamed.is_complete(), "the interval waits, and the collector goes on");
    vms.wait_for_names();
    assert_eq!((naming.wait(&vm).name.as_str(), unnamed.complete().vms[&0].name.as_str()), ("pid-40", "pid-40"));
    // The reader's thread goes on.
    fs::write(host.roots.proc.join("40/status"), "").unwrap();
}

#[test]
fn a_later_process_of_the_same_number_is_another_vm_at_the_same_address() {
    let host = Folder::new();
    started(&host, 40, "old", 77);
    let mut vms = Vms::new(&host.roots, LabelRules::default()).unwrap();
    assert_eq!(numbers(&interval(&mut vms, &[(40, 0x1000)])), [(0, "old", 77, 0)]);
    ask(&mut vms, 3);
    assert_eq!(numbers(&interval(&mut vms, &[(40, 0x1000)])), [(0, "old", 77, 0)], "an idle VM stays");
    started(&host, 40, "new", 99);
    ask(&mut vms, 1);
    assert_eq!(numbers(&interval(&mut vms, &[(40, 0x1000)])), [(1, "new", 99, 0)]);
    assert!(vms.take_ended().is_empty(), "the VM at the address of the old one is the new one");
    // Gone, its last records still arrive; then it is forgotten before a third one comes.
    fs::remove_dir_all(host.roots.proc.join("40")).unwrap();
    ask(&mut vms, 1);
    assert_eq!(numbers(&interval(&mut vms, &[(40, 0x1000)])), [(1, "new", 99, 0)]);
    assert!(vms.take_ended().is_empty(), "its vCPUs may still be on their way out");
    ask(&mut vms, 2);
    assert_eq!(vms.take_ended(), [(40, 0x1000)].into_iter().collect());
    assert!(vms.take_ended().is_empty());
    started(&host, 40, "third", 111);
    assert_eq!(numbers(&interval(&mut vms, &[(40, 0x1000)])), [(2, "third", 111, 0)]);
    assert_eq!((vms.by_id.len(), vms.by_identity.len()), (1, 1), "the dead ones are forgotten");
}

#[test]
fn a_stranger_in_another_pid_namespace_gives_no_name() {
    let host = Folder::new();
    process(&host, 40, "web1");
    host.link("proc/self/ns/pid", "pid:[4026532201]");
    let mut vms = Vms::new(&host.roots, LabelRules::default()).unwrap();
    assert_eq!(numbers(&interval(&mut vms, &[(40, 0x1000)])), [(0, "tgid 40", 0, 0)]);
}

#[test]
fn more_vms_than_recent_slots_keep_their_numbers() {
    let mut vms = Vms::new(&Folder::new().roots, LabelRules::default()).unwrap();
    for _ in 0..2 {
        for n in 0..200 {
            assert_eq!(u64::from(vms.get(1, n << 12).vm.id), n);
        }
    }
}

#[test]
fn a_process_with_very_many_vms_leaves_those_of_others_as_they_are() {
    let mut vms = Vms::new(&Folder::new().roots, LabelRules::default()).unwrap();
    let of_other = vms.get(2, 0x1000).vm.id;
    for n in 0..2 * MAX_VMS as u64 {
        vms.get(1, n << 12);
    }
    assert_eq!((vms.get(2, 0x1000).vm.id, vms.processes[&1].kvms.len()), (of_other, MAX_OF_PROCESS));
    // Many such processes together.
    for tgid in 10..40 {
        for n in 0..MAX_OF_PROCESS as u64 {
            vms.get(tgid, n << 12);
        }
    }
    assert_eq!(vms.get(2, 0x1000).vm.id, of_other);
    assert!(vms.by_identity.len() <= MAX_VMS);
}
