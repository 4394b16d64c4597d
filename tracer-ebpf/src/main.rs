//! Raw tracepoints on kvm_entry and kvm_exit: one event per VM entry, emitted when the round closes at kvm_exit.
//!
//! Thin: read, ask a rule of tracer-common, emit. All state of a vCPU lives under its address, because a vCPU may
//! migrate between kvm_exit and the next kvm_entry, and Linux 6.1 fires kvm_exit with preemption on for SVM.

#![no_std]
#![no_main]
// Assembly in kernel.rs and maps.rs, and maps.rs' compare-and-exchange.
#![feature(asm_experimental_arch, core_intrinsics)]
#![allow(internal_features)]
// The program attributes make the documented functions anew, without their documentation.
#![allow(missing_docs)]

mod diagnostics;
mod kernel;
mod maps;

use core::{ffi::c_void, ptr::null_mut};

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_RB_FORCE_WAKEUP,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::{kprobe, raw_tracepoint},
    programs::{ProbeContext, RawTracePointContext},
};
use tracer_common::{
    Counters, Flags, Isa, Outline, Record, Slot, StampedRecord, VM_TYPE_TDX, VMX_PREEMPTION_TIMER,
    config::{FILTER_TGIDS, FILTER_VCPUS},
    in_kernel_series::{Tally, bucket, what},
    rules::{Age, Writes, age, lane, pin_writes, transition_ns},
    state::{Phase, VcpuState},
};

use crate::{
    kernel::{barrier, cpu, from_here, probe, read, slot, times},
    maps::{SITES, TGIDS, VCPU_IDS, WAKE, counters, likely_state, new_state, record, state, taken, tally, tally_at},
};

/// kvm_exit's `isa`.
const VMX: u64 = Isa::Vmx as u64;
const SVM: u64 = Isa::Svm as u64;

/// Linux 5.16 and later: kvm_exit(vcpu, isa).
#[raw_tracepoint(tracepoint = "kvm_exit")]
pub fn kvm_exit(ctx: RawTracePointContext) -> i32 {
    on_exit(ctx.arg(0), ctx.arg(1));
    0
}

/// Before Linux 5.16: kvm_exit(exit_reason, vcpu, isa).
#[raw_tracepoint(tracepoint = "kvm_exit")]
pub fn kvm_exit_5_15(ctx: RawTracePointContext) -> i32 {
    on_exit(ctx.arg(1), ctx.arg(2));
    0
}

/// kvm_entry(vcpu), and where the kernel passes it, (vcpu, force_immediate_exit).
#[raw_tracepoint(tracepoint = "kvm_entry")]
pub fn kvm_entry(ctx: RawTracePointContext) -> i32 {
    let vcpu: u64 = ctx.arg(0);
    let mut flags = Flags::NONE;
    // The second argument may not be touched where the kernel has none: the attach would be refused.
    if slot(Slot::EntryHasImmediate) == Some(1) {
        flags |= Flags::IMMEDIATE_KNOWN;
        if ctx.arg::<u64>(1) & 0xff != 0 {
            flags |= Flags::IMMEDIATE;
        }
    } else if let Some(wish) = read::<u8>(vcpu, Slot::VmxReqImmediate) {
        flags |= Flags::IMMEDIATE_KNOWN;
        if wish != 0 {
            flags |= Flags::IMMEDIATE;
        }
    }
    on_entry(&ctx, vcpu, flags);
    0
}

