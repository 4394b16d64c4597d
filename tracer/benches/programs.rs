//! What the programs cost per VM entry on the running kernel, by the kernel's own run-time statistics. No VM runs: the
//! vCPU is made up, its memory is warm, so that this is a floor. Needs root: `cargo bench -p vmentry --bench programs`.

#![allow(clippy::unwrap_used)]

#[path = "../tests/bed/mod.rs"]
mod bed;

use aya::{
    programs::{RawTracePointRunOptions, TestRun},
    sys::{Stats, enable_stats},
};
use bed::*;
use vmentry::bpf::Options;

const RUNS: usize = 7;
const ROUNDS: u64 = 100_000;

fn main() {
    let _statistics = enable_stats(Stats::RunTime).expect("kernel run-time statistics: run as root");
    for (label, pin) in [("VMX, pin shadow and reason read", true), ("entries and exits only", false)] {
        let config = if pin { config() } else { tracer_common::Config::empty() };
        let mut bed = Bed::new(config, Options::default());
        // Neither new nor replaced: the state that is kept belongs to this vCPU.
        bed.set(0, EXITS, 5);
        bed.arena.set(0, *bed.memory, 0).unwrap();
        let mut costs: Vec<(f64, f64)> = (0..RUNS).map(|_| cost(&mut bed)).collect();
        costs.sort_by(|a, b| (a.0 + a.1).total_cmp(&(b.0 + b.1)));
        let total = |i: usize| costs[i].0 + costs[i].1;
        let median = costs[RUNS / 2];
        println!(
            "{label}: {:.0} ns per entry (kvm_entry {:.0} + kvm_exit {:.0}); min {:.0}, max {:.0} of {RUNS} runs of {ROUNDS}",
            total(RUNS / 2),
            median.0,
            median.1,
            total(0),
            total(RUNS - 1),
        );
    }
}

/// Mean ns of the two programs.
fn cost(bed: &mut Bed) -> (f64, f64) {
    let before = (spent(bed, "kvm_entry"), spent(bed, "kvm_exit"));
    for round in 0..ROUNDS {
        for (program, second) in [("kvm_entry", 0), ("kvm_exit", VMX)] {
            let mut options = RawTracePointRunOptions::new();
            options.args[..2].copy_from_slice(&[bed.at(0), second]);
            bed.tracer.program(program).unwrap().test_run(options).unwrap();
        }
        // A ring that is full would be cheaper.
        if round % 1024 == 0 {
            bed.events();
        }
    }
    let after = (spent(bed, "kvm_entry"), spent(bed, "kvm_exit"));
    (mean(before.0, after.0), mean(before.1, after.1))
}

fn mean(before: (f64, f64), after: (f64, f64)) -> f64 {
    (after.0 - before.0) / (after.1 - before.1)
}

/// ns and runs of a program since it was loaded.
fn spent(bed: &mut Bed, program: &str) -> (f64, f64) {
    let info = bed.tracer.program(program).unwrap().info().unwrap();
    (info.run_time().as_nanos() as f64, info.run_count() as f64)
}
