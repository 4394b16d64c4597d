//! Checks a recording of several VMs of QEMU: each VM's name, vCPUs and exits, against QEMU's own answers over QMP and
//! ftrace's counts by thread. Debian packages none of kvmtool, cloud-hypervisor, firecracker and crosvm in any suite, so
//! that QEMU is the only VMM here; the others' command lines are in the tests of tracer/src/host/vm_name.rs.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    lab::results::{Results, number},
    witness::{
        claims::did_its_work,
        counts::entries_against_ftrace,
        failures::{Failures, rows},
    },
};

/// The shell script that a lab runs for [`failures`], after that of the claims.
pub(crate) const SCRIPT: &str = include_str!("../../../lab/scripts/vms.sh");

/// A VM that the script starts.
struct Vm {
    /// Begins the names of its files.
    file: &'static str,
    /// The name that its options give it; none without `-name`.
    given: Option<&'static str>,
    /// The name in vmentry's report. A VM without a name has the comm of its process, at most 15 characters.
    reported: &'static str,
    vcpus: u64,
}

const LINUX: &str = "linux";

const VMS: [Vm; 3] = [
    Vm { file: "firmware", given: Some("web1"), reported: "web1", vcpus: 1 },
    Vm { file: "unnamed", given: None, reported: "qemu-system-x86", vcpus: 1 },
    Vm { file: LINUX, given: Some("web2"), reported: "web2", vcpus: 3 },
];

/// Hits by the keys of an ftrace histogram.
type Histogram = BTreeMap<Vec<u64>, u64>;

/// Exits by VM, vCPU and exit reason.
type Exits = BTreeMap<(String, u64, u64), u64>;

/// Returns every name, vCPU and count of the recording that is not QEMU's and ftrace's.
pub(crate) fn failures(out: &Path) -> Result<Vec<String>> {
    let results = Results(out);
    let report = results.json("vms.json")?;
    let entries = results.histogram_of_keys("vms.kvm_entry")?;
    let mut failures = entries_against_ftrace(&report, &by_vcpu(&entries));
    failures.extend(did_its_work(LINUX, &results.text("linux.console")?));
    failures.contains("guest's vCPUs", &results.text("linux.console")?, &["3 vCPUs"]);
    let mut threads = BTreeMap::new();
    for vm in &VMS {
        let answers = Answers::read(&results.text(&format!("{}.qmp", vm.file))?)
            .with_context(|| format!("read QEMU's answers of VM {}", vm.file))?;
        failures.extend(against_options(vm, &answers));
        failures.extend(process(vm, &report, &results.json(&format!("{}.pid", vm.file))?));
        threads.extend(answers.threads.iter().map(|(vcpu, thread)| (*thread, (vm.reported, *vcpu))));
    }
    failures.extend(against_threads(&report, &threads, &results.histogram_of_keys("vms.kvm_exit")?));
    Ok(failures.0)
}

/// QEMU's answers about a VM.
#[derive(Debug, PartialEq)]
struct Answers {
    name: Option<String>,
    /// Thread of each vCPU, by the vCPU's number.
    threads: BTreeMap<u64, u64>,
}

impl Answers {
    /// Reads the lines of a QMP session, whose commands have their names as ids.
    fn read(session: &str) -> Result<Answers> {
        let lines = session.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>().context("read QMP")?;
        let answer = |id: &str| {
            let line = lines.iter().find(|line| line["id"] == id);
            line.and_then(|line| line.get("return")).with_context(|| format!("find the answer to {id}:\n{session}"))
        };
        let vcpus = answer("query-cpus-fast")?.as_array().context("read query-cpus-fast: no list")?;
        let threads: BTreeMap<_, _> =
            vcpus.iter().map(|vcpu| (number(&vcpu["cpu-index"]), number(&vcpu["thread-id"]))).collect();
        ensure!(threads.len() == vcpus.len(), "read query-cpus-fast: a vCPU is there twice:\n{session}");
        Ok(Answers { name: answer("query-name")?["name"].as_str().map(str::to_owned), threads })
    }
}

