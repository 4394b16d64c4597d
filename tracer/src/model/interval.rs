//! An interval: everything seen in a stretch of time. All that follows is a fold of intervals, and `merge` is exact, associative and
//! commutative.

use std::{collections::BTreeMap, sync::Arc};

use indexmap::{IndexMap, map::Entry};
use serde::{Deserialize, Serialize};
use tracer_common::Event;

use crate::model::{
    accumulator::Accumulator,
    series::{Key, Series},
    totals::{Totals, add},
    vm_labels::VmLabels,
};

/// Most VMs that are remembered by number and name. Beyond, VMs are forgotten, and one may be numbered twice.
pub(crate) const MAX_VMS: usize = 65_536;

/// Most series of an interval; entries over this limit are counted in [`Totals::not_kept`].
pub(crate) const MAX_SERIES: usize = 65_536;

/// A virtual machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vm {
    /// number within the recording, from 0
    pub id: u32,
    /// from the VMM's command line or cgroup, else its command name
    pub name: String,
    /// process of the VMM
    pub tgid: u32,
    /// start of that process in clock ticks after boot; 0 when it had ended before it could be read
    pub start_ticks: u64,
    /// 0 for the first VM of that process, 1 for the second
    pub ordinal: u32,
    /// effective user of that process; none in recordings, and when it had ended before it could be read
    #[serde(skip)]
    pub uid: Option<u32>,
    /// what its manager knows it by
    #[serde(default, skip_serializing_if = "VmLabels::is_empty")]
    pub labels: VmLabels,
    /// the host's name where there are several: in merged recordings and in reports; else none
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// A stretch of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Interval {
    /// CLOCK_MONOTONIC at its beginning, ns
    pub start_ns: u64,
    /// ns of observation; of a merge, the sum
    pub length_ns: u64,
    /// counts
    pub totals: Totals,
    /// distributions
    // In the order in which they came, in which memory is read faster than in that of their hashes. These are the standard library's: a
    // recording could be made of keys that have one hash in a faster one.
    pub series: IndexMap<Key, Series>,
    /// every VM with a series, by [`Vm::id`]
    pub vms: BTreeMap<u32, Arc<Vm>>,
}

impl Interval {
    /// An interval that begins now.
    pub fn starting(start_ns: u64) -> Self {
        Self { start_ns, ..Self::default() }
    }

    /// Counts one event. For many, use an [`Accumulator`].
    pub fn record(&mut self, event: &Event, vm: &Arc<Vm>) {
        let mut accumulator = Accumulator::of(std::mem::take(self));
        accumulator.record(event, vm);
        *self = accumulator.finish();
    }

    /// Adds to the series of `vm`'s `key`.
    pub fn add(&mut self, key: Key, series: &Series, vm: &Arc<Vm>) {
        self.vms.entry(vm.id).or_insert_with(|| Arc::clone(vm));
        self.series.entry(key).or_default().merge(series);
    }

    /// Entries per second; none if the length is 0.
    pub(crate) fn entries_per_s(&self, entries: u64) -> Option<f64> {
        (self.length_ns > 0).then(|| entries as f64 * 1e9 / self.length_ns as f64)
    }

    /// Adds another interval with the same numbering of VMs.
    pub fn merge(&mut self, other: &Interval) {
        self.grow(other);
    }

    /// Adds another interval, as [`Self::merge`] does; returns by how many histogram buckets this one grew.
    pub(crate) fn grow(&mut self, other: &Interval) -> usize {
        self.merge_counts(other, self.series.is_empty());
        other.series.iter().map(|(key, series)| self.series.entry(*key).or_default().absorb(series)).sum()
    }

    /// Takes another interval in, as [`Self::merge`] does; returns by how many histogram buckets this one grew.
    pub(crate) fn absorb(&mut self, other: Interval) -> usize {
        self.merge_counts(&other, self.series.is_empty());
        other.series.into_iter().map(|(key, series)| absorb(self.series.entry(key), series)).sum()
    }

