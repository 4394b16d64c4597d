//! `cargo xtask bench`: the overhead of tracing, as ratios and differences within one run.

mod peers;
mod startup;

use anyhow::Result;

use crate::build;

/// Measure the overhead of tracing, and of other tools
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(clap::Subcommand)]
enum Bench {
    /// Measure ns per VM entry of the eBPF programs on the running kernel, beside programs that do the minimum; needs
    /// root
    Programs,
    /// Measure events per second through the rings by number of CPUs, and drops from rings that are too small; needs
    /// root
    Ring,
    /// Read the series that the programs count while they grow as fast as they can, for ten minutes (STRESS_SECONDS=N: for N
    /// seconds), and fail where a look is not consistent; needs root
    Series,
    /// Measure events per second that user space decodes and folds on one core, and time and peak memory of 'report' on
    /// up to 1 GB
    Collect,
    /// Measure memory, loss and processor time on a made-up host of 640 CPUs, 4096 vCPUs and 500 VMs, of which 10 a second end and begin
    /// for an hour (SCALE_SECONDS=N: for N seconds of it); as root with the real programs and rings
    Scale,
    Peers(peers::Arguments),
    Startup(startup::Arguments),
}

/// Runs a benchmark, which prints its results.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.bench {
        Bench::Programs => cargo_bench("programs"),
        Bench::Ring => cargo_bench("ring"),
        Bench::Series => cargo_bench("series"),
        Bench::Collect => cargo_bench("collect").and_then(|()| cargo_bench("recordings")),
        Bench::Scale => cargo_bench("scale"),
        Bench::Peers(arguments) => peers::run(arguments),
        Bench::Startup(arguments) => startup::run(arguments),
    }
}

fn cargo_bench(name: &str) -> Result<()> {
    build::run_cargo(&["bench", "--quiet", "--package", "vmentry", "--bench", name])
}
