//! Raw tracepoints on kvm_entry and kvm_exit: one event per VM entry, written when the round closes at kvm_exit.
//!
//! Thin: read, ask a rule of tracer-common, write. A vCPU's state is kept by the vCPU's address and not by CPU, because a vCPU may migrate
//! between kvm_exit and the next kvm_entry, and Linux 6.1 fires kvm_exit with preemption on for SVM.

#![no_std]
#![no_main]
// Assembly in kernel.rs, and the compare-and-exchange in maps.rs.
#![feature(asm_experimental_arch, core_intrinsics)]
#![allow(internal_features, reason = "core has no compare-and-exchange for this target")]
#![allow(missing_docs, reason = "the program attributes repeat documented functions without their documentation")]

mod detail;
mod diagnostics;
mod host_time;
mod in_kernel_series;
mod kernel;
mod maps;
mod shared;
mod states;

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_RB_FORCE_WAKEUP,
    helpers::bpf_get_current_pid_tgid,
    macros::{kprobe, raw_tracepoint},
    programs::{ProbeContext, RawTracePointContext},
};
use tracer_common::{
    Counters, Flags, Isa, Outline, Slot, StampedRecord, VMX_PREEMPTION_TIMER,
    config::{FILTER_TGIDS, FILTER_VCPUS, MAX_SITES},
    detail::RawDetail,
    rules::{Control, Writes, pin_writes, transition_ns},
    state::{Owner, Phase},
};

use crate::{
    in_kernel_series::Times,
    kernel::{barrier, cpu, now_ns, opaque, probe, read, read_known, settled, slot, times},
    maps::{SITES, TGIDS, VCPU_IDS, WAKE, clock_base, count_rare, counters, record, taken},
    shared::{Shared, get, increment, set},
    states::{State, adopt_state, find_open_round, likely_state},
};

/// kvm_exit's `isa`.
const VMX: u64 = Isa::Vmx as u64;
const SVM: u64 = Isa::Svm as u64;

/// Of the constant `ISA` of a function: all options and instruction sets, as the slots say. Another value is an instruction set, and the usual
/// options: no details, extras and stamps, on a kernel with all of that instruction set's fields and `bpf_rdonly_cast`. The compiler keeps
/// the few values that such a program needs in registers; in the programs for all options, it spills a dozen to the stack at each exit.
const ANY: u64 = 0;

/// Where a round is counted.
const RECORDS: bool = false;
const SERIES: bool = true;

/// Linux 5.16 and later: kvm_exit(vcpu, isa).
#[raw_tracepoint(tracepoint = "kvm_exit")]
pub fn kvm_exit(ctx: RawTracePointContext) -> i32 {
    on_exit::<ANY, RECORDS>(ctx.arg(0), ctx.arg(1));
    0
}

/// Before Linux 5.16: kvm_exit(exit_reason, vcpu, isa).
#[raw_tracepoint(tracepoint = "kvm_exit")]
pub fn kvm_exit_5_15(ctx: RawTracePointContext) -> i32 {
    on_exit::<ANY, RECORDS>(ctx.arg(1), ctx.arg(2));
    0
}

/// As [`kvm_exit`], for VMX and the usual options.
#[raw_tracepoint(tracepoint = "kvm_exit")]
pub fn kvm_exit_vmx_records(ctx: RawTracePointContext) -> i32 {
    on_exit::<VMX, RECORDS>(ctx.arg(0), ctx.arg(1));
    0
}

/// As [`kvm_exit_vmx_records`], counting in the kernel.
#[raw_tracepoint(tracepoint = "kvm_exit")]
pub fn kvm_exit_vmx_in_kernel(ctx: RawTracePointContext) -> i32 {
    on_exit::<VMX, SERIES>(ctx.arg(0), ctx.arg(1));
    0
}

/// As [`kvm_exit`], for SVM and the usual options.
#[raw_tracepoint(tracepoint = "kvm_exit")]
pub fn kvm_exit_svm_records(ctx: RawTracePointContext) -> i32 {
    on_exit::<SVM, RECORDS>(ctx.arg(0), ctx.arg(1));
    0
}

