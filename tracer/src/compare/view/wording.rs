//! How a comparison is put into words: the same in text, HTML and the summary of the JSON.

use crate::{
    compare::{Comparison, Estimate, Row, Setting, Side, Stratum, Verdict},
    html::is_deceptive,
    model::{
        exit_reasons,
        figures::{Unit, human},
        interval::Totals,
    },
};

/// "+12.3%" of 0.123.
pub fn percent(share: f64) -> String {
    let p = share * 100.0;
    let digits = match p.abs() {
        p if p < 0.995 => 2,
        p if p < 99.95 => 1,
        _ => 0,
    };
    let text = format!("{p:+.digits$}%");
    if text.trim_start_matches(['+', '-', '0', '.']) == "%" { "0%".into() } else { text }
}

/// The same without a sign, of what has no direction.
pub fn size(share: f64) -> String {
    percent(share.abs()).trim_start_matches('+').to_owned()
}

/// A value as people read it; rates of rare exits keep their digits.
pub fn value(value: Option<f64>, unit: Unit) -> String {
    match value {
        Some(v) if unit == Unit::PerSecond && v > 0.0 && v < 10.0 => format!("{v:.3}"),
        v => human(v, unit),
    }
}

/// "+1.23us".
pub fn signed(number: f64, unit: Unit) -> String {
    let sign = if number < 0.0 { "-" } else { "+" };
    let text = value(Some(number.abs()), unit);
    if text == value(Some(0.0), unit) { text } else { format!("{sign}{text}") }
}

/// "entry_to_exit_ns.p99": what a threshold of `--fail-if` names.
pub fn name(row: &Row) -> String {
    format!("{}.{}", row.figure, row.stat)
}

/// B against A: in % where A is something, else the difference.
pub fn change(row: &Row) -> String {
    match (row.ratio, row.difference) {
        (Some(ratio), _) => percent(ratio.value - 1.0),
        (None, Some(d)) => signed(d.value, row.unit),
        (None, None) => "n/a".into(),
    }
}

/// The interval of [`change`]; a bound without a value is "?".
pub fn interval(row: &Row) -> String {
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

/// A chance.
pub fn chance(p: Option<f64>) -> String {
    match p {
        None => "n/a".into(),
        Some(p) if p < 0.0001 => "<.0001".into(),
        Some(p) if p < 0.001 => format!("{p:.4}"),
        Some(p) => format!("{p:.3}"),
    }
}

/// The smallest change that would have been seen, as a share of A where A is something.
pub fn detectable(row: &Row) -> String {
    match (row.detectable, row.a) {
        (Some(d), Some(a)) if a > 0.0 => size(d / a),
        (Some(d), _) => value(Some(d), row.unit),
        (None, _) => "n/a".into(),
    }
}

/// How far a side is from itself.
pub fn noise(row: &Row) -> String {
    row.noise.map_or("n/a".into(), size)
}

/// A verdict in one word, for narrow tables; "~" where there is nothing to tell.
pub const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "better",
        Verdict::Worse => "WORSE",
        Verdict::Changed => "changed",
        Verdict::NoDetectableChange => "~",
        Verdict::NotEnoughData => "?",
    }
}

/// A verdict in words.
pub const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "better",
        Verdict::Worse => "WORSE",
        Verdict::Changed => "changed",
        Verdict::NoDetectableChange => "no detectable change",
        Verdict::NotEnoughData => "not enough data",
    }
}

/// Whether a row says that something is different, beyond chance.
pub const fn is_change(row: &Row) -> bool {
    matches!(row.verdict, Verdict::Better | Verdict::Worse | Verdict::Changed)
}

/// A name from a recording, fit for a terminal.
pub fn clean(name: &str) -> String {
    name.chars().map(|c| if is_deceptive(c) { '\u{fffd}' } else { c }).collect()
}

/// "B (hard)".
pub fn side(side: usize, setting: &Setting) -> String {
    format!("{} ({})", ["A", "B"][side], clean(&setting.names[side]))
}

/// "L1 PREEMPTION_TIMER (spurious)".
pub fn kind(stratum: &Stratum) -> String {
    let reason = stratum.reason.map_or("reason n/a".into(), |r| exit_reasons::name(stratum.isa as u32, r).into_owned());
    let cause = stratum.cause.map(|c| format!(" ({})", c.name())).unwrap_or_default();
    match stratum.level.name() {
        "unknown" => format!("{reason}{cause}"),
        level => format!("{level} {reason}{cause}"),
    }
}

