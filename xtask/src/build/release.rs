//! Release builds: their eBPF objects are those of the source, or the release says loudly that nobody has looked.

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::build::{self, ebpf};

/// Arguments of every release build.
#[derive(Args)]
// It is flattened into the arguments of other tasks, whose struct has this name, too.
#[group(skip)]
pub(crate) struct Arguments {
    /// Build even though the committed eBPF objects are not compared with their source here, for want of their toolchain
    #[arg(long)]
    unverified_objects: bool,
}

/// Builds the static binary and prints its path.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    arguments.verify()?;
    println!("{}", build::static_binary("vmentry")?.display());
    Ok(())
}

impl Arguments {
    /// Fails unless the objects that the build embeds are the committed ones, and these are what their source gives.
    pub(crate) fn verify(&self) -> Result<()> {
        let other = std::env::var_os("VMENTRY_BPF_DIR");
        ensure!(
            other.is_none(),
            "release with the eBPF objects of {}: unset VMENTRY_BPF_DIR, which is for tests",
            other.unwrap_or_default().display()
        );
        ebpf::check_committed_sums()?;
        if self.unverified_objects {
            eprintln!(
                "WARNING: the eBPF objects of this release were NOT compared with their source (--unverified-objects)"
            );
            return Ok(());
        }
        ebpf::verify().context("verify the eBPF objects of the release (--unverified-objects builds without)")
    }
}
