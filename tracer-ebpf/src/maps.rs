//! The maps, all of them bounded and BTF-defined. Arrays that every entry needs are the only values of theirs, whose addresses the loader
//! puts into the code ([`Region`]).

use core::{
    arch::asm,
    hint::assert_unchecked,
    intrinsics::{AtomicOrdering::Relaxed, atomic_cxchg},
};

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, HashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use tracer_common::{
    Counters, Outline, Record, Region, Slot,
    config::{REGION, Taken},
    in_kernel_series::{MAX_TALLIES, Tally},
    state::{MAX_STATES, SET_BITS, VcpuState, WAY_BITS},
};

use crate::kernel::{barrier, constant, cpu, slot, times};

/// Entries of a filter.
const MAX_FILTER: usize = 1024;
/// Room for wake-ups that user space has not looked at yet; one that finds none is none.
const WAKE_UPS: usize = 4096;
/// Places that an address may take.
const WAYS: u64 = 1 << WAY_BITS;

/// The map of an array that the programs know by its address, in the memory of both sides.
type Shared<T, const LENGTH: usize> = Array<[T; LENGTH], 1, { BPF_F_MMAPABLE as usize }>;

/// States of vCPUs, [`WAYS`] of each set.
#[btf_map]
pub static STATES: Shared<VcpuState, { Region::States.length() }> = Shared::new();

/// Each CPU's counters.
#[btf_map]
pub static COUNTERS: Shared<Counters, { Region::Counters.length() }> = Shared::new();

/// The rings, in words.
#[btf_map]
pub static RECORDS: Shared<u64, { Region::Records.length() }> = Shared::new();

/// By CPU: records that user space has taken out of the ring.
#[btf_map]
pub static TAKEN: Shared<Taken, { Region::Taken.length() }> = Shared::new();

/// Series that are counted here, [`WAYS`] of each set.
#[btf_map]
pub static TALLIES: Shared<Tally, { Region::Tallies.length() }> = Shared::new();

/// The address of a region: nothing is known of it here, only the verifier knows its length.
macro_rules! region {
    ($name:ident) => {
        constant!(*mut u8, REGION + Region::$name as u64)
    };
}

/// A place in a region, so many bytes from its beginning; the verifier checks that it is inside.
#[inline(always)]
fn place<T>(region: *mut u8, at: u64) -> *mut T {
    let place = region.wrapping_add(at as usize);
    // SAFETY: no address of a region is 0. Without this, the compiler asks each time.
    unsafe { assert_unchecked(!place.is_null()) };
    place.cast()
}

/// A loop's next step, which the compiler cannot foresee: it would unroll the loop wherever it is used.
#[inline(always)]
fn rolled(mut step: u64) -> u64 {
    // SAFETY: no instruction.
    unsafe { asm!("", inout("r0") step, options(pure, nomem, nostack, preserves_flags)) };
    step
}

/// A CPU's counters; none without a loader, who has places for every possible CPU.
#[inline(always)]
pub fn counters(cpu: u64) -> Option<&'static mut Counters> {
    if cpu >= slot(Slot::Cpus)? as u64 {
        return None;
    }
    let counters: *mut Counters = place(region!(Counters), cpu * size_of::<Counters>() as u64);
    // SAFETY: the place is this CPU's own; raw tracepoints of one CPU do not nest in each other here.
    Some(unsafe { &mut *counters })
}

/// A place of RECORDS by its number, of records of so many bytes. The number must be below the number of places.
#[inline(always)]
pub fn record(number: u64) -> *mut Record {
    let bytes = slot(Slot::RecordBytes).unwrap_or(0) as u64;
    place(region!(Records), times(number, bytes))
}

/// Records that user space has taken out of a CPU's ring, a CPU that has one.
#[inline(always)]
pub fn taken(cpu: u64) -> u64 {
    let at: *const Taken = place(region!(Taken), cpu * size_of::<Taken>() as u64);
    // SAFETY: a word that user space writes, in one piece.
    unsafe { (&raw const (*at).records).read_volatile() }
}

/// First place of the set of an address: the product's highest bits depend on all of its bits.
#[inline(always)]
fn first_place(vcpu: u64) -> u64 {
    (vcpu.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SET_BITS)) * WAYS
}

/// The state at a place, which must be below [`MAX_STATES`].
#[inline(always)]
fn state_at(number: u64) -> *mut VcpuState {
    place(region!(States), number * VcpuState::SIZE as u64)
}

/// The first place of the set of a vCPU's address: if its state is there, that is its own alone, for its hooks never run at once; if not,
/// it may only be looked at. Not without a loader.
#[inline(always)]
pub fn likely_state(vcpu: u64) -> &'static mut VcpuState {
    // SAFETY: nothing frees a region.
    unsafe { &mut *state_at(first_place(vcpu)) }
}

