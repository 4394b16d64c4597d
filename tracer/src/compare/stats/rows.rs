//! The rows of one figure: both values, their difference and ratio, and how certain these are.

use super::{
    dense::{CountsView, Dense, Weights},
    design::{Design, Units},
    measure::{Draft, Measure},
    pairs::{self, Pairs},
    permutation::{self, Split},
    resample::{self, MIN_UNITS, Spread},
    zeros::{self, Zero},
};
use crate::{
    compare::{
        comparison::{Estimate, Row, Shift},
        windows::{Arm, Options},
    },
    model::{figures::Stat, number::truncated_u64, series::Series},
};

/// Values that must lie beyond a quantile on each side.
const MIN_BEYOND: f64 = 10.0;
/// Quantiles of the shift function; they include those of the rows.
const SHIFTS: [f64; 21] = [
    0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99,
    0.999,
];
/// Quantiles of the rows.
const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

fn known(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// Whether all values are the same but for rounding.
fn alike(values: impl Iterator<Item = f64>) -> bool {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    high - low <= 1e-12 * high.abs()
}

/// Index of a statistic among the values at `quantiles`, which the mean and the maximum follow.
pub(super) fn place(stat: Stat, quantiles: &[f64]) -> usize {
    match stat.quantile() {
        Some(q) => quantiles.iter().position(|x| *x == q).unwrap_or(quantiles.len()),
        None if stat == Stat::Max => quantiles.len() + 1,
        None => quantiles.len(),
    }
}

/// Compares a figure: its rows, and the shift function if it has quantiles.
pub(crate) fn compare(
    measure: &Measure,
    windows: &Dense,
    units: &Units,
    options: &Options,
) -> (Vec<Draft>, Vec<Shift>) {
    let results = Results::of(measure, windows, units, options);
    let drafts = measure.stats.iter().map(|&(name, stat)| results.draft(measure, name, stat)).collect();
    (drafts, results.shifts())
}

/// Results of the statistics for one figure. Values are by statistic, as [`place`] finds them.
struct Results<'a> {
    design: Design,
    options: &'a Options,
    quantiles: &'static [f64],
    shifts: &'static [f64],
    /// values of A and B, at `shifts`
    a: Vec<f64>,
    b: Vec<f64>,
    behind: [Behind; 2],
    /// at `quantiles`; none without blocks
    p: Option<Vec<f64>>,
    /// at `quantiles`; none if a side cannot be split
    noise: Option<Vec<f64>>,
    /// at `shifts`; none with fewer than two blocks a side
    spreads: Option<Vec<Spread>>,
    /// at `shifts`; none without rounds
    pairs: Option<Vec<Pairs>>,
    zero: Option<Zero>,
    /// values of every unit, at `quantiles`
    of_units: Vec<Vec<f64>>,
    /// whether a side has no entries at all
    no_entries: bool,
}

impl<'a> Results<'a> {
    fn of(measure: &Measure, windows: &Dense, units: &Units, options: &'a Options) -> Self {
        let design = units.design;
        let dense = windows.merged(&units.parts);
        let quantiles: &[f64] = if measure.stats.len() > 1 { &QUANTILES } else { &[] };
        let shifts: &[f64] = if quantiles.is_empty() { &[] } else { &SHIFTS };
        let [a, b] = Split::new(&dense, shifts, &permutation::labels(design)).values();
        // Rounds have a test and intervals of their own.
        let blocks = match design {
            Design::Rounds(_) => None,
            Design::Blocks { a, b } => Some([a, b]),
        };
        Self {
            design,
            options,
            quantiles,
            shifts,
            a,
            b,
            behind: values_behind(&dense, design),
            p: blocks
                .and_then(|_| permutation::p_values(&dense, design, quantiles, options.permutations, options.seed)),
            pairs: blocks
                .is_none()
                .then(|| pairs::of_rounds(&dense, shifts).iter().map(|of| Pairs::of(of, measure.unit())).collect()),
            // Statistics of times are never 0, and shares of the time are no events.
            zero: if measure.counts_events() { zeros::of(windows, &units.arms) } else { None },
            noise: permutation::noise(if blocks.is_none() { windows } else { &dense }, design, quantiles, options.seed),
            spreads: blocks
                .and_then(|blocks| resample::spreads(&dense, blocks, shifts, options.resamples, options.seed)),
            of_units: of_units(&dense, quantiles),
            no_entries: entries(units, Arm::A) == 0 || entries(units, Arm::B) == 0,
        }
    }

