//! Development tasks of vmentry: `cargo xtask --help`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod build;
mod debian;
mod ebpf;
mod lab;

use clap::Parser;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Development tasks of vmentry")]
enum Task {
    /// Build the eBPF objects, or check the committed ones
    Ebpf(ebpf::Arguments),
    Lab(lab::cli::Arguments),
}

fn main() -> ExitCode {
    let result = match Task::parse() {
        Task::Ebpf(arguments) => ebpf::run(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Lab(arguments) => lab::cli::run(arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
