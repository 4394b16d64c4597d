//! Every figure's row: both values, how far apart, how sure, and what that means.

use super::{
    dense::{Dense, View, Weights},
    design::{Design, Units},
    permutation::{self, Split},
    resample::{self, MIN_UNITS, Spread},
    student,
};
use crate::{
    compare::{Arm, Better, Estimate, Options, Row, Shift, Verdict},
    model::{
        figures::{Figure, Unit},
        interval::Series,
    },
};

/// Values that have to lie beyond a quantile on either side of it.
const MIN_BEYOND: f64 = 10.0;
/// Power that [`Row::detectable`] promises.
const POWER: f64 = 0.8;
/// Quantiles of the shift function; those of the rows are among them.
const SHIFTS: [f64; 21] = [
    0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99,
    0.999,
];

/// What sums a figure up.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stat {
    Quantile(f64),
    Mean,
    Max,
}

/// Something that is compared: a [`Figure`] or a rate, with the statistics that are tested.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// as in [`Row::figure`]
    pub name: &'static str,
    /// unit of its values
    pub unit: Unit,
    /// which way is better
    pub better: Better,
    /// its statistics
    stats: &'static [(&'static str, Stat)],
}

const TIMES: &[(&str, Stat)] = &[
    ("p50", Stat::Quantile(0.5)),
    ("p90", Stat::Quantile(0.9)),
    ("p99", Stat::Quantile(0.99)),
    ("p999", Stat::Quantile(0.999)),
    ("max", Stat::Max),
    ("mean", Stat::Mean),
];
const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

impl Measure {
    /// A figure: quantiles, maximum and mean of times, the mean of counts.
    pub const fn of(figure: Figure) -> Self {
        let stats: &[_] = if figure.is_time() { TIMES } else { &[("mean", Stat::Mean)] };
        Self { name: figure.name(), unit: figure.unit(), better: Better::Lower, stats }
    }

    /// Events per second.
    pub const fn rate(name: &'static str, better: Better) -> Self {
        Self { name, unit: Unit::PerSecond, better, stats: &[("per_second", Stat::Mean)] }
    }

    fn row(&self, stat: &'static str, why: Option<String>) -> Row {
        Row {
            figure: self.name,
            stat,
            unit: self.unit,
            better: self.better,
            a: None,
            b: None,
            count_a: 0,
            count_b: 0,
            difference: None,
            ratio: None,
            p: None,
            p_holm: None,
            detectable: None,
            noise: None,
            verdict: Verdict::NotEnoughData,
            why,
        }
    }

    /// Its rows, where nothing about it can be known.
    pub fn unknown(&self, why: &str) -> Vec<Draft> {
        self.stats.iter().map(|(name, _)| Draft::of(self.row(name, Some(why.to_owned())))).collect()
    }
}

/// A row that is not yet held against the others.
#[derive(Clone, Debug)]
pub struct Draft {
    /// all but what depends on the others
    pub row: Row,
    se: f64,
    df: f64,
    /// the same in every unit of both sides: there is nothing to test
    same: bool,
}

impl Draft {
    fn of(row: Row) -> Self {
        Self { row, se: f64::NAN, df: f64::NAN, same: false }
    }
}

