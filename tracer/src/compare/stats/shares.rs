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

/// Every share.
pub(crate) fn measures() -> impl Iterator<Item = Measure> {
    SHARES.into_iter().map(|(name, better, _)| Measure::share(name, better))
}

/// The rows of all shares before they are judged.
pub(crate) fn drafts(units: &Units, options: &Options) -> Vec<Draft> {
    let budgets: Vec<Budget> = units.windows.iter().map(|window| budget(window)).collect();
    let entries = [Arm::A, Arm::B].map(|arm| rows::entries(units, arm));
    let mut drafts = Vec::new();
    for (name, better, part) in SHARES {
        let measure = Measure::share(name, better);
        if let Some(why) = why_unknown(options.knowledge.each_ref().map(|known| is_known(known, part))) {
            drafts.extend(measure.unknown(&why));
            continue;
        }
        let of = |budget: &Budget| {
            let ns = part.map_or(budget.guest_ns, |phase| budget.of(phase));
            (ns as f64, budget.total_ns() as f64)
        };
        for mut draft in rows::compare(&measure, &Dense::ratio(budgets.iter().map(of)), units, options).0 {
            [draft.row.count_a, draft.row.count_b] = entries;
            drafts.push(draft);
        }
    }
    drafts
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