    /// Adds all of another interval but its series to this one, which may have none yet.
    pub(crate) fn merge_counts(&mut self, other: &Interval, has_none: bool) {
        if self.length_ns == 0 && has_none {
            self.start_ns = other.start_ns;
        } else if other.length_ns > 0 {
            self.start_ns = self.start_ns.min(other.start_ns);
        }
        add(&mut self.length_ns, other.length_ns);
        self.totals.merge(&other.totals);
        for (id, vm) in &other.vms {
            self.vms.entry(*id).or_insert_with(|| Arc::clone(vm));
        }
    }

    /// Buckets of all histograms.
    pub(crate) fn buckets(&self) -> usize {
        self.series.values().map(Series::buckets).sum()
    }
}

/// Adds a series to those of its key; returns by how many histogram buckets they grew.
pub(crate) fn absorb(entry: Entry<'_, Key, Series>, series: Series) -> usize {
    match entry {
        Entry::Vacant(vacant) => vacant.insert(series).buckets(),
        Entry::Occupied(known) => known.into_mut().absorb(&series),
    }
}

#[cfg(test)]
pub mod tests {
    //! Tests, and made-up values for other modules' tests.

    use tracer_common::{
        Flags,
        rules::{Control, TimerCause, Writes},
    };

    use super::*;
    use crate::model::{
        figures::Figure,
        series::{EntryKind, Level},
    };

    /// A VM for tests.
    pub fn vm(id: u32) -> Arc<Vm> {
        Arc::new(Vm { id, name: format!("vm{id}"), tgid: 100 + id, start_ticks: 7, ..Vm::default() })
    }

    /// An L1 entry of VMX with everything known, after one like it.
    pub fn event(vcpu: u32, reason: u32, guest_ns: u64, writes: u8) -> Event {
        let mut event = Event {
            entry_ns: 1000,
            exit_ns: 1000 + guest_ns,
            exit_to_entry_ns: 500,
            seq: 1,
            exit_reason: reason,
            vcpu,
            flags: Flags::LEVEL_KNOWN
                | Flags::IMMEDIATE_KNOWN
                | Flags::SOFT_KNOWN
                | Flags::PIN_READ
                | Flags::PIN_WRITES_KNOWN
                | Flags::REASON_KNOWN,
            isa: 1,
            pin_writes: writes,
            ..Event::default()
        };
        event.previous = event.outline();
        event
    }

    #[test]
    fn host_time_is_charged_to_the_exit_that_the_host_handled() {
        let mut i = Interval::starting(0);
        let previous = event(0, 12, 5, 0).outline();
        i.record(&Event { previous, ..event(0, 10, 5, 1) }, &vm(0));
        let of = |reason| i.series.iter().find(|(k, _)| k.reason == Some(reason)).unwrap();
        let (cpuid, hlt) = (of(10), of(12));
        assert_eq!((cpuid.0.entry, cpuid.1.entries(), cpuid.1[Figure::ExitToEntry].count()), (EntryKind::Dirty, 1, 0));
        assert_eq!((hlt.0.entry, hlt.1.entries(), hlt.1[Figure::ExitToEntry].count()), (EntryKind::Clean, 0, 1));
    }

    fn interval(start: u64, events: &[Event]) -> Interval {
        let mut i = Interval::starting(start);
        i.length_ns = 10;
        events.iter().for_each(|e| i.record(e, &vm(e.vcpu % 2)));
        i.totals.entries = events.len() as u64;
        i.totals.delivered = events.len() as u64;
        i
    }

    #[test]
    fn an_unknown_figure_has_no_value_instead_of_zero() {
        let mut i = Interval::starting(0);
        let e = Event { exit_to_entry_ns: Event::UNKNOWN_NS, flags: Flags::NONE, pin_writes: 1, ..event(0, 10, 5, 0) };
        i.record(&e, &vm(0));
        let (key, series) = i.series.iter().next().unwrap();
        assert_eq!((key.level, key.reason, key.entry), (Level::Unknown, None, EntryKind::Unknown));
        assert_eq!(series.entries(), 1);
        assert_eq!((series[Figure::ExitToEntry].count(), series[Figure::PinWrites].count()), (0, 0));
    }