fn known(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

fn alike(values: impl Iterator<Item = f64>) -> bool {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    high - low <= 1e-12 * high.abs()
}

/// A figure compared: its rows, and the shift function where it has quantiles.
pub fn compare(measure: &Measure, windows: &Dense, units: &Units, options: &Options) -> (Vec<Draft>, Vec<Shift>) {
    let design = units.design;
    let dense = windows.merged(&units.parts);
    let quantiles: &[f64] = if measure.stats.len() > 1 { &QUANTILES } else { &[] };
    let shifts: &[f64] = if quantiles.is_empty() { &[] } else { &SHIFTS };
    let place = |stat: Stat, of: &[f64]| match stat {
        Stat::Quantile(q) => of.iter().position(|x| *x == q).unwrap_or(of.len()),
        Stat::Mean => of.len(),
        Stat::Max => of.len() + 1,
    };

    let [a, b] = Split::new(&dense, shifts, &permutation::labels(design)).values();
    let [n_a, n_b] = values_behind(&dense, design);
    let p = permutation::p_values(&dense, design, quantiles, options.permutations, options.seed);
    let entries = |arm| {
        let of_arm = units.windows.iter().zip(&units.arms).filter(|(_, a)| **a == arm);
        of_arm.flat_map(|(w, _)| w.strata.values()).map(Series::entries).fold(0, u64::saturating_add)
    };
    let no_entries = entries(Arm::A) == 0 || entries(Arm::B) == 0;
    let by_window = matches!(design, Design::Rounds(_));
    let noise = permutation::noise(if by_window { windows } else { &dense }, design, quantiles, options.seed);
    let spreads = resample::spreads(&dense, design, shifts, options.resamples, options.seed);
    let of_units = of_units(&dense, quantiles);

    let mut drafts = vec![];
    for &(name, stat) in measure.stats {
        let mut draft = Draft::of(measure.row(name, None));
        let (wide, narrow) = (place(stat, shifts), place(stat, quantiles));
        let row = &mut draft.row;
        (row.a, row.b) = (known(a[wide]), known(b[wide]));
        (row.count_a, row.count_b) = (n_a.counted, n_b.counted);
        row.noise = noise.as_ref().and_then(|n| known(n[narrow]));
        let (Some(a), Some(b)) = (row.a, row.b) else {
            row.why = Some("no values on a side".to_owned());
            drafts.push(draft);
            continue;
        };
        let mut why = vec![];
        let side = |is_a: bool| of_units.iter().enumerate().filter(move |(p, _)| design.is_a(*p) == is_a);
        let agree = [true, false].map(|is_a| stat != Stat::Max && alike(side(is_a).map(|(_, v)| v[narrow])));
        draft.same = agree == [true, true] && alike([a, b].into_iter());
        // The same because a side had nothing to count is no finding.
        let empty = draft.same && no_entries;
        draft.same &= !empty;
        let exact = !empty && agree == [true, true] && design.units().into_iter().all(|n| n >= MIN_UNITS);
        let spread = spreads.as_ref().and_then(|s| s.get(wide));
        let bounds = |value, bounds: Option<[f64; 2]>| match bounds {
            _ if exact => Estimate { value, low: Some(value), high: Some(value) },
            Some([low, high]) => Estimate { value, low: Some(low), high: Some(high) },
            None => Estimate { value, low: None, high: None },
        };
        row.difference = Some(bounds(b - a, spread.and_then(|s| s.difference)));
        row.ratio = (a != 0.0).then(|| bounds(b / a, spread.and_then(|s| s.ratio)));
        if stat == Stat::Max {
            why.push("of a maximum there is no valid interval: resampling never sees beyond it".to_owned());
        } else if !exact && !empty {
            why.extend(no_interval(row, spread, design, options));
        }
        if a == 0.0 {
            why.push("no ratio to 0".to_owned());
        }
        if let Some(spread) = spread.filter(|s| s.difference_se > 1e-12 * (a.abs() + b.abs())) {
            (draft.se, draft.df) = (spread.difference_se, spread.df);
        }
        let beyond = match stat {
            Stat::Quantile(q) => q.min(1.0 - q) * n_a.effective.min(n_b.effective),
            Stat::Mean | Stat::Max => f64::INFINITY,
        };
        if empty {
            why.push("no entries on a side".to_owned());
        } else if draft.same {
            let units = design.units();
            why.push(format!(
                "the same in all {} ({} of A, {} of B): nothing to test",
                design.unit(),
                units[0],
                units[1]
            ));
        } else if beyond < MIN_BEYOND {
            why.push(format!("fewer than {MIN_BEYOND} values beyond {name} on a side"));
        } else if let Some(p) = &p {
            row.p = known(p[narrow]);
        }
        row.why = (!why.is_empty()).then(|| why.join("; "));
        drafts.push(draft);
    }

    let least = n_a.effective.min(n_b.effective);
    let shifts = shifts.iter().enumerate().filter(|(_, q)| q.min(1.0 - **q) * least >= MIN_BEYOND);
    let shifts = shifts.filter_map(|(i, &quantile)| {
        let [low, high] = match spreads.as_ref().and_then(|s| s[i].difference) {
            Some(bounds) => bounds.map(Some),
            None => [None, None],
        };
        let difference = Estimate { value: known(b[i] - a[i])?, low, high };
        Some(Shift { quantile, a: known(a[i])?, difference })
    });
    let shifts = shifts.collect();
    (drafts, shifts)
}

fn no_interval(row: &Row, spread: Option<&Spread>, design: Design, options: &Options) -> Option<String> {
    let missing = |e: &Option<Estimate>| e.is_some_and(|e| e.low.is_none());
    if !missing(&row.difference) && !missing(&row.ratio) {
        return None;
    }
    let few = design.units().into_iter().min().unwrap_or(0) < MIN_UNITS;
    Some(match spread {
        _ if few => format!("no interval from fewer than {MIN_UNITS} {} of a side", design.unit()),
        _ if options.resamples == 0 => "no interval without resamples".to_owned(),
        Some(s) if s.difference_se == 0.0 => {
            format!("no interval: {} differ, yet none of them moves the value", design.unit())
        }
        Some(Spread { why: Some(why), .. }) => (*why).to_owned(),
        _ if !missing(&row.difference) => "no interval of the ratio: a side's value is 0 or may be".to_owned(),
        _ => format!("no interval: too few {} have values", design.unit()),
    })
}

/// Values of a side.
struct Behind {
    /// how many; or events
    counted: u64,
    /// how many equally weighted ones would tell as much
    effective: f64,
}

fn values_behind(dense: &Dense, design: Design) -> [Behind; 2] {
    let [mut a, mut b] = [dense.empty(), dense.empty()];
    for (part, counts) in dense.parts.iter().enumerate() {
        if design.is_a(part) { a.add(counts, 1.0) } else { b.add(counts, 1.0) }
    }
    let mut weights = Weights::default();
    weights.set(View::of(&a), View::of(&b), dense.strata);
    [(&a, &weights.a), (&b, &weights.b)].map(|(counts, weights)| {
        let strata = || weights.iter().enumerate().filter(|(_, w)| w.is_finite() && **w > 0.0);
        let (n, events) = (|s| View::of(counts).n(s), |s| View::of(counts).sum(s));
        let counted: f64 = strata().map(|(s, _)| if dense.is_rate() { events(s) } else { n(s) }).sum();
        let squares: f64 = strata().map(|(s, w)| w * w * n(s)).sum();
        Behind { counted: counted as u64, effective: if squares > 0.0 { 1.0 / squares } else { 0.0 } }
    })
}

/// Every unit's own values.
fn of_units(dense: &Dense, quantiles: &[f64]) -> Vec<Vec<f64>> {
    let of = |counts| {
        let view = View::of(counts);
        let n: f64 = (0..dense.strata).map(|s| view.n(s)).sum();
        let mut values = vec![f64::NAN; quantiles.len() + 2];
        dense.values(view, &vec![1.0 / n; dense.strata], quantiles, &mut values);
        values
    };
    dense.parts.iter().map(of).collect()
}

/// How many figures were tested at once: those whose values allow a test at all. Figures that are the same in every unit are not
/// among them, whatever the labels.
pub fn family(rows: &[Row]) -> usize {
    rows.iter().filter(|r| r.p.is_some()).count()
}

/// The highest p that Holm's first step lets pass: a multiple of the lowest p there is, where any is low enough.
pub fn first_step(rows: &[Row], alpha: f64, least_p: f64) -> f64 {
    let level = alpha / family(rows).max(1) as f64;
    if level < least_p { level } else { (level / least_p + 1e-9).floor() * least_p }
}

/// Holds the rows against each other: Holm's correction, verdicts, and what could have been detected.
pub fn judge(drafts: Vec<Draft>, design: Design, options: &Options) -> Vec<Row> {
    let rows: Vec<Row> = drafts.iter().map(|d| d.row.clone()).collect();
    let p: Vec<f64> = rows.iter().filter_map(|r| r.p).collect();
    let mut adjusted = permutation::holm(&p).into_iter();
    let least = design.least_p(options.permutations);
    let level = first_step(&rows, options.alpha, least);
    // Of rounds, all rows have the same degrees of freedom.
    let mut last = (f64::NAN, 0.0);
    let judged = drafts.into_iter().map(|draft| {
        let (mut row, mut why) = (draft.row, vec![]);
        if row.p.is_none() {
            if draft.same && least <= options.alpha {
                row.verdict = Verdict::NoDetectableChange;
            }
            return row;
        }
        row.p_holm = adjusted.next();
        if draft.se > 0.0 && draft.df >= 1.0 {
            if draft.df != last.0 {
                last = (draft.df, student::detectable(draft.df, level, POWER));
            }
            row.detectable = Some(draft.se * last.1);
        } else if row.stat != "max" {
            why.push(format!("what is detectable cannot be told from {} that agree", design.unit()));
        }
        let few = design.units().into_iter().min().unwrap_or(0) < MIN_UNITS;
        row.verdict = if few && row.detectable.is_none() && row.stat != "max" {
            why.push(format!("fewer than {MIN_UNITS} {} of a side", design.unit()));
            Verdict::NotEnoughData
        } else if least > level {
            why.push(format!(
                "with {} of A and {} of B no p can be below {least:.5}; {} figures at once need {level:.5}",
                design.units()[0],
                design.units()[1],
                p.len()
            ));
            Verdict::NotEnoughData
        } else if row.p_holm.is_none_or(|p| p > options.alpha) {
            Verdict::NoDetectableChange
        } else {
            match (row.better, row.difference.map_or(0.0, |d| d.value)) {
                (Better::Neither, _) => Verdict::Changed,
                (Better::Lower, d) if d < 0.0 => Verdict::Better,
                (Better::Lower, _) => Verdict::Worse,
            }
        };
        row.why = row.why.into_iter().chain(why).reduce(|a, b| format!("{a}; {b}"));
        row
    });
    judged.collect()
}

/// The chance that a true difference of `effect`, in the row's unit, would have been found at [`first_step`]'s `level`: what the row
/// promises. None where the row tells no detectable difference. Exact for rounds; of blocks, whose degrees of freedom the row
/// does not hold, those of both sides' blocks together.
pub fn promised_power(row: &Row, effect: f64, units: [usize; 2], rounds: bool, level: f64) -> Option<f64> {
    let df = if rounds { units[0] as f64 - 1.0 } else { (units[0] + units[1]) as f64 - 2.0 };
    let se = row.detectable? / student::detectable(df, level, POWER);
    Some(student::power(effect, se, df, level))
}
