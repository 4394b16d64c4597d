//! The maps, all bounded and BTF-defined. Arrays that every entry needs are the only value of their map; the loader patches its address
//! into the code ([`Region`]).

use core::{
    hint::assert_unchecked,
    intrinsics::{AtomicOrdering::Relaxed, atomic_cxchg, atomic_xadd},
    ptr::NonNull,
};

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use tracer_common::{
    Counters, Region, Slot, StampedRecord,
    clock::ClockBase,
    config::{MAX_SITES, REGION, Taken},
    in_kernel_series::SeriesCounts,
    state::{MAX_STATES, Owner, VcpuState},
};

use crate::{
    kernel::{constant, cpu, slot, times},
    shared::{Shared, get, set},
};

/// Entries of a filter.
const MAX_FILTER: usize = 1024;
/// Wake-ups that user space has not seen yet; a further one is lost, which is harmless while there are others.
const WAKE_UPS: usize = 4096;

/// The map of an array whose address the programs know, in memory that user space can map.
type Mapped<T, const LENGTH: usize> = Array<[T; LENGTH], 1, { BPF_F_MMAPABLE as usize }>;

/// States of vCPUs, in sets.
#[btf_map]
pub static STATES: Mapped<VcpuState, { Region::States.length() }> = Mapped::new();

/// Counters by CPU.
#[btf_map]
pub static COUNTERS: Mapped<Counters, { Region::Counters.length() }> = Mapped::new();

/// The rings, in words.
#[btf_map]
pub static RECORDS: Mapped<u64, { Region::Records.length() }> = Mapped::new();

/// Records that user space has taken out of the ring, by CPU.
#[btf_map]
pub static TAKEN: Mapped<Taken, { Region::Taken.length() }> = Mapped::new();

/// Series that the programs count themselves, in sets.
#[btf_map]
pub static SERIES: Mapped<SeriesCounts, { Region::Series.length() }> = Mapped::new();

/// The tie of CLOCK_MONOTONIC to the TSC, which user space renews.
#[btf_map]
pub static CLOCK: Mapped<ClockBase, { Region::Clock.length() }> = Mapped::new();

/// Wake-ups of user space: the number of the CPU that asks for it.
#[btf_map]
pub static WAKE: RingBuf<(), WAKE_UPS> = RingBuf::new();

/// Executions of each VMWRITE site.
#[btf_map]
pub static SITES: PerCpuArray<u64, MAX_SITES> = PerCpuArray::new();

/// Thread groups to trace, with [`FILTER_TGIDS`](tracer_common::config::FILTER_TGIDS).
#[btf_map]
pub static TGIDS: HashMap<u32, u8, MAX_FILTER> = HashMap::new();

/// vCPU numbers to trace, with [`FILTER_VCPUS`](tracer_common::config::FILTER_VCPUS).
#[btf_map]
pub static VCPU_IDS: HashMap<u32, u8, MAX_FILTER> = HashMap::new();

/// The vCPU that a thread runs, by the addresses of both structures. The thread that ran longest ago gives way: its vCPU's next kvm_entry finds
/// no return of KVM_RUN.
#[btf_map]
pub static VCPU_OF_TASK: LruHashMap<u64, u64, MAX_STATES> = LruHashMap::new();

/// Thread groups that hold their share of SERIES and get no further ones, and the rounds that they lost for it.
#[btf_map]
pub static LIMITED: HashMap<u32, u64, MAX_FILTER> = HashMap::new();

/// The address of a region, of whose length only the verifier knows.
macro_rules! region {
    ($name:ident) => {
        constant!(*mut u8, REGION + Region::$name as u64)
    };
}

/// The value at an offset in bytes from the beginning of a region, a multiple of 8; the verifier checks that it is inside.
#[inline(always)]
fn value_at<T>(region: *mut u8, offset: u64) -> Shared<T> {
    let at: *mut T = region.wrapping_add(offset as usize).cast();
    // SAFETY: the loader patched the region's address in, which is not 0, and the offset does not wrap around. Without this the compiler
    // tests for 0.
    unsafe { assert_unchecked(!at.is_null()) };
    // SAFETY: not null by the line above; in a region, as the verifier checks at each access; aligned, because regions begin at a page and
    // values at multiples of 8. States, counters, records and series have fields of numbers only.
    unsafe { Shared::new(NonNull::new_unchecked(at)) }
}

/// A CPU's counters; none without a loader, which provides counters for each possible CPU.
#[inline(always)]
pub fn counters(cpu: u64) -> Option<Shared<Counters>> {
    if cpu >= slot(Slot::Cpus)? as u64 {
        return None;
    }
    Some(value_at(region!(Counters), cpu * size_of::<Counters>() as u64))
}

