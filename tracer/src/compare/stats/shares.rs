//! Shares of the vCPUs' time as compared measures: the guest's, and each part of the host time.

use super::{
    dense::Dense,
    design::Units,
    measure::{Draft, Measure},
    rows,
};
use crate::{
    compare::{
        comparison::Better,
        windows::{Arm, Options, Window, why_unknown},
    },
    model::{
        budget::{Budget, Phase},
        knowledge::{Knowledge, Subject, Unknown},
    },
};

/// Shares: name, better direction, and the part of the host time; none for the guest's. The workload decides the others, but none
/// is better for waiting for a CPU.
const SHARES: [(&str, Better, Option<Phase>); 6] = [
    ("time.guest", Better::Neither, None),
    ("time.kernel", Better::Neither, Some(Phase::Kernel)),
    ("time.user", Better::Neither, Some(Phase::User)),
    ("time.polled", Better::Neither, Some(Phase::Polled)),
    ("time.idle", Better::Neither, Some(Phase::Idle)),
    ("time.steal", Better::Lower, Some(Phase::Steal)),
];

/// Every share, and its part of the host time; none for the guest's time.
pub(crate) fn measures() -> impl Iterator<Item = (Measure, Option<Phase>)> {
    SHARES.into_iter().map(|(name, better, part)| (Measure::share(name, better), part))
}

/// The rows of all shares before they are judged.
pub(crate) fn drafts(units: &Units, options: &Options) -> Vec<Draft> {
    let entries = [Arm::A, Arm::B].map(|arm| rows::entries(units, arm));
    let mut drafts = Vec::new();
    for (measure, part) in measures() {
        if let Some(why) = why_unknown(options.knowledge.each_ref().map(|known| is_known(known, part))) {
            drafts.extend(measure.unknown(&why));
            continue;
        }
        for mut draft in rows::compare(&measure, &dense(units, part), units, options).0 {
            [draft.row.count_a, draft.row.count_b] = entries;
            drafts.push(draft);
        }
    }
    drafts
}

/// The part's time and the vCPUs' whole time in every window.
pub(crate) fn dense(units: &Units, part: Option<Phase>) -> Dense {
    let of = |window: &&Window| {
        let budget = budget(window);
        (part.map_or(budget.guest_ns, |phase| budget.of(phase)) as f64, budget.total_ns() as f64)
    };
    Dense::ratio(units.windows.iter().map(of))
}

/// Whether a part is known. The kernel's contains every other part that is not.
fn is_known(known: &Knowledge, part: Option<Phase>) -> Result<(), Unknown> {
    let subjects = match part {
        None => vec![Subject::Times],
        Some(Phase::Kernel) => vec![Subject::UserTime, Subject::HaltTime, Subject::StealTime],
        Some(phase) => Subject::of_phase(phase).into_iter().collect(),
    };
    subjects.into_iter().try_for_each(|subject| known.known(subject).map(|_| ()).map_err(Unknown::clone))
}

/// Where the time of a window's vCPUs went.
fn budget(window: &Window) -> Budget {
    let mut all = Budget::default();
    window.strata.values().for_each(|series| all.merge(&series.budget));
    all
}
