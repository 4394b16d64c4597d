//! `vmentry`: VM-entry latency, pin-control VMCS writes and spurious VMX-preemption-timer exits of KVM hosts.

pub mod calibrate;
#[path = "collect/mod.rs"]
pub mod collect;
pub mod commands;
pub mod compare;
pub mod export;
pub mod guest;
#[path = "host/mod.rs"]
pub mod host;
pub mod html;
pub mod kernel;
pub mod model;
pub mod output;
pub mod recording;
pub mod report;
#[path = "trace/mod.rs"]
pub mod trace;
pub mod tui;