/// Counts a rare event in this CPU's counters.
macro_rules! count_rare {
    ($counter:ident) => {
        if let Some(counters) = $crate::maps::counters($crate::kernel::cpu()) {
            $crate::shared::increment!(counters.$counter);
        }
    };
}
pub(crate) use count_rare;

/// A place of RECORDS by its number, which must be below the number of places. Of the record, only the first [`Slot::RecordBytes`] bytes
/// may be touched.
#[inline(always)]
pub fn record(number: u64) -> Shared<StampedRecord> {
    let bytes = slot(Slot::RecordBytes).unwrap_or(0) as u64;
    value_at(region!(Records), times(number, bytes))
}

/// Records that user space has taken out of the ring of a CPU, which must have one.
#[inline(always)]
pub fn taken(cpu: u64) -> u64 {
    let taken: Shared<Taken> = value_at(region!(Taken), cpu * size_of::<Taken>() as u64);
    get!(taken.records)
}

/// A place of STATES by its number, which must be below [`MAX_STATES`].
#[inline(always)]
pub fn state(number: u64) -> Shared<VcpuState> {
    value_at(region!(States), number * VcpuState::SIZE as u64)
}

/// A place of SERIES by its number, which must be below [`MAX_IN_KERNEL_SERIES`](tracer_common::in_kernel_series::MAX_IN_KERNEL_SERIES).
#[inline(always)]
pub fn series(number: u64) -> Shared<SeriesCounts> {
    value_at(region!(Series), number * size_of::<SeriesCounts>() as u64)
}

/// The [`ClockBase`] in force. User space changes the other one, and not again before a second has passed.
#[inline(always)]
pub fn clock_base() -> ClockBase {
    let (first, second): (Shared<ClockBase>, Shared<ClockBase>) =
        (value_at(region!(Clock), 0), value_at(region!(Clock), size_of::<ClockBase>() as u64));
    let base = if get!(second.ns) > get!(first.ns) { second } else { first };
    ClockBase {
        ns: get!(base.ns),
        tsc: get!(base.tsc),
        cycles_per_ns: get!(base.cycles_per_ns),
        margin: get!(base.margin),
    }
}

/// Replaces the owner of a state if it is still `owner`; whether it was.
#[inline(always)]
pub fn replace_owner(state: Shared<VcpuState>, owner: Owner, new: Owner) -> bool {
    // SAFETY: `Shared::new` was promised a valid place, and `owner` is its first, aligned word.
    unsafe { replace(&raw mut (*state.as_ptr()).owner.0, owner.0, new.0) }
}

/// Claims an unused place of SERIES for a VM; whether it was unused.
#[inline(always)]
pub fn claim_series(series: Shared<SeriesCounts>, kvm: u64) -> bool {
    // SAFETY: `Shared::new` was promised a valid place, and `kvm` is its first, aligned word.
    unsafe { replace(&raw mut (*series.as_ptr()).kvm, 0, kvm) }
}

/// Whether a thread group gets no further series.
#[inline(always)]
pub fn is_limited(tgid: u32) -> bool {
    LIMITED.get_ptr(tgid).is_some()
}

/// Counts a round that a thread group lost, if it gets no further series.
#[inline(always)]
pub fn count_limited(tgid: u32) {
    if let Some(lost) = LIMITED.get_ptr_mut(tgid) {
        // SAFETY: an aligned value of a map, which is changed by atomic additions only.
        unsafe { atomic_xadd::<u64, u64, { Relaxed }>(lost, 1) };
    }
}

/// # Safety
/// `word` must be an aligned word of a region.
#[inline(always)]
unsafe fn replace(word: *mut u64, old: u64, new: u64) -> bool {
    // SAFETY: the caller's promise. An intrinsic, because core has no compare-and-exchange for this target, although kernels since 5.12
    // have; they run it with a full barrier, whatever ordering is named here.
    unsafe { atomic_cxchg::<u64, { Relaxed }, { Relaxed }>(word, old, new) }.1
}

/// A number below `end`, or none; through memory, where the verifier forgets how it was found. It would otherwise follow the rest of the
/// program once for each step of the search.
#[inline(always)]
pub fn forget_search(number: Option<u64>, end: u64) -> Option<u64> {
    let counters = counters(cpu())?;
    set!(counters.scratch = number.unwrap_or(u64::MAX));
    let number = get!(counters.scratch);
    (number < end).then_some(number)
}
