//! Figures summed over the exporter's life, by series. Series of VMs that are gone expire; over a limit, new series count for a VM
//! called "other".

use std::{borrow::Cow, collections::BTreeMap};

use tracer_common::rules::TimerCause;

use super::{
    distribution::Distribution,
    family::{Family, Labels, Sample, Value},
};
use crate::{
    export::metrics::{self, Metric},
    host::clock::Anchor,
    model::{
        exit_reasons,
        figures::Figure,
        interval::{Interval, Vm},
        knowledge::{Knowledge, TimerExits},
        series::{EntryKind, Key, Level, Series},
        totals::Totals,
    },
};

/// Time without an entry after which a VM expires, ns.
const EXPIRY_NS: u64 = 300_000_000_000;
/// Name for everything over a limit.
const OTHER: &str = "other";
/// Histograms of the VM "other" at most; over this limit, its exit reason is "other", too.
const OTHERS: usize = 256;
/// Characters of a label's value at most; names in a recording may have any length.
const MAX_LABEL: usize = 256;

/// Labels that may identify VMs in addition to their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum VmLabel {
    /// name of the host
    Host,
    /// process of the VMM
    Pid,
    /// number of the VM within its process
    Ordinal,
}

impl VmLabel {
    fn of(self, vm: &Vm) -> (&'static str, String) {
        match self {
            Self::Host => ("host", vm.host.clone().unwrap_or_default()),
            Self::Pid => ("pid", vm.tgid.to_string()),
            Self::Ordinal => ("ordinal", vm.ordinal.to_string()),
        }
    }
}