/// Compares QEMU's answers with the options that the script gave.
fn against_options(vm: &Vm, answers: &Answers) -> Failures {
    let mut failures = Failures::default();
    failures.check(answers.name.as_deref() == vm.given, || {
        format!("VM {}: QEMU's name is {:?} instead of {:?}", vm.file, answers.name, vm.given)
    });
    let vcpus: Vec<_> = answers.threads.keys().copied().collect();
    failures.check(vcpus.iter().copied().eq(0..vm.vcpus), || {
        format!("VM {}: QEMU's vCPUs are {vcpus:?} instead of the first {}", vm.file, vm.vcpus)
    });
    failures
}

/// Checks that every row with the VM's name has the id of its process.
fn process(vm: &Vm, report: &Value, id: &Value) -> Failures {
    let mut failures = Failures::default();
    for row in rows(report).iter().filter(|row| row["vm"] == vm.reported && row["tgid"] != *id) {
        failures.check(false, || format!("VM {}: process {} instead of {id}", vm.reported, row["tgid"]));
    }
    failures
}

/// Compares exits by VM, vCPU and reason with ftrace's counts by thread, vCPU and reason. `threads` has the VM and the
/// vCPU of each thread.
fn against_threads(report: &Value, threads: &BTreeMap<u64, (&str, u64)>, exits: &Histogram) -> Failures {
    let mut failures = Failures::default();
    let mut counted = Exits::new();
    for (keys, hits) in exits {
        let [thread, vcpu, reason] = keys[..] else { continue };
        let Some(&(vm, of_thread)) = threads.get(&thread) else {
            failures.check(false, || format!("thread {thread} left a guest {hits} times, but is no vCPU of QEMU's"));
            continue;
        };
        failures.same(&format!("VM {vm}: vCPU of thread {thread}"), vcpu, of_thread);
        *counted.entry((vm.to_owned(), vcpu, reason)).or_default() += hits;
    }
    let mut reported = Exits::new();
    for row in rows(report) {
        let vm = row["vm"].as_str().unwrap_or("no name").to_owned();
        let key = (vm, number(&row["vcpu"]), number(&row["exit_reason_code"]));
        *reported.entry(key).or_default() += number(&row["entries"]);
    }
    let named = |exits: &Exits| exits.keys().map(|(vm, ..)| vm.clone()).collect::<BTreeSet<_>>();
    let (of_qemu, of_vmentry) = (named(&counted), named(&reported));
    failures.check(of_qemu == of_vmentry, || format!("VMs are named {of_vmentry:?} instead of {of_qemu:?}"));
    for (vm, vcpu) in threads.values() {
        let hits: u64 = counted.iter().filter(|(key, _)| key.0 == *vm && key.1 == *vcpu).map(|(_, hits)| hits).sum();
        failures.check(hits > 20, || format!("VM {vm}: only {hits} exits of vCPU {vcpu}"));
    }
    let keys = counted.keys().chain(reported.keys().filter(|key| !counted.contains_key(key)));
    for key in keys.filter(|key| of_qemu.contains(&key.0) && of_vmentry.contains(&key.0)) {
        let of = |exits: &Exits| exits.get(key).copied().unwrap_or(0);
        let (vm, vcpu, reason) = key;
        failures.same(&format!("VM {vm}, vCPU {vcpu}: exits for reason {reason}"), of(&reported), of(&counted));
    }
    failures
}

