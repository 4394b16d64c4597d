//! Conditions on a comparison, for `--fail-if`: what may not happen, and whether it did.

use super::{Row, Verdict};
use crate::model::figures::Unit;

/// E.g. `entry_to_exit_ns.p99>+3%`.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// as it was written
    pub text: String,
    /// figure and statistic, joined by a dot
    name: String,
    /// holds above the threshold; else below
    above: bool,
    threshold: Threshold,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Threshold {
    /// of `ratio - 1`
    Relative(f64),
    /// of `difference`, in the row's unit
    Absolute(f64),
    /// of `difference`, ns: only of figures that are times
    Time(f64),
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// beyond the threshold, and the change is beyond chance
    Holds,
    /// the interval ends before the threshold; of a maximum, which has none, the value does
    Fails,
    /// the interval reaches beyond the threshold or is not known, or there were not enough data
    Unknown,
}

impl Condition {
    /// From `FIGURE.STATISTIC>+N%`, or with `<`, or with `ns`, `us`, `ms`, `s` or nothing for a difference.
    pub fn parse(text: &str) -> Result<Self, String> {
        let example = "write FIGURE.STATISTIC>+N%, such as entry_to_exit_ns.p99>+3% or pin_writes.mean>+0.1";
        let at = text.find(['<', '>']).ok_or(example)?;
        let (name, limit) = (text[..at].trim(), text[at + 1..].trim());
        let split = limit.find(|c: char| c.is_alphabetic() || c == '%').unwrap_or(limit.len());
        let (number, unit) = limit.split_at(split);
        let number = number.trim().parse::<f64>().ok().filter(|n| n.is_finite());
        let number = number.ok_or_else(|| format!("'{limit}' is no limit: {example}"))?;
        let threshold = match unit.trim() {
            "%" => Threshold::Relative(number / 100.0),
            "" => Threshold::Absolute(number),
            "ns" => Threshold::Time(number),
            "us" => Threshold::Time(number * 1e3),
            "ms" => Threshold::Time(number * 1e6),
            "s" => Threshold::Time(number * 1e9),
            other => return Err(format!("unknown unit '{other}': use %, ns, us, ms, s or none")),
        };
        if name.is_empty() {
            return Err(example.into());
        }
        Ok(Self { text: text.into(), name: name.into(), above: text[at..].starts_with('>'), threshold })
    }

    /// Judges it by the rows of a comparison.
    pub fn judge(&self, rows: &[Row]) -> Result<Outcome, String> {
        let name = |r: &Row| format!("{}.{}", r.figure, r.stat);
        let row = rows.iter().find(|r| name(r) == self.name).ok_or_else(|| {
            let names: Vec<_> = rows.iter().map(name).collect();
            format!("--fail-if '{}': there is no '{}' (there are: {})", self.text, self.name, names.join(", "))
        })?;
        if row.verdict == Verdict::NotEnoughData {
            return Ok(Outcome::Unknown);
        }
        let (estimate, limit, none) = match self.threshold {
            Threshold::Time(_) if row.unit != Unit::Ns => {
                return Err(format!("--fail-if '{}': {} is no time: write a plain number", self.text, self.name));
            }
            Threshold::Relative(_) if row.a == Some(0.0) => {
                return Err(format!("--fail-if '{}': A is 0, there is no %: write a difference", self.text));
            }
            Threshold::Relative(limit) => (row.ratio, 1.0 + limit, 1.0),
            Threshold::Absolute(limit) | Threshold::Time(limit) => (row.difference, limit, 0.0),
        };
        let Some(estimate) = estimate else { return Ok(Outcome::Unknown) };
        // Below is above with the signs turned.
        let sign = if self.above { 1.0 } else { -1.0 };
        let (value, limit, none) = (sign * estimate.value, sign * limit, sign * none);
        let [near, far] = [estimate.low, estimate.high].map(|bound| bound.map(|b| sign * b));
        let (near, far) = if self.above { (near, far) } else { (far, near) };
        let beyond_chance = matches!(row.verdict, Verdict::Better | Verdict::Worse | Verdict::Changed);
        // A limit on the other side of "no change" can be passed without a change.
        let passed = beyond_chance || limit < none && near.is_some_and(|near| near > limit);
        Ok(match value > limit {
            true if passed => Outcome::Holds,
            true => Outcome::Unknown,
            // A maximum never has an interval.
            false if far.is_some_and(|far| far <= limit) || row.stat == "max" => Outcome::Fails,
            false => Outcome::Unknown,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compare::{Better, Estimate},
        model::figures::Unit,
    };

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
            verdict: if p_holm < 0.05 { Verdict::Worse } else { Verdict::NoDetectableChange },
            why: None,
        }
    }

