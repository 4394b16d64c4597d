//! The numbers of a comparison as people read them.

use super::names::title;
use crate::{
    compare::{Estimate, Row},
    model::{
        figures::{Stat, Unit, human},
        number::{truncated_u64, truncated_usize},
    },
    output::grouped,
};

/// Ratio of the sides beyond which it says more about a tiny A than about B.
const MOST_RATIO: f64 = 100.0;
/// Events of A below which a ratio of counts says more about chance in A than about B.
const FEWEST_EVENTS: f64 = 10.0;
/// Values that must lie beyond a quantile, or the quantile is one of these few values.
const FEWEST_BEYOND: f64 = 10.0;

/// "+12.3%" of 0.123.
pub(crate) fn percent(share: f64) -> String {
    let p = share * 100.0;
    let digits = match p.abs() {
        p if p < 0.995 => 2,
        p if p < 99.95 => 1,
        _ => 0,
    };
    let text = format!("{p:+.digits$}%");
    if text.trim_start_matches(['+', '-', '0', '.']) == "%" { "0%".into() } else { text }
}

/// The same without a sign, for sizes.
pub(crate) fn size(share: f64) -> String {
    percent(share.abs()).trim_start_matches('+').to_owned()
}

/// A value for people; small counts and rates keep two digits, so that only none at all is 0.
pub(crate) fn value(value: Option<f64>, unit: Unit) -> String {
    match value {
        Some(v) if unit == Unit::Share => size(v),
        Some(v) if unit != Unit::Ns && v > 0.0 && v < 0.01 => {
            let digits = truncated_usize(1.0 - v.log10().floor()).min(12);
            format!("{v:.digits$}")
        }
        Some(v) if unit == Unit::PerSecond && v > 0.0 && v < 10.0 => format!("{v:.3}"),
        Some(v) if unit == Unit::PerSecond && v >= 1000.0 => grouped(truncated_u64(v.round())),
        v => human(v, unit),
    }
}

/// "+1.23us"; "+1.2pp" of shares, which differ by percentage points.
pub(crate) fn signed(number: f64, unit: Unit) -> String {
    if unit == Unit::Share {
        return percent(number).replace('%', "pp");
    }
    let sign = if number < 0.0 { "-" } else { "+" };
    let text = value(Some(number.abs()), unit);
    if text == value(Some(0.0), unit) { text } else { format!("{sign}{text}") }
}

/// Number of events that A's value is of, for counts and rates; none for times and their shares.
fn events(row: &Row) -> Option<f64> {
    match row.unit {
        Unit::Ns | Unit::Share => None,
        Unit::Count => row.a.map(|mean| mean * row.count_a as f64),
        Unit::PerSecond => Some(row.count_a as f64),
    }
}

/// The ratio that is shown: none if A is 0 or about 0, which is where B is more than [`MOST_RATIO`] times A, where A had fewer
/// than [`FEWEST_EVENTS`] events, or where the difference has an interval and the ratio has none, because A may be 0; nor where B has no
/// event at all. Shares have none: 0.2 % of the time is not twice as bad as 0.1 %. The difference is shown instead.
pub(crate) fn ratio(row: &Row) -> Option<Estimate> {
    let has_interval = |e: Estimate| e.low.is_some() || e.high.is_some();
    let only_difference = row.difference.is_some_and(has_interval) && !row.ratio.is_some_and(has_interval);
    let few = events(row).is_some_and(|n| n < FEWEST_EVENTS || row.b == Some(0.0));
    let is_share = row.unit == Unit::Share;
    row.ratio.filter(|ratio| !is_share && ratio.value <= MOST_RATIO && !only_difference && !few)
}

/// Whether both sides have enough values beyond a quantile for it to mean something; true for other statistics.
pub(crate) fn is_carried(row: &Row) -> bool {
    let quantile = Stat::ALL.into_iter().find(|s| s.name() == row.stat).and_then(Stat::quantile);
    quantile.is_none_or(|q| q.min(1.0 - q) * row.count_a.min(row.count_b) as f64 >= FEWEST_BEYOND)
}

/// B relative to A in %, or the difference if A is about 0.
pub(crate) fn change(row: &Row) -> String {
    ratio(row).map_or_else(|| difference(row).0, |ratio| percent(ratio.value - 1.0))
}

/// The confidence interval of [`change`]; "?" for a bound that is not known.
pub(crate) fn interval(row: &Row) -> String {
    ratio(row).map_or_else(|| difference(row).1, percent_bounds)
}