/// As [`kvm_exit_svm_records`], counting in the kernel.
#[raw_tracepoint(tracepoint = "kvm_exit")]
pub fn kvm_exit_svm_in_kernel(ctx: RawTracePointContext) -> i32 {
    on_exit::<SVM, SERIES>(ctx.arg(0), ctx.arg(1));
    0
}

/// As [`kvm_entry`], for VMX and the usual options.
#[raw_tracepoint(tracepoint = "kvm_entry")]
pub fn kvm_entry_vmx(ctx: RawTracePointContext) -> i32 {
    on_entry::<VMX>(&ctx);
    0
}

/// As [`kvm_entry`], for SVM and the usual options.
#[raw_tracepoint(tracepoint = "kvm_entry")]
pub fn kvm_entry_svm(ctx: RawTracePointContext) -> i32 {
    on_entry::<SVM>(&ctx);
    0
}

/// kvm_entry(vcpu), or on newer kernels kvm_entry(vcpu, force_immediate_exit).
#[raw_tracepoint(tracepoint = "kvm_entry")]
pub fn kvm_entry(ctx: RawTracePointContext) -> i32 {
    on_entry::<ANY>(&ctx);
    0
}

#[inline(always)]
fn on_entry<const ISA: u64>(ctx: &RawTracePointContext) {
    let vcpu: u64 = ctx.arg(0);
    // kvm_exit takes back what turns out not to be known.
    let mut flags = if ISA == SVM { Flags::LEVEL_KNOWN | Flags::REASON_KNOWN } else { Flags::NONE };
    // Where the tracepoint has no second argument, a program that reads it cannot be attached.
    if slot(Slot::EntryHasImmediate) == Some(1) {
        flags |= Flags::IMMEDIATE_KNOWN;
        if ctx.arg::<u64>(1) & 0xff != 0 {
            flags |= Flags::IMMEDIATE;
        }
    } else if ISA != SVM
        && let Some(immediate) = read::<u8>(vcpu, Slot::VmxReqImmediate)
    {
        flags |= Flags::IMMEDIATE_KNOWN;
        if immediate != 0 {
            flags |= Flags::IMMEDIATE;
        }
    }
    if !is_selected(vcpu) {
        return;
    }
    let Some(state) = begin_round::<ISA>(ctx, vcpu) else { return };
    match ISA {
        SVM => {}
        VMX => {
            let vmcs: u64 = read_known(vcpu, Slot::VmxLoadedVmcs);
            read_level(vcpu, vmcs, &mut flags);
            read_pin_at_entry(state, vmcs, &mut flags);
            set!(state.loaded_vmcs = vmcs);
        }
        _ => read_vendor_fields(state, vcpu, &mut flags),
    }
    host_time::close::<ISA>(state, vcpu, &mut flags);
    set!(state.flags = flags);
    set!(state.entry_ns = now_ns());
}

/// Reads what this kernel and the options have, of whatever vendor.
#[inline(always)]
fn read_vendor_fields(state: State, vcpu: u64, flags: &mut Flags) {
    // 0 where there is none. Not an `Option`: the compiler would move its undefined part around, which the verifier refuses.
    let vmcs = read::<u64>(vcpu, Slot::VmxLoadedVmcs).unwrap_or(0);
    read_level(vcpu, vmcs, flags);
    read_pin_at_entry(state, vmcs, flags);
    if slot(Slot::GuestR8).is_some() {
        set!(state.exec_entry = if vmcs == 0 { 0 } else { read(vmcs, Slot::VmcsExec).unwrap_or(0) });
    }
    if slot(Slot::VmxLoadedVmcs).is_some() {
        set!(state.loaded_vmcs = vmcs);
    }
    detail::complete(state, vcpu);
}

