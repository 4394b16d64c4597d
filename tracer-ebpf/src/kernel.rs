//! Reads of kernel memory at offsets that the loader resolved.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use tracer_common::{Config, Slot, config::ABSENT};

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

/// Reads the field at `base` plus the slot's offset; none where the slot is absent or the read faults.
#[inline(always)]
pub fn read<T>(base: u64, field: Slot) -> Option<T> {
    let offset = slot(field)?;
    let at = base.wrapping_add(offset as i64 as u64);
    // SAFETY: the helper checks the address itself and copies.
    unsafe { bpf_probe_read_kernel(at as *const T) }.ok()
}