/// One % sign is enough for both bounds.
fn percent_bounds(ratio: Estimate) -> String {
    bounds(ratio, &|v| percent(v - 1.0).trim_end_matches('%').to_owned()).replace(']', "]%")
}

fn bounds(estimate: Estimate, show: &dyn Fn(f64) -> String) -> String {
    if estimate.low.is_none() && estimate.high.is_none() {
        return "n/a".into();
    }
    let [low, high] = [estimate.low, estimate.high].map(|b| b.map_or("?".into(), show));
    format!("[{low}, {high}]")
}

/// The difference of the sides, and its confidence interval.
pub(super) fn difference(row: &Row) -> (String, String) {
    let Some(d) = row.difference else { return ("n/a".into(), "n/a".into()) };
    let bounds = bounds(d, &|v| signed(v, row.unit).trim_end_matches("pp").to_owned());
    // As with %, one unit is enough for both bounds.
    let unit = if row.unit == Unit::Share && bounds != "n/a" { "pp" } else { "" };
    (signed(d.value, row.unit), bounds + unit)
}

/// The difference in % of A, and its confidence interval; n/a if A is 0.
pub(super) fn relative(row: &Row) -> (String, String) {
    let Some(ratio) = row.ratio else { return ("n/a".into(), "n/a".into()) };
    (percent(ratio.value - 1.0), percent_bounds(ratio))
}

/// A p value; never 0.
pub(crate) fn p_value(p: Option<f64>) -> String {
    match p {
        None => "n/a".into(),
        Some(p) if p < 0.0001 => "<.0001".into(),
        Some(p) if p < 0.001 => format!("{p:.4}"),
        Some(p) => format!("{p:.3}"),
    }
}

/// Change from which its size is not shown: how much more than a doubling it takes to be found says nothing.
const DOUBLING: f64 = 1.0;

/// Whether only a change of more than A itself would have been found.
fn is_beyond_doubling(row: &Row) -> bool {
    ratio(row).is_some() && row.detectable.zip(row.a).is_some_and(|(d, a)| d > DOUBLING * a)
}

/// The minimum detectable effect, in % of A, or as a difference if A is about 0.
pub(crate) fn mde(row: &Row) -> String {
    match (row.detectable, row.a) {
        (Some(_), _) if is_beyond_doubling(row) => ">100%".into(),
        (Some(d), Some(a)) if a > 0.0 && ratio(row).is_some() => size(d / a),
        (Some(d), _) => signed(d, row.unit).trim_start_matches('+').to_owned(),
        (None, _) => "n/a".into(),
    }
}

/// The same in a sentence: "MDE of guest time p50: 3.1%".
pub(crate) fn mde_of(row: &Row) -> String {
    let mde = if is_beyond_doubling(row) { "nothing below a doubling".into() } else { mde(row) };
    format!("MDE of {}: {mde}", title(row))
}

/// The A/A noise: 95th percentile of half-against-half differences within a side, in % of its value; n/a if A is about 0.
pub(crate) fn noise(row: &Row) -> String {
    row.noise.filter(|_| ratio(row).is_some()).map_or("n/a".into(), size)
}

