//! Judges the far timers of a guest, and what is known of erratum EMR158 without trying it.

use super::{
    super::values::{ErratumLimit, FarTimer, Host, Probe},
    Findings,
};
use crate::{
    guest::{Attempt, Verdict, judge},
    model::vendor::Vendor,
};

/// An offset is some ms; more is none, and could not be added to.
const MOST_OFFSET_NS: u64 = 1_000_000_000;

impl Findings {
    pub(super) fn probe(&mut self, host: &Host, probe: &Probe) {
        let attempt = |timer: &FarTimer| Attempt {
            offset_ns: timer.offset_ns.min(MOST_OFFSET_NS),
            after_ns: timer.after_ns,
            armed: timer.armed,
        };
        let is_offset = probe.timers.iter().all(|timer| timer.offset_ns <= MOST_OFFSET_NS);
        self.unless(is_offset, "erratum: an offset of a timer is not some milliseconds");
        // The same rule as that of the command that measured it.
        let attempts: Vec<_> = probe.timers.iter().map(attempt).collect();
        let follows = if probe.early { Verdict::Yes } else { Verdict::No };
        let early = probe.early;
        self.unless(
            judge(&attempts, "unseen") == follows,
            format!("erratum.early {early} does not follow from its timers"),
        );
        self.unless(host.vendor == Some(Vendor::Intel), "erratum was tried without kvm_intel");
        self.unless(host.virtualized.is_none(), "erratum was tried on a VM");
        let reach = host.erratum.as_ref().map(|expected| expected.reach);
        let may_reach = matches!(reach, Some(None | Some(ErratumLimit::Reached)));
        self.unless(may_reach, "erratum was tried, and host.erratum is null or no timer value reaches its limit");
    }

    pub(super) fn expected(&mut self, host: &Host) {
        let Some(expected) = &host.erratum else { return };
        let has_limit = matches!(expected.reach, Some(ErratumLimit::Avoided | ErratumLimit::Reached));
        self.unless(has_limit == expected.limit_s.is_some(), "host.erratum: reach and limit_s disagree");
        let delays = [expected.limit_s, expected.soft_delay_s];
        // A timer of 32 bits that counts once in 2^31 cycles of 100 MHz.
        let is_delay = |seconds: f64| seconds > 0.0 && seconds < 1e11;
        self.unless(delays.into_iter().flatten().all(is_delay), "host.erratum: a delay is not positive");
    }
}
