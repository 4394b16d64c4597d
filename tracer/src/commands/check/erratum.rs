//! The lines of `vmentry check` on the longest delay of the preemption timer, and on Intel's erratum EMR158.

use crate::{
    guest::{Verdict, probe::ProbeOutcome},
    host::{
        erratum::{Erratum, FIX, seconds},
        facts::LEAST_DELAY_S,
        problems::{self, Problem},
    },
    model::soft_timer::{Named, Reach},
};

/// The delay after which a soft-disabled timer expires here, held against KVM's rule.
pub(super) fn longest_delay(erratum: &Erratum) -> String {
    let promised = erratum.promised_ns.map(seconds);
    let rule = |s: f64| {
        let met = if s < LEAST_DELAY_S { "too short" } else { "met" };
        format!("KVM needs at least {LEAST_DELAY_S} s: {met}")
    };
    match (erratum.real_delay_s(), promised) {
        (Ok(real), Some(promised)) if real < 0.99 * promised => {
            format!("{real:.1} s instead of {promised:.1} s; {}", rule(real))
        }
        (Ok(real), _) => format!("{real:.1} s; {}", rule(real)),
        (Err(_), Some(promised)) => {
            let is_known = matches!(erratum.cpu, Some(Named::Published(_) | Named::Inferred(_)));
            let may_be_less = is_known || matches!(erratum.reach, Some(Reach::Reached(_)));
            let without = if may_be_less { " without erratum EMR158" } else { "" };
            format!("{promised:.1} s{without}; {}", rule(promised))
        }
        (Err(why), None) => format!("n/a: {why}"),
    }
}

/// Whether timer values expire early here.
pub(super) fn text(erratum: &Erratum) -> String {
    let (limit, cpu) = match (erratum.reach, erratum.cpu) {
        (None, _) => return format!("n/a: {}", erratum.unknown.as_deref().unwrap_or("no reason is known")),
        (Some(Reach::Never), _) => {
            return "no timer value reaches its limit (2^rate is at most the TSC's ratio)".into();
        }
        (Some(Reach::Avoided(limit)), _) => {
            return format!("avoided: KVM keeps timer values below {:#x} ({:.1} s)", limit.value, seconds(limit.ns));
        }
        (Some(Reach::Reached(limit)), cpu) => (format!("from {:#x} on ({:.1} s)", limit.value, seconds(limit.ns)), cpu),
    };
    match cpu {
        Some(Named::Published(cpu)) => format!("timer values {limit} expire early ({cpu})"),
        Some(Named::Inferred(cpu)) => {
            format!("timer values {limit} expire early ({cpu}, inferred from the models before and after it)")
        }
        Some(Named::No) | None => {
            format!("n/a: nothing is published for this CPU model; with the erratum, timer values {limit} expire early")
        }
    }
}

/// The problem that a guest saw timers fire early; none where it did not, or could not see it.
pub(super) fn seen(probe: &ProbeOutcome) -> Option<Problem> {
    let what = format!("a guest's far timers fire early here (Intel's erratum EMR158): {}", probe.verdict_text());
    (probe.verdict == Verdict::Yes).then(|| problems::warning(what, FIX))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::model::soft_timer::{TimerSetup, TscRatio};

    const ICE_LAKE: Option<Named> = Some(Named::Published("Ice Lake-SP"));

    fn xeon(ratio: u32) -> TimerSetup {
        TimerSetup {
            rate: 7,
            tsc_khz: NonZeroU32::new(ratio * 25_000).unwrap(),
            ratio: TscRatio::new(ratio, 1),
            hypervisor: false,
            capped: Some(false),
            test_value: None,
        }
    }

    fn lines(cpu: Option<Named>, setup: TimerSetup) -> [String; 2] {
        let erratum = Erratum::of(cpu, Ok(setup));
        [longest_delay(&erratum), text(&erratum)]
    }

    #[test]
    fn an_affected_cpu_is_judged_by_the_delay_that_it_really_has() {
        assert_eq!(
            lines(ICE_LAKE, xeon(80)),
            [
                "103.1 s instead of 274.9 s; KVM needs at least 10 s: met",
                "timer values from 0xa0003c01 on (171.8 s) expire early (Ice Lake-SP)"
            ]
        );
        assert_eq!(lines(ICE_LAKE, xeon(127))[0], "1.4 s instead of 173.2 s; KVM needs at least 10 s: too short");
    }

    #[test]
    fn a_kernel_with_the_cap_avoids_the_limit() {
        assert_eq!(
            lines(ICE_LAKE, TimerSetup { capped: Some(true), ..xeon(80) }),
            ["171.8 s; KVM needs at least 10 s: met", "avoided: KVM keeps timer values below 0xa0003c01 (171.8 s)"]
        );
    }

    #[test]
    fn only_timers_that_were_seen_to_fire_early_are_a_problem() {
        let outcome = |verdict| ProbeOutcome { verdict, ..ProbeOutcome::not_tried("") };
        assert!(seen(&outcome(Verdict::Yes)).is_some_and(|problem| problem.what.contains("EMR158")));
        assert_eq!([Verdict::No, Verdict::unknown("x")].map(|verdict| seen(&outcome(verdict))), [None, None]);
    }

    #[test]
    fn what_is_unknown_has_its_reason() {
        let [delay, erratum] = lines(Some(Named::No), xeon(80));
        assert_eq!(delay, "274.9 s without erratum EMR158; KVM needs at least 10 s: met");
        assert!(erratum.starts_with("n/a: nothing is published for this CPU model"), "{erratum}");
        let [delay, erratum] = lines(ICE_LAKE, TimerSetup { capped: None, ..xeon(80) });
        assert_eq!((delay.as_str(), &erratum), ("n/a: the kernel does not show whether KVM caps the timer", &delay));
        let [delay, erratum] = lines(ICE_LAKE, TimerSetup { hypervisor: true, ..xeon(80) });
        assert!(delay.starts_with("274.9 s without erratum") && erratum.contains("itself a VM"), "{delay} {erratum}");
        let [delay, erratum] = lines(Some(Named::No), TimerSetup { ratio: None, ..xeon(80) });
        assert_eq!(delay, "274.9 s; KVM needs at least 10 s: met");
        assert!(erratum.starts_with("n/a: CPUID has no leaf 15H"), "{erratum}");
        let [_, erratum] = lines(ICE_LAKE, TimerSetup { rate: 5, ..xeon(80) });
        assert!(erratum.starts_with("no timer value"), "{erratum}");
    }
}
