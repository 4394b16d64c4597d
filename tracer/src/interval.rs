//! What was seen in a stretch of time. The heart: everything downstream is a fold of intervals, and `merge` is exact,
//! associative and commutative.

use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use tracer_common::{
    Event, Isa, Outline,
    rules::{Control, TimerCause, Writes},
};

use rustc_hash::FxHashMap;

use crate::{gathering::Gathering, histogram::Histogram, sites::MAX_SITES};

/// Series that one interval may hold; entries beyond are counted in [`Totals::not_kept`].
pub const MAX_SERIES: usize = 65_536;

/// Who was running: the guest or the guest's guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// the host's guest
    L1,
    /// a nested guest
    L2,
    /// this kernel does not tell
    Unknown,
}

/// Whether pin-control writes came before the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// no write since the previous kvm_exit
    Clean,
    /// at least one
    Dirty,
    /// not known: no source of the figure, or the vCPU's past was not seen
    Unknown,
}

/// What tells series apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// [`Vm::id`]
    pub vm: u32,
    /// KVM's number of the vCPU
    pub vcpu: u32,
    /// level that the entry entered
    pub level: Level,
    /// whose code `reason` is
    pub isa: Isa,
    /// exit reason that ended the entry; none where it could not be read
    pub reason: Option<u32>,
    /// with or without pin-control writes
    pub entry: EntryKind,
    /// cause of a preemption-timer exit; none for other exits
    pub cause: Option<TimerCause>,
}

impl Default for Key {
    /// Of an entry of which nothing is known.
    fn default() -> Self {
        Self::of(0, 0, &Outline::default())
    }
}

/// Distributions of the entries of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Series {
    /// ns from kvm_entry to kvm_exit; its count is the number of entries
    pub entry_to_exit: Histogram,
    /// ns from the kvm_exit of such a round to the vCPU's next kvm_entry: the host's handling of that exit; as many as were
    /// followed by an entry
    pub exit_to_entry: Histogram,
    /// pin-control writes per entry; empty where they are not known
    pub pin_writes: Histogram,
    /// ns of VM entry and VM exit without guest time, of the entries where it is known: those that were forced to exit at once, or,
    /// with the companion patch's stopwatch, all
    pub transition: Histogram,
}

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
    /// 0 for the first VM seen of that process, 1 for the second
    pub ordinal: u32,
    /// the host's name where there are several: in merged recordings and in reports; else none
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// Counts of a stretch of time that are no distributions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// rounds closed by a kvm_exit, by the kernel's own count: delivered + dropped
    pub entries: u64,
    /// entries whose record arrived
    pub delivered: u64,
    /// entries whose record found the ring full; of entries counted in the kernel, those whose series found no place
    pub dropped: u64,
    /// kvm_entry without kvm_exit, kvm_exit without kvm_entry, and entries that found no room for their vCPU's state
    pub unmatched: u64,
    /// of `delivered`: records that were no event
    pub malformed: u64,
    /// of `delivered`: entries beyond the bound of series
    pub not_kept: u64,
    /// kvm_entry events of TDX guests, which are left out
    pub td_entries: u64,
    /// writes to the controls, where the companion patch told them; null without it
    #[serde(default)]
    pub control_writes: Option<ControlWrites>,
    /// pin-control writes by the shadow method, of all entries where it knows them
    #[serde(default)]
    pub shadow_pin_writes: u64,
    /// preemption-timer exits as the companion patch classified them; null without it
    #[serde(default)]
    pub traced_timer_exits: Option<TracedTimerExits>,
    /// how often each VMWRITE site was passed, in the order of the header's `sites`
    #[serde(default)]
    pub site_writes: [u64; MAX_SITES],
}

/// Writes to the controls of VMCSs, exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlWrites {
    /// to vmcs01, in the order of [`Control::ALL`]
    pub vmcs01: [u64; 6],
    /// to vmcs02
    pub vmcs02: [u64; 6],
    /// entries into L1 whose writes are known
    pub entries_l1: u64,
    /// entries into L2 whose writes are known
    pub entries_l2: u64,
    /// entries of which the shadow method sees another number of pin-control writes
    pub shadow_differs: u64,
}

/// Preemption-timer exits by cause, from the companion patch's tracepoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedTimerExits {
    /// the guest's timer was due
    pub deadline: u64,
    /// forced by KVM
    pub immediate: u64,
    /// the timer was soft-disabled
    pub spurious: u64,
}

impl Totals {
    /// Adds another's counts.
    pub fn merge(&mut self, other: &Totals) {
        add(&mut self.entries, other.entries);
        add(&mut self.delivered, other.delivered);
        add(&mut self.dropped, other.dropped);
        add(&mut self.unmatched, other.unmatched);
        add(&mut self.malformed, other.malformed);
        add(&mut self.not_kept, other.not_kept);
        add(&mut self.td_entries, other.td_entries);
        add(&mut self.shadow_pin_writes, other.shadow_pin_writes);
        for (mine, theirs) in self.site_writes.iter_mut().zip(other.site_writes) {
            add(mine, theirs);
        }
        if let Some(other) = &other.control_writes {
            self.control_writes.get_or_insert_default().merge(other);
        }
        if let Some(other) = &other.traced_timer_exits {
            let mine = self.traced_timer_exits.get_or_insert_default();
            add(&mut mine.deadline, other.deadline);
            add(&mut mine.immediate, other.immediate);
            add(&mut mine.spurious, other.spurious);
        }
    }

