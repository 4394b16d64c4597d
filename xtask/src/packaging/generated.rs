//! Files of the packages that the program writes itself: man pages and completions.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{build, process::output};

/// Files of completions, by shell, in the folder `completions`.
const COMPLETIONS: [(&str, &str); 3] = [("bash", "vmentry"), ("zsh", "_vmentry"), ("fish", "vmentry.fish")];

/// Writes the files into target/package, where `tracer/Cargo.toml` names them, and returns that folder.
pub(super) fn write(vmentry: &Path) -> Result<PathBuf> {
    let folder = build::root().join("target/package");
    let _ = fs::remove_dir_all(&folder);
    output(Command::new(vmentry).arg("man").arg(folder.join("man")))?;
    let completions = folder.join("completions");
    fs::create_dir_all(&completions).with_context(|| format!("create folder {}", completions.display()))?;
    for (shell, name) in COMPLETIONS {
        let text = output(Command::new(vmentry).args(["completions", shell]))?;
        fs::write(completions.join(name), text).with_context(|| format!("write {name}"))?;
    }
    Ok(folder)
}
