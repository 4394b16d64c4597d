//! Builds the programs of this workspace.

pub(crate) mod ebpf;
mod object;
pub(crate) mod release;
mod toolchain;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};

use crate::{debian, process};

/// The target of static binaries.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// The target folder of cargo.
pub(crate) fn target_dir() -> PathBuf {
    root().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// The cargo that runs this task.
fn cargo_program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// A cargo command in the root of the workspace.
pub(crate) fn cargo<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut cargo = Command::new(cargo_program());
    cargo.args(arguments).current_dir(root());
    cargo
}

/// Runs cargo in the root of the workspace.
pub(crate) fn run_cargo(arguments: &[&str]) -> Result<()> {
    process::run(&mut cargo(arguments.iter().copied()), &format!("cargo {}", arguments.join(" ")))
}

/// Builds a program for any x86-64 Linux, linked statically. Program and package have the same name.
pub(crate) fn static_binary(package: &str) -> Result<PathBuf> {
    let mut cargo =
        cargo(["build", "--quiet", "--locked", "--profile", "dist", "--target", TARGET, "--package", package]);
    // With --target, these flags do not reach build scripts and procedural macros, which cannot be static.
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static");
    process::run(&mut cargo, &format!("build {package}"))?;
    existing(target_dir().join(TARGET).join("dist").join(package), package)
}

/// Builds a program for this machine, without optimization. Program and package have the same name.
pub(crate) fn debug_binary(package: &str) -> Result<PathBuf> {
    process::run(&mut cargo(["build", "--quiet", "--package", package]), &format!("build {package}"))?;
    existing(target_dir().join("debug").join(package), package)
}

fn existing(binary: PathBuf, package: &str) -> Result<PathBuf> {
    ensure!(binary.is_file(), "build {package}: cargo has not made {}", binary.display());
    Ok(binary)
}

/// Returns a program from crates.io in the cache, built there if it is missing. Program and crate have the same name.
pub(crate) fn cargo_tool(name: &str, version: &str) -> Result<PathBuf> {
    let root = debian::cached(&format!("{name}-{version}"), |folder| {
        eprintln!("installing with cargo: {name} {version} (some minutes)");
        let mut cargo = Command::new(cargo_program());
        cargo.args(["install", "--quiet", "--locked", name, "--version", version, "--root"]);
        // Not in the target folder, which the cargo that runs this task may have locked.
        cargo.arg(folder.join("root")).env_remove("CARGO_TARGET_DIR");
        process::run(&mut cargo, &format!("cargo install {name}"))?;
        Ok(folder.join("root"))
    })?;
    Ok(root.join("bin").join(name))
}

/// Runs the tests of the eBPF programs on the running kernel, with the objects in `objects` instead of the committed
/// ones. Needs root.
pub(crate) fn test_programs(objects: Option<&Path>) -> Result<()> {
    let mut test = cargo(["test", "--quiet", "--package", "vmentry", "--test", "programs", "--", "--ignored"]);
    if let Some(folder) = objects {
        test.env("VMENTRY_BPF_DIR", folder);
    }
    process::run(&mut test, "test the eBPF programs")
}
