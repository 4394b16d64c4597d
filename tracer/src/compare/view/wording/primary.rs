//! Primary figures in words: their order, when they were decided, and what an undecided one keeps from being tested.

use super::{
    answer::{has_values, largest_first, with_interval},
    names::{reason, title},
    numbers::{interval, percent, ratio, signed, size},
};
use crate::compare::{Comparison, Row, Verdict};

/// Primary rows, in their order.
pub(crate) fn primary(rows: &[Row]) -> Vec<&Row> {
    let mut primary: Vec<_> = rows.iter().filter(|r| r.primary.is_some()).collect();
    primary.sort_by_key(|r| r.primary);
    primary
}

/// The undecided primary figure behind which nothing was tested; none if the gate is open.
pub(crate) fn gate(c: &Comparison) -> Option<&Row> {
    primary(&c.rows).into_iter().find(|r| r.p_holm.is_some_and(|p| p > c.alpha))
}

/// Rows that were not tested because of the gate.
fn untested(c: &Comparison) -> impl Iterator<Item = &Row> {
    c.rows.iter().filter(|r| r.verdict == Verdict::NotTested)
}

/// p of a row that was not tested, as if it had been: a primary figure's own, as it has the full level, and the adjusted one of others.
fn own_p(row: &Row) -> Option<f64> {
    if row.primary.is_some() { row.p } else { row.p_holm }
}

/// "P1 " of the first primary figure; none for others.
pub(crate) fn place_mark(row: &Row) -> Option<String> {
    row.primary.map(|place| format!("P{} ", place + 1))
}

/// The primary figures with their marks and the rounds that they took; none if there are none.
pub(crate) fn plan(c: &Comparison) -> Option<String> {
    let of = |row: &&Row| {
        let decided = decided(row).map(|after| format!(" (decided {after})")).unwrap_or_default();
        format!("{}{}{decided}", place_mark(row).unwrap_or_default(), title(row))
    };
    let named: Vec<_> = primary(&c.rows).iter().map(of).collect();
    (!named.is_empty())
        .then(|| format!("primary figures, named before the data and tested in this order: {}", named.join(", ")))
}

/// The meaning of the adjusted p, for the legend of a table.
pub(crate) fn adjusted(c: &Comparison, column: &str) -> String {
    let test = if c.unit == "round" { "p of the test of rounds" } else { "p of the permutation test" };
    if c.rows.iter().all(|r| r.primary.is_none()) {
        return format!("{column}: {test}, adjusted for all figures (Holm)");
    }
    format!("{column}: {test}, of primary figures the highest up to it, of others adjusted for all of these (Holm)")
}

/// "after 7 rounds" of a primary figure that changed; none for others.
pub(crate) fn decided(row: &Row) -> Option<String> {
    let after =
        row.decided_after.filter(|_| matches!(row.verdict, Verdict::Better | Verdict::Worse | Verdict::Changed))?;
    Some(format!("after {after} {}", if after == 1 { "round" } else { "rounds" }))
}

/// "12 others: not tested, because the primary guest time p50 is undecided"; none if the gate is open.
pub(crate) fn not_tested(c: &Comparison) -> Option<String> {
    let (gate, n) = (gate(c)?, untested(c).count());
    let others = if n == 1 { "1 other".to_owned() } else { format!("{n} others") };
    let why = match gate.verdict {
        Verdict::Ignored => format!("has changed by less than {}, if at all", size(c.ignore_below)),
        _ => "is undecided".to_owned(),
    };
    (n > 0).then(|| format!("{others}: not tested, because the primary {} {why}", title(gate)))
}

/// The rows that were not tested although their own p, corrected as if they had been, is low enough: the largest, and how many more.
pub(crate) fn clear(c: &Comparison) -> Option<String> {
    let clear = largest_first(untested(c).filter(|r| own_p(r).is_some_and(|p| p <= c.alpha)));
    let (first, more) = clear.split_first()?;
    let more = if more.is_empty() { String::new() } else { format!(", and {} more", more.len()) };
    Some(format!("clear by themselves, but outside of the plan: {}{more}", with_interval(first)))
}

/// The primary figure behind which nothing was tested, and its interval: "the primary guest time p50 is undecided: still between -2.1% and
/// +3.0%".
pub(super) fn undecided(c: &Comparison, gate: &Row) -> String {
    let what = match gate.verdict {
        Verdict::Ignored => format!("no change of {} or more in the primary {}", size(c.ignore_below), title(gate)),
        Verdict::NotEnoughData => format!("not enough data for the primary {}", title(gate)),
        _ => format!("the primary {} is undecided", title(gate)),
    };
    let (estimate, is_ratio) = match ratio(gate) {
        Some(ratio) => (Some(ratio), true),
        None => (gate.difference, false),
    };
    let text = |bound: f64| if is_ratio { percent(bound - 1.0) } else { signed(bound, gate.unit) };
    let bounds = estimate.and_then(|e| Some((text(e.low?), text(e.high?))));
    let possible = match bounds {
        Some((low, high)) if gate.verdict == Verdict::Ignored => format!(": between {low} and {high}"),
        Some((low, high)) if gate.verdict != Verdict::NotEnoughData => format!(": still between {low} and {high}"),
        _ => reason(gate).map(|why| format!(" ({why})")).unwrap_or_default(),
    };
    what + &possible
}

