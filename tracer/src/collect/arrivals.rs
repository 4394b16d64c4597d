//! Entries that arrived, by CPU, checked against the kernel's counters: `entries == delivered + dropped`.

use tracer_common::Counters;

use crate::model::{
    accounting::{Accounting, CpuAccount},
    measurement::Aggregation,
};

/// Records that arrived from one CPU.
#[derive(Clone, Copy, Default)]
struct Arrived {
    /// number of the last record
    last_seq: u64,
    delivered: u64,
}

/// Entries since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// entries, by the numbers of their records
    pub(super) entries: u64,
    /// entries without a record
    pub(super) dropped: u64,
}

/// Everything that arrived since the programs were attached.
pub(super) struct Arrivals {
    aggregation: Aggregation,
    by_cpu: Vec<Arrived>,
    /// entries read from series that the programs count
    in_kernel: u64,
}

impl Arrivals {
    /// None yet. CPUs below `cpus` have a ring.
    pub(super) fn new(aggregation: Aggregation, cpus: usize) -> Self {
        Self { aggregation, by_cpu: vec![Arrived::default(); cpus], in_kernel: 0 }
    }

    /// Adds so many records of a CPU that has a ring; `last_seq` is the number of its last record so far. A gap in the numbers is as many drops.
    pub(super) fn add_records(&mut self, cpu: u32, records: u64, last_seq: u64) -> Progress {
        let arrived = &mut self.by_cpu[cpu as usize];
        let entries = last_seq.saturating_sub(arrived.last_seq);
        arrived.last_seq += entries;
        arrived.delivered += records;
        Progress { entries, dropped: entries.saturating_sub(records) }
    }

    /// Adds entries that the programs counted.
    pub(super) fn add_in_kernel(&mut self, entries: u64) {
        self.in_kernel += entries;
    }

    /// Whether all entries that the kernel counted have arrived or were dropped.
    pub(super) fn are_complete(&self, kernel: &[Counters]) -> bool {
        if self.aggregation == Aggregation::InKernel {
            // Over all CPUs together: a series belongs to a vCPU, which may run on any of them.
            return kernel.iter().map(|c| c.rounds - c.dropped).sum::<u64>() == self.in_kernel;
        }
        kernel.iter().enumerate().all(|(cpu, c)| c.rounds == self.of_cpu(cpu).delivered + c.dropped)
    }

    /// The accounting at the end, and the drops after the last record of each CPU: no later record shows them as a gap.
    pub(super) fn accounting(&self, kernel: &[Counters], open: u64) -> (Accounting, u64) {
        let mut accounting = Accounting { exact: self.are_complete(kernel), open, ..Accounting::default() };
        let mut trailing = 0;
        for (cpu, (number, c)) in (0..).zip(kernel).enumerate() {
            let arrived = match self.aggregation {
                Aggregation::Records => self.of_cpu(cpu),
                Aggregation::InKernel => Arrived { last_seq: c.rounds, delivered: c.rounds - c.dropped },
            };
            trailing += c.rounds.saturating_sub(arrived.last_seq);
            if c.rounds > 0 {
                let Arrived { delivered, .. } = arrived;
                accounting.cpus.push(CpuAccount { cpu: number, entries: c.rounds, delivered, dropped: c.dropped });
            }
        }
        (accounting, trailing)
    }

    fn of_cpu(&self, cpu: usize) -> Arrived {
        self.by_cpu.get(cpu).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(rounds: u64, dropped: u64) -> Counters {
        Counters { rounds, dropped, ..Counters::default() }
    }

    #[test]
    fn a_gap_in_the_numbers_is_the_number_of_drops() {
        let mut a = Arrivals::new(Aggregation::Records, 1);
        let mut add = |records, last_seq| {
            let Progress { entries, dropped } = a.add_records(0, records, last_seq);
            (entries, dropped)
        };
        assert_eq!(add(0, 0), (0, 0));
        assert_eq!(add(1, 1), (1, 0));
        assert_eq!(add(1, 2), (1, 0));
        assert_eq!(add(3, 9), (7, 4));
        assert_eq!(add(0, 9), (0, 0));
        assert_eq!((a.by_cpu[0].delivered, a.by_cpu[0].last_seq), (5, 9));
    }

    #[test]
    fn drops_after_the_last_record_are_found_at_the_end() {
        let mut a = Arrivals::new(Aggregation::Records, 2);
        a.add_records(0, 5, 9);
        let kernel = [counted(12, 7), counted(0, 0), counted(3, 3)];
        let (accounting, trailing) = a.accounting(&kernel, 1);
        let cpus = [
            CpuAccount { cpu: 0, entries: 12, delivered: 5, dropped: 7 },
            CpuAccount { cpu: 2, entries: 3, delivered: 0, dropped: 3 },
        ];
        assert_eq!(accounting, Accounting { exact: true, open: 1, cpus: cpus.into(), left_out: None });
        assert_eq!(trailing, 3 + 3, "of CPU 0, and of CPU 2, which has no ring");
    }

    #[test]
    fn a_record_that_did_not_arrive_is_not_exact() {
        let mut a = Arrivals::new(Aggregation::Records, 1);
        a.add_records(0, 4, 5);
        assert!(!a.are_complete(&[counted(5, 0)]));
        assert!(a.are_complete(&[counted(5, 1)]));
    }

    #[test]
    fn in_kernel_counts_are_exact_over_all_cpus_together() {
        let mut a = Arrivals::new(Aggregation::InKernel, 1);
        let kernel = [counted(5, 1), counted(3, 0)];
        a.add_in_kernel(6);
        assert!(!a.are_complete(&kernel));
        a.add_in_kernel(1);
        let (accounting, trailing) = a.accounting(&kernel, 0);
        assert_eq!((accounting.exact, trailing, accounting.cpus[0].delivered), (true, 0, 4));
    }
}
