//! Values for the claims, each with its figure, its counts and its recordings, or the reason why there is none.

use std::collections::BTreeSet;

use tracer_common::rules::TimerCause;

use super::{Counts, Finding};
use crate::{
    model::{
        figures::{Figure, Unit, human},
        histogram::Histogram,
        knowledge::{Subject, Unknown},
        measurement::{Latency, SoftDelay},
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
    if report.sources.iter().any(Provenance::has_stopwatch) {
        return Err("the companion patch's stopwatch restarts the timer, so that spurious exits are normal".into());
    }
    let tick = tickless(report);
    let found = |measured, from, agrees| {
        Ok(Finding { measured, from, agrees, counts: None, recordings: names(report, |_| true) })
    };
    if count == 0 {
        return found("0".into(), format!("timer exits while soft-disabled; {tick}"), Some(true));
    }
    let promised = report.soft_delay().ok().map(|delay| delay.promised_ns as f64 / 1e9);
    let delay = promised.or_else(|| report.sources.iter().find_map(|s| s.longest_timer_delay_s().ok()));
    let delay_text = delay.map_or("n/a".into(), |s| format!("{s:.1} s"));
    let from = format!(
        "timer exits while soft-disabled, and their guest time; longest timer delay {delay_text}{}; {tick}",
        by_erratum(report.soft_delay().ok())
    );
    let Some((least, _)) = report.spurious_after() else {
        return found(format!("{count}"), from + "; their guest time is not known", None);
    };
    // One percent for the timer's tick and the TSC's measurement.
    let agrees = delay.map(|delay| least as f64 >= 0.99e9 * delay);
    found(format!("{count}, the earliest after {}", human(Some(least as f64), Unit::Ns)), from, agrees)
}

/// The real delay of a soft-disabled timer where erratum EMR158 makes it shorter than promised; empty elsewhere.
fn by_erratum(delay: Option<SoftDelay>) -> String {
    let real = delay.and_then(|delay| delay.real_ns.filter(|real| *real < delay.least_ns()));
    real.map_or_else(String::new, |ns| format!(", {:.1} s by erratum EMR158's model", ns as f64 / 1e9))
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
    let real = source.header.soft_delay.and_then(|delay| delay.real_ns).map_or(delay, |ns| ns as f64 / 1e9);
    let used = source.header.timer.as_ref().and_then(|t| t.used);
    let (uses, agrees) = match used {
        // KVM computes the delay without the erratum, which may leave less than the ten seconds.
        Some(true) => ("KVM uses it", Some(real.min(delay) >= LEAST_DELAY_S)),
        // Its user, too, may have switched it off.
        Some(false) => ("KVM does not use it", (delay < LEAST_DELAY_S).then_some(true)),
        None => ("use n/a", None),
    };
    Ok(Finding {
        measured: format!("{delay:.1} s{}, and {uses}", by_erratum(source.header.soft_delay)),
        from: "largest value << rate TSC cycles, rate from IA32_VMX_MISC, TSC measured".into(),
        agrees,
        counts: None,
        recordings: vec![source.name.clone()],
    })
}

/// The delay of a soft-disabled timer: the commit's 55 s are those of a TSC of 2.4 GHz and a timer at 1/32 of it.
pub(super) fn fires_after(report: &Report) -> Found {
    let delay = report.soft_delay().map_err(|reason| reason.to_string())?;
    let promised = delay.promised_ns as f64 / 1e9;
    let seen = report.spurious_after().map(|(least, _)| human(Some(least as f64), Unit::Ns));
    Ok(Finding {
        measured: format!("{promised:.1} s{}", by_erratum(Some(delay))),
        from: match seen {
            Some(least) => format!(
                "value of a soft-disabled timer << rate TSC cycles; the earliest spurious exit came after {least}"
            ),
            None => "value of a soft-disabled timer << rate TSC cycles; no spurious exit was recorded".into(),
        },
        // The figure is an example: it holds where a timer runs for as long as its value says.
        agrees: delay.real_ns.map(|real| real >= delay.least_ns()),
        counts: None,
        recordings: names(report, |_| true),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tracer_common::{Event, Flags};

    use super::*;
    use crate::{
        model::{
            interval::{
                Interval,
                tests::{event, vm},
            },
            measurement::Timer,
        },
        report::tests::report,
    };

    fn with(events: impl IntoIterator<Item = (Event, u32)>) -> Report {
        let mut report = report();
        let mut interval = Interval::starting(0);
        events.into_iter().for_each(|(event, id)| interval.record(&event, &vm(id)));
        report.add(0, interval, &mut BTreeMap::new());
        report
    }

    fn with_immediate(dirty: u64, clean: u64) -> Report {
        let immediate = |ns, writes| {
            let e = event(0, 52, ns, writes);
            (Event { flags: e.flags | Flags::IMMEDIATE, ..e }, 0)
        };
        with((0..dirty).map(|n| immediate(2000 + n, 1)).chain((0..clean).map(|n| immediate(900 + n, 0))))
    }

    #[test]
    fn the_ratio_is_of_transitions() {
        let ratio = dirty_against_clean(&with_immediate(40, 40)).unwrap();
        assert!(ratio.measured.starts_with("2.20 times [2.1"), "{}", ratio.measured);
        assert_eq!(ratio.agrees, Some(true));
        assert!(dirty_against_clean(&with_immediate(29, 40)).is_err());
        let mut disturbed = with_immediate(40, 40);
        disturbed.sources[0].header.latency = Latency::Disturbed;
        assert!(dirty_against_clean(&disturbed).is_err());
        let mut emulated = with_immediate(40, 40);
        emulated.sources[0].header.host.emulated = true;
        assert!(dirty_against_clean(&emulated).unwrap_err().contains("emulated"));
    }

    fn nested_event(writes: u8) -> Event {
        let e = event(0, 52, 100, writes);
        Event { flags: e.flags | Flags::L2, ..e }
    }

    #[test]
    fn a_hypervisor_is_no_standard_guest_and_its_guests_are_counted_apart() {
        // vm0 has 23 entries with a write among 120; vm1 enters L2 ten times, nine times after two writes.
        let nested_guest = (0..10).map(|n| (nested_event(if n == 0 { 1 } else { 2 }), 1));
        let report = with(nested_guest.chain((0..50).map(|_| (event(0, 10, 100, 1), 1))));
        let toggled = toggles(&report).unwrap();
        assert_eq!(toggled.counts, Some(Counts { entries: 23, of: 120 }));
        assert_eq!((toggled.measured.as_str(), toggled.agrees), ("19.2 % (23 of 120)", Some(true)));
        let twice = nested(&report).unwrap();
        assert_eq!((twice.measured.as_str(), twice.agrees), ("90.0 % (9 of 10)", Some(true)));
        let few = with((0..10).map(|n| (nested_event(2 * u8::from(n < 5)), 0)));
        assert_eq!(nested(&few).unwrap().agrees, Some(false), "half of them is no majority");
        assert!(toggles(&few).unwrap_err().contains("every VM ran nested guests"));
        assert!(nested(&super::super::super::tests::report()).unwrap_err().contains("no L2 entry"));
    }

    #[test]
    fn the_soft_policy_may_write_once_for_each_vmcs() {
        // Two vCPUs of vm0 and one of vm1.
        let mut few = with([(event(0, 10, 100, 1), 1)]);
        assert_eq!(soft(&few).unwrap().agrees, Some(false), "23 entries with writes are too many");
        few.whole.series.retain(|key, _| key.vcpu == 0);
        let found = soft(&few).unwrap();
        assert_eq!((found.measured.as_str(), found.agrees), ("1.0 % (1 of 98)", Some(true)));
        let rare = with((0..40_000).map(|n| (event(2, 10, 100, u8::from(n < 5)), 0)));
        let found = soft(&rare).unwrap();
        assert_eq!((found.measured.as_str(), found.agrees), ("0.0698 % (28 of 40120)", Some(true)));
    }

    #[test]
    fn tickless_cpus_that_nobody_looked_for_are_not_none() {
        let from = |cpus: Option<&str>| {
            let mut report = report();
            report.sources[0].header.tickless_cpus = cpus.map(str::to_owned);
            spurious(&report).unwrap().from
        };
        assert!(from(None).contains("tickless CPUs n/a"), "{}", from(None));
        assert!(from(Some("")).contains("no CPU is tickless"));
        assert!(from(Some("2-3")).contains("tickless CPUs 2-3"));
    }

    fn with_timer(tsc_khz: u32, used: bool) -> Report {
        let mut report = report();
        let timer = Timer { used: Some(used), rate: Some(5), tsc_khz: Some(tsc_khz), max_delay_s: None };
        report.sources[0].header.timer = Some(timer);
        report
    }

    #[test]
    fn a_spurious_exit_before_the_longest_delay_differs() {
        let spurious_after = |seconds: u64| {
            let mut report = with_timer(2_400_000, true);
            let early = event(3, 52, seconds * 1_000_000_000, 0);
            let mut interval = Interval::starting(0);
            interval.record(&Event { flags: early.flags | Flags::SOFT_DISABLED, ..early }, &vm(0));
            report.add(0, interval, &mut BTreeMap::new());
            spurious(&report).unwrap()
        };
        assert_eq!(spurious(&report()).unwrap().agrees, Some(true));
        assert_eq!(spurious_after(58).agrees, Some(true));
        assert_eq!(spurious_after(9).agrees, Some(false));
        assert!(spurious_after(9).measured.starts_with("1, the earliest after 8.99"), "{:?}", spurious_after(9));
    }

    #[test]
    fn a_timer_is_used_from_ten_seconds_on() {
        let found = delay(&with_timer(2_400_000, true)).unwrap();
        assert_eq!((found.measured.as_str(), found.agrees), ("57.3 s, and KVM uses it", Some(true)));
        assert_eq!(delay(&with_timer(20_000_000, true)).unwrap().agrees, Some(false));
        assert_eq!(delay(&with_timer(20_000_000, false)).unwrap().agrees, Some(true));
        assert_eq!(delay(&with_timer(2_400_000, false)).unwrap().agrees, None, "its user may have switched it off");
    }

    #[test]
    fn the_real_delay_by_the_erratum_decides_and_is_told() {
        let with = |real_ns| {
            let mut report = with_timer(2_400_000, true);
            report.sources[0].header.soft_delay =
                Some(SoftDelay { promised_ns: 57_300_000_000, real_ns, limit_ns: None });
            report
        };
        let found = |real_ns| delay(&with(real_ns)).unwrap();
        let (short, long) = (found(Some(5_500_000_000)), found(Some(57_300_000_000)));
        assert_eq!(short.measured, "57.3 s, 5.5 s by erratum EMR158's model, and KVM uses it");
        assert_eq!((short.agrees, long.agrees, found(None).agrees), (Some(false), Some(true), Some(true)));
        assert_eq!(long.measured, "57.3 s, and KVM uses it");
        let mut report = with(Some(24_500_000_000));
        let early = event(3, 52, 24_600_000_000, 0);
        let mut interval = Interval::starting(0);
        interval.record(&Event { flags: early.flags | Flags::SOFT_DISABLED, ..early }, &vm(0));
        report.add(0, interval, &mut BTreeMap::new());
        let before = report.spurious_before_time().unwrap();
        assert_eq!((before.count, before.explanation().as_str()), (1, "erratum EMR158"));
        let found = spurious(&report).unwrap();
        assert_eq!(found.agrees, Some(false));
        assert!(found.from.contains("57.3 s, 24.5 s by erratum EMR158's model"), "{}", found.from);
    }

    #[test]
    fn a_median_lies_within_its_interval() {
        let mut h = Histogram::default();
        (0..1000).for_each(|v| h.record(v));
        let (low, mid, high) = median(&h).unwrap();
        assert_eq!(mid, 499);
        assert!((455..475).contains(&low) && (525..545).contains(&high), "{low} {high}");
    }
}
