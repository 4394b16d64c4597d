//! `cargo xtask ebpf`: builds the eBPF objects in tracer-ebpf/dist from source, or checks the committed ones.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{
    build::{self, toolchain::Toolchain},
    process::{self, output},
};

/// Versions of the toolchain that made the objects.
const TOOLCHAIN: &str = "TOOLCHAIN";
/// SHA-256 of the objects, as sha256sum writes and checks it.
const SUMS: &str = "SHA256SUMS";

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
        _ => copy(&fresh()?, &dist()),
    }
}

/// Fails if the committed objects differ from those that the source gives.
pub(crate) fn check_committed() -> Result<()> {
    check_sums(&dist())?;
    let fresh = fresh()?;
    if differs(&fresh, &dist(), TOOLCHAIN)? {
        eprintln!("another toolchain than that of the committed objects: testing the fresh ones instead of comparing");
        return build::test_programs(Some(&fresh));
    }
    compare(&fresh, &dist())
}

/// Fails unless the committed objects are those that the source gives: without the toolchain that made them, too.
pub(super) fn verify() -> Result<()> {
    let fresh = fresh()?;
    ensure!(
        !differs(&fresh, &dist(), TOOLCHAIN)?,
        "compare tracer-ebpf/dist with its source: it was made with {}, and this machine has {}",
        read(&dist().join(TOOLCHAIN))?.escape_ascii(),
        read(&fresh.join(TOOLCHAIN))?.escape_ascii()
    );
    compare(&fresh, &dist())
}

/// Fails if a committed object is not the one that SHA256SUMS names.
pub(super) fn check_committed_sums() -> Result<()> {
    check_sums(&dist())
}

/// Builds every object, the file TOOLCHAIN and the sums, and returns their folder.
fn fresh() -> Result<PathBuf> {
    let fresh = Toolchain::install()?.build()?;
    let objects = build::toolchain::OBJECTS.iter().map(|object| object.file);
    let sums = output(Command::new("sha256sum").args(objects).current_dir(&fresh))?;
    fs::write(fresh.join(SUMS), sums).with_context(|| format!("write {}", fresh.join(SUMS).display()))?;
    Ok(fresh)
}

fn check_sums(dist: &Path) -> Result<()> {
    let mut check = Command::new("sha256sum");
    check.args(["--check", "--strict", "--quiet", SUMS]).current_dir(dist);
    process::run(&mut check, &format!("check the sums in {}", dist.join(SUMS).display()))
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
    build::toolchain::OBJECTS.iter().map(|object| object.file).chain([TOOLCHAIN, SUMS])
}

fn copy(fresh: &Path, dist: &Path) -> Result<()> {
    fs::create_dir_all(dist).with_context(|| format!("create folder {}", dist.display()))?;
    for name in names() {
        fs::copy(fresh.join(name), dist.join(name)).with_context(|| format!("write {}", dist.join(name).display()))?;
        println!("{}", dist.join(name).display());
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

fn differs(fresh: &Path, dist: &Path, name: &str) -> Result<bool> {
    Ok(read(&fresh.join(name))? != read(&dist.join(name))?)
}

fn compare(fresh: &Path, dist: &Path) -> Result<()> {
    let mut differing = Vec::new();
    for name in names() {
        if differs(fresh, dist, name)? {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_objects_are_those_of_the_committed_sums() {
        check_committed_sums().unwrap();
        let folder = tempfile::tempdir().unwrap();
        copy(&dist(), folder.path()).unwrap();
        check_sums(folder.path()).unwrap();
        let object = folder.path().join(build::toolchain::OBJECTS[0].file);
        let mut bytes = fs::read(&object).unwrap();
        bytes[100] ^= 1;
        fs::write(object, bytes).unwrap();
        assert!(check_sums(folder.path()).is_err());
    }
}