#[inline(always)]
fn on_entry(ctx: &RawTracePointContext, vcpu: u64, mut flags: Flags) {
    if !is_selected(vcpu) {
        return;
    }
    // No `Option`: the compiler would move its undefined part about, which the verifier refuses.
    let exits = read::<u64>(vcpu, Slot::StatExits).unwrap_or(0);
    let is_older = slot(Slot::StatExits).is_none() || exits > 0;
    let mut state = likely_state(vcpu);
    if state.vcpu != vcpu || state.phase != Phase::CLOSED || !is_older || exits < state.exits {
        // SAFETY: none or this vCPU's state, as in `likely_state`.
        let Some(met) = (unsafe { meet(ctx.as_ptr(), vcpu, exits).as_mut() }) else { return };
        state = met;
    }
    state.phase = Phase::OPEN;
    state.exits = exits;

    // 0 for none.
    let vmcs = read::<u64>(vcpu, Slot::VmxLoadedVmcs).unwrap_or(0);
    if vmcs != 0
        && let Some(at) = slot(Slot::VmxVmcs01)
    {
        flags |= Flags::LEVEL_KNOWN;
        if vmcs != vcpu.wrapping_add(at as u64) {
            flags |= Flags::L2;
        }
    } else if let Some(mode) = read::<u64>(vcpu, Slot::StatGuestMode) {
        flags |= Flags::LEVEL_KNOWN;
        if mode != 0 {
            flags |= Flags::L2;
        }
    }
    let l2 = flags.has(Flags::L2);
    // Shadows are kept by level: without it, those of two VMCSs would be held against each other.
    if vmcs != 0
        && flags.has(Flags::LEVEL_KNOWN)
        && let Some(pin) = read::<u32>(vmcs, Slot::VmcsPin)
    {
        flags |= Flags::PIN_READ;
        if let Some(writes) = pin_writes(state.last_pin(l2), pin, state.from_birth != 0) {
            flags |= Flags::SHADOW_KNOWN;
            state.shadow_pin_writes = writes;
        }
        state.pin_entry = pin;
    }
    if slot(Slot::GuestR8).is_some() {
        state.exec_entry = if vmcs == 0 { 0 } else { read(vmcs, Slot::VmcsExec).unwrap_or(0) };
    }
    if slot(Slot::VmxLoadedVmcs).is_some() {
        state.loaded_vmcs = vmcs;
    }
    state.flags = flags;
    // SAFETY: a helper without arguments.
    state.entry_ns = unsafe { bpf_ktime_get_ns() };
}

/// The state of a vCPU of which this is no entry like the one before: it is new, or there is another at its address, or its last round is
/// open still, or its state is not at the likely place. None for what is not to be traced. Apart, so that the usual entry does not pay.
#[inline(never)]
fn meet(ctx: *mut c_void, vcpu: u64, exits: u64) -> *mut VcpuState {
    let Some(state) = state(vcpu).or_else(|| new_state(vcpu)) else {
        note(|counters| counters.no_state += 1);
        diagnostics::no_state(ctx, vcpu);
        return null_mut();
    };
    if state.phase == Phase::OPEN {
        note(|counters| counters.unmatched_entries += 1);
    }
    // State that the program on kvm_vmcs_write made is no sight of an entry.
    let age = age(slot(Slot::StatExits).map(|_| exits), (state.phase != Phase::NEW).then_some(state.exits));
    if age != Age::Same {
        // A new vCPU's VMCS is written before it is entered for the first time.
        let writes = if state.phase == Phase::NEW { state.writes } else { [Writes(0); 2] };
        state.reset();
        // Where this can be read, all of the vCPU can: it is one allocation.
        let Some(kvm) = probe(vcpu, Slot::VcpuKvm).or((slot(Slot::VcpuKvm).is_none()).then_some(0)) else {
            note(|counters| counters.no_state += 1);
            return null_mut();
        };
        state.kvm = kvm;
        state.writes = writes;
        state.from_birth = (age == Age::Born) as u8;
        let vcpu_id = read(vcpu, Slot::VcpuId).unwrap_or(u32::MAX);
        state.who = bpf_get_current_pid_tgid() >> 32 << 32 | u64::from(vcpu_id);
        if probe::<u8>(kvm, Slot::KvmVmType) == Some(VM_TYPE_TDX) {
            state.phase = Phase::TDX;
            diagnostics::tdx(ctx, vcpu_id);
        }
        // Its first record wakes user space, so that that can ask the process for a name while there is one.
        note(|counters| counters.wake_at = 0);
    }
    if state.phase == Phase::TDX {
        state.exits = exits;
        note(|counters| counters.td_entries += 1);
        return null_mut();
    }
    state
}

