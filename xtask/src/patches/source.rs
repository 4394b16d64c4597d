//! The part of the distribution's kernel source that belongs to KVM.

use crate::debian;
use crate::process::output;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Files that are built or patched.
const PARTS: [&str; 3] = ["arch/x86/kvm/*", "virt/kvm/*", "Documentation/admin-guide/kernel-parameters.txt"];

/// Returns the source of a kernel version in the cache, which must not be written to.
pub(crate) fn unpacked(series: &str, version: &str) -> Result<PathBuf> {
    debian::cached(&format!("sources/{series}_{version}"), |folder| {
        let root = folder.join("root");
        let name = format!("linux-source-{series}");
        debian::unpack_version(&name, version, &root)?;
        let archive = root.join("usr/src").join(format!("{name}.tar.xz"));
        let source = folder.join("source");
        std::fs::create_dir(&source).with_context(|| format!("create folder {}", source.display()))?;
        eprintln!("unpacking KVM from {name} {version}");
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--strip-components=1", "--wildcards", "--file"]).arg(&archive);
        tar.arg("--directory").arg(&source).args(PARTS.map(|part| format!("*/{part}")));
        output(&mut tar).with_context(|| format!("unpack {name}"))?;
        Ok(source)
    })
}

/// Copies the source to a folder where it can be patched and built.
pub(crate) fn copy(source: &Path, to: &Path) -> Result<()> {
    output(Command::new("cp").arg("-r").arg(source).arg(to)).map(|_| ())
}
