//! Series that the kernel's programs count themselves: how much each has grown, read from memory that they write. Counts only grow, so
//! that nothing has to be reset, and nobody waits.

use std::{mem::offset_of, sync::atomic::Ordering::Acquire};

use rustc_hash::FxHashMap;
use tracer_common::{
    Outline,
    in_kernel_series::{BUCKETS, MAX_IN_KERNEL_SERIES, SeriesCounts, middle},
    rules::TimerCause,
};

use crate::{
    kernel::ring::Mapping,
    model::{figures::Figure, histogram::Histogram, interval::Series},
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
    /// Bytes of the map.
    pub const BYTES: usize = size_of::<SeriesCounts>() * MAX_IN_KERNEL_SERIES;

    /// Of the map in memory.
    pub fn new(places: Mapping) -> Self {
        Self { places, seen: FxHashMap::default() }
    }

    /// Whose series there are.
    pub fn whose(&self) -> impl Iterator<Item = Whose> {
        (0..MAX_IN_KERNEL_SERIES).filter_map(|place| self.at(place).map(|at| self.whose_at(at)))
    }

    /// Hands out what every series has grown by since the last look.
    pub fn take(&mut self, mut f: impl FnMut(Growth)) {
        for place in 0..MAX_IN_KERNEL_SERIES {
            let Some(at) = self.at(place) else { continue };
            // Before the counts: one that comes later is seen at the next look, since this has not been then.
            let changes = self.word(at + offset_of!(SeriesCounts, changes));
            let Self { places, seen } = self;
            let seen = seen.entry(place).or_default();
            if changes == seen.changes {
                continue;
            }
            seen.changes = changes;
            let outline = Outline(places.word(at + offset_of!(SeriesCounts, key)).load(Acquire));
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
            let entry_to_exit =
                grown(at + offset_of!(SeriesCounts, entry_to_exit), &mut seen.entry_to_exit, BUCKETS, middle);
            let exit_to_entry =
                grown(at + offset_of!(SeriesCounts, exit_to_entry), &mut seen.exit_to_entry, BUCKETS, middle);
            let pin_writes =
                grown(at + offset_of!(SeriesCounts, pin_writes), &mut seen.pin_writes, 4, |writes| writes as u64);
            let immediate = outline.timer_cause() == Some(TimerCause::Immediate);
            let series = Series::from_fn(|figure| match figure {
                Figure::EntryToExit => entry_to_exit.clone(),
                Figure::ExitToEntry => exit_to_entry.clone(),
                Figure::PinWrites => pin_writes.clone(),
                Figure::Transition if immediate => entry_to_exit.clone(),
                Figure::Transition => Histogram::default(),
            });
            f(Growth { whose: self.whose_at(at), outline, series });
        }
    }

    /// Offset of a place that a series has; none where it is free, or not complete yet.
    fn at(&self, place: usize) -> Option<usize> {
        let at = place * size_of::<SeriesCounts>();
        (self.word(at + offset_of!(SeriesCounts, who)) != 0).then_some(at)
    }

    fn whose_at(&self, at: usize) -> Whose {
        let who = self.word(at + offset_of!(SeriesCounts, who));
        Whose { tgid: (who >> 32) as u32, kvm: self.word(at + offset_of!(SeriesCounts, kvm)), vcpu: who as u32 }
    }

    fn word(&self, at: usize) -> u64 {
        self.places.word(at).load(Acquire)
    }
}
