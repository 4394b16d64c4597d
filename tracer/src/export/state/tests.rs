//! The sums, their limit and who loses at it.

use std::sync::Arc;

use tracer_common::{
    Event, Isa,
    detail::{RawDetail, Source},
    host_time::Phases,
};

use super::*;
use crate::{
    export::metrics::Metric,
    model::{
        interval::tests::{event, vm},
        measurement::Latency,
        number::truncated_u64,
    },
};

fn at(seconds: u64) -> Anchor {
    let ns = seconds * 1_000_000_000;
    Anchor { monotonic_ns: ns, unix_ns: 1_700_000_000_000_000_000 + ns }
}

fn state(limit: usize) -> State {
    State::new(vec![], limit, at(0))
}

/// A second with a CPUID, and a timer exit after two writes.
fn interval(vm: &Arc<Vm>) -> Interval {
    let mut interval = Interval { length_ns: 1_000_000_000, ..Interval::default() };
    interval.record(&event(0, 10, 900, 0), vm);
    interval.record(&event(1, 52, 5_000, 2), vm);
    interval.totals = Totals { entries: 3, delivered: 2, dropped: 1, ..Totals::default() };
    interval
}

/// Samples of a metric: labels as "vm0/L1/clean", and the value or count.
fn samples(state: &State, metric: &Metric) -> Vec<(String, u64)> {
    let families = [state.figures(&Knowledge::complete()), state.totals(), state.health()].concat();
    let of_metric = families.into_iter().filter(|f| f.metric.name == metric.name).flat_map(|f| f.samples);
    let number = |value: Value<'_>| match value {
        Value::Count(n) => n,
        Value::Number(n) => truncated_u64(n),
        Value::Histogram(d) => d.count(),
    };
    let text = |labels: Labels<'_>| labels.into_iter().map(|(_, v)| v.into_owned()).collect::<Vec<_>>().join("/");
    of_metric.map(|s| (text(s.labels), number(s.value))).collect()
}

fn value(state: &State, metric: &Metric) -> u64 {
    samples(state, metric)[0].1
}

#[test]
fn sums_equal_those_of_the_entries() {
    let mut state = state(100);
    state.add(&interval(&vm(0)), at(1));
    state.add(&interval(&vm(0)), at(2));
    let s = |m| samples(&state, m);
    assert_eq!(s(&metrics::ENTRIES), [("vm0/L1/clean".into(), 2), ("vm0/L1/dirty".into(), 2)]);
    assert_eq!(s(&metrics::PIN_WRITES), [("vm0/L1".into(), 4)]);
    assert_eq!(s(&metrics::PIN_KNOWN_ENTRIES), [("vm0/L1".into(), 4)]);
    let causes = [("deadline", 2), ("immediate", 0), ("spurious", 0), ("early", 0)];
    let causes = causes.map(|(cause, n)| (format!("vm0/{cause}"), n));
    assert_eq!(s(&metrics::TIMER_EXITS), causes);
    let entry = [("vm0/L1/CPUID/clean".into(), 2), ("vm0/L1/PREEMPTION_TIMER/dirty".into(), 2)];
    assert_eq!(s(&metrics::ENTRY_TO_EXIT), entry);
    assert_eq!(s(&metrics::EXIT_TO_ENTRY).len(), 2);
    assert_eq!((value(&state, &metrics::RING_ENTRIES), value(&state, &metrics::RING_DROPPED)), (6, 2));
    assert_eq!(value(&state, &metrics::OBSERVED), 2);
    let disturbed = Knowledge::complete().with_latency(Latency::Disturbed);
    assert!(state.figures(&disturbed).iter().all(|f| f.metric.kind != metrics::MetricKind::Histogram));
}

