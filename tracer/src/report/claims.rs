//! Checks each claim of commit 804939ea20 ("KVM: VMX: Leave preemption timer running when it's disabled", Linux 5.3) against
//! recordings: the claim, the value here, its figure, or n/a and why. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use tracer_common::rules::TimerCause;

use super::Report;
use crate::{
    model::{
        figures::{Figure, Unit, human},
        histogram::Histogram,
        knowledge::{Subject, Unknown},
        measurement::Latency,
        policy::Policy,
        series::{EntryKind, Level},
    },
    recording::Provenance,
};

/// Least number of dirty and of clean entries for a ratio.
const LEAST_ENTRIES: u64 = 30;

/// One claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Claim {
    /// the claim
    pub claim: &'static str,
    /// value in the commit message
    pub claimed: &'static str,
    /// the value in these recordings; null if unknown
    pub measured: Option<String>,
    /// the figure of the value, or why there is none
    pub from: String,
}

/// Recordings to check claims against: all of them, and those of each policy.
#[derive(Default)]
pub struct Evidence {
    /// all recordings
    pub whole: Report,
    /// by policy; those during which the policy changed are under unknown
    pub by_policy: BTreeMap<Policy, Report>,
}

impl Evidence {
    fn of(&self, policy: Policy) -> Result<&Report, String> {
        let others = || {
            let names: Vec<_> = self.by_policy.keys().map(|p| p.name()).collect();
            format!("no recording under the {} policy (available: {})", policy.name(), names.join(", "))
        };
        self.by_policy.get(&policy).ok_or_else(others)
    }
}

/// All claims, in the commit's order.
pub fn claims(evidence: &Evidence) -> Vec<Claim> {
    let report = &evidence.whole;
    let claim = |claim, claimed, result: Result<(String, String), String>| {
        let (measured, from) = match result {
            Ok((measured, from)) => (Some(measured), from),
            Err(why) => (None, why),
        };
        Claim { claim, claimed, measured, from }
    };
    vec![
        claim("a pin-control write slows the next VM entry", "more than doubles it", dirty_against_clean(report)),
        claim(
            "entries of a standard guest that toggle the timer bit, hard policy",
            "about 1 in 10",
            evidence.of(Policy::Hard).and_then(toggles),
        ),
        claim(
            "nested entries that write pin controls twice, hard policy",
            "most",
            evidence.of(Policy::Hard).and_then(nested),
        ),
        claim("pin writes per entry, soft policy", "the bit stays set: none", evidence.of(Policy::Soft).and_then(soft)),
        claim(
            "spurious timer exits",
            "only on a tickless CPU, without other exits for the longest timer delay",
            spurious(report),
        ),
        claim("longest timer delay", "at least 10 s, else KVM does not use it", delay(report)),
        claim(
            "immediate exits without the timer",
            "fall back to an IPI to itself",
            evidence.of(Policy::Off).and_then(fallback),
        ),
    ]
}

/// Pin writes of the entries into a level.
fn pin_writes(report: &Report, level: Level) -> Result<Histogram, String> {
    report.knowledge().known(Subject::Level).map_err(Unknown::to_string)?;
    report.values(Figure::PinWrites, |key| key.level == level).map_err(|reason| reason.to_string())
}

/// Entries with at least `least` writes, and all entries.
fn at_least(writes: &Histogram, least: u64) -> (u64, u64) {
    (writes.buckets().filter(|b| b.0 >= least).map(|b| b.2).sum(), writes.count())
}

/// Compares `transition_ns`, which contains no guest time: of entries that were forced to exit at once, or of all with the stopwatch.
fn dirty_against_clean(report: &Report) -> Result<(String, String), String> {
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
    Ok((
        format!("{:.2} times [{:.2}, {:.2}]", ratio(d, c), ratio(d_low, c_high), ratio(d_high, c_low)),
        format!(
            "medians of transition_ns, {} dirty against {} clean, of {} and {} entries; VM entry + VM exit without guest code; 95 % confidence interval by order \
             statistics, which takes entries as independent; 'vmentry calibrate' measures the VM-entry latency alone",
            human(Some(d as f64), Unit::Ns),
            human(Some(c as f64), Unit::Ns),
            dirty.count(),
            clean.count()
        ),
    ))
}

