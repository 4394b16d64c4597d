//! A kernel-memory playground for tests: a map value whose address is known, where a made-up vCPU can live. And floors for benches:
//! programs that do only what any such program must.

#![no_std]
#![no_main]
// The program attributes make the documented functions anew, without their documentation.
#![allow(missing_docs)]

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    btf_maps::{Array, PerCpuArray, RingBuf},
    helpers::bpf_ktime_get_ns,
    macros::{btf_map, raw_tracepoint},
    programs::RawTracePointContext,
};
use tracer_common::Record;

/// Bytes of the playground.
const SIZE: usize = 32768;

#[btf_map]
static ARENA: Array<[u8; SIZE], 1> = Array::new();

#[btf_map]
static ADDRESS: Array<u64, 1> = Array::new();

/// Writes the address of ARENA's value into ADDRESS.
#[raw_tracepoint(tracepoint = "kvm_entry")]
pub fn locate(_ctx: RawTracePointContext) -> i32 {
    if let Some(arena) = ARENA.get_ptr(0) {
        let _ = ADDRESS.set(0, arena as u64, 0);
    }
    0
}

/// Room for the records of a bench between two looks.
const RING: usize = 1 << 20;

#[btf_map]
static FLOOR_RING: RingBuf<(), RING> = RingBuf::new();

#[btf_map]
static FLOOR_CLOCK: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Does nothing.
#[raw_tracepoint(tracepoint = "kvm_entry")]
pub fn floor_empty(_ctx: RawTracePointContext) -> i32 {
    0
}

/// Reads the clock, and keeps what it read.
#[raw_tracepoint(tracepoint = "kvm_entry")]
pub fn floor_clock(_ctx: RawTracePointContext) -> i32 {
    keep(now());
    0
}

/// Writes a record of an event's size into a ring.
#[raw_tracepoint(tracepoint = "kvm_exit")]
pub fn floor_ring(_ctx: RawTracePointContext) -> i32 {
    send(0);
    0
}

/// Reads the clock, and writes a record with it.
#[raw_tracepoint(tracepoint = "kvm_exit")]
pub fn floor_clock_ring(_ctx: RawTracePointContext) -> i32 {
    let now = now();
    keep(now);
    send(now);
    0
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn keep(now: u64) {
    if let Some(clock) = FLOOR_CLOCK.get_ptr_mut(0) {
        // SAFETY: the slot is this CPU's own.
        unsafe { *clock = now };
    }
}

#[inline(always)]
fn send(now: u64) {
    if let Some(mut record) = FLOOR_RING.reserve_untyped::<[u64; Record::SHORT / 8]>(0) {
        record.write([now; Record::SHORT / 8]);
        record.submit(BPF_RB_NO_WAKEUP.into());
    }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