#[test]
fn parts_of_the_host_time_and_details_are_sums_by_exit_reason() {
    let mut state = state(100);
    let mut interval = Interval { length_ns: 1_000_000_000, ..Interval::default() };
    let round = event(0, 32, 900, 0);
    let phases = Phases { user_ns: 100_000_000_000, steal_ns: 1_000_000_000, ..Phases::default() };
    for msr in (0..12).chain([3, 3]) {
        let previous_detail = RawDetail::new(Source::Msr, 0x6e0 + msr);
        let exit_to_entry_ns = 103_000_000_000;
        let event = Event { previous: round.outline(), previous_detail, exit_to_entry_ns, phases, ..round };
        interval.record(&event, &vm(0));
    }
    interval.totals = Totals { entries: 14, delivered: 14, ..Totals::default() };
    state.add(&interval, at(1));
    let of = |phase: &str, seconds: u64| (format!("vm0/MSR_WRITE/{phase}"), seconds * 14);
    let expected = [of("kernel", 2), of("user", 100), of("polled", 0), of("idle", 0), of("steal", 1)];
    assert_eq!(samples(&state, &metrics::PHASE), expected);
    let exits = samples(&state, &metrics::DETAIL_EXITS);
    let of = |name: &str| exits.iter().find(|(labels, _)| labels == &format!("vm0/MSR_WRITE/{name}")).map(|s| s.1);
    assert_eq!((exits.len(), of("0x6e0 TSC_DEADLINE"), of("0x6e3"), of("other")), (11, Some(1), Some(3), Some(2)));
    assert_eq!(samples(&state, &metrics::DETAIL_SECONDS).iter().map(|s| s.1).sum::<u64>(), 103 * 14);
    let without = Knowledge::complete().without([Subject::UserTime], "why");
    let phases = state.figures(&without).into_iter().find(|f| f.metric.name == metrics::PHASE.name).unwrap();
    assert_eq!(phases.samples.len(), 4, "what is not known has no sample");
    let all = [Subject::UserTime, Subject::HaltTime, Subject::StealTime];
    let without = state.figures(&Knowledge::complete().without(all, "why"));
    assert!(without.iter().all(|f| f.metric.name != metrics::PHASE.name));
}

#[test]
fn unknown_values_have_no_sample() {
    let mut state = state(100);
    let mut interval = interval(&vm(0));
    interval.series = interval
        .series
        .into_iter()
        .map(|(k, mut s)| {
            s[Figure::PinWrites] = Default::default();
            (Key { isa: Isa::Svm, cause: None, ..k }, s)
        })
        .collect();
    state.add(&interval, at(1));
    for metric in [&metrics::PIN_WRITES, &metrics::PIN_KNOWN_ENTRIES, &metrics::TIMER_EXITS] {
        assert_eq!(samples(&state, metric), [], "{}", metric.name);
    }
    assert!(self::state(1).health().iter().all(|f| f.metric.name != metrics::LAST_INTERVAL.name));
}

#[test]
fn over_the_limit_new_series_count_for_other_and_nothing_is_lost() {
    let mut state = state(8);
    let mut all = Interval::default();
    (0..10).for_each(|id| all.merge(&interval(&vm(id))));
    for second in 0..3 {
        state.add(&all, at(second));
    }
    let entries = samples(&state, &metrics::ENTRIES);
    assert_eq!(entries.iter().map(|e| e.1).sum::<u64>(), 60);
    assert_eq!(entries[0], ("other/L1/clean".into(), 24));
    assert_eq!(value(&state, &metrics::FOLDED_ENTRIES), 48);
    assert_eq!(value(&state, &metrics::SERIES), 8 + 4);
    assert_eq!(value(&state, &metrics::SERIES_LIMIT), 8);
    assert_eq!(samples(&state, &metrics::TIMER_EXITS).iter().map(|e| e.1).sum::<u64>(), 30);
}

#[test]
fn exit_reasons_of_other_are_limited_too() {
    let mut state = state(1);
    let mut interval = Interval::default();
    for reason in 0..2000 {
        interval.record(&event(0, 1000 + reason, 5, 0), &vm(0));
    }
    state.add(&interval, at(1));
    assert!(value(&state, &metrics::SERIES) <= OTHERS as u64 + 1 + 2);
    assert_eq!(samples(&state, &metrics::ENTRIES).iter().map(|e| e.1).sum::<u64>(), 2000);
}

#[test]
fn a_vm_that_is_gone_expires_and_restarts_with_a_new_creation_time() {
    let mut state = state(100);
    state.add(&interval(&vm(0)), at(1));
    let created = |s: &State| s.figures(&Knowledge::complete())[0].samples[0].created_ns;
    let first = created(&state);
    state.add(&Interval::default(), at(301));
    assert_eq!(samples(&state, &metrics::ENTRIES).len(), 2);
    state.add(&Interval::default(), at(302));
    assert_eq!(samples(&state, &metrics::ENTRIES), []);
    assert_eq!((value(&state, &metrics::SERIES), value(&state, &metrics::SERIES_EXPIRED)), (0, 4));
    state.add(&interval(&vm(0)), at(400));
    assert_eq!(samples(&state, &metrics::ENTRIES)[0].1, 1);
    assert!(created(&state) > first);
    assert_eq!(created(&state), Some(at(399).unix_ns));
    assert_eq!(value(&state, &metrics::RING_ENTRIES), 6, "the host's own counters go on");
}