    /// Every count there is, for those who must know that none is absurd.
    pub fn counts(&self) -> impl Iterator<Item = u64> {
        let Self { entries, delivered, dropped, unmatched, malformed, not_kept, td_entries, shadow_pin_writes, .. } =
            *self;
        let writes = self.control_writes.unwrap_or_default();
        let exits = self.traced_timer_exits.unwrap_or_default();
        [entries, delivered, dropped, unmatched, malformed, not_kept, td_entries, shadow_pin_writes]
            .into_iter()
            .chain(self.site_writes)
            .chain(writes.vmcs01)
            .chain(writes.vmcs02)
            .chain([writes.entries_l1, writes.entries_l2, writes.shadow_differs])
            .chain([exits.deadline, exits.immediate, exits.spurious])
    }
}

/// Exact for all that can be counted; what a damaged file says ends at 2^64 - 1.
fn add(mine: &mut u64, theirs: u64) {
    *mine = mine.saturating_add(theirs);
}

impl ControlWrites {
    fn merge(&mut self, other: &ControlWrites) {
        for lane in 0..6 {
            add(&mut self.vmcs01[lane], other.vmcs01[lane]);
            add(&mut self.vmcs02[lane], other.vmcs02[lane]);
        }
        add(&mut self.entries_l1, other.entries_l1);
        add(&mut self.entries_l2, other.entries_l2);
        add(&mut self.shadow_differs, other.shadow_differs);
    }

    /// Takes an entry's writes in.
    pub fn record(&mut self, writes: Writes, l2: bool, shadow: Option<u64>) {
        let (counts, entries) =
            if l2 { (&mut self.vmcs02, &mut self.entries_l2) } else { (&mut self.vmcs01, &mut self.entries_l1) };
        *entries += 1;
        for (control, count) in Control::ALL.into_iter().zip(counts) {
            *count += u64::from(writes.of(control));
        }
        self.shadow_differs += u64::from(shadow.is_some_and(|s| s != u64::from(writes.of(Control::Pin))));
    }
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
    pub series: FxHashMap<Key, Series>,
    /// the VMs that `series` speaks of
    pub vms: BTreeMap<u32, Arc<Vm>>,
}

impl Interval {
    /// An interval that begins now.
    pub fn starting(start_ns: u64) -> Self {
        Self { start_ns, ..Self::default() }
    }

    /// Takes one event in; where there are many, [`Gathering`] does.
    pub fn record(&mut self, event: &Event, vm: &Arc<Vm>) {
        let mut gathering = Gathering::of(std::mem::take(self));
        gathering.record(event, vm);
        *self = gathering.finish();
    }

    /// Adds to a series, which introduces its VM.
    pub fn add(&mut self, key: Key, series: &Series, vm: &Arc<Vm>) {
        self.vms.entry(vm.id).or_insert_with(|| Arc::clone(vm));
        self.series.entry(key).or_default().merge(series);
    }

    /// Adds another interval. Both must number VMs alike.
    pub fn merge(&mut self, other: &Interval) {
        if self.length_ns == 0 && self.series.is_empty() {
            self.start_ns = other.start_ns;
        } else if other.length_ns > 0 {
            self.start_ns = self.start_ns.min(other.start_ns);
        }
        add(&mut self.length_ns, other.length_ns);
        self.totals.merge(&other.totals);
        for (key, series) in &other.series {
            self.series.entry(*key).or_default().merge(series);
        }
        for (id, vm) in &other.vms {
            self.vms.entry(*id).or_insert_with(|| Arc::clone(vm));
        }
    }
}

impl Series {
    /// Adds another's values.
    pub fn merge(&mut self, other: &Series) {
        self.entry_to_exit.merge(&other.entry_to_exit);
        self.exit_to_entry.merge(&other.exit_to_entry);
        self.pin_writes.merge(&other.pin_writes);
        self.transition.merge(&other.transition);
    }

    /// Number of entries.
    pub fn entries(&self) -> u64 {
        self.entry_to_exit.count()
    }
}

impl Key {
    /// The series of a round.
    pub fn of(vm: u32, vcpu: u32, round: &Outline) -> Self {
        Self {
            vm,
            vcpu,
            level: match round.is_l2() {
                Some(false) => Level::L1,
                Some(true) => Level::L2,
                None => Level::Unknown,
            },
            isa: round.isa(),
            reason: round.reason(),
            entry: match round.known_pin_writes() {
                Some(0) => EntryKind::Clean,
                Some(_) => EntryKind::Dirty,
                None => EntryKind::Unknown,
            },
            cause: round.timer_cause(),
        }
    }
}

