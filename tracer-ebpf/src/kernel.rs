//! Patched constants, helpers, and reads of kernel memory at the offsets that the loader resolved.

use core::arch::asm;

use aya_ebpf::helpers::{bpf_get_current_task, bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_probe_read_kernel};
use tracer_common::{
    Slot,
    config::{CAST_HELPER, PLACE},
};

/// A constant of this type, for which the loader patches another one in.
macro_rules! constant {
    ($type:ty, $place:expr) => {{
        let value: $type;
        // SAFETY: one instruction that loads a constant into the register named.
        unsafe {
            core::arch::asm!(
                "{value} = {place} ll",
                value = out(reg) value,
                place = const $place,
                options(nomem, nostack, preserves_flags)
            )
        };
        value
    }};
}
pub(crate) use constant;

/// A slot's value; none where it is absent. A constant, so that the verifier removes dead branches.
#[inline(always)]
pub fn slot(slot: Slot) -> Option<i64> {
    let value = raw(slot);
    (value >= 0).then_some(value)
}

/// A slot's value, for programs that are loaded only where it is present: without the copies of values that the compiler makes for the
/// dead branch.
#[inline(always)]
pub fn known(slot: Slot) -> u64 {
    raw(slot) as u64
}

#[inline(always)]
fn raw(slot: Slot) -> i64 {
    macro_rules! constants {
        ($($name:ident)+) => {
            match slot { $(Slot::$name => constant!(i64, PLACE + Slot::$name as u64),)+ }
        };
    }
    constants!(
        LayoutIsa VcpuKvm VcpuId StatExits StatGuestMode KvmVmType VmxExitReason VmxLoadedVmcs VmxVmcs01 VmxReqImmediate VmcsPin VmcsSoftDisabled VmxDeadlineTsc SvmVmcb SvmVmcb01 VmcbExitCode VmcbExitInfo1 Phases HaltPollSuccess HaltPollFail HaltWait RunDelay RunCount Detail GuestRegs QualificationRead InterruptionRead VmxQualification VmxInterruption FaultsFixed FaultsFast FaultsSpurious FaultsEmulated HypervGuest EntryHasImmediate TimerExitHasLate ExactWrites GuestR8 VmcsExec TscToNs Filter WakeEvery RingRecords RecordBytes Extras InKernel Cpus CastType
    )
}

/// Keeps the compiler from moving stores across, because user space and other CPUs read while programs write. LLVM has no fence for this
/// target; x86 itself keeps stores in order.
#[inline(always)]
pub fn barrier() {
    // SAFETY: no instruction at all.
    unsafe { asm!("", options(nostack, preserves_flags)) };
}

/// Number of this CPU.
#[inline(always)]
pub fn cpu() -> u64 {
    // SAFETY: the helper takes no argument and cannot fail.
    u64::from(unsafe { bpf_get_smp_processor_id() })
}

/// CLOCK_MONOTONIC, ns.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: the helper takes no argument and cannot fail.
    unsafe { bpf_ktime_get_ns() }
}

/// Address of the current thread's `task_struct`.
#[inline(always)]
pub fn current_task() -> u64 {
    // SAFETY: the helper takes no argument and cannot fail.
    unsafe { bpf_get_current_task() }
}

/// The product of a number and a slot's value, in this order: Linux 6.1's verifier derives no bound for a product whose second factor is
/// not a constant, and the compiler would swap the factors.
#[inline(always)]
pub fn times(mut number: u64, constant: u64) -> u64 {
    // SAFETY: one instruction, which multiplies the two registers named.
    unsafe {
        asm!("{number} *= {constant}", number = inout(reg) number, constant = in(reg) constant, options(pure, nomem, nostack, preserves_flags))
    };
    number
}

/// The value itself, of whose origin the compiler then knows nothing: it computes the value before this point, and everything that depends
/// on it after. The verifier follows each path through [`bucket`](tracer_common::in_kernel_series::bucket), and interleaving two of them
/// multiplies the paths.
#[inline(always)]
pub fn opaque(mut value: u64) -> u64 {
    // SAFETY: no instruction at all.
    unsafe { asm!("", inout("r0") value, options(nostack, preserves_flags)) };
    value
}

/// As [`opaque`], in a register that calls keep. A named one: with text for any register, the assembler writes line information of no
/// instruction, which the kernel refuses.
#[inline(always)]
pub fn settled(mut value: u64) -> u64 {
    // SAFETY: no instruction at all.
    unsafe { asm!("", inout("r9") value, options(nostack, preserves_flags)) };
    value
}

/// The next step of a loop, which the compiler cannot predict: it would unroll the loop wherever it is inlined.
#[inline(always)]
pub fn unpredictable(mut step: u64) -> u64 {
    // SAFETY: no instruction at all.
    unsafe { asm!("", inout("r0") step, options(pure, nomem, nostack, preserves_flags)) };
    step
}

/// Reads the integer field at `base` plus the slot's offset. None where the slot is absent or the read faults; with
/// [`Slot::CastType`], a read that faults returns 0 instead.
#[inline(always)]
pub fn read<T: Copy>(base: u64, field: Slot) -> Option<T> {
    let offset = slot(field)? as u64;
    // The helper's address is computed apart: one that both ways have in common takes an instruction more.
    let Some(structure) = slot(Slot::CastType) else { return probe(base, field) };
    Some(load(base.wrapping_add(offset), structure as u64))
}

/// As [`read`], for programs that are loaded only where the slot and [`Slot::CastType`] are present.
#[inline(always)]
pub fn read_known<T: Copy>(base: u64, field: Slot) -> T {
    load(base.wrapping_add(known(field)), known(Slot::CastType))
}

/// Reads an integer; see [`read`].
#[inline(always)]
pub fn read_at<T: Copy>(at: u64) -> Option<T> {
    let Some(structure) = slot(Slot::CastType) else { return probe_at(at) };
    Some(load(at, structure as u64))
}

/// Reads an integer through a pointer to the structure of [`Slot::CastType`].
#[inline(always)]
fn load<T: Copy>(at: u64, structure: u64) -> T {
    // SAFETY: the loader patches the call of this number into one of bpf_rdonly_cast(address, BTF id), which has this signature; where it
    // did not, CastType is absent and this line is not reached.
    let cast: unsafe extern "C" fn(u64, u64) -> *const T = unsafe { core::mem::transmute(CAST_HELPER as usize) };
    // SAFETY: the verifier allows the load, because the structure begins with 8 bytes of integer, and the kernel handles its fault.
    unsafe { cast(at, structure).read_volatile() }
}

/// Whether a bit is set, counted from the lowest one of the byte at `base`; none where the slot is absent or the read faults.
#[inline(always)]
pub fn read_bit(base: u64, bit: Slot) -> Option<bool> {
    let bit = slot(bit)? as u64;
    let byte = read_at::<u8>(base.wrapping_add(bit >> 3))?;
    Some(byte >> (bit & 7) & 1 != 0)
}

/// As [`read`], through a helper that detects every fault but takes ten times as long.
#[inline(always)]
pub fn probe<T>(base: u64, field: Slot) -> Option<T> {
    probe_at(base.wrapping_add(slot(field)? as u64))
}

#[inline(always)]
fn probe_at<T>(at: u64) -> Option<T> {
    // SAFETY: the helper checks the address and copies; any bits are a T, which is a number or an array of numbers.
    unsafe { bpf_probe_read_kernel(at as *const T) }.ok()
}
