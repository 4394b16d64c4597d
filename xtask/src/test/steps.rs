//! The steps that run on this machine.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{
    build::{self, ebpf},
    dashboards, debian, dependencies, packaging, process, prometheus, rooms,
    test::{Outcome, Step},
};

pub(super) const STEPS: &[Step] = &[
    ("format", || cargo(&["fmt", "--all", "--check"])),
    ("clippy", || cargo(&["clippy", "--quiet", "--all-targets", "--", "-D", "warnings"])),
    ("rooms", || passed(rooms::check())),
    ("dependencies", || passed(dependencies::check())),
    ("unit and command-line tests", || cargo(&["test", "--quiet"])),
    ("method of comparisons", || cargo(&["bench", "--quiet", "--package", "vmentry", "--bench", "method"])),
    ("clippy of the eBPF programs", || passed(ebpf::clippy())),
    ("committed objects against source", || passed(ebpf::check_committed())),
    ("bpftool loads the object", bpftool),
    ("programs on the running kernel", programs),
    ("made-up hosts", || on_the_rig("hosts")),
    ("faults", || on_the_rig("faults")),
    ("recorder on the running kernel", recorder),
    ("exporter with the service's capabilities", exporter_as_service),
    ("dashboards against the table of metrics", || passed(dashboards::check())),
    ("crates are packed", || passed(packaging::check_crates(false))),
    ("prometheus", || passed(prometheus::run())),
];

const NOT_ROOT: &str = "eBPF programs cannot be loaded without root";

pub(super) fn passed(result: Result<()>) -> Result<Outcome> {
    result.map(|()| Outcome::Passed)
}

fn cargo(arguments: &[&str]) -> Result<Outcome> {
    passed(build::run_cargo(arguments))
}

fn programs() -> Result<Outcome> {
    if !process::is_root() {
        return Ok(Outcome::Skipped(NOT_ROOT.into()));
    }
    passed(build::test_programs(None))
}

/// Runs a test that makes up hosts and VMs for the real binary. The programs attach to kvm's tracepoints, which need not fire. Shows what
/// the tests say: which fault cannot be caused here, and why.
fn on_the_rig(test: &str) -> Result<Outcome> {
    if !process::is_root() {
        return Ok(Outcome::Skipped(NOT_ROOT.into()));
    }
    let is_loaded = Path::new("/sys/module/kvm").exists();
    if !is_loaded && !Command::new("modprobe").arg("kvm").status().is_ok_and(|status| status.success()) {
        return Ok(Outcome::Skipped("no tracepoint kvm_entry: the module kvm cannot be loaded".into()));
    }
    cargo(&["test", "--quiet", "--package", "vmentry", "--test", test, "--", "--ignored", "--show-output"])
}

fn recorder() -> Result<Outcome> {
    if let Some(reason) = cannot_trace()? {
        return Ok(Outcome::Skipped(reason));
    }
    let tests = ["--test", "record", "--test", "pty", "--test", "export"];
    cargo(&[&["test", "--quiet", "--package", "vmentry"], &tests[..], &["--", "--ignored"]].concat())
}

fn exporter_as_service() -> Result<Outcome> {
    if let Some(reason) = cannot_trace()? {
        return Ok(Outcome::Skipped(reason));
    }
    passed(packaging::run_as_service())
}

/// Returns the reason why the programs cannot be loaded and attached here; none if they can. Whether kvm's tracepoints fire
/// does not matter: the tests call the programs themselves, or need no entry.
fn cannot_trace() -> Result<Option<String>> {
    if !process::is_root() {
        return Ok(Some(NOT_ROOT.into()));
    }
    // An error of the build is none of the host's.
    let mut check = Command::new(build::debug_binary("vmentry")?);
    let can_attach =
        check.args(["check", "--no-proof"]).stdout(Stdio::null()).status().context("run vmentry check")?.success();
    Ok((!can_attach).then(|| "this host cannot be traced: see 'vmentry check'".into()))
}

/// Checks that libbpf's tools can load the object and dump its maps, whose definitions must therefore be of libbpf's
/// kind.
fn bpftool() -> Result<Outcome> {
    if !process::is_root() {
        return Ok(Outcome::Skipped(NOT_ROOT.into()));
    }
    debian::install(&[("bpftool", "bpftool")])?;
    let is_mounted = fs::read_to_string("/proc/mounts").unwrap_or_default().contains(" /sys/fs/bpf ");
    let mut mount = Command::new("mount");
    if !is_mounted && !mount.args(["-t", "bpf", "bpf", "/sys/fs/bpf"]).status().is_ok_and(|status| status.success()) {
        return Ok(Outcome::Skipped("no bpf file system can be mounted here".into()));
    }
    let pins = format!("/sys/fs/bpf/vmentry-test-{}", std::process::id());
    // Maps are pinned too, because no program of a freshly loaded object uses COUNTERS, which would keep it alive.
    let maps = format!("{pins}-maps");
    let object = build::root().join("tracer-ebpf/dist/vmentry.bpf.o");
    let mut load = Command::new("bpftool");
    load.args(["prog", "loadall"]).arg(&object).args([&pins, "pinmaps", &maps]);
    let loaded = load.status().context("run bpftool")?;
    let dumped = Command::new("bpftool").args(["map", "dump", "name", "COUNTERS"]).output().context("run bpftool");
    for folder in [&pins, &maps] {
        let _ = fs::remove_dir_all(folder);
    }
    ensure!(loaded.success(), "bpftool prog loadall {}: {loaded}", object.display());
    let dump = String::from_utf8_lossy(&dumped?.stdout).into_owned();
    ensure!(dump.contains("\"dropped\""), "bpftool map dump shows no field names: {dump}");
    Ok(Outcome::Passed)
}
