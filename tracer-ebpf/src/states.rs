//! Places of vCPUs' states: find, make, evict. An array in sets instead of a hash map, because a look-up takes a tenth of the instructions.
//!
//! # Eviction while a hook of the evicted vCPU runs
//!
//! The hooks of one vCPU never run at the same time, so a state has one writer. The exception: the place of vCPU A is given to vCPU B while
//! a hook of A runs on another CPU. That needs a full set (17 vCPUs, dead ones included, in one of 1024 sets) in which A was entered longest
//! ago, and an eviction between the hook's first look at the owner and its last write, about 100 ns. In this case:
//!
//! * Identity stays right. `kvm`, `who` and `from_birth` are written only under [`Owner::CLAIMED`], and a claimed place is not evicted.
//!   kvm_exit checks the owner again after it has read the state. So each counted entry is one of its own vCPU, and only the hooks of one
//!   vCPU count in a series. An exit whose state was evicted is unmatched, as if the eviction had come before it; or dropped, where the
//!   eviction came while a series was looked for.
//! * The balance stays exact: `rounds`, `dropped` and the ring belong to a CPU, whoever owns the state, so `entries == delivered + dropped`.
//! * The other fields that A's hook still writes, once each, land in B's state. B's next hooks overwrite them, so at most two rounds of B are
//!   wrong, the open one and the next: counted as unmatched (at most two events) instead of as an entry, undecodable because the exit lies
//!   before the entry, or with times, level, timer cause, previous exit or control writes of A, or without its own.
//!
//! The tests on eviction in `tracer/tests/programs.rs` show all three.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use tracer_common::{
    Slot, VM_TYPE_TDX,
    rules::{Age, Writes, age},
    state::{MAX_STATES, Owner, Phase, VcpuState, WAY_BITS, set_of},
};

use crate::{
    diagnostics,
    kernel::{barrier, cpu, now_ns, probe, read, slot, unpredictable},
    maps::{self, count_rare, counters, forget_search, replace_owner},
    shared::{Shared, get, set},
};

/// A vCPU's state.
pub type State = Shared<VcpuState>;

/// Places of a set.
const WAYS: u64 = 1 << WAY_BITS;

/// First place of a vCPU's set.
#[inline(always)]
fn first_place(vcpu: u64) -> u64 {
    set_of(vcpu) * WAYS
}

/// The first place of a vCPU's set, where its state most likely is: the caller has to compare the owner.
#[inline(always)]
pub fn likely_state(vcpu: u64) -> State {
    maps::state(first_place(vcpu))
}

/// The state of a vCPU, wherever in its set it is.
#[inline(always)]
pub fn find(vcpu: u64) -> Option<State> {
    forget_search(search(vcpu), MAX_STATES as u64).map(maps::state)
}

#[inline(always)]
fn search(vcpu: u64) -> Option<u64> {
    let first = first_place(vcpu);
    let mut state = maps::state(first);
    let mut way = 0;
    while way < WAYS {
        if get!(state.owner).is_at(vcpu) {
            return Some(first + way);
        }
        state = state.next();
        way = unpredictable(way + 1);
    }
    None
}

/// A state for a vCPU that has none: in a free place, or in that of the vCPU that was entered longest ago (LRU victim). None when another
/// CPU took the place at the same time.
#[inline(always)]
pub fn make(vcpu: u64) -> Option<State> {
    let first = first_place(vcpu);
    let (mut victim, mut entered_ns, mut owner) = (0, u64::MAX, Owner::NONE);
    let mut state = maps::state(first);
    let mut way = 0;
    while way < WAYS {
        let candidate = get!(state.owner);
        let last_ns = match candidate {
            Owner::NONE => 0,
            // Filled in right now, and never older than any other.
            Owner::CLAIMED => u64::MAX,
            _ => get!(state.entry_ns),
        };
        if last_ns < entered_ns {
            (victim, entered_ns, owner) = (way, last_ns, candidate);
        }
        state = state.next();
        way = unpredictable(way + 1);
    }
    let state = maps::state(forget_search(Some(first + victim), MAX_STATES as u64)?);
    let is_mine = start(state, owner, vcpu);
    if is_mine && owner != Owner::NONE {
        count_rare!(evicted);
    }
    is_mine.then_some(state)
}

/// Forgets the dead vCPU that left this state at the address of a new one; false where the state was evicted.
#[inline(always)]
pub fn renew(state: State, vcpu: u64) -> bool {
    let owner = get!(state.owner);
    owner.is_at(vcpu) && start(state, owner, vcpu)
}

