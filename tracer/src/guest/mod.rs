//! The built-in KVM guest: scenarios that cause a known number of VM exits, to exercise a tracer with.
//! A run checks that its guest did the work, and says which exits a tracer must have seen.

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

pub use expectation::{Bound, Cause, Expectation};
pub use guest_host::{Extension, Host as GuestHost};
pub use outcome::{Outcome, VcpuOutcome};
pub use run::{MAX_VCPUS, Plan, run};
pub use scenario::Scenario;