/// Opens a round in the vCPU's state; none for a vCPU that is not traced.
#[inline(always)]
fn begin_round<const ISA: u64>(ctx: &RawTracePointContext, vcpu: u64) -> Option<State> {
    let exits =
        if ISA == ANY { read(vcpu, Slot::StatExits).unwrap_or(0) } else { read_known::<u64>(vcpu, Slot::StatExits) };
    let ran_before = exits > 0 || ISA == ANY && slot(Slot::StatExits).is_none();
    let mut state = likely_state(vcpu);
    if get!(state.owner) != Owner::vcpu(vcpu)
        || get!(state.phase) != Phase::CLOSED
        || !ran_before
        || exits < get!(state.exits)
    {
        state = adopt_state(ctx.as_ptr(), vcpu, exits)?;
    }
    set!(state.phase = Phase::OPEN);
    set!(state.exits = exits);
    Some(state)
}

/// Whether the entry is into L1 or L2: by the current VMCS, or else by KVM's statistics, unless the vmcb will tell at kvm_exit.
#[inline(always)]
fn read_level(vcpu: u64, vmcs: u64, flags: &mut Flags) {
    if vmcs != 0
        && let Some(vmcs01) = slot(Slot::VmxVmcs01)
    {
        *flags |= Flags::LEVEL_KNOWN;
        if vmcs != vcpu.wrapping_add(vmcs01 as u64) {
            *flags |= Flags::L2;
        }
    } else if slot(Slot::SvmVmcb01).is_none()
        && let Some(mode) = read::<u64>(vcpu, Slot::StatGuestMode)
    {
        *flags |= Flags::LEVEL_KNOWN;
        if mode != 0 {
            *flags |= Flags::L2;
        }
    }
}

/// Compares the shadow of the pin controls with the one last read, and keeps the difference for kvm_exit.
#[inline(always)]
fn read_pin_at_entry(state: State, vmcs: u64, flags: &mut Flags) {
    // Shadows are kept by level: without the level, the shadows of two VMCSs would be compared.
    if vmcs != 0
        && flags.has(Flags::LEVEL_KNOWN)
        && let Some(pin) = read::<u32>(vmcs, Slot::VmcsPin)
    {
        let last = last_pin(state, flags.has(Flags::L2));
        let is_from_birth = last.is_none() && get!(state.from_birth) != 0;
        *flags |= Flags::PIN_READ;
        if let Some(writes) = pin_writes(last, pin, is_from_birth) {
            *flags |= Flags::SHADOW_KNOWN;
            set!(state.shadow_pin_writes = writes);
        }
        set!(state.pin_entry = pin);
    }
}

/// The shadow of the pin controls when last read at this level; none where it never was.
#[inline(always)]
fn last_pin(state: State, is_l2: bool) -> Option<u32> {
    let seen = get!(state.pin_seen);
    if is_l2 {
        if seen & 2 != 0 { Some(get!(state.last_pin[1])) } else { None }
    } else if seen & 1 != 0 {
        Some(get!(state.last_pin[0]))
    } else {
        None
    }
}

#[inline(always)]
fn set_last_pin(state: State, is_l2: bool, pin: u32) {
    if is_l2 {
        set!(state.last_pin[1] = pin);
        set!(state.pin_seen = get!(state.pin_seen) | 2);
    } else {
        set!(state.last_pin[0] = pin);
        set!(state.pin_seen = get!(state.pin_seen) | 1);
    }
}

/// A round that a kvm_exit has closed.
struct Round {
    vcpu: u64,
    state: State,
    /// number on its CPU, from 1
    number: u64,
    outline: Outline,
    exit_ns: u64,
    /// 0 where the exit is none of a timer with a deadline
    deadline_tsc: u64,
    previous_detail: RawDetail,
    pins: PinWrites,
}

/// Control writes of a round.
struct PinWrites {
    /// pin-control writes from the best source
    best: u8,
    shadow: u8,
    all: Writes,
    /// shadow of the pin controls at kvm_exit
    pin_exit: u32,
}

impl PinWrites {
    const NONE: Self = Self { best: 0, shadow: 0, all: Writes(0), pin_exit: 0 };
}

#[inline(always)]
fn on_exit<const ISA: u64, const SINK: bool>(vcpu: u64, isa: u64) {
    if ISA != ANY && isa != ISA {
        return close_foreign_round(vcpu, isa);
    }
    let exit_ns = now_ns();
    if is_selected(vcpu) {
        close_round::<ISA, SINK>(vcpu, isa, exit_ns);
    }
}

