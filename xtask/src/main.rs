//! Development tasks of vmentry: `cargo xtask --help`.

mod bench;
mod build;
mod claims;
mod dashboards;
mod debian;
mod demo;
mod dependencies;
mod fuzz;
mod kernels;
mod lab;
mod packaging;
mod patches;
mod pictures;
mod process;
mod prometheus;
mod rooms;
mod test;
mod witness;

use clap::Parser;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Development tasks of vmentry")]
enum Task {
    /// Check, record and report guests with known exits, on this host or in an emulated machine
    Demo(demo::Arguments),
    /// Check each claim of commit 804939ea20 on a Linux guest and a nested one, on this host or in an emulated machine
    Claims(claims::Arguments),
    /// Run everything a contributor runs; steps that cannot run here are skipped with the reason
    Test(test::Arguments),
    /// Build the static release binary: one file to copy to a host
    Dist(DistArguments),
    /// Build the Debian package
    Deb(packaging::Arguments),
    /// Build the RPM package
    Rpm(packaging::Arguments),
    /// Build the eBPF objects, or check the committed ones
    Ebpf(build::ebpf::Arguments),
    /// Write Grafana's dashboards and Prometheus's rules, or check the committed files
    Dashboards(dashboards::Arguments),
    /// Draw the documentation's pictures, or check the committed ones
    Pictures(pictures::Arguments),
    /// Ask a real Prometheus every query of the dashboards and rules, while exporters replay recordings
    Prometheus,
    Bench(bench::Arguments),
    Fuzz(fuzz::Arguments),
    Lab(lab::cli::Arguments),
    Kernels(kernels::Arguments),
    Patches(patches::Arguments),
}

/// Arguments of `dist`.
#[derive(clap::Args)]
struct DistArguments {
    /// Also pack it with docs, man pages, completions and dashboards into an archive, with its SHA-256 and bill of materials
    #[arg(long)]
    release: bool,
    #[command(flatten)]
    build: build::release::Arguments,
}

fn dist(arguments: &DistArguments) -> anyhow::Result<()> {
    if arguments.release {
        arguments.build.verify()?;
        return packaging::archive::build();
    }
    build::release::run(&arguments.build)
}

fn main() -> ExitCode {
    let result = match Task::parse() {
        Task::Demo(arguments) => demo::run(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Claims(arguments) => claims::run(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Test(arguments) => test::run(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Dist(arguments) => dist(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Deb(arguments) => packaging::run(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Rpm(arguments) => packaging::run_rpm(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Prometheus => prometheus::run().map(|()| ExitCode::SUCCESS),
        Task::Ebpf(arguments) => build::ebpf::run(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Dashboards(arguments) => dashboards::run(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Pictures(arguments) => pictures::run(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Bench(arguments) => bench::run(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Fuzz(arguments) => fuzz::run(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Lab(arguments) => lab::cli::run(arguments),
        Task::Kernels(arguments) => kernels::run(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Patches(arguments) => patches::run(&arguments).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_task_has_a_consistent_command_line() {
        Task::command().debug_assert();
    }
}