/// Labels of a VM, `vm` first.
type Identity = Vec<(&'static str, String)>;
type Reason = Cow<'static, str>;

/// A figure that is exported as a histogram.
struct Exported {
    figure: Figure,
    metric: &'static Metric,
}

impl Exported {
    fn place(&self, key: &Key, reason: &Reason) -> (Figure, Level, Reason, Option<EntryKind>) {
        // Clean and dirty entries are kept apart; a handled exit is neither.
        let entry = (!self.figure.counts_exits()).then_some(key.entry);
        (self.figure, key.level, reason.clone(), entry)
    }
}

/// The figures that are exported as histograms.
const HISTOGRAMS: [Exported; 2] = [
    Exported { figure: Figure::EntryToExit, metric: &metrics::ENTRY_TO_EXIT },
    Exported { figure: Figure::ExitToEntry, metric: &metrics::EXIT_TO_ENTRY },
];

/// One VM's sums.
#[derive(Debug, Default)]
struct Sums {
    /// start of counting, ns since the epoch
    created_ns: u64,
    /// time of the last interval with an entry, CLOCK_MONOTONIC, ns
    last_entry_ns: u64,
    entries: BTreeMap<(Level, EntryKind), u64>,
    /// number of writes, and of entries whose writes are known
    pin_writes: BTreeMap<Level, (u64, u64)>,
    timer_exits: TimerExits,
    /// by figure of [`HISTOGRAMS`], level, exit reason, and, if the figure has histograms of its own for each, clean or dirty
    histograms: BTreeMap<(Figure, Level, Reason, Option<EntryKind>), Distribution>,
}

impl Sums {
    /// Number of new histograms that a series would need.
    fn wants(&self, key: &Key, reason: &Reason, series: &Series) -> usize {
        let places = HISTOGRAMS.iter().filter(|h| series[h.figure].count() > 0).map(|h| h.place(key, reason));
        places.filter(|place| !self.histograms.contains_key(place)).count()
    }

    fn add(&mut self, key: &Key, reason: &Reason, series: &Series) {
        let entries = series.entries();
        if entries > 0 {
            grow(self.entries.entry((key.level, key.entry)).or_default(), entries);
        }
        for histogram in HISTOGRAMS.iter().filter(|h| series[h.figure].count() > 0) {
            let place = self.histograms.entry(histogram.place(key, reason)).or_default();
            place.add(&series[histogram.figure]);
        }
        if series[Figure::PinWrites].count() > 0 {
            let (writes, known) = self.pin_writes.entry(key.level).or_default();
            grow(writes, series[Figure::PinWrites].sum());
            grow(known, series[Figure::PinWrites].count());
        }
        self.timer_exits.count(key, entries);
    }
}

fn grow(mine: &mut u64, more: u64) {
    *mine = mine.saturating_add(more);
}

/// All sums since the start.
#[derive(Debug)]
pub(crate) struct State {
    labels: Vec<VmLabel>,
    /// histograms at most, without those of "other"
    limit: usize,
    created_ns: u64,
    vms: BTreeMap<Identity, Sums>,
    /// histograms of all VMs but "other"
    histograms: usize,
    totals: Totals,
    observed_ns: u64,
    intervals: u64,
    last_interval_ns: Option<u64>,
    expired: u64,
    folded: u64,
}

impl State {
    /// An empty state. `limit` is the number of histograms at most; `created` is the start of counting.
    pub(crate) fn new(labels: Vec<VmLabel>, limit: usize, created: Anchor) -> Self {
        Self {
            labels,
            limit,
            created_ns: created.unix_ns,
            vms: BTreeMap::new(),
            histograms: 0,
            totals: Totals::default(),
            observed_ns: 0,
            intervals: 0,
            last_interval_ns: None,
            expired: 0,
            folded: 0,
        }
    }

    /// Adds an interval that ended `now`, and expires VMs.
    pub(crate) fn add(&mut self, interval: &Interval, now: Anchor) {
        self.totals.merge(&interval.totals);
        grow(&mut self.observed_ns, interval.length_ns);
        grow(&mut self.intervals, 1);
        self.last_interval_ns = Some(now.unix_ns);
        self.expire(now);
        let identities: BTreeMap<u32, Identity> =
            interval.vms.iter().map(|(id, vm)| (*id, self.identity(vm))).collect();
        // In order, so that always the same series are over the limit.
        let ordered: BTreeMap<_, _> = interval.series.iter().collect();
        for (key, series) in ordered {
            let Some(identity) = identities.get(&key.vm) else { continue };
            let (identity, reason) = self.place(identity, key, series);
            let created_ns = now.unix_ns.saturating_sub(interval.length_ns);
            let sums = self.vms.entry(identity).or_insert_with(|| Sums { created_ns, ..Sums::default() });
            sums.last_entry_ns = now.monotonic_ns;
            sums.add(key, &reason, series);
        }
    }

    /// The VM and exit reason that a series counts for: its own, or "other" over the limit.
    fn place(&mut self, identity: &Identity, key: &Key, series: &Series) -> (Identity, Reason) {
        let reason = exit_reasons::name_or_unknown(key.isa, key.reason);
        let wanted = |identity: &Identity, reason: &Reason| {
            let none = Sums::default();
            self.vms.get(identity).unwrap_or(&none).wants(key, reason, series)
        };
        let more = wanted(identity, &reason);
        if more == 0 || self.histograms + more <= self.limit {
            self.histograms += more;
            return (identity.clone(), reason);
        }
        let other = self.other();
        let of_other = self.vms.get(&other).map_or(0, |sums| sums.histograms.len());
        let is_full = wanted(&other, &reason) + of_other > OTHERS;
        grow(&mut self.folded, series.entries());
        (other, if is_full { Cow::Borrowed(OTHER) } else { reason })
    }

    fn expire(&mut self, now: Anchor) {
        let other = self.other();
        let (histograms, expired) = (&mut self.histograms, &mut self.expired);
        self.vms.retain(|identity, sums| {
            let stays = now.monotonic_ns.saturating_sub(sums.last_entry_ns) <= EXPIRY_NS;
            if !stays {
                grow(expired, sums.histograms.len() as u64);
                *histograms -= if *identity == other { 0 } else { sums.histograms.len() };
            }
            stays
        });
    }

    /// Labels of a VM. A VM that is called "other" gets another name.
    fn identity(&self, vm: &Vm) -> Identity {
        let name = if vm.name == OTHER { "other (a VM of this name)" } else { &vm.name };
        let cut = |text: &str| text.chars().take(MAX_LABEL).collect();
        let more = self.labels.iter().map(|l| l.of(vm)).map(|(name, value)| (name, cut(&value)));
        std::iter::once(("vm", cut(name))).chain(more).collect()
    }

    fn other(&self) -> Identity {
        let more = self.labels.iter().map(|l| (l.of(&Vm::default()).0, String::new()));
        std::iter::once(("vm", OTHER.to_owned())).chain(more).collect()
    }

    /// Families of the VMs' entries, as far as they are known: what is not has no sample.
    pub(crate) fn figures<'a>(&'a self, knowledge: &Knowledge) -> Vec<Family<'a>> {
        let mut histograms: Vec<_> = HISTOGRAMS.iter().map(|h| Family::new(h.metric)).collect();
        let [mut entries, mut pin_writes, mut known, mut timer_exits] =
            [&metrics::ENTRIES, &metrics::PIN_WRITES, &metrics::PIN_KNOWN_ENTRIES, &metrics::TIMER_EXITS]
                .map(Family::new);
        for (identity, sums) in &self.vms {
            let created_ns = Some(sums.created_ns);
            let push = |family: &mut Family<'a>, more: &[(&'static str, &'static str)], n: u64| {
                family.samples.push(Sample { labels: labels(identity, more), value: Value::Count(n), created_ns });
            };
            for ((level, kind), n) in &sums.entries {
                push(&mut entries, &[("level", level.name()), ("entry", kind.name())], *n);
            }
            let pin_writes_are_known = knowledge.figure(Figure::PinWrites).is_ok();
            for (level, (writes, of)) in sums.pin_writes.iter().filter(|_| pin_writes_are_known) {
                push(&mut pin_writes, &[("level", level.name())], *writes);
                push(&mut known, &[("level", level.name())], *of);
            }
            for cause in TimerCause::ALL {
                let n = sums.timer_exits.of(cause, knowledge).ok();
                // Exits of unknown cause have a sample only if there are some.
                if let Some(n) = n.filter(|n| *n > 0 || cause != TimerCause::Unknown) {
                    push(&mut timer_exits, &[("cause", cause.name())], n);
                }
            }
            for ((figure, level, reason, kind), distribution) in &sums.histograms {
                if knowledge.figure(*figure).is_err() {
                    continue;
                }
                let mut more = vec![("level", level.name()), ("exit_reason", reason)];
                more.extend(kind.map(|kind| ("entry", kind.name())));
                let family = HISTOGRAMS.iter().zip(&mut histograms).find(|(h, _)| h.figure == *figure);
                if let Some((_, family)) = family {
                    family.samples.push(histogram(labels(identity, &more), distribution, sums));
                }
            }
        }
        let mut families = histograms;
        families.extend([entries, pin_writes, known, timer_exits]);
        families.retain(|f| !f.samples.is_empty());
        families
    }

    /// Families of loss and length.
    pub(crate) fn totals(&self) -> Vec<Family<'static>> {
        let t = &self.totals;
        let count = |metric, n| Family::one(metric, Value::Count(n), Some(self.created_ns));
        vec![
            count(&metrics::RING_ENTRIES, t.entries),
            count(&metrics::RING_DELIVERED, t.delivered),
            count(&metrics::RING_DROPPED, t.dropped),
            count(&metrics::RING_MALFORMED, t.malformed),
            count(&metrics::UNMATCHED, t.unmatched),
            count(&metrics::NOT_KEPT, t.not_kept),
            count(&metrics::TD_ENTRIES, t.td_entries),
            Family::one(&metrics::OBSERVED, Value::Number(self.observed_ns as f64 / 1e9), Some(self.created_ns)),
        ]
    }

    /// Families of the collector's health and of the series limit.
    pub(crate) fn health(&self) -> Vec<Family<'static>> {
        let created = Some(self.created_ns);
        let last = self.last_interval_ns.map(|ns| Value::Number(ns as f64 / 1e9));
        let histograms: usize = self.vms.values().map(|sums| sums.histograms.len()).sum();
        let mut families = vec![Family::one(&metrics::INTERVALS, Value::Count(self.intervals), created)];
        families.extend(last.map(|value| Family::one(&metrics::LAST_INTERVAL, value, None)));
        families.extend([
            Family::one(&metrics::SERIES, Value::Count(histograms as u64), None),
            Family::one(&metrics::SERIES_LIMIT, Value::Count(self.limit as u64), None),
            Family::one(&metrics::SERIES_EXPIRED, Value::Count(self.expired), created),
            Family::one(&metrics::FOLDED_ENTRIES, Value::Count(self.folded), created),
        ]);
        families
    }
}

