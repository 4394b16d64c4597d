//! Checks how late the deadlines of a lab with the companion module were: in time, except with the test-only module whose
//! timer runs out early.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::{
    lab::results::Results,
    witness::failures::{Failures, count},
};

/// Values of enum kvm_preemption_timer_cause.
pub(super) const SPURIOUS: u64 = 0;
pub(super) const DEADLINE: u64 = 2;

/// Timer exits by enum kvm_preemption_timer_cause and by lateness, in TSC cycles as ftrace prints them: without a sign.
type Causes = BTreeMap<Vec<u64>, u64>;

/// Timers, and rounds of the loop, in the script's runs with an early timer.
const TIMERS: u64 = 21;
/// The script's preemption_timer_wrap, in ticks, which are TSC cycles in the lab.
const WRAP: i64 = 1 << 20;
/// Cycles from the moment at which the timer runs out to the handler's look at the TSC: some hundred in the lab.
const HANDLING: i64 = 1 << 17;
/// Cycles by which a deadline is late at most: a second of the emulated CPU. Some pass while the CPU is in the host.
const LATEST: i64 = 100_000_000;
/// Timers of which KVM may miss the moment at which they are early, because the CPU is in the host just then.
const MISSED: u64 = 6;

/// Returns every failed check of the runs with an early timer.
pub(super) fn failures(results: Results) -> Result<Failures> {
    let mut failures = Failures::default();
    for name in ["early", "capped"] {
        let all = format!("{TIMERS} timers, {TIMERS} interrupts taken");
        failures.contains(name, &results.text(&format!("{name}.guest"))?, &[&all]);
    }
    let (early, due): (Vec<_>, Vec<_>) =
        deadlines(&results.histogram_of_keys("early.causes")?).into_iter().partition(|(late, _)| *late < 0);
    let sum = |of: &[(i64, u64)]| of.iter().map(|(_, n)| n).sum::<u64>();
    failures.check(sum(&early) + sum(&due) == TIMERS && sum(&due) <= MISSED, || {
        format!("early: {} early deadlines and {} due ones of {TIMERS} timers", sum(&early), sum(&due))
    });
    for (late, _) in early {
        // The timer loses WRAP ticks.
        failures.check((0..HANDLING).contains(&(late + WRAP)), || format!("early: a deadline was {late} cycles late"));
    }
    let capped = results.histogram_of_keys("capped.causes")?;
    failures.extend(in_time("capped", &capped));
    let parameter = results.word("capped.parameter")?;
    // From 7.3 on, there is no parameter.
    failures.check(["Y", ""].contains(&parameter.as_str()), || format!("capped: parameter {parameter}"));
    let soft = by_cause(&results.histogram_of_keys("early-soft.causes")?);
    failures.same("early-soft: spurious exits", count(&soft, SPURIOUS), TIMERS);
    Ok(failures)
}

/// Checks that no deadline was early, and that exits without a deadline have no lateness.
pub(super) fn in_time(name: &str, causes: &Causes) -> Failures {
    let mut failures = Failures::default();
    for (late, _) in deadlines(causes) {
        failures.check((0..LATEST).contains(&late), || format!("{name}: a deadline was {late} cycles late"));
    }
    for key in causes.keys().filter(|key| key[0] != DEADLINE) {
        failures.check(key[1] == 0, || format!("{name}: cause {} has a lateness of {}", key[0], key[1]));
    }
    failures
}

/// Returns the counts by cause alone.
pub(super) fn by_cause(causes: &Causes) -> BTreeMap<u64, u64> {
    let mut sums = BTreeMap::new();
    for (key, n) in causes {
        *sums.entry(key[0]).or_default() += n;
    }
    sums
}

/// Returns the deadlines' lateness, and how many had it.
fn deadlines(causes: &Causes) -> Vec<(i64, u64)> {
    causes.iter().filter(|(key, _)| key[0] == DEADLINE).map(|(key, n)| (key[1].cast_signed(), *n)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negative_lateness_is_early() {
        let causes = |late: u64| BTreeMap::from([(vec![DEADLINE, late], 3), (vec![SPURIOUS, 0], 2)]);
        assert!(in_time("due", &causes(4000)).0.is_empty());
        assert_eq!(in_time("early", &causes(4000u64.wrapping_sub(1 << 20))).0.len(), 1);
        assert_eq!(by_cause(&causes(0)), BTreeMap::from([(DEADLINE, 3), (SPURIOUS, 2)]));
    }
}
