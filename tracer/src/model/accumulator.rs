//! Folds events into an [`Interval`], ten million a second: the same figures, in places that are found without a search.

use std::{collections::hash_map::Entry, sync::Arc};

use rustc_hash::FxHashMap;
use tracer_common::{Event, Flags, Outline, ShortRecord, detail::RawDetail, in_kernel_series::series_key};

use crate::model::{
    budget::Budget,
    detail::{Detail, MAX_DETAILS},
    figures::Figure,
    histogram::Histogram,
    interval::{Interval, MAX_SERIES, Vm, absorb},
    running_histogram::RunningHistogram,
    series::{Key, Series},
    totals::add,
};

/// Entries of the direct-mapped cache in front of the hash map, as a power of two.
const HINTS: usize = 1 << HINT_BITS;
const HINT_BITS: u32 = 13;
/// Numbers of pin writes per entry that are counted in an array; more are rare and go to a histogram.
const FEW_WRITES: usize = 4;

/// An interval that is being filled.
pub struct Accumulator {
    /// counts; the series are complete only after [`Self::finish`]
    pub interval: Interval,
    series: Vec<RunningSeries>,
    /// index in `series`
    index: FxHashMap<Id, u32>,
    /// exits whose detail is known, by the index of their series
    details: FxHashMap<(u32, Detail), Exits>,
    /// the latest `index` entry of each hash, tried before `index`
    hints: Vec<(Id, u32)>,
    /// vCPU, outline and series index of the last event: its series is most likely where the next event's host time belongs
    last: (u64, Outline, u32),
}

/// Identifies a series in two words: the VM's number in the high half and the vCPU's in the low half, then [`series_key`] its entries have in
/// common.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Id(u64, Outline);

impl Id {
    /// No series: [`series_key`] clears this flag.
    const NONE: Self = Self(u64::MAX, Outline::of(0, Flags::PIN_READ, 0, 0));

    fn hash_index(self) -> usize {
        let mixed = (self.0.rotate_left(23) ^ self.1.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> (64 - HINT_BITS)) as usize
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low half is the vCPU's number")]
    fn key(self) -> Key {
        Key::of((self.0 >> 32) as u32, self.0 as u32, &self.1)
    }
}

/// A series that is being filled.
struct RunningSeries {
    id: Id,
    entry_to_exit: RunningHistogram,
    exit_to_entry: RunningHistogram,
    few_writes: [u64; FEW_WRITES],
    many_writes: Histogram,
    transition: RunningHistogram,
    deadline_late: Histogram,
    deadline_remaining: Histogram,
    budget: Budget,
    /// how many details of its exits are told apart
    details: usize,
}

/// Exits of one detail.
#[derive(Default)]
struct Exits {
    exit_to_entry: RunningHistogram,
    budget: Budget,
}

impl Accumulator {
    /// Goes on with an interval that may hold series already.
    pub fn of(interval: Interval) -> Self {
        Self {
            interval,
            series: Vec::new(),
            index: FxHashMap::default(),
            details: FxHashMap::default(),
            hints: vec![(Id::NONE, 0); HINTS],
            last: (u64::MAX, Outline(0), 0),
        }
    }

    /// Counts an event of `vm`.
    #[inline]
    pub fn record(&mut self, event: &Event, vm: &Arc<Vm>) {
        let round = event.outline();
        let vcpu = u64::from(vm.id) << 32 | u64::from(event.vcpu);
        let Some(at) = self.find(Id(vcpu, series_key(round)), vm) else {
            self.interval.totals.not_kept += 1;
            return;
        };
        let last = std::mem::replace(&mut self.last, (vcpu, round, at));
        let series = &mut self.series[at as usize];
        series.entry_to_exit.record(event.entry_to_exit_ns());
        series.budget.add_guest_time(event);
        if let Some(writes) = round.known_pin_writes() {
            match series.few_writes.get_mut(usize::from(writes)) {
                Some(count) => *count += 1,
                None => series.many_writes.record(writes.into()),
            }
        }
        if let Some(ns) = event.known_transition_ns() {
            series.transition.record(ns);
        }
        if let Some(ns) = event.deadline_late_ns() {
            series.deadline_late.record(ns);
        }
        if let Some(ns) = event.deadline_remaining_ns() {
            series.deadline_remaining.record(ns);
        }
        let shadow = event.known_shadow_pin_writes();
        if let Some(writes) = shadow {
            *self.interval.totals.shadow_pin_writes.get_or_insert_default() += writes;
        }
        if let Some(writes) = event.exact_writes() {
            let l2 = round.is_l2() == Some(true);
            self.interval.totals.control_writes.get_or_insert_default().record(writes, l2, shadow);
        }
        // Host time is spent on the previous exit, so it is charged to that exit's series.
        if event.exit_to_entry_ns == Event::UNKNOWN_NS {
            return;
        }
        let at = match last {
            (last_vcpu, outline, at) if last_vcpu == vcpu && outline == event.previous => Some(at),
            _ => self.find(Id(vcpu, series_key(event.previous)), vm),
        };
        let Some(at) = at else { return };
        if event.previous_detail != RawDetail::NONE
            && let Some(detail) = Detail::of(&event.previous, event.previous_detail)
            && self.record_detail(event, at, detail)
        {
            return;
        }
        let series = &mut self.series[at as usize];
        series.exit_to_entry.record(event.exit_to_entry_ns);
        series.budget.add_host_time(event);
    }

