//! A survey as its row of docs/hosts.md.

use super::values::{ErratumLimit, Exit, Known, Survey, Write};
use crate::{
    model::{measurement::Aggregation, policy::Policy},
    output::grouped,
};

/// The row in Markdown. `source` is the name of the survey's file in docs/hosts.
pub(super) fn row(survey: &Survey, source: &str) -> String {
    let host = &survey.host;
    let cells = [
        host.cpu.split_whitespace().collect::<Vec<_>>().join(" "),
        host.microcode.clone().unwrap_or_else(|| "n/a".into()),
        host.kernel.clone(),
        runs_on(survey),
        entry_latency(survey),
        added(survey),
        erratum(survey),
        early_exits(survey),
        format!("[{source}](hosts/{source})"),
    ];
    format!("| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}

/// Bare metal, or on which hypervisor.
pub(super) fn runs_on(survey: &Survey) -> String {
    match &survey.host.virtualized {
        _ if survey.host.emulated => "EMULATED".into(),
        None => "bare".into(),
        Some(hypervisor) => format!("virtualized ({hypervisor})"),
    }
}

/// The calibration's CPUID exit under the soft policy, or else the one in force.
pub(super) fn plain(survey: &Survey) -> Option<&Exit> {
    let exits = &survey.parts.calibrate.measured.as_ref()?.exits;
    let of = |policy: fn(Policy) -> bool| exits.iter().find(|exit| exit.exit == "cpuid" && policy(exit.policy));
    of(|policy| policy == Policy::Soft).or_else(|| of(|_| true))
}

fn pin(survey: &Survey) -> Option<&Write> {
    survey.parts.calibrate.measured.as_ref()?.writes.iter().find(|write| write.control == "pin")
}

fn entry_latency(survey: &Survey) -> String {
    if let Some(reason) = survey.parts.calibrate.unavailable {
        return format!("n/a: {}", reason.text());
    }
    let plain = plain(survey).and_then(|exit| exit.entry_latency_ns).map_or("n/a".into(), |entry| ns(entry.p50));
    let after = match pin(survey) {
        Some(Write { dirty_ns: Some(dirty), cost_ns: Some(cost), .. }) => {
            format!("{} (the write: {:+.0} ns, 95 % {:.0} to {:.0})", ns(dirty.p50), cost.value, cost.low, cost.high)
        }
        write => {
            format!("n/a{}", write.and_then(|w| w.unavailable).map_or(String::new(), |why| format!(": {}", why.text())))
        }
    };
    format!("{plain} / {after}")
}

fn added(survey: &Survey) -> String {
    let overhead = &survey.parts.overhead;
    if let Some(reason) = overhead.unavailable {
        return format!("n/a: {}", reason.text());
    }
    let modes = overhead.measured.iter().flat_map(|overhead| &overhead.modes);
    let records = modes.into_iter().find(|mode| mode.aggregation == Aggregation::Records).map(|mode| mode.vcpu_ns);
    match records {
        Some([least, median, most]) if least > 0.0 => format!("{} ({least:.0} to {most:.0})", ns(median)),
        Some(_) => "n/a: less than the runs differ by".into(),
        None => "n/a".into(),
    }
}

/// Whether timers fired early, and what was to be expected.
pub(super) fn erratum(survey: &Survey) -> String {
    let part = &survey.parts.erratum;
    let tried = match (&part.measured, part.unavailable) {
        (Some(probe), _) if probe.early => "yes: a guest's far timers fired early".into(),
        (Some(_), _) => "no: a guest's far timers did not fire early".into(),
        (None, reason) => format!("not tried: {}", reason.map_or("n/a", super::reason::Reason::text)),
    };
    tried + expected(survey)
}

fn expected(survey: &Survey) -> &'static str {
    match survey.host.erratum.as_ref().map(|erratum| (erratum.cpu, erratum.reach)) {
        Some((Some(Known::Published), Some(ErratumLimit::Reached))) => "; expected, published for this CPU",
        Some((Some(Known::Inferred), Some(ErratumLimit::Reached))) => "; expected, inferred for this CPU",
        Some((Some(Known::Published | Known::Inferred), Some(ErratumLimit::Avoided))) => "; the kernel avoids it",
        _ => "",
    }
}

fn early_exits(survey: &Survey) -> String {
    let part = &survey.parts.recording;
    let Some(recording) = &part.measured else {
        return format!("n/a: {}", part.unavailable.map_or("no recording", super::reason::Reason::text));
    };
    let exits = &recording.timer_exits;
    let all = [exits.deadline, exits.immediate, exits.spurious, exits.early, exits.unknown];
    let all = all.into_iter().flatten().fold(0, u64::saturating_add);
    match exits.early {
        Some(_) if all == 0 => "n/a: no timer exits".into(),
        Some(early) => format!("{} of {} timer exits", grouped(early), grouped(all)),
        None => "n/a: the kernel does not tell".into(),
    }
}

fn ns(value: f64) -> String {
    format!("{value:.0} ns")
}
