//! The answer of a comparison: the headline, and where its parts contradict each other.

use super::{
    lack::lack,
    names::{side, title},
    numbers::{change, interval, mde_of, ratio, size},
    primary::{decided, gate, undecided},
    sides::is_emulated,
};
use crate::{
    compare::{Comparison, Row, Setting, Verdict},
    model::figures::Unit,
};

/// Whether there were enough data for a verdict, and a test.
pub(super) const fn is_judged(row: &Row) -> bool {
    !matches!(row.verdict, Verdict::NotEnoughData | Verdict::NotTested)
}

/// Whether both sides have a value, so that more data could give a verdict.
pub(crate) const fn has_values(row: &Row) -> bool {
    row.a.is_some() && row.b.is_some()
}

/// Whether a row has changed: significantly, and by enough.
pub(crate) const fn is_change(row: &Row) -> bool {
    matches!(row.verdict, Verdict::Better | Verdict::Worse | Verdict::Changed)
}

/// Whether the comparison has a verdict on any figure that was tested. Figures that have the same value in every unit (0/s against
/// 0/s) are not tested, and say nothing about the others.
pub(crate) fn is_conclusive(c: &Comparison) -> bool {
    let has_unjudged = c.rows.iter().any(|r| !is_judged(r) && has_values(r));
    let is_tested = || c.rows.iter().any(|r| is_judged(r) && r.p.is_some());
    c.rows.iter().any(is_judged) && (!has_unjudged || is_tested())
}

/// The answer, in one sentence.
pub(crate) fn summary(c: &Comparison, setting: &Setting) -> String {
    let emulated = if is_emulated(setting) { " (EMULATED)" } else { "" };
    let answer = if is_conclusive(c) { conclusion(c, setting) } else { not_enough(c, setting) };
    answer + emulated
}

fn conclusion(c: &Comparison, setting: &Setting) -> String {
    let conclusive = count_figures(c.rows.iter().filter(|r| is_judged(r)).count());
    let of = |verdict| largest_first(c.rows.iter().filter(|r| r.verdict == verdict));
    let [worse, better, changed] = [Verdict::Worse, Verdict::Better, Verdict::Changed].map(of);
    let (a, b) = (side(0, setting), side(1, setting));
    let significant = worse.len() + better.len() + changed.len();
    let ignored = match of(Verdict::Ignored).len() {
        0 => String::new(),
        n => format!(", {n} more by less than {}", size(c.ignore_below)),
    };
    let untested = match c.rows.iter().filter(|r| r.verdict == Verdict::NotTested).count() {
        0 => String::new(),
        1 => "; 1 other not tested".to_owned(),
        n => format!("; {n} others not tested"),
    };
    let of_all = format!("{significant} of {conclusive} changed significantly{ignored}{untested}");
    // Where more is said of primary figures, what has changed without being better or worse is said, too.
    let planned: Vec<_> = changed.iter().copied().filter(|r| r.primary.is_some()).collect();
    let also = if planned.is_empty() { String::new() } else { format!(", changed in {}", top_two(&planned)) };
    let gate = gate(c).map(|gate| undecided(c, gate));
    let open = gate.as_ref().map(|text| format!("; {text}")).unwrap_or_default();
    match (worse.is_empty(), better.is_empty()) {
        (false, true) => format!("{b} is WORSE: {}{also}{open}; {of_all}", top_two(&worse)),
        (true, false) => format!("{b} is better: {}{also}{open}; {of_all}", top_two(&better)),
        (false, false) => {
            format!("{b} is WORSE in {}, better in {}{also}{open}; {of_all}", top_two(&worse), top_two(&better))
        }
        (true, true) if significant > 0 => {
            format!("{b} differs from {a}, but is neither better nor worse: {}{open}; {of_all}", top_two(&changed))
        }
        (true, true) if gate.is_some() => format!("{}{untested}", gate.unwrap_or_default()),
        (true, true) if !ignored.is_empty() => {
            format!("no change of {} or more from {a} to {b}; {of_all}", size(c.ignore_below))
        }
        (true, true) => {
            let has_mde = |r: &&Row| is_judged(r) && r.detectable.is_some() && r.a.is_some_and(|a| a > 0.0);
            let first = c.rows.iter().find(has_mde);
            let mde = first.map(|r| format!(" ({})", mde_of(r))).unwrap_or_default();
            let more = match c.rows.iter().filter(|r| r.verdict == Verdict::NotEnoughData && has_values(r)).count() {
                0 => String::new(),
                unjudged => format!("; not enough data for {unjudged} more"),
            };
            format!("no detectable change from {a} to {b} in any of {conclusive}{mde}{more}")
        }
    }
}

