//! Judges whether far timers fired early: by the times of their interrupts, which must follow the timers' offsets.

use serde::Serialize;

/// How much earlier than its offset an early timer's interrupt may come, ns: the CPU's own error, 15 ppm of 171.8 s, and some more.
const EARLIER_NS: u64 = 3_000_000;
/// How much later it may come, ns, on a slow host. Windows of different offsets do not overlap.
const LATER_NS: u64 = 5_000_000;

/// One far timer of the guest: armed, waited for, disarmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Attempt {
    /// distance of the deadline behind the limit, ns: an early timer fires after this time
    pub(crate) offset_ns: u64,
    /// time from arming to the interrupt, ns; null where none came
    pub(crate) after_ns: Option<u64>,
    /// KVM armed the preemption timer for it; null where that could not be seen
    pub(crate) armed: Option<bool>,
}

impl Attempt {
    /// Whether an interrupt came when an early timer's would.
    fn is_early(&self) -> bool {
        let window = self.offset_ns.saturating_sub(EARLIER_NS)..=self.offset_ns + LATER_NS;
        self.armed != Some(false) && self.after_ns.is_some_and(|after| window.contains(&after))
    }
}

/// Whether timers fire early here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// They do: interrupts came at two offsets or more.
    Yes,
    /// They do not: KVM armed the preemption timer, and no interrupt came.
    No,
    /// Neither was seen.
    Unknown {
        /// Why, for people.
        why: String,
    },
}

impl Verdict {
    /// Unknown for this reason.
    pub(crate) fn unknown(why: impl Into<String>) -> Self {
        Self::Unknown { why: why.into() }
    }
}

/// Early timers among the attempts.
pub(crate) fn count_early(attempts: &[Attempt]) -> u64 {
    attempts.iter().filter(|attempt| attempt.is_early()).count() as u64
}

/// Why timers of the host prove nothing.
const UNARMED: &str = "KVM put the guest's timers on the host's timers (hrtimers), not on the preemption timer";

/// Whether it was seen that KVM did not arm the preemption timer for each attempt.
pub(crate) fn is_unarmed(attempts: &[Attempt]) -> bool {
    attempts.iter().any(|attempt| attempt.armed == Some(false))
}

/// Judges the attempts. `why_unseen` says why it could not be seen whether KVM armed the timer.
pub(crate) fn judge(attempts: &[Attempt], why_unseen: &str) -> Verdict {
    let mut offsets: Vec<_> = attempts.iter().filter(|a| a.is_early()).map(|a| a.offset_ns).collect();
    offsets.sort_unstable();
    offsets.dedup();
    let came = attempts.iter().filter(|attempt| attempt.after_ns.is_some()).count();
    if offsets.len() >= 2 {
        Verdict::Yes
    } else if is_unarmed(attempts) {
        Verdict::unknown(UNARMED)
    } else if came > 0 {
        Verdict::unknown(format!(
            "{came} of {} timers had an interrupt, but not at the times of two offsets, as early timers would: try again",
            attempts.len()
        ))
    } else if attempts.iter().all(|attempt| attempt.armed == Some(true)) && !attempts.is_empty() {
        Verdict::No
    } else {
        Verdict::unknown(why_unseen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attempts at 5, 20 and 35 ms, by the time of their interrupts in us.
    fn attempts(after_us: [Option<u64>; 3], armed: Option<bool>) -> Vec<Attempt> {
        let attempt = |(offset_us, after): (u64, Option<u64>)| Attempt {
            offset_ns: offset_us * 1000,
            after_ns: after.map(|us| us * 1000),
            armed,
        };
        [5_000, 20_000, 35_000].into_iter().zip(after_us).map(attempt).collect()
    }

    fn judged(after_us: [Option<u64>; 3], armed: Option<bool>) -> Verdict {
        judge(&attempts(after_us, armed), "unseen")
    }

    fn why(verdict: Verdict) -> String {
        match verdict {
            Verdict::Unknown { why } => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn interrupts_that_follow_the_offsets_are_early_timers() {
        for armed in [None, Some(true)] {
            assert_eq!(judged([Some(2_600), Some(17_500), Some(32_400)], armed), Verdict::Yes);
            assert_eq!(judged([Some(5_200), Some(20_100), Some(39_900)], armed), Verdict::Yes);
        }
        assert_eq!(count_early(&attempts([Some(2_600), None, Some(50_000)], None)), 1);
    }

    #[test]
    fn a_host_that_holds_the_cpu_may_hide_one_of_three() {
        for hidden in 0..3 {
            let mut after = [Some(4_000), Some(19_000), Some(34_000)];
            after[hidden] = None;
            assert_eq!(judged(after, Some(true)), Verdict::Yes);
        }
        assert!(why(judged([None, Some(19_000), None], Some(true))).starts_with("1 of 3 timers"));
    }

    #[test]
    fn interrupts_at_a_constant_time_are_no_early_timers() {
        for us in [1_000, 5_000, 20_000, 34_000, 59_000] {
            let verdict = judged([Some(us); 3], Some(true));
            assert!(why(verdict).starts_with("3 of 3 timers had an interrupt, but not at the times"), "{us}");
        }
        // Nor are many at the same offset.
        let one_offset = [attempts([Some(5_000), None, None], Some(true))[0]; 7];
        assert!(why(judge(&one_offset, "unseen")).starts_with("7 of 7"));
    }

    #[test]
    fn no_interrupt_is_a_no_only_if_kvm_armed_every_timer() {
        assert_eq!(judged([None; 3], Some(true)), Verdict::No);
        assert_eq!(why(judged([None; 3], None)), "unseen");
        assert_eq!(why(judged([None; 3], Some(false))), UNARMED);
        let mut one_unseen = attempts([None; 3], Some(true));
        one_unseen[1].armed = None;
        assert_eq!(why(judge(&one_unseen, "unseen")), "unseen");
        assert_eq!(why(judge(&[], "unseen")), "unseen");
    }

    #[test]
    fn a_timer_that_kvm_did_not_arm_proves_nothing() {
        assert_eq!(why(judged([Some(5_000), Some(20_000), Some(35_000)], Some(false))), UNARMED);
    }

    #[test]
    fn json_has_the_reason_beside_the_verdict() {
        let json = |verdict: &Verdict| serde_json::to_string(verdict).unwrap();
        assert_eq!(json(&Verdict::Yes), r#"{"verdict":"yes"}"#);
        assert_eq!(json(&Verdict::unknown("x")), r#"{"verdict":"unknown","why":"x"}"#);
    }
}
