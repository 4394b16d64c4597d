//! Series that the programs count themselves: their growth since the last look, read from memory that the programs write. Counts only
//! grow, so that nothing is reset and no program waits. Each look sees whole rounds, by the sequence count of the series.

use std::{
    collections::{BTreeMap, BTreeSet},
    hint::spin_loop,
    mem::offset_of,
    sync::atomic::{
        Ordering::{Acquire, Relaxed, Release},
        fence,
    },
};

use anyhow::{Context, Result};
use rustc_hash::FxHashMap;
use tracer_common::{
    Outline,
    in_kernel_series::{BUCKETS, MAX_IN_KERNEL_SERIES, SeriesCounts, TAKEN_BACK, TimeSums, middle},
    rules::TimerCause,
};

use crate::{
    kernel::{
        grace_period::GracePeriod,
        ring::Mapping,
        series_shares::{Plan, Use, plan},
        tracer::Limits,
    },
    model::{budget::Budget, figures::Figure, histogram::Histogram, series::Series},
};

/// Counts of a series: pin-control writes, then the two distributions, as they lie in [`SeriesCounts`].
const COUNTS: usize = PIN_WRITES + 2 * BUCKETS;
const PIN_WRITES: usize = 4;
/// Sums of times of a series: the words of [`TimeSums`].
const SUMS: usize = size_of::<TimeSums>() / size_of::<u64>();
const _: () = assert!(
    offset_of!(SeriesCounts, entry_to_exit) == offset_of!(SeriesCounts, pin_writes) + PIN_WRITES * size_of::<u32>()
        && size_of::<SeriesCounts>() == offset_of!(SeriesCounts, pin_writes) + COUNTS * size_of::<u32>()
);

/// Attempts at reading a series between two rounds. One takes half a microsecond, less than a round. Where all fail, as they do where the
/// vCPU's thread was preempted within a round, the growth is left to the next look.
const ATTEMPTS: u32 = 1000;

/// Processes that are remembered with what they lost; more are limited, too, but not remembered.
const MOST_REMEMBERED: usize = 1024;

/// The array of series, and the counts that were read before.
pub struct InKernelSeries {
    places: Mapping,
    seen: FxHashMap<usize, Seen>,
    /// what was read last
    now: Counts,
    /// none where places cannot be taken back
    sharing: Option<Sharing>,
}

/// A place at the last look.
struct Seen {
    sequence: u64,
    counts: Counts,
    /// looks since the last round
    silent: u32,
}

/// Counts and sums of a series.
struct Counts {
    counts: Vec<u32>,
    sums: [u64; SUMS],
}

impl Counts {
    fn zero() -> Self {
        Self { counts: vec![0; COUNTS], sums: [0; SUMS] }
    }
}

/// Shares of the processes in the places.
pub(crate) struct Sharing {
    grace_period: GracePeriod,
    limits: Limits,
    /// processes that get no further series
    limited: BTreeSet<u32>,
    /// rounds that processes lost before their limit ended last
    lost: BTreeMap<u32, u64>,
}

impl Sharing {
    /// With no process limited yet.
    pub(crate) fn new(limits: Limits) -> Result<Self> {
        let grace_period = GracePeriod::new().context("make an array of maps")?;
        Ok(Self { grace_period, limits, limited: BTreeSet::new(), lost: BTreeMap::new() })
    }

    /// Limits the processes of a plan and no others; returns those that were not limited before.
    fn limit(&mut self, plan: &Plan) -> Result<Vec<u32>> {
        for tgid in self.limited.difference(&plan.limited) {
            let lost = self.limits.end(*tgid)?;
            if self.lost.len() < MOST_REMEMBERED || self.lost.contains_key(tgid) {
                *self.lost.entry(*tgid).or_default() += lost;
            }
        }
        self.limited.retain(|tgid| plan.limited.contains(tgid));
        let new: Vec<_> = plan.limited.difference(&self.limited).copied().collect();
        for tgid in &new {
            self.limits.begin(*tgid)?;
            self.limited.insert(*tgid);
        }
        Ok(new)
    }
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
    pub(crate) fn new(places: Mapping, sharing: Option<Sharing>) -> Self {
        Self { places, seen: FxHashMap::default(), now: Counts::zero(), sharing }
    }