fn labels<'a>(identity: &'a Identity, more: &[(&'static str, &'a str)]) -> Labels<'a> {
    let vm = identity.iter().map(|(name, value)| (*name, Cow::Borrowed(value.as_str())));
    vm.chain(more.iter().map(|(name, value)| (*name, Cow::Borrowed(*value)))).collect()
}

fn histogram<'a>(labels: Labels<'a>, distribution: &'a Distribution, sums: &Sums) -> Sample<'a> {
    Sample { labels, value: Value::Histogram(distribution), created_ns: Some(sums.created_ns) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracer_common::Isa;

    use super::*;
    use crate::model::{
        interval::tests::{event, vm},
        measurement::Latency,
        number::truncated_u64,
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
        let causes = [("vm0/deadline".into(), 2), ("vm0/immediate".into(), 0), ("vm0/spurious".into(), 0)];
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
        for second in 0..3 {
            for id in 0..10 {
                state.add(&interval(&vm(id)), at(second));
            }
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
    fn ten_thousand_vms_that_come_and_go_leave_few_series() {
        let mut state = state(1000);
        for id in 0..10_000 {
            state.add(&interval(&vm(id)), at(u64::from(id)));
            assert!(state.histograms <= 1000 && state.vms.len() <= 302);
        }
        assert!(value(&state, &metrics::SERIES) <= 1000 + 4);
        assert!(value(&state, &metrics::SERIES_EXPIRED) > 30_000);
        assert_eq!(value(&state, &metrics::RING_DELIVERED), 20_000);
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

    #[test]
    fn vms_of_one_name_count_together_unless_a_label_differs() {
        let (a, b) = (vm(0), Arc::new(Vm { id: 1, tgid: 7, ..Vm::clone(&vm(0)) }));
        let add = |labels: Vec<VmLabel>| {
            let mut state = State::new(labels, 100, at(0));
            state.add(&interval(&a), at(1));
            state.add(&interval(&b), at(1));
            samples(&state, &metrics::PIN_WRITES)
        };
        assert_eq!(add(vec![]), [("vm0/L1".into(), 4)]);
        assert_eq!(add(vec![VmLabel::Pid]), [("vm0/100/L1".into(), 2), ("vm0/7/L1".into(), 2)]);
    }

    #[test]
    fn a_long_name_is_cut_and_no_vm_can_pose_as_other() {
        let mut state = state(100);
        state.add(&interval(&Arc::new(Vm { name: "ü".repeat(1 << 20), ..Vm::clone(&vm(0)) })), at(1));
        state.add(&interval(&Arc::new(Vm { name: "other".into(), ..Vm::clone(&vm(0)) })), at(1));
        let names: Vec<_> = samples(&state, &metrics::PIN_WRITES).into_iter().map(|s| s.0).collect();
        assert_eq!(names, ["other (a VM of this name)/L1".to_owned(), "ü".repeat(MAX_LABEL) + "/L1"]);
    }
}