/// "12.3%"; n/a for none.
pub(crate) fn share_text(share: Option<f64>) -> String {
    share.map_or("n/a".into(), |s| format!("{:.1}%", s * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::fixture::comparison;

    #[test]
    fn percentages_are_readable_at_every_size() {
        let texts = [0.0, 0.00123, 0.123, 1.5, 12.0, -0.5, 0.00001, -0.000_01].map(percent);
        assert_eq!(texts, ["0%", "+0.12%", "+12.3%", "+150%", "+1200%", "-50.0%", "0%", "0%"]);
        assert_eq!(signed(-1500.0, Unit::Ns), "-1.50us");
    }

    #[test]
    fn only_none_at_all_is_0_and_large_rates_have_separators() {
        let count = [0.0, 1.0 / 52_127.0, 0.0042, 0.107].map(|v| value(Some(v), Unit::Count));
        assert_eq!(count, ["0", "0.000019", "0.0042", "0.107"]);
        let rates = [0.0, 0.0004, 0.5, 12.0, 2915.4, 1e6].map(|v| value(Some(v), Unit::PerSecond));
        assert_eq!(rates, ["0.0", "0.00040", "0.500", "12.0", "2,915", "1,000,000"]);
        assert_eq!(signed(-0.000_019, Unit::Count), "-0.000019");
    }

    fn of(value: f64, low: Option<f64>, high: Option<f64>) -> Option<Estimate> {
        Some(Estimate { value, low, high })
    }

    fn row(figure: &str) -> Row {
        comparison().rows.into_iter().find(|r| r.figure == figure).unwrap()
    }

    #[test]
    fn an_mde_beyond_a_doubling_has_no_size() {
        let of = |share: f64| {
            let p50 = row("entry_to_exit_ns");
            let row = Row { detectable: p50.a.map(|a| a * share), ..p50 };
            [mde(&row), mde_of(&row)]
        };
        assert_eq!(of(0.031), ["3.1%", "MDE of guest time p50: 3.1%"]);
        assert_eq!(of(479.01), [">100%", "MDE of guest time p50: nothing below a doubling"]);
    }

    #[test]
    fn where_a_is_about_0_the_difference_is_shown_and_not_the_ratio() {
        let huge = Row {
            a: Some(0.02),
            b: Some(111.3),
            ratio: of(5563.1, Some(900.0), Some(20_000.0)),
            difference: of(111.3, Some(109.0), Some(114.0)),
            detectable: Some(2.0),
            noise: Some(3.0),
            ..row("timer_exits.spurious")
        };
        let shown = |row: &Row| [change(row), interval(row), mde(row), noise(row)].join(" ");
        assert_eq!(shown(&huge), "+111 [+109, +114] 2.000 n/a");
        // A may be 0: its ratio has no interval, the difference has one.
        let unsure = Row { ratio: of(3.0, None, None), ..huge.clone() };
        assert_eq!(shown(&unsure), "+111 [+109, +114] 2.000 n/a");
        let usual = Row { a: Some(100.0), ratio: of(1.113, Some(1.09), Some(1.14)), ..huge };
        assert_eq!(shown(&usual), "+11.3% [+9.0, +14.0]% 2.0% 300%");
    }

    #[test]
    fn shares_differ_by_percentage_points_and_never_by_a_ratio() {
        let steal = Row {
            figure: "time.steal",
            stat: "share",
            unit: Unit::Share,
            a: Some(0.001),
            b: Some(0.0132),
            ratio: of(13.2, Some(11.0), Some(15.0)),
            difference: of(0.0122, Some(-0.004), Some(0.02)),
            detectable: Some(0.003),
            ..row("exit_to_entry_ns")
        };
        let shown = [value(steal.a, steal.unit), change(&steal), interval(&steal), mde(&steal)];
        assert_eq!(shown, ["0.10%", "+1.2pp", "[-0.40, +2.0]pp", "0.30pp"]);
    }

    #[test]
    fn a_ratio_to_a_handful_of_events_is_shown_as_a_difference() {
        // One pin-control write in 104 entries against one in four, without an interval of either.
        let one = Row {
            a: Some(1.0 / 104.0),
            b: Some(0.25),
            count_a: 104,
            count_b: 4,
            ratio: of(26.0, None, None),
            difference: of(0.2404, None, None),
            ..row("pin_writes")
        };
        assert_eq!((change(&one), events(&one).map(f64::round)), ("+0.240".into(), Some(1.0)));
        let ten = Row { a: Some(0.1), b: Some(0.25), count_a: 104, ratio: of(2.5, None, None), ..one };
        assert_eq!(change(&ten), "+150%");
        let none =
            Row { b: Some(0.0), ratio: of(0.0, None, None), difference: of(-0.1, Some(-0.12), Some(-0.08)), ..ten };
        assert_eq!((change(&none), interval(&none)), ("-0.100".into(), "[-0.120, -0.080]".into()));
    }

    #[test]
    fn a_quantile_needs_ten_values_beyond_it_on_both_sides() {
        let p99 = |count_a, count_b| is_carried(&Row { stat: "p99", count_a, count_b, ..row("exit_to_entry_ns") });
        assert_eq!([p99(1000, 1001), p99(999, 5000), p99(5000, 999)], [true, false, false]);
        assert!(is_carried(&Row { stat: "mean", count_a: 1, count_b: 1, ..row("exit_to_entry_ns") }));
    }

    #[test]
    fn p_values_are_never_zero() {
        assert_eq!(p_value(Some(0.0)), "<.0001");
        assert_eq!(p_value(Some(0.0123)), "0.012");
        assert_eq!(p_value(None), "n/a");
    }
}
