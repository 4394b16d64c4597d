//! Verdicts: the rows of all figures, judged together.

use super::{design::Design, measure::Draft, permutation, resample::MIN_UNITS, student};
use crate::{
    compare::{
        comparison::{Better, Row, Verdict},
        windows::Options,
    },
    model::figures::Unit,
};

/// Power of the minimum detectable effect.
const POWER: f64 = 0.8;

/// Number of figures tested at once: those whose values allow a test. Figures with the same value in every unit are not tested.
pub(crate) fn family(rows: &[Row]) -> usize {
    rows.iter().filter(|r| r.p.is_some()).count()
}

/// The highest p that passes Holm's first step: a multiple of the lowest possible p, if that is low enough.
pub fn first_step(rows: &[Row], alpha: f64, least_p: f64) -> f64 {
    let level = alpha / family(rows).max(1) as f64;
    if level < least_p { level } else { (level / least_p + 1e-9).floor() * least_p }
}

/// Judges all rows together: adjusted p, minimum detectable effects, verdicts.
pub(crate) fn judge(drafts: Vec<Draft>, design: Design, options: &Options) -> Vec<Row> {
    let rows: Vec<Row> = drafts.iter().map(|d| d.row.clone()).collect();
    let p: Vec<f64> = rows.iter().filter_map(|r| r.p).collect();
    let mut adjusted = permutation::holm(&p).into_iter();
    let least = design.least_p(options.permutations);
    let level = first_step(&rows, options.alpha, least);
    let (alpha, ignore_below) = (options.alpha, options.ignore_below);
    let mut judge = Judge { design, alpha, ignore_below, least, level, last: None };
    let judged = drafts.into_iter().map(|draft| match draft.row.p {
        Some(_) => judge.tested(draft, adjusted.next(), p.len()),
        None => judge.untested(draft),
    });
    judged.collect()
}

/// The measure that every row is judged by.
struct Judge {
    design: Design,
    alpha: f64,
    /// share of A below which a change is ignored
    ignore_below: f64,
    /// lowest possible p
    least: f64,
    /// highest p that passes Holm's first step
    level: f64,
    /// degrees of freedom and their detectable effect in standard errors: the same for all rows of rounds
    last: Option<(f64, f64)>,
}

impl Judge {
    fn untested(&self, draft: Draft) -> Row {
        let mut row = draft.row;
        if draft.same && self.least <= self.alpha {
            row.verdict = Verdict::NoDetectableChange;
        }
        row
    }

    fn tested(&mut self, draft: Draft, adjusted: Option<f64>, tested: usize) -> Row {
        let (se, df, mut row) = (draft.se, draft.df, draft.row);
        let mut why: Vec<String> = row.why.take().into_iter().collect();
        row.p_holm = adjusted;
        if se > 0.0 && df >= 1.0 {
            row.detectable = Some(se * self.detectable(df));
        } else if row.stat != "max" {
            why.push(format!("no MDE from {} that agree", self.design.unit()));
        }
        let units = self.design.units();
        let few = units.into_iter().min().unwrap_or(0) < MIN_UNITS;
        row.verdict = if few && row.detectable.is_none() && row.stat != "max" {
            why.push(format!("fewer than {MIN_UNITS} {} of a side", self.design.unit()));
            Verdict::NotEnoughData
        } else if self.least > self.level {
            why.push(format!(
                "{} of A and {} of B give no p below {:.5}; {tested} figures at once need {:.5}",
                units[0], units[1], self.least, self.level
            ));
            Verdict::NotEnoughData
        } else {
            self.verdict(&row)
        };
        row.why = (!why.is_empty()).then(|| why.join("; "));
        row
    }

    fn verdict(&self, row: &Row) -> Verdict {
        if row.p_holm.is_none_or(|p| p > self.alpha) {
            return Verdict::NoDetectableChange;
        }
        // Where A is 0, no change is small; a share of the time is small or not whatever A is.
        let size = match row.unit {
            Unit::Share => row.difference.map(|difference| difference.value.abs()),
            _ => row.ratio.map(|ratio| (ratio.value - 1.0).abs()),
        };
        if size.is_some_and(|size| size < self.ignore_below) {
            return Verdict::Ignored;
        }
        match (row.better, row.difference.map_or(0.0, |d| d.value)) {
            (Better::Neither, _) => Verdict::Changed,
            (Better::Lower, d) if d < 0.0 => Verdict::Better,
            (Better::Lower, _) => Verdict::Worse,
        }
    }

    /// The minimum detectable effect in standard errors.
    fn detectable(&mut self, df: f64) -> f64 {
        match self.last {
            Some((last, effect)) if last == df => effect,
            _ => {
                let effect = student::detectable(df, self.level, POWER);
                self.last = Some((df, effect));
                effect
            }
        }
    }
}

/// The power that a row promises: the chance to find a true difference of `effect`, in the row's unit, at [`first_step`]'s `level`.
/// None if the row has no minimum detectable effect. Exact for rounds; for blocks, whose degrees of freedom the row does not hold,
/// with those of all blocks together.
pub fn promised_power(row: &Row, effect: f64, units: [usize; 2], rounds: bool, level: f64) -> Option<f64> {
    let df = if rounds { units[0] as f64 - 1.0 } else { (units[0] + units[1]) as f64 - 2.0 };
    let se = row.detectable? / student::detectable(df, level, POWER);
    Some(student::power(effect, se, df, level))
}
