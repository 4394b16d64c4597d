//! The kernel side: BTF and field offsets; the eBPF programs, loaded and attached; their rings and counters; the vendor's KVM module.

pub(crate) mod bpf;
pub mod btf;
mod grace_period;
pub mod in_kernel_series;
pub(crate) mod kvm_module;
pub mod layout;
pub(crate) mod links;
pub(crate) mod mmap;
pub mod options;
mod patch;
pub(crate) mod resolve;
pub(crate) mod ring;
mod series_shares;
pub mod tracer;
pub(crate) mod vmwrite_sites;