    fn draft(&self, measure: &Measure, name: &'static str, stat: Stat) -> Draft {
        let mut draft = measure.draft(name, None);
        let (wide, narrow) = (place(stat, self.shifts), place(stat, self.quantiles));
        let [n_a, n_b] = &self.behind;
        let row = &mut draft.row;
        (row.a, row.b) = (known(self.a[wide]), known(self.b[wide]));
        (row.count_a, row.count_b) = (n_a.counted, n_b.counted);
        row.noise = self.noise.as_ref().and_then(|n| known(n[narrow]));
        let (Some(a), Some(b)) = (row.a, row.b) else {
            row.why = Some("no values on a side".to_owned());
            return draft;
        };
        let agree = [true, false].map(|is_a| stat != Stat::Max && alike(self.of_side(is_a, narrow)));
        let same = agree == [true, true] && alike([a, b].into_iter());
        // Two sides of which one had nothing to count are no evidence of being the same.
        let empty = same && self.no_entries;
        draft.same = same && !empty;
        let exact = !empty && agree == [true, true] && self.design.units().into_iter().all(|n| n >= MIN_UNITS);
        let pairs = self.pairs.as_ref().map(|pairs| &pairs[wide]);
        let spread = self.spreads.as_ref().and_then(|s| s.get(wide));
        let alpha = self.options.alpha;
        let [of_difference, of_ratio] = match pairs {
            _ if stat == Stat::Max => [None, None],
            Some(pairs) => [
                pairs.difference(alpha).map(|bounds| including(bounds, b - a)),
                pairs.ratio(alpha).map(|bounds| including(bounds, b / a)),
            ],
            None => [spread.and_then(|s| s.difference), spread.and_then(|s| s.ratio)],
        };
        row.difference = Some(estimate(b - a, exact, of_difference));
        row.ratio = (a != 0.0).then(|| estimate(b / a, exact, of_ratio));
        let mut why = vec![];
        if stat == Stat::Max {
            why.push("a maximum has no valid interval: resampling never goes beyond it".to_owned());
        } else if !exact && !empty {
            why.extend(self.no_interval(row, spread));
        }
        if a == 0.0 {
            why.push("no ratio to 0".to_owned());
        }
        if let Some(spread) = spread.filter(|s| s.difference_se > 1e-12 * (a.abs() + b.abs())) {
            (draft.se, draft.df) = (spread.difference_se, spread.df);
        }
        draft.pairs = pairs.cloned();
        draft.zero = self.zero.clone();
        match self.untestable(stat, empty, draft.same) {
            Some(reason) => why.push(reason),
            None => {
                let of_blocks = || self.p.as_ref().and_then(|p| known(p[narrow]));
                row.p = pairs.map_or_else(of_blocks, |pairs| Some(pairs.p()));
            }
        }
        row.why = (!why.is_empty()).then(|| why.join("; "));
        draft
    }

    /// A statistic of every unit of a side.
    fn of_side(&self, is_a: bool, narrow: usize) -> impl Iterator<Item = f64> {
        let units = self.of_units.iter().enumerate();
        units.filter(move |(part, _)| self.design.is_a(*part) == is_a).map(move |(_, values)| values[narrow])
    }

    /// Reason why a statistic is not tested; none if it is.
    fn untestable(&self, stat: Stat, empty: bool, same: bool) -> Option<String> {
        let [n_a, n_b] = &self.behind;
        let beyond = stat.quantile().map_or(f64::INFINITY, |q| q.min(1.0 - q) * n_a.effective.min(n_b.effective));
        let [units_a, units_b] = self.design.units();
        if empty {
            Some("no entries on a side".to_owned())
        } else if same {
            let unit = self.design.unit();
            Some(format!("the same in all {unit} ({units_a} of A, {units_b} of B): nothing to test"))
        } else if beyond < MIN_BEYOND {
            Some(format!("fewer than {MIN_BEYOND} values beyond {} on a side", stat.title().to_lowercase()))
        } else {
            None
        }
    }

