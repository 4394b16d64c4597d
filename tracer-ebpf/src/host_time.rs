//! The parts of the host time: what a vCPU and its thread spent between kvm_exit and kvm_entry, by sums that KVM and the scheduler keep.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use tracer_common::{
    Flags, Isa, Slot,
    host_time::{Parts, Phases, Sums},
    state::{Owner, Phase},
};

use crate::{
    ANY,
    kernel::{current_task, now_ns, read, read_known, slot},
    maps::{VCPU_OF_TASK, count_rare},
    shared::{get, set},
    states::{self, State},
};

/// Time that no thread gives a CPU away and gets it back in, ns.
const TWO_SWITCHES_NS: u64 = 1000;

/// The sums of a vCPU and its thread now; 0 where a field is not in this kernel.
#[inline(always)]
fn sums(vcpu: u64, task: u64) -> Sums {
    let success: u64 = read(vcpu, Slot::HaltPollSuccess).unwrap_or(0);
    let fail: u64 = read(vcpu, Slot::HaltPollFail).unwrap_or(0);
    Sums {
        polled_ns: success.wrapping_add(fail),
        waited_ns: read(vcpu, Slot::HaltWait).unwrap_or(0),
        delayed_ns: read(task, Slot::RunDelay).unwrap_or(0),
    }
}

/// At kvm_entry: keeps the parts of the host time since kvm_exit for the record, unless all of it is the kernel's.
///
/// Two loads tell that it is: without a switch to the thread there was neither a wait for a CPU nor a sleep, and halt polling without a
/// sleep is polling with success. A halt that ends between the last look for work and the switch is found at the next one.
#[inline(always)]
pub fn close<const ISA: u64>(state: State, vcpu: u64, flags: &mut Flags) {
    if slot(Slot::Phases) != Some(1) {
        return;
    }
    let task = current_task();
    let may_have_parts = if ISA == ANY {
        get!(state.polled_with_success_ns) != read(vcpu, Slot::HaltPollSuccess).unwrap_or(0)
            || get!(state.returned_ns) != 0
            || get!(state.task) != task
            || if slot(Slot::RunCount).is_some() {
                get!(state.runs) != runs(task)
            } else {
                get!(state.sums.waited_ns) != read(vcpu, Slot::HaltWait).unwrap_or(0)
            }
    } else {
        get!(state.task) != task
            || get!(state.runs) != read_known::<u64>(task, Slot::RunCount)
            || get!(state.polled_with_success_ns) != read_known::<u64>(vcpu, Slot::HaltPollSuccess)
            || get!(state.returned_ns) != 0
    };
    if may_have_parts && keep_parts(state, vcpu) {
        *flags |= Flags::PHASES;
    }
}

/// How often a thread was given a CPU.
#[inline(always)]
fn runs(task: u64) -> u64 {
    read(task, Slot::RunCount).unwrap_or(0)
}

/// Keeps the parts; false where they are not known, or there are none. Out of line, because most exits need no part of it.
#[inline(never)]
fn keep_parts(state: State, vcpu: u64) -> bool {
    let task = current_task();
    let now = sums(vcpu, task);
    set!(state.polled_with_success_ns = read(vcpu, Slot::HaltPollSuccess).unwrap_or(0));
    set!(state.runs = runs(task));
    let is_same_task = get!(state.task) == task;
    let before = Sums {
        polled_ns: get!(state.sums.polled_ns),
        waited_ns: get!(state.sums.waited_ns),
        delayed_ns: get!(state.sums.delayed_ns),
    };
    set!(state.sums.polled_ns = now.polled_ns);
    set!(state.sums.waited_ns = now.waited_ns);
    set!(state.sums.delayed_ns = now.delayed_ns);
    let is_first = get!(state.exit_ns) == 0;
    if !is_same_task {
        meet(state, vcpu, task);
    }
    // KVM's statistics can be reset through debugfs.
    let is_reset =
        now.polled_ns < before.polled_ns || now.waited_ns < before.waited_ns || now.delayed_ns < before.delayed_ns;
    let returned_ns = get!(state.returned_ns);
    set!(state.returned_ns = 0);
    if is_first || !is_same_task || is_reset {
        if !is_first {
            count_rare!(inexact_phases);
        }
        return false;
    }
    let middle = if returned_ns == 0 {
        now
    } else {
        Sums {
            polled_ns: get!(state.returned.polled_ns),
            waited_ns: get!(state.returned.waited_ns),
            delayed_ns: get!(state.returned.delayed_ns),
        }
    };
    let parts = Parts::of(growth(before, middle), growth(middle, now));
    set!(state.parts.polled_ns = parts.polled_ns);
    set!(state.parts.idle_ns = parts.idle_ns);
    set!(state.parts.steal_ns = parts.steal_ns);
    set!(state.parts.after_return_ns = parts.after_return_ns);
    set!(state.parts_returned_ns = returned_ns);
    true
}