/// A kvm_exit of another instruction set than the program's. Out of line, because it is the slow path.
#[inline(never)]
fn close_foreign_round(vcpu: u64, isa: u64) {
    on_exit::<ANY, RECORDS>(vcpu, isa);
}

#[inline(always)]
fn close_round<const ISA: u64, const SINK: bool>(vcpu: u64, isa: u64, exit_ns: u64) {
    let Some(state) = end_round(vcpu) else { return };
    let mut flags = get!(state.flags);
    let (isa, reason, deadline_tsc, pins) = match ISA {
        SVM => (SVM, read_svm_reason(state, vcpu, &mut flags), 0, PinWrites::NONE),
        VMX => {
            flags |= Flags::REASON_KNOWN;
            let reason = read_known(vcpu, Slot::VmxExitReason);
            let deadline_tsc = read_timer(state, vcpu, reason, exit_ns, &mut flags);
            (VMX, reason, deadline_tsc, close_pin_writes(state, &mut flags))
        }
        _ if slot(Slot::LayoutIsa).is_some_and(|own| isa != own as u64) => {
            forget_vendor_fields(state, &mut flags);
            (isa, 0, 0, PinWrites::NONE)
        }
        _ => {
            let reason = read_reason(state, vcpu, isa, &mut flags);
            let deadline_tsc = if isa == VMX { read_timer(state, vcpu, reason, exit_ns, &mut flags) } else { 0 };
            (isa, reason, deadline_tsc, close_pin_writes(state, &mut flags))
        }
    };
    // From here on, flags are those in the outline: one value less to keep.
    let outline = Outline(settled(Outline::of(reason, flags, pins.best, isa as u8).0));
    if ISA != VMX {
        host_time::leave_out_preemption(state, isa, exit_ns);
    }
    let previous_detail = if ISA == ANY {
        detail::begin(state, vcpu, isa, reason, flags.has(Flags::REASON_KNOWN))
    } else {
        RawDetail::NONE
    };

    // After all reads of kernel memory, which are calls to the compiler: fewer values have to outlive them.
    let cpu = cpu();
    let Some(counters) = counters(cpu) else { return };
    let number = get!(counters.rounds) + 1;
    let round = Round { vcpu, state, number, outline, exit_ns, deadline_tsc, previous_detail, pins };
    let counts_in_kernel = if ISA == ANY { slot(Slot::InKernel) == Some(1) } else { SINK == SERIES };
    if counts_in_kernel {
        return count_in_kernel::<ISA>(counters, &round);
    }
    let is_sent = send_record::<ISA>(counters, cpu, &round);
    // A wake-up per record was measured to add VM exits to the very guest that is traced.
    if is_sent && number >= get!(counters.wake_at) {
        set!(counters.wake_at = number + slot(Slot::WakeEvery).unwrap_or(1) as u64);
        wake();
    }
}

/// Closes the open round in the vCPU's state; none where no round is open.
#[inline(always)]
fn end_round(vcpu: u64) -> Option<State> {
    let mut state = likely_state(vcpu);
    if get!(state.owner) != Owner::vcpu(vcpu) || get!(state.phase) != Phase::OPEN {
        state = find_open_round(vcpu)?;
    }
    set!(state.phase = Phase::CLOSED);
    Some(state)
}

/// Forgets what was read of a vCPU that is not the vendor's structure, as kvm_exit's instruction set shows: kvm_entry could not know.
#[inline(always)]
fn forget_vendor_fields(state: State, flags: &mut Flags) {
    let kept =
        if slot(Slot::EntryHasImmediate) == Some(1) { Flags::IMMEDIATE_KNOWN | Flags::IMMEDIATE } else { Flags::NONE };
    // The parts of the host time come from KVM's and the scheduler's structures, which all vendors share.
    flags.0 &= kept.0 | Flags::PHASES.0;
    set!(state.shadow_pin_writes = 0);
    set!(state.pin_seen = 0);
    set!(state.pin_entry = 0);
    set!(state.exec_entry = 0);
    set!(state.loaded_vmcs = 0);
}

