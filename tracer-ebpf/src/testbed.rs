//! A kernel-memory playground for tests: a map value whose address is known, where a made-up vCPU can live.

#![no_std]
#![no_main]
// The program attributes make the documented functions anew, without their documentation.
#![allow(missing_docs)]

use aya_ebpf::{
    btf_maps::Array,
    macros::{btf_map, raw_tracepoint},
    programs::RawTracePointContext,
};

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

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
