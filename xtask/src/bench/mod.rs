//! `cargo xtask bench`: what tracing costs, as ratios and differences of things measured in the same run.

mod bcc;
mod peers;

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::build;

/// Measure what tracing costs, beside what others cost
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(clap::Subcommand)]
enum Bench {
    /// ns per VM entry of the programs on the running kernel, beside the least that any such programs can do; needs root
    Programs,
    /// Events per second through the rings by number of CPUs, and what is dropped when they are too small; needs root
    Ring,
    /// Events per second that user space decodes and folds, on one core; time and peak memory of 'report' on up to 1 GB
    Collect,
    Peers(peers::Arguments),
}

/// Runs it, and prints what it found.
pub fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.bench {
        Bench::Programs => cargo_bench("programs"),
        Bench::Ring => cargo_bench("ring"),
        Bench::Collect => cargo_bench("collect").and_then(|()| cargo_bench("recordings")),
        Bench::Peers(arguments) => peers::run(arguments),
    }
}

fn cargo_bench(name: &str) -> Result<()> {
    let mut cargo = Command::new(build::cargo());
    cargo.args(["bench", "--quiet", "--package", "vmentry", "--bench", name]).current_dir(build::root());
    let status = cargo.status().context("run cargo bench")?;
    ensure!(status.success(), "cargo bench --bench {name}: {status}");
    Ok(())
}
