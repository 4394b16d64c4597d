//! The words of a comparison, shared by text, HTML and the JSON's summary.

use std::collections::BTreeSet;

use crate::{
    compare::{
        Comparison, Estimate, Row, Setting, Side, Stratum, Verdict,
        condition::{Condition, ConditionResult},
    },
    model::{
        exit_reasons,
        figures::{Unit, human},
        totals::Totals,
    },
    recording::Provenance,
};

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

/// A value for people; rates of rare exits keep their digits.
pub(crate) fn value(value: Option<f64>, unit: Unit) -> String {
    match value {
        Some(v) if unit == Unit::PerSecond && v > 0.0 && v < 10.0 => format!("{v:.3}"),
        v => human(v, unit),
    }
}

/// "+1.23us".
pub(crate) fn signed(number: f64, unit: Unit) -> String {
    let sign = if number < 0.0 { "-" } else { "+" };
    let text = value(Some(number.abs()), unit);
    if text == value(Some(0.0), unit) { text } else { format!("{sign}{text}") }
}

/// "entry_to_exit_ns.p99", as `--fail-if` names it.
pub(crate) fn name(row: &Row) -> String {
    format!("{}.{}", row.figure, row.stat)
}

/// Ratio of the sides beyond which it says more about a tiny A than about B.
const MOST_RATIO: f64 = 100.0;

/// The ratio that is shown: none if A is 0 or about 0, which is where B is more than [`MOST_RATIO`] times A, or where the difference has
/// an interval and the ratio has none, because A may be 0. The difference is shown instead.
pub(crate) fn ratio(row: &Row) -> Option<Estimate> {
    let has_interval = |e: Estimate| e.low.is_some() || e.high.is_some();
    let only_difference = row.difference.is_some_and(has_interval) && !row.ratio.is_some_and(has_interval);
    row.ratio.filter(|ratio| ratio.value <= MOST_RATIO && !only_difference)
}

/// B against A: in %, or the difference if A is about 0.
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
fn difference(row: &Row) -> (String, String) {
    let Some(d) = row.difference else { return ("n/a".into(), "n/a".into()) };
    (signed(d.value, row.unit), bounds(d, &|v| signed(v, row.unit)))
}

/// The difference in % of A, and its confidence interval; n/a if A is 0.
fn relative(row: &Row) -> (String, String) {
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

/// The minimum detectable effect, in % of A, or as a difference if A is about 0.
pub(crate) fn mde(row: &Row) -> String {
    match (row.detectable, row.a) {
        (Some(d), Some(a)) if a > 0.0 && ratio(row).is_some() => size(d / a),
        (Some(d), _) => value(Some(d), row.unit),
        (None, _) => "n/a".into(),
    }
}

/// The A/A noise: 95th percentile of half-against-half differences within a side, in % of its value; n/a if A is about 0.
pub(crate) fn noise(row: &Row) -> String {
    row.noise.filter(|_| ratio(row).is_some()).map_or("n/a".into(), size)
}

/// A verdict in one word, for narrow tables.
pub(crate) const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "better",
        Verdict::Worse => "WORSE",
        Verdict::Changed => "changed",
        Verdict::NoDetectableChange => "~",
        Verdict::NotEnoughData => "?",
    }
}

/// A verdict in full.
pub(crate) const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "better",
        Verdict::Worse => "WORSE",
        Verdict::Changed => "changed",
        Verdict::NoDetectableChange => "no detectable change",
        Verdict::NotEnoughData => "not enough data",
    }
}

/// Whether there were enough data for a verdict.
fn is_judged(row: &Row) -> bool {
    row.verdict != Verdict::NotEnoughData
}

/// Whether both sides have a value, so that more data could give a verdict.
fn has_values(row: &Row) -> bool {
    row.a.is_some() && row.b.is_some()
}

