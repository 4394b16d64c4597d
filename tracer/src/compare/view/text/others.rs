//! The lines below the default text's table: the figures that it does not have.

use super::{Page, wording};
use crate::compare::{Comparison, Row, Verdict};

/// The figures that are not in the table, as counts.
pub(super) fn others(c: &Comparison, page: Page) -> Vec<String> {
    let of = |verdict| c.rows.iter().filter(move |r| r.verdict == verdict && r.primary.is_none());
    let others = |n: usize| wording::counted(n as u64, "other");
    let mut out = Vec::new();
    match of(Verdict::Ignored).count() {
        0 => {}
        n => out.push(format!("{}: changed by less than {}", others(n), wording::size(c.ignore_below))),
    }
    match of(Verdict::NoDetectableChange).count() {
        0 => {}
        n => out.push(format!("{}: no detectable change{}", others(n), detectable(c))),
    }
    out.extend(wording::not_tested(c));
    out.extend(wording::clear(c));
    let few: Vec<_> = of(Verdict::NotEnoughData).filter(|r| wording::has_values(r)).collect();
    if !few.is_empty() {
        let why = match few.iter().find(|r| wording::is_carried(r)) {
            Some(row) => wording::reason(row).unwrap_or_else(|| "no reason given".into()),
            None => "fewer than 10 values beyond the quantile on a side: record longer".into(),
        };
        out.push(format!("{}: not enough data: {why}", others(few.len())));
    }
    let mut out: Vec<_> = out.iter().map(|text| page.text(text)).collect();
    out.extend(unknown(c).iter().map(|text| page.line(text)));
    out
}

/// The smallest and the largest change that would have been found of figures without one; empty if that is not known.
fn detectable(c: &Comparison) -> String {
    let is_same = |r: &&Row| r.verdict == Verdict::NoDetectableChange && r.primary.is_none();
    let same = c.rows.iter().filter(is_same).filter(|r| wording::ratio(r).is_some());
    let mut shares: Vec<f64> = same.filter_map(|r| Some(r.detectable? / r.a?)).filter(|s| s.is_finite()).collect();
    shares.sort_by(f64::total_cmp);
    match shares.as_slice() {
        [] => String::new(),
        [one] => format!(" (MDE {})", wording::size(*one)),
        [least, .., most] => format!(" (MDE {} to {})", wording::size(*least), wording::size(*most)),
    }
}

/// Figures without a value, by reason: the first two by name.
pub(super) fn unknown(c: &Comparison) -> Vec<String> {
    let mut reasons: Vec<(String, Vec<String>)> = Vec::new();
    for row in c.rows.iter().filter(|r| r.a.is_none() || r.b.is_none()) {
        let why = wording::reason(row).unwrap_or_else(|| "no reason given".into());
        match reasons.iter_mut().find(|(known, _)| *known == why) {
            Some((_, titles)) => titles.push(wording::title(row)),
            None => reasons.push((why, vec![wording::title(row)])),
        }
    }
    let line = |(why, titles): (String, Vec<String>)| match titles.as_slice() {
        [first, second, rest @ ..] if !rest.is_empty() => {
            format!("{first}, {second} and {} n/a: {why}", wording::counted(rest.len() as u64, "other"))
        }
        few => format!("{} n/a: {why}", few.join(", ")),
    };
    reasons.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::fixture::comparison;

    #[test]
    fn the_third_figure_of_a_reason_is_one_other() {
        let mut c = comparison();
        c.rows.truncate(4);
        c.rows.iter_mut().for_each(|row| (row.a, row.why) = (None, Some("no hook".into())));
        let line = |c: &Comparison| unknown(c).join("");
        assert_eq!(line(&c), "guest time p50, guest time p90 and 2 others n/a: no hook");
        c.rows.truncate(3);
        assert_eq!(line(&c), "guest time p50, guest time p90 and 1 other n/a: no hook");
    }
}
