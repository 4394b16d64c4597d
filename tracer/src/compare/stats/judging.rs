//! Verdicts: the rows of all figures, judged together. Primary figures, which were named before the data, come first, each at the full
//! level and in their order; the first that is undecided closes the gate. The others follow under Holm's correction, if the gate is open.
//! So the chance of any false alarm is at most the level (Westfall and Krishen 2001, "Optimally weighted, fixed sequence and gatekeeper
//! multiple testing procedures"): the first primary figure without an effect is wrongly decided by that chance, and without such
//! a decision nothing behind it is tested.

use super::{design::Design, measure::Draft, pairs::Pairs, permutation, resample::MIN_UNITS, sequential, student};
use crate::{
    compare::{
        comparison::{Better, Estimate, Row, Verdict},
        windows::Options,
    },
    model::figures::Unit,
};

/// Power of the minimum detectable effect.
const POWER: f64 = 0.8;

/// Number of figures tested at once: those whose values allow a test, but for primary ones. Figures with the same value in every unit
/// are not tested.
pub(crate) fn family(rows: &[Row]) -> usize {
    rows.iter().filter(|r| r.p.is_some() && r.primary.is_none()).count()
}

/// The highest p that passes Holm's first step: a multiple of the lowest possible p, if that is low enough.
pub fn first_step(rows: &[Row], alpha: f64, least_p: f64) -> f64 {
    let level = alpha / family(rows).max(1) as f64;
    if level < least_p { level } else { (level / least_p + 1e-9).floor() * least_p }
}

/// Judges all rows together: adjusted p, minimum detectable effects, verdicts.
pub(crate) fn judge(mut drafts: Vec<Draft>, design: Design, options: &Options) -> Vec<Row> {
    let least = design.least_p(options.permutations);
    name_primary(&mut drafts, &options.primary);
    let tested = |drafts: &[Draft]| drafts.iter().filter(|d| d.row.p.is_some() && d.row.primary.is_none()).count();
    let all = tested(&drafts).max(1) as f64;
    for draft in &mut drafts {
        let level = if draft.row.primary.is_some() { options.alpha } else { options.alpha / all };
        if least > level
            && let (Some(zero), Some(_)) = (&draft.zero, draft.row.p)
        {
            draft.row.p = Some(zero.p);
            let [low, high] = zero.difference.map(Some);
            draft.row.difference = draft.row.difference.map(|difference| match difference.low {
                None => Estimate { low, high, ..difference },
                Some(_) => difference,
            });
        } else {
            draft.zero = None;
        }
    }
    let (adjusted, gate) = adjusted(&drafts, options.alpha);
    let rows: Vec<Row> = drafts.iter().map(|d| d.row.clone()).collect();
    let level = match design {
        Design::Rounds(_) => options.alpha / family(&rows).max(1) as f64,
        Design::Blocks { .. } => first_step(&rows, options.alpha, least),
    };
    let (alpha, ignore_below) = (options.alpha, options.ignore_below);
    let mut judge = Judge { design, alpha, ignore_below, least, level, tested: family(&rows), gate, known: vec![] };
    let judged = drafts.into_iter().zip(adjusted).map(|(draft, adjusted)| match draft.row.p {
        Some(_) => judge.tested(draft, adjusted),
        None => judge.untested(draft),
    });
    judged.collect()
}

/// Gives the primary figures their places.
fn name_primary(drafts: &mut [Draft], primary: &[String]) {
    for draft in drafts {
        let row = &mut draft.row;
        row.primary = primary.iter().position(|name| *name == format!("{}.{}", row.figure, row.stat));
    }
}

/// Place of the primary figure that is undecided, behind which nothing is tested; none if the gate is open.
type Gate = Option<usize>;

/// Adjusted p of every draft that is tested, and the gate.
fn adjusted(drafts: &[Draft], alpha: f64) -> (Vec<Option<f64>>, Gate) {
    let mut adjusted = vec![None; drafts.len()];
    let mut primary: Vec<(usize, usize, f64)> = Vec::new();
    for (at, draft) in drafts.iter().enumerate() {
        primary.extend(draft.row.primary.zip(draft.row.p).map(|(place, p)| (place, at, p)));
    }
    primary.sort_by_key(|(place, ..)| *place);
    let (mut highest, mut gate) = (0.0f64, None);
    for (place, at, p) in primary {
        highest = highest.max(p);
        adjusted[at] = Some(highest);
        gate = gate.or_else(|| (highest > alpha).then_some(place));
    }
    let others: Vec<_> = (0..drafts.len()).filter(|at| drafts[*at].row.primary.is_none()).collect();
    let p: Vec<_> = others.iter().filter_map(|at| drafts[*at].row.p.map(|p| (*at, p))).collect();
    for ((at, _), holm) in p.iter().zip(permutation::holm(&p.iter().map(|(_, p)| *p).collect::<Vec<_>>())) {
        adjusted[*at] = Some(holm);
    }
    (adjusted, gate)
}

/// The measure that every row is judged by.
struct Judge {
    design: Design,
    alpha: f64,
    /// share of A below which a change is ignored
    ignore_below: f64,
    /// lowest possible p
    least: f64,
    /// highest p of others than primary figures that passes Holm's first step
    level: f64,
    /// figures at that step
    tested: usize,
    gate: Gate,
    /// detectable effects that were computed, by a row's degrees of freedom or rounds, and by level
    known: Vec<([f64; 2], Option<f64>)>,
}

impl Judge {
    fn untested(&self, draft: Draft) -> Row {
        let mut row = draft.row;
        if draft.same && self.least <= self.alpha {
            row.verdict = Verdict::NoDetectableChange;
        }
        row
    }

