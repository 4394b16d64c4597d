//! Conditions on a comparison, for `--fail-if`.

use std::str::FromStr;

use super::{Estimate, Row, Verdict, assemble::named};
use crate::model::{
    figures::Unit,
    quantity::{LIMIT_UNITS, limit_unit_ns, split_unit},
};

/// A condition such as `entry_to_exit_ns.p99>+3%`.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// as it was written
    pub(crate) text: String,
    /// figure and statistic, joined by a dot
    name: String,
    /// holds above the threshold, else below
    above: bool,
    /// the threshold as it was written, e.g. "+3%"
    limit: String,
    threshold: Threshold,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Threshold {
    /// compared with `ratio - 1`
    Relative(f64),
    /// compared with `difference`, in the row's unit
    Absolute(f64),
    /// compared with `difference`, ns; only for figures that are times
    Time(f64),
    /// compared with `difference`, 0 to 1; only for shares
    Points(f64),
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConditionResult {
    /// the value is beyond the threshold, and the change is significant
    Holds,
    /// the confidence interval ends before the threshold; for a maximum, which has no interval, the value does
    DoesNotHold,
    /// the interval reaches beyond the threshold or is not known, or there were not enough data
    Inconclusive,
}

impl FromStr for Condition {
    type Err = String;

    /// From `FIGURE.STATISTIC>+N%`; also with `<`, and with a unit of time, pp of a share, or no unit for a difference.
    fn from_str(text: &str) -> Result<Self, String> {
        let example = "write FIGURE.STATISTIC>+N%, such as entry_to_exit_ns.p99>+3% or pin_writes.mean>+0.1";
        let at = text.find(['<', '>']).ok_or(example)?;
        let (name, limit) = (text[..at].trim(), text[at + 1..].trim());
        let (number, unit) = split_unit(limit).map_err(|_| format!("'{limit}' is not a limit: {example}"))?;
        let threshold = match unit {
            "%" => Threshold::Relative(number / 100.0),
            "" => Threshold::Absolute(number),
            "pp" => Threshold::Points(number / 100.0),
            unit => match limit_unit_ns(unit) {
                Some(ns) => Threshold::Time(number * ns),
                None => return Err(format!("unknown unit '{unit}': use %, {LIMIT_UNITS}, pp of a share, or none")),
            },
        };
        let (name, unit) = named(name)?;
        if matches!(threshold, Threshold::Time(_)) && unit != Unit::Ns {
            return Err(format!("{name} is not a time: write a plain number"));
        }
        if matches!(threshold, Threshold::Points(_)) && unit != Unit::Share {
            return Err(format!("{name} is not a share: percentage points (pp) are only for time.PART.share"));
        }
        Ok(Self { text: text.into(), name, above: text[at..].starts_with('>'), limit: limit.into(), threshold })
    }
}

impl Condition {
    /// Whether its value must be above the limit.
    pub(crate) fn is_above(&self) -> bool {
        self.above
    }

    /// Whether its limit is a share of A.
    pub(crate) fn is_relative(&self) -> bool {
        matches!(self.threshold, Threshold::Relative(_))
    }

    /// Its limit as it was written.
    pub(crate) fn limit_text(&self) -> &str {
        &self.limit
    }

    /// The estimate that the condition is about, its limit, and the value of "no change".
    fn estimate(&self, row: &Row) -> (Option<Estimate>, f64, f64) {
        match self.threshold {
            Threshold::Relative(limit) => (row.ratio, 1.0 + limit, 1.0),
            Threshold::Absolute(limit) | Threshold::Time(limit) | Threshold::Points(limit) => {
                (row.difference, limit, 0.0)
            }
        }
    }

    /// How many times as much data would move the limit out of the confidence interval, which shrinks with the root of the data;
    /// none if the limit is outside already, or so close to the value that the answer would be above 100.
    pub(crate) fn growth_needed(&self, row: &Row) -> Option<f64> {
        let (estimate, limit, _) = self.estimate(row);
        let Estimate { value, low, high } = estimate?;
        let growth = ((high? - low?) / 2.0 / (value - limit)).powi(2);
        (1.0..=100.0).contains(&growth).then_some(growth)
    }

    /// Judges the condition by the rows of a comparison; also the row that it is about.
    pub(crate) fn judge<'a>(&self, rows: &'a [Row]) -> Result<(ConditionResult, &'a Row), String> {
        let name = |r: &Row| format!("{}.{}", r.figure, r.stat);
        let row = rows
            .iter()
            .find(|r| name(r) == self.name)
            .ok_or_else(|| format!("--fail-if '{}': neither side has a value of {}", self.text, self.name))?;
        if matches!(row.verdict, Verdict::NotEnoughData | Verdict::NotTested) {
            return Ok((ConditionResult::Inconclusive, row));
        }
        match self.threshold {
            Threshold::Relative(_) if row.a == Some(0.0) => {
                Err(format!("--fail-if '{}': A is 0, so there is no %: write a difference", self.text))
            }
            _ => Ok((self.judge_row(row), row)),
        }
    }

    fn judge_row(&self, row: &Row) -> ConditionResult {
        let (Some(estimate), limit, none) = self.estimate(row) else { return ConditionResult::Inconclusive };
        // "Below" is "above" with the signs flipped.
        let sign = if self.above { 1.0 } else { -1.0 };
        let (value, limit, none) = (sign * estimate.value, sign * limit, sign * none);
        let [near, far] = [estimate.low, estimate.high].map(|bound| bound.map(|b| sign * b));
        let (near, far) = if self.above { (near, far) } else { (far, near) };
        // The condition has a limit of its own.
        let significant = matches!(row.verdict, Verdict::Better | Verdict::Worse | Verdict::Changed | Verdict::Ignored);
        // A limit on the other side of "no change" can be passed without a significant change.
        let passed = significant || limit < none && near.is_some_and(|near| near > limit);
        match value > limit {
            true if passed => ConditionResult::Holds,
            true => ConditionResult::Inconclusive,
            // A maximum never has an interval.
            false if far.is_some_and(|far| far <= limit) || row.stat == "max" => ConditionResult::DoesNotHold,
            false => ConditionResult::Inconclusive,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{compare::Better, model::figures::Unit};

    fn row(ratio: [f64; 3], p_holm: f64) -> Row {
        let estimate = |[value, low, high]: [f64; 3]| Some(Estimate { value, low: Some(low), high: Some(high) });
        Row {
            figure: "entry_to_exit_ns",
            stat: "p99",
            unit: Unit::Ns,
            better: Better::Lower,
            a: Some(1000.0),
            b: Some(1000.0 * ratio[0]),
            count_a: 5000,
            count_b: 5000,
            difference: estimate(ratio.map(|r| 1000.0 * (r - 1.0))),
            ratio: estimate(ratio),
            p: Some(p_holm),
            p_holm: Some(p_holm),
            detectable: None,
            noise: None,
            primary: None,
            decided_after: None,
            verdict: if p_holm < 0.05 { Verdict::Worse } else { Verdict::NoDetectableChange },
            why: None,
        }
    }

    fn judged(condition: &str, row: Row) -> ConditionResult {
        condition.parse::<Condition>().unwrap().judge(&[row]).unwrap().0
    }

    #[test]
    fn a_condition_holds_only_beyond_its_limit_and_if_significant() {
        let slower = row([1.05, 1.02, 1.08], 0.01);
        assert_eq!(judged("entry_to_exit_ns.p99>+3%", slower.clone()), ConditionResult::Holds);
        assert_eq!(judged("entry_to_exit_ns.p99 > 40ns", slower.clone()), ConditionResult::Holds);
        assert_eq!(judged("entry_to_exit_ns.p99>+10%", slower.clone()), ConditionResult::DoesNotHold);
        assert_eq!(judged("entry_to_exit_ns.p99>+6%", slower.clone()), ConditionResult::Inconclusive);
        assert_eq!(judged("entry_to_exit_ns.p99<-1%", slower), ConditionResult::DoesNotHold);
        assert_eq!(judged("entry_to_exit_ns.p99>+3%", row([1.05, 0.98, 1.12], 0.4)), ConditionResult::Inconclusive);
        assert_eq!(judged("entry_to_exit_ns.p99>+3%", row([1.00, 0.98, 1.02], 0.9)), ConditionResult::DoesNotHold);
        assert_eq!(judged("entry_to_exit_ns.p99<-0.03us", row([0.9, 0.88, 0.92], 0.01)), ConditionResult::Holds);
        assert_eq!(judged("entry_to_exit_ns.p99>-20%", row([0.95, 0.90, 0.99], 0.4)), ConditionResult::Holds);
        let unbounded = Row { ratio: Some(Estimate { value: 0.06, low: None, high: None }), ..row([1.0; 3], 0.9) };
        assert_eq!(judged("entry_to_exit_ns.p99>+3%", unbounded.clone()), ConditionResult::Inconclusive);
        let max = Row { stat: "max", ..unbounded };
        assert_eq!(judged("entry_to_exit_ns.max>+3%", max), ConditionResult::DoesNotHold);
        let ignored = Row { verdict: Verdict::Ignored, ..row([1.05, 1.02, 1.08], 0.01) };
        assert_eq!(judged("entry_to_exit_ns.p99>+3%", ignored), ConditionResult::Holds, "it has a limit of its own");
        let none = Row { verdict: Verdict::NotEnoughData, ..row([1.05, 1.02, 1.08], 0.01) };
        assert_eq!(judged("entry_to_exit_ns.p99>+3%", none), ConditionResult::Inconclusive);
        let gated = Row { stat: "max", verdict: Verdict::NotTested, ..row([1.0; 3], 0.9) };
        assert_eq!(judged("entry_to_exit_ns.max>+3%", gated), ConditionResult::Inconclusive);
    }

    #[test]
    fn a_share_of_the_time_is_limited_by_percentage_points() {
        let difference = Some(Estimate { value: 0.03, low: Some(0.025), high: Some(0.035) });
        let steal =
            || Row { figure: "time.steal", stat: "share", unit: Unit::Share, difference, ..row([4.0, 3.5, 4.5], 0.01) };
        assert_eq!(judged("time.steal.share>+2pp", steal()), ConditionResult::Holds);
        assert_eq!(judged("time.steal.share>+4pp", steal()), ConditionResult::DoesNotHold);
        assert_eq!(judged("time.steal.share>+3.2pp", steal()), ConditionResult::Inconclusive);
        let wrong = "entry_to_exit_ns.p99>+2pp".parse::<Condition>().unwrap_err();
        assert!(wrong.contains("entry_to_exit_ns.p99 is not a share"), "{wrong}");
    }

    #[test]
    fn the_data_still_needed_follow_from_the_interval() {
        let condition = "entry_to_exit_ns.p99>+3%".parse::<Condition>().unwrap();
        // Half the interval is 4 points, the limit 2 points away: twice as narrow takes four times the data.
        let growth = condition.growth_needed(&row([1.05, 1.01, 1.09], 0.01)).unwrap();
        assert!((growth - 4.0).abs() < 1e-9, "{growth}");
        assert_eq!(condition.growth_needed(&row([1.05, 1.04, 1.06], 0.4)), None);
        assert_eq!(condition.growth_needed(&row([1.03, 1.02, 1.04], 0.01)), None);
    }

    #[test]
    fn a_text_that_is_no_condition_is_refused_with_an_example() {
        for bad in ["", "entry_to_exit_ns.p99", ">3%", "a.b>x%", "a.b>3 parsecs", "a.b>inf%", "a.b>nan"] {
            assert!(bad.parse::<Condition>().is_err(), "{bad}");
        }
        let refused = |text: &str, row: Row| text.parse::<Condition>().unwrap().judge(&[row]).unwrap_err();
        assert!(refused("entry_to_exit_ns.p99>+3%", Row { a: Some(0.0), ..row([1.0; 3], 1.0) }).contains("difference"));
        let wrong = |text: &str| text.parse::<Condition>().unwrap_err();
        assert!(wrong("pin_writes.mean>+3ms").contains("plain number"));
        assert!(wrong("p98>+3%").contains("there are entry_to_exit_ns.p50, "));
        let host: Condition = "p99.9>+3%".parse().unwrap();
        assert_eq!((host.name.as_str(), host.text.as_str()), ("exit_to_entry_ns.p999", "p99.9>+3%"));
        let named = wrong("entry_to_exit_ns.p98>+3%");
        for name in ["exit_to_entry_ns.p999", "transition_ns.max", "pin_writes.mean", "timer_exits.spurious.per_second"]
        {
            assert!(named.contains(name), "{name}: {named}");
        }
        let absent = "transition_ns.p50>+3%".parse::<Condition>().unwrap().judge(&[]);
        assert!(absent.unwrap_err().contains("neither side has a value of transition_ns.p50"));
    }
}
