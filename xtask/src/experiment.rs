//! What `vmentry ab` must show with the companion module: the effect that is there, none where none is, and the policy as it was
//! after every way out. Pure: files in, failures out.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use crate::witness::{Failures, json, number, text};

/// The shell script that a lab runs for [`failures`].
pub const SCRIPT: &str = include_str!("../../lab/scripts/ab.sh");

/// Everything that is not as it should be in the files that the script left; empty when all is well.
pub fn failures(out: &Path) -> Result<Vec<String>> {
    let mut failures = effect(out)?;
    failures.extend(no_effect(out)?);
    failures.extend(restored(out)?);
    Ok(failures.0)
}

/// Soft against hard: about two pin writes per timer against none.
fn effect(out: &Path) -> Result<Failures> {
    let mut failures = Failures::default();
    let ab = json(&out.join("ab.json"))?;
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
        failures.check(bound.as_f64().is_some_and(|b| b > 0.0), || format!("ab: interval of {value}: {bound}"));
    }
    // The windows are in the recording, and nothing else of it is lost.
    let report = json(&out.join("report.json"))?;
    let entries = |side: &Value| number(&side["totals"]["entries"]);
    let (all, windows) = (number(&report["totals"]["entries"]), entries(soft) + entries(hard));
    failures.check(all > windows && windows > all / 2, || format!("ab: {windows} of {all} entries are in windows"));
    failures.equal("ab: policy of its report", &report["policy"], "unknown");
    failures.equal("ab: dropped", &report["totals"]["dropped"], 0);
    for (file, expected) in [("fail-if.code", "3"), ("after-ab", "soft")] {
        let found = text(&out.join(file))?;
        failures.check(found.trim() == expected, || format!("{file}: {} instead of {expected}", found.trim()));
    }
    let page = text(&out.join("ab.txt"))?;
    failures.check(page.contains("B (hard) is WORSE") && page.contains("EMULATED"), || format!("ab.txt:\n{page}"));
    Ok(failures)
}

/// Soft against soft: nothing. Where chance made one experiment say otherwise, another has been made.
fn no_effect(out: &Path) -> Result<Failures> {
    let mut failures = Failures::default();
    let again = out.join("aa-2.json");
    let aa = json(&if again.exists() { again } else { out.join("aa.json") })?;
    failures.equal("a/a: rounds", &aa["units"]["a"], 12);
    let changed = |f: &&Value| matches!(f["verdict"].as_str(), Some("better" | "worse" | "changed"));
    let figures = aa["figures"].as_array().cloned().unwrap_or_default();
    failures.check(figures.len() > 10, || format!("a/a: {} figures", figures.len()));
    for f in figures.iter().filter(changed) {
        failures.check(false, || format!("a/a, twice: {} {} is {}", f["figure"], f["stat"], f["verdict"]));
    }
    let writes = figure(&aa, "pin_writes", "mean");
    failures.equal("a/a: verdict on pin writes", &writes["verdict"], "no_detectable_change");
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
