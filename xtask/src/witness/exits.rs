//! Holds the parts of the host time against KVM's own statistics and the VMM's clock, and details of exits against ftrace's events of what
//! KVM emulated.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::Value;

use crate::{
    lab::results::{Results, number},
    witness::failures::{Failures, rows},
};

/// The port by which a guest ends: no VM entry follows that exit, so that it has no host time.
const END_PORT: u64 = 0xf4;

/// Counts of exits by what they were about.
type Counts = BTreeMap<Vec<u64>, u64>;

/// Returns every failed check of the files that the script left. `exercises` are the guests' own results.
pub(super) fn failures(results: Results, exercises: &[Value]) -> Result<Failures> {
    let report = results.json("details.json")?;
    let mut failures = Failures::default();
    for exercise in exercises {
        failures.extend(against_statistics(&report, exercise));
    }
    let of = |event: &str| results.histogram_of_keys(&format!("{event}.hist"));
    failures.extend(same("MSRs", details(&report, msr), &of("kvm_msr")?));
    failures.extend(same("CPUID leaves", details(&report, leaf), &of("kvm_cpuid")?));
    let without_end = |mut counts: Counts| {
        counts.retain(|keys, _| keys[1] != END_PORT);
        counts
    };
    failures.extend(same("ports", without_end(details(&report, port)), &without_end(of("kvm_pio")?)));
    Ok(failures)
}

/// Compares the parts of the host time of a guest's vCPUs with KVM's statistics of them, to the nanosecond, and with their VMM's clock.
fn against_statistics(report: &Value, exercise: &Value) -> Failures {
    let mut failures = Failures::default();
    for vcpu in exercise["vcpus"].as_array().into_iter().flatten() {
        let name = format!("{} vcpu {}", exercise["scenario"], vcpu["vcpu"]);
        let own: Vec<&Value> =
            rows(report).iter().filter(|row| row["tgid"] == exercise["tgid"] && row["vcpu"] == vcpu["vcpu"]).collect();
        let part = |name: &str| own.iter().map(|row| number(&row["phases"][name])).sum::<u64>();
        let host_ns: u64 = own.iter().map(|row| number(&row["exit_to_entry_ns"]["sum"])).sum();
        let parts = ["kernel_ns", "user_ns", "polled_ns", "idle_ns", "steal_ns"].map(part);
        let [_, user, polled, idle, steal] = parts;
        failures.same(&format!("{name}: parts of the host time"), parts.iter().sum::<u64>(), host_ns);
        let statistic = |name: &str| number(&vcpu["statistics"][name]);
        failures.check(!vcpu["statistics"].is_null(), || format!("{name}: KVM has no statistics"));
        failures.same(&format!("{name}: polled, ns"), polled, statistic("halt_polled_ns"));
        // A halt ends with a wait for a CPU, which is steal.
        let waited = statistic("halt_waited_ns");
        failures.check((idle..=idle + steal).contains(&waited), || {
            format!("{name}: idle {idle} ns and steal {steal} ns, and KVM says halted {waited} ns")
        });
        let delay = statistic("run_delay_ns");
        failures.check(steal <= delay, || format!("{name}: steal {steal} ns of the scheduler's {delay} ns"));
        let outside = number(&vcpu["user_ns"]);
        failures.check(user + steal >= outside && user <= host_ns, || {
            format!("{name}: user {user} ns and steal {steal} ns, and the VMM was {outside} ns outside of KVM_RUN")
        });
    }
    failures
}

/// The exits of a report by a key of their reason and detail; exits without a key are left out.
fn details(report: &Value, key: fn(&str, &str) -> Option<Vec<u64>>) -> Counts {
    let mut counts = Counts::new();
    for row in rows(report) {
        let (reason, detail) = (row["exit_reason"].as_str().unwrap_or(""), row["detail"].as_str().unwrap_or(""));
        if let Some(key) = key(reason, detail) {
            *counts.entry(key).or_default() += number(&row["exits"]);
        }
    }
    counts
}