#[inline(always)]
fn growth(from: Sums, to: Sums) -> Sums {
    Sums {
        polled_ns: to.polled_ns.wrapping_sub(from.polled_ns),
        waited_ns: to.waited_ns.wrapping_sub(from.waited_ns),
        delayed_ns: to.delayed_ns.wrapping_sub(from.delayed_ns),
    }
}

/// Remembers which thread runs the vCPU.
#[inline(always)]
fn meet(state: State, vcpu: u64, task: u64) {
    // A full map gives an old thread's place away. Where it cannot, the thread is met again at the next kvm_entry.
    let is_kept = VCPU_OF_TASK.insert(task, vcpu, 0).is_ok();
    set!(state.task = if is_kept { task } else { 0 });
}

/// At kvm_exit: leaves a wait for a CPU since kvm_entry out of the next host time. On SVM, kvm_exit may come after the thread was preempted
/// (before Linux 6.2): that wait is in the guest time.
#[inline(always)]
pub fn leave_out_preemption(state: State, isa: u64, exit_ns: u64) {
    if slot(Slot::Phases) == Some(1)
        && slot(Slot::LayoutIsa) == Some(Isa::Svm as i64)
        && isa == Isa::Svm as u64
        && exit_ns.wrapping_sub(get!(state.entry_ns)) > TWO_SWITCHES_NS
    {
        note_delay(state);
    }
}

#[inline(never)]
fn note_delay(state: State) {
    let task = get!(state.task);
    let runs = runs(task);
    if get!(state.runs) != runs {
        set!(state.runs = runs);
        set!(state.sums.delayed_ns = read(task, Slot::RunDelay).unwrap_or(0));
    }
}

/// At kvm_exit: the parts of the host time before the round, which has [`Flags::PHASES`]. `previous_exit_ns` is 0 where that was not seen.
#[inline(always)]
pub fn phases(state: State, previous_exit_ns: u64) -> Phases {
    let (entry_ns, returned_ns) = (get!(state.entry_ns), get!(state.parts_returned_ns));
    let parts = Parts {
        polled_ns: get!(state.parts.polled_ns),
        idle_ns: get!(state.parts.idle_ns),
        steal_ns: get!(state.parts.steal_ns),
        after_return_ns: get!(state.parts.after_return_ns),
    };
    // The clocks of two CPUs may differ by some ns.
    let since = |ns: u64| (entry_ns.wrapping_sub(ns) as i64).max(0) as u64;
    let since_return_ns = if returned_ns == 0 { 0 } else { since(returned_ns) };
    let (phases, is_cut) = parts.within(since(previous_exit_ns), since_return_ns);
    if is_cut {
        count_rare!(inexact_phases);
    }
    phases
}

/// kvm_userspace_exit(reason, errno): KVM_RUN returns to the VMM. It does not tell the vCPU.
#[raw_tracepoint(tracepoint = "kvm_userspace_exit")]
pub fn kvm_userspace_exit(_ctx: RawTracePointContext) -> i32 {
    let task = current_task();
    if let Some((state, vcpu)) = state_of(task)
        && get!(state.returned_ns) == 0
    {
        let now = sums(vcpu, task);
        set!(state.returned.polled_ns = now.polled_ns);
        set!(state.returned.waited_ns = now.waited_ns);
        set!(state.returned.delayed_ns = now.delayed_ns);
        set!(state.returned_ns = now_ns());
    }
    0
}

/// The state of the vCPU that a thread runs, with the vCPU, between kvm_exit and kvm_entry; none for other threads, and while the guest runs.
#[inline(always)]
pub fn state_of(task: u64) -> Option<(State, u64)> {
    // Absent without a loader, which patches the address of the states in.
    slot(Slot::Filter)?;
    let vcpu = VCPU_OF_TASK.get_ptr(task)?;
    // SAFETY: a value of the map, which stays readable while this program runs; another thread's vCPU may take its place, which the checks
    // below notice.
    let vcpu = unsafe { vcpu.read_volatile() };
    let state = states::find(vcpu)?;
    let is_mine = get!(state.owner) == Owner::vcpu(vcpu) && get!(state.task) == task;
    (is_mine && get!(state.phase) == Phase::CLOSED).then_some((state, vcpu))
}