/// Whether a row's change is significant.
pub(crate) const fn is_change(row: &Row) -> bool {
    matches!(row.verdict, Verdict::Better | Verdict::Worse | Verdict::Changed)
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

/// Number of a side's entries that are compared.
pub(crate) fn entries(c: &Comparison, side: usize) -> u64 {
    c.mix.rows.iter().map(|r| r.entries[side]).sum()
}

/// Timer exits of a side by cause; n/a with the reason where they are not known.
pub(crate) fn timer_exits(side: &Side) -> String {
    let reasons: BTreeSet<String> =
        side.timer_exits.values().filter_map(|n| Some(n.as_ref().err()?.to_string())).collect();
    let reasons = reasons.into_iter().collect::<Vec<_>>().join("; ");
    if side.timer_exits.values().all(Result::is_err) {
        return format!("n/a ({reasons})");
    }
    let count = |n: &Result<u64, _>| n.as_ref().map_or("n/a".to_owned(), u64::to_string);
    let causes: Vec<_> = side.timer_exits.iter().map(|(cause, n)| format!("{} {}", cause.name(), count(n))).collect();
    let why = if reasons.is_empty() { String::new() } else { format!(" ({reasons})") };
    causes.join(", ") + &why
}

/// How an experiment alternated; none for recordings made one after the other.
pub(crate) fn alternation(c: &Comparison, setting: &Setting) -> Option<String> {
    let of = setting.sources[0].iter().filter_map(|s| s.header.experiment.as_ref());
    let experiments: Vec<_> = of.chain(setting.experiment.as_ref().filter(|_| setting.sources[0].is_empty())).collect();
    let first = experiments.first()?;
    let seeds: Vec<_> = experiments.iter().map(|e| e.seed.to_string()).collect();
    let planned: u64 = experiments.iter().map(|e| u64::from(e.rounds)).sum();
    let of_planned = if planned == c.units[0] as u64 { String::new() } else { format!(" of {planned}") };
    let ns = |n: u64| human(Some(n as f64), Unit::Ns);
    Some(format!(
        "alternately, in random order ({} {}): {}{of_planned} rounds of four windows of {}, {} left out after each switch",
        if seeds.len() == 1 { "seed" } else { "seeds" },
        seeds.join(", "),
        c.units[0],
        ns(first.window_ns),
        ns(first.washout_ns)
    ))
}

/// Whether either side ran on an emulated CPU.
pub(crate) fn is_emulated(setting: &Setting) -> bool {
    setting.sources.iter().flatten().any(|s| s.header.host.emulated)
}

/// The recordings of both sides, each once: the sides of an experiment are in one.
pub(crate) fn damaged(setting: &Setting) -> impl Iterator<Item = &Provenance> {
    let sides = if setting.experiment.is_some() { 1 } else { 2 };
    setting.sources.iter().take(sides).flatten()
}

/// The loss of a side; none without loss.
pub(crate) fn loss(side: &Side) -> Option<String> {
    let Totals { entries, delivered, dropped, malformed, not_kept, .. } = side.totals;
    let lost = dropped + malformed + not_kept;
    let mut text = String::new();
    if lost > 0 {
        let share = 100.0 * lost as f64 / entries.max(1) as f64;
        text = format!("{share:.3}% of {entries} entries: {dropped} dropped");
        if malformed > 0 {
            text += &format!(", {malformed} undecodable");
        }
        if not_kept > 0 {
            text += &format!(", {not_kept} over the series limit");
        }
    }
    if entries != delivered + dropped {
        let gap = if text.is_empty() { "" } else { "; " };
        text += &format!("{gap}THE KERNEL'S COUNT DISAGREES: do not trust these figures");
    }
    (!text.is_empty()).then_some(text)
}

/// The answer, in one sentence.
pub(crate) fn summary(c: &Comparison, setting: &Setting) -> String {
    let emulated = if is_emulated(setting) { " (EMULATED)" } else { "" };
    answer(c, setting) + emulated
}

fn answer(c: &Comparison, setting: &Setting) -> String {
    let conclusive = c.rows.iter().filter(|r| is_judged(r)).count();
    let unjudged = c.rows.iter().filter(|r| !is_judged(r) && has_values(r)).count();
    // Figures that have the same value in every unit (0/s against 0/s) are not tested, and say nothing about the others.
    let is_tested = c.rows.iter().any(|r| is_judged(r) && r.p.is_some());
    if conclusive == 0 || unjudged > 0 && !is_tested {
        return not_enough(c, setting);
    }
    let [worse, better, changed] = [Verdict::Worse, Verdict::Better, Verdict::Changed].map(|v| surest_first(c, v));
    let (a, b) = (side(0, setting), side(1, setting));
    let significant = worse.len() + better.len() + changed.len();
    let of_all = format!("{significant} of {} changed significantly", count_figures(conclusive));
    match (worse.is_empty(), better.is_empty()) {
        (false, true) => format!("{b} is WORSE: {}; {of_all}", top_two(&worse)),
        (true, false) => format!("{b} is better: {}; {of_all}", top_two(&better)),
        (false, false) => format!("{b} is WORSE in {}, better in {}; {of_all}", top_two(&worse), top_two(&better)),
        (true, true) if significant > 0 => {
            format!("{b} differs from {a}, but is neither better nor worse: {}; {of_all}", top_two(&changed))
        }
        (true, true) => {
            let has_mde = |r: &&Row| is_judged(r) && r.detectable.is_some() && r.a.is_some_and(|a| a > 0.0);
            let first = c.rows.iter().find(has_mde);
            let more = if unjudged == 0 { String::new() } else { format!("; not enough data for {unjudged} more") };
            let mde = first.map(|r| format!(" (MDE of {}: {})", name(r), mde(r))).unwrap_or_default();
            format!("no detectable change from {a} to {b} in any of {}{mde}{more}", count_figures(conclusive))
        }
    }
}

fn not_enough(c: &Comparison, setting: &Setting) -> String {
    let why = match c.rows.iter().filter(|r| !is_judged(r)).find_map(|r| r.why.as_deref()) {
        Some(why) if c.least_p <= c.alpha / c.rows.len().max(1) as f64 => why.to_owned(),
        _ => format!(
            "{} and {} rounds (or recordings, or blocks of windows) cannot give a p below {}",
            c.units[0],
            c.units[1],
            p_value(Some(c.least_p))
        ),
    };
    format!("NOT ENOUGH DATA to compare {} with {}: {why}", side(1, setting), side(0, setting))
}

/// The rows of a verdict, lowest adjusted p first. Of equal ones, those first of which A has about none: no ratio is larger.
fn surest_first(c: &Comparison, verdict: Verdict) -> Vec<&Row> {
    let mut rows: Vec<_> = c.rows.iter().filter(|r| r.verdict == verdict).collect();
    let p = |row: &Row| row.p_holm.unwrap_or(1.0);
    rows.sort_by(|a, b| p(a).total_cmp(&p(b)).then(ratio(a).is_some().cmp(&ratio(b).is_some())));
    rows
}

fn top_two(rows: &[&Row]) -> String {
    let text = |r: &&Row| format!("{} {} {}", name(r), change(r), interval(r));
    let first = rows.iter().take(2).map(text).collect::<Vec<_>>().join(", ");
    match rows.len().saturating_sub(2) {
        0 => first,
        more => format!("{first}, and {more} more"),
    }
}

fn count_figures(n: usize) -> String {
    if n == 1 { "1 figure".into() } else { format!("{n} figures") }
}

/// The message of `--fail-if`; none if the condition does not hold. `observed_ns` is the sum of both sides.
pub(crate) fn condition(condition: &Condition, row: &Row, result: ConditionResult, observed_ns: u64) -> Option<String> {
    let (change, interval) = if condition.is_relative() { relative(row) } else { difference(row) };
    match result {
        ConditionResult::DoesNotHold => None,
        ConditionResult::Holds => Some(format!(
            "FAIL {}: {change} {interval} is {} {}",
            name(row),
            if condition.is_above() { "above" } else { "below" },
            condition.limit_text()
        )),
        ConditionResult::Inconclusive => {
            let advice = match condition.growth_needed(row) {
                Some(growth) => {
                    let seconds = ((growth - 1.0) * observed_ns as f64 / 1e9).ceil().max(1.0);
                    format!("record at least {seconds:.0} more seconds")
                }
                None => "record longer".to_owned(),
            };
            let found = match &row.why {
                Some(why) if row.verdict == Verdict::NotEnoughData => why.clone(),
                _ => format!("{change} {interval}"),
            };
            Some(format!("--fail-if '{}': inconclusive: {found}: {advice}", condition.text))
        }
    }
}

/// Pairs of a raw and a stratified row that contradict each other: both are judged, and differently.
pub(crate) fn contradicting(c: &Comparison) -> Vec<(&Row, &Row)> {
    let pairs = c.stratified.iter().filter_map(|s| {
        let raw = c.rows.iter().find(|r| (r.figure, r.stat) == (s.figure, s.stat))?;
        (is_judged(raw) && is_judged(s) && raw.verdict != s.verdict).then_some((raw, s))
    });
    pairs.collect()
}

/// Whether the exit mixes differ by enough to be shown.
pub(crate) fn mix_differs(c: &Comparison) -> bool {
    c.mix.distance > 0.01 || c.mix.p.is_some_and(|p| p <= c.alpha)
}

/// Share of a side's entries that `entries` are; none without entries.
pub(crate) fn share(c: &Comparison, entries: u64, side: usize) -> Option<f64> {
    let all: u64 = c.mix.rows.iter().map(|r| r.entries[side]).sum();
    (all > 0).then(|| entries as f64 / all as f64)
}

/// "12.3%"; n/a for none.
pub(crate) fn share_text(share: Option<f64>) -> String {
    share.map_or("n/a".into(), |s| format!("{:.1}%", s * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::fixture::{comparison, setting};

    #[test]
    fn percentages_are_readable_at_every_size() {
        let texts = [0.0, 0.00123, 0.123, 1.5, 12.0, -0.5, 0.00001, -0.000_01].map(percent);
        assert_eq!(texts, ["0%", "+0.12%", "+12.3%", "+150%", "+1200%", "-50.0%", "0%", "0%"]);
        assert_eq!(signed(-1500.0, Unit::Ns), "-1.50us");
    }

    #[test]
    fn the_summary_names_the_worst_rows_and_counts_the_significant_ones() {
        let text = summary(&comparison(), &setting());
        assert!(text.starts_with("B (hard) is WORSE in "), "{text}");
        assert!(text.contains("pin_writes.mean +0.41"), "{text}");
        assert!(text.ends_with(" changed significantly (EMULATED)"), "{text}");
        let mut none = comparison();
        none.rows.iter_mut().for_each(|r| r.verdict = Verdict::NoDetectableChange);
        assert!(summary(&none, &setting()).starts_with("no detectable change from A (soft) to B (hard)"));
        none.rows.iter_mut().for_each(|r| r.verdict = Verdict::NotEnoughData);
        assert!(summary(&none, &setting()).starts_with("NOT ENOUGH DATA"));
    }

    #[test]
    fn of_equally_sure_rows_the_summary_names_those_first_of_which_a_has_none() {
        let mut all = comparison();
        all.rows.iter_mut().filter(|r| is_judged(r)).for_each(|r| {
            r.verdict = Verdict::Worse;
            r.p_holm = Some(0.001);
        });
        assert!(all.rows.iter().take_while(|r| r.figure != "pin_writes").count() > 2, "times come first");
        assert!(
            summary(&all, &setting()).starts_with("B (hard) is WORSE: pin_writes.mean "),
            "{}",
            summary(&all, &setting())
        );
    }

    #[test]
    fn the_summary_rests_on_judged_figures_only() {
        let mut few = comparison();
        few.rows.iter_mut().for_each(|r| r.verdict = Verdict::NotEnoughData);
        let at = few.rows.iter().position(|r| r.figure == "timer_exits.spurious").unwrap();
        let same = Row {
            a: Some(0.0),
            b: Some(0.0),
            p: None,
            p_holm: None,
            verdict: Verdict::NoDetectableChange,
            ..few.rows[at].clone()
        };
        few.rows[at] = same;
        let text = summary(&few, &setting());
        assert!(text.starts_with("NOT ENOUGH DATA"), "0/s against 0/s says nothing about the others: {text}");
        let judged = few.rows.iter().position(|r| name(r) == "entry_to_exit_ns.p99").unwrap();
        few.rows[judged] = Row {
            p: Some(0.9),
            detectable: Some(5.0),
            verdict: Verdict::NoDetectableChange,
            ..few.rows[judged].clone()
        };
        let text = summary(&few, &setting());
        let mde = format!("in any of 2 figures (MDE of {}: ", name(&few.rows[judged]));
        assert!(text.contains(&mde) && text.contains("; not enough data for "), "{text}");
    }

    #[test]
    fn a_condition_says_what_was_found_and_what_to_do() {
        let said = |text: &str| {
            let condition = text.parse::<Condition>().unwrap();
            let rows = comparison().rows;
            let (result, row) = condition.judge(&rows).unwrap();
            super::condition(&condition, row, result, 10_000_000_000)
        };
        let fail = said("entry_to_exit_ns.p99>+3%").unwrap();
        assert!(fail.starts_with("FAIL entry_to_exit_ns.p99: +17.8% [+13.7, +21.9]% is above +3%"), "{fail}");
        let fail = said("pin_writes.mean>+0.1").unwrap();
        assert_eq!(fail, "FAIL pin_writes.mean: +0.410 [+0.390, +0.430] is above +0.1");
        // The interval reaches 5 % in its upper half: 22 points to each side of 12.5 %, so (22 / 7.5)^2 times the data.
        let unclear = said("entry_to_exit_ns.p999>+5%").unwrap();
        assert!(
            unclear.contains("inconclusive: +12.5%") && unclear.ends_with("record at least 77 more seconds"),
            "{unclear}"
        );
        let none = said("entry_to_exit_ns.max>+3%").unwrap();
        assert!(none.ends_with("inconclusive: a maximum has no valid interval: record longer"), "{none}");
        assert_eq!(said("entry_to_exit_ns.p99>+50%"), None);
    }

    #[test]
    fn only_rows_that_are_judged_differently_contradict_each_other() {
        let mut c = comparison();
        let names = |c: &Comparison| contradicting(c).iter().map(|(raw, _)| name(raw)).collect::<Vec<_>>();
        assert_eq!(names(&c), ["entry_to_exit_ns.p99"], "WORSE raw, and not with one mix");
        // Worse by another amount, and not enough data on one way of looking at it.
        c.stratified[2] = Row { ratio: Some(Estimate { value: 1.5, low: None, high: None }), ..c.rows[2].clone() };
        c.stratified[0].verdict = Verdict::NotEnoughData;
        assert!(c.rows[4].verdict == Verdict::NotEnoughData && c.stratified[4].verdict == Verdict::NotEnoughData);
        c.stratified[4].verdict = Verdict::Worse;
        assert_eq!(names(&c), [""; 0]);
    }

    #[test]
    fn where_a_is_about_0_the_difference_is_shown_and_not_the_ratio() {
        let spurious = comparison().rows.into_iter().find(|r| r.figure == "timer_exits.spurious").unwrap();
        let of = |value, low: Option<f64>, high| Some(Estimate { value, low, high });
        let huge = Row {
            a: Some(0.02),
            b: Some(111.3),
            ratio: of(5563.1, Some(900.0), Some(20_000.0)),
            difference: of(111.3, Some(109.0), Some(114.0)),
            detectable: Some(2.0),
            noise: Some(3.0),
            ..spurious
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
    fn p_values_are_never_zero() {
        assert_eq!(p_value(Some(0.0)), "<.0001");
        assert_eq!(p_value(Some(0.0123)), "0.012");
        assert_eq!(p_value(None), "n/a");
    }
}
