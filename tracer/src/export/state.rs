//! Figures summed over the exporter's life, by series. Series of VMs that are gone expire; over a limit, the shares of processes decide which
//! series are kept, and the others count for a VM called "other".

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use tracer_common::rules::TimerCause;

use super::{
    family::{Family, Labels, Sample, Value},
    folded::Folded,
    shares::{Moment, Process, Shares},
    sums::{DetailSum, HISTOGRAMS, Place, Reason, Sums, grow, places},
    vm_label::VmLabel,
};
use crate::{
    export::metrics,
    host::clock::Anchor,
    model::{
        budget::Phase,
        exit_reasons,
        figures::Figure,
        interval::{Interval, Vm},
        knowledge::{Knowledge, Subject},
        series::{Key, Series},
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
pub(super) const MAX_LABEL: usize = 256;

/// Values of a VM's labels: of `vm`, then of those that were asked for.
type Identity = Vec<String>;
/// A histogram: the number of its VM, and its place there.
type Histogram = (u64, Place);

/// Number of the VM "other".
const NUMBER_OF_OTHER: u64 = 0;

/// All sums since the start.
#[derive(Debug)]
pub(crate) struct State {
    labels: Vec<VmLabel>,
    created_ns: u64,
    /// numbers of the VMs that have sums
    numbers: BTreeMap<Identity, u64>,
    /// number of the next VM
    next: u64,
    vms: BTreeMap<u64, Sums>,
    /// histograms of all VMs but "other"
    shares: Shares<Histogram>,
    folded: Folded,
    totals: Totals,
    observed_ns: u64,
    intervals: u64,
    last_interval_ns: Option<u64>,
    gone: Gone,
}

/// Histograms and entries that are in no sample of their VM any more, or never were.
#[derive(Debug, Default)]
struct Gone {
    expired: u64,
    evicted: u64,
    /// of VMs whose last histogram expired or was evicted
    entries: u64,
    /// counted for "other"
    folded_entries: u64,
}

/// A series of an interval, and the VM that it counts for if there is room.
struct Counted<'a> {
    key: &'a Key,
    series: &'a Series,
    vm: &'a Vm,
    process: &'a Process,
    number: u64,
    reason: Reason,
}

impl Counted<'_> {
    fn histograms(&self) -> Vec<Histogram> {
        places(self.key, &self.reason, self.series).map(|place| (self.number, place)).collect()
    }
}

impl State {
    /// An empty state. `limit` is the number of histograms at most; `created` is the start of counting.
    pub(crate) fn new(labels: Vec<VmLabel>, limit: usize, created: Anchor) -> Self {
        let mut state = Self {
            labels,
            created_ns: created.unix_ns,
            numbers: BTreeMap::new(),
            next: NUMBER_OF_OTHER + 1,
            vms: BTreeMap::new(),
            shares: Shares::new(limit),
            folded: Folded::default(),
            totals: Totals::default(),
            observed_ns: 0,
            intervals: 0,
            last_interval_ns: None,
            gone: Gone::default(),
        };
        state.numbers.insert(state.other(), NUMBER_OF_OTHER);
        state
    }

    /// Adds an interval that ended `now`, and expires VMs. Returns a message if VMs that no message named yet find no room.
    pub(crate) fn add(&mut self, interval: &Interval, now: Anchor) -> Option<String> {
        self.totals.merge(&interval.totals);
        grow(&mut self.observed_ns, interval.length_ns);
        grow(&mut self.intervals, 1);
        self.last_interval_ns = Some(now.unix_ns);
        self.expire(now);
        let vms: BTreeMap<u32, _> =
            interval.vms.iter().map(|(id, vm)| (*id, (vm, Process::of(vm), self.number(vm)))).collect();
        // In order, so that always the same series are over the limit.
        let ordered: BTreeMap<_, _> = interval.series.iter().collect();
        let counted = ordered.into_iter().filter_map(|(key, series)| {
            let (vm, process, number) = vms.get(&key.vm)?;
            let reason = exit_reasons::name_or_unknown(key.isa, key.reason);
            Some(Counted { key, series, vm, process, number: *number, reason })
        });
        let counted: Vec<_> = counted.collect();
        self.make_room(&counted, now);
        let created_ns = now.unix_ns.saturating_sub(interval.length_ns);
        for series in counted {
            let (number, reason) = self.place(&series);
            let sums = self.vms.entry(number).or_insert_with(|| Sums { created_ns, ..Sums::default() });
            sums.last_entry_ns = now.monotonic_ns;
            sums.add(series.key, &reason, series.series, created_ns);
        }
        self.numbers.retain(|_, number| *number == NUMBER_OF_OTHER || self.vms.contains_key(number));
        self.folded.message(self.shares.limit(), now.monotonic_ns)
    }