/// The exit reason; 0 where it is not known.
#[inline(always)]
fn read_reason(state: State, vcpu: u64, isa: u64, flags: &mut Flags) -> u32 {
    let (reason, is_known) = match isa {
        VMX => (read::<u32>(vcpu, Slot::VmxExitReason).unwrap_or(0), slot(Slot::VmxExitReason).is_some()),
        SVM => {
            let vmcb = read::<u64>(vcpu, Slot::SvmVmcb).unwrap_or(0);
            if vmcb != 0 && slot(Slot::SvmVmcb01).is_some() {
                *flags |= Flags::LEVEL_KNOWN;
                if vmcb != get!(state.vmcb01) {
                    *flags |= Flags::L2;
                }
            }
            let is_known = vmcb != 0 && slot(Slot::VmcbExitCode).is_some();
            (if is_known { read::<u32>(vmcb, Slot::VmcbExitCode).unwrap_or(0) } else { 0 }, is_known)
        }
        _ => (0, false),
    };
    if is_known {
        *flags |= Flags::REASON_KNOWN;
    }
    reason
}

/// The exit reason, and the level: KVM switches vmcbs only after kvm_exit. kvm_entry has taken both for known.
#[inline(always)]
fn read_svm_reason(state: State, vcpu: u64, flags: &mut Flags) -> u32 {
    let vmcb: u64 = read_known(vcpu, Slot::SvmVmcb);
    if vmcb == 0 {
        flags.0 &= !(Flags::LEVEL_KNOWN | Flags::REASON_KNOWN).0;
        return 0;
    }
    if vmcb != get!(state.vmcb01) {
        *flags |= Flags::L2;
    }
    read_known(vmcb, Slot::VmcbExitCode)
}

/// At a preemption-timer exit, what the timer was for; returns its deadline, or 0.
#[inline(always)]
fn read_timer(state: State, vcpu: u64, reason: u32, exit_ns: u64, flags: &mut Flags) -> u64 {
    if reason & 0xffff != VMX_PREEMPTION_TIMER {
        return 0;
    }
    read_soft_disabled(state, flags);
    read_deadline(vcpu, exit_ns, flags)
}

/// At a preemption-timer exit, whether the timer was soft-disabled.
#[inline(always)]
fn read_soft_disabled(state: State, flags: &mut Flags) {
    if slot(Slot::VmcsSoftDisabled).is_some()
        && let Some(soft) = read::<u8>(get!(state.loaded_vmcs), Slot::VmcsSoftDisabled)
    {
        *flags |= Flags::SOFT_KNOWN;
        if soft != 0 {
            *flags |= Flags::SOFT_DISABLED;
        }
    }
}

/// At a preemption-timer exit, the deadline that KVM armed the timer for, a host TSC: KVM cancels it only after kvm_exit. 0 for an exit
/// that KVM forced, of a soft-disabled timer, and where it cannot be read or compared.
#[inline(always)]
fn read_deadline(vcpu: u64, exit_ns: u64, flags: &mut Flags) -> u64 {
    const NONE: u64 = u64::MAX;
    if !flags.has(Flags::SOFT_KNOWN | Flags::IMMEDIATE_KNOWN)
        || flags.has(Flags::SOFT_DISABLED)
        || flags.has(Flags::IMMEDIATE)
        || slot(Slot::VmxDeadlineTsc).is_none()
    {
        return 0;
    }
    let deadline = read::<u64>(vcpu, Slot::VmxDeadlineTsc).unwrap_or(NONE);
    if deadline == NONE {
        return 0;
    }
    let Some(is_early) = clock_base().is_early(exit_ns, deadline) else { return 0 };
    *flags |= Flags::DEADLINE_READ;
    if is_early {
        *flags |= Flags::EARLY;
    }
    deadline
}