/// Median and its 97.5 % confidence interval (95 % for a ratio of two), for any distribution: the ranks n/2 -+ 2.24 sqrt(n)/2 of the
/// sorted values.
fn median(histogram: &Histogram) -> Option<(u64, u64, u64)> {
    let n = histogram.count() as f64;
    let reach = 2.2414 * n.sqrt() / 2.0;
    let at = |rank: f64| histogram.quantile((rank / n).clamp(0.0, 1.0));
    Some((at(n / 2.0 - reach)?, at(n / 2.0)?, at(n / 2.0 + reach + 1.0)?))
}

fn share(part: u64, whole: u64) -> String {
    format!("{:.1} % ({part} of {whole})", 100.0 * part as f64 / whole as f64)
}

fn toggles(report: &Report) -> Result<(String, String), String> {
    match at_least(&pin_writes(report, Level::L1)?, 1) {
        (_, 0) => Err("no L1 entry whose pin writes are known".into()),
        (dirty, all) => Ok((share(dirty, all), "pin_writes of L1 entries; depends on the guest's workload".into())),
    }
}

fn nested(report: &Report) -> Result<(String, String), String> {
    match at_least(&pin_writes(report, Level::L2)?, 2) {
        (_, 0) => Err("no L2 entry: no VM ran a nested guest".into()),
        (twice, all) => Ok((share(twice, all), "pin_writes of L2 entries".into())),
    }
}

fn soft(report: &Report) -> Result<(String, String), String> {
    let all = report.values(Figure::PinWrites, |_| true).map_err(|reason| reason.to_string())?;
    let writes = all.sum();
    match all.count() {
        0 => Err("no entry whose pin writes are known".into()),
        n => Ok((
            format!("{:.4} ({writes} of {n})", writes as f64 / n as f64),
            "pin_writes; a VMCS's first write is one of them".into(),
        )),
    }
}

