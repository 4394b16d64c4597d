//! An interval while events come: the same figures as [`Interval`]'s, in places that are found quickly. What a collector does ten million
//! times a second is done here, and nothing else.

use std::{collections::hash_map::Entry, sync::Arc};

use rustc_hash::FxHashMap;
use tracer_common::{Event, Flags, Outline, in_kernel_series::series_key};

use crate::{
    histogram::{Growing, Histogram},
    interval::{Interval, Key, MAX_SERIES, Series, Vm},
};

/// Places remembered by a few bits of what they are found by.
const HINTS: usize = 1 << HINT_BITS;
const HINT_BITS: u32 = 13;
/// Numbers of pin writes that are counted without a histogram: all there are, unless something is odd.
const FEW_WRITES: usize = 4;

/// What is gathered.
pub struct Gathering {
    /// counts, and what was there before; its series are complete only after [`Self::finish`]
    pub interval: Interval,
    series: Vec<Live>,
    places: FxHashMap<Place, u32>,
    /// by a few bits of a place: that place, and where its series was found last, to be tried before `places`
    hints: Vec<(Place, u32)>,
    /// the last event's vCPU and outline, and its series: most likely the next one's `previous`
    last: (u64, Outline, u32),
}

/// What tells series apart while they grow, in two words: whose it is, the VM's number in the high half and the vCPU's in the low one; and
/// what its entries have in common ([`series_key`]).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Place(u64, Outline);

impl Place {
    /// Of no series: what an outline of one has in common never has this bit.
    const NONE: Self = Self(u64::MAX, Outline::of(0, Flags::PIN_READ, 0, 0));

    fn hint(self) -> usize {
        let mixed = (self.0.rotate_left(23) ^ self.1.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> (64 - HINT_BITS)) as usize
    }

    fn key(self) -> Key {
        Key::of((self.0 >> 32) as u32, self.0 as u32, &self.1)
    }
}

/// A series that grows.
struct Live {
    place: Place,
    entry_to_exit: Growing,
    exit_to_entry: Growing,
    few_writes: [u64; FEW_WRITES],
    many_writes: Histogram,
    transition: Growing,
}

impl Gathering {
    /// Goes on with an interval.
    pub fn of(interval: Interval) -> Self {
        Self {
            interval,
            series: Vec::new(),
            places: FxHashMap::default(),
            hints: vec![(Place::NONE, 0); HINTS],
            last: (u64::MAX, Outline(0), 0),
        }
    }

    /// Takes an event in. `vm` is who the collector found it to be.
    #[inline]
    pub fn record(&mut self, event: &Event, vm: &Arc<Vm>) {
        let round = event.outline();
        let whose = u64::from(vm.id) << 32 | u64::from(event.vcpu);
        let Some(at) = self.find(Place(whose, series_key(round)), vm) else {
            self.interval.totals.not_kept += 1;
            return;
        };
        let last = std::mem::replace(&mut self.last, (whose, round, at));
        let series = &mut self.series[at as usize];
        series.entry_to_exit.record(event.entry_to_exit_ns());
        if let Some(writes) = round.known_pin_writes() {
            match series.few_writes.get_mut(usize::from(writes)) {
                Some(count) => *count += 1,
                None => series.many_writes.record(writes.into()),
            }
        }
        if let Some(ns) = event.known_transition_ns() {
            series.transition.record(ns);
        }
        let shadow = event.known_shadow_pin_writes();
        self.interval.totals.shadow_pin_writes += shadow.unwrap_or(0);
        if let Some(writes) = event.exact_writes() {
            let l2 = round.is_l2() == Some(true);
            self.interval.totals.control_writes.get_or_insert_default().record(writes, l2, shadow);
        }
        // The host's work was on the exit before.
        if event.exit_to_entry_ns == Event::UNKNOWN_NS {
            return;
        }
        let at = match last {
            (of, outline, at) if of == whose && outline == event.previous => Some(at),
            _ => self.find(Place(whose, series_key(event.previous)), vm),
        };
        if let Some(at) = at {
            self.series[at as usize].exit_to_entry.record(event.exit_to_entry_ns);
        }
    }

    /// The interval with all that was gathered.
    pub fn finish(mut self) -> Interval {
        for live in self.series {
            let mut pin_writes = live.many_writes;
            for (writes, n) in live.few_writes.into_iter().enumerate() {
                pin_writes.record_n(writes as u64, n);
            }
            let series = Series {
                entry_to_exit: live.entry_to_exit.finish(),
                exit_to_entry: live.exit_to_entry.finish(),
                pin_writes,
                transition: live.transition.finish(),
            };
            match self.interval.series.entry(live.place.key()) {
                Entry::Vacant(place) => {
                    place.insert(series);
                }
                Entry::Occupied(known) => known.into_mut().merge(&series),
            }
        }
        self.interval
    }

    /// The series of a place, whose VM is introduced with its first one; none beyond the bound.
    #[inline]
    fn find(&mut self, place: Place, vm: &Arc<Vm>) -> Option<u32> {
        let hint = place.hint();
        let (known, mut at) = self.hints[hint];
        if known != place {
            at = self.search(place, vm)?;
            self.hints[hint] = (place, at);
        }
        Some(at)
    }

    #[cold]
    fn search(&mut self, place: Place, vm: &Arc<Vm>) -> Option<u32> {
        if let Some(at) = self.places.get(&place) {
            return Some(*at);
        }
        let known = self.interval.series.len();
        if known + self.series.len() >= MAX_SERIES && !self.interval.series.contains_key(&place.key()) {
            return None;
        }
        self.interval.vms.entry(vm.id).or_insert_with(|| Arc::clone(vm));
        let at = self.series.len() as u32;
        self.places.insert(place, at);
        self.series.push(Live {
            place,
            entry_to_exit: Growing::default(),
            exit_to_entry: Growing::default(),
            few_writes: [0; FEW_WRITES],
            many_writes: Histogram::default(),
            transition: Growing::default(),
        });
        Some(at)
    }
}
