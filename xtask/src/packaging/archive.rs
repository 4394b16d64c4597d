//! `cargo xtask dist --release`: an archive of the static program with all that belongs to it, its SHA-256, and its bill of materials.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::generated;
use crate::{build, process::output};

/// Version of cargo-cyclonedx, from crates.io.
const CARGO_CYCLONEDX: &str = "0.5.9";

/// Builds the files in target/release-files and prints their paths.
pub(crate) fn build() -> Result<()> {
    let vmentry = build::static_binary("vmentry")?;
    let name = format!("vmentry-{}-x86_64-linux", env!("CARGO_PKG_VERSION"));
    let folder = build::target_dir().join("release-files");
    let _ = fs::remove_dir_all(&folder);
    let tree = folder.join(&name);
    fs::create_dir_all(&tree).with_context(|| format!("create folder {}", tree.display()))?;
    fill(&tree, &vmentry)?;
    let archive = format!("{name}.tar.gz");
    // The same source gives the same bytes: the time is that of the commit.
    let commit = output(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(build::root()))?;
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--use-compress-program=gzip -n9"]);
    tar.arg(format!("--mtime=@{}", commit.trim())).args(["--create", "--file", &archive, &name]);
    output(tar.current_dir(&folder)).context("pack the archive")?;
    fs::remove_dir_all(&tree).context("remove the archive's folder")?;
    let bill = bill_of_materials(&folder, &name)?;
    let sums = output(Command::new("sha256sum").args([archive.as_str(), &bill]).current_dir(&folder))?;
    let sums_name = format!("{name}.sha256");
    fs::write(folder.join(&sums_name), sums).context("write the sums")?;
    for file in [archive, bill, sums_name] {
        println!("{}", folder.join(file).display());
    }
    Ok(())
}

/// Copies what belongs to the program, each to its place below the archive's folder.
fn fill(tree: &Path, vmentry: &Path) -> Result<()> {
    let generated = generated::write(vmentry)?;
    let root = build::root();
    let texts = ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE", "LICENSE-GPL2"];
    let mut from: Vec<PathBuf> = texts.iter().map(|text| root.join(text)).collect();
    from.extend([vmentry.to_owned(), generated.join("man"), generated.join("completions")]);
    from.extend(["docs", "dashboards", "packaging"].map(|folder| root.join(folder)));
    output(Command::new("cp").arg("--recursive").args(from).arg(tree)).context("copy the archive's files")?;
    Ok(())
}

/// Writes the CycloneDX bill of materials of what is linked into the program, and returns its name.
fn bill_of_materials(folder: &Path, name: &str) -> Result<String> {
    let tool = build::cargo_tool("cargo-cyclonedx", CARGO_CYCLONEDX)?;
    let mut command = Command::new(tool);
    command.args(["cyclonedx", "--quiet", "--format", "json", "--spec-version", "1.5", "--describe", "binaries"]);
    command.args(["--target", build::TARGET, "--manifest-path", "tracer/Cargo.toml"]).current_dir(build::root());
    output(&mut command).context("make the bill of materials")?;
    let bill = format!("{name}.cdx.json");
    // It is made beside the sources, as are those of the other members, and names this machine's folder.
    let made = build::root().join("tracer/vmentry_bin.cdx.json");
    let text = fs::read_to_string(&made).with_context(|| format!("read {}", made.display()))?;
    let text = text.replace(&format!("file://{}", build::root().display()), "file:///vmentry");
    fs::write(folder.join(&bill), text).with_context(|| format!("write {bill}"))?;
    let mut list = Command::new("git");
    list.args(["ls-files", "--others", "*_bin.cdx.json"]).current_dir(build::root());
    for other in output(&mut list)?.lines() {
        fs::remove_file(build::root().join(other)).with_context(|| format!("remove {other}"))?;
    }
    Ok(bill)
}
