//! Builds the workspace's own programs.

pub mod ebpf;

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the static binary is built for.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The workspace's root.
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Where cargo puts what it builds.
pub fn target_dir() -> PathBuf {
    root().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// Builds a package's program, of the same name, so that it runs on any x86-64 Linux without a library.
pub fn static_binary(package: &str) -> Result<PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--profile", "dist", "--target", TARGET, "--package", package]);
    // With --target these flags do not reach build scripts and procedural macros, which cannot be static.
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static").current_dir(root());
    let status = cargo.status().context("run cargo")?;
    ensure!(status.success(), "build {package}: {status}");
    let binary = target_dir().join(TARGET).join("dist").join(package);
    ensure!(binary.is_file(), "build {package}: cargo left no {}", binary.display());
    Ok(binary)
}

/// The cargo that runs this task.
pub fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Runs the tests of the eBPF programs on the running kernel, with the objects of a folder instead of the committed ones where
/// one is given. Needs root.
pub fn test_programs(objects: Option<&Path>) -> Result<()> {
    let mut test = Command::new(cargo());
    test.args(["test", "--quiet", "--package", "vmentry", "--test", "programs", "--", "--ignored"]).current_dir(root());
    if let Some(folder) = objects {
        test.env("VMENTRY_BPF_DIR", folder);
    }
    let status = test.status().context("run cargo")?;
    ensure!(status.success(), "test the eBPF programs: {status}");
    Ok(())
}
