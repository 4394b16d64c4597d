//! For tests: kernel memory at a known address, where simulated vCPUs are laid out. For benches: floors, programs that do only the work
//! that any such program must do.

#![no_std]
#![no_main]
#![allow(missing_docs, reason = "the program attributes repeat documented functions without their documentation")]

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_RB_NO_WAKEUP},
    btf_maps::{Array, PerCpuArray, RingBuf},
    helpers::bpf_ktime_get_ns,
    macros::{btf_map, raw_tracepoint},
    programs::RawTracePointContext,
};
use tracer_common::Record;

/// Bytes of ARENA.
const SIZE: usize = 32768;

#[btf_map]
static ARENA: Array<[u8; SIZE], 1> = Array::new();

/// Bytes of CROWD: enough cache lines that one set of states has more of them than places.
const CROWD_SIZE: usize = 3 << 20;

#[btf_map]
static CROWD: Array<[u8; CROWD_SIZE], 1, { BPF_F_MMAPABLE as usize }> = Array::new();

#[btf_map]
static ADDRESS: Array<u64, 2> = Array::new();

/// Writes the addresses of the values of ARENA and CROWD into ADDRESS.
#[raw_tracepoint(tracepoint = "kvm_entry")]
pub fn locate(_ctx: RawTracePointContext) -> i32 {
    if let Some(arena) = ARENA.get_ptr(0) {
        let _ = ADDRESS.set(0, arena as u64, 0);
    }
    if let Some(crowd) = CROWD.get_ptr(0) {
        let _ = ADDRESS.set(1, crowd as u64, 0);
    }
    0
}

/// Bytes of the ring buffer: room for the records of a bench between two drains.
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

/// Reads the clock and stores the time.
#[raw_tracepoint(tracepoint = "kvm_entry")]
pub fn floor_clock(_ctx: RawTracePointContext) -> i32 {
    keep(now());
    0
}

/// Writes a record as long as a short one into a ring buffer.
#[raw_tracepoint(tracepoint = "kvm_exit")]
pub fn floor_ring(_ctx: RawTracePointContext) -> i32 {
    send(0);
    0
}

/// Reads the clock and writes a record with the time.
#[raw_tracepoint(tracepoint = "kvm_exit")]
pub fn floor_clock_ring(_ctx: RawTracePointContext) -> i32 {
    let now = now();
    keep(now);
    send(now);
    0
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper takes no argument and cannot fail.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn keep(now: u64) {
    if let Some(clock) = FLOOR_CLOCK.get_ptr_mut(0) {
        // SAFETY: the map is per CPU, and programs of one CPU run one after the other, so that nobody else writes this value.
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