    fn tested(&mut self, draft: Draft, adjusted: Option<f64>) -> Row {
        let level = if draft.row.primary.is_some() { self.alpha } else { self.level };
        let detectable = self.detectable_of(&draft, level);
        let mut row = draft.row;
        let mut why: Vec<String> = row.why.take().into_iter().collect();
        row.p_holm = adjusted;
        row.detectable = detectable.filter(|_| row.stat != "max" || draft.pairs.is_none());
        let units = self.design.units();
        let least_units = units.into_iter().min().unwrap_or(0);
        let few = least_units < MIN_UNITS;
        if row.detectable.is_none() && row.stat != "max" && !few {
            why.push(format!("no MDE from {} that agree", self.design.unit()));
        }
        row.verdict = if let Some(zero) = draft.zero {
            let verdict = self.verdict(&row);
            let is_open = matches!(verdict, Verdict::NoDetectableChange | Verdict::Undecided);
            if is_open {
                why.push(self.too_few(row.primary.is_some(), level));
            }
            why.push(zero.text);
            // So few units are only enough for a finding.
            if is_open { Verdict::NotEnoughData } else { verdict }
        } else if few && row.detectable.is_none() && row.stat != "max" {
            why.push(format!("{least_units} {} of a side; {MIN_UNITS} are needed", self.design.unit()));
            Verdict::NotEnoughData
        } else if self.least > level {
            why.push(self.too_few(row.primary.is_some(), level));
            Verdict::NotEnoughData
        } else {
            self.verdict(&row)
        };
        if let (Some(_), Some(pairs), true) = (row.primary, &draft.pairs, row.verdict != Verdict::NotTested) {
            row.decided_after = pairs.decided_after(self.alpha);
        }
        row.why = (!why.is_empty()).then(|| why.join("; "));
        row
    }

    /// Reason why no p of the units can be low enough.
    fn too_few(&self, is_primary: bool, level: f64) -> String {
        let [a, b] = self.design.units();
        let tested = if is_primary { 1 } else { self.tested };
        format!("{a} of A and {b} of B give no p below {:.5}; {tested} figures at once need {level:.5}", self.least)
    }

    /// The minimum detectable effect of a row; none if its units agree, or are too few.
    fn detectable_of(&mut self, draft: &Draft, level: f64) -> Option<f64> {
        let freedom = match &draft.pairs {
            Some(pairs) => pairs.deviation().map(|_| pairs.differences.len() as f64)?,
            None => {
                let size = draft.row.a.unwrap_or(0.0).abs() + draft.row.b.unwrap_or(0.0).abs();
                Some(draft.df).filter(|df| *df >= 1.0 && draft.se > 1e-12 * size)?
            }
        };
        let known = self.known.iter().find(|(of, _)| *of == [freedom, level]).map(|(_, effect)| *effect);
        let effect = known.unwrap_or_else(|| {
            let effect = match &draft.pairs {
                Some(Pairs { differences, .. }) => sequential::detectable(differences.len(), level),
                None => Some(student::detectable(freedom, level, POWER)),
            };
            self.known.push(([freedom, level], effect));
            effect
        })?;
        Some(match &draft.pairs {
            // As the plan of the experiment has it.
            Some(pairs) => {
                let scale = if pairs.is_ratio() { draft.row.a? } else { 1.0 };
                (pairs.detectable(effect)? * scale).min(f64::MAX)
            }
            None => draft.se * effect,
        })
    }

    fn verdict(&self, row: &Row) -> Verdict {
        // Where A is 0, no change is small; a share of the time is small or not whatever A is.
        let (change, none) = match row.unit {
            Unit::Share => (row.difference, 0.0),
            _ => (row.ratio, 1.0),
        };
        let is_small = |value: f64| (value - none).abs() < self.ignore_below;
        let is_within = || change.is_some_and(|c| c.low.is_some_and(is_small) && c.high.is_some_and(is_small));
        match (self.gate, row.primary) {
            (Some(gate), place) if place.is_none_or(|place| place > gate) => return Verdict::NotTested,
            _ if row.p_holm.is_none_or(|p| p > self.alpha) => {
                return match row.primary {
                    _ if is_within() => Verdict::Ignored,
                    Some(_) => Verdict::Undecided,
                    None => Verdict::NoDetectableChange,
                };
            }
            _ if change.is_some_and(|change| is_small(change.value)) => return Verdict::Ignored,
            _ => {}
        }
        match (row.better, row.difference.map_or(0.0, |d| d.value)) {
            (Better::Neither, _) => Verdict::Changed,
            (Better::Lower, d) if d < 0.0 => Verdict::Better,
            (Better::Lower, _) => Verdict::Worse,
        }
    }
}

/// The power that a row promises: the chance to find a true difference of `effect`, in the row's unit, at `level`. None if the row has no
/// minimum detectable effect. For blocks, whose degrees of freedom the row does not hold, with those of all blocks together.
pub fn promised_power(row: &Row, effect: f64, units: [usize; 2], rounds: bool, level: f64) -> Option<f64> {
    if rounds {
        let deviations = sequential::detectable(units[0], level)?;
        // Only where every round has a ratio, its interval is known: see the pairs of the rounds.
        let is_ratio = row.unit != Unit::Share && row.ratio.is_some_and(|ratio| ratio.low.is_some());
        let scale = |change: f64| match row.a {
            Some(a) if is_ratio => (change / a).ln_1p(),
            _ => change,
        };
        let deviation = scale(row.detectable?) / deviations;
        return Some(sequential::power(scale(effect) / deviation, units[0], level));
    }
    let df = (units[0] + units[1]) as f64 - 2.0;
    let se = row.detectable? / student::detectable(df, level, POWER);
    Some(student::power(effect, se, df, level))
}
