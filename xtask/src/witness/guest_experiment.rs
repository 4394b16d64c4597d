//! Checks `vmentry ab` on a running Linux guest: it finds the guest's pin-control writes within the rounds that it promised, reports
//! none where both arms are one policy, and ends with its guest.

use std::path::Path;

use anyhow::Result;

use crate::{
    lab::results::{Results, number},
    witness::{
        experiment::{compare, ended_with_its_guest, figure, same_policy_twice},
        failures::Failures,
    },
};

/// The shell script that a lab runs for [`failures`], after that of the claims.
pub(crate) const SCRIPT: &str = include_str!("../../../lab/scripts/guest-ab.sh");

/// Returns every failed check of the files that the script left. Compares with the binary `vmentry`.
pub(crate) fn failures(out: &Path, vmentry: &Path) -> Result<Vec<String>> {
    let mut failures = pin_writes(Results(out), vmentry)?;
    failures.extend(same_policy_twice(Results(out), vmentry)?);
    failures.extend(ended_with_its_guest(Results(out), vmentry)?);
    Ok(failures.0)
}

/// Checks soft against hard: 0.1 to 1 pin write more per entry of a Linux guest, since about one entry in ten toggles the timer,
/// and an idle guest's nearly every one.
fn pin_writes(results: Results, vmentry: &Path) -> Result<Failures> {
    let mut failures = Failures::default();
    let (_, ab) = compare(vmentry, &results.0.join("ab.hlog"), &[])?;
    failures.equal("guest: rounds", &ab["units"]["a"], 12);
    let writes = figure(&ab, "pin_writes", "mean");
    failures.equal("guest: verdict on pin writes", &writes["verdict"], "worse");
    failures.check(!writes["primary"].is_null(), || "guest: pin writes are no primary figure".into());
    for bound in ["low", "value", "high"] {
        let bound = writes["difference"][bound].as_f64();
        failures.check(bound.is_some_and(|rise| (0.1..=1.0).contains(&rise)), || {
            format!("guest: pin writes per entry differ by {}", writes["difference"])
        });
    }
    let entries = number(&ab["a"]["totals"]["entries"]).min(number(&ab["b"]["totals"]["entries"]));
    failures.check(entries > 1000, || format!("guest: only {entries} entries on one side"));
    failures.same("after-ab", results.word("after-ab")?.as_str(), "soft");
    Ok(failures)
}
