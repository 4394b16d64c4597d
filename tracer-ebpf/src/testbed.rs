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
use tracer_common::Event;

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
    if let Some(mut record) = FLOOR_RING.reserve_untyped::<Event>(0) {
        record.write(Event { entry_ns: now, exit_ns: now, seq: 1, ..EMPTY });
        record.submit(BPF_RB_NO_WAKEUP.into());
    }
}

/// What the records hold besides.
const EMPTY: Event = Event {
    entry_ns: 0,
    exit_ns: 0,
    exit_to_entry_ns: 0,
    kvm: 0,
    seq: 0,
    exit_reason: 0,
    tgid: 0,
    tid: 0,
    vcpu: 0,
    pin_entry: 0,
    pin_exit: 0,
    cpu: 0,
    flags: tracer_common::Flags::NONE,
    isa: 0,
    pin_writes: 0,
    previous: tracer_common::Outline { exit_reason: 0, flags: tracer_common::Flags::NONE, pin_writes: 0, isa: 0 },
    writes: tracer_common::rules::Writes(0),
    transition_ns: 0,
    shadow_pin_writes: 0,
};

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
