//! `cargo xtask deb`: builds the Debian package with cargo-deb from `tracer/Cargo.toml`, and checks it and its service.

pub(crate) mod archive;
mod container;
mod crates;
mod generated;
mod lifecycle;
mod rpm;
mod service;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::Args;

pub(crate) use crate::packaging::service::run_as_service;
use crate::{build, debian, process::output};

/// Version of cargo-deb, from crates.io.
const CARGO_DEB: &str = "3.8.0";
const NEEDS: [debian::Need; 3] =
    [("systemd-analyze", "systemd"), ("systemd-socket-activate", "systemd"), ("dpkg-deb", "dpkg")];
/// Files that must be in the package.
const CONTENTS: [&str; 12] = [
    "./usr/bin/vmentry",
    "./usr/lib/systemd/system/vmentry-export.service",
    "./usr/lib/systemd/system/vmentry-export.socket",
    "./etc/default/vmentry-export",
    "./usr/share/doc/vmentry/README.md",
    "./usr/share/doc/vmentry/copyright",
    "./usr/share/doc/vmentry/CHANGELOG.md",
    "./usr/share/man/man1/vmentry.1.gz",
    "./usr/share/man/man1/vmentry-record.1.gz",
    "./usr/share/bash-completion/completions/vmentry",
    "./usr/share/zsh/vendor-completions/_vmentry",
    "./usr/share/fish/vendor_completions.d/vmentry.fish",
];

/// Arguments of `deb` and `rpm`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Also check the package
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    release: build::release::Arguments,
}

/// Builds the RPM package and prints its path, or checks it.
pub(crate) fn run_rpm(arguments: &Arguments) -> Result<()> {
    if arguments.check {
        return check_rpm();
    }
    arguments.release.verify()?;
    println!("{}", rpm::build()?.display());
    Ok(())
}

/// Builds the RPM package and checks what rpm says of it.
pub(crate) fn check_rpm() -> Result<()> {
    rpm::check()
}

/// Builds the package and prints its path, or checks it.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.check {
        return check();
    }
    arguments.release.verify()?;
    println!("{}", build()?.display());
    Ok(())
}

/// Builds the package and returns its path.
fn build() -> Result<PathBuf> {
    generated::write(&build::static_binary("vmentry")?)?;
    let cargo_deb = build::cargo_tool("cargo-deb", CARGO_DEB)?;
    let folder = build::target_dir().join("deb");
    // Packages of other versions may lie there.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| format!("create folder {}", folder.display()))?;
    let mut command = Command::new(cargo_deb);
    // Takes the binary that was built above: static, and stripped by its profile.
    command.args([
        "deb",
        "--quiet",
        "--package",
        "vmentry",
        "--no-build",
        "--no-strip",
        "--locked",
        "--profile",
        "dist",
    ]);
    command.args(["--target", build::TARGET, "--output"]).arg(&folder).current_dir(build::root());
    output(&mut command).context("build the package")?;
    let package = fs::read_dir(&folder)?.find_map(|entry| Some(entry.ok()?.path()));
    package.context("build the package: cargo-deb has made no file")
}

/// Packs the crates as for crates.io, and builds them from what was packed if asked to.
pub(crate) fn check_crates(builds: bool) -> Result<()> {
    crates::check(builds)
}

/// Builds the container image and runs it.
pub(crate) fn check_container() -> Result<()> {
    container::check()
}

/// Builds the package and checks its contents, its maintainer scripts, its binary and its service.
pub(crate) fn check() -> Result<()> {
    debian::install(&NEEDS)?;
    let package = build()?;
    check_contents(&package)?;
    lifecycle::check(&package)?;
    let root = build::target_dir().join("deb/root");
    output(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&root))?;
    let version = output(Command::new(root.join("usr/bin/vmentry")).arg("--version"))?;
    ensure!(version.starts_with("vmentry "), "run the packaged binary: --version prints {version}");
    service::check(&root)
}

/// Checks that the package has all files, owned by root, and the right fields.
fn check_contents(package: &Path) -> Result<()> {
    let list = output(Command::new("dpkg-deb").arg("--contents").arg(package))?;
    let files: BTreeSet<_> =
        list.lines().filter_map(|line| line.split_whitespace().nth(5)).filter(|path| !path.ends_with('/')).collect();
    let dashboards = committed(&build::root().join("dashboards"), "./usr/share/vmentry/dashboards")?;
    let pages = committed(&build::root().join("docs"), "./usr/share/doc/vmentry/docs")?;
    let wanted = CONTENTS.into_iter().chain(dashboards.iter().chain(&pages).map(String::as_str));
    let missing: Vec<_> = wanted.filter(|path| !files.contains(path)).collect();
    ensure!(missing.is_empty(), "check {}: missing {}:\n{list}", package.display(), missing.join(", "));
    ensure!(
        list.lines().all(|line| line.split_whitespace().nth(1) == Some("0/0")),
        "check {}: some files are not owned by root:\n{list}",
        package.display()
    );
    let fields = ["Package", "Architecture", "Depends"];
    let info = output(Command::new("dpkg-deb").args(["--field"]).arg(package).args(fields))?;
    ensure!(
        info.contains("Package: vmentry\n") && info.contains("Architecture: amd64\n"),
        "check {}: fields are {info}",
        package.display()
    );
    Ok(())
}

/// The files below a folder, as paths below `to`.
fn committed(folder: &Path, to: &str) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("read folder {}", folder.display()))? {
        let entry = entry?;
        let path = format!("{to}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            files.extend(committed(&entry.path(), &path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}
