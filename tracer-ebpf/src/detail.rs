//! What an exit was about beyond its reason: from registers and statistics, and from fields of the VMCS that KVM has read while it handled
//! the exit.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use tracer_common::{
    Isa, Slot,
    detail::{Outcome, RawDetail, Source},
};

use crate::{
    host_time::state_of,
    kernel::{current_task, read, read_at, read_bit, slot},
    shared::{get, set},
    states::State,
};

/// Indexes of `kvm_vcpu.arch.regs` (`enum kvm_reg`).
const RAX: u64 = 0;
const RCX: u64 = 1;

/// At kvm_exit: the detail of the exit, or the source alone of one that KVM reads later; returns that of the previous exit.
#[inline(always)]
pub fn begin(state: State, vcpu: u64, isa: u64, reason: u32, is_known: bool) -> RawDetail {
    if slot(Slot::Detail) != Some(1) {
        return RawDetail::NONE;
    }
    let previous = get!(state.detail);
    let isa = if isa == Isa::Vmx as u64 { Isa::Vmx } else { Isa::Svm };
    // Nothing is known of a vCPU that another layout describes.
    set!(state.detail = if is_known { of_exit(state, vcpu, isa, reason) } else { RawDetail::NONE });
    previous
}

#[inline(always)]
fn of_exit(state: State, vcpu: u64, isa: Isa, reason: u32) -> RawDetail {
    let source = Source::of_exit(isa, reason);
    let value = match source {
        Source::None => return RawDetail::NONE,
        Source::Msr => register(vcpu, RCX).map(low),
        Source::Cpuid => match (register(vcpu, RAX), register(vcpu, RCX)) {
            (Some(leaf), Some(subleaf)) => Some(low(leaf) | (subleaf & 0xff_ffff) << 32),
            _ => None,
        },
        Source::Hypercall => {
            if read::<u64>(get!(state.kvm), Slot::HypervGuest).unwrap_or(0) != 0 {
                let code = register(vcpu, RCX).unwrap_or(0) & 0xffff;
                return RawDetail::new(Source::HypervCall, code);
            }
            register(vcpu, RAX).map(low)
        }
        Source::ExitInfo => exit_info(vcpu),
        Source::MsrWithDirection => match (register(vcpu, RCX), exit_info(vcpu)) {
            (Some(msr), Some(info)) => Some(low(msr) | (info & 1) << 32),
            _ => None,
        },
        Source::Fault => {
            set!(state.outcomes = outcomes(vcpu));
            match isa {
                Isa::Svm => exit_info(vcpu).map(low),
                _ => Some(0),
            }
        }
        _ => Some(0),
    };
    match value {
        Some(value) => RawDetail::new(source, value),
        None => RawDetail::NONE,
    }
}

/// At kvm_entry: completes the detail of the exit that KVM has handled. A field that KVM did not read for this exit holds the value of
/// another one: it is not used.
#[inline(always)]
pub fn complete(state: State, vcpu: u64) {
    if slot(Slot::Detail) != Some(1) {
        return;
    }
    let detail = get!(state.detail);
    if detail.is_from(Source::Qualification) {
        set!(state.detail = late(Source::Qualification, qualification(vcpu)));
    } else if detail.is_from(Source::Interruption) {
        let is_read = read_bit(vcpu, Slot::InterruptionRead) == Some(true);
        let word = if is_read { read::<u32>(vcpu, Slot::VmxInterruption) } else { None };
        set!(state.detail = late(Source::Interruption, word.map(u64::from)));
    } else if detail.is_from(Source::Fault) {
        let ended = outcome(get!(state.outcomes), outcomes(vcpu));
        // On SVM, kvm_exit has read it.
        let is_late = slot(Slot::VmxQualification).is_some();
        let access = if is_late { qualification(vcpu).map(low) } else { Some(low(detail.value())) };
        set!(state.detail = late(Source::Fault, access.map(|access| access | u64::from(ended.0) << 32)));
    }
}

#[inline(always)]
fn late(source: Source, value: Option<u64>) -> RawDetail {
    match value {
        Some(value) => RawDetail::new(source, value),
        None => RawDetail::NONE,
    }
}

/// The exit qualification (VMX); none where KVM did not read it for this exit.
#[inline(always)]
fn qualification(vcpu: u64) -> Option<u64> {
    if read_bit(vcpu, Slot::QualificationRead) != Some(true) {
        return None;
    }
    read::<u64>(vcpu, Slot::VmxQualification)
}

#[inline(always)]
fn exit_info(vcpu: u64) -> Option<u64> {
    slot(Slot::VmcbExitInfo1)?;
    let vmcb = read::<u64>(vcpu, Slot::SvmVmcb).unwrap_or(0);
    if vmcb == 0 { None } else { read::<u64>(vmcb, Slot::VmcbExitInfo1) }
}

/// One of the guest's registers.
#[inline(always)]
fn register(vcpu: u64, index: u64) -> Option<u64> {
    let at = slot(Slot::GuestRegs)? as u64;
    read_at(vcpu.wrapping_add(at).wrapping_add(index * 8))
}

#[inline(always)]
fn low(word: u64) -> u64 {
    word & 0xffff_ffff
}

/// Counts of faults by outcome, 16 bits each: enough to see that one grew.
#[inline(always)]
fn outcomes(vcpu: u64) -> u64 {
    let count = |field| read::<u64>(vcpu, field).unwrap_or(0) & 0xffff;
    count(Slot::FaultsFixed)
        | count(Slot::FaultsFast) << 16
        | count(Slot::FaultsSpurious) << 32
        | count(Slot::FaultsEmulated) << 48
}

/// The outcomes whose counts differ.
#[inline(always)]
fn outcome(before: u64, after: u64) -> Outcome {
    let differ = before ^ after;
    let bit = |lane: u32, outcome: Outcome| if differ >> (16 * lane) & 0xffff != 0 { outcome.0 } else { 0 };
    Outcome(bit(0, Outcome::FIXED) | bit(1, Outcome::FAST) | bit(2, Outcome::SPURIOUS) | bit(3, Outcome::EMULATED))
}

/// kvm_mmio(type, len, gpa, val): KVM emulates an access to memory that is none. It does not tell the vCPU.
#[raw_tracepoint(tracepoint = "kvm_mmio")]
pub fn kvm_mmio(ctx: RawTracePointContext) -> i32 {
    on_access(ctx.arg(2));
    0
}

/// kvm_fast_mmio(gpa): a write that an ioeventfd takes.
#[raw_tracepoint(tracepoint = "kvm_fast_mmio")]
pub fn kvm_fast_mmio(ctx: RawTracePointContext) -> i32 {
    on_access(ctx.arg(0));
    0
}

/// The first access of an exit is its detail.
#[inline(always)]
fn on_access(address: u64) {
    if let Some((state, _)) = state_of(current_task())
        && !get!(state.detail).is_from(Source::Address)
    {
        set!(state.detail = RawDetail::new(Source::Address, address));
    }
}
