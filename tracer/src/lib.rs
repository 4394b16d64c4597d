//! `vmentry`: VM-entry latency, pin-control VMCS writes and spurious VMX-preemption-timer exits of KVM hosts.

#![warn(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    clippy::cast_lossless,
    unreachable_pub
)]

#[doc(hidden)]
pub mod benching;
pub(crate) mod calibrate;
pub(crate) mod collect;
pub mod commands;
pub mod compare;
pub mod export;
#[doc(hidden)]
pub mod fuzzing;
pub(crate) mod guest;
pub mod host;
pub mod html;
pub mod kernel;
pub mod model;
pub mod output;
pub mod recording;
pub mod report;
pub mod trace;
pub mod tui;
