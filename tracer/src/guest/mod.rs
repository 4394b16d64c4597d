//! The built-in KVM guests: one runs scenarios that cause a known number of VM exits, to validate a tracer with; the other, the
//! calibration guest, stamps the TSC around its exits. A run checks that its guest did the work.

pub mod calibration;
mod expectation;
mod guest_host;
mod hypervisor;
mod image;
pub mod kick;
mod machine;
mod memory;
mod outcome;
mod run;
mod scenario;
mod vcpu;
mod vmcs;
mod watch;

pub use guest_host::{Extension, GuestHost};
pub use run::{ExercisePlan, run};
pub use scenario::Scenario;