/// Entries of a side that are compared.
pub fn entries(c: &Comparison, side: usize) -> u64 {
    c.mix.rows.iter().map(|r| r.entries[side]).sum()
}

/// Timer exits of a side by cause; n/a where they are not known.
pub fn timer_exits(c: &Comparison, side: &Side) -> String {
    if !knows_timer(c) {
        return "n/a".into();
    }
    let causes: Vec<_> = side.timer_exits.iter().map(|(cause, n)| format!("{} {n}", cause.name())).collect();
    if causes.is_empty() { "none".into() } else { causes.join(", ") }
}

/// Whether timer exits are known: there is VMX, and an entry.
pub fn knows_timer(c: &Comparison) -> bool {
    c.rows.iter().any(|r| r.figure.starts_with("timer_exits.") && (r.a.is_some() || r.b.is_some()))
}

/// How an experiment was made; none of recordings made one after the other.
pub fn turns(c: &Comparison, setting: &Setting) -> Option<String> {
    let of = setting.sources[0].iter().filter_map(|s| s.header.experiment.as_ref());
    let experiments: Vec<_> = of.chain(setting.experiment.as_ref().filter(|_| setting.sources[0].is_empty())).collect();
    let first = experiments.first()?;
    let seeds: Vec<_> = experiments.iter().map(|e| e.seed.to_string()).collect();
    let planned: u64 = experiments.iter().map(|e| u64::from(e.rounds)).sum();
    let of_planned = if planned == c.units[0] as u64 { String::new() } else { format!(" of {planned}") };
    let ns = |n: u64| human(Some(n as f64), Unit::Ns);
    Some(format!(
        "by turns in random order ({} {}): {}{of_planned} rounds of four windows of {}, {} left out after each switch",
        if seeds.len() == 1 { "seed" } else { "seeds" },
        seeds.join(", "),
        c.units[0],
        ns(first.window_ns),
        ns(first.washout_ns)
    ))
}

/// Whether either side's times are of an emulated CPU.
pub fn is_emulated(setting: &Setting) -> bool {
    setting.sources.iter().flatten().any(|s| s.header.host.emulated)
}

/// What is missing from a side; none where nothing is.
pub fn loss(side: &Side) -> Option<String> {
    let Totals { entries, delivered, dropped, malformed, not_kept, .. } = side.totals;
    let lost = dropped + malformed + not_kept;
    let mut text = String::new();
    if lost > 0 {
        let share = 100.0 * lost as f64 / entries.max(1) as f64;
        text = format!("{share:.3}% of {entries} entries: {dropped} dropped");
        if malformed > 0 {
            text += &format!(", {malformed} malformed");
        }
        if not_kept > 0 {
            text += &format!(", {not_kept} beyond the bound of series");
        }
    }
    if entries != delivered + dropped {
        let gap = if text.is_empty() { "" } else { "; " };
        text += &format!("{gap}THE KERNEL'S COUNT DISAGREES: do not trust these figures");
    }
    (!text.is_empty()).then_some(text)
}

/// The answer, in one sentence.
pub fn summary(c: &Comparison, setting: &Setting) -> String {
    let emulated = if is_emulated(setting) { " (EMULATED)" } else { "" };
    answer(c, setting) + emulated
}

