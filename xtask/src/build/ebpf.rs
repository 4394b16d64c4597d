//! `cargo xtask ebpf`: builds the eBPF objects in tracer-ebpf/dist from source, or checks the committed ones.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::build::{self, toolchain::Toolchain};

/// Arguments of `ebpf`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Compare with the committed objects instead of replacing them. With another toolchain than the recorded one, run
    /// the tests of the programs on the fresh objects, because they cannot be equal
    #[arg(long)]
    check: bool,
    /// Run clippy on the eBPF programs instead
    #[arg(long, conflicts_with = "check")]
    clippy: bool,
}

/// Builds the objects, checks the committed ones or runs clippy.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match arguments {
        Arguments { clippy: true, .. } => clippy(),
        Arguments { check: true, .. } => check_committed(),
        _ => copy(&Toolchain::install()?.build()?, &dist()),
    }
}

/// Fails if the committed objects differ from those that the source gives.
pub(crate) fn check_committed() -> Result<()> {
    check(&Toolchain::install()?.build()?, &dist())
}

/// Runs clippy on the eBPF programs.
pub(crate) fn clippy() -> Result<()> {
    Toolchain::install()?.clippy()
}

fn dist() -> PathBuf {
    build::root().join("tracer-ebpf/dist")
}

/// The committed files.
fn names() -> impl Iterator<Item = &'static str> {
    build::toolchain::OBJECTS.iter().map(|object| object.file).chain(["TOOLCHAIN"])
}

fn copy(fresh: &Path, dist: &Path) -> Result<()> {
    fs::create_dir_all(dist).with_context(|| format!("create folder {}", dist.display()))?;
    for name in names() {
        fs::copy(fresh.join(name), dist.join(name)).with_context(|| format!("write {}", dist.join(name).display()))?;
        println!("{}", dist.join(name).display());
    }
    Ok(())
}

fn check(fresh: &Path, dist: &Path) -> Result<()> {
    let read = |path: PathBuf| fs::read(&path).with_context(|| format!("read {}", path.display()));
    let differs = |name: &str| anyhow::Ok(read(fresh.join(name))? != read(dist.join(name))?);
    if differs("TOOLCHAIN")? {
        eprintln!("another toolchain than that of the committed objects: testing the fresh ones instead of comparing");
        return build::test_programs(Some(fresh));
    }
    let mut differing = Vec::new();
    for name in names() {
        if differs(name)? {
            differing.push(name);
        }
    }
    ensure!(
        differing.is_empty(),
        "compare tracer-ebpf/dist with its source: {} differ: run 'cargo xtask ebpf' and commit",
        differing.join(", ")
    );
    println!("tracer-ebpf/dist is up to date");
    Ok(())
}
