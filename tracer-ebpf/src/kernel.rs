//! Reads of kernel memory at offsets that the loader resolved, and other helpers in assembly.

use core::arch::asm;

use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_probe_read_kernel};
use tracer_common::{
    Slot,
    config::{CAST_HELPER, PLACE},
};

/// A constant of this type, in whose place the loader puts another one.
macro_rules! constant {
    ($type:ty, $place:expr) => {{
        let value: $type;
        // SAFETY: one instruction that loads a constant.
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

/// A slot's value, or none where it is absent: a constant, by which the verifier drops dead branches.
#[inline(always)]
pub fn slot(slot: Slot) -> Option<i64> {
    macro_rules! constants {
        ($($name:ident)+) => {
            match slot { $(Slot::$name => constant!(i64, PLACE + Slot::$name as u64),)+ }
        };
    }
    let value = constants!(
        VcpuKvm VcpuId StatExits StatGuestMode KvmVmType VmxExitReason VmxLoadedVmcs VmxVmcs01 VmxReqImmediate VmcsPin VmcsSoftDisabled SvmVmcb VmcbExitCode EntryHasImmediate ExactWrites GuestR8 VmcsExec TscToNs Filter WakeEvery RingRecords RecordBytes Details InKernel Cpus RingCpus CastType
    );
    (value >= 0).then_some(value)
}

/// Keeps the compiler from moving stores across, since user space reads while programs write. LLVM has no fence for this target, and x86
/// itself keeps the order of stores.
#[inline(always)]
pub fn barrier() {
    // SAFETY: no instruction.
    unsafe { asm!("", options(nostack, preserves_flags)) };
}

/// This CPU.
#[inline(always)]
pub fn cpu() -> u64 {
    // SAFETY: a helper without arguments.
    u64::from(unsafe { bpf_get_smp_processor_id() })
}

/// A number times a slot's value, in this order: Linux 6.1's verifier knows nothing of a product whose second factor is not a
/// constant, and the compiler takes them as it likes.
#[inline(always)]
pub fn times(mut number: u64, constant: u64) -> u64 {
    // SAFETY: one instruction that multiplies.
    unsafe {
        asm!("{number} *= {constant}", number = inout(reg) number, constant = in(reg) constant, options(pure, nomem, nostack, preserves_flags))
    };
    number
}

/// A value of which the compiler knows no more than where it comes from: what is made of it is made here, after all before. The verifier
/// follows every path through a histogram's bucket, and two of them together are too many.
#[inline(always)]
pub fn from_here(mut value: u64) -> u64 {
    // SAFETY: no instruction.
    unsafe { asm!("", inout("r0") value, options(nostack, preserves_flags)) };
    value
}

/// Reads the field at `base` plus the slot's offset, an integer; none where the slot is absent or, as far as that is noticed, the read
/// faults: [`Slot::CastType`].
#[inline(always)]
pub fn read<T: Copy>(base: u64, field: Slot) -> Option<T> {
    let Some(structure) = slot(Slot::CastType) else { return probe(base, field) };
    let at = base.wrapping_add(slot(field)? as u64);
    // SAFETY: the loader replaced the call by one of bpf_rdonly_cast(address, BTF id), or the branch is dead.
    let cast: unsafe extern "C" fn(u64, u64) -> *const T = unsafe { core::mem::transmute(CAST_HELPER as usize) };
    // SAFETY: the verifier allows the load, since the structure begins with 8 bytes of integer, and makes it one that may fault.
    Some(unsafe { cast(at, structure as u64).read_volatile() })
}

/// As [`read`], through a helper that notices every fault, at ten times the price.
#[inline(always)]
pub fn probe<T>(base: u64, field: Slot) -> Option<T> {
    let at = base.wrapping_add(slot(field)? as u64);
    // SAFETY: the helper checks the address itself and copies.
    unsafe { bpf_probe_read_kernel(at as *const T) }.ok()
}
