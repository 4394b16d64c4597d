//! Rare diagnostics through aya-log, in the object built with feature `log` only. They need a map that libbpf refuses
//! (legacy definition), so the standard object has none.

use core::ffi::c_void;

#[cfg(feature = "log")]
use aya_ebpf::programs::RawTracePointContext;

/// No room for a vCPU's state.
#[inline(always)]
pub fn no_state(ctx: *mut c_void, vcpu: u64) {
    #[cfg(feature = "log")]
    aya_log_ebpf::warn!(
        &RawTracePointContext::new(ctx),
        "no room for the state of vcpu {:x}: its entries are not traced",
        vcpu
    );
    #[cfg(not(feature = "log"))]
    let _ = (ctx, vcpu);
}

/// A TDX guest's vCPU was met.
#[inline(always)]
pub fn tdx(ctx: *mut c_void, vcpu_id: u32) {
    #[cfg(feature = "log")]
    aya_log_ebpf::info!(&RawTracePointContext::new(ctx), "vcpu {} belongs to a TDX guest: left out", vcpu_id);
    #[cfg(not(feature = "log"))]
    let _ = (ctx, vcpu_id);
}