/// Sums the entries of all threads by vCPU.
fn by_vcpu(entries: &Histogram) -> BTreeMap<u64, u64> {
    let mut sums = BTreeMap::new();
    for (keys, hits) in entries {
        *sums.entry(keys[1]).or_default() += hits;
    }
    sums
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report() -> Value {
        let row = |vm: &str, vcpu: u32, reason: u32, entries: u32| json!({"vm": vm, "tgid": 40, "vcpu": vcpu, "exit_reason_code": reason, "entries": entries});
        json!({"series": [row("web1", 0, 12, 203), row("web2", 0, 12, 1700), row("web2", 1, 12, 97), row("web2", 1, 30, 20)]})
    }

    const THREADS: [(u64, (&str, u64)); 3] = [(41, ("web1", 0)), (51, ("web2", 0)), (52, ("web2", 1))];

    fn exits() -> Histogram {
        BTreeMap::from([(vec![41, 0, 12], 203), (vec![51, 0, 12], 1700), (vec![52, 1, 12], 97), (vec![52, 1, 30], 20)])
    }

    type Change = fn(&mut Histogram);

    fn compared(report: &Value, exits: &Histogram) -> Vec<String> {
        against_threads(report, &BTreeMap::from(THREADS), exits).0
    }

    #[test]
    fn equal_counts_pass_and_one_exit_more_a_thread_of_no_vm_and_another_vcpu_fail() {
        assert_eq!(compared(&report(), &exits()), [""; 0]);
        let changed: [(Change, &str); 4] = [
            (|exits| *exits.entry(vec![52, 1, 30]).or_default() += 1, "VM web2, vCPU 1: exits for reason 30"),
            (|exits| _ = exits.insert(vec![52, 1, 7], 1), "VM web2, vCPU 1: exits for reason 7: 0 instead of 1"),
            (|exits| _ = exits.insert(vec![60, 0, 12], 5), "thread 60 left a guest 5 times"),
            (
                |exits| {
                    let hits = exits.remove(&vec![51, 0, 12]).unwrap();
                    exits.insert(vec![51, 2, 12], hits);
                },
                "VM web2: vCPU of thread 51: 2 instead of 0",
            ),
        ];
        for (change, expected) in changed {
            let mut exits = exits();
            change(&mut exits);
            let failures = compared(&report(), &exits);
            assert!(failures.iter().any(|failure| failure.contains(expected)), "{expected}: {failures:?}");
        }
    }

    #[test]
    fn a_vm_under_another_name_or_with_another_process_fails() {
        let mut other = report();
        other["series"][0]["vm"] = "web1.x".into();
        let failures = compared(&other, &exits());
        assert_eq!(failures, [r#"VMs are named {"web1.x", "web2"} instead of {"web1", "web2"}"#]);
        assert_eq!([40, 41].map(|id| process(&VMS[0], &report(), &json!(id)).0.len()), [0, 1]);
    }

    #[test]
    fn a_vcpu_that_hardly_ran_fails() {
        let (mut report, mut exits) = (report(), exits());
        report["series"][0]["entries"] = 20.into();
        exits.insert(vec![41, 0, 12], 20);
        assert_eq!(compared(&report, &exits), ["VM web1: only 20 exits of vCPU 0"]);
    }

    const SESSION: &str = r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}}}
{"return": {}, "id": "qmp_capabilities"}
{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RTC_CHANGE"}
{"return": {"name": "web2"}, "id": "query-name"}
{"return": [{"cpu-index": 0, "thread-id": 51}, {"cpu-index": 1, "thread-id": 52}], "id": "query-cpus-fast"}
"#;

    #[test]
    fn qemus_answers_are_read_and_those_that_differ_from_the_options_fail() {
        let answers = Answers::read(SESSION).unwrap();
        assert_eq!(answers, Answers { name: Some("web2".into()), threads: BTreeMap::from([(0, 51), (1, 52)]) });
        let vm = |given, vcpus| Vm { file: "x", given, reported: "x", vcpus };
        for (vm, failures) in
            [(vm(Some("web2"), 2), 0), (vm(Some("web1"), 2), 1), (vm(None, 2), 1), (vm(Some("web2"), 3), 1)]
        {
            assert_eq!(against_options(&vm, &answers).0.len(), failures, "{:?} {}", vm.given, vm.vcpus);
        }
        assert_eq!(Answers::read(&SESSION.replace(r#""name": "web2""#, "")).unwrap().name, None);
        assert!(Answers::read(&SESSION.replace("query-name", "other")).is_err());
    }
}
