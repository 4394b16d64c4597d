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
    let is_zero = |r: &&Row| (r.a, r.b) == (Some(0.0), Some(0.0));
    let (zero, same): (Vec<_>, Vec<_>) = of(Verdict::NoDetectableChange).partition(is_zero);
    if !same.is_empty() {
        out.push(format!("{}: no detectable change", others(same.len())));
    }
    if !zero.is_empty() {
        out.push(format!("0 on both sides: {}", zero.into_iter().map(wording::title).collect::<Vec<_>>().join(", ")));
    }
    out.extend(detectable(c));
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

/// The smallest change that would have been found of each primary figure that is undecided; without primary figures, of the first figure
/// without a change. A range over all figures would be as wide as they are different.
fn detectable(c: &Comparison) -> Option<String> {
    let has_mde = |r: &&Row| r.detectable.is_some();
    let open = wording::primary(&c.rows).into_iter().filter(|r| r.verdict == Verdict::Undecided).filter(has_mde);
    let first = || c.rows.iter().filter(has_mde).find(|r| r.verdict == Verdict::NoDetectableChange);
    let has_primary = c.rows.iter().any(|r| r.primary.is_some());
    let shown: Vec<_> = if has_primary { open.collect() } else { first().into_iter().collect() };
    (!shown.is_empty()).then(|| shown.into_iter().map(wording::mde_of).collect::<Vec<_>>().join("; "))
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
    fn a_figure_that_is_zero_on_both_sides_is_not_one_without_a_detectable_change() {
        let mut c = comparison();
        c.rows.truncate(2);
        c.rows.iter_mut().for_each(|row| (row.verdict, row.primary) = (Verdict::NoDetectableChange, None));
        (c.rows[0].a, c.rows[0].b) = (Some(0.0), Some(0.0));
        (c.rows[1].a, c.rows[1].b) = (Some(5.0), Some(5.0));
        let text = others(&c, Page { width: 100, cuts: false }).concat();
        assert!(
            text.contains("0 on both sides: guest time p50\n") && text.contains("1 other: no detectable change"),
            "{text}"
        );
    }

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
