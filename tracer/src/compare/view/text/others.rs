//! The lines below the default text's table: the figures that it does not have.

use super::wording;
use crate::{
    compare::{Comparison, Row, Verdict},
    html::chart::shortened,
    output::wrap,
};

/// The figures that are not in the table, as counts.
pub(super) fn others(c: &Comparison, width: usize) -> Vec<String> {
    let of = |verdict| c.rows.iter().filter(move |r| r.verdict == verdict && r.primary.is_none());
    let others = |n: usize| if n == 1 { "1 other".to_owned() } else { format!("{n} others") };
    let mut out = Vec::new();
    match of(Verdict::Ignored).count() {
        0 => {}
        n => out.push(format!("{}: changed by less than {}", others(n), wording::size(c.ignore_below))),
    }
    match of(Verdict::NoDetectableChange).count() {
        0 => {}
        n => out.push(format!("{}: no detectable change", others(n))),
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
    let mut out: Vec<_> = out.iter().map(|text| wrap(text, "  ", width)).collect();
    out.extend(unknown(c).iter().map(|text| shortened(text, width) + "\n"));
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
        [first, second, _, ..] => format!("{first}, {second} and {} others n/a: {why}", titles.len() - 2),
        few => format!("{} n/a: {why}", few.join(", ")),
    };
    reasons.into_iter().map(line).collect()
}
