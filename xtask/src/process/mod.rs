//! Runs other programs and turns their failures into errors.

mod filter;
mod output;

use std::{ffi::OsString, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

pub(crate) use crate::process::{filter::filter, output::output};

/// Runs a program that prints to this terminal. `task` begins the error of a program that fails.
pub(crate) fn run(command: &mut Command, task: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("run {}", command.get_program().display()))?;
    ensure!(status.success(), "{task}: {status}");
    Ok(())
}

/// Returns `PATH` with a folder before all others.
pub(crate) fn path_with(folder: &Path) -> OsString {
    let mut path = folder.as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    path
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
