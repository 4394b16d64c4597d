//! Two vCPUs that run as fast as they can on two CPUs while the series that the programs count are read: every look must be consistent.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use aya::programs::{RawTracePoint, RawTracePointRunOptions, TestRun};
use vmentry::{
    kernel::options::Options,
    model::{figures::Figure, measurement::Aggregation},
};

use super::{Bed, Crowd, EXITS, PIN, REASON, VMCS01, VMX, config, pin_to};

const CPUS: usize = 2;
/// Time from one look at the series to the next.
const INTERVAL: Duration = Duration::from_millis(10);

/// The looks at the series of the two vCPUs, and what they found.
#[derive(Debug, Default)]
pub struct Looks {
    pub intervals: u64,
    /// looks that found growth
    pub grown: u64,
    pub rounds: u64,
    /// growths of a series whose counts do not belong together, and the first of them
    pub torn: u64,
    pub first_torn: String,
    /// host times in a series beyond its entries
    pub too_many_host_times: u64,
    /// entries found, entries that the kernel counted, rounds that were run
    pub sums: [u64; 3],
    /// host times found
    pub host_times: u64,
    pub vcpus: u64,
}

/// Reads the series every 10 ms while the vCPUs run, and once more after they have ended. Each round has exactly one pin-control write.
pub fn look_at_busy_series(length: Duration) -> Looks {
    let mut bed = Bed::new(config(), Options { aggregation: Aggregation::InKernel, ..Options::default() });
    let vcpus = &bed.vcpus_in_mapped_memory(CPUS);
    let programs = [0; CPUS].map(|_| [bed.program("kvm_entry"), bed.program("kvm_exit")]);
    let stop = &AtomicBool::new(false);
    let mut looks = Looks { vcpus: CPUS as u64, ..Looks::default() };
    let mut totals = HashMap::new();
    thread::scope(|scope| {
        let threads: Vec<_> = programs
            .into_iter()
            .enumerate()
            .map(|(cpu, [entry, exit])| scope.spawn(move || run_rounds(cpu, &entry, &exit, vcpus, stop)))
            .collect();
        let began = Instant::now();
        while began.elapsed() < length {
            thread::sleep(INTERVAL);
            looks.look(&mut bed, &mut totals);
        }
        stop.store(true, Relaxed);
        looks.rounds = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    });
    looks.look(&mut bed, &mut totals);
    let counters = bed.counters();
    let sum = |figure: usize| totals.values().map(|counts| counts[figure]).sum::<u64>();
    looks.sums = [sum(0), counters.rounds - counters.dropped, looks.rounds];
    looks.host_times = sum(1);
    looks
}

impl Looks {
    fn look(&mut self, bed: &mut Bed, totals: &mut HashMap<(u32, u64), [u64; 2]>) {
        let mut has_grown = false;
        bed.tracer.in_kernel_series().unwrap().take(|growth| {
            has_grown = true;
            let (entries, writes) = (growth.series.entries(), &growth.series[Figure::PinWrites]);
            if (writes.count(), writes.sum()) != (entries, entries) {
                self.torn += 1;
                if self.first_torn.is_empty() {
                    self.first_torn =
                        format!("{entries} entries, {} of them with {} pin writes", writes.count(), writes.sum());
                }
            }
            let total = totals.entry((growth.owner.vcpu, growth.outline.0)).or_insert([0; 2]);
            total[0] += entries;
            total[1] += growth.series[Figure::ExitToEntry].count();
            self.too_many_host_times += u64::from(total[1] > total[0]);
        });
        self.intervals += 1;
        self.grown += u64::from(has_grown);
    }

    /// Fails where a look was not consistent, or an entry is missing at the end.
    pub fn check(&self) {
        assert_eq!((self.torn, self.too_many_host_times), (0, 0), "{self:?}");
        assert_eq!(self.sums, [self.rounds; 3], "{self:?}");
        assert_eq!(self.host_times, self.rounds - self.vcpus, "of all entries but the first of each vCPU: {self:?}");
        assert!(self.rounds > 1000 && self.grown > 1, "{self:?}");
    }
}

/// Runs rounds of a vCPU on the CPU of its number until it is told to stop; returns their number. Two exit reasons alternate, two rounds each.
fn run_rounds(cpu: usize, entry: &RawTracePoint, exit: &RawTracePoint, vcpus: &Crowd, stop: &AtomicBool) -> u64 {
    pin_to(cpu);
    let run = |program: &RawTracePoint, second: u64| {
        let mut options = RawTracePointRunOptions::new();
        options.args[..2].copy_from_slice(&[vcpus.at(cpu), second]);
        program.test_run(options).unwrap();
    };
    let mut rounds = 0;
    while !stop.load(Relaxed) {
        vcpus.set(cpu, EXITS, rounds);
        vcpus.set(cpu, VMCS01 + PIN, [0x3f, 0x7f][(rounds % 2) as usize]);
        run(entry, 0);
        vcpus.set(cpu, REASON, [10, 10, 12, 12][(rounds % 4) as usize]);
        run(exit, VMX);
        rounds += 1;
    }
    rounds
}
