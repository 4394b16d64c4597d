//! Checks `vmentry ab` with the companion module: it finds an existing effect, reports none in an A/A experiment, and
//! restores the policy however it ends.

use std::{path::Path, process::Command};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    lab::results::{Results, number},
    witness::failures::Failures,
};

/// The shell script that a lab runs for [`failures`].
pub(crate) const SCRIPT: &str = include_str!("../../../lab/scripts/ab.sh");

/// Seeds of the A/A experiments, of which at most [`MOST_ALARMS`] may find any change.
const SEEDS: [u32; 5] = [97, 98, 99, 100, 101];
/// By chance one in twenty experiments finds a change.
const MOST_ALARMS: usize = 1;

/// Returns every failed check of the files that the script left. Compares with the binary `vmentry`.
pub(crate) fn failures(out: &Path, vmentry: &Path) -> Result<Vec<String>> {
    let mut failures = effect(Results(out), vmentry)?;
    failures.extend(same_policy_twice(Results(out), vmentry)?);
    failures.extend(stopped(Results(out), vmentry)?);
    failures.extend(restored(Results(out))?);
    Ok(failures.0)
}

/// Checks that soft against soft finds nothing, but for chance.
pub(super) fn same_policy_twice(results: Results, vmentry: &Path) -> Result<Failures> {
    let mut failures = Failures::default();
    let mut alarms = Vec::new();
    for seed in SEEDS {
        let (_, aa) = compare(vmentry, &results.0.join(format!("aa-{seed}.hlog")), &[])?;
        failures.equal(&format!("a/a {seed}: rounds"), &aa["units"]["a"], 6);
        let figures = aa["figures"].as_array().cloned().unwrap_or_default();
        failures.check(figures.len() > 10, || format!("a/a {seed}: {} figures", figures.len()));
        let changed = figures.iter().filter(|f| matches!(f["verdict"].as_str(), Some("better" | "worse" | "changed")));
        let changed: Vec<_> = changed.map(|f| format!("{} {} is {}", f["figure"], f["stat"], f["verdict"])).collect();
        if !changed.is_empty() {
            alarms.push(format!("a/a {seed}: {}", changed.join(", ")));
        }
    }
    failures.check(alarms.len() <= MOST_ALARMS, || alarms.join("; "));
    Ok(failures)
}

/// Checks an experiment that stops when it knows, and one that ends with its guest.
fn stopped(results: Results, vmentry: &Path) -> Result<Failures> {
    let mut failures = Failures::default();
    let decided = ["decided after ", "rounds: pin writes per entry rose by +", "(ended by decided)"];
    failures.contains("decided.txt", &results.text("decided.txt")?, &decided);
    let (_, json) = compare(vmentry, &results.0.join("decided.hlog"), &[])?;
    let writes = figure(&json, "pin_writes", "mean");
    failures.equal("decided: verdict on pin writes", &writes["verdict"], "worse");
    failures.equal("decided: rounds", &json["units"]["a"], writes["decided_after"].clone());
    let rounds = number(&json["units"]["a"]);
    failures.check((6..=12).contains(&rounds), || format!("decided: after {rounds} rounds instead of 6 to 12"));
    failures.same("after-decided", results.word("after-decided")?.as_str(), "soft");
    failures.extend(ended_with_its_guest(results, vmentry)?);
    Ok(failures)
}

/// Checks an experiment of 1000 rounds whose guest ended in the middle.
pub(super) fn ended_with_its_guest(results: Results, vmentry: &Path) -> Result<Failures> {
    let mut failures = Failures::default();
    failures.contains("ended.txt", &results.text("ended.txt")?, &["(ended by the end of the last VM)"]);
    let (_, json) = compare(vmentry, &results.0.join("ended.hlog"), &[])?;
    let rounds = number(&json["units"]["a"]);
    failures.check((1..1000).contains(&rounds), || format!("ended: {rounds} whole rounds"));
    failures.same("after-ended", results.word("after-ended")?.as_str(), "soft");
    Ok(failures)
}

