//! Counts rounds in SERIES instead of sending records of them (`--aggregate in-kernel`).

use tracer_common::{
    Flags, Outline, Slot,
    in_kernel_series::{MAX_IN_KERNEL_SERIES, SeriesCounts, bucket, series_key, series_key_of_svm},
    state::{Owner, WAY_BITS},
};

use crate::{
    SVM, host_time,
    kernel::{barrier, opaque, slot, unpredictable},
    maps::{self, claim_series, count_limited, forget_search, is_limited},
    shared::{Shared, add, get, increment, set},
    states::State,
    wake,
};

/// Places of a set.
const WAYS: u64 = 1 << WAY_BITS;
const SET_BITS: u32 = MAX_IN_KERNEL_SERIES.trailing_zeros() - WAY_BITS;

/// Whose series: a VM and a vCPU, as in [`SeriesCounts`].
#[derive(Clone, Copy)]
struct Identity {
    kvm: u64,
    who: u64,
}

/// Times of a round, CLOCK_MONOTONIC in ns.
#[derive(Clone, Copy)]
pub struct Times {
    /// 0 where it was not seen
    pub previous_exit_ns: u64,
    pub entry_ns: u64,
    pub exit_ns: u64,
}

/// Counts a round that has just closed; false where its series finds no place. `last` is the series of the vCPU's round before.
#[inline(always)]
pub fn count<const ISA: u64>(
    state: State,
    vcpu: u64,
    last: Option<Shared<SeriesCounts>>,
    round: Outline,
    times: Times,
) -> bool {
    let guest_ns = times.exit_ns.wrapping_sub(times.entry_ns);
    let key = if ISA == SVM { series_key_of_svm(round) } else { series_key(round) };
    let mut found = None;
    if let Some(last) = last {
        begin_counting(last);
        // Host time is the host's work on the previous exit, so it counts in that exit's series.
        if times.previous_exit_ns != 0 {
            // The clocks of two CPUs may differ by some ns.
            let ns = (times.entry_ns.wrapping_sub(times.previous_exit_ns) as i64).max(0) as u64;
            add!(last.sums.host_ns += ns);
            increment!(last.exit_to_entry[bucket(opaque(ns))]);
            // Opaque, or it would be tested without parts of host time, too.
            if slot(Slot::Phases) == Some(1) && Outline(opaque(round.0)).flags().has(Flags::PHASES) {
                add_phases(state, last, times.previous_exit_ns);
            }
        }
        if get!(last.key) == key {
            found = Some(last);
        } else {
            end_counting(last);
        }
    }
    // No closure: the compiler could make a function of one, whose captures are types that the kernel refuses in BTF.
    if found.is_none() {
        set!(state.series = after(state, vcpu, key.0));
        // Through memory, or the verifier would follow the rest of the program once for each step of the search.
        found = series_before(get!(state.series));
        if let Some(series) = found {
            begin_counting(series);
        }
    }
    let Some(series) = found else { return false };
    add!(series.sums.guest_ns += guest_ns);
    increment!(series.entry_to_exit[bucket(opaque(guest_ns))]);
    if ISA != SVM && slot(Slot::VmcsPin).is_some() && round.flags().has(Flags::PIN_WRITES_KNOWN) {
        let writes = if round.pin_writes() > 3 { 3 } else { round.pin_writes() };
        // Masked, so that the verifier knows the bound.
        increment!(series.pin_writes[writes as usize & 3]);
    }
    end_counting(series);
    true
}

/// Adds the parts of the host time. Out of line, because most exits have none.
#[inline(never)]
fn add_phases(state: State, series: Shared<SeriesCounts>, previous_exit_ns: u64) {
    let phases = host_time::phases(state, previous_exit_ns);
    add!(series.sums.user_ns += phases.user_ns);
    add!(series.sums.idle_ns += phases.idle_ns);
    add!(series.sums.polled_ns += u64::from(phases.polled_ns));
    add!(series.sums.steal_ns += u64::from(phases.steal_ns));
}

