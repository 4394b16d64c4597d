//! Sums that hold in every interval, however it was counted, and in a recording. The writer keeps them, and the reader takes what is
//! without them as damaged.

use anyhow::{Result, ensure};
use tracer_common::{Isa, VMX_PREEMPTION_TIMER, rules::TimerCause};

use crate::model::{
    accounting::{Accounting, CpuAccount, LeftOut},
    figures::Figure,
    histogram::Histogram,
    interval::Interval,
    measurement::Aggregation,
    series::{EntryKind, Key, Series},
    totals::Totals,
};

/// The figures whose sums the budget of a series has.
pub(super) const TIMES: [Figure; 2] = [Figure::EntryToExit, Figure::ExitToEntry];

/// The sum of a distribution's values, of which only the buckets are known.
#[derive(Clone, Copy, Default)]
pub(super) struct Span {
    least: u128,
    most: u128,
}

impl Span {
    pub(super) fn of(histogram: &Histogram) -> Self {
        // In 128 bits, in which no sum of 2^16 buckets overflows.
        let mut span = Self::default();
        for (low, width, n) in histogram.buckets() {
            span.least += u128::from(low) * u128::from(n);
            span.most += u128::from(low + (width - 1)) * u128::from(n);
        }
        span
    }

    fn contains(&self, sum: u64) -> bool {
        // A sum that reached 2^64 - 1 ended there.
        let sum_ends = |bound: u128| bound.min(u64::MAX.into());
        (sum_ends(self.least)..=sum_ends(self.most)).contains(&sum.into())
    }
}

/// Holds an interval's series against its counts. `spans`: by the places of its series, those of [`TIMES`], where they are known.
///
/// * The entries of all series are `delivered - malformed - not_kept`: each record that arrived, decoded and found room is in one
///   series; with in-kernel aggregation, `delivered` is the sum of the series' growth, and nothing is malformed or over the limit.
/// * A series of clean or dirty entries has as many numbers of pin writes as entries, one of unknown entries none. With in-kernel
///   aggregation it may have fewer, because early recorders read a series' counts one after the other while they grew.
/// * `transition_ns` is known of at most every entry.
/// * The sums of times are those of values in the buckets of their distributions; where the programs counted, buckets are only middles of
///   theirs, and only the parts are held against the host time. The parts of the host time are at most the host time.
/// * A series of a detail has exits alone.
/// * Only exits of the VMX-preemption timer have a cause, and only those with a deadline have a distance to it, one at most each.
///
/// Host time has no sum within an interval: it is charged to the exit before, and unknown for a vCPU's first entry.
pub(super) fn check(
    interval: &Interval,
    aggregation: Aggregation,
    spans: Option<&[[Span; TIMES.len()]]>,
) -> Result<()> {
    let mut entries = 0u64;
    for (at, (key, series)) in interval.series.iter().enumerate() {
        check_series(key, series, aggregation, spans.map(|spans| spans[at]))?;
        entries = entries.saturating_add(series.entries());
    }
    let totals = &interval.totals;
    let expected = totals.delivered.checked_sub(totals.malformed).and_then(|n| n.checked_sub(totals.not_kept));
    ensure!(
        expected == Some(entries),
        "its series have {entries} entries, and its counts say {}",
        expected.map_or("fewer than none".into(), |n| n.to_string())
    );
    Ok(())
}

/// Holds the counts of all intervals against the accounting at the end.
pub(super) fn check_accounting(read: &Totals, accounting: &Accounting) -> Result<()> {
    let sum = |of: fn(&CpuAccount) -> u64| accounting.cpus.iter().map(of).fold(0, u64::saturating_add);
    let left_out = accounting.left_out.unwrap_or(LeftOut { entries: 0, delivered: 0, dropped: 0 });
    for (name, read, left_out, accounted) in [
        ("entries", read.entries, left_out.entries, sum(|cpu| cpu.entries)),
        ("delivered", read.delivered, left_out.delivered, sum(|cpu| cpu.delivered)),
        ("dropped", read.dropped, left_out.dropped, sum(|cpu| cpu.dropped)),
    ] {
        let written = accounted.saturating_sub(left_out);
        ensure!(read == written, "the intervals have {read} {name}, and the recording had {written}");
    }
    Ok(())
}

fn check_series(
    key: &Key,
    series: &Series,
    aggregation: Aggregation,
    spans: Option<[Span; TIMES.len()]>,
) -> Result<()> {
    let (entries, writes) = (series.entries(), &series[Figure::PinWrites]);
    ensure!(writes.count() <= entries, "{} pin writes known of {entries} entries of a series", writes.count());
    ensure!(writes.max() <= Some(u8::MAX.into()), "more pin writes of an entry than are counted");
    ensure!(
        series[Figure::Transition].count() <= entries,
        "transition_ns known of {} of {entries} entries of a series",
        series[Figure::Transition].count()
    );
    let is_timer = key.isa == Isa::Vmx && key.reason.is_some_and(|reason| reason & 0xffff == VMX_PREEMPTION_TIMER);
    ensure!(is_timer || key.cause.is_none(), "the cause of a timer exit in a series of other exits");
    let distances = series[Figure::DeadlineLate].count().saturating_add(series[Figure::DeadlineRemaining].count());
    let has_deadline = matches!(key.cause, Some(TimerCause::Deadline | TimerCause::Early));
    ensure!(
        distances <= if has_deadline { entries } else { 0 },
        "{distances} distances to a deadline of {entries} entries of a series"
    );
    ensure!(
        key.cause != Some(TimerCause::Early) || series[Figure::DeadlineLate].count() == 0,
        "early timer exits at or after their deadline"
    );
    check_times(series, aggregation, spans)?;
    ensure!(
        key.detail.is_none() || Figure::ALL.iter().all(|f| *f == Figure::ExitToEntry || series[*f].count() == 0),
        "entries in a series of exits"
    );
    if aggregation == Aggregation::Records {
        let (known, possible) = match key.entry {
            EntryKind::Clean => (entries, writes.max() <= Some(0)),
            EntryKind::Dirty => (entries, writes.min() != Some(0)),
            EntryKind::Unknown => (0, true),
        };
        ensure!(
            writes.count() == known && possible,
            "pin writes of {} of {entries} {} entries of a series",
            writes.count(),
            key.entry.name()
        );
    }
    Ok(())
}