    #[test]
    fn a_transition_is_recorded_where_it_is_known() {
        let mut i = Interval::starting(0);
        i.record(&event(0, 10, 5000, 0), &vm(0));
        let flags = event(0, 10, 5, 0).flags | Flags::TRANSITION_KNOWN;
        i.record(&Event { flags, transition_ns: 300, ..event(0, 10, 5000, 1) }, &vm(0));
        let immediate = event(0, 52, 700, 0);
        i.record(&Event { flags: immediate.flags | Flags::IMMEDIATE, ..immediate }, &vm(0));
        let of = |reason, entry, cause| {
            let key = i.series.keys().find(|k| (k.reason, k.entry, k.cause) == (Some(reason), entry, cause)).unwrap();
            i.series[key][Figure::Transition].max()
        };
        assert_eq!(of(10, EntryKind::Clean, None), None);
        assert_eq!(of(10, EntryKind::Dirty, None), Some(300));
        assert_eq!(of(52, EntryKind::Clean, Some(TimerCause::Immediate)), Some(700));
    }

    #[test]
    fn exact_writes_are_summed_by_vmcs_and_compared_with_the_shadow_method() {
        let mut i = Interval::starting(0);
        let flags = event(0, 10, 5, 0).flags | Flags::WRITES_EXACT | Flags::SHADOW_KNOWN;
        let writes = Writes::default().plus(Control::Pin).plus(Control::Pin).plus(Control::VmExit);
        i.record(&Event { flags, writes, shadow_pin_writes: 2, ..event(0, 10, 5, 2) }, &vm(0));
        i.record(&Event { flags: flags | Flags::L2, writes, shadow_pin_writes: 0, ..event(0, 18, 5, 2) }, &vm(0));
        let exact = i.totals.control_writes.unwrap();
        assert_eq!((exact.vmcs01, exact.vmcs02), ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 1]));
        assert_eq!((exact.entries_l1, exact.entries_l2, exact.shadow_differs), (1, 1, 1));
        assert_eq!(i.totals.shadow_pin_writes, Some(2));
        let mut twice = i.clone();
        twice.merge(&i);
        assert_eq!(twice.totals.control_writes.unwrap().vmcs01, [4, 0, 0, 0, 0, 2]);
    }

    #[test]
    fn merging_intervals_is_associative_and_commutative() {
        let a = interval(30, &[event(0, 10, 5, 0), event(1, 52, 900, 2)]);
        let b = interval(10, &[event(0, 10, 7, 1)]);
        let c = interval(20, &[event(2, 12, 1 << 40, 0)]);
        let fold = |parts: [&Interval; 3]| {
            let mut whole = Interval::default();
            parts.into_iter().for_each(|p| whole.merge(p));
            whole
        };
        let whole = fold([&a, &b, &c]);
        assert_eq!(whole, fold([&c, &b, &a]));
        let mut bc = b.clone();
        bc.merge(&c);
        let mut nested = a.clone();
        nested.merge(&bc);
        assert_eq!(whole, nested);
        assert_eq!((whole.start_ns, whole.length_ns, whole.totals.entries), (10, 30, 4));
    }

    #[test]
    fn entries_over_the_limit_of_series_are_counted() {
        let mut i = Interval::starting(0);
        for vcpu in 0..=u32::try_from(MAX_SERIES).unwrap() {
            i.record(&Event { exit_to_entry_ns: Event::UNKNOWN_NS, ..event(vcpu, 10, 5, 0) }, &vm(0));
        }
        i.record(&event(0, 10, 6, 0), &vm(0));
        assert_eq!(i.series.len(), MAX_SERIES);
        assert_eq!(i.totals.not_kept, 1);
    }
}
