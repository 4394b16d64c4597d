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
    host_time::Phases,
    rules::{Control, Writes, pin_writes, transition_ns},
    state::{Owner, Phase},
};

use crate::{
    in_kernel_series::{Identity, Times},
    kernel::{barrier, cpu, now_ns, probe, read, slot, times},
    maps::{SITES, TGIDS, VCPU_IDS, WAKE, clock_base, count_rare, counters, record, taken},
    shared::{Shared, get, increment, set},
    states::{State, adopt_state, find_open_round, likely_state},
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

/// kvm_entry(vcpu), or on newer kernels kvm_entry(vcpu, force_immediate_exit).
#[raw_tracepoint(tracepoint = "kvm_entry")]
pub fn kvm_entry(ctx: RawTracePointContext) -> i32 {
    let vcpu: u64 = ctx.arg(0);
    let mut flags = Flags::NONE;
    // Where the tracepoint has no second argument, a program that reads it cannot be attached.
    if slot(Slot::EntryHasImmediate) == Some(1) {
        flags |= Flags::IMMEDIATE_KNOWN;
        if ctx.arg::<u64>(1) & 0xff != 0 {
            flags |= Flags::IMMEDIATE;
        }
    } else if let Some(immediate) = read::<u8>(vcpu, Slot::VmxReqImmediate) {
        flags |= Flags::IMMEDIATE_KNOWN;
        if immediate != 0 {
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
    let Some(state) = begin_round(ctx, vcpu) else { return };
    // 0 where there is none. Not an `Option`: the compiler would move its undefined part around, which the verifier refuses.
    let vmcs = read::<u64>(vcpu, Slot::VmxLoadedVmcs).unwrap_or(0);
    read_level(vcpu, vmcs, &mut flags);
    read_pin_at_entry(state, vmcs, &mut flags);
    if slot(Slot::GuestR8).is_some() {
        set!(state.exec_entry = if vmcs == 0 { 0 } else { read(vmcs, Slot::VmcsExec).unwrap_or(0) });
    }
    if slot(Slot::VmxLoadedVmcs).is_some() {
        set!(state.loaded_vmcs = vmcs);
    }
    detail::complete(state, vcpu);
    host_time::close(state, vcpu, &mut flags);
    set!(state.flags = flags);
    set!(state.entry_ns = now_ns());
}

/// Opens a round in the vCPU's state; none for a vCPU that is not traced.
#[inline(always)]
fn begin_round(ctx: &RawTracePointContext, vcpu: u64) -> Option<State> {
    let exits = read::<u64>(vcpu, Slot::StatExits).unwrap_or(0);
    let ran_before = slot(Slot::StatExits).is_none() || exits > 0;
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

/// Whether the entry is into L1 or L2: by the current VMCS, or else by KVM's statistics.
#[inline(always)]
fn read_level(vcpu: u64, vmcs: u64, flags: &mut Flags) {
    if vmcs != 0
        && let Some(vmcs01) = slot(Slot::VmxVmcs01)
    {
        *flags |= Flags::LEVEL_KNOWN;
        if vmcs != vcpu.wrapping_add(vmcs01 as u64) {
            *flags |= Flags::L2;
        }
    } else if let Some(mode) = read::<u64>(vcpu, Slot::StatGuestMode) {
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
    previous: Outline,
    previous_detail: RawDetail,
    /// 0 where it was not seen
    previous_exit_ns: u64,
    phases: Phases,
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
fn on_exit(vcpu: u64, isa: u64) {
    let exit_ns = now_ns();
    if !is_selected(vcpu) {
        return;
    }
    let Some(state) = end_round(vcpu) else { return };
    let mut flags = get!(state.flags);
    let (reason, deadline_tsc, pins) = if slot(Slot::LayoutIsa).is_some_and(|own| isa != own as u64) {
        forget_vendor_fields(state, &mut flags);
        (0, 0, PinWrites::NONE)
    } else {
        let reason = read_reason(vcpu, isa, &mut flags);
        let mut deadline_tsc = 0;
        if isa == VMX && reason & 0xffff == VMX_PREEMPTION_TIMER {
            read_soft_disabled(state, &mut flags);
            deadline_tsc = read_deadline(vcpu, exit_ns, &mut flags);
        }
        (reason, deadline_tsc, close_pin_writes(state, &mut flags))
    };
    let outline = Outline::of(reason, flags, pins.best, isa as u8);
    let phases = host_time::take(state, flags, isa, exit_ns);
    let previous_detail = detail::begin(state, vcpu, isa, reason, flags.has(Flags::REASON_KNOWN));
    let (previous, previous_exit_ns) = (get!(state.previous), get!(state.exit_ns));
    set!(state.previous = outline);
    set!(state.exit_ns = exit_ns);

    let cpu = cpu();
    let Some(counters) = counters(cpu) else { return };
    let number = get!(counters.rounds) + 1;
    let round = Round {
        vcpu,
        state,
        number,
        outline,
        exit_ns,
        deadline_tsc,
        previous,
        previous_detail,
        previous_exit_ns,
        phases,
        pins,
    };
    let is_kept = if slot(Slot::InKernel) == Some(1) {
        count_in_kernel(counters, &round)
    } else {
        send_record(counters, cpu, &round)
    };
    // A wake-up per record was measured to add VM exits to the very guest that is traced.
    if is_kept && number >= get!(counters.wake_at) {
        set!(counters.wake_at = number + slot(Slot::WakeEvery).unwrap_or(1) as u64);
        wake(cpu);
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
fn read_reason(vcpu: u64, isa: u64, flags: &mut Flags) -> u32 {
    let (reason, is_known) = match isa {
        VMX => (read::<u32>(vcpu, Slot::VmxExitReason).unwrap_or(0), slot(Slot::VmxExitReason).is_some()),
        SVM => {
            let vmcb = read::<u64>(vcpu, Slot::SvmVmcb).unwrap_or(0);
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

/// Counts the round in its series; false where it is dropped, or the vCPU's state was evicted.
#[inline(always)]
fn count_in_kernel(counters: Shared<Counters>, round: &Round) -> bool {
    let &Round { state, previous_exit_ns, exit_ns, .. } = round;
    let identity = Identity { kvm: get!(state.kvm), who: get!(state.who) };
    let times = Times { previous_exit_ns, entry_ns: get!(state.entry_ns), exit_ns, phases: round.phases };
    if is_evicted(counters, round) {
        return false;
    }
    set!(counters.rounds = round.number);
    let is_kept = in_kernel_series::count(state, identity, round.outline, times);
    if !is_kept {
        increment!(counters.dropped);
    }
    is_kept
}

/// Writes the record of the round; false where it is dropped, or the vCPU's state was evicted.
#[inline(always)]
fn send_record(counters: Shared<Counters>, cpu: u64, round: &Round) -> bool {
    let Some(place) = place_of_record(counters, cpu, round.number) else {
        set!(counters.rounds = round.number);
        increment!(counters.dropped);
        return false;
    };
    let state = round.state;
    set!(place.record.detailed.short.entry_ns = get!(state.entry_ns));
    set!(place.record.detailed.short.exit_ns = round.exit_ns);
    set!(place.record.detailed.short.previous_exit_ns = round.previous_exit_ns);
    set!(place.record.detailed.short.kvm = get!(state.kvm));
    set!(place.record.detailed.short.who = get!(state.who));
    set!(place.record.detailed.short.outline = round.outline);
    set!(place.record.detailed.short.previous = round.previous);
    // Only where there is one: a store less for all other exits.
    if round.deadline_tsc != 0 {
        set!(place.record.detailed.short.deadline_tsc = round.deadline_tsc);
    }
    if slot(Slot::Phases) == Some(1) && round.outline.flags().has(Flags::PHASES) {
        set!(place.record.detailed.short.phases.user_ns = round.phases.user_ns);
        set!(place.record.detailed.short.phases.idle_ns = round.phases.idle_ns);
        set!(place.record.detailed.short.phases.polled_ns = round.phases.polled_ns);
        set!(place.record.detailed.short.phases.steal_ns = round.phases.steal_ns);
    }
    if slot(Slot::Detail) == Some(1) || slot(Slot::Extras) == Some(1) {
        set!(place.record.detailed.previous_detail = round.previous_detail);
    }
    if slot(Slot::Extras) == Some(1) {
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

/// Wakes user space, unless it has many wake-ups to look at already.
#[inline(always)]
fn wake(cpu: u64) {
    if let Some(mut wish) = WAKE.reserve_untyped::<u32>(0) {
        wish.write(cpu as u32);
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

/// For the verifier: bpf_probe_read_kernel and the ring buffer's helpers are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
