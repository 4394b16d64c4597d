//! Checks how late the deadlines of a lab with the companion module were: in time, except with the test-only module whose
//! timer runs out early.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::Value;

use crate::{
    lab::results::{Results, number},
    witness::failures::{Failures, count, rows},
};

/// Values of enum kvm_preemption_timer_cause.
pub(super) const SPURIOUS: u64 = 0;
pub(super) const DEADLINE: u64 = 2;

/// Timer exits by enum kvm_preemption_timer_cause and by lateness, in TSC cycles as ftrace prints them: without a sign.
type Causes = BTreeMap<Vec<u64>, u64>;

/// Timers, and rounds of the loop, in the script's runs with an early timer.
const TIMERS: u64 = 21;
/// The script's preemption_timer_wrap, in ticks, which are TSC cycles in the lab.
const WRAP: i64 = 1 << 21;
/// Cycles from the moment at which the timer runs out to the handler's look at the TSC: some hundred in the lab.
const HANDLING: i64 = 1 << 17;
/// Cycles by which a deadline is late at most: a second of the emulated CPU. Some pass while the CPU is in the host.
const LATEST: i64 = 100_000_000;
/// ns that remain until the deadline when the timer runs out [`WRAP`] cycles before it, at the lab's 100 MHz.
const REMAINING_NS: std::ops::RangeInclusive<u64> = 19_000_000..=21_500_000;
/// Cycles from arming a probe's timer to its deadline, less its offset.
const PROBE_LIMIT: i64 = 1 << 23;
/// Timers of which KVM may miss the moment at which they are early, because the CPU is in the host just then.
const MISSED: u64 = 6;

/// Returns every failed check of the runs with an early timer.
pub(super) fn failures(results: Results) -> Result<Failures> {
    let mut failures = Failures::default();
    for name in ["early", "capped"] {
        let all = format!("{TIMERS} timers, {TIMERS} interrupts taken");
        failures.contains(name, &results.text(&format!("{name}.guest"))?, &[&all]);
    }
    let (early, due): (Vec<_>, Vec<_>) =
        deadlines(&results.histogram_of_keys("early.causes")?).into_iter().partition(|(late, _)| *late < 0);
    let sum = |of: &[(i64, u64)]| of.iter().map(|(_, n)| n).sum::<u64>();
    failures.check(sum(&early) + sum(&due) == TIMERS && sum(&due) <= MISSED, || {
        format!("early: {} early deadlines and {} due ones of {TIMERS} timers", sum(&early), sum(&due))
    });
    failures.extend(recorded(results, [sum(&early), sum(&due)])?);
    for (late, _) in early {
        // The timer loses WRAP ticks.
        failures.check((0..HANDLING).contains(&(late + WRAP)), || format!("early: a deadline was {late} cycles late"));
    }
    let capped = results.histogram_of_keys("capped.causes")?;
    failures.extend(in_time("capped", &capped));
    let parameter = results.word("capped.parameter")?;
    // From 7.3 on, there is no parameter.
    failures.check(["Y", ""].contains(&parameter.as_str()), || format!("capped: parameter {parameter}"));
    let soft = by_cause(&results.histogram_of_keys("early-soft.causes")?);
    failures.same("early-soft: spurious exits", count(&soft, SPURIOUS), TIMERS);
    failures.extend(probes(results)?);
    Ok(failures)
}

/// Compares the recordings of early timers with ftrace's counts of early and of due deadlines.
fn recorded(results: Results, [early, due]: [u64; 2]) -> Result<Failures> {
    let mut failures = Failures::default();
    let report = results.json("early.json")?;
    for source in ["timer_exits", "timer_exits_tracepoint"] {
        let counts = &report["totals"][source];
        failures.equal(&format!("early: {source} before their deadline"), &counts["early"], early);
        failures.equal(&format!("early: {source} at their deadline"), &counts["deadline"], due);
    }
    for row in rows(&report).iter().filter(|row| row["timer_cause"] == "early") {
        let remaining = &row["deadline_remaining_ns"];
        let within = |ns: &Value| REMAINING_NS.contains(&number(ns));
        failures.check(within(&remaining["min"]) && within(&remaining["max"]), || {
            format!("early: time to the deadline: {remaining}")
        });
    }
    let soft = results.json("early-soft.json")?;
    failures.equal("early-soft: spurious exits in the report", &soft["totals"]["timer_exits"]["spurious"], TIMERS);
    failures.equal("early-soft: spurious exits before their time", &soft["totals"]["spurious_before_time"], TIMERS);
    Ok(failures)
}

