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

/// Seeds of the A/A experiment, tried in this order. By chance one in twenty experiments finds a change, and some have
/// too few values for a confidence interval.
pub(crate) const SEEDS: [u32; 2] = [97, 98];

/// Returns every failed check of the files that the script left, except those of [`false_alarms`]. Compares with the
/// binary `vmentry`.
pub(crate) fn failures(out: &Path, vmentry: &Path) -> Result<Vec<String>> {
    let mut failures = effect(Results(out), vmentry)?;
    failures.extend(restored(Results(out))?);
    Ok(failures.0)
}

/// Returns failures that chance can cause: differences in the A/A experiment, soft against soft, and an effect without
/// a confidence interval.
pub(crate) fn false_alarms(out: &Path, vmentry: &Path) -> Result<Vec<String>> {
    let mut failures = Failures::default();
    let (_, ab) = compare(vmentry, &out.join("ab.hlog"), &[])?;
    let writes = figure(&ab, "pin_writes", "mean");
    failures.check(!writes["difference"]["low"].is_null(), || format!("ab: pin writes: {}", writes["why"]));
    let (_, aa) = compare(vmentry, &out.join("aa.hlog"), &[])?;
    failures.equal("a/a: rounds", &aa["units"]["a"], 12);
    let changed = |f: &&Value| matches!(f["verdict"].as_str(), Some("better" | "worse" | "changed"));
    let figures = aa["figures"].as_array().cloned().unwrap_or_default();
    failures.check(figures.len() > 10, || format!("a/a: {} figures", figures.len()));
    for f in figures.iter().filter(changed) {
        failures.check(false, || format!("a/a: {} {} is {}", f["figure"], f["stat"], f["verdict"]));
    }
    let writes = figure(&aa, "pin_writes", "mean");
    failures.equal("a/a: verdict on pin writes", &writes["verdict"], "no_detectable_change");
    Ok(failures.0)
}

/// Runs `vmentry compare` and returns its exit code and JSON.
fn compare(vmentry: &Path, recording: &Path, arguments: &[&str]) -> Result<(Option<i32>, Value)> {
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
fn figure<'a>(comparison: &'a Value, figure: &str, stat: &str) -> &'a Value {
    let is = |f: &&Value| f["figure"] == figure && f["stat"] == stat;
    comparison["figures"].as_array().and_then(|all| all.iter().find(is)).unwrap_or(&Value::Null)
}
