//! Checks that the crates of `cargo install vmentry` can be published: they are packed as for crates.io, with the eBPF objects and the
//! pages of docs/, and built from what was packed.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{build, process::output};

/// Packages in the order in which they need each other.
const PACKAGES: [&str; 2] = ["tracer-common", "vmentry"];

/// Packs both, and builds them from their packages if asked to, which takes minutes. Nothing is uploaded.
pub(super) fn check(builds: bool) -> Result<()> {
    let mut publish = Command::new("cargo");
    // Changes that are not committed yet are checked, too.
    publish.args(["publish", "--quiet", "--dry-run", "--allow-dirty", "--locked"]);
    if !builds {
        publish.arg("--no-verify");
    }
    publish.args(PACKAGES.map(|package| format!("--package={package}"))).current_dir(build::root());
    output(&mut publish).context("pack the crates")?;
    let mut list = Command::new("cargo");
    let list = list.args(["package", "--list", "--allow-dirty", "--package", "vmentry"]).current_dir(build::root());
    let list = output(list)?;
    let packed: Vec<_> = list.lines().collect();
    let pages = super::committed(&build::root().join("docs"), "docs")?;
    let wanted = pages.iter().map(String::as_str).filter(|page| page.ends_with(".md"));
    let missing: Vec<_> =
        wanted.chain(["bpf/vmentry.bpf.o", "README.md"]).filter(|file| !packed.contains(file)).collect();
    ensure!(missing.is_empty(), "pack the crate vmentry: missing {}", missing.join(", "));
    Ok(())
}
