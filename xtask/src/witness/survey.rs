//! Checks `vmentry survey` with the companion module: every part has figures, marked as emulated, no name is in its files, and one that is
//! ended early restores the policy and writes what there is.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use crate::{
    lab::results::{Results, number},
    witness::failures::Failures,
};

/// The shell script that a lab runs for [`failures`].
pub(crate) const SCRIPT: &str = include_str!("../../../lab/scripts/survey.sh");

/// Names of the host, of the VM, and of its VMM's folder.
const NAMES: [&str; 3] = ["acme-prod7", "acme-db", "/tmp"];

/// Returns every failed check of the files that the script left.
pub(crate) fn failures(out: &Path) -> Result<Vec<String>> {
    let results = Results(out);
    let mut failures = whole(&results.json("host.json")?);
    failures.extend(cut(&results.json("cut.json")?));
    for file in ["host.json", "host.html", "cut.json", "cut.html"] {
        let text = results.text(file)?;
        failures.check(!text.is_empty(), || format!("{file} is empty"));
        for name in NAMES {
            failures.check(!text.contains(name), || format!("{file} has the name {name}"));
        }
    }
    failures.contains("host.html", &results.text("host.html")?, &["EMULATED", "VM 1"]);
    failures.contains("refused.txt", &results.text("refused.txt")?, &["the CPU is emulated"]);
    for after in ["after", "after-cut"] {
        failures.same(&format!("policy {after}"), results.word(after)?, results.word("before")?);
    }
    Ok(failures.0)
}

/// Checks the survey that ran to its end.
fn whole(survey: &Value) -> Failures {
    let mut failures = Failures::default();
    failures.equal("format", &survey["format"], "vmentry-survey/1");
    failures.equal("cut", &survey["cut"], false);
    let parts = &survey["parts"];
    for name in ["check", "overhead", "calibrate", "recording"] {
        let part = &parts[name];
        failures.check(!part["measured"].is_null(), || format!("{name}: n/a: {}", part["unavailable"]));
        failures.equal(&format!("{name}: emulated"), &part["emulated"], true);
    }
    failures.equal("check: cpuid", &parts["check"]["measured"]["cpuid"], 23);
    // An emulated CPU's CPUID has no leaf 15H.
    failures.check(parts["erratum"]["unavailable"].is_string(), || format!("erratum: {}", parts["erratum"]));
    let writes = parts["calibrate"]["measured"]["writes"].as_array().cloned().unwrap_or_default();
    let pin = writes.iter().find(|write| write["control"] == "pin").unwrap_or(&Value::Null);
    failures.check(!pin["cost_ns"].is_null(), || format!("calibrate: no cost of a pin-control write: {pin}"));
    let recording = &parts["recording"]["measured"];
    let sum = number(&recording["delivered"]) + number(&recording["dropped"]);
    failures.equal("recording: entries", &recording["entries"], sum);
    failures.check(sum > 0, || "recording: no entries".into());
    failures.same("recording: VMs", recording["vms"].as_array().map_or(0, Vec::len), 1);
    failures
}

/// Checks the survey that was ended during its calibration.
fn cut(survey: &Value) -> Failures {
    let mut failures = Failures::default();
    failures.equal("cut: cut", &survey["cut"], true);
    let parts = &survey["parts"];
    failures.check(!parts["overhead"]["measured"].is_null(), || format!("cut: overhead {}", parts["overhead"]));
    failures.equal("cut: calibrate.cut", &parts["calibrate"]["cut"], true);
    failures.equal("cut: recording", &parts["recording"]["unavailable"], "cut");
    failures
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn good() -> Value {
        let part = |measured: Value| json!({ "emulated": true, "measured": measured, "unavailable": null });
        json!({ "format": "vmentry-survey/1", "cut": false, "parts": {
            "check": part(json!({ "cpuid": 23 })),
            "erratum": { "emulated": true, "measured": null, "unavailable": "no_leaf_15h" },
            "overhead": part(json!({})),
            "calibrate": part(json!({ "writes": [{ "control": "pin", "cost_ns": { "value": 1.0 } }] })),
            "recording": part(json!({ "entries": 7, "delivered": 5, "dropped": 2, "vms": [{}] })),
        } })
    }

    #[test]
    fn a_part_without_figures_or_mark_fails() {
        assert_eq!(whole(&good()).0, [""; 0]);
        let with = |pointer: &str, value: Value| {
            let mut survey = good();
            *survey.pointer_mut(pointer).unwrap() = value;
            whole(&survey).0.len()
        };
        assert_eq!(with("/parts/overhead/measured", Value::Null), 1);
        assert_eq!(with("/parts/overhead/emulated", json!(false)), 1);
        assert_eq!(with("/parts/recording/measured/entries", json!(8)), 1);
        assert_eq!(with("/parts/calibrate/measured/writes", json!([])), 1);
    }
}
