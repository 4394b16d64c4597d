//! Series that the kernel's programs count themselves: how much each has grown, read from memory that they write. Counts only grow, so
//! that nothing has to be reset, and nobody waits.

use std::{mem::offset_of, sync::atomic::Ordering::Acquire};

use rustc_hash::FxHashMap;
use tracer_common::{
    Outline,
    rules::TimerCause,
    tally::{BUCKETS, MAX_TALLIES, Tally, middle},
};

use crate::{
    kernel::ring::Mapping,
    model::{histogram::Histogram, interval::Series},
};

/// The map of tallies, and what was read of it.
pub struct Tallies {
    places: Mapping,
    seen: FxHashMap<usize, Seen>,
}

/// A series' counts at the last look.
#[derive(Default)]
struct Seen {
    changes: u64,
    pin_writes: Vec<u32>,
    entry_to_exit: Vec<u32>,
    exit_to_entry: Vec<u32>,
}

/// Whose a series is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whose {
    /// process of the VMM
    pub tgid: u32,
    /// address of `struct kvm`
    pub kvm: u64,
    /// KVM's number of the vCPU
    pub vcpu: u32,
}

/// What a series has grown by.
pub struct Growth {
    /// whose it is
    pub whose: Whose,
    /// what its entries have in common
    pub outline: Outline,
    /// the values; each stands for those of its bucket
    pub series: Series,
}

impl Tallies {
    /// Of the map in memory.
    pub(crate) fn new(places: Mapping) -> Self {
        Self { places, seen: FxHashMap::default() }
    }

    /// Whose series there are.
    pub fn whose(&self) -> impl Iterator<Item = Whose> {
        (0..MAX_TALLIES).filter_map(|place| self.at(place).map(|at| self.whose_at(at)))
    }

    /// Hands out what every series has grown by since the last look.
    pub fn take(&mut self, mut f: impl FnMut(Growth)) {
        for place in 0..MAX_TALLIES {
            let Some(at) = self.at(place) else { continue };
            // Before the counts: one that comes later is seen at the next look, since this has not been then.
            let changes = self.word(at + offset_of!(Tally, changes));
            let Self { places, seen } = self;
            let seen = seen.entry(place).or_default();
            if changes == seen.changes {
                continue;
            }
            seen.changes = changes;
            let outline = Outline(places.word(at + offset_of!(Tally, what)).load(Acquire));
            let grown = |at, before: &mut Vec<u32>, length, value: fn(usize) -> u64| {
                before.resize(length, 0);
                let mut histogram = Histogram::default();
                for (bucket, before) in before.iter_mut().enumerate() {
                    let now = places.half(at + 4 * bucket).load(Acquire);
                    histogram.record_n(value(bucket), u64::from(now.wrapping_sub(*before)));
                    *before = now;
                }
                histogram
            };
            let entry_to_exit = grown(at + offset_of!(Tally, entry_to_exit), &mut seen.entry_to_exit, BUCKETS, middle);
            let exit_to_entry = grown(at + offset_of!(Tally, exit_to_entry), &mut seen.exit_to_entry, BUCKETS, middle);
            let pin_writes = grown(at + offset_of!(Tally, pin_writes), &mut seen.pin_writes, 4, |writes| writes as u64);
            let immediate = outline.timer_cause() == Some(TimerCause::Immediate);
            let transition = if immediate { entry_to_exit.clone() } else { Histogram::default() };
            let series = Series { entry_to_exit, exit_to_entry, pin_writes, transition };
            f(Growth { whose: self.whose_at(at), outline, series });
        }
    }

    /// Offset of a place that a series has; none where it is free, or not complete yet.
    fn at(&self, place: usize) -> Option<usize> {
        let at = place * size_of::<Tally>();
        (self.word(at + offset_of!(Tally, who)) != 0).then_some(at)
    }

    fn whose_at(&self, at: usize) -> Whose {
        let who = self.word(at + offset_of!(Tally, who));
        Whose { tgid: (who >> 32) as u32, kvm: self.word(at + offset_of!(Tally, kvm)), vcpu: who as u32 }
    }

    fn word(&self, at: usize) -> u64 {
        self.places.word(at).load(Acquire)
    }
}