/// The control writes of a round, by the shadow and by kvm_vmcs_write.
#[inline(always)]
fn close_pin_writes(state: State, flags: &mut Flags) -> PinWrites {
    let mut pins = PinWrites::NONE;
    // A kernel without the shadow does not have the companion patch's tracepoint either.
    if slot(Slot::VmcsPin).is_none() {
        return pins;
    }
    pins.shadow = get!(state.shadow_pin_writes);
    set!(state.shadow_pin_writes = 0);
    if flags.has(Flags::PIN_READ) {
        if let Some(pin) = read::<u32>(get!(state.loaded_vmcs), Slot::VmcsPin) {
            pins.pin_exit = pin;
            pins.shadow += (pin != get!(state.pin_entry)) as u8;
            set_last_pin(state, flags.has(Flags::L2), pin);
        } else {
            flags.0 &= !(Flags::PIN_READ | Flags::SHADOW_KNOWN).0;
        }
    }
    pins.best = pins.shadow;
    let is_exact = slot(Slot::ExactWrites) == Some(1);
    if is_exact {
        pins.all = take_writes(state, flags.has(Flags::L2));
        pins.best = pins.all.of(Control::Pin);
    }
    // The tracepoint cannot know the writes before it was attached either: they are known where the shadow's are.
    if flags.has(Flags::SHADOW_KNOWN) {
        *flags |= Flags::PIN_WRITES_KNOWN;
        if is_exact {
            *flags |= Flags::WRITES_EXACT;
        }
    }
    pins
}

/// The writes that kvm_vmcs_write has counted for a level's VMCS, which then has none.
#[inline(always)]
fn take_writes(state: State, is_l2: bool) -> Writes {
    if is_l2 {
        let writes = get!(state.writes[1]);
        set!(state.writes[1] = Writes(0));
        writes
    } else {
        let writes = get!(state.writes[0]);
        set!(state.writes[0] = Writes(0));
        writes
    }
}

/// Counts the round in its series, unless it is dropped or the vCPU's state was evicted.
#[inline(always)]
fn count_in_kernel<const ISA: u64>(counters: Shared<Counters>, round: &Round) {
    let &Round { state, vcpu, outline, exit_ns, .. } = round;
    let last = in_kernel_series::last(state);
    let times = Times { previous_exit_ns: get!(state.exit_ns), entry_ns: get!(state.entry_ns), exit_ns };
    set!(state.exit_ns = exit_ns);
    set!(state.previous = outline);
    if is_evicted(counters, round) {
        return;
    }
    set!(counters.rounds = round.number);
    if !in_kernel_series::count::<ISA>(state, vcpu, last, outline, times) {
        count_rare!(dropped);
    }
}

/// Writes the record of the round; false where it is dropped, or the vCPU's state was evicted.
#[inline(always)]
fn send_record<const ISA: u64>(counters: Shared<Counters>, cpu: u64, round: &Round) -> bool {
    let &Round { state, outline, exit_ns, .. } = round;
    let place = place_of_record(counters, cpu, round.number);
    let (previous, previous_exit_ns) = (get!(state.previous), get!(state.exit_ns));
    set!(state.previous = outline);
    set!(state.exit_ns = exit_ns);
    let Some(place) = place else {
        set!(counters.rounds = round.number);
        increment!(counters.dropped);
        return false;
    };
    set!(place.record.detailed.short.previous = previous);
    set!(place.record.detailed.short.previous_exit_ns = previous_exit_ns);
    set!(place.record.detailed.short.outline = outline);
    set!(place.record.detailed.short.exit_ns = exit_ns);
    set!(place.record.detailed.short.entry_ns = get!(state.entry_ns));
    set!(place.record.detailed.short.kvm = get!(state.kvm));
    set!(place.record.detailed.short.who = get!(state.who));
    // Only where there is one: a store less for all other exits.
    if round.deadline_tsc != 0 {
        set!(place.record.detailed.short.deadline_tsc = round.deadline_tsc);
    }
    // Opaque, or it would be tested without parts of host time, too.
    if slot(Slot::Phases) == Some(1) && Outline(opaque(outline.0)).flags().has(Flags::PHASES) {
        write_phases(state, place);
    }
    if ISA == ANY && (slot(Slot::Detail) == Some(1) || slot(Slot::Extras) == Some(1)) {
        set!(place.record.detailed.previous_detail = round.previous_detail);
    }
    if ISA == ANY && slot(Slot::Extras) == Some(1) {
        write_extras(place, cpu, round);
        if slot(Slot::GuestR8).is_some() {
            write_stamps(place, round);
        }
    }
    if is_evicted(counters, round) {
        return false;
    }
    set!(counters.rounds = round.number);
    barrier();
    // Last, because it says that the record is complete.
    set!(place.record.detailed.short.seq = round.number);
    true
}