    /// Counts the event of a plain record, as [`Self::record`] does: with a third of the instructions, because most records are like this.
    #[inline(always)]
    pub fn record_plain(&mut self, record: &ShortRecord, vm: &Arc<Vm>) {
        let round = record.outline;
        let vcpu = u64::from(vm.id) << 32 | u64::from(record.vcpu());
        let last = self.last;
        let at = if last.0 == vcpu && last.1 == round {
            last.2
        } else {
            let Some(at) = self.find(Id(vcpu, series_key(round)), vm) else {
                self.interval.totals.not_kept += 1;
                return;
            };
            self.last = (vcpu, round, at);
            at
        };
        let guest_ns = record.exit_ns - record.entry_ns;
        let series = &mut self.series[at as usize];
        series.entry_to_exit.record(guest_ns);
        add(&mut series.budget.guest_ns, guest_ns);
        if let Some(writes) = round.known_pin_writes() {
            match series.few_writes.get_mut(usize::from(writes)) {
                Some(count) => *count += 1,
                None => series.many_writes.record(writes.into()),
            }
        }
        if round.flags().has(Flags::SHADOW_KNOWN) {
            *self.interval.totals.shadow_pin_writes.get_or_insert_default() += u64::from(round.pin_writes());
        }
        // Host time is spent on the previous exit, so it is charged to that exit's series.
        if record.previous_exit_ns == 0 {
            return;
        }
        let at = if last.0 == vcpu && last.1 == record.previous {
            last.2
        } else {
            let Some(at) = self.find(Id(vcpu, series_key(record.previous)), vm) else { return };
            at
        };
        // The clocks of two CPUs may differ by some ns.
        let host_ns = record.entry_ns.saturating_sub(record.previous_exit_ns);
        let series = &mut self.series[at as usize];
        series.exit_to_entry.record(host_ns);
        add(&mut series.budget.host_ns, host_ns);
    }

    /// Counts the host time of an exit whose detail is known; false where there is no room for another series.
    fn record_detail(&mut self, event: &Event, at: u32, detail: Detail) -> bool {
        let exits = match self.details.get_mut(&(at, detail)) {
            Some(exits) => exits,
            None => {
                let known = self.interval.series.len() + self.series.len() + self.details.len();
                let series = &mut self.series[at as usize];
                let detail = if series.details < MAX_DETAILS { detail } else { Detail::Other };
                match self.details.entry((at, detail)) {
                    Entry::Occupied(other) => other.into_mut(),
                    Entry::Vacant(_) if known >= MAX_SERIES => return false,
                    Entry::Vacant(new) => {
                        series.details += 1;
                        new.insert(Exits::default())
                    }
                }
            }
        };
        exits.exit_to_entry.record(event.exit_to_entry_ns);
        exits.budget.add_host_time(event);
        true
    }

