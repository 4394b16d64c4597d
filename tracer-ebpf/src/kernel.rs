//! Reads of kernel memory at offsets that the loader resolved.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use tracer_common::{
    Config, Slot,
    config::{ABSENT, CAST_HELPER},
};

/// The loader's globals. They live in frozen read-only data: the verifier knows their values and drops dead branches.
#[unsafe(no_mangle)]
static CONFIG: Config = Config::empty();

/// A global's value, or none where it is absent.
#[inline(always)]
pub fn slot(slot: Slot) -> Option<i32> {
    // SAFETY: a valid static; volatile, because the loader changes it behind the compiler's back.
    let value = unsafe { core::ptr::read_volatile(&raw const CONFIG.0[slot as usize]) };
    (value != ABSENT).then_some(value)
}

/// Reads the field at `base` plus the slot's offset, an integer; none where the slot is absent or, as far as that is noticed, the read
/// faults: [`Slot::CastType`].
#[inline(always)]
pub fn read<T: Copy>(base: u64, field: Slot) -> Option<T> {
    let Some(structure) = slot(Slot::CastType) else { return probe(base, field) };
    let at = base.wrapping_add(slot(field)? as i64 as u64);
    // SAFETY: the loader replaced the call by one of bpf_rdonly_cast(address, BTF id), or the branch is dead.
    let cast: unsafe extern "C" fn(u64, u64) -> *const T = unsafe { core::mem::transmute(CAST_HELPER as usize) };
    // SAFETY: the verifier allows the load, since the structure begins with 8 bytes of integer, and makes it one that may fault.
    Some(unsafe { cast(at, structure as u64).read_volatile() })
}

/// As [`read`], through a helper that notices every fault, at ten times the price.
#[inline(always)]
pub fn probe<T>(base: u64, field: Slot) -> Option<T> {
    let at = base.wrapping_add(slot(field)? as i64 as u64);
    // SAFETY: the helper checks the address itself and copies.
    unsafe { bpf_probe_read_kernel(at as *const T) }.ok()
}