fn answer(c: &Comparison, setting: &Setting) -> String {
    // The surest first.
    let of = |v: Verdict| {
        let mut rows: Vec<_> = c.rows.iter().filter(|r| r.verdict == v).collect();
        rows.sort_by(|a, b| a.p_holm.unwrap_or(1.0).total_cmp(&b.p_holm.unwrap_or(1.0)));
        rows
    };
    let (worse, better, changed) = (of(Verdict::Worse), of(Verdict::Better), of(Verdict::Changed));
    let told = c.rows.iter().filter(|r| r.verdict != Verdict::NotEnoughData).count();
    let seen = worse.len() + better.len() + changed.len();
    let (a, b) = (side(0, setting), side(1, setting));
    let say = |r: &&Row| format!("{} {} {}", name(r), change(r), interval(r));
    let first = |rows: &[&Row]| {
        let more = rows.len().saturating_sub(2);
        let text = rows.iter().take(2).map(say).collect::<Vec<_>>().join(", ");
        if more > 0 { format!("{text}, and {more} more") } else { text }
    };
    let figures = |n: usize| if n == 1 { "1 figure".into() } else { format!("{n} figures") };
    if told == 0 {
        let [units_a, units_b] = c.units;
        let why = match c.rows.iter().find_map(|r| r.why.as_deref()) {
            Some(why) if c.least_p <= c.alpha / c.rows.len().max(1) as f64 => why.to_owned(),
            _ => format!(
                "{units_a} and {units_b} rounds (or recordings, or blocks of windows) cannot give a p below {}",
                chance(Some(c.least_p))
            ),
        };
        return format!("NOT ENOUGH DATA to compare {b} with {a}: {why}");
    }
    let beyond = format!("{seen} of {} changed beyond chance", figures(told));
    match (worse.is_empty(), better.is_empty()) {
        (false, true) => format!("{b} is WORSE: {}; {beyond}", first(&worse)),
        (true, false) => format!("{b} is better: {}; {beyond}", first(&better)),
        (false, false) => format!("{b} is WORSE in {}, better in {}; {beyond}", first(&worse), first(&better)),
        (true, true) if seen > 0 => {
            format!("{b} is neither better nor worse than {a}, but other: {}; {beyond}", first(&changed))
        }
        (true, true) => {
            let least = c.rows.iter().find(|r| r.detectable.is_some() && r.a.is_some_and(|a| a > 0.0));
            let least = least.map(|r| {
                format!(" (a change of {} by {} would have been seen in 4 of 5 times)", name(r), detectable(r))
            });
            format!("no detectable change from {a} to {b} in any of {}{}", figures(told), least.unwrap_or_default())
        }
    }
}

/// Rows of the stratified comparison that say something else than the raw ones: another verdict, or a change that differs by more
/// than noise.
pub fn contradicting(c: &Comparison) -> Vec<(&Row, &Row)> {
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

/// Shares of both mixes, and whether they differ by enough to be shown: a share of the entries that is not noise.
pub fn is_mix_apart(c: &Comparison) -> bool {
    c.mix.distance > 0.01 || c.mix.p.is_some_and(|p| p <= c.alpha)
}

/// A side's share of a kind of exit; none without entries.
pub fn share(c: &Comparison, entries: u64, side: usize) -> Option<f64> {
    let all: u64 = c.mix.rows.iter().map(|r| r.entries[side]).sum();
    (all > 0).then(|| entries as f64 / all as f64)
}

/// Plain percentage of a share.
pub fn share_text(share: Option<f64>) -> String {
    share.map_or("n/a".into(), |s| format!("{:.1}%", s * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::fixture::{comparison, setting};

    #[test]
    fn percentages_keep_their_meaning_at_every_size() {
        let texts = [0.0, 0.00123, 0.123, 1.5, 12.0, -0.5, 0.00001, -0.000_01].map(percent);
        assert_eq!(texts, ["0%", "+0.12%", "+12.3%", "+150%", "+1200%", "-50.0%", "0%", "0%"]);
        assert_eq!(signed(-1500.0, Unit::Ns), "-1.50us");
    }

    #[test]
    fn the_summary_names_what_got_worse_and_how_many_figures_changed() {
        let text = summary(&comparison(), &setting());
        assert!(text.starts_with("B (hard) is WORSE in "), "{text}");
        assert!(text.contains("pin_writes.mean +0.41"), "{text}");
        assert!(text.ends_with(" changed beyond chance (EMULATED)"), "{text}");
        let mut none = comparison();
        none.rows.iter_mut().for_each(|r| r.verdict = Verdict::NoDetectableChange);
        assert!(summary(&none, &setting()).starts_with("no detectable change from A (soft) to B (hard)"));
        none.rows.iter_mut().for_each(|r| r.verdict = Verdict::NotEnoughData);
        assert!(summary(&none, &setting()).starts_with("NOT ENOUGH DATA"));
    }

    #[test]
    fn chances_are_never_zero() {
        assert_eq!(chance(Some(0.0)), "<.0001");
        assert_eq!(chance(Some(0.0123)), "0.012");
        assert_eq!(chance(None), "n/a");
    }
}