impl Hash for Key {
    /// In two words instead of eight: this is done twice an event, and a tenth of the collector's time (benches/collect.rs).
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.vm) << 32 | u64::from(self.vcpu));
        let small = [
            self.level as u32,
            self.isa as u32,
            u32::from(self.reason.is_some()),
            self.entry as u32,
            self.cause.map_or(0, |cause| 1 + cause as u32),
        ];
        let small = small.iter().fold(0, |word, field| word << 3 | field);
        state.write_u64(u64::from(self.reason.unwrap_or(0)) << 32 | u64::from(small));
    }
}

macro_rules! names {
    ($type:ty { $($variant:ident = $name:literal),+ $(,)? }) => {
        impl $type {
            /// Name in reports and files.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// From its name.
            pub fn parse(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

names!(Level { L1 = "L1", L2 = "L2", Unknown = "unknown" });
names!(EntryKind { Clean = "clean", Dirty = "dirty", Unknown = "unknown" });

#[cfg(test)]
pub mod tests {
    //! Tests, and made-up values for those of other modules.

    use tracer_common::Flags;

    use super::*;

    /// A VM for tests.
    pub fn vm(id: u32) -> Arc<Vm> {
        Arc::new(Vm { id, name: format!("vm{id}"), tgid: 100 + id, start_ticks: 7, ordinal: 0, host: None })
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
    fn the_hosts_work_counts_for_the_exit_that_caused_it() {
        let mut i = Interval::starting(0);
        let previous = event(0, 12, 5, 0).outline();
        i.record(&Event { previous, ..event(0, 10, 5, 1) }, &vm(0));
        let of = |reason| i.series.iter().find(|(k, _)| k.reason == Some(reason)).unwrap();
        let (cpuid, hlt) = (of(10), of(12));
        assert_eq!((cpuid.0.entry, cpuid.1.entries(), cpuid.1.exit_to_entry.count()), (EntryKind::Dirty, 1, 0));
        assert_eq!((hlt.0.entry, hlt.1.entries(), hlt.1.exit_to_entry.count()), (EntryKind::Clean, 0, 1));
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
    fn an_unknown_figure_is_left_out_and_never_zero() {
        let mut i = Interval::starting(0);
        let e = Event { exit_to_entry_ns: Event::UNKNOWN_NS, flags: Flags::NONE, pin_writes: 1, ..event(0, 10, 5, 0) };
        i.record(&e, &vm(0));
        let (key, series) = i.series.iter().next().unwrap();
        assert_eq!((key.level, key.reason, key.entry), (Level::Unknown, None, EntryKind::Unknown));
        assert_eq!(series.entries(), 1);
        assert_eq!((series.exit_to_entry.count(), series.pin_writes.count()), (0, 0));
    }

    #[test]
    fn a_transition_is_kept_where_it_is_known() {
        let mut i = Interval::starting(0);
        i.record(&event(0, 10, 5000, 0), &vm(0));
        let flags = event(0, 10, 5, 0).flags | Flags::TRANSITION_KNOWN;
        i.record(&Event { flags, transition_ns: 300, ..event(0, 10, 5000, 1) }, &vm(0));
        let immediate = event(0, 52, 700, 0);
        i.record(&Event { flags: immediate.flags | Flags::IMMEDIATE, ..immediate }, &vm(0));
        let of = |reason, entry, cause| {
            let key = i.series.keys().find(|k| (k.reason, k.entry, k.cause) == (Some(reason), entry, cause)).unwrap();
            i.series[key].transition.max()
        };
        assert_eq!(of(10, EntryKind::Clean, None), None);
        assert_eq!(of(10, EntryKind::Dirty, None), Some(300));
        assert_eq!(of(52, EntryKind::Clean, Some(TimerCause::Immediate)), Some(700));
    }

    #[test]
    fn exact_writes_are_summed_by_vmcs_and_held_against_the_shadow() {
        let mut i = Interval::starting(0);
        let flags = event(0, 10, 5, 0).flags | Flags::WRITES_EXACT | Flags::SHADOW_KNOWN;
        let writes = Writes::default().plus(Control::Pin).plus(Control::Pin).plus(Control::VmExit);
        i.record(&Event { flags, writes, shadow_pin_writes: 2, ..event(0, 10, 5, 2) }, &vm(0));
        i.record(&Event { flags: flags | Flags::L2, writes, shadow_pin_writes: 0, ..event(0, 18, 5, 2) }, &vm(0));
        let exact = i.totals.control_writes.unwrap();
        assert_eq!((exact.vmcs01, exact.vmcs02), ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 1]));
        assert_eq!((exact.entries_l1, exact.entries_l2, exact.shadow_differs), (1, 1, 1));
        assert_eq!(i.totals.shadow_pin_writes, 2);
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
    fn series_are_bounded_and_what_is_beyond_is_counted() {
        let mut i = Interval::starting(0);
        for vcpu in 0..=MAX_SERIES as u32 {
            i.record(&Event { exit_to_entry_ns: Event::UNKNOWN_NS, ..event(vcpu, 10, 5, 0) }, &vm(0));
        }
        i.record(&event(0, 10, 6, 0), &vm(0));
        assert_eq!(i.series.len(), MAX_SERIES);
        assert_eq!(i.totals.not_kept, 1);
    }
}
