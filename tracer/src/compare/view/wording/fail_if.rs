//! The message of `--fail-if`.

use std::time::Duration;

use super::{
    names::name,
    numbers::{difference, relative, time},
};
use crate::compare::{
    Row, Verdict,
    condition::{Condition, ConditionResult},
};

/// The message of `--fail-if`; none if the condition does not hold. `observed_ns` is the sum of both sides.
pub(crate) fn condition(condition: &Condition, row: &Row, result: ConditionResult, observed_ns: u64) -> Option<String> {
    let (change, interval) = if condition.is_relative() { relative(row) } else { difference(row) };
    match result {
        ConditionResult::DoesNotHold => None,
        ConditionResult::Holds => Some(format!(
            "FAIL {}: {change} {interval} is {} {}",
            name(row),
            if condition.is_above() { "above" } else { "below" },
            condition.limit_text()
        )),
        ConditionResult::Inconclusive => {
            let advice = match condition.growth_needed(row) {
                Some(growth) => {
                    let seconds = ((growth - 1.0) * observed_ns as f64 / 1e9).ceil().max(1.0);
                    // Beyond ten years, the number says nothing.
                    format!("record at least {} more", time(Duration::from_secs_f64(seconds.min(3.2e8))))
                }
                None => "record longer".to_owned(),
            };
            let found = match &row.why {
                Some(why) if row.verdict == Verdict::NotEnoughData => why.clone(),
                _ if row.verdict == Verdict::NotTested => {
                    format!("{change} {interval}, but not tested, because a primary figure before it is undecided")
                }
                _ => format!("{change} {interval}"),
            };
            Some(format!("--fail-if '{}': inconclusive: {found}: {advice}", condition.text))
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::compare::{condition::Condition, fixture::comparison};

    #[test]
    fn a_condition_says_what_was_found_and_what_to_do() {
        let said = |text: &str| {
            let condition = text.parse::<Condition>().unwrap();
            let rows = comparison().rows;
            let (result, row) = condition.judge(&rows).unwrap();
            super::condition(&condition, row, result, 10_000_000_000)
        };
        let fail = said("entry_to_exit_ns.p99>+3%").unwrap();
        assert!(fail.starts_with("FAIL entry_to_exit_ns.p99: +17.8% [+13.7, +21.9]% is above +3%"), "{fail}");
        let fail = said("pin_writes.mean>+0.1").unwrap();
        assert_eq!(fail, "FAIL pin_writes.mean: +0.410 [+0.390, +0.430] is above +0.1");
        // The interval reaches 5 % in its upper half: 22 points to each side of 12.5 %, so (22 / 7.5)^2 times the data.
        let unclear = said("entry_to_exit_ns.p999>+5%").unwrap();
        assert!(
            unclear.contains("inconclusive: +12.5%") && unclear.ends_with("record at least 1 min 17 s more"),
            "{unclear}"
        );
        let none = said("entry_to_exit_ns.max>+3%").unwrap();
        assert!(none.ends_with("inconclusive: a maximum has no valid interval: record longer"), "{none}");
        assert_eq!(said("entry_to_exit_ns.p99>+50%"), None);
    }
}
