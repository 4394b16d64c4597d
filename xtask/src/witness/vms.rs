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
        failures::{Failures, count, rows},
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
    let exits = results.histogram_of_keys("vms.kvm_exit")?;
    failures.extend(against_threads(&report, &threads, &Ftrace { entries, exits }));
    Ok(failures.0)
}

/// ftrace's counts: entries by thread and vCPU, exits by thread, vCPU and exit reason.
#[derive(Clone)]
struct Ftrace {
    entries: Histogram,
    exits: Histogram,
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

/// Compares entries by VM and vCPU, and exits by VM, vCPU and reason, with ftrace's counts by thread. `threads` has the
/// VM and the vCPU of each thread.
fn against_threads(report: &Value, threads: &BTreeMap<u64, (&str, u64)>, ftrace: &Ftrace) -> Failures {
    let mut failures = Failures::default();
    let mut counted = Exits::new();
    for (keys, hits) in &ftrace.exits {
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
    let of_qemu: BTreeSet<_> = threads.values().map(|(vm, _)| (*vm).to_owned()).collect();
    let of_vmentry: BTreeSet<_> = reported.keys().map(|(vm, ..)| vm.clone()).collect();
    failures.check(of_qemu == of_vmentry, || format!("VMs are named {of_vmentry:?} instead of {of_qemu:?}"));
    for (&thread, &(vm, vcpu)) in threads.iter().filter(|(_, (vm, _))| of_vmentry.contains(*vm)) {
        let entered = count(&ftrace.entries, vec![thread, vcpu]);
        let entries: u64 = reported.iter().filter(|(key, _)| key.0 == vm && key.1 == vcpu).map(|(_, n)| n).sum();
        failures.same(&format!("VM {vm}: entries of vCPU {vcpu}"), entries, entered);
        failures.check(entered > 20, || format!("VM {vm}: only {entered} entries of vCPU {vcpu}"));
    }
    let keys = counted.keys().chain(reported.keys().filter(|key| !counted.contains_key(key)));
    for key in keys.filter(|key| of_qemu.contains(&key.0) && of_vmentry.contains(&key.0)) {
        let name = format!("VM {}, vCPU {}: exits for reason {}", key.0, key.1, key.2);
        failures.same(&name, count(&reported, key.clone()), count(&counted, key.clone()));
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

    fn ftrace() -> Ftrace {
        let entries = [(vec![41, 0], 203), (vec![51, 0], 1700), (vec![52, 1], 117)];
        let exits = [(vec![41, 0, 12], 203), (vec![51, 0, 12], 1700), (vec![52, 1, 12], 97), (vec![52, 1, 30], 20)];
        Ftrace { entries: entries.into(), exits: exits.into() }
    }

    fn compared(report: &Value, ftrace: &Ftrace) -> Vec<String> {
        against_threads(report, &BTreeMap::from(THREADS), ftrace).0
    }

    #[test]
    fn equal_counts_pass_and_one_hit_more_a_thread_of_no_vm_and_another_vcpu_fail() {
        assert_eq!(compared(&report(), &ftrace()), [""; 0]);
        let with = |change: fn(&mut Ftrace)| {
            let mut ftrace = ftrace();
            change(&mut ftrace);
            compared(&report(), &ftrace)
        };
        let failures = with(|ftrace| *ftrace.entries.entry(vec![52, 1]).or_default() += 1);
        assert_eq!(failures, ["VM web2: entries of vCPU 1: 117 instead of 118"]);
        let failures = with(|ftrace| *ftrace.exits.entry(vec![52, 1, 30]).or_default() += 1);
        assert_eq!(failures, ["VM web2, vCPU 1: exits for reason 30: 20 instead of 21"]);
        let failures = with(|ftrace| _ = ftrace.exits.insert(vec![52, 1, 7], 1));
        assert_eq!(failures, ["VM web2, vCPU 1: exits for reason 7: 0 instead of 1"]);
        let failures = with(|ftrace| _ = ftrace.exits.insert(vec![60, 0, 12], 5));
        assert_eq!(failures, ["thread 60 left a guest 5 times, but is no vCPU of QEMU's"]);
        let failures = with(|ftrace| {
            ftrace.exits.remove(&vec![51, 0, 12]);
            ftrace.exits.insert(vec![51, 2, 12], 1700);
        });
        assert_eq!(failures[0], "VM web2: vCPU of thread 51: 2 instead of 0");
    }

    #[test]
    fn a_vm_under_another_name_or_with_another_process_fails() {
        let mut other = report();
        other["series"][0]["vm"] = "web1.x".into();
        let failures = compared(&other, &ftrace());
        assert_eq!(failures, [r#"VMs are named {"web1.x", "web2"} instead of {"web1", "web2"}"#]);
        assert_eq!([40, 41].map(|id| process(&VMS[0], &report(), &json!(id)).0.len()), [0, 1]);
    }

    #[test]
    fn a_vm_or_a_vcpu_that_hardly_ran_fails() {
        let (mut report, mut ftrace) = (report(), ftrace());
        report["series"][0]["entries"] = 20.into();
        ftrace.entries.insert(vec![41, 0], 20);
        ftrace.exits.insert(vec![41, 0, 12], 20);
        assert_eq!(compared(&report, &ftrace), ["VM web1: only 20 entries of vCPU 0"]);
        report["series"].as_array_mut().unwrap().remove(0);
        ftrace.entries.remove(&vec![41, 0]);
        ftrace.exits.remove(&vec![41, 0, 12]);
        assert_eq!(compared(&report, &ftrace), [r#"VMs are named {"web2"} instead of {"web1", "web2"}"#]);
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