/// Writes the parts of the host time. Out of line, because most exits have none.
#[inline(never)]
fn write_phases(state: State, place: Shared<StampedRecord>) {
    let phases = host_time::phases(state, get!(place.record.detailed.short.previous_exit_ns));
    set!(place.record.detailed.short.phases.user_ns = phases.user_ns);
    set!(place.record.detailed.short.phases.idle_ns = phases.idle_ns);
    set!(place.record.detailed.short.phases.polled_ns = phases.polled_ns);
    set!(place.record.detailed.short.phases.steal_ns = phases.steal_ns);
}

#[inline(always)]
fn write_extras(place: Shared<StampedRecord>, cpu: u64, round: &Round) {
    let Round { state, pins, .. } = round;
    let state = *state;
    set!(place.record.extras.writes = pins.all);
    set!(place.record.extras.transition_ns = get!(state.transition_ns));
    set!(place.record.extras.shadow_pin_writes = pins.shadow.into());
    set!(place.record.extras.tid = bpf_get_current_pid_tgid() as u32);
    set!(place.record.extras.cpu = cpu as u32);
    set!(place.record.extras.pin_entry = get!(state.pin_entry));
    set!(place.record.extras.pin_exit = pins.pin_exit);
}

/// Writes the stamps that the calibration guest left in its registers.
#[inline(always)]
fn write_stamps(place: Shared<StampedRecord>, round: &Round) {
    let &Round { state, vcpu, .. } = round;
    let [entry_tsc, exit_tsc, number, mark] = probe(vcpu, Slot::GuestR8).unwrap_or([0; 4]);
    set!(place.entry_tsc = entry_tsc);
    set!(place.exit_tsc = exit_tsc);
    set!(place.number = number);
    set!(place.mark = mark);
    set!(place.exec_entry = get!(state.exec_entry));
    set!(place.exec_exit = read(get!(state.loaded_vmcs), Slot::VmcsExec).unwrap_or(0));
}

/// Whether the state was evicted in the meantime (see `states.rs`): then this exit is unmatched, and the fields read from it are void.
#[inline(always)]
fn is_evicted(counters: Shared<Counters>, round: &Round) -> bool {
    let &Round { state, vcpu, .. } = round;
    barrier();
    let is_evicted = get!(state.owner) != Owner::vcpu(vcpu);
    if is_evicted {
        increment!(counters.unmatched_exits);
    }
    is_evicted
}

/// The place of a round's record in this CPU's ring; none where the ring is full.
#[inline(always)]
fn place_of_record(counters: Shared<Counters>, cpu: u64, round: u64) -> Option<Shared<StampedRecord>> {
    let records = slot(Slot::RingRecords).unwrap_or(1) as u64;
    let number = round - 1 - get!(counters.dropped);
    if number >= get!(counters.room) {
        let room = taken(cpu) + records;
        set!(counters.room = room);
        if number >= room {
            return None;
        }
    }
    Some(record(times(cpu, records) + (number & (records - 1))))
}

/// Wakes user space, unless it has many wake-ups to look at already. Out of line, because it is rare.
#[inline(never)]
fn wake() {
    if let Some(mut wish) = WAKE.reserve_untyped::<u32>(0) {
        wish.write(cpu() as u32);
        wish.submit(BPF_RB_FORCE_WAKEUP.into());
    }
}