/// Why rows of a table have no interval or no verdict, one line for each reason.
pub(crate) fn refusals(rows: &[&Row]) -> Vec<String> {
    let is_refused = |r: &&&Row| has_values(r) && (interval(r) == "n/a" || r.verdict == Verdict::NotEnoughData);
    let mut reasons: Vec<(String, Vec<String>)> = Vec::new();
    for row in rows.iter().filter(is_refused) {
        let Some(why) = reason(row) else { continue };
        match reasons.iter_mut().find(|(known, _)| *known == why) {
            Some((_, titles)) => titles.push(title(row)),
            None => reasons.push((why, vec![title(row)])),
        }
    }
    reasons.into_iter().map(|(why, titles)| format!("{}: {why}", titles.join(", "))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{
        fixture::{comparison, gated, setting},
        wording::summary,
    };

    #[test]
    fn the_gate_is_the_first_undecided_primary_figure() {
        let c = gated();
        let titles: Vec<_> = primary(&c.rows).into_iter().map(title).collect();
        assert_eq!(titles, ["pin writes per entry", "guest time p50", "host time p50"]);
        assert_eq!(gate(&c).map(title).as_deref(), Some("guest time p50"));
        assert_eq!((gate(&comparison()), not_tested(&comparison()), clear(&comparison())), (None, None, None));
    }

    #[test]
    fn what_is_not_tested_is_counted_and_what_is_clear_all_the_same_is_named() {
        let mut c = gated();
        let n = c.rows.iter().filter(|r| r.verdict == Verdict::NotTested).count();
        assert_eq!(
            not_tested(&c).unwrap(),
            format!("{n} others: not tested, because the primary guest time p50 is undecided")
        );
        assert_eq!(
            clear(&c).unwrap(),
            "clear by themselves, but outside of the plan: guest time p99 +17.8% [+13.7, +21.9]%, and 1 more"
        );
        // The adjusted p of a primary figure is never below the gate's; its own counts.
        let host = c.rows.iter().position(|r| title(r) == "host time p50").unwrap();
        c.rows[host].p = Some(0.001);
        assert_eq!(own_p(&c.rows[host]), Some(0.001));
        assert!(clear(&c).unwrap().ends_with(", and 2 more"));
        c.rows
            .iter_mut()
            .filter(|r| r.verdict == Verdict::NotTested)
            .for_each(|r| (r.p, r.p_holm) = (Some(0.4), Some(1.0)));
        assert_eq!(clear(&c), None);
    }

    #[test]
    fn the_summary_says_what_is_still_possible() {
        let mut c = gated();
        let text = summary(&c, &setting());
        assert!(
            text.starts_with(
                "B (hard) is WORSE: primary pin writes per entry +0.410 [+0.390, +0.430] (decided after 7 rounds); the primary \
                 guest time p50 is undecided: still between -2.1% and +3.0%; "
            ),
            "{text}"
        );
        let pins = c.rows.iter().position(|r| r.figure == "pin_writes").unwrap();
        c.rows.remove(pins);
        let text = summary(&c, &setting());
        let expected = "the primary guest time p50 is undecided: still between -2.1% and +3.0%; ";
        assert!(text.starts_with(expected) && text.contains(" others not tested"), "{text}");
        let mut small = c.clone();
        small.ignore_below = 0.05;
        small.rows.iter_mut().filter(|r| title(r) == "guest time p50").for_each(|r| r.verdict = Verdict::Ignored);
        let text = summary(&small, &setting());
        let expected = "no change of 5.0% or more in the primary guest time p50: between -2.1% and +3.0%; ";
        assert!(text.starts_with(expected), "{text}");
        let p50 = c.rows.iter().position(|r| title(r) == "guest time p50").unwrap();
        (c.rows[p50].ratio, c.rows[p50].difference) = (None, None);
        c.rows[p50].why = Some("no interval: the rounds agree on no common change".into());
        let text = summary(&c, &setting());
        assert!(text.contains("p50 is undecided (no interval: the rounds agree on no common change); "), "{text}");
        c.rows[p50].verdict = Verdict::NotEnoughData;
        c.rows.push(Row { primary: None, ..gated().rows.iter().find(|r| r.figure == "pin_writes").unwrap().clone() });
        let text = summary(&c, &setting());
        assert!(text.contains("; not enough data for the primary guest time p50 ("), "{text}");
        (c.rows[p50].verdict, c.ignore_below) = (Verdict::Ignored, 0.05);
        let text = summary(&c, &setting());
        assert!(text.contains("; no change of 5.0% or more in the primary guest time p50"), "{text}");
        assert!(
            not_tested(&c).unwrap().ends_with("the primary guest time p50 has changed by less than 5.0%, if at all")
        );
    }

    #[test]
    fn a_refusal_is_said_once_in_short() {
        let mut c = comparison();
        for at in [0, 1] {
            c.rows[at].ratio = None;
            c.rows[at].difference = None;
            c.rows[at].why = Some("7 of A and 7 of B give no p below 0.01563; 17 figures at once need 0.00294".into());
        }
        let rows: Vec<_> = c.rows.iter().collect();
        assert_eq!(
            refusals(&rows),
            ["guest time p50, guest time p90: 7 of A and 7 of B are too few for 17 figures at once"]
        );
    }
}