#[inline(always)]
fn on_exit(vcpu: u64, isa: u64) {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if !is_selected(vcpu) {
        return;
    }
    let mut state = likely_state(vcpu);
    if state.vcpu != vcpu || state.phase != Phase::OPEN {
        // SAFETY: none or this vCPU's state, as in `likely_state`.
        let Some(found) = (unsafe { open_round(vcpu).as_mut() }) else { return };
        state = found;
    }
    state.phase = Phase::CLOSED;
    let mut flags = state.flags;
    let (reason, known) = match isa {
        VMX => (read::<u32>(vcpu, Slot::VmxExitReason).unwrap_or(0), slot(Slot::VmxExitReason).is_some()),
        SVM => {
            let vmcb = read::<u64>(vcpu, Slot::SvmVmcb).unwrap_or(0);
            let known = vmcb != 0 && slot(Slot::VmcbExitCode).is_some();
            (if known { read::<u32>(vmcb, Slot::VmcbExitCode).unwrap_or(0) } else { 0 }, known)
        }
        _ => (0, false),
    };
    if known {
        flags |= Flags::REASON_KNOWN;
    }
    if slot(Slot::VmcsSoftDisabled).is_some()
        && isa == VMX
        && reason & 0xffff == VMX_PREEMPTION_TIMER
        && let Some(soft) = read::<u8>(state.loaded_vmcs, Slot::VmcsSoftDisabled)
    {
        flags |= Flags::SOFT_KNOWN;
        if soft != 0 {
            flags |= Flags::SOFT_DISABLED;
        }
    }
    let (mut pin_exit, mut pin_writes, mut shadow_pin_writes, mut writes) = (0, 0, 0, Writes(0));
    // Without the shadow there is no tracepoint that tells of writes either.
    if slot(Slot::VmcsPin).is_some() {
        let l2 = flags.has(Flags::L2);
        shadow_pin_writes = state.shadow_pin_writes;
        state.shadow_pin_writes = 0;
        if flags.has(Flags::PIN_READ) {
            if let Some(pin) = read::<u32>(state.loaded_vmcs, Slot::VmcsPin) {
                pin_exit = pin;
                shadow_pin_writes += (pin != state.pin_entry) as u8;
                state.set_last_pin(l2, pin);
            } else {
                flags.0 &= !(Flags::PIN_READ | Flags::SHADOW_KNOWN).0;
            }
        }
        pin_writes = shadow_pin_writes;
        if slot(Slot::ExactWrites) == Some(1) {
            let pending = if l2 { &mut state.writes[1] } else { &mut state.writes[0] };
            writes = *pending;
            *pending = Writes(0);
            pin_writes = writes.of(0);
        }
        if flags.has(Flags::SHADOW_KNOWN) {
            // What the shadow method cannot know of a VMCS, its past, the tracepoint has not told either.
            flags |= Flags::PIN_WRITES_KNOWN;
            if slot(Slot::ExactWrites) == Some(1) {
                flags |= Flags::WRITES_EXACT;
            }
        }
    }
    let (previous, previous_exit_ns) = (state.previous, state.exit_ns);
    let round = Outline::of(reason, flags, pin_writes, isa as u8);
    state.previous = round;
    state.exit_ns = now;

    let cpu = cpu();
    let Some(counters) = counters(cpu) else { return };
    let rounds = counters.rounds + 1;
    counters.rounds = rounds;
    if slot(Slot::InKernel) == Some(1) {
        count(counters, state, round, previous_exit_ns);
    } else {
        let Some(place) = place_of_record(counters, rounds, cpu) else {
            counters.dropped += 1;
            return;
        };
        // SAFETY: the place is this CPU's, and user space has taken what was there.
        unsafe {
            (*place).entry_ns = state.entry_ns;
            (*place).exit_ns = now;
            (*place).previous_exit_ns = previous_exit_ns;
            (*place).kvm = state.kvm;
            (*place).who = state.who;
            (*place).outline = round;
            (*place).previous = previous;
        }
        if slot(Slot::Details) == Some(1) {
            // SAFETY: as above; the place has room for the whole.
            unsafe {
                (*place).writes = writes;
                (*place).transition_ns = state.transition_ns;
                (*place).shadow_pin_writes = shadow_pin_writes.into();
                (*place).tid = bpf_get_current_pid_tgid() as u32;
                (*place).cpu = cpu as u32;
                (*place).pin_entry = state.pin_entry;
                (*place).pin_exit = pin_exit;
            }
            if slot(Slot::GuestR8).is_some() {
                let [entry_tsc, exit_tsc, number, mark] = probe(vcpu, Slot::GuestR8).unwrap_or([0; 4]);
                let exec_exit = read(state.loaded_vmcs, Slot::VmcsExec).unwrap_or(0);
                let place = place.cast::<StampedRecord>();
                // SAFETY: as above.
                unsafe {
                    (*place).entry_tsc = entry_tsc;
                    (*place).exit_tsc = exit_tsc;
                    (*place).number = number;
                    (*place).mark = mark;
                    (*place).exec_entry = state.exec_entry;
                    (*place).exec_exit = exec_exit;
                }
            }
        }
        barrier();
        // SAFETY: as above; last, for it says that the record is there.
        unsafe { (&raw mut (*place).seq).write_volatile(rounds) };
    }
    // A wake-up per record was measured to add VM exits to the very guest that is watched.
    if rounds >= counters.wake_at {
        counters.wake_at = rounds + slot(Slot::WakeEvery).unwrap_or(1) as u64;
        wake(cpu);
    }
}

