//! `vmentry`: VM-entry latency, pin-control VMCS writes and spurious VMX-preemption-timer exits of KVM hosts.

pub mod bpf;
pub mod btf;
pub mod check;
pub mod cli;
pub mod clock;
pub mod collect;
pub mod columns;
pub mod guest;
pub mod histogram;
pub mod host;
pub mod interval;
pub mod layout;
pub mod module;
pub mod output;
pub mod policy;
pub mod probe;
pub mod process;
pub mod reasons;
pub mod record;
pub mod recording;
pub mod report;
pub mod reporting;
pub mod sites;
pub mod vm;
