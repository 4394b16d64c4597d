//! The names in a comparison: of figures, sides, exits and verdicts.

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
        Verdict::NotTested => "not tested",
        Verdict::NotEnoughData => "?",
    }
}

/// A verdict in full.
pub(crate) const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::NoDetectableChange => "no detectable change",
        Verdict::NotEnoughData => "not enough data",
        Verdict::Better | Verdict::Worse | Verdict::Changed | Verdict::Ignored | Verdict::NotTested => word(verdict),
    }
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

/// Rows without a verdict or without an interval, by reason: "not enough data: guest time p99.9: fewer than ...".
pub(crate) fn footnotes(rows: &[&Row]) -> Vec<String> {
    let mut reasons: Vec<(bool, &str, Vec<String>)> = Vec::new();
    for row in rows {
        let is_judged = row.verdict != Verdict::NotEnoughData;
        // What is not known will not be known with more data.
        let judged = is_judged || row.a.is_none() && row.b.is_none();
        if is_judged && row.difference.is_none_or(|d| d.low.is_some()) {
            continue;
        }
        let why = row.why.as_deref().unwrap_or("no reason given");
        match reasons.iter_mut().find(|(j, w, _)| (*j, *w) == (judged, why)) {
            Some((_, _, names)) => names.push(title(row)),
            None => reasons.push((judged, why, vec![title(row)])),
        }
    }
    let line = |(judged, why, names): (bool, &str, Vec<String>)| {
        let result = if judged { "n/a" } else { "not enough data" };
        format!("{result}: {}: {why}", names.join(", "))
    };
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
}
