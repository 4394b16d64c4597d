//! Rare diagnostics through aya-log, in the object built with feature `log` only: they need a map with a legacy definition, which libbpf
//! refuses.

use core::ffi::c_void;

#[cfg(feature = "log")]
use aya_ebpf::programs::RawTracePointContext;

/// Reports that there is no place for a vCPU's state, or that the vCPU cannot be read.
#[inline(always)]
pub fn no_state(ctx: *mut c_void, vcpu: u64) {
    #[cfg(feature = "log")]
    aya_log_ebpf::warn!(
        &RawTracePointContext::new(ctx),
        "no place for the state of vcpu {:x}: this entry is not traced",
        vcpu
    );
    #[cfg(not(feature = "log"))]
    let _ = (ctx, vcpu);
}

/// Reports the first entry of a TDX guest's vCPU.
#[inline(always)]
pub fn tdx(ctx: *mut c_void, vcpu_id: u32) {
    #[cfg(feature = "log")]
    aya_log_ebpf::info!(&RawTracePointContext::new(ctx), "vcpu {} belongs to a TDX guest: not traced", vcpu_id);
    #[cfg(not(feature = "log"))]
    let _ = (ctx, vcpu_id);
}
