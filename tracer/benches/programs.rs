//! Cost of the programs per VM entry on the running kernel, by the kernel's own run-time statistics, as a ratio to pairs of programs that
//! do only the work any such pair must do; measured alternately in the same run. No VM runs: the vCPU is simulated and its memory is warm,
//! so this is a lower bound. Needs root: `cargo bench -p vmentry --bench programs`, or `cargo xtask bench programs`.

#![allow(clippy::unwrap_used, reason = "a benchmark: an error ends it")]

#[path = "../tests/bed/mod.rs"]
mod bed;

use aya::{
    maps::RingBuf,
    programs::{RawTracePoint, RawTracePointRunOptions, TestRun},
    sys::{Stats, enable_stats},
};
use bed::*;
use vmentry::{commands::check::overhead::range, kernel::options::Options, model::measurement::Aggregation};

const RUNS: usize = 7;
const ROUNDS: u64 = 50_000;

/// Floors: the work of a pair of minimal programs on kvm_entry and kvm_exit, and their names in the test bed's object.
const FLOORS: [(&str, [&str; 2]); 4] = [
    ("nothing", ["floor_empty", "floor_empty"]),
    ("the clock, twice", ["floor_clock", "floor_clock"]),
    ("a ring record", ["floor_empty", "floor_ring"]),
    ("the clock, twice, and a ring record", ["floor_clock", "floor_clock_ring"]),
];
/// The floor that a streaming tracer cannot go below.
const STREAMING: usize = 3;

fn main() {
    let _statistics = enable_stats(Stats::RunTime).expect("kernel run-time statistics: run as root");
    let (records, in_kernel) = (Aggregation::Records, Aggregation::InKernel);
    let kinds = [
        ("vmentry: VMX, pin shadow and reason", true, records),
        ("vmentry: entries and exits only", false, records),
        ("vmentry --aggregate in-kernel: VMX", true, in_kernel),
        ("the same: entries and exits only", false, in_kernel),
    ];
    let mut beds = kinds.map(|(label, offsets, aggregation)| {
        let config = if offsets { config() } else { tracer_common::Config::empty() };
        let mut bed = Bed::new(config, Options { aggregation, ..Options::default() });
        // A vCPU that has exited before, so that its state is kept from entry to entry.
        bed.set(0, EXITS, 5);
        bed.arena.set(0, *bed.memory, 0).unwrap();
        (label, bed)
    });
    for name in ["floor_empty", "floor_clock", "floor_ring", "floor_clock_ring"] {
        floor(&mut beds[0].1, name).load().unwrap();
    }
    let mut ring = RingBuf::try_from(beds[0].1.testbed.take_map("FLOOR_RING").unwrap()).unwrap();

    // Alternately, so that other load on this machine hits all of them.
    let mut costs: Vec<Vec<[f64; 2]>> = vec![Vec::new(); FLOORS.len() + beds.len()];
    for _ in 0..RUNS {
        for (at, (_, names)) in FLOORS.iter().enumerate() {
            let bed = &mut beds[0].1;
            costs[at].push(cost(bed, names, |bed, name| floor(bed, name), || while ring.next().is_some() {}));
        }
        for (at, (_, bed)) in beds.iter_mut().enumerate() {
            let pair = cost(bed, &["kvm_entry", "kvm_exit"], |bed, name| bed.tracer.program(name).unwrap(), || ());
            costs[FLOORS.len() + at].push(pair);
        }
    }

    let total = |pair: &[f64; 2]| pair[0] + pair[1];
    let floors: Vec<f64> = costs[STREAMING].iter().map(total).collect();
    println!(
        "{:<38} {:>15} {:>7} {:>7} {:>22}",
        "ns per entry (least / median / most)", "", "entry", "exit", "ratio to *"
    );
    let labels = FLOORS.iter().map(|(label, _)| *label).chain(beds.iter().map(|(label, _)| *label));
    for (at, label) in labels.enumerate() {
        let ratios: Vec<f64> = costs[at].iter().map(total).zip(&floors).map(|(cost, floor)| cost / floor).collect();
        let part = |n: usize| range(costs[at].iter().map(|pair| pair[n]).collect())[1];
        println!(
            "{:<38} {:>15} {:>7.0} {:>7.0} {:>22}",
            if at == STREAMING { format!("{label} *") } else { label.to_owned() },
            range(costs[at].iter().map(total).collect()).map(|v| format!("{v:.0}")).join(" / "),
            part(0),
            part(1),
            range(ratios).map(|v| format!("{v:.2}")).join(" / "),
        );
    }
    println!(
        "{RUNS} runs of {ROUNDS} rounds each, alternately; the kernel's statistics read the clock twice a program, everywhere alike"
    );
}

fn floor<'a>(bed: &'a mut Bed, name: &str) -> &'a mut RawTracePoint {
    bed.testbed.program_mut(name).unwrap().try_into().unwrap()
}

/// Mean ns of the two programs.
fn cost(
    bed: &mut Bed,
    names: &[&str; 2],
    program: for<'a> fn(&'a mut Bed, &str) -> &'a mut RawTracePoint,
    mut drain: impl FnMut(),
) -> [f64; 2] {
    let spent = |bed: &mut Bed, name: &str| {
        let info = program(bed, name).info().unwrap();
        (info.run_time().as_nanos() as f64, info.run_count() as f64)
    };
    // One after the other where both are the same program.
    let halves: &[&[&str]] = if names[0] == names[1] { &[&names[..1], &names[1..]] } else { &[&names[..]] };
    let mut means = Vec::new();
    for half in halves {
        let before: Vec<_> = half.iter().map(|name| spent(bed, name)).collect();
        for round in 0..ROUNDS {
            for (at, name) in half.iter().enumerate() {
                let mut options = RawTracePointRunOptions::new();
                options.args[..2].copy_from_slice(&[bed.at(0), if at == 1 { VMX } else { 0 }]);
                program(bed, name).test_run(options).unwrap();
            }
            // A full ring would be cheaper.
            if round % 1024 == 0 {
                bed.events();
                drain();
            }
        }
        for (name, before) in half.iter().zip(before) {
            let after = spent(bed, name);
            means.push((after.0 - before.0) / (after.1 - before.1));
        }
    }
    [means[0], means[1]]
}