/// A number that a search found, below `end`, or none. Through memory, lest the verifier follow all that comes after it for every way
/// that the search may have gone.
#[inline(always)]
fn found(number: Option<u64>, end: u64) -> Option<u64> {
    let counters = counters(cpu())?;
    counters.found = number.unwrap_or(u64::MAX);
    // SAFETY: a field.
    let number = unsafe { (&raw const counters.found).read_volatile() };
    (number < end).then_some(number)
}

/// The state that is kept under a vCPU's address. An array in sets instead of a hash map: a look-up is a tenth of the instructions.
#[inline(always)]
pub fn state(vcpu: u64) -> Option<&'static mut VcpuState> {
    let number = found(search(vcpu), MAX_STATES as u64)?;
    // SAFETY: the value is this vCPU's alone, by its address, and its hooks never run at once; nothing frees a region.
    Some(unsafe { &mut *state_at(number) })
}

#[inline(always)]
fn search(vcpu: u64) -> Option<u64> {
    let first = first_place(vcpu);
    let mut at = state_at(first);
    let mut way = 0;
    while way < WAYS {
        // SAFETY: only looked at.
        if unsafe { (*at).vcpu } == vcpu {
            return Some(first + way);
        }
        at = at.wrapping_add(1);
        way = rolled(way + 1);
    }
    None
}

/// Fresh state under an address that has none: in an empty place, or in that of the vCPU entered longest ago. None when another CPU
/// took the place in the same moment.
#[inline(always)]
pub fn new_state(vcpu: u64) -> Option<&'static mut VcpuState> {
    let first = first_place(vcpu);
    let (mut oldest, mut entered_ns, mut owner) = (0, u64::MAX, 0);
    let mut at = state_at(first);
    let mut way = 0;
    while way < WAYS {
        // SAFETY: only looked at; the words are as old as they may be.
        let (has, last) =
            unsafe { ((&raw const (*at).vcpu).read_volatile(), (&raw const (*at).entry_ns).read_volatile()) };
        let last = if has == 0 { 0 } else { last };
        if last < entered_ns {
            (oldest, entered_ns, owner) = (way, last, has);
        }
        at = at.wrapping_add(1);
        way = rolled(way + 1);
    }
    let place = state_at(found(Some(first + oldest), MAX_STATES as u64)?);
    // SAFETY: a word of a region, which nothing frees. By an intrinsic, since Rust does not know that the target can (Linux 5.12).
    let (_, claimed) = unsafe { atomic_cxchg::<u64, { Relaxed }, { Relaxed }>(&raw mut (*place).vcpu, owner, vcpu) };
    if !claimed {
        return None;
    }
    // SAFETY: from here on it is this vCPU's alone, as in `state`.
    let state = unsafe { &mut *place };
    state.reset();
    Some(state)
}

/// A series by its place; none where there is no such place.
#[inline(always)]
pub fn tally_at(number: u32) -> Option<*mut Tally> {
    if number >= MAX_TALLIES as u32 {
        return None;
    }
    Some(place(region!(Tallies), u64::from(number) * size_of::<Tally>() as u64))
}

/// The place of a series, made where there is none; none where its set is full, or another CPU took the place in the same moment.
#[inline(always)]
pub fn tally(kvm: u64, who: u64, what: Outline) -> Option<u32> {
    let mixed = (kvm ^ what.0 ^ who.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let first = (mixed >> (64 - TALLY_SET_BITS)) * WAYS;
    let mut way = 0;
    while way < WAYS {
        let number = (first + way) as u32;
        let place = tally_at(number)?;
        // SAFETY: words of a region, which nothing frees; a series that is not complete yet is none of this vCPU's.
        unsafe {
            if (*place).kvm == kvm && (*place).who == who && (*place).what == what {
                return Some(number);
            }
            if (*place).kvm == 0 {
                let (_, claimed) = atomic_cxchg::<u64, { Relaxed }, { Relaxed }>(&raw mut (*place).kvm, 0, kvm);
                if !claimed {
                    return None;
                }
                (*place).what = what;
                barrier();
                // Last, for it says that the series is there.
                (&raw mut (*place).who).write_volatile(who);
                return Some(number);
            }
        }
        way = rolled(way + 1);
    }
    None
}

const TALLY_SET_BITS: u32 = MAX_TALLIES.trailing_zeros() - WAY_BITS;

/// Wake-ups of user space, the number of the CPU that wants it.
#[btf_map]
pub static WAKE: RingBuf<(), WAKE_UPS> = RingBuf::new();

/// VMWRITE sites that can be counted at a time.
pub const MAX_SITES: u32 = 8;

/// How often each VMWRITE site was passed.
#[btf_map]
pub static SITES: PerCpuArray<u64, { MAX_SITES as usize }> = PerCpuArray::new();

/// Thread groups to trace, where Slot::Filter says so.
#[btf_map]
pub static TGIDS: HashMap<u32, u8, MAX_FILTER> = HashMap::new();

/// vCPU numbers to trace, where Slot::Filter says so.
#[btf_map]
pub static VCPU_IDS: HashMap<u32, u8, MAX_FILTER> = HashMap::new();
