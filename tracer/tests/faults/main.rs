//! The fault matrix: the real binary on the rig, while VMs, modules, CPUs, disks, pipes, memory and signals fail. After each fault
//! entries == delivered + dropped, the report opens, counts that cannot be lost are the VM's, and nothing is left behind.
//!
//! Needs root and the module kvm; `cargo xtask test --only faults` runs them, or `cargo test -p vmentry --test faults -- --ignored`.

#![allow(clippy::unwrap_used, reason = "a test: an error is a failure")]

#[path = "../rig/mod.rs"]
mod rig;

mod hosts;
mod limits;
mod services;
mod signals;
mod together;
mod vms;