    /// Owners of all series.
    pub fn owners(&self) -> impl Iterator<Item = Owner> {
        (0..MAX_IN_KERNEL_SERIES).filter_map(|place| self.at(place).map(|at| self.owner_at(at)))
    }

    /// Passes the growth of each series that has grown to `f`: whole rounds, apart from their host times, which count in the series of the
    /// exit before. A series that changes all the time it is read is left to the next look.
    pub fn take(&mut self, mut f: impl FnMut(Growth)) {
        for place in 0..MAX_IN_KERNEL_SERIES {
            if let Some(at) = self.at(place) {
                self.take_place(place, self.owner_at(at), &mut f);
            }
        }
    }

    fn take_place(&mut self, place: usize, owner: Owner, f: &mut impl FnMut(Growth)) {
        let at = place * size_of::<SeriesCounts>();
        let outline = Outline(self.word(at + offset_of!(SeriesCounts, key)));
        let Self { places, seen, now, .. } = self;
        let seen = seen.entry(place).or_insert_with(|| Seen { sequence: 0, counts: Counts::zero(), silent: 0 });
        seen.silent = seen.silent.saturating_add(1);
        let Some(sequence) = read_new(places, at, seen.sequence, now) else { return };
        let series = grown(outline, &seen.counts, now);
        seen.sequence = sequence;
        seen.silent = 0;
        std::mem::swap(&mut seen.counts, now);
        f(Growth { owner, outline, series });
    }

    /// Takes places back from VMs that have ended and from processes that hold more than their share; passes what grew in them since the
    /// last look to `f`. Returns one series of each process that gets no further series from now on.
    pub fn share(&mut self, f: impl FnMut(Growth)) -> Result<Vec<Owner>> {
        let Some(mut sharing) = self.sharing.take() else { return Ok(Vec::new()) };
        let uses = (0..MAX_IN_KERNEL_SERIES).filter_map(|place| {
            let tgid = self.owner_at(self.at(place)?).tgid;
            Some(Use { place, tgid, silent: self.seen.get(&place).map_or(0, |seen| seen.silent) })
        });
        let plan = plan(uses.collect(), &sharing.limited);
        // Before places are free, or the same process could take them again.
        let new = sharing.limit(&plan).context("limit the series of a process")?;
        let named = self.owners().fold(BTreeMap::new(), |mut by_tgid, owner| {
            by_tgid.entry(owner.tgid).or_insert(owner);
            by_tgid
        });
        self.take_back(&plan.back, &sharing.grace_period, f).context("take series back")?;
        // Only now: after an error, nothing is taken back any more.
        self.sharing = Some(sharing);
        Ok(new.iter().filter_map(|tgid| named.get(tgid).copied()).collect())
    }

    /// Rounds that processes lost because they held their share, by process.
    pub fn lost(&self) -> BTreeMap<u32, u64> {
        let Some(sharing) = &self.sharing else { return BTreeMap::new() };
        let mut lost = sharing.lost.clone();
        for tgid in &sharing.limited {
            *lost.entry(*tgid).or_default() += sharing.limits.lost(*tgid).unwrap_or(0);
        }
        lost.retain(|_, rounds| *rounds > 0);
        lost
    }

