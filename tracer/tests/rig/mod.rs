//! A rig for hosts of any shape: the real binary on a made-up /sys, /proc/cpuinfo and /run, and made-up VMs whose rounds are known.
//!
//! Needs root and the tracepoints of the module kvm, which need not fire.

#![allow(clippy::unwrap_used, missing_docs, reason = "test code: an error is a failure, and only tests import it")]
#![allow(dead_code, unused_imports, reason = "each test that includes this folder uses a part of it")]

#[path = "../bed/mod.rs"]
mod bed;
mod btf;
mod host;
pub mod kernel_objects;
mod recorder;
mod vm;

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

pub use host::{Host, Shape, Vendor};
pub use recorder::{Exporter, Vmentry, assert_exact, in_totals, live_entries, text};
pub use vm::{PREEMPTION_TIMER, Rounds, Vm};

/// Waits until something is so; fails after 20 seconds.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited 20 s: {what}");
        sleep(Duration::from_millis(10));
    }
}

/// Fails if vmentry has left anything behind on a host: programs or maps in the kernel, notes in /run, drafts or lock files in the host's
/// folder. VMs that ran must have been dropped, because they hold the programs, too.
pub fn assert_nothing_left(host: &Host) {
    wait_until("no program or map is left behind", || kernel_objects::left_behind().is_empty());
    let names = |folder: &str| -> Vec<String> {
        let entries = std::fs::read_dir(host.path(folder)).unwrap().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    let mut left = names("run");
    let made = |name: &str| ["sys", "run", "cpuinfo", "small", "metrics"].contains(&name) || name.ends_with(".hlog");
    left.extend(
        names("").into_iter().filter(|name| name.starts_with('.') || !(made(name) || name.starts_with("aside"))),
    );
    assert!(left.is_empty(), "left behind: {left:?}");
}