fn check_times(series: &Series, aggregation: Aggregation, spans: Option<[Span; TIMES.len()]>) -> Result<()> {
    let budget = &series.budget;
    ensure!(
        budget.named_ns() <= budget.host_ns,
        "parts of {} ns of a host time of {} ns",
        budget.named_ns(),
        budget.host_ns
    );
    if aggregation == Aggregation::InKernel {
        return Ok(());
    }
    let spans = spans.unwrap_or_else(|| TIMES.map(|figure| Span::of(&series[figure])));
    for ((figure, span), sum) in TIMES.iter().zip(spans).zip([budget.guest_ns, budget.host_ns]) {
        ensure!(
            span.contains(sum),
            "a sum of {} of {sum} ns, and its distribution has {} to {}",
            figure.name(),
            span.least,
            span.most
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::interval::tests::{event, vm};

    fn interval() -> Interval {
        let mut interval = Interval::starting(0);
        interval.record(&event(0, 10, 5, 0), &vm(0));
        interval.record(&event(0, 52, 5, 2), &vm(0));
        interval.totals =
            Totals { entries: 5, delivered: 4, dropped: 1, malformed: 1, not_kept: 1, ..Totals::default() };
        interval
    }

    fn error(change: impl Fn(&mut Interval), aggregation: Aggregation) -> Option<String> {
        let mut interval = interval();
        change(&mut interval);
        check(&interval, aggregation, None).err().map(|e| e.to_string())
    }

    #[test]
    fn a_missing_or_doubled_entry_is_found_in_both_ways_of_counting() {
        for aggregation in [Aggregation::Records, Aggregation::InKernel] {
            assert_eq!(error(|_| {}, aggregation), None);
            for n in [0, 3, 5] {
                assert!(error(|i| i.totals.delivered = n, aggregation).is_some(), "{n}");
            }
            let series = |i: &mut Interval| i.series.retain(|key, _| key.entry == EntryKind::Dirty);
            assert!(error(series, aggregation).unwrap().contains("1 entries, and its counts say 2"));
        }
    }

    #[test]
    fn distances_to_a_deadline_belong_to_timer_exits_that_had_one() {
        let records = Aggregation::Records;
        let at = |reason, figure: Figure, times: u64| {
            error(
                move |i| {
                    let series = i.series.iter_mut().filter(|(key, _)| key.reason == Some(reason));
                    series.for_each(|(_, series)| series[figure].record_n(7, times));
                },
                records,
            )
        };
        assert_eq!(at(52, Figure::DeadlineLate, 1), None);
        assert!(at(52, Figure::DeadlineLate, 2).unwrap().contains("2 distances to a deadline of 1 entries"));
        assert!(at(10, Figure::DeadlineRemaining, 1).unwrap().contains("of 1 entries"));
        let as_cause = |reason, cause, figure: Option<Figure>| {
            error(
                move |i| {
                    let of = |key: &Key| key.reason == Some(reason);
                    let key = *i.series.keys().find(|key| of(key)).unwrap();
                    let mut series = i.series.swap_remove(&key).unwrap();
                    figure.into_iter().for_each(|figure| series[figure].record(7));
                    i.series.insert(Key { cause: Some(cause), ..key }, series);
                },
                records,
            )
        };
        assert_eq!(as_cause(52, TimerCause::Early, Some(Figure::DeadlineRemaining)), None);
        assert!(as_cause(52, TimerCause::Early, Some(Figure::DeadlineLate)).is_some());
        assert!(as_cause(52, TimerCause::Spurious, Some(Figure::DeadlineLate)).is_some());
        assert!(as_cause(10, TimerCause::Early, None).unwrap().contains("a series of other exits"));
    }

    #[test]
    fn pin_writes_belong_to_every_entry_of_a_clean_or_dirty_series() {
        let records = Aggregation::Records;
        let without = |i: &mut Interval| i.series.values_mut().for_each(|s| s[Figure::PinWrites] = Default::default());
        assert!(error(without, records).is_some());
        assert_eq!(error(without, Aggregation::InKernel), None);
        let more = |i: &mut Interval| i.series.values_mut().for_each(|s| s[Figure::PinWrites].record(1));
        assert!(error(more, Aggregation::InKernel).is_some());
        let many = |i: &mut Interval| {
            i.series.values_mut().for_each(|s| {
                s[Figure::PinWrites] = Default::default();
                s[Figure::PinWrites].record(300);
            });
        };
        assert!(error(many, Aggregation::InKernel).is_some());
        let transitions = |i: &mut Interval| i.series.values_mut().for_each(|s| s[Figure::Transition].record_n(1, 2));
        assert!(error(transitions, Aggregation::InKernel).is_some());
    }
}
