//! Claims on this host: with its kvm_intel, which must have the companion patch, and its QEMU.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{
    build,
    claims::{KERNEL, guest},
    debian, process,
    witness::claims::Plan,
};

const POLICY: &str = "/sys/module/kvm_intel/parameters/preemption_timer_policy";
const TRACEPOINT: &str = "/sys/kernel/tracing/events/kvmvmx/kvm_vmcs_write";
const PROGRAM: &str = "qemu-system-x86_64";

/// The reason why the guests cannot be recorded on this host; none if they can.
pub(super) fn cannot_run() -> Option<String> {
    let is_there = |path: &str| Path::new(path).exists();
    if !process::is_root() {
        return Some("not root".into());
    }
    if !is_there("/sys/module/kvm_intel") {
        return Some("no kvm_intel is loaded".into());
    }
    if !is_there(POLICY) || !is_there(TRACEPOINT) {
        return Some(
            "this kvm_intel has no companion patch: see patches/README.md, or mount tracefs on /sys/kernel/tracing"
                .into(),
        );
    }
    if fs::read_to_string("/sys/module/kvm_intel/parameters/preemption_timer").is_ok_and(|used| used.trim() != "Y") {
        return Some("KVM does not use the preemption timer here".into());
    }
    None
}

/// Records the guests under both policies, and restores the policy.
pub(super) fn run(out: &Path, plans: &[Plan], script: &str) -> Result<()> {
    let vms = running_vms()?;
    ensure!(
        vms.is_empty(),
        "record guests on this host: process {} runs a VM, whose entries would be among the counts: end it, or use --lab",
        vms.join(", ")
    );
    let has_qemu = Command::new(PROGRAM).arg("--version").output().is_ok_and(|version| version.status.success());
    ensure!(has_qemu, "run {PROGRAM}: install package qemu-system-x86, or use --lab");
    let _ = fs::remove_dir_all(out);
    let (guests, names) = (out.join("guests"), plans.iter().map(|plan| plan.guest).collect::<Vec<_>>());
    guest::put(&debian::newest_kernel(KERNEL)?, &names, &guests)?;
    let before = fs::read_to_string(POLICY).with_context(|| format!("read {POLICY}"))?;
    let recorded = plans.iter().try_for_each(|plan| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{}{script}", plan.variables())]);
        // Standard output is for the claims.
        shell.stdout(std::io::stderr()).env("OUT", out).env("GUESTS", &guests).env("QEMU", PROGRAM);
        let binary = build::static_binary("vmentry")?;
        shell.env("PATH", process::path_with(binary.parent().unwrap_or(Path::new("."))));
        process::run(&mut shell, &format!("record the {} guest", plan.name))
    });
    fs::write(POLICY, before.trim()).with_context(|| format!("restore {POLICY}"))?;
    recorded
}

/// The ids of processes that have a VM open.
fn running_vms() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").context("read /proc")?.flatten() {
        let id = process.file_name().to_string_lossy().into_owned();
        // A process may end meanwhile.
        let files = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let is_vm =
            |file: fs::DirEntry| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == "anon_inode:kvm-vm");
        if id.bytes().all(|byte| byte.is_ascii_digit()) && files.into_iter().any(is_vm) {
            found.push(id);
        }
    }
    Ok(found)
}