/// kvm_guest_time(vcpu, total, guest), of the companion patch's stopwatch: between the VM-exit and kvm_exit.
#[raw_tracepoint(tracepoint = "kvm_guest_time")]
pub fn kvm_guest_time(ctx: RawTracePointContext) -> i32 {
    if let Some(factor) = slot(Slot::TscToNs)
        && let Some(state) = states::find(ctx.arg(0))
        && get!(state.phase) == Phase::OPEN
    {
        if let Some(ns) = transition_ns(ctx.arg(1), ctx.arg(2), factor as u32) {
            set!(state.transition_ns = ns);
            set!(state.flags = get!(state.flags) | Flags::TRANSITION_KNOWN);
        } else {
            count_rare!(stopwatch_excesses);
        }
    }
    0
}

/// kvm_vmcs_write(vcpu, field, old_val, new_val, vmcs02), of the companion patch: one call per VMWRITE to a control.
#[raw_tracepoint(tracepoint = "kvm_vmcs_write")]
pub fn kvm_vmcs_write(ctx: RawTracePointContext) -> i32 {
    let vcpu: u64 = ctx.arg(0);
    if let Some(control) = Control::from_encoding(ctx.arg::<u64>(1) as u32)
        && is_selected(vcpu)
        && let Some(state) = states::find(vcpu).or_else(|| states::make(vcpu))
    {
        let is_left_behind = read::<u64>(vcpu, Slot::StatExits) == Some(0) && get!(state.exits) > 0;
        if is_left_behind && !states::renew(state, vcpu) {
            return 0;
        }
        if ctx.arg::<u64>(4) & 0xff != 0 {
            set!(state.writes[1] = get!(state.writes[1]).plus(control));
        } else {
            set!(state.writes[0] = get!(state.writes[0]).plus(control));
        }
    }
    0
}

/// kvm_preemption_timer_exit(vcpu, cause, vmcs02), of the companion patch: a second source of the causes. Later versions of the patch
/// have a fourth argument, the TSC cycles since the deadline, signed.
#[raw_tracepoint(tracepoint = "kvm_preemption_timer_exit")]
pub fn kvm_preemption_timer_exit(ctx: RawTracePointContext) -> i32 {
    /// of the patch's `enum kvm_preemption_timer_cause`
    const DEADLINE: usize = 2;
    if is_selected(ctx.arg(0))
        && let Some(counters) = counters(cpu())
    {
        // Masked, so that the verifier knows the bound.
        let cause = ctx.arg::<u64>(1) as usize & 3;
        increment!(counters.traced_timer_exits[cause]);
        // Where the tracepoint has no fourth argument, a program that reads it cannot be attached.
        if cause == DEADLINE
            && slot(Slot::TimerExitHasLate) == Some(1)
            && (ctx.arg::<u64>(3) as i64).saturating_neg() > clock_base().margin as i64
        {
            increment!(counters.traced_early_exits);
        }
    }
    0
}

/// Programs on VMWRITE sites in kvm_intel's code, one for each site, because a program cannot know which of its probes called it.
macro_rules! write_sites {
    ($($name:ident = $index:literal),+ $(,)?) => {
        $(
            #[kprobe]
            pub fn $name(_ctx: ProbeContext) -> u32 {
                count_site($index);
                0
            }
        )+
        const _: () = assert!([$($index),+].len() == MAX_SITES);
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
fn count_site(site: u32) {
    if slot(Slot::Filter).is_some_and(|filter| filter & FILTER_TGIDS == 0 || is_selected_tgid())
        && let Some(count) = SITES.get_ptr_mut(site)
    {
        // SAFETY: the map is per CPU, and no VMWRITE site lies in code that interrupts another one, so that nobody else writes this value.
        unsafe { *count += 1 };
    }
}

/// Whether the filters, if any, let this vCPU through. False without a loader.
#[inline(always)]
fn is_selected(vcpu: u64) -> bool {
    slot(Slot::Filter).is_some_and(|filter| filter == 0 || passes(vcpu))
}

/// Whether the filters let this vCPU through. Out of line, so that a program without filters has nothing of them.
#[inline(never)]
fn passes(vcpu: u64) -> bool {
    let filter = slot(Slot::Filter).unwrap_or(0);
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

/// For the verifier: bpf_probe_read_kernel and the ring buffer's helpers are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