/// The state of a vCPU whose open round ends, but not at the likely place; none where there is no open round.
#[inline(never)]
fn open_round(vcpu: u64) -> *mut VcpuState {
    match state(vcpu) {
        Some(state) if state.phase == Phase::OPEN => return state,
        Some(state) if state.phase == Phase::TDX => {}
        _ => note(|counters| counters.unmatched_exits += 1),
    }
    null_mut()
}

/// Wakes user space, unless it has not looked at many wake-ups before.
#[inline(always)]
fn wake(cpu: u64) {
    if let Some(mut wish) = WAKE.reserve_untyped::<u32>(0) {
        wish.write(cpu as u32);
        wish.submit(BPF_RB_FORCE_WAKEUP.into());
    }
}

/// Counts the round that has just closed, instead of sending a record of it.
#[inline(always)]
fn count(counters: &mut Counters, state: &mut VcpuState, round: Outline, previous_exit_ns: u64) {
    let what = what(round);
    let mut found = None;
    // The host's work was on the exit before.
    if let Some(before) = tally_at(state.tally.wrapping_sub(1)) {
        // SAFETY: a series of this vCPU, in which nobody else counts.
        unsafe {
            if previous_exit_ns != 0 {
                // The clocks of two CPUs may differ by some ns.
                let ns = (state.entry_ns.wrapping_sub(previous_exit_ns) as i64).max(0) as u64;
                add_one(&raw mut (*before).exit_to_entry[bucket(from_here(ns))]);
            }
            if (*before).what == what {
                found = Some(before);
            } else {
                changed(before);
            }
        }
    }
    let place = found.or_else(|| {
        state.tally = tally(state.kvm, state.who, what).map_or(0, |number| number + 1);
        // SAFETY: a field. Read again, lest the verifier follow what comes for every way the search may have gone.
        tally_at(unsafe { (&raw const state.tally).read_volatile() }.wrapping_sub(1))
    });
    let Some(place) = place else {
        counters.dropped += 1;
        return;
    };
    let writes = if round.pin_writes() > 3 { 3 } else { round.pin_writes() };
    // SAFETY: as above.
    unsafe {
        add_one(&raw mut (*place).entry_to_exit[bucket(from_here(state.exit_ns - state.entry_ns))]);
        if slot(Slot::VmcsPin).is_some() && round.flags().has(Flags::PIN_WRITES_KNOWN) {
            add_one(&raw mut (*place).pin_writes[writes as usize & 3]);
        }
        changed(place);
    }
}

/// # Safety
/// A count of a series in which nobody else counts.
#[inline(always)]
unsafe fn add_one(count: *mut u32) {
    // SAFETY: the caller's promise.
    unsafe { *count = (*count).wrapping_add(1) };
}

/// Says that counts of a series have grown: after they have, or user space could take them for unchanged.
///
/// # Safety
/// A series in which nobody else counts.
#[inline(always)]
unsafe fn changed(series: *mut Tally) {
    barrier();
    // SAFETY: the caller's promise.
    unsafe { (&raw mut (*series).changes).write_volatile((*series).changes + 1) };
}

/// Where the record of the latest round goes, in this CPU's ring; none where that is full.
#[inline(always)]
fn place_of_record(counters: &mut Counters, rounds: u64, cpu: u64) -> Option<*mut Record> {
    let records = slot(Slot::RingRecords).unwrap_or(1) as u64;
    if cpu >= slot(Slot::RingCpus).unwrap_or(0) as u64 {
        return None;
    }
    let number = rounds - 1 - counters.dropped;
    if number >= counters.room {
        counters.room = taken(cpu) + records;
        if number >= counters.room {
            return None;
        }
    }
    Some(record(times(cpu, records) + (number & (records - 1))))
}