    /// Makes places unused. No round is lost: programs that begin from now on do not find the series, those that had found them are
    /// waited for, and then the counts are read for the last time.
    fn take_back(
        &mut self,
        back: &[usize],
        grace_period: &GracePeriod,
        mut f: impl FnMut(Growth),
    ) -> std::io::Result<()> {
        if back.is_empty() {
            return Ok(());
        }
        let back: Vec<_> = back.iter().filter_map(|place| Some((*place, self.at(*place)?))).collect();
        let kvm_at = |at: usize| at + offset_of!(SeriesCounts, kvm);
        let kvms: Vec<_> = back.iter().map(|(_, at)| self.places.word(kvm_at(*at)).swap(TAKEN_BACK, Release)).collect();
        let waited = grace_period.wait();
        for ((place, at), kvm) in back.into_iter().zip(kvms) {
            if waited.is_err() {
                self.places.word(kvm_at(at)).store(kvm, Release);
                continue;
            }
            self.take_place(place, Owner { kvm, ..self.owner_at(at) }, &mut f);
            // `who` first: a series that a program makes from now on is complete only when it has written its own.
            self.places.word(at + offset_of!(SeriesCounts, who)).store(0, Release);
            self.places.word(kvm_at(at)).store(0, Release);
        }
        waited
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

/// Reads the counts and sums of the series at an offset into `now`, and returns their sequence; none where it is still `last`, or where no attempt
/// came between two rounds.
fn read_new(places: &Mapping, at: usize, last: u64, now: &mut Counts) -> Option<u64> {
    let sequence = places.word(at + offset_of!(SeriesCounts, sequence));
    let halves = places.halves(at + offset_of!(SeriesCounts, pin_writes), COUNTS);
    for _ in 0..ATTEMPTS {
        let before = sequence.load(Acquire);
        if before == last {
            return None;
        }
        if before.is_multiple_of(2) {
            for (count, half) in now.counts.iter_mut().zip(halves) {
                *count = half.load(Relaxed);
            }
            for (index, sum) in now.sums.iter_mut().enumerate() {
                let at = at + offset_of!(SeriesCounts, sums) + index * size_of::<u64>();
                *sum = places.word(at).load(Relaxed);
            }
            // The counts are loaded before the sequence is loaded again.
            fence(Acquire);
            if sequence.load(Relaxed) == before {
                return Some(before);
            }
        }
        spin_loop();
    }
    None
}

/// The growth of a series from the counts `before` to the counts `now`.
fn grown(outline: Outline, before: &Counts, now: &Counts) -> Series {
    let histogram = |from: usize, length: usize, value: fn(usize) -> u64| {
        let mut histogram = Histogram::default();
        for (bucket, (now, before)) in now.counts[from..][..length].iter().zip(&before.counts[from..]).enumerate() {
            histogram.record_n(value(bucket), u64::from(now.wrapping_sub(*before)));
        }
        histogram
    };
    let pin_writes = histogram(0, PIN_WRITES, |writes| writes as u64);
    let entry_to_exit = histogram(PIN_WRITES, BUCKETS, middle);
    let exit_to_entry = histogram(PIN_WRITES + BUCKETS, BUCKETS, middle);
    let is_immediate = outline.timer_cause() == Some(TimerCause::Immediate);
    let sums: [u64; SUMS] = std::array::from_fn(|at| now.sums[at].wrapping_sub(before.sums[at]));
    let [guest_ns, host_ns, user_ns, idle_ns, polled_ns, steal_ns] = sums;
    let sums = TimeSums { guest_ns, host_ns, user_ns, idle_ns, polled_ns, steal_ns };
    let mut series = Series::from_fn(|figure| match figure {
        Figure::EntryToExit => entry_to_exit.clone(),
        Figure::ExitToEntry => exit_to_entry.clone(),
        Figure::PinWrites => pin_writes.clone(),
        Figure::Transition if is_immediate => entry_to_exit.clone(),
        Figure::Transition | Figure::DeadlineLate | Figure::DeadlineRemaining => Histogram::default(),
    });
    series.budget = Budget::from(sums);
    series
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        os::fd::AsFd,
        sync::atomic::{AtomicBool, Ordering::Release},
        thread,
        time::Duration,
    };

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    const ROUND_NS: usize = 40;

    /// A reader of one series, that of vCPU 3 of process 7, and its memory for the writer.
    fn one_series() -> (InKernelSeries, Mapping) {
        let memory = File::from(memfd_create("series", MemfdFlags::CLOEXEC).unwrap());
        let bytes = MAX_IN_KERNEL_SERIES * size_of::<SeriesCounts>();
        memory.set_len(bytes as u64).unwrap();
        let [read, written] = [false, true].map(|writable| Mapping::new(memory.as_fd(), bytes, writable).unwrap());
        written.word(offset_of!(SeriesCounts, kvm)).store(0x1000, Release);
        written.word(offset_of!(SeriesCounts, who)).store(7 << 32 | 3, Release);
        (InKernelSeries::new(read, None), written)
    }

    fn next_sequence(places: &Mapping) {
        let sequence = places.word(offset_of!(SeriesCounts, sequence));
        sequence.store(sequence.load(Relaxed) + 1, Release);
    }

    fn increment(places: &Mapping, at: usize) {
        let half = &places.halves(at, 1)[0];
        half.store(half.load(Relaxed).wrapping_add(1), Release);
    }

    /// Counts a round with one pin-control write, as a program does.
    fn count_round(places: &Mapping) {
        next_sequence(places);
        increment(places, offset_of!(SeriesCounts, exit_to_entry) + 4 * ROUND_NS);
        increment(places, offset_of!(SeriesCounts, entry_to_exit) + 4 * ROUND_NS);
        increment(places, offset_of!(SeriesCounts, pin_writes) + 4);
        let sum = places.word(offset_of!(SeriesCounts, sums) + offset_of!(TimeSums, host_ns));
        sum.store(sum.load(Relaxed).wrapping_add(ROUND_NS as u64), Release);
        next_sequence(places);
    }

    /// Entries, pin-control writes and host times of the growth; none without growth.
    fn growth(series: &mut InKernelSeries) -> Option<[u64; 3]> {
        let mut found = None;
        series.take(|growth| {
            assert_eq!(growth.owner, Owner { tgid: 7, kvm: 0x1000, vcpu: 3 });
            let count = |figure| growth.series[figure].count();
            assert_eq!(growth.series.budget.host_ns, count(Figure::ExitToEntry) * ROUND_NS as u64);
            assert_eq!(
                found.replace([growth.series.entries(), count(Figure::PinWrites), count(Figure::ExitToEntry)]),
                None
            );
        });
        found
    }

    #[test]
    fn a_series_grows_by_the_rounds_since_the_last_look() {
        let (mut series, places) = one_series();
        assert_eq!(growth(&mut series), None);
        for rounds in [1, 3] {
            (0..rounds).for_each(|_| count_round(&places));
            assert_eq!(growth(&mut series), Some([rounds; 3]));
        }
        assert_eq!(growth(&mut series), None);
    }

    #[test]
    fn a_series_that_stays_in_the_middle_of_a_round_is_left_to_the_next_look() {
        let (mut series, places) = one_series();
        count_round(&places);
        next_sequence(&places);
        increment(&places, offset_of!(SeriesCounts, entry_to_exit) + 4 * ROUND_NS);
        assert_eq!(growth(&mut series), None);
        increment(&places, offset_of!(SeriesCounts, pin_writes) + 4);
        next_sequence(&places);
        assert_eq!(growth(&mut series), Some([2, 2, 1]));
    }

    #[test]
    fn counts_wrap_around() {
        let (mut series, places) = one_series();
        places.halves(offset_of!(SeriesCounts, entry_to_exit) + 4 * ROUND_NS, 1)[0].store(u32::MAX, Release);
        next_sequence(&places);
        next_sequence(&places);
        assert_eq!(growth(&mut series), Some([u32::MAX.into(), 0, 0]));
        count_round(&places);
        assert_eq!(growth(&mut series), Some([1, 1, 1]));
    }

    #[test]
    fn counts_that_another_thread_writes_meanwhile_are_those_of_whole_rounds() {
        const BURSTS: u64 = 500;
        const BURST: u64 = 64;
        let (mut series, places) = one_series();
        let has_ended = &AtomicBool::new(false);
        let mut sum = 0;
        thread::scope(|scope| {
            scope.spawn(move || {
                for _ in 0..BURSTS {
                    (0..BURST).for_each(|_| count_round(&places));
                    thread::sleep(Duration::from_micros(200));
                }
                has_ended.store(true, Release);
            });
            let mut was_last_look = false;
            while !was_last_look {
                was_last_look = has_ended.load(Acquire);
                if let Some([entries, pin_writes, host_times]) = growth(&mut series) {
                    assert_eq!([pin_writes, host_times], [entries; 2]);
                    sum += entries;
                }
            }
        });
        assert_eq!(sum, BURSTS * BURST);
    }
}
