//! Both sides in words: entries, timer exits, loss, and how an experiment alternated.

use std::collections::BTreeSet;

use super::numbers::counted;
use crate::{
    compare::{Comparison, Setting, Side},
    model::{
        figures::{Figure, Unit, human},
        totals::Totals,
    },
    output::grouped,
    recording::Provenance,
};

/// Number of a side's entries that are compared.
pub(crate) fn entries(c: &Comparison, side: usize) -> u64 {
    c.mix.rows.iter().map(|r| r.entries[side]).sum()
}

/// Entries of a side that are not compared, because their vCPUs came, went or paused; none if there are none.
pub(crate) fn left_out(side: &Side) -> Option<String> {
    (side.left_out > 0).then(|| format!("{} left out with vCPUs that were absent", grouped(side.left_out)))
}

/// Pin-control writes of both sides as counts: "1 in 52,127 entries of A, 5,651 in 52,951 of B"; none if they are not compared.
pub(crate) fn pin_writes(c: &Comparison) -> Option<String> {
    let row = c.rows.iter().find(|r| r.figure == Figure::PinWrites.name())?;
    row.a.zip(row.b)?;
    let (a, b) = (grouped(c.a.pin_writes?), grouped(c.b.pin_writes?));
    let of_b = grouped(row.count_b);
    Some(format!("pin writes: {a} in {} of A, {b} in {of_b} of B", counted(row.count_a, "entry")))
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
    let rounds = match c.units[0] as u64 {
        all if all == planned => counted(all, "round"),
        some => format!("{} of {}", grouped(some), counted(planned, "round")),
    };
    let ns = |n: u64| human(Some(n as f64), Unit::Ns);
    Some(format!(
        "alternately, in random order ({} {}): {rounds} of four windows of {}, {} left out after each switch",
        if seeds.len() == 1 { "seed" } else { "seeds" },
        seeds.join(", "),
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
        text = format!("{share:.3}% of {}: {dropped} dropped", counted(entries, "entry"));
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
