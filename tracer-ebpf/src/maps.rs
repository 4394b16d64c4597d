//! The maps, all of them bounded and BTF-defined.

use core::{
    arch::asm,
    intrinsics::{AtomicOrdering::Relaxed, atomic_cxchg},
};

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, HashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use tracer_common::{
    Counters, Event, Flags, Outline, StampedEvent,
    rules::Writes,
    tally::{MAX_TALLIES, Tally},
};

use crate::kernel::barrier;

/// vCPUs whose state is kept, in sets: beyond, the one of its set that was entered longest ago is forgotten.
const MAX_VCPUS: usize = 1 << SET_BITS << WAY_BITS;
const SET_BITS: u32 = 10;
const WAY_BITS: u32 = 4;
/// Entries of a filter.
const MAX_FILTER: usize = 1024;
/// Where the loader sets the number of elements: by CPUs and the rings' length.
const SET_BY_LOADER: usize = 1;
/// Room for wake-ups that user space has not looked at yet; one that finds none is none.
const WAKE_UPS: usize = 4096;

/// What is remembered of a vCPU between its hooks.
#[repr(C)]
pub struct VcpuState {
    /// address of the `struct kvm_vcpu` that it belongs to; 0 for none. Claimed by a compare-and-exchange, for CPUs may want the same place
    vcpu: u64,
    /// previous kvm_exit, 0 for none
    pub exit_ns: u64,
    /// the open round's kvm_entry
    pub entry_ns: u64,
    /// of the open round
    pub exit_to_entry_ns: u64,
    /// address of `struct kvm`
    pub kvm: u64,
    /// how the last round went
    pub previous: Outline,
    /// writes to the controls of vmcs01 and vmcs02 since the last kvm_exit of each
    pub writes: [Writes; 2],
    /// `stat.exits` at the last kvm_entry
    pub exits: u64,
    /// the VMCS of the open round
    pub loaded_vmcs: u64,
    /// as [`Tally::who`]
    pub who: u64,
    /// last look at the shadow, of vmcs01 and vmcs02
    last_pin: [u32; 2],
    /// bit 0 and 1: which of `last_pin` is valid
    pin_seen: u8,
    /// pin-control writes of the open round, by the shadow method
    pub shadow_pin_writes: u8,
    /// flags of the open round
    pub flags: u16,
    /// shadow at the open round's kvm_entry
    pub pin_entry: u32,
    /// the same of the primary execution controls, for the calibration guest
    pub exec_entry: u32,
    /// VM entry and VM exit of the open round by the stopwatch
    pub transition_ns: u32,
    /// one more than the place of the last round's series in TALLIES; 0 for none
    pub tally: u32,
    /// 1 between kvm_entry and kvm_exit
    pub open: u8,
    /// 1 when the vCPU's first entry was seen
    pub from_birth: u8,
    /// 1 for a vCPU of a TDX guest
    pub tdx: u8,
    /// 1 until the vCPU's first record was written
    pub is_new: u8,
    /// 1 since the vCPU's first kvm_entry
    pub entered: u8,
    reserved: [u8; 7],
}

impl VcpuState {
    /// Forgets everything but whose it is.
    #[inline(always)]
    pub fn reset(&mut self) {
        self.exit_ns = 0;
        self.entry_ns = 0;
        self.exit_to_entry_ns = 0;
        self.kvm = 0;
        self.previous = Outline { exit_reason: 0, flags: Flags::NONE, pin_writes: 0, isa: 0 };
        self.writes = [Writes(0); 2];
        self.exits = 0;
        self.loaded_vmcs = 0;
        self.who = 0;
        self.last_pin = [0; 2];
        self.pin_seen = 0;
        self.shadow_pin_writes = 0;
        self.flags = 0;
        self.pin_entry = 0;
        self.exec_entry = 0;
        self.transition_ns = 0;
        self.tally = 0;
        self.open = 0;
        self.from_birth = 0;
        self.tdx = 0;
        self.is_new = 0;
        self.entered = 0;
    }

    /// The shadow at the last look at this level's VMCS.
    #[inline(always)]
    pub fn last_pin(&self, l2: bool) -> Option<u32> {
        if l2 {
            (self.pin_seen & 2 != 0).then_some(self.last_pin[1])
        } else {
            (self.pin_seen & 1 != 0).then_some(self.last_pin[0])
        }
    }

    #[inline(always)]
    pub fn set_last_pin(&mut self, l2: bool, pin: u32) {
        if l2 {
            self.last_pin[1] = pin;
            self.pin_seen |= 2;
        } else {
            self.last_pin[0] = pin;
            self.pin_seen |= 1;
        }
    }
}

/// States, [`WAYS`] of each set.
#[btf_map]
static VCPUS: Array<VcpuState, MAX_VCPUS> = Array::new();

/// Places that an address may take.
const WAYS: u32 = 1 << WAY_BITS;

/// First place of the set of an address: the product's highest bits depend on all of its bits.
#[inline(always)]
fn first_place(vcpu: u64) -> u32 {
    (vcpu.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SET_BITS)) as u32 * WAYS
}

/// A loop's next step, which the compiler cannot foresee: it would unroll the loop wherever it is used.
#[inline(always)]
fn rolled(mut step: u32) -> u32 {
    // SAFETY: no instruction.
    unsafe { asm!("/* {0} */", inout(reg) step, options(pure, nomem, nostack, preserves_flags)) };
    step
}

