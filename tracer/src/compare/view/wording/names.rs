//! The names in a comparison: of figures, sides, exits and verdicts.

use super::{answer::contradiction_mark, primary::decided};
use crate::{
    compare::{Row, Setting, Stratum, Verdict},
    model::{
        exit_reasons,
        figures::{Figure, Unit},
    },
};

/// "entry_to_exit_ns.p99", as `--fail-if` takes it.
pub(crate) fn name(row: &Row) -> String {
    format!("{}.{}", row.figure, row.stat)
}

/// The same for people: "guest time p99", "pin writes per entry", "spurious timer exits/s", "steal time share".
pub(crate) fn title(row: &Row) -> String {
    title_of(row.figure, row.stat, row.unit)
}

/// The title of "entry_to_exit_ns.p99".
pub(crate) fn title_of_name(name: &str, unit: Unit) -> String {
    let (figure, stat) = name.rsplit_once('.').unwrap_or((name, ""));
    title_of(figure, stat, unit)
}

/// The same of a figure's statistic.
pub(crate) fn title_of(figure_name: &str, stat: &str, unit: Unit) -> String {
    let shown = if stat == "p999" { "p99.9" } else { stat };
    match (Figure::parse(figure_name), figure_name.split_once('.')) {
        (Some(figure), _) if figure.unit() == Unit::Count && stat == "mean" => format!("{} per entry", figure.title()),
        (Some(figure), _) => format!("{} {shown}", figure.title()),
        (None, Some(("timer_exits", cause))) => format!("{cause} timer exits/s"),
        (None, Some((_, part))) if unit == Unit::Share => format!("{part} time share"),
        (None, _) if unit == Unit::PerSecond => format!("{figure_name}/s"),
        (None, _) => format!("{figure_name}.{stat}"),
    }
}

/// A verdict in one word, for narrow tables.
pub(crate) const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "better",
        Verdict::Worse => "WORSE",
        Verdict::Changed => "changed",
        Verdict::Ignored => "ignored",
        Verdict::NoDetectableChange => "~",
        Verdict::Undecided => "open",
        Verdict::NotTested => "untested",
        Verdict::NotEnoughData => "?",
    }
}

/// A verdict in full.
pub(crate) const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::NoDetectableChange => "no detectable change",
        Verdict::NotEnoughData => "not enough data",
        Verdict::Undecided => "undecided",
        Verdict::NotTested => "not tested",
        Verdict::Better | Verdict::Worse | Verdict::Changed | Verdict::Ignored => word(verdict),
    }
}

/// The verdict on a row in full, with the rounds that a primary figure took, and a mark if its interval contradicts it.
pub(crate) fn verdict_of(row: &Row) -> String {
    let decided = decided(row).map(|after| format!(" {after}")).unwrap_or_default();
    format!("{}{decided}{}", verdict(row.verdict), contradiction_mark(row))
}

/// Reason why a row has no interval, no test or no verdict, in few words; none if it has all of them.
pub(crate) fn reason(row: &Row) -> Option<String> {
    let parts: Vec<&str> = row.why.as_deref()?.split("; ").collect();
    let needs_more = parts.iter().any(|part| part.ends_with(" are needed"));
    let mut short: Vec<String> = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        let next = parts.get(at + 1).and_then(|next| next.split_once(" need "));
        let before = at.checked_sub(1).and_then(|before| parts.get(before));
        if let (Some((units, _)), Some((figures, _))) = (part.split_once(" give no p below "), next) {
            short.push(format!("{units} are too few for {figures}"));
        } else if before.is_some_and(|before| before.contains(" give no p below "))
            // The difference is shown instead of a ratio.
            || *part == "no ratio to 0"
            || part.starts_with("no MDE from ")
            || needs_more && part.starts_with("no interval from fewer than ")
        {
        } else if part.starts_with("a maximum has ") {
            short.push(part.split(": ").next().unwrap_or(part).to_owned());
        } else if let (true, Some((same, _))) = (part.ends_with(": nothing to test"), part.split_once(" (")) {
            short.push(same.to_owned());
        } else {
            short.push((*part).to_owned());
        }
    }
    Some(if short.is_empty() { parts.join("; ") } else { short.join("; ") })
}