fn spurious(report: &Report) -> Result<(String, String), String> {
    let count = report.timer_exits(TimerCause::Spurious).map_err(|reason| reason.to_string())?;
    let tick = tickless(report);
    let Some((least, _)) = report.spurious_after() else {
        return Ok((format!("{count}"), format!("timer exits while soft-disabled; {tick}")));
    };
    let delay = report.sources.iter().find_map(|s| s.longest_timer_delay_s().ok());
    let delay = delay.map_or("n/a".into(), |s| format!("{s:.1} s"));
    Ok((
        format!("{count}, the earliest after {}", human(Some(least as f64), Unit::Ns)),
        format!("timer exits while soft-disabled, and their guest time; longest timer delay {delay}; {tick}"),
    ))
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

fn delay(report: &Report) -> Result<(String, String), String> {
    let first = report.sources.first().ok_or("there is no recording")?;
    let source = report.sources.iter().find(|s| s.header.timer.is_some()).unwrap_or(first);
    let used = match source.header.timer.as_ref().and_then(|t| t.used) {
        Some(true) => "KVM uses it",
        Some(false) => "KVM does not use it",
        None => "use n/a",
    };
    let delay = source.longest_timer_delay_s().map_err(|reason| reason.to_string())?;
    Ok((
        format!("{delay:.1} s"),
        format!("(2^32 - 1) << rate TSC cycles, rate from IA32_VMX_MISC, TSC measured; {used}"),
    ))
}

fn fallback(report: &Report) -> Result<(String, String), String> {
    let timer = report.all_timer_exits().map_err(|reason| reason.to_string())?;
    Ok((
        format!("{timer} timer exits among {} entries", report.whole.totals.entries),
        "timer exits with preemption_timer=N".into(),
    ))
}

/// The claims for people.
pub fn text(evidence: &Evidence) -> String {
    let report = &evidence.whole;
    let mut out = super::text::preamble(report);
    let emulated = if report.is_emulated() { " (emulated)" } else { "" };
    for c in claims(evidence) {
        let measured = c.measured.map_or("n/a".into(), |m| m + emulated);
        out += &format!("\n{}\n  claimed   {}\n  measured  {measured}\n  from      {}\n", c.claim, c.claimed, c.from);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{super::tests::report, *};
    use crate::model::interval::{
        Interval,
        tests::{event, vm},
    };
    use tracer_common::{Event, Flags};

    fn measured(report: Report, at: usize) -> Option<String> {
        claims(&evidence(report))[at].measured.clone()
    }

    /// A report whose recordings are all of one policy.
    fn evidence(report: Report) -> Evidence {
        let policy = report.sources[0].policy();
        let again = Report { sources: report.sources.clone(), whole: report.whole.clone(), ..Report::default() };
        Evidence { whole: report, by_policy: BTreeMap::from([(policy, again)]) }
    }

    fn with_immediate(dirty: u64, clean: u64) -> Report {
        let mut report = report();
        let mut interval = Interval::starting(0);
        let immediate = |ns, writes| {
            let e = event(0, 52, ns, writes);
            Event { flags: e.flags | Flags::IMMEDIATE, ..e }
        };
        (0..dirty).for_each(|n| interval.record(&immediate(2000 + n, 1), &vm(0)));
        (0..clean).for_each(|n| interval.record(&immediate(1000 + n, 0), &vm(0)));
        report.add(0, interval, &mut BTreeMap::new());
        report
    }

    #[test]
    fn the_ratio_is_of_transitions() {
        let ratio = measured(with_immediate(40, 40), 0).unwrap();
        assert!(ratio.starts_with("1.98 times [1.9"), "{ratio}");
        assert_eq!(measured(with_immediate(29, 40), 0), None);
        let mut disturbed = with_immediate(40, 40);
        disturbed.sources[0].header.latency = Latency::Disturbed;
        assert_eq!(measured(disturbed, 0), None);
    }

    #[test]
    fn a_claim_about_a_policy_is_checked_against_its_recordings_only() {
        let soft = report();
        let mut hard = report();
        hard.sources[0].header.policy = Policy::Hard;
        let claims_of = |e: &Evidence| claims(e).into_iter().map(|c| (c.measured, c.from)).collect::<Vec<_>>();
        let only_soft = claims_of(&evidence(report()));
        assert_eq!(only_soft[1].0, None);
        assert!(only_soft[1].1.contains("no recording under the hard policy (available: soft)"), "{}", only_soft[1].1);
        assert_eq!(only_soft[3].0.as_deref(), Some("0.3833 (46 of 120)"));
        let both =
            Evidence { by_policy: BTreeMap::from([(Policy::Soft, soft), (Policy::Hard, hard)]), ..evidence(report()) };
        let both = claims_of(&both);
        assert_eq!(both[1].0.as_deref(), Some("19.2 % (23 of 120)"));
        assert_eq!(both[2].0, None, "no nested guest ran");
        assert_eq!(both[3].0.as_deref(), Some("0.3833 (46 of 120)"));
    }

    #[test]
    fn tickless_cpus_that_nobody_looked_for_are_not_none() {
        let from = |cpus: Option<&str>| {
            let mut report = report();
            report.sources[0].header.tickless_cpus = cpus.map(str::to_owned);
            claims(&evidence(report))[4].from.clone()
        };
        assert!(from(None).contains("tickless CPUs n/a"), "{}", from(None));
        assert!(from(Some("")).contains("no CPU is tickless"));
        assert!(from(Some("2-3")).contains("tickless CPUs 2-3"));
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