    /// The interval with everything that was counted.
    pub fn finish(mut self) -> Interval {
        for ((at, detail), exits) in std::mem::take(&mut self.details) {
            let mut series = Series::default();
            series.budget = exits.budget;
            series[Figure::ExitToEntry] = exits.exit_to_entry.finish();
            let key = Key { detail: Some(detail), ..self.series[at as usize].id.key() };
            absorb(self.interval.series.entry(key), series);
        }
        for running in self.series {
            let mut pin_writes = running.many_writes;
            for (writes, n) in running.few_writes.into_iter().enumerate() {
                pin_writes.record_n(writes as u64, n);
            }
            let mut series = Series::default();
            series.budget = running.budget;
            series[Figure::EntryToExit] = running.entry_to_exit.finish();
            series[Figure::ExitToEntry] = running.exit_to_entry.finish();
            series[Figure::PinWrites] = pin_writes;
            series[Figure::Transition] = running.transition.finish();
            series[Figure::DeadlineLate] = running.deadline_late;
            series[Figure::DeadlineRemaining] = running.deadline_remaining;
            // An exit that began in the interval before, and whose host time is in the series of its detail.
            if !series.is_empty() {
                absorb(self.interval.series.entry(running.id.key()), series);
            }
        }
        self.interval
    }

    /// Index of a series, which is made where there is none; none over [`MAX_SERIES`].
    #[inline]
    fn find(&mut self, id: Id, vm: &Arc<Vm>) -> Option<u32> {
        let hint = id.hash_index();
        let (known, mut at) = self.hints[hint];
        if known != id {
            at = self.search(id, vm)?;
            self.hints[hint] = (id, at);
        }
        Some(at)
    }

    #[cold]
    fn search(&mut self, id: Id, vm: &Arc<Vm>) -> Option<u32> {
        if let Some(at) = self.index.get(&id) {
            return Some(*at);
        }
        let known = self.interval.series.len();
        if known + self.series.len() + self.details.len() >= MAX_SERIES && !self.interval.series.contains_key(&id.key())
        {
            return None;
        }
        self.interval.vms.entry(vm.id).or_insert_with(|| Arc::clone(vm));
        let at = u32::try_from(self.series.len()).ok()?;
        self.index.insert(id, at);
        self.series.push(RunningSeries {
            id,
            entry_to_exit: RunningHistogram::default(),
            exit_to_entry: RunningHistogram::default(),
            few_writes: [0; FEW_WRITES],
            many_writes: Histogram::default(),
            transition: RunningHistogram::default(),
            deadline_late: Histogram::default(),
            deadline_remaining: Histogram::default(),
            budget: Budget::default(),
            details: 0,
        });
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events of two vCPUs of two VMs, with each combination of the flags that entries have, some pin-control writes, and previous exits that are
    /// the last ones, others, or not known.
    fn events() -> Vec<(Event, u32)> {
        let of = |n: u64| {
            let flags = Flags(u16::try_from(n.wrapping_mul(0x9e37_79b9) >> 7 & 0x7fff).unwrap());
            let event = Event {
                entry_ns: 1000 * n,
                exit_ns: 1000 * n + n % 97,
                exit_to_entry_ns: if n.is_multiple_of(11) { Event::UNKNOWN_NS } else { n % 311 },
                vcpu: u32::try_from(n % 2).unwrap(),
                exit_reason: [10, 52, 0x8000_0021][usize::try_from(n % 3).unwrap()],
                flags,
                pin_writes: u8::try_from(n % 6).unwrap(),
                shadow_pin_writes: u32::try_from(n % 6).unwrap(),
                isa: 1,
                seq: n,
                ..Event::default()
            };
            (event, u32::try_from(n / 2 % 2).unwrap())
        };
        let mut events: Vec<_> = (1..20_000).map(of).collect();
        for at in 1..events.len() {
            events[at].0.previous = events[at - at % 3].0.outline();
        }
        events
    }

    #[test]
    fn a_plain_record_counts_the_same_as_its_event() {
        let vms = [0, 1].map(|id| Arc::new(Vm { id, ..Vm::default() }));
        let [mut plain, mut whole] = [(); 2].map(|()| Accumulator::of(Interval::starting(0)));
        let mut plain_ones = 0;
        for (event, vm) in events() {
            let bytes = &event.encode()[..tracer_common::Record::SHORT];
            let event = Event::decode(bytes).unwrap();
            whole.record(&event, &vms[vm as usize]);
            match ShortRecord::decode_plain(bytes) {
                Some(record) => {
                    plain_ones += 1;
                    plain.record_plain(&record, &vms[vm as usize]);
                }
                None => plain.record(&event, &vms[vm as usize]),
            }
        }
        assert!((100..19_000).contains(&plain_ones), "{plain_ones}");
        let [plain, whole] = [plain.finish(), whole.finish()];
        assert_eq!(plain.series, whole.series);
        assert_eq!(format!("{:?}", plain.totals), format!("{:?}", whole.totals));
        assert!(whole.series.len() > 20);
    }
}