/// "B (hard)".
pub(crate) fn side(side: usize, setting: &Setting) -> String {
    format!("{} ({})", ["A", "B"][side], setting.names[side])
}

/// "L1 PREEMPTION_TIMER (spurious)".
pub(crate) fn exit_reason(stratum: &Stratum) -> String {
    let reason = stratum.reason.map_or("reason n/a".into(), |r| exit_reasons::name(stratum.isa, r).into_owned());
    let cause = stratum.cause.map(|c| format!(" ({})", c.name())).unwrap_or_default();
    match stratum.level.name() {
        "unknown" => format!("{reason}{cause}"),
        level => format!("{level} {reason}{cause}"),
    }
}

/// Rows without a verdict or without an interval, or with an exact test, by reason: "not enough data: guest time p99.9: fewer than ...".
pub(crate) fn footnotes(rows: &[&Row]) -> Vec<String> {
    const EXACT: &str = "exact test";
    let mut reasons: Vec<(&str, String, Vec<String>)> = Vec::new();
    for row in rows {
        let is_judged = row.verdict != Verdict::NotEnoughData;
        let mut why = reason(row).unwrap_or_else(|| "no reason given".to_owned());
        let exact = why.split("; ").find_map(|part| part.strip_prefix("exact test: ")).map(str::to_owned);
        let result = match (exact, is_judged) {
            (Some(counts), true) => {
                why = counts;
                EXACT
            }
            (_, true) if row.difference.is_none_or(|d| d.low.is_some()) => continue,
            // What is not known will not be known with more data.
            (_, false) if row.a.is_some() || row.b.is_some() => "not enough data",
            _ => "n/a",
        };
        match reasons.iter_mut().find(|(r, w, _)| (*r, w) == (result, &why)) {
            Some((_, _, names)) => names.push(title(row)),
            None => reasons.push((result, why, vec![title(row)])),
        }
    }
    let line = |(result, why, names): (&str, String, Vec<String>)| format!("{result}: {}: {why}", names.join(", "));
    reasons.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::fixture::comparison;

    #[test]
    fn figures_have_the_words_of_reports() {
        let titles: Vec<_> = comparison().rows.iter().map(title).collect();
        for expected in
            ["guest time p99.9", "host time p50", "pin writes per entry", "spurious timer exits/s", "entries/s"]
        {
            assert!(titles.iter().any(|t| t == expected), "{expected}: {titles:?}");
        }
        assert_eq!(name(&comparison().rows[3]), "entry_to_exit_ns.p999");
    }

    fn why(text: &str) -> Row {
        Row { why: Some(text.into()), ..comparison().rows[0].clone() }
    }

    #[test]
    fn reasons_are_short() {
        for (long, short) in [
            ("a maximum has no valid interval: resampling never goes beyond it", "a maximum has no valid interval"),
            (
                "7 of A and 7 of B give no p below 0.01563; 17 figures at once need 0.00294",
                "7 of A and 7 of B are too few for 17 figures at once",
            ),
            (
                "no interval from fewer than 6 rounds of a side; no ratio to 0; 5 rounds of a side; 6 are needed",
                "5 rounds of a side; 6 are needed",
            ),
            ("no ratio to 0; the same in all rounds (7 of A, 7 of B): nothing to test", "the same in all rounds"),
            ("no ratio to 0; no MDE from rounds that agree", "no ratio to 0; no MDE from rounds that agree"),
            ("not known of A: no hook; of B: no field", "not known of A: no hook; of B: no field"),
        ] {
            assert_eq!(reason(&why(long)).as_deref(), Some(short));
        }
        assert_eq!(reason(&comparison().rows[0]), None);
    }

    #[test]
    fn an_exact_test_has_a_footnote_with_its_counts() {
        let row = why("no ratio to 0; exact test: 0 events of A, 2,420 events of B, of which 10 count as one");
        let note = "exact test: guest time p50: 0 events of A, 2,420 events of B, of which 10 count as one";
        assert_eq!(footnotes(&[&row]), [note]);
    }
}