    /// The number of a VM, a new one if it has no sums.
    fn number(&mut self, vm: &Vm) -> u64 {
        let identity = self.identity(vm);
        *self.numbers.entry(identity).or_insert_with(|| {
            self.next += 1;
            self.next - 1
        })
    }

    /// Makes room for the histograms of an interval's series, as far as the shares allow.
    fn make_room(&mut self, counted: &[Counted<'_>], now: Anchor) {
        let now = Moment { ns: now.monotonic_ns, interval: self.intervals };
        // All before the first eviction, so that what is in use now goes last.
        for histogram in counted.iter().flat_map(Counted::histograms) {
            self.shares.touch(&histogram, now);
        }
        let mut evicted = BTreeSet::new();
        for series in counted {
            let mut new = series.histograms();
            new.retain(|histogram| !self.shares.has(histogram));
            // One that was evicted now would continue with another creation time in the same sample.
            if !new.is_empty() && new.iter().all(|histogram| !evicted.contains(histogram)) {
                self.shares.claim(series.process, &new, now, &mut evicted);
            }
        }
        grow(&mut self.gone.evicted, evicted.len() as u64);
        for (number, place) in evicted {
            let Some(sums) = self.vms.get_mut(&number) else { continue };
            sums.forget(&place);
            if sums.histograms.is_empty() {
                grow(&mut self.gone.entries, sums.all_entries());
                self.vms.remove(&number);
            }
        }
    }

    /// The number of the VM, and the exit reason, that a series counts for: its own, or "other" without room.
    fn place(&mut self, counted: &Counted<'_>) -> (u64, Reason) {
        let histograms = counted.histograms();
        let has_room = if histograms.is_empty() {
            self.vms.contains_key(&counted.number)
        } else {
            histograms.iter().all(|histogram| self.shares.has(histogram))
        };
        if has_room {
            return (counted.number, counted.reason.clone());
        }
        let entries = counted.series.entries();
        grow(&mut self.gone.folded_entries, entries);
        self.folded.add(counted.process, counted.vm, entries);
        let of_other = self.vms.get(&NUMBER_OF_OTHER).map(|sums| &sums.histograms);
        let is_there = |place: &Place| of_other.is_some_and(|histograms| histograms.contains_key(place));
        let new = histograms.iter().filter(|(_, place)| !is_there(place)).count();
        let is_full = new > 0 && new + of_other.map_or(0, BTreeMap::len) > OTHERS;
        (NUMBER_OF_OTHER, if is_full { Cow::Borrowed(OTHER) } else { counted.reason.clone() })
    }

    fn expire(&mut self, now: Anchor) {
        let Self { vms, shares, gone, .. } = self;
        vms.retain(|number, sums| {
            let stays = now.monotonic_ns.saturating_sub(sums.last_entry_ns) <= EXPIRY_NS;
            if !stays {
                grow(&mut gone.expired, sums.histograms.len() as u64);
                grow(&mut gone.entries, sums.all_entries());
                sums.histograms.keys().for_each(|place| shares.remove(&(*number, place.clone())));
            }
            stays
        });
    }

    /// The values of a VM's labels. A VM that is called "other" gets another name.
    fn identity(&self, vm: &Vm) -> Identity {
        let name = if vm.name == OTHER { "other (a VM of this name)" } else { &vm.name };
        let cut = |text: &str| text.chars().take(MAX_LABEL).collect();
        std::iter::once(cut(name)).chain(self.labels.iter().map(|label| cut(&label.of(vm)))).collect()
    }

    fn other(&self) -> Identity {
        std::iter::once(OTHER.to_owned()).chain(self.labels.iter().map(|_| String::new())).collect()
    }

    /// Families of the VMs' entries, as far as they are known: what is not has no sample.
    pub(crate) fn figures<'a>(&'a self, knowledge: &Knowledge) -> Vec<Family<'a>> {
        let mut histograms: Vec<_> = HISTOGRAMS.iter().map(|h| Family::new(h.metric)).collect();
        let [mut entries, mut pin_writes, mut known, mut timer_exits] =
            [&metrics::ENTRIES, &metrics::PIN_WRITES, &metrics::PIN_KNOWN_ENTRIES, &metrics::TIMER_EXITS]
                .map(Family::new);
        let [mut phases, mut detail_exits, mut detail_seconds] =
            [&metrics::PHASE, &metrics::DETAIL_EXITS, &metrics::DETAIL_SECONDS].map(Family::new);
        let with_sums = self.numbers.iter().filter_map(|(identity, number)| Some((identity, self.vms.get(number)?)));
        for (identity, sums) in with_sums {
            let labels = |more: &[(&'static str, &'a str)]| labels(&self.labels, identity, more);
            let created_ns = Some(sums.created_ns);
            let push = |family: &mut Family<'a>, more: &[(&'static str, &'a str)], n: u64| {
                family.samples.push(Sample { labels: labels(more), value: Value::Count(n), created_ns });
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
            for (reason, phase, ns) in known_phases(sums, knowledge) {
                let more = [("exit_reason", reason), ("phase", phase.name())];
                let value = Value::Number(ns as f64 / 1e9);
                phases.samples.push(Sample { labels: labels(&more), value, created_ns });
            }
            for (reason, details) in sums.details.iter().filter(|_| knowledge.known(Subject::Detail).is_ok()) {
                for (detail, DetailSum { exits, host_ns }) in details {
                    let labels = labels(&[("exit_reason", reason), ("detail", detail)]);
                    let sample = |value| Sample { labels: labels.clone(), value, created_ns };
                    detail_exits.samples.push(sample(Value::Count(*exits)));
                    if knowledge.known(Subject::Times).is_ok() {
                        detail_seconds.samples.push(sample(Value::Number(*host_ns as f64 / 1e9)));
                    }
                }
            }
            for ((level, reason, figure, kind), durations) in &sums.histograms {
                if knowledge.figure(*figure).is_err() {
                    continue;
                }
                let mut more = vec![("level", level.name()), ("exit_reason", reason)];
                more.extend(kind.map(|kind| ("entry", kind.name())));
                let family = HISTOGRAMS.iter().zip(&mut histograms).find(|(h, _)| h.figure == *figure);
                if let Some((_, family)) = family {
                    family.samples.push(durations.sample(labels(&more)));
                }
            }
        }
        let mut families = histograms;
        families.extend([phases, detail_exits, detail_seconds, entries, pin_writes, known, timer_exits]);
        families.retain(|f| !f.samples.is_empty());
        families
    }

    /// Families of loss and length.
    pub(crate) fn totals(&self) -> Vec<Family<'static>> {
        let t = &self.totals;
        let created_ns = Some(self.created_ns);
        let count = |metric, n| Family::one(metric, Value::Count(n), created_ns);
        let evicted = t.evicted.into_iter().map(|n| Sample { labels: vec![], value: Value::Count(n), created_ns });
        let mut families = vec![
            count(&metrics::RING_ENTRIES, t.entries),
            count(&metrics::RING_DELIVERED, t.delivered),
            count(&metrics::RING_DROPPED, t.dropped),
            count(&metrics::RING_MALFORMED, t.malformed),
            count(&metrics::UNMATCHED, t.unmatched),
            Family { metric: &metrics::EVICTED, samples: evicted.collect() },
            count(&metrics::NOT_KEPT, t.not_kept),
            count(&metrics::TD_ENTRIES, t.td_entries),
            Family::one(&metrics::OBSERVED, Value::Number(self.observed_ns as f64 / 1e9), Some(self.created_ns)),
        ];
        families.retain(|f| !f.samples.is_empty());
        families
    }

    /// Lines about the VMs with the most entries that count for "other"; empty if there are none.
    pub(crate) fn folded(&self) -> String {
        self.folded.lines()
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
            Family::one(&metrics::SERIES_LIMIT, Value::Count(self.shares.limit() as u64), None),
            Family::one(&metrics::SERIES_EXPIRED, Value::Count(self.gone.expired), created),
            Family::one(&metrics::SERIES_EVICTED, Value::Count(self.gone.evicted), created),
            Family::one(&metrics::FOLDED_ENTRIES, Value::Count(self.gone.folded_entries), created),
            Family::one(&metrics::EXPIRED_ENTRIES, Value::Count(self.gone.entries), created),
        ]);
        families
    }
}

