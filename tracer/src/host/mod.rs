//! This host: CPU, KVM modules, timer policy, VMs, clocks, and the problems that stand in the way of measuring.

pub(crate) mod capabilities;
mod cgroup;
pub mod clock;
pub(crate) mod clock_mapping;
pub(crate) mod erratum;
pub(crate) mod facts;
pub mod labels;
pub mod machine;
pub mod naming;
mod open_files;
mod options;
pub(crate) mod other_tracers;
pub(crate) mod pid_namespace;
pub(crate) mod policy;
pub(crate) mod problems;
pub(crate) mod process;
mod restrictions;
pub(crate) mod roots;
pub(crate) mod setting;
pub(crate) mod signals;
pub(crate) mod stopwatch;
pub(crate) mod system_calls;
pub(crate) mod tracepoint_count;
pub(crate) mod vendor;
mod vm_name;
pub(crate) mod vmm;