#[test]
fn thousands_of_vms_that_come_and_go_leave_few_series() {
    let mut state = state(1000);
    for id in 0..3_000 {
        state.add(&interval(&vm(id)), at(u64::from(id)));
        assert!(state.shares.held() <= 1000 && state.vms.len() <= 302);
    }
    assert!(value(&state, &metrics::SERIES) <= 1000 + 4);
    assert_eq!(value(&state, &metrics::FOLDED_ENTRIES), 0, "those that ended make room for the new");
    assert_eq!(value(&state, &metrics::RING_DELIVERED), 6_000);
}

#[test]
fn counters_never_decrease_while_their_vm_lives() {
    let mut state = state(30);
    let mut before = BTreeMap::new();
    for second in 0..600 {
        state.add(&interval(&vm(second % 13)), at(u64::from(second)));
        let now: BTreeMap<_, _> = samples(&state, &metrics::ENTRIES).into_iter().collect();
        assert!(before.iter().all(|(name, n)| now[name] >= *n), "{second}");
        before = now;
    }
}

/// An interval with an entry of each of a process's VMs.
fn entries_of(tgid: u32, names: impl Iterator<Item = u32>) -> Interval {
    let mut interval = Interval { length_ns: 1_000_000_000, ..Interval::default() };
    for n in names {
        let vm = Vm { id: n, name: format!("{tgid}-{n}"), tgid, ..Vm::default() };
        interval.record(&event(0, 10, 900, 0), &Arc::new(vm));
    }
    interval
}

#[test]
fn a_process_with_ten_thousand_names_leaves_the_others_their_series() {
    let mut state = state(100);
    let old = entries_of(2, 0..5);
    let messages: Vec<_> = (0..100)
        .filter_map(|second| {
            let mut interval = entries_of(1, 100 + 100 * second..200 + 100 * second);
            interval.merge(&old);
            state.add(&interval, at(second.into()))
        })
        .collect();
    state.add(&entries_of(3, 0..1), at(100));
    let entries: BTreeMap<_, _> = samples(&state, &metrics::ENTRIES).into_iter().collect();
    for n in 0..5 {
        assert_eq!(entries[&format!("2-{n}/L1/clean")], 100, "a series of process 2 went");
    }
    assert_eq!(entries["3-0/L1/clean"], 1, "the newcomer has no series");
    assert!(value(&state, &metrics::SERIES) <= 100 + 2 && value(&state, &metrics::SERIES_EVICTED) > 4000);
    assert!(messages.len() == 1 && messages[0].contains("(process 1)"), "{messages:?}");
    assert!(state.folded().contains("(process 1)") && state.folded().lines().count() == 1, "{}", state.folded());
}

/// What Prometheus adds up: the growth of all samples of a metric, where a sample that is new, or created later, begins with 0.
#[derive(Default)]
struct Increase {
    before: BTreeMap<(String, String, Option<u64>), u64>,
}

