//! The kernel side: BTF and field offsets, loading and attaching the eBPF programs, their rings and counters.

pub mod btf;
pub mod in_kernel_series;
pub mod kvm_module;
pub mod layout;
pub(crate) mod mmap;
pub mod options;
mod patch;
pub mod resolve;
pub mod ring;
pub mod tracer;
pub mod vmwrite_sites;
