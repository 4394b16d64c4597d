//! Checks recordings of Linux guests: their counts against ftrace's, and the claims of commit 804939ea20 against what is
//! known of them.

use std::{collections::BTreeMap, path::Path};

use anyhow::Result;
use serde_json::Value;

use crate::{
    lab::results::{Results, number},
    witness::failures::{Failures, balance, count, rows},
};

/// VMCS field of the pin-based controls.
const PIN: u64 = 0x4000;
/// Causes in the report and their values in enum kvm_preemption_timer_cause.
const CAUSES: [(&str, u64); 3] = [("spurious", 0), ("immediate", 1), ("deadline", 2)];

/// A guest, and the policies under which it is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Name in messages.
    pub(crate) name: &'static str,
    /// Name of its initramfs.
    pub(crate) guest: &'static str,
    /// `all`, or `none` after its boot.
    work: &'static str,
    /// Begins the names of its recordings.
    prefix: &'static str,
    policies: &'static [&'static str],
}

/// A guest that boots, works and powers off.
pub(crate) const STANDARD: Plan =
    Plan { name: "standard", guest: "standard", work: "all", prefix: "", policies: &["hard", "soft"] };
/// The same, and then immediate exits of a KVM that was loaded without the timer.
pub(crate) const STANDARD_AND_OFF: Plan = Plan { policies: &["hard", "soft", "off"], ..STANDARD };
/// A guest that runs KVM and guests of its own.
pub(crate) const NESTED: Plan = Plan { name: "nested", guest: "hypervisor", prefix: "nested-", ..STANDARD };
/// A guest that boots and powers off.
pub(crate) const BOOT: Plan = Plan { name: "booting", work: "none", prefix: "boot-", policies: &["hard"], ..STANDARD };
/// No guest under a policy: only what the rest of a script does.
pub(crate) const NO_POLICY: Plan = Plan { name: "vms", policies: &[], ..BOOT };

impl Plan {
    /// Names of its recordings: one for each policy.
    pub(crate) fn recordings(self) -> impl Iterator<Item = String> {
        self.policies.iter().map(move |policy| format!("{}{policy}", self.prefix))
    }

    /// Assignments for the script.
    pub(crate) fn variables(self) -> String {
        let Plan { guest, work, prefix, policies, .. } = self;
        format!("GUEST={guest} WORK={work} NAME={prefix} POLICIES='{}'\n", policies.join(" "))
    }
}

/// Returns every count of the recordings that is not ftrace's, and every guest that did not do its work.
pub(crate) fn failures(out: &Path, plans: &[Plan]) -> Result<Vec<String>> {
    let (results, mut failures) = (Results(out), Failures::default());
    for name in plans.iter().flat_map(|plan| plan.recordings()) {
        let ftrace = Ftrace::read(results, &name)?;
        failures.extend(against_ftrace(&name, &results.json(&format!("{name}.json"))?, &ftrace));
        // Without the timer, the guest is vmentry's own.
        if name != "off" {
            failures.extend(did_its_work(&name, &results.text(&format!("{name}.console"))?));
        }
    }
    Ok(failures.0)
}

pub(super) fn did_its_work(name: &str, console: &str) -> Failures {
    let mut failures = Failures::default();
    let lines: Vec<_> = console.lines().filter(|line| line.contains("FAILED")).collect();
    failures.check(lines.is_empty(), || format!("{name}: {}", lines.join("; ")));
    failures.check(console.contains(&format!("{name}: done")), || format!("{name}: the guest did not reach its end"));
    failures
}

/// ftrace's counts of the life of a guest.
struct Ftrace {
    entries: u64,
    /// By exit reason.
    exits: BTreeMap<u64, u64>,
    /// By VMCS field and by whether the VMCS is a vmcs02.
    writes: BTreeMap<Vec<u64>, u64>,
    /// Timer exits by enum kvm_preemption_timer_cause.
    causes: BTreeMap<u64, u64>,
}

impl Ftrace {
    fn read(results: Results, name: &str) -> Result<Ftrace> {
        Ok(Ftrace {
            entries: results.histogram(&format!("{name}.kvm_entry"))?.values().sum(),
            exits: results.histogram(&format!("{name}.kvm_exit"))?,
            writes: results.histogram_of_keys(&format!("{name}.kvm_vmcs_write"))?,
            causes: results.histogram(&format!("{name}.kvm_preemption_timer_exit"))?,
        })
    }
}