    /// Reason why a row has no interval; none if it has both.
    fn no_interval(&self, row: &Row, spread: Option<&Spread>) -> Option<String> {
        let missing = |e: &Option<Estimate>| e.is_some_and(|e| e.low.is_none());
        if !missing(&row.difference) && !missing(&row.ratio) {
            return None;
        }
        let unit = self.design.unit();
        let few = self.design.units().into_iter().min().unwrap_or(0) < MIN_UNITS;
        Some(match spread {
            None if self.pairs.is_some() && !few => if missing(&row.difference) {
                "no interval: the rounds agree on no common change"
            } else {
                "no interval of the ratio: a side's value is 0 in some rounds"
            }
            .to_owned(),
            _ if few => format!("no interval from fewer than {MIN_UNITS} {unit} of a side"),
            _ if self.options.resamples == 0 => "no interval without resamples".to_owned(),
            Some(s) if s.difference_se == 0.0 => {
                format!("no interval: {unit} differ, but none of them moves the value")
            }
            Some(Spread { why: Some(why), .. }) => (*why).to_owned(),
            _ if !missing(&row.difference) => "no interval of the ratio: a side's value is 0 or may be".to_owned(),
            _ => format!("no interval: too few {unit} have values"),
        })
    }

    /// The shift function, at quantiles with enough values beyond them.
    fn shifts(&self) -> Vec<Shift> {
        let [n_a, n_b] = &self.behind;
        let least = n_a.effective.min(n_b.effective);
        let quantiles = self.shifts.iter().enumerate().filter(|(_, q)| q.min(1.0 - **q) * least >= MIN_BEYOND);
        let shift = |(i, &quantile): (usize, &f64)| {
            let value = known(self.b[i] - self.a[i])?;
            let is_wanted = self.options.resamples > 0;
            let of_rounds = |pairs: &Vec<Pairs>| {
                let bounds = is_wanted.then(|| pairs[i].difference(self.options.alpha)).flatten()?;
                Some(including(bounds, value))
            };
            let of_blocks = || self.spreads.as_ref().and_then(|s| s[i].difference);
            let bounds = self.pairs.as_ref().map_or_else(of_blocks, of_rounds);
            let difference = estimate(value, false, bounds);
            Some(Shift { quantile, a: known(self.a[i])?, difference })
        };
        quantiles.filter_map(shift).collect()
    }
}

/// Bounds that contain the value of all windows together, which weighs rounds with more entries more.
fn including([low, high]: [f64; 2], value: f64) -> [f64; 2] {
    [low.min(value), high.max(value)]
}

/// A value with its bounds; an exact value is its own bounds.
fn estimate(value: f64, exact: bool, bounds: Option<[f64; 2]>) -> Estimate {
    let [low, high] = if exact { [Some(value); 2] } else { bounds.map_or([None; 2], |b| b.map(Some)) };
    Estimate { value, low, high }
}

pub(crate) fn entries(units: &Units, arm: Arm) -> u64 {
    let of_arm = units.windows.iter().zip(&units.arms).filter(|(_, a)| **a == arm);
    of_arm.flat_map(|(w, _)| w.strata.values()).map(Series::entries).fold(0, u64::saturating_add)
}

/// Number of values of a side.
struct Behind {
    /// values, or events for rates
    counted: u64,
    /// equally weighted values that would carry as much information
    effective: f64,
}

fn values_behind(dense: &Dense, design: Design) -> [Behind; 2] {
    let [mut a, mut b] = [dense.empty(), dense.empty()];
    for (part, counts) in dense.parts.iter().enumerate() {
        if design.is_a(part) { a.add(counts, 1.0) } else { b.add(counts, 1.0) }
    }
    let mut weights = Weights::default();
    weights.set(CountsView::of(&a), CountsView::of(&b), dense.strata);
    [(&a, &weights.a), (&b, &weights.b)].map(|(counts, weights)| {
        let strata = || weights.iter().enumerate().filter(|(_, w)| w.is_finite() && **w > 0.0);
        let (n, events) = (|s| CountsView::of(counts).n(s), |s| CountsView::of(counts).sum(s));
        let counted: f64 = strata().map(|(s, _)| if dense.is_rate() { events(s) } else { n(s) }).sum();
        let squares: f64 = strata().map(|(s, w)| w * w * n(s)).sum();
        Behind { counted: truncated_u64(counted), effective: if squares > 0.0 { 1.0 / squares } else { 0.0 } }
    })
}

/// Values of every unit.
fn of_units(dense: &Dense, quantiles: &[f64]) -> Vec<Vec<f64>> {
    let of = |counts| {
        let view = CountsView::of(counts);
        let n: f64 = (0..dense.strata).map(|s| view.n(s)).sum();
        let mut values = vec![f64::NAN; quantiles.len() + 2];
        dense.values(view, &vec![1.0 / n; dense.strata], quantiles, &mut values);
        values
    };
    dense.parts.iter().map(of).collect()
}