/// kvm_guest_time(vcpu, total, guest), of the companion patch's stopwatch: between the VM exit and kvm_exit.
#[raw_tracepoint(tracepoint = "kvm_guest_time")]
pub fn kvm_guest_time(ctx: RawTracePointContext) -> i32 {
    if let Some(factor) = slot(Slot::TscToNs)
        && let Some(state) = state(ctx.arg(0))
        && state.phase == Phase::OPEN
        && let Some(ns) = transition_ns(ctx.arg(1), ctx.arg(2), factor as u32)
    {
        state.transition_ns = ns;
        state.flags |= Flags::TRANSITION_KNOWN;
    }
    0
}

/// kvm_vmcs_write(vcpu, field, old_val, new_val, vmcs02), of the companion patch: one call per VMWRITE to a control.
#[raw_tracepoint(tracepoint = "kvm_vmcs_write")]
pub fn kvm_vmcs_write(ctx: RawTracePointContext) -> i32 {
    let vcpu: u64 = ctx.arg(0);
    if let Some(lane) = lane(ctx.arg::<u64>(1) as u32)
        && is_selected(vcpu)
        && let Some(state) = state(vcpu).or_else(|| new_state(vcpu))
    {
        if read::<u64>(vcpu, Slot::StatExits) == Some(0) && state.exits > 0 {
            // Left behind by a dead vCPU at this address.
            state.reset();
        }
        let vmcs02 = ctx.arg::<u64>(4) & 0xff != 0;
        let pending = if vmcs02 { &mut state.writes[1] } else { &mut state.writes[0] };
        *pending = pending.plus(lane);
    }
    0
}

/// kvm_preemption_timer_exit(vcpu, cause, vmcs02), of the companion patch: a second witness of the causes.
#[raw_tracepoint(tracepoint = "kvm_preemption_timer_exit")]
pub fn kvm_preemption_timer_exit(ctx: RawTracePointContext) -> i32 {
    if is_selected(ctx.arg(0))
        && let Some(counters) = counters(cpu())
    {
        // Masked, so that the verifier knows the bound.
        counters.traced_timer_exits[ctx.arg::<u64>(1) as usize & 3] += 1;
    }
    0
}

/// Programs on VMWRITE sites in kvm_intel's code, one each, because a program cannot tell at which of its probes it was called.
macro_rules! write_sites {
    ($($name:ident = $index:literal),+ $(,)?) => {
        $(
            #[kprobe]
            pub fn $name(_ctx: ProbeContext) -> u32 {
                passed($index);
                0
            }
        )+
    };
}

write_sites!(
    write_site_0 = 0,
    write_site_1 = 1,
    write_site_2 = 2,
    write_site_3 = 3,
    write_site_4 = 4,
    write_site_5 = 5,
    write_site_6 = 6,
    write_site_7 = 7,
);

#[inline(always)]
fn passed(site: u32) {
    if slot(Slot::Filter).is_some_and(|filter| filter & FILTER_TGIDS == 0 || is_selected_tgid())
        && let Some(count) = SITES.get_ptr_mut(site)
    {
        // SAFETY: the slot is this CPU's own, and VMWRITE sites do not nest.
        unsafe { *count += 1 };
    }
}

/// Counts what is rare.
#[inline(always)]
fn note(count: impl FnOnce(&mut Counters)) {
    if let Some(counters) = counters(cpu()) {
        count(counters);
    }
}

/// Whether the filters, where there are any, let this vCPU through; none gets through without a loader.
#[inline(always)]
fn is_selected(vcpu: u64) -> bool {
    let Some(filter) = slot(Slot::Filter) else { return false };
    if filter & FILTER_TGIDS != 0 && !is_selected_tgid() {
        return false;
    }
    if filter & FILTER_VCPUS != 0 {
        let id = read::<u32>(vcpu, Slot::VcpuId).unwrap_or(u32::MAX);
        if VCPU_IDS.get_ptr(id).is_none() {
            return false;
        }
    }
    true
}

#[inline(always)]
fn is_selected_tgid() -> bool {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    TGIDS.get_ptr(tgid).is_some()
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The helpers used, bpf_probe_read_kernel and the ring buffer's, are for GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
