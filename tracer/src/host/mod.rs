//! What this host is: CPU, KVM modules, timer policy, VMs, clocks, and what can be measured on it.

pub mod clock;
pub mod facts;
pub mod machine;
pub mod policy;
pub mod stopwatch;
pub mod vmm;