fn count_figures(n: usize) -> String {
    if n == 1 { "1 figure".into() } else { format!("{n} figures") }
}

/// A row's change with its interval.
pub(super) fn with_interval(row: &Row) -> String {
    let interval = Some(interval(row)).filter(|i| i != "n/a").map(|i| format!(" {i}")).unwrap_or_default();
    format!("{} {}{interval}", title(row), change(row))
}

fn top_two(rows: &[&Row]) -> String {
    let text = |row: &&Row| {
        let primary = if row.primary.is_some() { "primary " } else { "" };
        let decided = decided(row).map(|after| format!(" (decided {after})")).unwrap_or_default();
        format!("{primary}{}{decided}", with_interval(row))
    };
    let first = rows.iter().take(2).map(text).collect::<Vec<_>>().join(", ");
    match rows.len().saturating_sub(2) {
        0 => first,
        more => format!("{first}, and {more} more"),
    }
}

/// Primary rows in their order, then the others by the size of their change, largest first: the ratio in either direction, which is largest of all where A or B is about
/// 0; of shares the difference, as the whole time grows or shrinks by it. Maxima, which are single values, and rows whose interval contradicts the test come last. Equal ones stay in order.
pub(crate) fn largest_first<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<&'a Row> {
    let size = |row: &Row| match row.unit {
        Unit::Share => row.difference.map_or(0.0, |d| d.value.abs().ln_1p()),
        _ => ratio(row).map_or(f64::INFINITY, |r| r.value.ln().abs()),
    };
    let is_doubtful = |row: &Row| row.stat == "max" || contradiction(row).is_some();
    let mut rows: Vec<_> = rows.collect();
    rows.sort_by(|a, b| {
        let place = |row: &Row| (row.primary.is_none(), row.primary);
        place(a).cmp(&place(b)).then(is_doubtful(a).cmp(&is_doubtful(b))).then(size(b).total_cmp(&size(a)))
    });
    rows
}

/// Footnote mark of a verdict that has a [`contradiction`]; empty for others.
pub(crate) fn contradiction_mark(row: &Row) -> &'static str {
    if contradiction(row).is_some() { "*" } else { "" }
}

/// Reason why a significant change and its interval contradict each other; none if they agree, or if there is no interval.
pub(crate) fn contradiction(row: &Row) -> Option<&'static str> {
    let (estimate, no_change) = match ratio(row) {
        Some(ratio) => (ratio, 1.0),
        None => (row.difference?, 0.0),
    };
    let includes_none = estimate.low? <= no_change && no_change <= estimate.high?;
    (is_change(row) && includes_none).then_some(
        "the test finds a change, but the 95% CI includes no change: the value differs much between the units, so that size and sign \
         are uncertain",
    )
}

fn not_enough(c: &Comparison, setting: &Setting) -> String {
    format!("NOT ENOUGH DATA to compare {} with {}: {}", side(1, setting), side(0, setting), lack(c))
}

/// Pairs of a raw and a stratified row that contradict each other: both are judged, and differently.
pub(crate) fn contradicting(c: &Comparison) -> Vec<(&Row, &Row)> {
    let pairs = c.stratified.iter().filter_map(|s| {
        let raw = c.rows.iter().find(|r| (r.figure, r.stat) == (s.figure, s.stat))?;
        (is_judged(raw) && is_judged(s) && raw.verdict != s.verdict).then_some((raw, s))
    });
    pairs.collect()
}

