//! Series that the programs count themselves: their growth since the last look, read from memory that the programs write. Counts only
//! grow, so that nothing is reset and nobody waits.

use std::{mem::offset_of, sync::atomic::Ordering::Acquire};

use rustc_hash::FxHashMap;
use tracer_common::{
    Outline,
    in_kernel_series::{BUCKETS, MAX_IN_KERNEL_SERIES, SeriesCounts, middle},
    rules::TimerCause,
};

use crate::{
    kernel::ring::Mapping,
    model::{figures::Figure, histogram::Histogram, series::Series},
};

/// The array of series, and the counts that were read before.
pub struct InKernelSeries {
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

/// The vCPU that a series belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// process of the VMM
    pub tgid: u32,
    /// address of `struct kvm`
    pub kvm: u64,
    /// KVM's number of the vCPU
    pub vcpu: u32,
}

/// The growth of a series since the last look.
pub struct Growth {
    /// the vCPU that it belongs to
    pub owner: Owner,
    /// properties that all its entries share
    pub outline: Outline,
    /// the new values; each is the middle of its bucket
    pub series: Series,
}

impl InKernelSeries {
    /// Reads from the array in memory.
    pub(crate) fn new(places: Mapping) -> Self {
        Self { places, seen: FxHashMap::default() }
    }

    /// Owners of all series.
    pub(crate) fn owners(&self) -> impl Iterator<Item = Owner> {
        (0..MAX_IN_KERNEL_SERIES).filter_map(|place| self.at(place).map(|at| self.owner_at(at)))
    }

    /// Passes the growth of each series that has grown to `f`.
    pub fn take(&mut self, mut f: impl FnMut(Growth)) {
        for place in 0..MAX_IN_KERNEL_SERIES {
            let Some(at) = self.at(place) else { continue };
            // Read before the counts: a count that comes in between changes it again, so that the next look finds the count.
            let changes = self.word(at + offset_of!(SeriesCounts, changes));
            let Self { places, seen } = self;
            let seen = seen.entry(place).or_default();
            if changes == seen.changes {
                continue;
            }
            seen.changes = changes;
            let outline = Outline(places.word(at + offset_of!(SeriesCounts, key)).load(Acquire));
            let growth = |at, before: &mut Vec<u32>, length, value: fn(usize) -> u64| {
                before.resize(length, 0);
                let mut histogram = Histogram::default();
                for (bucket, before) in before.iter_mut().enumerate() {
                    let now = places.half(at + size_of::<u32>() * bucket).load(Acquire);
                    histogram.record_n(value(bucket), u64::from(now.wrapping_sub(*before)));
                    *before = now;
                }
                histogram
            };
            let entry_to_exit =
                growth(at + offset_of!(SeriesCounts, entry_to_exit), &mut seen.entry_to_exit, BUCKETS, middle);
            let exit_to_entry =
                growth(at + offset_of!(SeriesCounts, exit_to_entry), &mut seen.exit_to_entry, BUCKETS, middle);
            let pin_writes =
                growth(at + offset_of!(SeriesCounts, pin_writes), &mut seen.pin_writes, 4, |writes| writes as u64);
            let immediate = outline.timer_cause() == Some(TimerCause::Immediate);
            let series = Series::from_fn(|figure| match figure {
                Figure::EntryToExit => entry_to_exit.clone(),
                Figure::ExitToEntry => exit_to_entry.clone(),
                Figure::PinWrites => pin_writes.clone(),
                Figure::Transition if immediate => entry_to_exit.clone(),
                Figure::Transition => Histogram::default(),
            });
            f(Growth { owner: self.owner_at(at), outline, series });
        }
    }

    /// Offset of a place; none where it is unused, or its series is not complete yet.
    fn at(&self, place: usize) -> Option<usize> {
        let at = place * size_of::<SeriesCounts>();
        (self.word(at + offset_of!(SeriesCounts, who)) != 0).then_some(at)
    }

    fn owner_at(&self, at: usize) -> Owner {
        let who = self.word(at + offset_of!(SeriesCounts, who)).to_le_bytes();
        let [v0, v1, v2, v3, t0, t1, t2, t3] = who;
        Owner {
            tgid: u32::from_le_bytes([t0, t1, t2, t3]),
            kvm: self.word(at + offset_of!(SeriesCounts, kvm)),
            vcpu: u32::from_le_bytes([v0, v1, v2, v3]),
        }
    }

    fn word(&self, at: usize) -> u64 {
        self.places.word(at).load(Acquire)
    }
}
