//! Tries whether a guest's far timers fire early, or says why that cannot happen or cannot be seen here.

use std::path::Path;

use anyhow::{Context, Result};

use crate::{
    guest::{
        Extension, GuestHost, Verdict,
        probe::{self, ProbeOutcome, ProbePlan},
    },
    host::{
        erratum::{self, is_capped},
        facts::Facts,
        roots::Roots,
    },
    model::{knowledge::Unknown, soft_timer::Reach},
};

/// Why timers that KVM caps prove nothing.
const CAPPED: &str = "this kernel keeps its timer values below the erratum's limit, so that no timer can fire early";

/// Runs the probe with this many timers, or says why not. A `limit` in TSC cycles replaces the erratum's, and then nothing else is asked.
pub(super) fn probe(facts: &Facts, timers: usize, limit: Option<u64>) -> Result<ProbeOutcome> {
    let limit = match limit.map_or_else(|| limit_here(facts), Ok) {
        Ok(limit) => limit,
        Err(why) => return Ok(ProbeOutcome::not_tried(why.to_string())),
    };
    let mut outcome = probe::probe(&ProbePlan { limit, timers }).context("exercise early")?;
    let is_unknown = matches!(outcome.verdict, Verdict::Unknown { .. });
    if is_unknown && outcome.is_unarmed() && is_capped(&Roots::default(), &facts.host) == Some(true) {
        outcome.verdict = Verdict::unknown(CAPPED);
    }
    Ok(outcome)
}

/// The erratum's limit on this host, TSC cycles, or why no timer can fire early here as far as is known.
fn limit_here(facts: &Facts) -> Result<u64, Unknown> {
    let because = |why: &str| Err(Unknown::because(why));
    let (Some(timer), Some(erratum)) = (&facts.timer, &facts.erratum) else {
        return because("kvm_intel runs no VMs here, and only it uses the VMX-preemption timer");
    };
    if timer.used == Some(false) {
        return because("KVM does not use the preemption timer (kvm_intel.preemption_timer=N)");
    }
    if facts.stopwatch == Some(true) {
        return because(
            "the companion patch's stopwatch never sets the timer to a large value: load kvm_intel without it",
        );
    }
    if facts.host.virtualized.is_some() {
        return because("this host is itself a VM, and its preemption timer is the hypervisor's");
    }
    if let Extension::Vmx(vmx) = GuestHost::probe(Path::new("/sys")).extension
        && vmx.preemption_timer
        && !vmx.guest_timers
    {
        return because(
            "KVM posts the timer interrupts of guests (kvm.pi_inject_timer), so that their timers are hrtimers",
        );
    }
    match erratum.reach {
        Some(Reach::Never) => {
            return because(
                "no timer value reaches the erratum's limit on this CPU (2^rate is at most the TSC's ratio)",
            );
        }
        Some(Reach::Avoided(_)) => return because(CAPPED),
        Some(Reach::Reached(_)) | None => {}
    }
    let ratio = erratum::tsc_ratio();
    Ok(ratio
        .ok_or_else(|| Unknown::because("CPUID has no leaf 15H, so that the erratum's limit is unknown"))?
        .limit_cycles())
}
