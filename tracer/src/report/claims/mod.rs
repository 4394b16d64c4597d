//! Checks each claim of commit 804939ea20 ("KVM: VMX: Leave preemption timer running when it's disabled", Linux 5.3) against
//! recordings: the commit's words, the value here with its counts and recordings, and the verdict, or n/a and why. Pure.

mod checks;
mod table;

use std::collections::BTreeMap;

use serde::Serialize;

use super::Report;
use crate::model::policy::Policy;
pub use table::text;
pub(crate) use table::text_in;

/// One claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Claim {
    /// the claim
    pub claim: &'static str,
    /// value in the commit message
    pub claimed: &'static str,
    /// the commit message's words
    pub words: &'static str,
    /// the value in these recordings; null if unknown
    pub measured: Option<String>,
    /// the counts of a value that is a share of entries; null if it is none
    pub counts: Option<Counts>,
    /// the figure of the value and when it agrees with the claim, or why there is no value
    pub from: String,
    /// whether the value agrees with the claim; null if that cannot be said
    pub agrees: Option<bool>,
    /// files of the recordings that the value is from
    pub recordings: Vec<String>,
}

/// A share of entries, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// entries that do what the claim is about
    pub entries: u64,
    /// the entries among which they were counted
    pub of: u64,
}

/// A value for a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Finding {
    measured: String,
    counts: Option<Counts>,
    from: String,
    agrees: Option<bool>,
    recordings: Vec<String>,
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
    let claim = |claim, claimed, words, found: Result<Finding, String>| {
        let (measured, Finding { counts, from, agrees, recordings, .. }) = match found {
            Ok(found) => (Some(found.measured.clone()), found),
            Err(why) => (None, Finding { from: why, ..Finding::default() }),
        };
        Claim { claim, claimed, words, measured, counts, from, agrees, recordings }
    };
    vec![
        claim(
            "a pin-control write slows the next VM entry",
            "more than doubles it",
            "toggling PIN_BASED_VMX_PREEMPTION_TIMER more than doubles the latency of the next VM-Entry",
            checks::dirty_against_clean(&evidence.whole),
        ),
        claim(
            "entries of a standard guest that toggle the timer bit, hard policy",
            "about 1 in 10",
            "running a \"standard\" guest with the preemption timer enabled, toggling the timer flag is uncommon but not rare, e.g. \
             roughly 1 in 10 entries",
            evidence.of(Policy::Hard).and_then(checks::toggles),
        ),
        claim(
            "nested entries that write pin controls twice, hard policy",
            "most",
            "the majority of nested VM-Enters end up unnecessarily writing pin controls *twice*",
            evidence.of(Policy::Hard).and_then(checks::nested),
        ),
        claim(
            "entries with a pin write, soft policy",
            "the bit stays set: none",
            "Rather than toggle the timer flag in pin controls, set the timer value itself to the largest allowed value",
            evidence.of(Policy::Soft).and_then(checks::soft),
        ),
        claim(
            "delay of a soft-disabled timer",
            "about 55 s at 2.4 GHz with a timer at 1/32 of it",
            "on a modern CPU with a timer that runs at 1/32 the frequency of a 2.4ghz constant-rate TSC, the timer will fire after \
             ~55 seconds of *uninterrupted* guest execution",
            evidence.of(Policy::Soft).and_then(checks::fires_after),
        ),
        claim(
            "spurious timer exits, soft policy",
            "only on a tickless CPU, without other exits for the longest timer delay",
            "spurious VM-Exits are effectively only possible if the *host* is tickless on the logical CPU, the guest is not using \
             the preemption timer, and the guest is not generating VM-Exits for *any* other reason",
            evidence.of(Policy::Soft).and_then(checks::spurious),
        ),
        claim(
            "longest timer delay",
            "at least 10 s, else KVM does not use it",
            "disable the preemption timer if its maximum delay is less than ten seconds",
            checks::delay(&evidence.whole),
        ),
        claim(
            "immediate exits without the timer",
            "fall back to an IPI to itself",
            "fall back to __kvm_request_immediate_exit() if the preemption timer is disabled by KVM or userspace",
            evidence.of(Policy::Off).and_then(checks::fallback),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::{super::tests::report, *};

    /// A report whose recordings are all of one policy.
    pub(super) fn evidence(report: Report) -> Evidence {
        let policy = report.sources[0].policy();
        let again = Report {
            sources: report.sources.clone(),
            whole: report.whole.clone(),
            seen_in: report.seen_in.clone(),
            ..Report::default()
        };
        Evidence { whole: report, by_policy: BTreeMap::from([(policy, again)]) }
    }

    #[test]
    fn a_claim_about_a_policy_is_checked_against_its_recordings_only() {
        let soft = report();
        let mut hard = report();
        hard.sources[0].header.policy = Policy::Hard;
        hard.sources[0].name = "hard.hlog".into();
        let claims_of = |e: &Evidence| claims(e).into_iter().map(|c| (c.counts, c.from)).collect::<Vec<_>>();
        let only_soft = claims_of(&evidence(report()));
        assert_eq!(only_soft[1].0, None);
        assert!(only_soft[1].1.contains("no recording under the hard policy (available: soft)"), "{}", only_soft[1].1);
        let counts = Some(Counts { entries: 23, of: 120 });
        assert_eq!(only_soft[3].0, counts);
        let both =
            Evidence { by_policy: BTreeMap::from([(Policy::Soft, soft), (Policy::Hard, hard)]), ..evidence(report()) };
        assert_eq!(claims(&both)[1].recordings, ["hard.hlog"]);
        let both = claims_of(&both);
        assert_eq!((both[1].0, both[3].0), (counts, counts));
        assert_eq!(both[2].0, None, "no nested guest ran");
    }
}