/// Whether the exit mixes differ by enough to be shown.
pub(crate) fn mix_differs(c: &Comparison) -> bool {
    c.mix.distance > 0.01 || c.mix.p.is_some_and(|p| p <= c.alpha)
}

/// Share of a side's entries that `entries` are; none without entries.
pub(crate) fn share(c: &Comparison, entries: u64, side: usize) -> Option<f64> {
    let all: u64 = c.mix.rows.iter().map(|r| r.entries[side]).sum();
    (all > 0).then(|| entries as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{
        Estimate,
        fixture::{comparison, setting},
        wording::name,
    };

    #[test]
    fn the_summary_names_the_worst_rows_and_counts_the_significant_ones() {
        let text = summary(&comparison(), &setting());
        assert!(text.starts_with("B (hard) is WORSE in "), "{text}");
        assert!(text.contains("pin writes per entry +0.41"), "{text}");
        assert!(text.ends_with(" changed significantly (EMULATED)"), "{text}");
        let mut none = comparison();
        none.rows.iter_mut().for_each(|r| r.verdict = Verdict::NoDetectableChange);
        assert!(summary(&none, &setting()).starts_with("no detectable change from A (soft) to B (hard)"));
        none.rows.iter_mut().for_each(|r| r.verdict = Verdict::NotEnoughData);
        assert!(summary(&none, &setting()).starts_with("NOT ENOUGH DATA"));
    }

    /// Every judged row as worse, with a ratio to A, or a difference from 0.
    fn all_worse(change: impl Fn(&str) -> Option<[f64; 3]>) -> Comparison {
        let mut c = comparison();
        for row in c.rows.iter_mut().filter(|r| is_judged(r)) {
            row.verdict = Verdict::Worse;
            if let Some([value, low, high]) = change(&title(row)) {
                row.ratio = Some(Estimate { value, low: Some(low), high: Some(high) });
            }
        }
        c
    }

    #[test]
    fn the_summary_names_the_largest_changes_and_not_the_surest() {
        let c = all_worse(|title| match title {
            "host time p99" => Some([1.96, 1.5, 2.4]),
            "guest time p90" => Some([0.4, 0.3, 0.5]),
            _ => Some([1.01, 1.005, 1.015]),
        });
        let text = summary(&c, &setting());
        // A has no pin-control writes: no ratio is larger. 0.4 is a larger change than 1.96.
        assert!(
            text.starts_with("B (hard) is WORSE: pin writes per entry +0.410 [+0.390, +0.430], guest time p90 -60.0% [-70.0, -50.0]%, and"),
            "{text}"
        );
        let mut c = c;
        c.rows.retain(|r| r.figure != "pin_writes" && r.stat != "p90");
        let text = summary(&c, &setting());
        assert!(text.starts_with("B (hard) is WORSE: host time p99 +96.0% [+50.0, +140]%, "), "{text}");
    }

    #[test]
    fn a_small_share_that_grows_tenfold_is_no_large_change() {
        let mut c = all_worse(|_| Some([1.2, 1.1, 1.3]));
        c.rows.retain(|r| r.figure != "pin_writes");
        let of = |value| Some(Estimate { value, low: Some(value - 0.001), high: Some(value + 0.001) });
        let host = c.rows.iter().find(|r| title(r) == "host time p99").unwrap().clone();
        let share = |figure, difference, ratio| Row {
            figure,
            stat: "share",
            unit: Unit::Share,
            difference: of(difference),
            ratio: of(ratio),
            ..host.clone()
        };
        c.rows.extend([share("time.steal", 0.009, 10.0), share("time.user", 0.3, 1.5)]);
        let sorted = largest_first(c.rows.iter().filter(|r| is_change(r)));
        assert_eq!(title(sorted[0]), "user time share");
        assert_eq!(title(sorted.last().unwrap()), "steal time share");
    }

    #[test]
    fn a_change_whose_interval_includes_none_is_marked_and_named_last() {
        let c = all_worse(|title| Some(if title == "host time p99" { [1.5, 0.6, 2.3] } else { [1.01, 1.005, 1.015] }));
        let contradicted: Vec<_> = c.rows.iter().filter(|r| contradiction(r).is_some()).map(title).collect();
        assert_eq!(contradicted, ["host time p99"]);
        let sorted = largest_first(c.rows.iter().filter(|r| is_change(r)));
        assert_eq!(title(sorted.last().unwrap()), "host time p99");
        // Without an interval, nothing contradicts the test; nor does an interval without a finding.
        let row = *sorted.last().unwrap();
        let unsure = Estimate { value: 1.5, low: None, high: Some(2.3) };
        assert!(contradiction(&Row { ratio: Some(unsure), ..row.clone() }).is_none());
        assert!(contradiction(&Row { verdict: Verdict::NoDetectableChange, ..row.clone() }).is_none());
    }

    #[test]
    fn changes_that_are_ignored_are_counted_and_not_named() {
        let mut c = comparison();
        c.ignore_below = 0.005;
        c.rows
            .iter_mut()
            .filter(|r| is_change(r) && r.figure != "pin_writes")
            .for_each(|r| r.verdict = Verdict::Ignored);
        let text = summary(&c, &setting());
        let figures = c.rows.iter().filter(|r| is_judged(r)).count();
        let expected = format!(
            "B (hard) is WORSE: pin writes per entry +0.410 [+0.390, +0.430]; 1 of {figures} figures changed significantly, 3 more by less \
             than 0.50% (EMULATED)"
        );
        assert_eq!(text, expected);
        c.rows.iter_mut().filter(|r| is_change(r)).for_each(|r| r.verdict = Verdict::Ignored);
        assert!(summary(&c, &setting()).starts_with("no change of 0.50% or more from A (soft) to B (hard); 0 of"));
    }

    #[test]
    fn the_summary_rests_on_judged_figures_only() {
        let mut few = comparison();
        few.rows.iter_mut().for_each(|r| r.verdict = Verdict::NotEnoughData);
        let at = few.rows.iter().position(|r| r.figure == "timer_exits.spurious").unwrap();
        let same = Row {
            a: Some(0.0),
            b: Some(0.0),
            p: None,
            p_holm: None,
            verdict: Verdict::NoDetectableChange,
            ..few.rows[at].clone()
        };
        few.rows[at] = same;
        let text = summary(&few, &setting());
        assert!(text.starts_with("NOT ENOUGH DATA"), "0/s against 0/s says nothing about the others: {text}");
        let judged = few.rows.iter().position(|r| name(r) == "entry_to_exit_ns.p99").unwrap();
        few.rows[judged] = Row {
            p: Some(0.9),
            detectable: Some(5.0),
            verdict: Verdict::NoDetectableChange,
            ..few.rows[judged].clone()
        };
        let text = summary(&few, &setting());
        let mde = format!("in any of 2 figures (MDE of {}: ", title(&few.rows[judged]));
        assert!(text.contains(&mde) && text.contains("; not enough data for "), "{text}");
    }

    #[test]
    fn only_rows_that_are_judged_differently_contradict_each_other() {
        let mut c = comparison();
        let names = |c: &Comparison| contradicting(c).iter().map(|(raw, _)| name(raw)).collect::<Vec<_>>();
        assert_eq!(names(&c), ["entry_to_exit_ns.p99"], "WORSE raw, and not with one mix");
        // Worse by another amount, and not enough data on one way of looking at it.
        c.stratified[2] = Row { ratio: Some(Estimate { value: 1.5, low: None, high: None }), ..c.rows[2].clone() };
        c.stratified[0].verdict = Verdict::NotEnoughData;
        assert!(c.rows[4].verdict == Verdict::NotEnoughData && c.stratified[4].verdict == Verdict::NotEnoughData);
        c.stratified[4].verdict = Verdict::Worse;
        assert_eq!(names(&c), [""; 0]);
    }
}