/// Gives a place to a new vCPU; false where it does not belong to `owner` any more.
#[inline(always)]
fn start(state: State, owner: Owner, vcpu: u64) -> bool {
    if !replace_owner(state, owner, Owner::CLAIMED) {
        return false;
    }
    clear(state);
    // Or the next new vCPU of this set would choose this place, too.
    set!(state.entry_ns = now_ns());
    publish(state, Owner::new_vcpu(vcpu));
    true
}

/// Makes everything but the owner zero. The place must be claimed.
#[inline(always)]
fn clear(state: State) {
    let words = state.as_ptr().cast::<u64>();
    for word in 1..VcpuState::SIZE / size_of::<u64>() {
        // SAFETY: a state is so many aligned words in a region, of numbers for which 0 is valid; the write is volatile, because the hook of
        // an evicted vCPU may still access them.
        unsafe { words.add(word).write_volatile(0) };
    }
}

/// Gives a claimed place to its owner, after everything that was written to it.
#[inline(always)]
fn publish(state: State, owner: Owner) {
    barrier();
    set!(state.owner = owner);
}

/// The state of a vCPU at a kvm_entry off the usual path: the vCPU is new, another one was at its address, its last round is still open, or
/// its state is not at the likely place. None for a vCPU that is not traced. Out of line, because it is the slow path.
#[inline(never)]
pub fn adopt_state(ctx: *mut c_void, vcpu: u64, exits: u64) -> Option<State> {
    let Some(state) = find(vcpu).or_else(|| make(vcpu)) else {
        count_rare!(no_state);
        diagnostics::no_state(ctx, vcpu);
        return None;
    };
    if get!(state.phase) == Phase::OPEN {
        count_rare!(unmatched_entries);
    }
    // kvm_vmcs_write may make the state before the first kvm_entry; such a state does not count as a previous entry.
    let last_exits = (!get!(state.owner).is_new()).then_some(get!(state.exits));
    let age = age(slot(Slot::StatExits).map(|_| exits), last_exits);
    if age != Age::Same && !identify(ctx, state, vcpu, age) {
        count_rare!(no_state);
        return None;
    }
    if get!(state.owner).is_td() {
        set!(state.exits = exits);
        count_rare!(td_entries);
        return None;
    }
    Some(state)
}

/// Fills in the state of a vCPU at its first kvm_entry; false where the vCPU cannot be read or its state was evicted.
#[inline(always)]
fn identify(ctx: *mut c_void, state: State, vcpu: u64, age: Age) -> bool {
    let owner = get!(state.owner);
    if !owner.is_at(vcpu) || !replace_owner(state, owner, Owner::CLAIMED) {
        return false;
    }
    // A new vCPU's VMCS is written before its first entry.
    let writes = if owner.is_new() { [get!(state.writes[0]), get!(state.writes[1])] } else { [Writes(0); 2] };
    clear(state);
    // If this can be read, all of the vCPU can: it is one allocation.
    let Some(kvm) = probe(vcpu, Slot::VcpuKvm).or((slot(Slot::VcpuKvm).is_none()).then_some(0)) else {
        publish(state, Owner::new_vcpu(vcpu));
        return false;
    };
    set!(state.entry_ns = now_ns());
    set!(state.kvm = kvm);
    set!(state.writes[0] = writes[0]);
    set!(state.writes[1] = writes[1]);
    if slot(Slot::SvmVmcb01).is_some() {
        set!(state.vmcb01 = read(vcpu, Slot::SvmVmcb01).unwrap_or(0));
    }
    set!(state.from_birth = (age == Age::Born) as u8);
    let vcpu_id = read(vcpu, Slot::VcpuId).unwrap_or(u32::MAX);
    set!(state.who = bpf_get_current_pid_tgid() >> 32 << 32 | u64::from(vcpu_id));
    let is_td = probe::<u8>(kvm, Slot::KvmVmType) == Some(VM_TYPE_TDX);
    if is_td {
        set!(state.phase = Phase::CLOSED);
        diagnostics::tdx(ctx, vcpu_id);
    }
    publish(state, if is_td { Owner::td_vcpu(vcpu) } else { Owner::vcpu(vcpu) });
    // The vCPU's first record wakes user space, which can then read the process's name while the process lives.
    if let Some(counters) = counters(cpu()) {
        set!(counters.wake_at = 0);
    }
    true
}

/// The state of a vCPU with an open round, wherever in its set it is; none where no round is open. Out of line, because it is the slow
/// path.
#[inline(never)]
pub fn find_open_round(vcpu: u64) -> Option<State> {
    match find(vcpu) {
        Some(state) if get!(state.owner).is_td() => {}
        Some(state) if get!(state.owner) == Owner::vcpu(vcpu) && get!(state.phase) == Phase::OPEN => {
            return Some(state);
        }
        _ => count_rare!(unmatched_exits),
    }
    None
}