impl Increase {
    fn scrape(&mut self, state: &State, metrics: &[&Metric]) -> u64 {
        let families = state.figures(&Knowledge::complete());
        let wanted = families.into_iter().filter(|f| metrics.iter().any(|m| m.name == f.metric.name));
        let mut now = BTreeMap::new();
        for (name, sample) in wanted.flat_map(|f| f.samples.into_iter().map(move |s| (f.metric.name, s))) {
            let n = match sample.value {
                Value::Count(n) => n,
                Value::Histogram(d) => d.count(),
                Value::Number(_) => unreachable!("a counter of whole numbers"),
            };
            now.insert((name.to_owned(), format!("{:?}", sample.labels), sample.created_ns), n);
        }
        let grown = |(sample, n): (&_, &u64)| {
            let before = self.before.get(sample).unwrap_or(&0);
            n.checked_sub(*before).unwrap_or_else(|| panic!("{sample:?} decreases from {before} to {n}"))
        };
        let increase = now.iter().map(grown).sum();
        self.before = now;
        increase
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(32))]
    #[test]
    fn however_vms_come_and_go_every_entry_is_in_one_sample_and_no_sample_decreases(
        limit in 1usize..40,
        seconds in proptest::collection::vec((1u64..200, proptest::collection::vec((1u32..6, 0u32..12, 0u32..4), 0..20)), 1..40),
    ) {
        let mut state = state(limit);
        let (mut counters, mut histograms) = (Increase::default(), Increase::default());
        let (mut now, mut all) = (0, 0);
        for (pause, entries) in seconds {
            now += pause;
            let mut interval = Interval { length_ns: 1_000_000_000, ..Interval::default() };
            for (tgid, n, reason) in &entries {
                let vm = Vm { id: 100 * tgid + n, name: format!("vm{n}"), tgid: *tgid, ..Vm::default() };
                interval.record(&event(0, 10 + reason, 900, u8::from(*n == 3)), &Arc::new(vm));
            }
            state.add(&interval, at(now));
            all += entries.len() as u64;
            let of = |metric| samples(&state, metric).iter().map(|s| s.1).sum::<u64>();
            assert_eq!(of(&metrics::ENTRIES) + of(&metrics::EXPIRED_ENTRIES), all);
            assert!(state.shares.held() <= limit);
            assert_eq!(counters.scrape(&state, &[&metrics::ENTRIES]), entries.len() as u64);
            assert_eq!(histograms.scrape(&state, &[&metrics::ENTRY_TO_EXIT]), entries.len() as u64);
        }
    }
}

#[test]
fn vms_of_one_name_count_together_unless_a_label_differs() {
    let (a, b) = (vm(0), Arc::new(Vm { id: 1, tgid: 7, uid: Some(1000), ..Vm::clone(&vm(0)) }));
    let add = |labels: Vec<VmLabel>| {
        let mut state = State::new(labels, 100, at(0));
        state.add(&interval(&a), at(1));
        state.add(&interval(&b), at(1));
        samples(&state, &metrics::PIN_WRITES)
    };
    assert_eq!(add(vec![]), [("vm0/L1".into(), 4)]);
    assert_eq!(add(vec![VmLabel::Pid]), [("vm0/100/L1".into(), 2), ("vm0/7/L1".into(), 2)]);
    assert_eq!(add(vec![VmLabel::Uid]), [("vm0//L1".into(), 2), ("vm0/1000/L1".into(), 2)]);
}

#[test]
fn a_label_of_a_manager_is_empty_where_it_is_not_known_and_escaped_in_the_text() {
    let labelled = |id, labels: &[(&str, &str)]| {
        let mut vm = Vm { id, ..Vm::clone(&vm(0)) };
        labels.iter().for_each(|(key, value)| vm.labels.add(key, (*value).to_owned()));
        Arc::new(vm)
    };
    let keys = ["namespace", "customer"].map(|key| VmLabel::named(key).unwrap());
    let mut state = State::new(keys.into(), 100, at(0));
    state.add(&interval(&labelled(0, &[("namespace", "a"), ("uuid", "not asked for")])), at(1));
    state.add(&interval(&labelled(1, &[("customer", "x\"}\\\n y")])), at(1));
    state.add(&interval(&labelled(2, &[("namespace", "a")])), at(1));
    let text =
        crate::export::text::encode(&state.figures(&Knowledge::complete()), crate::export::text::Dialect::Classic);
    let writes: Vec<_> = text.lines().filter(|line| line.starts_with("vmentry_pin_writes_total{")).collect();
    assert_eq!(
        writes,
        [
            r#"vmentry_pin_writes_total{vm="vm0",namespace="",customer="x\"}\\\n y",level="L1"} 2"#,
            r#"vmentry_pin_writes_total{vm="vm0",namespace="a",customer="",level="L1"} 4"#,
        ]
    );
}

#[test]
fn a_long_name_is_cut_and_no_vm_can_pose_as_other() {
    let mut state = state(100);
    state.add(&interval(&Arc::new(Vm { name: "ü".repeat(1 << 20), ..Vm::clone(&vm(0)) })), at(1));
    state.add(&interval(&Arc::new(Vm { name: "other".into(), ..Vm::clone(&vm(0)) })), at(1));
    let names: Vec<_> = samples(&state, &metrics::PIN_WRITES).into_iter().map(|s| s.0).collect();
    assert_eq!(names, ["other (a VM of this name)/L1".to_owned(), "ü".repeat(MAX_LABEL) + "/L1"]);
}
