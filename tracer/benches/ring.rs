//! Events per second through the rings by the number of CPUs that produce, and the drops at each offered load: the real programs,
//! called by BPF_PROG_TEST_RUN with a made-up vCPU for each CPU, and one reader that wakes up as the collector does. Two system calls an
//! event are most of a producer's time, so that the highest load is that of the calls, not a limit of the rings. Needs root:
//! `cargo bench -p vmentry --bench ring`.

#![allow(clippy::unwrap_used, reason = "a benchmark: an error ends it")]

#[path = "../tests/bed/mod.rs"]
mod bed;

use std::{
    os::fd::AsRawFd,
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use aya::programs::{RawTracePoint, RawTracePointRunOptions, TestRun};
use bed::*;
use tracer_common::{Event, Record};
use vmentry::{
    commands::check::overhead::range,
    kernel::options::Options,
    model::{
        accumulator::Accumulator,
        interval::{Interval, Vm},
    },
};

/// The collector's: how long it sleeps at most.
const POLL_MS: i32 = 50;
const RINGS_KIB: [u32; 3] = [4, 64, 512];

fn main() {
    // `cargo test` runs benches too, to see that they work.
    let (length, runs) = if std::env::args().any(|a| a == "--bench") { (1000, 3) } else { (20, 1) };
    let cpus = thread::available_parallelism().unwrap().get().min(4);
    println!("{cpus} CPUs, records of {} bytes, {runs} runs of {length} ms each: least / median / most", Record::SHORT);
    println!(
        "{:<9} {:>8} {:>12} {:>26} {:>26} {:>22}",
        "producers", "ring KiB", "reader", "offered, 1000 events/s", "delivered, 1000 events/s", "dropped, %"
    );
    let row = |producers: usize, kib: u32, reader: Reader| {
        let all: Vec<_> = (0..runs).map(|_| run(producers, kib, reader, Duration::from_millis(length))).collect();
        let of = |f: fn(&Done) -> f64| three(all.iter().map(f).collect());
        let (ring, reader) = match reader {
            Reader::None => ("none".into(), "-"),
            Reader::WakesUp => (kib.to_string(), "wakes up"),
            Reader::StandsStill => (kib.to_string(), "stands still"),
        };
        let has_ring = reader != "-";
        let of_ring = |f| if has_ring { of(f) } else { "n/a".into() };
        println!(
            "{producers:<9} {ring:>8} {reader:>12} {:>26} {:>26} {:>22}",
            of(|d| d.offered as f64 / d.seconds / 1e3),
            of_ring(|d| d.delivered as f64 / d.seconds / 1e3),
            of_ring(|d| 100.0 * (1.0 - d.delivered as f64 / d.offered as f64)),
        );
    };
    for producers in 1..=cpus {
        row(producers, 4, Reader::None);
    }
    for reader in [Reader::WakesUp, Reader::StandsStill] {
        for kib in RINGS_KIB {
            for producers in 1..=cpus {
                row(producers, kib, reader);
            }
        }
    }
}

/// Who empties the rings.
#[derive(Clone, Copy, PartialEq)]
enum Reader {
    /// nobody, for an empty program is called instead: what the calls alone allow
    None,
    /// one that waits as the collector does
    WakesUp,
    /// nobody, until the end
    StandsStill,
}

/// The result of a run.
struct Done {
    offered: u64,
    delivered: u64,
    seconds: f64,
}

fn three(values: Vec<f64>) -> String {
    range(values).map(|v| format!("{v:.1}")).join(" / ")
}

/// One run. The account must be exact at any load.
fn run(producers: usize, kib: u32, reader: Reader, length: Duration) -> Done {
    let mut bed = Bed::new(config(), Options { ring_bytes: kib * 1024, ..Options::default() });
    (0..producers).for_each(|vcpu| bed.set(vcpu, EXITS, 5));
    bed.arena.set(0, *bed.memory, 0).unwrap();
    let vcpus: Vec<_> = (0..producers).map(|vcpu| bed.at(vcpu)).collect();
    // Handles of their own, for the bed lends one at a time.
    let programs = ["kvm_entry", "kvm_exit"].map(|name| {
        let program = if reader == Reader::None {
            let empty: &mut RawTracePoint = bed.testbed.program_mut("floor_empty").unwrap().try_into().unwrap();
            if empty.fd().is_err() {
                empty.load().unwrap();
            }
            empty
        } else {
            bed.tracer.program(name).unwrap()
        };
        RawTracePoint::from_program_info(program.info().unwrap(), name.into()).unwrap()
    });
    let (start, stop, calls) = (Barrier::new(producers + 1), AtomicBool::new(false), AtomicU64::new(0));
    let (start, stop, calls, programs) = (&start, &stop, &calls, &programs);
    thread::scope(|scope| {
        for (cpu, &vcpu) in vcpus.iter().enumerate() {
            scope.spawn(move || {
                pin_to(cpu);
                start.wait();
                let mut n = 0;
                while !stop.load(Relaxed) {
                    for (program, isa) in programs.iter().zip([0, VMX]) {
                        let mut options = RawTracePointRunOptions::new();
                        options.args[..2].copy_from_slice(&[vcpu, isa]);
                        program.test_run(options).unwrap();
                    }
                    n += 1;
                }
                calls.fetch_add(n, Relaxed);
            });
        }
        let wake_up = bed.tracer.wake_up().unwrap();
        let vm = std::sync::Arc::new(Vm::default());
        let mut accumulator = Accumulator::of(Interval::default());
        let mut delivered = 0;
        start.wait();
        let began = Instant::now();
        let mut drain = |bed: &mut Bed| {
            bed.tracer.forget_wake_ups();
            for ring in bed.tracer.rings() {
                delivered +=
                    ring.drain(usize::MAX, |bytes| accumulator.record(&Event::decode(bytes).unwrap(), &vm)) as u64;
            }
        };
        while began.elapsed() < length {
            let mut poll = libc::pollfd { fd: wake_up.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: `poll` is a local pollfd that outlives the call, and the count of 1 keeps the kernel inside it.
            unsafe { libc::poll(&raw mut poll, 1, POLL_MS) };
            if reader == Reader::WakesUp {
                drain(&mut bed);
            }
        }
        stop.store(true, Relaxed);
        let took = began.elapsed();
        // The producers end after their current event.
        thread::sleep(Duration::from_millis(20));
        drain(&mut bed);
        let c = bed.counters();
        assert_eq!(c.rounds, delivered + c.dropped);
        let offered = if reader == Reader::None { calls.load(Relaxed) } else { c.rounds };
        Done { offered, delivered, seconds: took.as_secs_f64() }
    })
}