fn against_ftrace(name: &str, report: &Value, ftrace: &Ftrace) -> Failures {
    let mut failures = balance(name, report);
    let totals = &report["totals"];
    let policy = name.rsplit('-').next().unwrap_or(name);
    failures.equal(&format!("{name}: policy"), &report["policy"], policy);
    failures.equal(&format!("{name}: dropped entries"), &totals["dropped"], 0);
    failures.equal(&format!("{name}: entries"), &totals["entries"], ftrace.entries);
    failures.check(ftrace.entries > 1000, || format!("{name}: only {} entries", ftrace.entries));
    let mut exits: BTreeMap<u64, u64> = BTreeMap::new();
    for row in rows(report) {
        *exits.entry(number(&row["exit_reason_code"])).or_default() += number(&row["entries"]);
    }
    failures.check(exits == ftrace.exits, || format!("{name}: exits by reason {exits:?} are not {:?}", ftrace.exits));
    let written: u64 = [0, 1].map(|vmcs02| count(&ftrace.writes, vec![PIN, vmcs02])).iter().sum();
    failures.equal(&format!("{name}: pin-control writes"), &totals["pin_writes"], written);
    for (cause, value) in CAUSES {
        let counted = count(&ftrace.causes, value);
        failures.equal(&format!("{name}: timer exits, {cause}"), &totals["timer_exits"][cause], counted);
    }
    failures
}

/// Number in the list of the claim on the time of a VM entry, of which an emulated CPU says nothing.
const LATENCY: usize = 0;
/// Numbers of the claims on counts and on the timer, which must hold.
const COUNTED: [usize; 5] = [1, 2, 3, 5, 6];
/// Number of the claim on KVM without the timer, which is tried in the lab only.
const WITHOUT_TIMER: usize = 7;

/// Returns every claim in `claims.json` whose verdict is not the known one.
pub(crate) fn disagreements(out: &Path, emulated: bool) -> Result<Vec<String>> {
    Ok(against_known(&Results(out).json("claims.json")?, emulated).0)
}

fn against_known(claims: &Value, emulated: bool) -> Failures {
    let mut failures = Failures::default();
    for at in COUNTED.into_iter().chain(emulated.then_some(WITHOUT_TIMER)) {
        let claim = &claims["claims"][at];
        failures.equal(&format!("{}: {}: agrees", claim["claim"], claim["measured"]), &claim["agrees"], true);
    }
    if emulated {
        failures.equal("verdict on times of an emulated CPU", &claims["claims"][LATENCY]["agrees"], Value::Null);
    }
    failures
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report() -> Value {
        let row = |code: u32, entries: u32| json!({"exit_reason_code": code, "entries": entries});
        json!({
            "policy": "hard", "exact": true,
            "totals": {
                "entries": 2000, "delivered": 2000, "dropped": 0, "pin_writes": 411,
                "timer_exits": {"spurious": 0, "immediate": 3, "deadline": 200},
            },
            "series": [row(52, 203), row(10, 1700), row(10, 97)],
        })
    }

    fn ftrace() -> Ftrace {
        Ftrace {
            entries: 2000,
            exits: BTreeMap::from([(52, 203), (10, 1797)]),
            writes: BTreeMap::from([(vec![PIN, 0], 401), (vec![PIN, 1], 10), (vec![0x4002, 0], 77)]),
            causes: BTreeMap::from([(1, 3), (2, 200)]),
        }
    }

    #[test]
    fn counts_that_are_ftraces_pass_and_each_one_more_fails() {
        assert_eq!(against_ftrace("hard", &report(), &ftrace()).0, Vec::<String>::new());
        let more: [fn(&mut Ftrace); 4] = [
            |f| f.entries += 1,
            |f| *f.exits.entry(10).or_default() += 1,
            |f| *f.writes.entry(vec![PIN, 1]).or_default() += 1,
            |f| *f.causes.entry(0).or_default() += 1,
        ];
        for (i, more) in more.into_iter().enumerate() {
            let mut other = ftrace();
            more(&mut other);
            assert_eq!(against_ftrace("hard", &report(), &other).0.len(), 1, "{i}");
        }
        assert_eq!(against_ftrace("soft", &report(), &ftrace()).0.len(), 1, "of another policy");
    }

    #[test]
    fn a_guest_that_fails_or_hangs_is_a_failure() {
        assert_eq!(did_its_work("hard", "hard: up\nhard: done\n").0.len(), 0);
        assert_eq!(did_its_work("hard", "hard: FAILED: ping\nhard: done\n").0.len(), 1);
        assert_eq!(did_its_work("hard", "hard: up\n").0.len(), 1);
    }

    #[test]
    fn a_claim_that_differs_or_is_not_judged_is_a_failure_and_latency_must_not_be_judged_in_the_lab() {
        let claims = |agrees: [Value; 8]| json!({"claims": agrees.map(|agrees| json!({"agrees": agrees}))});
        let yes = Value::Bool(true);
        // The lab's CPU does not tell what the delay of a soft-disabled timer really is.
        let mut known = std::array::from_fn(|_| yes.clone());
        (known[0], known[4]) = (Value::Null, Value::Null);
        assert_eq!(against_known(&claims(known.clone()), true).0, Vec::<String>::new());
        for (at, verdict, emulated, failures) in [
            (1, Value::Bool(false), true, 1),
            (2, Value::Null, true, 1),
            (0, yes.clone(), true, 1),
            (0, yes, false, 0),
            (7, Value::Null, true, 1),
            (7, Value::Null, false, 0),
        ] {
            let mut other = known.clone();
            other[at] = verdict;
            assert_eq!(against_known(&claims(other), emulated).0.len(), failures, "{at}");
        }
    }
}
