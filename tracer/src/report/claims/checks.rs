//! Values for the claims, each with its figure, its counts and its recordings, or the reason why there is none.

use std::collections::BTreeSet;

use tracer_common::rules::TimerCause;

use super::{Counts, Finding};
use crate::{
    model::{
        figures::{Figure, Unit, human},
        histogram::Histogram,
        knowledge::{Subject, Unknown},
        measurement::Latency,
        series::{EntryKind, Key, Level},
    },
    recording::Provenance,
    report::Report,
};

/// Least number of dirty and of clean entries for a ratio.
const LEAST_ENTRIES: u64 = 30;
/// Bounds of "roughly 1 in 10 entries", as shares.
const ROUGHLY_A_TENTH: (f64, f64) = (0.05, 0.2);
/// Below this share, entries count as none.
const NONE: f64 = 0.001;
/// The least longest timer delay with which KVM uses the timer, s.
const LEAST_DELAY_S: f64 = 10.0;

type Found = Result<Finding, String>;

/// Compares `transition_ns`, which contains no guest time: of entries that were forced to exit at once, or of all with the stopwatch.
pub(super) fn dirty_against_clean(report: &Report) -> Found {
    if report.is_emulated() {
        return Err(
            "times of an emulated CPU say nothing about real hardware: 'vmentry calibrate' measures them there".into(),
        );
    }
    if report.latency() != Latency::Clean {
        return Err(
            "hooks on VMCS writes ran before the VM entries: record without --exact-writes and --verify-writes".into(),
        );
    }
    let sources: BTreeSet<_> = report.sources.iter().map(|s| s.header.transition_source()).collect();
    if sources.len() > 1 {
        return Err("only some recordings have the stopwatch's transition_ns: report on them separately".into());
    }
    let of = |kind| report.transitions(kind).map_err(|reason| reason.to_string());
    let (dirty, clean) = (of(EntryKind::Dirty)?, of(EntryKind::Clean)?);
    if dirty.count() < LEAST_ENTRIES || clean.count() < LEAST_ENTRIES {
        return Err(format!(
            "{} dirty and {} clean entries whose transition_ns is known (forced immediate exits, or all with the stopwatch): \
             {LEAST_ENTRIES} of each are needed; 'vmentry calibrate' provokes writes and measures them",
            dirty.count(),
            clean.count()
        ));
    }
    let (Some((d_low, d, d_high)), Some((c_low, c, c_high))) = (median(&dirty), median(&clean)) else {
        return Err("no entries".into());
    };
    let ratio = |a: u64, b: u64| a as f64 / b.max(1) as f64;
    let (low, high) = (ratio(d_low, c_high), ratio(d_high, c_low));
    Ok(Finding {
        measured: format!("{:.2} times [{low:.2}, {high:.2}]", ratio(d, c)),
        from: format!(
            "medians of transition_ns, {} dirty against {} clean, of {} and {} entries; VM entry + VM exit without guest code, so \
             the ratio of the VM-entry latencies, which 'vmentry calibrate' measures, is larger; 95 % confidence interval by order \
             statistics, which takes entries as independent; agrees if all of it is above 2",
            human(Some(d as f64), Unit::Ns),
            human(Some(c as f64), Unit::Ns),
            dirty.count(),
            clean.count()
        ),
        // A ratio up to 2 of the whole transition leaves the ratio of its first half open.
        agrees: (low > 2.0).then_some(true),
        recordings: names(report, |_| true),
        ..Finding::default()
    })
}

/// Median and its 97.5 % confidence interval (95 % for a ratio of two), for any distribution: the ranks n/2 -+ 2.24 sqrt(n)/2 of the
/// sorted values.
fn median(histogram: &Histogram) -> Option<(u64, u64, u64)> {
    let n = histogram.count() as f64;
    let reach = 2.2414 * n.sqrt() / 2.0;
    let at = |rank: f64| histogram.quantile((rank / n).clamp(0.0, 1.0));
    Some((at(n / 2.0 - reach)?, at(n / 2.0)?, at(n / 2.0 + reach + 1.0)?))
}

/// The entries of guests that ran no guest themselves: "in a non-nested scenario".
pub(super) fn toggles(report: &Report) -> Found {
    let hypervisors = hypervisors(report);
    let counts = at_least(1, &pin_writes(report, |key| !hypervisors.contains(&key.vm))?);
    if counts.of == 0 && !hypervisors.is_empty() {
        return Err("every VM ran nested guests, and the claim is about a guest without".into());
    }
    let (low, high) = ROUGHLY_A_TENTH;
    let agrees = |share| (low..=high).contains(&share);
    let from = format!(
        "entries with a pin write, VMs without nested guests; depends on the guest's work; agrees from {} to {} %",
        100.0 * low,
        100.0 * high
    );
    share(counts, agrees, from, names(report, |vm| !hypervisors.contains(&vm)))
}

pub(super) fn nested(report: &Report) -> Found {
    let counts = at_least(2, &pin_writes(report, |key| key.level == Level::L2)?);
    if counts.of == 0 {
        return Err("no L2 entry: no VM ran a nested guest".into());
    }
    let hypervisors = hypervisors(report);
    let from = "L2 entries with two pin writes; agrees above 50 %".into();
    share(counts, |share| share > 0.5, from, names(report, |vm| hypervisors.contains(&vm)))
}