/// The state that is kept under a vCPU's address. An array in sets instead of a hash map: a look-up is a tenth of the instructions.
#[inline(always)]
pub fn state(vcpu: u64) -> Option<&'static mut VcpuState> {
    let first = first_place(vcpu);
    let mut way = 0;
    while way < WAYS {
        // SAFETY: the value is this vCPU's alone, by its address, and its hooks never run at once; nothing frees an array's values.
        let state = unsafe { &mut *VCPUS.get_ptr_mut(first + way)? };
        if state.vcpu == vcpu {
            return Some(state);
        }
        way = rolled(way + 1);
    }
    None
}

/// Fresh state under an address that has none: in an empty place, or in that of the vCPU entered longest ago. None when another CPU
/// took the place in the same moment.
#[inline(always)]
pub fn new_state(vcpu: u64) -> Option<&'static mut VcpuState> {
    let first = first_place(vcpu);
    let (mut oldest, mut entered_ns, mut owner) = (first, u64::MAX, 0);
    let mut way = 0;
    while way < WAYS {
        // SAFETY: only looked at; the words are as old as they may be.
        let (has, at) = unsafe {
            let state = VCPUS.get_ptr(first + way)?;
            ((&raw const (*state).vcpu).read_volatile(), (&raw const (*state).entry_ns).read_volatile())
        };
        let at = if has == 0 { 0 } else { at };
        if at < entered_ns {
            (oldest, entered_ns, owner) = (first + way, at, has);
        }
        way = rolled(way + 1);
    }
    let place = VCPUS.get_ptr_mut(oldest)?;
    // SAFETY: a word of an array's value, which nothing frees. By an intrinsic, since Rust does not know that the target can (Linux 5.12).
    let (_, claimed) = unsafe { atomic_cxchg::<u64, { Relaxed }, { Relaxed }>(&raw mut (*place).vcpu, owner, vcpu) };
    if !claimed {
        return None;
    }
    // SAFETY: from here on it is this vCPU's alone, as in `state`.
    let state = unsafe { &mut *place };
    state.reset();
    Some(state)
}

/// One slot, a value per CPU.
#[btf_map]
pub static COUNTERS: PerCpuArray<Counters, 1> = PerCpuArray::new();

/// The rings: so many records a CPU, which only that CPU writes, in the order of CPUs. User space maps them. A record is there when its
/// number, written last, is higher than those before it. (A BPF ring buffer takes a lock and four times the instructions a record.)
#[btf_map]
pub static RECORDS: Array<Event, SET_BY_LOADER, { BPF_F_MMAPABLE as usize }> = Array::new();

/// The same of [`StampedEvent`]s, instead of [`RECORDS`] for the calibration guest.
#[btf_map]
pub static STAMPED: Array<StampedEvent, SET_BY_LOADER, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Series, where they are counted here: sets of [`WAYS`] places. A vCPU counts alone in its own; nothing is ever removed.
#[btf_map]
pub static TALLIES: Array<Tally, SET_BY_LOADER, { BPF_F_MMAPABLE as usize }> = Array::new();

/// The place of a series, and what is counted there; none where its set is full, or another CPU took the place in the same moment.
#[inline(always)]
pub fn tally(kvm: u64, who: u64, what: u64) -> Option<(u32, *mut Tally)> {
    let mixed = (kvm ^ what ^ who.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let first = (mixed >> (64 - TALLY_SET_BITS)) as u32 * WAYS;
    let mut way = 0;
    while way < WAYS {
        let at = first + way;
        let place = TALLIES.get_ptr_mut(at)?;
        // SAFETY: words of an array's value, which nothing frees; a series that is not complete yet is none of this vCPU's.
        unsafe {
            if (*place).kvm == kvm && (*place).who == who && (*place).what == what {
                return Some((at, place));
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
                return Some((at, place));
            }
        }
        way = rolled(way + 1);
    }
    None
}

const TALLY_SET_BITS: u32 = MAX_TALLIES.trailing_zeros() - WAY_BITS;

/// Takes what finds no room.
#[btf_map]
pub static SPARE: PerCpuArray<StampedEvent, 1> = PerCpuArray::new();

/// By CPU: records that user space has taken out of the ring. A cache line each.
#[btf_map]
pub static TAKEN: Array<[u64; 8], SET_BY_LOADER, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Wake-ups of user space, the number of the CPU that wants it.
#[btf_map]
pub static WAKE: RingBuf<(), WAKE_UPS> = RingBuf::new();

/// VMWRITE sites that can be counted at a time.
pub const MAX_SITES: u32 = 8;

/// How often each VMWRITE site was passed.
#[btf_map]
pub static SITES: PerCpuArray<u64, { MAX_SITES as usize }> = PerCpuArray::new();

/// Thread groups to trace, where Slot::FilterTgid is set.
#[btf_map]
pub static TGIDS: HashMap<u32, u8, MAX_FILTER> = HashMap::new();

/// vCPU numbers to trace, where Slot::FilterVcpu is set.
#[btf_map]
pub static VCPU_IDS: HashMap<u32, u8, MAX_FILTER> = HashMap::new();
