//! A host larger than any at hand: 640 CPUs, 4096 vCPUs and 500 VMs, of which ten a second end and begin. As root with the real rings, made
//! for 640 CPUs, the real collector, and, for the states, the real programs, called by BPF_PROG_TEST_RUN; the bench writes the records into
//! the rings as the programs do. Without root the records go to an accumulator directly. `cargo xtask bench scale` prints each result with
//! its unit and condition; an hour of the host passes in some minutes, because no vCPU is waited for.

#![allow(clippy::unwrap_used, reason = "a benchmark: an error ends it")]
#![allow(missing_docs, reason = "a benchmark: nobody calls it")]

#[path = "../../tests/bed/mod.rs"]
mod bed;
mod cost;
mod host;
mod kernel;
mod states;
mod views;

use std::time::{Duration, Instant};

use tracer_common::{Event, Record};
use vmentry::{
    benching::Collector,
    model::{accumulator::Accumulator, interval::Interval},
};

use cost::{Times, allocated, ms_of_thread, row, thread_ms};
use host::{CHURN, CPUS, Host, VCPUS, VMS};
use kernel::Programs;
use views::Views;

pub const SECOND_NS: u64 = 1_000_000_000;
/// Rounds of each vCPU in a second of the busy host, and of the host with churn.
const BUSY: u32 = 200;
const CALM: u32 = 10;

fn main() {
    // `cargo test` runs benches too, to see that they work.
    let is_bench = std::env::args().any(|a| a == "--bench");
    let seconds = std::env::var("SCALE_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let seconds = seconds.unwrap_or(if is_bench { 3600 } else { 3 });
    println!("a made-up host: {CPUS} CPUs, {VCPUS} vCPUs, {VMS} VMs, {CHURN} of which a second end and begin");
    match kernel::load() {
        Ok(tracer) => {
            states::run(seconds as usize);
            with_rings(tracer, seconds, if is_bench { 5 } else { 1 });
        }
        Err(error) => {
            println!("rings, states, loss: n/a: the programs cannot be loaded here: {error:#}");
            directly(seconds);
        }
    }
    views::write_largest();
    views::report_names(tempfile::tempdir().unwrap().path());
}

/// The collector reads the rings.
fn with_rings(mut tracer: vmentry::kernel::tracer::Tracer, seconds: u64, busy_seconds: u32) {
    let mut programs = Programs::of(&mut tracer);
    let mut host = Host::new();
    let memory = format!("{:.0}", programs.ring_bytes() as f64 / 1e6);
    row("rings: memory", memory, "MB", &format!("--ring-kib auto: {} records of each CPU", programs.places()));
    let mut collector = Collector::start(tracer, host.proc()).unwrap();
    collector.cut().unwrap();
    busy(&mut host, &mut programs, &mut collector, busy_seconds);
    let mut views = Views::new();
    let (collect, names) = (ms_of_thread("collect"), ms_of_thread("names"));
    let (made, _) = programs.made();
    let mut cut = Times::default();
    for second in 0..seconds {
        for _ in 0..CALM {
            host.rounds(|cpu, event, _| programs.round(cpu, event));
        }
        host.churn();
        let mut interval = cut.of(|| collector.cut()).unwrap();
        interval.length_ns = SECOND_NS;
        if second == 0 {
            print_series(&interval);
        }
        views.add(interval);
    }
    let of_interval = |ms: f64| format!("{:.2}", ms / seconds as f64);
    let rate = (programs.made().0 - made) as f64 / seconds as f64;
    let condition = format!("{rate:.0} events/s and {CHURN} new VMs/s for {seconds} s");
    row("collector: CPU", of_interval(ms_of_thread("collect") - collect), "ms/interval", &condition);
    row(
        "naming of VMs: CPU",
        of_interval(ms_of_thread("names") - names),
        "ms/interval",
        "their thread; part of no other figure",
    );
    views.print();
    let (_, accounting) = collector.finish().unwrap();
    let (made, dropped) = programs.made();
    let delivered: u64 = accounting.cpus.iter().map(|cpu| cpu.delivered).sum();
    assert_eq!((delivered + dropped, accounting.exact), (made, true));
    row("lost", dropped, "events", &format!("delivered {delivered} + lost {dropped} = made {made}, exactly"));
}

/// Rounds in real time.
fn busy(host: &mut Host, programs: &mut Programs, collector: &mut Collector, seconds: u32) {
    let began = Instant::now();
    let before = ms_of_thread("collect");
    for tick in 0..seconds * 100 {
        for _ in 0..BUSY / 100 {
            host.rounds(|cpu, event, _| programs.round(cpu, event));
        }
        std::thread::sleep((Duration::from_millis(10) * (tick + 1)).saturating_sub(began.elapsed()));
        if tick % 100 == 99 {
            collector.cut().unwrap();
        }
    }
    let (wall, cpu_ms) = (began.elapsed().as_secs_f64(), ms_of_thread("collect") - before);
    let (made, dropped) = programs.made();
    let condition = format!("{:.2} million events/s in real time for {wall:.1} s", made as f64 / wall / 1e6);
    row("collector: CPU", format!("{:.0}", cpu_ms * 1e6 / (made - dropped) as f64), "ns/event", &condition);
    row("collector: CPU", format!("{:.0}", cpu_ms / wall / 10.0), "% of a core", "the same");
    row("lost", dropped, "events", &format!("the same, of {made}; the writer of the records takes a core, too"));
}

/// The records go to an accumulator.
fn directly(seconds: u64) {
    let mut host = Host::new();
    let mut views = Views::new();
    let (mut made, mut ms) = (0, 0.0);
    for second in 0..seconds {
        let mut records = Vec::new();
        for _ in 0..CALM {
            host.rounds(|_, event, vm| records.push((event.encode(), std::sync::Arc::clone(vm))));
        }
        host.churn();
        made += records.len();
        let before = thread_ms();
        let mut accumulator = Accumulator::of(Interval { length_ns: SECOND_NS, ..Interval::default() });
        for (bytes, vm) in &records {
            accumulator.record(&Event::decode(&bytes[..Record::SHORT]).unwrap(), vm);
        }
        let interval = accumulator.finish();
        ms += thread_ms() - before;
        if second == 0 {
            print_series(&interval);
        }
        views.add(interval);
    }
    let condition = "decoding, counting and the ends of intervals; without rings and names";
    row("collector: CPU", format!("{:.0}", ms * 1e6 / made as f64), "ns/event", condition);
    views.print();
}

fn print_series(interval: &Interval) {
    let before = allocated();
    let copy = interval.clone();
    let bytes = allocated().saturating_sub(before);
    let (series, vms) = (copy.series.len(), copy.vms.len());
    row(
        "series: memory",
        format!("{:.1}", bytes as f64 / 1e6),
        "MB/interval",
        &format!("{series} series of {vms} VMs"),
    );
}