pub(super) fn soft(report: &Report) -> Found {
    let all = report.values(Figure::PinWrites, |_| true).map_err(|reason| reason.to_string())?;
    let counts = at_least(1, &all);
    // vmcs01 and vmcs02 of a vCPU.
    let vmcss: BTreeSet<_> = report.whole.series.keys().map(|key| (key.vm, key.vcpu, key.level)).collect();
    let agrees = |share| share < NONE || counts.entries <= vmcss.len() as u64;
    let from = format!(
        "entries with a pin write, L1 and L2; a VMCS's first write is one of them, so it agrees up to {} (a VMCS each), or below {} %",
        vmcss.len(),
        100.0 * NONE
    );
    share(counts, agrees, from, names(report, |_| true))
}

pub(super) fn spurious(report: &Report) -> Found {
    let count = report.timer_exits(TimerCause::Spurious).map_err(|reason| reason.to_string())?;
    let tick = tickless(report);
    let found = |measured, from, agrees| {
        Ok(Finding { measured, from, agrees, counts: None, recordings: names(report, |_| true) })
    };
    if count == 0 {
        return found("0".into(), format!("timer exits while soft-disabled; {tick}"), Some(true));
    }
    let delay = report.sources.iter().find_map(|s| s.longest_timer_delay_s().ok());
    let delay_text = delay.map_or("n/a".into(), |s| format!("{s:.1} s"));
    let from =
        format!("timer exits while soft-disabled, and their guest time; longest timer delay {delay_text}; {tick}");
    let Some((least, _)) = report.spurious_after() else {
        return found(format!("{count}"), from + "; their guest time is not known", None);
    };
    // One percent for the timer's tick and the TSC's measurement.
    let agrees = delay.map(|delay| least as f64 >= 0.99e9 * delay);
    found(format!("{count}, the earliest after {}", human(Some(least as f64), Unit::Ns)), from, agrees)
}

/// The tickless CPUs of the recordings, for people.
fn tickless(report: &Report) -> String {
    let of = |s: &Provenance| s.header.tickless_cpus.clone();
    match report.sources.iter().filter_map(of).find(|cpus| !cpus.is_empty()) {
        Some(cpus) => format!("tickless CPUs {cpus}"),
        None if report.sources.iter().all(|s| of(s).is_some()) => "no CPU is tickless".into(),
        None => "tickless CPUs n/a: the recording does not tell them".into(),
    }
}

pub(super) fn delay(report: &Report) -> Found {
    let first = report.sources.first().ok_or("there is no recording")?;
    // Not one with the timer switched off by its user, if there is another.
    let uses = |s: &&Provenance| s.header.timer.as_ref().is_some_and(|timer| timer.used == Some(true));
    let described = |s: &&Provenance| s.header.timer.is_some();
    let source = report.sources.iter().find(uses).or_else(|| report.sources.iter().find(described)).unwrap_or(first);
    let delay = source.longest_timer_delay_s().map_err(|reason| reason.to_string())?;
    let used = source.header.timer.as_ref().and_then(|t| t.used);
    let (uses, agrees) = match used {
        Some(true) => ("KVM uses it", Some(delay >= LEAST_DELAY_S)),
        // Its user, too, may have switched it off.
        Some(false) => ("KVM does not use it", (delay < LEAST_DELAY_S).then_some(true)),
        None => ("use n/a", None),
    };
    Ok(Finding {
        measured: format!("{delay:.1} s, and {uses}"),
        from: "(2^32 - 1) << rate TSC cycles, rate from IA32_VMX_MISC, TSC measured".into(),
        agrees,
        counts: None,
        recordings: vec![source.name.clone()],
    })
}

pub(super) fn fallback(report: &Report) -> Found {
    let timer = report.all_timer_exits().map_err(|reason| reason.to_string())?;
    let entries = report.whole.totals.entries;
    Ok(Finding {
        measured: format!("{timer} timer exits among {entries} entries"),
        from: "timer exits with preemption_timer=N; whether KVM sent itself an IPI is not recorded".into(),
        agrees: (entries > 0).then_some(timer == 0),
        counts: None,
        recordings: names(report, |_| true),
    })
}

/// The VMs that ran a guest of their own.
fn hypervisors(report: &Report) -> BTreeSet<u32> {
    report.whole.series.keys().filter(|key| key.level == Level::L2).map(|key| key.vm).collect()
}

/// Pin writes of the entries whose keys pass.
fn pin_writes(report: &Report, passes: impl Fn(&Key) -> bool) -> Result<Histogram, String> {
    report.knowledge().known(Subject::Level).map_err(Unknown::to_string)?;
    report.values(Figure::PinWrites, passes).map_err(|reason| reason.to_string())
}

/// Entries with at least `least` writes, of all entries.
fn at_least(least: u64, writes: &Histogram) -> Counts {
    Counts { entries: writes.buckets().filter(|b| b.0 >= least).map(|b| b.2).sum(), of: writes.count() }
}

/// A share of entries, for people and by number.
fn share(counts: Counts, agrees: impl Fn(f64) -> bool, from: String, recordings: Vec<String>) -> Found {
    let Counts { entries, of } = counts;
    if of == 0 {
        return Err("no entry whose pin writes are known".into());
    }
    let share = entries as f64 / of as f64;
    let percent =
        if entries > 0 && share < NONE { format!("{:.4}", 100.0 * share) } else { format!("{:.1}", 100.0 * share) };
    let measured = format!("{percent} % ({entries} of {of})");
    Ok(Finding { measured, counts: Some(counts), from, agrees: Some(agrees(share)), recordings })
}

/// Names of the recordings that have entries of these VMs.
fn names(report: &Report, is_wanted: impl Fn(u32) -> bool) -> Vec<String> {
    let seen: BTreeSet<usize> = report
        .seen_in
        .iter()
        .filter(|(vm, _)| is_wanted(**vm))
        .flat_map(|(_, sources)| sources.iter().copied())
        .collect();
    seen.into_iter().filter_map(|at| report.sources.get(at)).map(|source| source.name.clone()).collect()
}
