//! The built-in KVM guests: one runs scenarios that cause a known number of VM exits, to validate a tracer with; the other, the
//! calibration guest, stamps the TSC around its exits. A run checks that its guest did the work.

pub(crate) mod calibration;
pub(crate) mod deadline;
mod expectation;
mod guest_host;
mod hypervisor;
mod image;
mod intervention;
pub(crate) mod kick;
mod machine;
mod memory;
mod outcome;
pub(crate) mod probe;
mod run;
mod scenario;
mod statistics;
mod vcpu;
mod verdict;
mod vmcs;
mod watch;

pub(crate) use guest_host::{Extension, GuestHost};
#[cfg(test)]
pub(crate) use guest_host::{Svm, Vmx};
pub(crate) use run::{ExercisePlan, MAX_VCPUS, run};
pub(crate) use scenario::Scenario;
pub(crate) use verdict::{Attempt, Verdict, judge};