/// Runs `vmentry compare` and returns its exit code and JSON.
pub(super) fn compare(vmentry: &Path, recording: &Path, arguments: &[&str]) -> Result<(Option<i32>, Value)> {
    let mut command = Command::new(vmentry);
    let output = command.arg("compare").arg(recording).args(["--format", "json"]).args(arguments).output();
    let output = output.with_context(|| format!("run {}", vmentry.display()))?;
    let json = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("vmentry compare: {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok((output.status.code(), json))
}

/// Checks soft against hard: no pin writes against about two per timer.
fn effect(results: Results, vmentry: &Path) -> Result<Failures> {
    let mut failures = Failures::default();
    let (code, ab) = compare(vmentry, &results.0.join("ab.hlog"), &["--fail-if", "pin_writes.mean>+0.1"])?;
    failures.check(code == Some(3), || format!("ab: --fail-if ended with {code:?} instead of 3"));
    failures.equal("ab: emulated", &ab["emulated"], true);
    failures.equal("ab: rounds", &ab["units"]["a"], 12);
    let writes = figure(&ab, "pin_writes", "mean");
    failures.equal("ab: verdict on pin writes", &writes["verdict"], "worse");
    let (soft, hard) = (&ab["a"], &ab["b"]);
    let timers = number(&hard["timer_exits"]["deadline"]);
    failures.check(timers >= 100, || format!("ab: only {timers} timer exits under the hard policy"));
    let per_timer = number(&hard["pin_writes"]) as f64 / timers.max(1) as f64;
    failures.check((1.9..=2.1).contains(&per_timer), || format!("ab: {per_timer} pin writes per timer, hard policy"));
    // A write that a switch of the policy causes may come after the washout.
    failures.check(number(&soft["pin_writes"]) <= 12, || format!("ab: {} pin writes, soft policy", soft["pin_writes"]));
    for bound in ["low", "high"] {
        let (value, bound) = (&writes["difference"]["value"], &writes["difference"][bound]);
        failures.check(bound.is_null() || bound.as_f64() > Some(0.0), || format!("ab: interval of {value}: {bound}"));
    }
    // The recording has all entries, of which the windows have a part.
    let report = results.json("report.json")?;
    let entries = |side: &Value| number(&side["totals"]["entries"]);
    let (all, windows) = (number(&report["totals"]["entries"]), entries(soft) + entries(hard));
    failures.check(all > windows && windows > all / 2, || format!("ab: {windows} of {all} entries are in windows"));
    failures.equal("ab: policy of its report", &report["policy"], "unknown");
    failures.equal("ab: dropped", &report["totals"]["dropped"], 0);
    failures.same("after-ab", results.word("after-ab")?.as_str(), "soft");
    // In an emulator, other figures may differ by a cycle between the policies, so the summary may name more.
    let summary = ab["summary"].as_str().unwrap_or_default();
    let is_worse = summary.starts_with("B (hard) is WORSE") && summary.contains("pin writes per entry");
    failures.check(is_worse, || format!("ab: {summary}"));
    Ok(failures)
}

/// Checks the policy, and the messages, after each way to end an experiment.
fn restored(results: Results) -> Result<Failures> {
    let mut failures = Failures::default();
    for after in ["after-INT", "after-TERM", "after-arm", "after-else"] {
        failures.same(after, results.word(after)?.as_str(), "soft");
    }
    for (file, expected) in [
        ("INT.txt", "ended by SIGINT"),
        ("INT.txt", "NOT ENOUGH DATA"),
        ("TERM.txt", "ended by SIGTERM"),
        ("arm.txt", "'false' failed"),
        ("else.txt", "the policy is no longer soft"),
    ] {
        failures.contains(file, &results.text(file)?, &[expected]);
    }
    Ok(failures)
}

/// Returns a statistic of a figure in a comparison.
pub(super) fn figure<'a>(comparison: &'a Value, figure: &str, stat: &str) -> &'a Value {
    let is = |f: &&Value| f["figure"] == figure && f["stat"] == stat;
    comparison["figures"].as_array().and_then(|all| all.iter().find(is)).unwrap_or(&Value::Null)
}
