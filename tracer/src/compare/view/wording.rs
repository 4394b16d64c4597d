//! The words of a comparison, shared by text, HTML and the JSON's summary.

use crate::{
    compare::{
        Comparison, Estimate, Row, Setting, Side, Stratum, Verdict,
        condition::{Condition, ConditionResult},
    },
    html::is_deceptive,
    model::{
        exit_reasons,
        figures::{Unit, human},
        totals::Totals,
    },
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

/// B against A: in %, or the difference if A is 0.
pub(crate) fn change(row: &Row) -> String {
    match (row.ratio, row.difference) {
        (Some(ratio), _) => percent(ratio.value - 1.0),
        (None, Some(d)) => signed(d.value, row.unit),
        (None, None) => "n/a".into(),
    }
}

/// The confidence interval of [`change`]; "?" for a bound that is not known.
pub(crate) fn interval(row: &Row) -> String {
    let bounds = |e: Estimate, show: &dyn Fn(f64) -> String| {
        if e.low.is_none() && e.high.is_none() {
            return "n/a".into();
        }
        let [low, high] = [e.low, e.high].map(|b| b.map_or("?".into(), show));
        format!("[{low}, {high}]")
    };
    match (row.ratio, row.difference) {
        // One % sign is enough for both.
        (Some(ratio), _) => bounds(ratio, &|v| percent(v - 1.0).trim_end_matches('%').to_owned()).replace(']', "]%"),
        (None, Some(d)) => bounds(d, &|v| signed(v, row.unit)),
        (None, None) => "n/a".into(),
    }
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

/// The minimum detectable effect, in % of A, or as a difference if A is 0.
pub(crate) fn mde(row: &Row) -> String {
    match (row.detectable, row.a) {
        (Some(d), Some(a)) if a > 0.0 => size(d / a),
        (Some(d), _) => value(Some(d), row.unit),
        (None, _) => "n/a".into(),
    }
}

/// The A/A noise: 95th percentile of half-against-half differences within a side.
pub(crate) fn noise(row: &Row) -> String {
    row.noise.map_or("n/a".into(), size)
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

/// Whether a row's change is significant.
pub(crate) const fn is_change(row: &Row) -> bool {
    matches!(row.verdict, Verdict::Better | Verdict::Worse | Verdict::Changed)
}

/// A name from a recording, safe for a terminal.
pub(crate) fn clean(name: &str) -> String {
    name.chars().map(|c| if is_deceptive(c) { '\u{fffd}' } else { c }).collect()
}

/// "B (hard)".
pub(crate) fn side(side: usize, setting: &Setting) -> String {
    format!("{} ({})", ["A", "B"][side], clean(&setting.names[side]))
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

/// Timer exits of a side by cause; n/a if they are not known.
pub(crate) fn timer_exits(c: &Comparison, side: &Side) -> String {
    if !knows_timer(c) {
        return "n/a".into();
    }
    let causes: Vec<_> = side.timer_exits.iter().map(|(cause, n)| format!("{} {n}", cause.name())).collect();
    if causes.is_empty() { "none".into() } else { causes.join(", ") }
}

/// Whether timer exits are known: on VMX, with at least one entry.
pub(crate) fn knows_timer(c: &Comparison) -> bool {
    c.rows.iter().any(|r| r.figure.starts_with("timer_exits.") && (r.a.is_some() || r.b.is_some()))
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
    let conclusive = c.rows.iter().filter(|r| r.verdict != Verdict::NotEnoughData).count();
    if conclusive == 0 {
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
            let first = c.rows.iter().find(|r| r.detectable.is_some() && r.a.is_some_and(|a| a > 0.0));
            let mde = first.map(|r| format!(" (MDE of {}: {})", name(r), mde(r))).unwrap_or_default();
            format!("no detectable change from {a} to {b} in any of {}{mde}", count_figures(conclusive))
        }
    }
}

fn not_enough(c: &Comparison, setting: &Setting) -> String {
    let why = match c.rows.iter().find_map(|r| r.why.as_deref()) {
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

/// The rows of a verdict, lowest adjusted p first.
fn surest_first(c: &Comparison, verdict: Verdict) -> Vec<&Row> {
    let mut rows: Vec<_> = c.rows.iter().filter(|r| r.verdict == verdict).collect();
    rows.sort_by(|a, b| a.p_holm.unwrap_or(1.0).total_cmp(&b.p_holm.unwrap_or(1.0)));
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

/// The difference of the sides, and its confidence interval.
fn difference(row: &Row) -> (String, String) {
    let Some(Estimate { value, low, high }) = row.difference else { return ("n/a".into(), "n/a".into()) };
    let [low, high] = [low, high].map(|b| b.map_or("?".into(), |b| signed(b, row.unit)));
    (signed(value, row.unit), format!("[{low}, {high}]"))
}

/// The message of `--fail-if`; none if the condition does not hold. `observed_ns` is the sum of both sides.
pub(crate) fn condition(condition: &Condition, row: &Row, result: ConditionResult, observed_ns: u64) -> Option<String> {
    let (change, interval) = if condition.is_relative() { (change(row), interval(row)) } else { difference(row) };
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

/// Pairs of a raw and a stratified row that disagree: another verdict, or ratios that differ by more than the A/A noise.
pub(crate) fn contradicting(c: &Comparison) -> Vec<(&Row, &Row)> {
    let ratio = |r: &Row| r.ratio.map(|e| e.value);
    let pairs = c.stratified.iter().filter_map(|s| {
        let raw = c.rows.iter().find(|r| (r.figure, r.stat) == (s.figure, s.stat))?;
        let apart = match (ratio(raw), ratio(s)) {
            (Some(x), Some(y)) => (x - y).abs() > raw.noise.unwrap_or(0.0).max(0.005),
            _ => false,
        };
        (raw.verdict != s.verdict || apart).then_some((raw, s))
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
    fn p_values_are_never_zero() {
        assert_eq!(p_value(Some(0.0)), "<.0001");
        assert_eq!(p_value(Some(0.0123)), "0.012");
        assert_eq!(p_value(None), "n/a");
    }
}
