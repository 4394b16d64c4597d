//! `cargo xtask rpm`: builds the RPM package with cargo-generate-rpm from `tracer/Cargo.toml`, and checks it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{committed, generated};
use crate::{build, debian, process::output};

/// Version of cargo-generate-rpm, from crates.io.
const CARGO_GENERATE_RPM: &str = "0.21.1";
/// Files that must be in the package.
const CONTENTS: [&str; 9] = [
    "/usr/bin/vmentry",
    "/usr/lib/systemd/system/vmentry-export.service",
    "/usr/lib/systemd/system/vmentry-export.socket",
    "/etc/default/vmentry-export",
    "/usr/share/doc/vmentry/README.md",
    "/usr/share/man/man1/vmentry.1",
    "/usr/share/man/man1/vmentry-record.1",
    "/usr/share/bash-completion/completions/vmentry",
    "/usr/share/zsh/site-functions/_vmentry",
];

/// Builds the package and returns its path.
pub(super) fn build() -> Result<PathBuf> {
    let vmentry = build::static_binary("vmentry")?;
    generated::write(&vmentry)?;
    let tool = build::cargo_tool("cargo-generate-rpm", CARGO_GENERATE_RPM)?;
    let package = build::target_dir().join("rpm/vmentry.x86_64.rpm");
    let folder = package.parent().context("folder of the package")?;
    fs::create_dir_all(folder).with_context(|| format!("create folder {}", folder.display()))?;
    let mut command = Command::new(tool);
    // The binary is static.
    command.args([
        "generate-rpm",
        "--package",
        "tracer",
        "--profile",
        "dist",
        "--target",
        build::TARGET,
        "--auto-req",
        "no",
    ]);
    output(command.arg("--output").arg(&package).current_dir(build::root())).context("build the package")?;
    Ok(package)
}

/// Builds the package and checks what rpm says of it.
pub(super) fn check() -> Result<()> {
    debian::install(&[("rpm", "rpm")])?;
    check_contents(&build()?)
}

fn check_contents(package: &Path) -> Result<()> {
    let query = |arguments: &[&str]| output(Command::new("rpm").args(arguments).arg(package));
    let list = query(&["--query", "--package", "--list"])?;
    let files: BTreeSet<_> = list.lines().collect();
    let dashboards = committed(&build::root().join("dashboards"), "/usr/share/vmentry/dashboards")?;
    let wanted = CONTENTS.into_iter().chain(dashboards.iter().map(String::as_str));
    let missing: Vec<_> = wanted.filter(|path| !files.contains(path)).collect();
    ensure!(missing.is_empty(), "check {}: missing {}:\n{list}", package.display(), missing.join(", "));
    let owners = query(&["--query", "--package", "--queryformat", "[%{FILEUSERNAME}:%{FILEGROUPNAME}\n]"])?;
    ensure!(owners.lines().all(|owner| owner == "root:root"), "check {}: owners {owners}", package.display());
    let configuration = query(&["--query", "--package", "--configfiles"])?;
    ensure!(configuration.trim() == "/etc/default/vmentry-export", "check {}: {configuration}", package.display());
    Ok(())
}
