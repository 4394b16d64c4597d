//! Cost of a record in user space: decode it and add it to an interval, on one core. `cargo bench -p vmentry --bench collect`
//! prints events per second, least, middle and most of several runs; `-- --once` does one run, to be counted by callgrind.

#![allow(clippy::unwrap_used, reason = "a benchmark: an error ends it")]

use std::{sync::Arc, time::Instant};

use tracer_common::{Event, Flags, Record};
use vmentry::model::{
    accumulator::Accumulator,
    interval::{Interval, Vm},
};

const RUNS: usize = 7;
const EVENTS: usize = 1 << 20;

/// A host whose VMs and vCPUs enter in random order: most exits are of a few reasons, and their durations spread over a decade.
fn records(vms: u32, vcpus: u32) -> Vec<Vec<u8>> {
    let mut random = vmentry::compare::random::Random::new(1);
    let reasons = [10, 12, 30, 32, 48, 52, 1, 32, 12, 12];
    let mut previous = Event::default().outline();
    (0..EVENTS as u64 / 64)
        .map(|n| {
            let (entry_ns, spread) = (1_000_000 + n * 4000, random.below(4000) as u64);
            let event = Event {
                entry_ns,
                exit_ns: entry_ns + 600 + spread,
                exit_to_entry_ns: 900 + random.below(9000) as u64,
                kvm: 0xffff_8880_0000_0000 + u64::from(random.below(vms as usize) as u32) * 0x10000,
                seq: n + 1,
                exit_reason: reasons[random.below(reasons.len())],
                vcpu: random.below(vcpus as usize) as u32,
                flags: Flags::LEVEL_KNOWN
                    | Flags::IMMEDIATE_KNOWN
                    | Flags::SOFT_KNOWN
                    | Flags::PIN_READ
                    | Flags::SHADOW_KNOWN
                    | Flags::PIN_WRITES_KNOWN
                    | Flags::REASON_KNOWN,
                isa: 1,
                previous,
                ..Event::default()
            };
            previous = event.outline();
            event.encode()[..Record::SHORT].to_vec()
        })
        .collect()
}

/// Folds all records into an interval; ns, series, and bytes of memory that the growing interval takes.
fn fold(records: &[Vec<u8>], vms: &[Arc<Vm>]) -> (u64, usize, usize) {
    let before = memory();
    let start = Instant::now();
    let mut accumulator = Accumulator::of(Interval::starting(0));
    for _ in 0..64 {
        for bytes in records {
            let event = Event::decode(bytes).unwrap();
            accumulator.record(&event, &vms[(event.kvm >> 16) as usize % vms.len()]);
        }
    }
    let bytes = memory().saturating_sub(before);
    let interval = accumulator.finish();
    assert_eq!(interval.series.values().map(|s| s.entries()).sum::<u64>(), records.len() as u64 * 64);
    (start.elapsed().as_nanos() as u64, interval.series.len(), bytes)
}

/// Bytes that are allocated, by glibc's own account.
fn memory() -> usize {
    // SAFETY: a function without arguments.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

fn main() {
    let once = std::env::args().any(|a| a == "--once");
    for (vms, vcpus) in [(1, 1), (1, 8), (20, 8), (200, 16)] {
        let names: Vec<_> = (0..vms).map(|id| Arc::new(Vm { id, name: format!("vm{id}"), ..Vm::default() })).collect();
        let records = records(vms, vcpus);
        let folds: Vec<_> = (0..if once { 1 } else { RUNS }).map(|_| fold(&records, &names)).collect();
        let (_, series, bytes) = folds[0];
        let mut ns: Vec<u64> = folds.into_iter().map(|(ns, ..)| ns).collect();
        ns.sort_unstable();
        let rate = |ns: u64| records.len() as f64 * 64.0 * 1e3 / ns as f64;
        let (least, middle, most) = (rate(ns[ns.len() - 1]), rate(ns[ns.len() / 2]), rate(ns[0]));
        println!(
            "{vms} VMs x {vcpus} vCPUs: {least:.2} / {middle:.2} / {most:.2} million events/s (least, median, most); {series} series of \
             VM, vCPU and reason, {:.1} kB each",
            bytes as f64 / series as f64 / 1e3
        );
        if once {
            break;
        }
    }
}
