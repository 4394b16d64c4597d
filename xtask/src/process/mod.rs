//! Runs other programs and turns their failures into errors.

mod filter;
mod output;

use std::process::Command;

use anyhow::{Context, Result, ensure};

pub(crate) use crate::process::{filter::filter, output::output};

/// Runs a program that prints to this terminal. `task` begins the error of a program that fails.
pub(crate) fn run(command: &mut Command, task: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("run {}", command.get_program().display()))?;
    ensure!(status.success(), "{task}: {status}");
    Ok(())
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
