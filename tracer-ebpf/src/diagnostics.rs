//! Rare diagnostics through aya-log, in the object built with feature `log` only: they need a map with a legacy definition, which libbpf
//! refuses.

use core::ffi::c_void;

#[cfg(feature = "log")]
use aya_ebpf::{helpers::bpf_get_current_pid_tgid, programs::RawTracePointContext};
#[cfg(feature = "log")]
use tracer_common::Slot;

/// Reports that there is no place for a vCPU's state, or that the vCPU cannot be read. Names the vCPU by its number and process: kernel
/// addresses are for nobody who reads the journal.
#[inline(always)]
pub fn no_state(ctx: *mut c_void, vcpu: u64) {
    #[cfg(feature = "log")]
    aya_log_ebpf::warn!(
        &RawTracePointContext::new(ctx),
        "no place for the state of vcpu {} of process {}: this entry is not traced",
        crate::kernel::read::<u32>(vcpu, Slot::VcpuId).unwrap_or(u32::MAX),
        bpf_get_current_pid_tgid() >> 32
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