/// The series of the vCPU's last round. None for a series of another vCPU, which the hook of an evicted vCPU may have left in the state: two
/// hooks could count in it at the same time.
#[inline(always)]
pub fn last(state: State) -> Option<Shared<SeriesCounts>> {
    let last = series_before(get!(state.series))?;
    (get!(last.kvm) == get!(state.kvm) && get!(last.who) == get!(state.who)).then_some(last)
}

/// The series whose place is one less than a number; none for 0.
#[inline(always)]
fn series_before(number: u32) -> Option<Shared<SeriesCounts>> {
    let place = number.wrapping_sub(1);
    (place < MAX_IN_KERNEL_SERIES as u32).then(|| maps::series(place.into()))
}

/// Makes the sequence of a series odd, before its counts change.
#[inline(always)]
fn begin_counting(series: Shared<SeriesCounts>) {
    increment!(series.sequence);
    barrier();
}

/// Makes it even again, after its counts have changed.
#[inline(always)]
fn end_counting(series: Shared<SeriesCounts>) {
    barrier();
    increment!(series.sequence);
}

/// The VMM's process.
#[inline(always)]
fn tgid(identity: Identity) -> u32 {
    (identity.who >> 32) as u32
}

/// The place of a vCPU's series plus 1, made where there is none; 0 where it finds none, and where the vCPU's state was evicted.
#[inline(never)]
fn after(state: State, vcpu: u64, key: u64) -> u32 {
    let identity = Identity { kvm: get!(state.kvm), who: get!(state.who) };
    barrier();
    if get!(state.owner) != Owner::vcpu(vcpu) {
        return 0;
    }
    let is_first = get!(state.series) == 0;
    match find_or_make(identity, Outline(key)) {
        Some(number) => {
            // User space can then read the process's name while the process lives.
            if is_first {
                wake();
            }
            number + 1
        }
        None => {
            count_limited(tgid(identity));
            0
        }
    }
}

/// The place of a series, made where there is none. None where its set is full, the process holds its share of places, or another CPU took
/// the place at the same time.
///
/// User space may take a place back: it makes its owner `TAKEN_BACK`, which is no VM, and waits until all programs that may have found the
/// series before have ended.
#[inline(always)]
fn find_or_make(identity: Identity, key: Outline) -> Option<u32> {
    let Identity { kvm, who } = identity;
    let mixed = (kvm ^ key.0 ^ who.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let first = (mixed >> (64 - SET_BITS)) * WAYS;
    let mut free = None;
    let mut way = 0;
    while way < WAYS {
        // Opaque, so that the bound is tested at run time: Linux 6.1's verifier derives none from the OR that the compiler makes of this
        // sum.
        let place = opaque(first + way);
        if place >= MAX_IN_KERNEL_SERIES as u64 {
            return None;
        }
        let series = maps::series(place);
        let owner = get!(series.kvm);
        // The identity of a series that another CPU is making is not complete yet: it is not this vCPU's, whose hooks run one at a time.
        if owner == kvm && get!(series.who) == who && get!(series.key) == key {
            return Some(place as u32);
        }
        // A later place may have the series, if it was made before this one was taken back.
        if owner == 0 && free.is_none() {
            free = Some(place);
        }
        way = unpredictable(way + 1);
    }
    make(forget_search(free, MAX_IN_KERNEL_SERIES as u64)?, identity, key)
}

/// Makes a series in a place that was free. None where its process holds its share, or another CPU took the place.
#[inline(always)]
fn make(place: u64, identity: Identity, key: Outline) -> Option<u32> {
    let series = maps::series(place);
    if is_limited(tgid(identity)) || !claim_series(series, identity.kvm) {
        return None;
    }
    set!(series.key = key);
    barrier();
    // Last, because it says that the identity is complete.
    set!(series.who = identity.who);
    Some(place as u32)
}
