//! Events per second as compared measures.

use tracer_common::rules::TimerCause;

use super::{dense::Dense, design::Units, measure::Measure};
use crate::compare::{
    comparison::Better,
    windows::{Arm, Window},
};

/// Events per second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// its name and the better direction
    pub measure: Measure,
    /// the cause if only timer exits of it count
    pub cause: Option<TimerCause>,
}

/// Every rate. The workload decides how often timers are due and entries happen.
pub(crate) const RATES: [Rate; 5] = [
    rate("timer_exits.deadline", Better::Neither, Some(TimerCause::Deadline)),
    rate("timer_exits.immediate", Better::Neither, Some(TimerCause::Immediate)),
    rate("timer_exits.spurious", Better::Lower, Some(TimerCause::Spurious)),
    rate("timer_exits.early", Better::Lower, Some(TimerCause::Early)),
    rate("entries", Better::Neither, None),
];

const fn rate(name: &'static str, better: Better, cause: Option<TimerCause>) -> Rate {
    Rate { measure: Measure::rate(name, better), cause }
}

impl Rate {
    /// Events and seconds of every window. `covered` is the share of each side's recorded time that its windows cover.
    pub(crate) fn dense(&self, units: &Units, covered: [f64; 2]) -> Dense {
        let events = |w: &Window| {
            let counted = w.strata.iter().filter(|(s, _)| self.cause.is_none() || s.cause == self.cause);
            counted.map(|(_, s)| s.entries() as f64).sum()
        };
        let seconds = |w: &Window, arm: Arm| covered[usize::from(arm == Arm::B)] * w.length_ns as f64 / 1e9;
        Dense::ratio(units.windows.iter().zip(&units.arms).map(|(w, arm)| (events(w), seconds(w, *arm))))
    }
}