/// Returns every failed check of the guest that says itself whether far timers fire early.
fn probes(results: Results) -> Result<Failures> {
    let mut failures = Failures::default();
    let guest = |name: &str| results.json(&format!("{name}.guest"));
    let deadlines =
        |name: &str| Ok::<_, anyhow::Error>(deadlines(&results.histogram_of_keys(&format!("{name}.causes"))?));
    let yes = guest("probe-yes")?;
    failures.equal("probe-yes: verdict", &yes["verdict"], "yes");
    let fired =
        yes["timers"].as_array().into_iter().flatten().filter(|timer| !timer["after_ns"].is_null()).count() as u64;
    let exits = deadlines("probe-yes")?;
    failures.same("probe-yes: deadlines by ftrace", exits.iter().map(|(_, n)| n).sum(), fired);
    for (late, _) in exits {
        failures.check(late < HANDLING - PROBE_LIMIT, || format!("probe-yes: a deadline was {late} cycles late"));
    }
    let recorded = &results.json("probe-yes.json")?["totals"]["timer_exits"];
    failures.equal("probe-yes: early timer exits in the report", &recorded["early"], fired);
    failures.equal("probe-yes: due timer exits in the report", &recorded["deadline"], 0);
    for (name, verdict) in [("probe-capped", "unknown"), ("probe-no", "no")] {
        let said = guest(name)?;
        failures.equal(&format!("{name}: verdict"), &said["verdict"], verdict);
        failures.check(deadlines(name)?.is_empty(), || format!("{name}: a timer fired"));
    }
    let why = guest("probe-capped")?["why"].to_string();
    failures.contains("probe-capped", &why, &["below the erratum's limit"]);
    Ok(failures)
}

/// Checks that no deadline was early, and that exits without a deadline have no lateness.
pub(super) fn in_time(name: &str, causes: &Causes) -> Failures {
    let mut failures = Failures::default();
    for (late, _) in deadlines(causes) {
        failures.check((0..LATEST).contains(&late), || format!("{name}: a deadline was {late} cycles late"));
    }
    for key in causes.keys().filter(|key| key[0] != DEADLINE) {
        failures.check(key[1] == 0, || format!("{name}: cause {} has a lateness of {}", key[0], key[1]));
    }
    failures
}

/// Returns the counts by cause alone.
pub(super) fn by_cause(causes: &Causes) -> BTreeMap<u64, u64> {
    let mut sums = BTreeMap::new();
    for (key, n) in causes {
        *sums.entry(key[0]).or_default() += n;
    }
    sums
}

/// Returns the deadlines' lateness, and how many had it.
fn deadlines(causes: &Causes) -> Vec<(i64, u64)> {
    causes.iter().filter(|(key, _)| key[0] == DEADLINE).map(|(key, n)| (key[1].cast_signed(), *n)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The results of three probes, as the lab leaves them.
    fn results_of_probes(early: u64) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "probe-yes.guest",
            r#"{"verdict":"yes","timers":[{"after_ns":null},{"after_ns":20068480},{"after_ns":35068490}]}"#,
        );
        write(
            "probe-capped.guest",
            r#"{"verdict":"unknown","why":"this kernel keeps its timer values below the erratum's limit"}"#,
        );
        write("probe-no.guest", r#"{"verdict":"no","timers":[]}"#);
        write("probe-yes.json", &format!(r#"{{"totals":{{"timer_exits":{{"early":{early},"deadline":0}}}}}}"#));
        let none = "Totals:\n    Hits: 0\n    Dropped: 0\n";
        write("probe-capped.causes", none);
        write("probe-no.causes", none);
        let late = 9_308u64.wrapping_sub(1 << 23);
        write("probe-yes.causes", &format!("{{ cause: 2, late: {late} }} hitcount: 2\nDropped: 0\n"));
        folder
    }

    #[test]
    fn a_recording_has_the_early_timers_that_a_guest_saw() {
        let [good, short] = [2, 1].map(results_of_probes);
        assert_eq!(probes(Results(good.path())).unwrap().0, Vec::<String>::new());
        let failures = probes(Results(short.path())).unwrap().0;
        assert_eq!(failures, ["probe-yes: early timer exits in the report: 1 instead of 2"]);
    }

    #[test]
    fn a_negative_lateness_is_early() {
        let causes = |late: u64| BTreeMap::from([(vec![DEADLINE, late], 3), (vec![SPURIOUS, 0], 2)]);
        assert!(in_time("due", &causes(4000)).0.is_empty());
        assert_eq!(in_time("early", &causes(4000u64.wrapping_sub(1 << 21))).0.len(), 1);
        assert_eq!(by_cause(&causes(0)), BTreeMap::from([(DEADLINE, 3), (SPURIOUS, 2)]));
    }
}
