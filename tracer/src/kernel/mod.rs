//! The kernel side: BTF and field offsets, loading and attaching the eBPF programs, their rings and counters.

#[path = "../btf.rs"]
pub mod btf;
#[path = "../tallies.rs"]
pub mod in_kernel_series;
#[path = "../module.rs"]
pub mod kvm_module;
#[path = "../layout.rs"]
pub mod layout;
#[path = "../mmap.rs"]
pub(crate) mod mmap;
#[path = "../probe.rs"]
pub mod resolve;
#[path = "../ring.rs"]
pub mod ring;
#[path = "../bpf.rs"]
pub mod tracer;
#[path = "../sites.rs"]
pub mod vmwrite_sites;
