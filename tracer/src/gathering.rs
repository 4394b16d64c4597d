//! An interval while events come: the same figures as [`Interval`]'s, in places that are found quickly. What a collector does ten million
//! times a second is done here, and nothing else.

use std::{collections::hash_map::Entry, sync::Arc};

use rustc_hash::FxHashMap;
use tracer_common::Event;

use crate::{
    histogram::{Growing, Histogram},
    interval::{Interval, Key, MAX_SERIES, Series, Vm},
};

/// Places remembered by a few bits of a key.
const HINTS: usize = 1 << HINT_BITS;
const HINT_BITS: u32 = 13;

/// What is gathered.
#[derive(Default)]
pub struct Gathering {
    /// counts, and what was there before; its series are complete only after [`Self::finish`]
    pub interval: Interval,
    series: Vec<Live>,
    places: FxHashMap<Key, u32>,
    /// by a few bits of a key: more of its bits, and where it was found last, to be tried before `places`
    hints: Vec<(u32, u32)>,
}

/// A series that grows.
#[derive(Default)]
struct Live {
    key: Key,
    entry_to_exit: Growing,
    exit_to_entry: Growing,
    pin_writes: Histogram,
    transition: Growing,
}

impl Gathering {
    /// Goes on with an interval.
    pub fn of(interval: Interval) -> Self {
        Self { interval, series: Vec::new(), places: FxHashMap::default(), hints: vec![(0, u32::MAX); HINTS] }
    }

    /// Takes an event in. `vm` is who the collector found it to be.
    pub fn record(&mut self, event: &Event, vm: &Arc<Vm>) {
        let round = event.outline();
        let Some(series) = self.series(Key::of(vm.id, event.vcpu, &round), vm) else {
            self.interval.totals.not_kept += 1;
            return;
        };
        series.entry_to_exit.record(event.entry_to_exit_ns());
        if let Some(writes) = round.known_pin_writes() {
            series.pin_writes.record(u64::from(writes));
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
        if event.exit_to_entry_ns != Event::UNKNOWN_NS
            && let Some(series) = self.series(Key::of(vm.id, event.vcpu, &event.previous), vm)
        {
            series.exit_to_entry.record(event.exit_to_entry_ns);
        }
    }

    /// The interval with all that was gathered.
    pub fn finish(mut self) -> Interval {
        for live in self.series {
            let series = Series {
                entry_to_exit: live.entry_to_exit.finish(),
                exit_to_entry: live.exit_to_entry.finish(),
                pin_writes: live.pin_writes,
                transition: live.transition.finish(),
            };
            match self.interval.series.entry(live.key) {
                Entry::Vacant(place) => {
                    place.insert(series);
                }
                Entry::Occupied(known) => known.into_mut().merge(&series),
            }
        }
        self.interval
    }

    /// The series of a key, whose VM is introduced with its first one; none beyond the bound.
    fn series(&mut self, key: Key, vm: &Arc<Vm>) -> Option<&mut Live> {
        let bits = (key.vm << 18) ^ (key.vcpu << 8) ^ key.reason.unwrap_or(0) ^ (key.entry as u32) << 6;
        let bits = bits.wrapping_mul(0x9e37_79b1);
        let hint = (bits >> (32 - HINT_BITS)) as usize;
        let (tag, place) = self.hints[hint];
        let mut place = place as usize;
        if tag != bits || self.series.get(place).is_none_or(|live| live.key != key) {
            place = self.place(key, vm)?;
            self.hints[hint] = (bits, place as u32);
        }
        Some(&mut self.series[place])
    }

    fn place(&mut self, key: Key, vm: &Arc<Vm>) -> Option<usize> {
        if let Some(place) = self.places.get(&key) {
            return Some(*place as usize);
        }
        let known = self.interval.series.len();
        if known + self.series.len() >= MAX_SERIES && !self.interval.series.contains_key(&key) {
            return None;
        }
        self.interval.vms.entry(vm.id).or_insert_with(|| Arc::clone(vm));
        self.places.insert(key, self.series.len() as u32);
        self.series.push(Live { key, ..Live::default() });
        Some(self.series.len() - 1)
    }
}
