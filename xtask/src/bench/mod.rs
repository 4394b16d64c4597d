//! `cargo xtask bench`: what tracing costs, as ratios and differences of things measured in the same run.

mod peers;

use anyhow::Result;

/// Measure what tracing costs, beside what others cost
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(clap::Subcommand)]
enum Bench {
    Peers(peers::Arguments),
}

/// Runs it, and prints what it found.
pub fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.bench {
        Bench::Peers(arguments) => peers::run(arguments),
    }
}
