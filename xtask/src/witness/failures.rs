//! A list of failures, and the checks that several labs share.

use std::{collections::BTreeMap, fmt::Display};

use anyhow::Result;
use serde_json::Value;

use crate::lab::results::{Results, number};

/// A list of failed checks.
#[derive(Debug, Default)]
pub(super) struct Failures(pub(super) Vec<String>);

impl Failures {
    /// Adds a failure unless the check is good.
    pub(super) fn check(&mut self, good: bool, failure: impl FnOnce() -> String) {
        if !good {
            self.0.push(failure());
        }
    }

    /// Adds a failure unless a JSON value is the expected one.
    pub(super) fn equal(&mut self, name: &str, found: &Value, expected: impl Into<Value>) {
        let expected = expected.into();
        self.check(*found == expected, || format!("{name}: {found} instead of {expected}"));
    }

    /// Adds a failure unless a value is the expected one.
    pub(super) fn same<T: PartialEq + Display>(&mut self, name: &str, found: T, expected: T) {
        self.check(found == expected, || format!("{name}: {found} instead of {expected}"));
    }

    /// Adds a failure unless a text has all these words.
    pub(super) fn contains(&mut self, name: &str, text: &str, words: &[&str]) {
        for word in words {
            self.check(text.contains(word), || format!("{name}: '{word}' is not in:\n{text}"));
        }
    }

    /// Adds other failures.
    pub(super) fn extend(&mut self, more: Failures) {
        self.0.extend(more.0);
    }
}

/// Returns the series of a report.
pub(super) fn rows(report: &Value) -> &[Value] {
    report["series"].as_array().map_or(&[], Vec::as_slice)
}

/// Returns the element of a list in which this field has this value.
pub(super) fn element<'a>(document: &'a Value, list: &str, field: &str, value: &str) -> &'a Value {
    document[list].as_array().into_iter().flatten().find(|e| e[field] == value).unwrap_or(&Value::Null)
}

/// Returns the count of a key, or 0.
pub(super) fn count<K: Ord>(histogram: &BTreeMap<K, u64>, key: K) -> u64 {
    histogram.get(&key).copied().unwrap_or(0)
}

/// Returns the pin writes at all VMWRITE sites.
pub(super) fn site_writes(totals: &Value) -> u64 {
    totals["site_writes"].as_object().into_iter().flatten().map(|(_, n)| number(n)).sum()
}

/// Checks that `entries == delivered + dropped`, by the counters of the eBPF programs if the recording has them.
pub(super) fn balance(name: &str, report: &Value) -> Failures {
    let mut failures = Failures::default();
    let totals = &report["totals"];
    let sum = number(&totals["delivered"]) + number(&totals["dropped"]);
    failures.check(number(&totals["entries"]) == sum, || {
        format!("{name}: {} entries are not {sum} delivered or dropped", totals["entries"])
    });
    failures.equal(&format!("{name}: exact"), &report["exact"], true);
    failures
}

/// Checks that the script found no warnings in the kernel's log.
pub(super) fn no_complaints(results: Results) -> Result<Failures> {
    let mut failures = Failures::default();
    let complaints = results.word("complaints")?;
    failures.check(complaints.is_empty(), || format!("the kernel complained:\n{complaints}"));
    Ok(failures)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lost_entries_that_are_not_counted_fail() {
        let report = |entries: u32, dropped: u32, exact: bool| {
            json!({
                "exact": exact,
                "totals": {"entries": entries, "delivered": 127, "dropped": dropped},
            })
        };
        assert_eq!(balance("x", &report(127, 0, true)).0, [""; 0]);
        assert_eq!(balance("x", &report(128, 1, true)).0, [""; 0]);
        assert_eq!(balance("x", &report(127, 1, true)).0.len(), 1);
        assert_eq!(balance("x", &report(127, 0, false)).0.len(), 1);
    }
}
