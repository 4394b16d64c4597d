//! What this host is: CPU, KVM modules, timer policy, VMs, clocks, and what can be measured on it.

#[path = "../clock.rs"]
pub mod clock;
#[path = "../check.rs"]
pub mod facts;
#[path = "../host.rs"]
pub mod machine;
#[path = "../policy.rs"]
pub mod policy;
#[path = "../stopwatch.rs"]
pub mod stopwatch;
#[path = "../vm.rs"]
pub mod vmm;