/// Whether an MSR was written, and its number, as in kvm_msr.
fn msr(reason: &str, detail: &str) -> Option<Vec<u64>> {
    let (written, number) = match (reason, detail.split_once(' ')) {
        ("MSR_READ", _) => (0, detail),
        ("MSR_WRITE", _) => (1, detail),
        ("MSR", Some(("read", number))) => (0, number),
        ("MSR", Some(("write", number))) => (1, number),
        _ => return None,
    };
    Some(vec![written, hexadecimal(number)?])
}

/// The leaf, as in kvm_cpuid.
fn leaf(reason: &str, detail: &str) -> Option<Vec<u64>> {
    (reason == "CPUID").then(|| hexadecimal(detail).map(|leaf| vec![leaf])).flatten()
}

/// Whether the guest wrote, and the port, as in kvm_pio.
fn port(reason: &str, detail: &str) -> Option<Vec<u64>> {
    let (direction, rest) = detail.split_once(' ').filter(|_| ["IO_INSTRUCTION", "IOIO"].contains(&reason))?;
    Some(vec![u64::from(direction == "out"), hexadecimal(rest)?])
}

/// The hexadecimal number that a text begins with.
fn hexadecimal(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x")?;
    let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
    u64::from_str_radix(&digits[..end], 16).ok()
}

fn same(name: &str, found: Counts, expected: &Counts) -> Failures {
    let mut failures = Failures::default();
    failures.check(!expected.is_empty(), || format!("{name}: ftrace saw none"));
    failures.check(found == *expected, || format!("{name}: {found:?} are not ftrace's {expected:?}"));
    failures
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report() -> Value {
        let row = |reason: &str, detail: &str, exits: u64| {
            json!({
                "tgid": 5, "vcpu": 0, "exit_reason": reason, "detail": detail, "exits": exits,
                "exit_to_entry_ns": {"sum": 100},
                "phases": {"kernel_ns": 40, "user_ns": 20, "polled_ns": 10, "idle_ns": 25, "steal_ns": 5},
            })
        };
        json!({"series": [
            row("MSR_WRITE", "0x6e0 TSC_DEADLINE", 23), row("MSR", "read 0x10 TSC", 3), row("CPUID", "0x7.0x0", 97),
            row("IO_INSTRUCTION", "out 0x3f8/1 COM1", 7), row("HLT", "", 9),
        ]})
    }

    #[test]
    fn details_are_counted_as_ftrace_names_them() {
        assert_eq!(details(&report(), msr), [(vec![1, 0x6e0], 23), (vec![0, 0x10], 3)].into());
        assert_eq!(details(&report(), leaf), [(vec![7], 97)].into());
        assert_eq!(details(&report(), port), [(vec![1, 0x3f8], 7)].into());
        assert_eq!(same("x", details(&report(), leaf), &[(vec![7], 96)].into()).0.len(), 1);
        assert_eq!(same("x", Counts::new(), &Counts::new()).0.len(), 1, "a witness that saw nothing is none");
    }

    #[test]
    fn parts_must_be_kvms_own_to_the_nanosecond() {
        let exercise = |polled: u64, waited: u64, user: u64| {
            let statistics = json!({"halt_polled_ns": polled, "halt_waited_ns": waited, "run_delay_ns": 30});
            json!({"scenario": "x", "tgid": 5, "vcpus": [{"vcpu": 0, "user_ns": user, "statistics": statistics}]})
        };
        let failures = |polled, waited, user| against_statistics(&report(), &exercise(polled, waited, user)).0.len();
        assert_eq!(failures(50, 130, 100), 0);
        assert_eq!((failures(51, 130, 100), failures(50, 151, 100), failures(50, 124, 100)), (1, 1, 1));
        assert_eq!(failures(50, 130, 126), 1);
    }
}