/// The known parts of the host times of a VM, ns, by exit reason; none at all where only the whole is known.
fn known_phases<'a>(sums: &'a Sums, knowledge: &Knowledge) -> impl Iterator<Item = (&'a str, Phase, u64)> + use<'a> {
    let is_known = |phase| Subject::of_phase(phase).is_none_or(|subject| knowledge.known(subject).is_ok());
    let mut known = Phase::ALL.to_vec();
    known.retain(|phase| is_known(*phase) && knowledge.known(Subject::Times).is_ok());
    if known == [Phase::Kernel] {
        known.clear();
    }
    let reasons = sums.budgets.iter().filter(|(_, budget)| budget.host_ns > 0);
    reasons.flat_map(move |(reason, budget)| {
        known.clone().into_iter().map(move |phase| (reason.as_ref(), phase, budget.of(phase)))
    })
}

fn labels<'a>(names: &'a [VmLabel], identity: &'a Identity, more: &[(&'static str, &'a str)]) -> Labels<'a> {
    let names = std::iter::once("vm").chain(names.iter().map(VmLabel::name));
    let vm = names.zip(identity.iter().map(|value| Cow::Borrowed(value.as_str())));
    vm.chain(more.iter().map(|(name, value)| (*name, Cow::Borrowed(*value)))).collect()
}

#[cfg(test)]
mod tests;
