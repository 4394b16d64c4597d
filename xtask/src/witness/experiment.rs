//! What `vmentry ab` must show with the companion module: the effect that is there, none where none is, and the policy as it was
//! after every way out.

use std::{path::Path, process::Command};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::witness::counts::{Failures, json, number, text};

/// The shell script that a lab runs for [`failures`].
pub const SCRIPT: &str = include_str!("../../../lab/scripts/ab.sh");

/// Seeds of the A/A experiment: chance makes one in twenty see a change, and some refuse an interval, which the second must not then.
pub const SEEDS: [u32; 2] = [97, 98];

/// Everything that is not as it should be in the files that the script left; empty when all is well. `vmentry` compares.
pub fn failures(out: &Path, vmentry: &Path) -> Result<Vec<String>> {
    let mut failures = effect(out, vmentry)?;
    failures.extend(restored(out)?);
    Ok(failures.0)
}

/// What chance may have done: what the A/A experiment, soft against soft, reports as different, and an effect without an interval.
pub fn false_alarms(out: &Path, vmentry: &Path) -> Result<Vec<String>> {
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

/// Exit code and JSON of `vmentry compare`.
fn compare(vmentry: &Path, recording: &Path, arguments: &[&str]) -> Result<(Option<i32>, Value)> {
    let mut command = Command::new(vmentry);
    let output = command.arg("compare").arg(recording).args(["--format", "json"]).args(arguments).output();
    let output = output.with_context(|| format!("run {}", vmentry.display()))?;
    let json = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("vmentry compare: {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok((output.status.code(), json))
}

/// Soft against hard: about two pin writes per timer against none.
fn effect(out: &Path, vmentry: &Path) -> Result<Failures> {
    let mut failures = Failures::default();
    let (code, ab) = compare(vmentry, &out.join("ab.hlog"), &["--fail-if", "pin_writes.mean>+0.1"])?;
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
    // A switch may still be owed its write when the washout ends.
    failures.check(number(&soft["pin_writes"]) <= 12, || format!("ab: {} pin writes, soft policy", soft["pin_writes"]));
    for bound in ["low", "high"] {
        let (value, bound) = (&writes["difference"]["value"], &writes["difference"][bound]);
        failures.check(bound.is_null() || bound.as_f64() > Some(0.0), || format!("ab: interval of {value}: {bound}"));
    }
    // The windows are in the recording, and nothing else of it is lost.
    let report = json(&out.join("report.json"))?;
    let entries = |side: &Value| number(&side["totals"]["entries"]);
    let (all, windows) = (number(&report["totals"]["entries"]), entries(soft) + entries(hard));
    failures.check(all > windows && windows > all / 2, || format!("ab: {windows} of {all} entries are in windows"));
    failures.equal("ab: policy of its report", &report["policy"], "unknown");
    failures.equal("ab: dropped", &report["totals"]["dropped"], 0);
    let policy = text(&out.join("after-ab"))?;
    failures.check(policy.trim() == "soft", || format!("after-ab: {}", policy.trim()));
    // What else differs by a cycle between the policies, emulated, is not known beforehand.
    let summary = ab["summary"].as_str().unwrap_or_default();
    let is_worse = summary.starts_with("B (hard) is WORSE") && summary.contains("pin_writes.mean");
    failures.check(is_worse, || format!("ab: {summary}"));
    Ok(failures)
}

/// The policy, and what was said, after each way out.
fn restored(out: &Path) -> Result<Failures> {
    let mut failures = Failures::default();
    for after in ["after-INT", "after-TERM", "after-arm", "after-else"] {
        let policy = text(&out.join(after))?;
        failures.check(policy.trim() == "soft", || format!("{after}: {}", policy.trim()));
    }
    for (file, expected) in [
        ("INT.txt", "ended by SIGINT"),
        ("INT.txt", "NOT ENOUGH DATA"),
        ("TERM.txt", "ended by SIGTERM"),
        ("arm.txt", "'false' failed"),
        ("else.txt", "the policy is no longer soft"),
    ] {
        let said = text(&out.join(file))?;
        failures.check(said.contains(expected), || format!("{file}: '{expected}' is not in:\n{said}"));
    }
    Ok(failures)
}

fn figure<'a>(comparison: &'a Value, figure: &str, stat: &str) -> &'a Value {
    let is = |f: &&Value| f["figure"] == figure && f["stat"] == stat;
    comparison["figures"].as_array().and_then(|all| all.iter().find(is)).unwrap_or(&Value::Null)
}