    fn judged(condition: &str, row: Row) -> Outcome {
        Condition::parse(condition).unwrap().judge(&[row]).unwrap()
    }

    #[test]
    fn a_condition_holds_only_beyond_its_limit_and_beyond_chance() {
        let slower = row([1.05, 1.02, 1.08], 0.01);
        assert_eq!(judged("entry_to_exit_ns.p99>+3%", slower.clone()), Outcome::Holds);
        assert_eq!(judged("entry_to_exit_ns.p99 > 40ns", slower.clone()), Outcome::Holds);
        assert_eq!(judged("entry_to_exit_ns.p99>+10%", slower.clone()), Outcome::Fails);
        assert_eq!(judged("entry_to_exit_ns.p99>+6%", slower.clone()), Outcome::Unknown);
        assert_eq!(judged("entry_to_exit_ns.p99<-1%", slower), Outcome::Fails);
        assert_eq!(judged("entry_to_exit_ns.p99>+3%", row([1.05, 0.98, 1.12], 0.4)), Outcome::Unknown);
        assert_eq!(judged("entry_to_exit_ns.p99>+3%", row([1.00, 0.98, 1.02], 0.9)), Outcome::Fails);
        assert_eq!(judged("entry_to_exit_ns.p99<-0.03us", row([0.9, 0.88, 0.92], 0.01)), Outcome::Holds);
        assert_eq!(judged("entry_to_exit_ns.p99>-20%", row([0.95, 0.90, 0.99], 0.4)), Outcome::Holds);
        let unbounded = Row { ratio: Some(Estimate { value: 0.06, low: None, high: None }), ..row([1.0; 3], 0.9) };
        assert_eq!(judged("entry_to_exit_ns.p99>+3%", unbounded.clone()), Outcome::Unknown);
        let max = Row { stat: "max", ..unbounded };
        assert_eq!(judged("entry_to_exit_ns.max>+3%", max), Outcome::Fails);
        let none = Row { verdict: Verdict::NotEnoughData, ..row([1.05, 1.02, 1.08], 0.01) };
        assert_eq!(judged("entry_to_exit_ns.p99>+3%", none), Outcome::Unknown);
    }

    #[test]
    fn what_makes_no_condition_is_refused_with_an_example() {
        for bad in ["", "entry_to_exit_ns.p99", ">3%", "a.b>x%", "a.b>3 parsecs", "a.b>inf%", "a.b>nan"] {
            assert!(Condition::parse(bad).is_err(), "{bad}");
        }
        let refused = |text: &str, row: Row| Condition::parse(text).unwrap().judge(&[row]).unwrap_err();
        assert!(refused("entry_to_exit_ns.p99>+3%", Row { a: Some(0.0), ..row([1.0; 3], 1.0) }).contains("difference"));
        let count = Row { unit: Unit::Count, ..row([1.0; 3], 1.0) };
        assert!(refused("entry_to_exit_ns.p99>+3ms", count).contains("plain number"));
        let unknown = Condition::parse("entry_to_exit_ns.p98>+3%").unwrap().judge(&[row([1.0; 3], 1.0)]);
        assert!(unknown.unwrap_err().contains("there are: entry_to_exit_ns.p99"));
    }
}
