//! From the calibration guest's records to samples: what of a round trip was VM exit, host and VM entry. Pure.

use tracer_common::{Isa, StampedEvent};

use super::mapping::Mapping;
use crate::guest::calibration::Step;

/// Iterations at the beginning of a run that are not counted: caches and the VMCS are cold.
pub const WARM_UP: u64 = 8;

/// One exit of the calibration guest, and the entry after it. All in TSC cycles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// the exit that it is of
    pub step: Step,
    /// from the guest's last stamp to the program on kvm_exit: the instruction, the VM exit
    pub exit_latency: f64,
    /// from the program on kvm_exit to the one on kvm_entry: the host's handling
    pub host: f64,
    /// from the program on kvm_entry to the guest's first stamp: the VM entry
    pub entry_latency: f64,
    /// from stamp to stamp, as the guest sees it; `exit_latency + host + entry_latency`
    pub round_trip: f64,
    /// between the guest's stamps before that exit; none where it took no first one in that round
    pub guest: Option<f64>,
    /// pin-control writes before that entry; none where they are not known
    pub pin_writes: Option<u8>,
    /// the primary execution controls were written before that entry; none where they were not read
    pub exec_written: Option<bool>,
    /// VM entry and VM exit of the round that ends with this exit, by the companion's stopwatch, ns; none without it
    pub stopwatch_ns: Option<u32>,
}

/// What was recognised and is in no figure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Apart {
    /// the first iterations of each run
    pub warm_up: u64,
    /// the host took the CPU between a stamp and the VM exit or VM entry that it is of
    pub interrupted: u64,
    /// the vCPU was on another CPU than the one it was pinned to
    pub migrated: u64,
    /// the record of the exit or of the entry after it was lost, or was the last of its run
    pub incomplete: u64,
    /// outside of what the clocks were compared for
    pub unclocked: u64,
}

impl Apart {
    /// Adds another's counts.
    pub fn add(&mut self, other: Apart) {
        self.warm_up += other.warm_up;
        self.interrupted += other.interrupted;
        self.migrated += other.migrated;
        self.incomplete += other.incomplete;
        self.unclocked += other.unclocked;
    }
}

/// The samples of one run, in the order of the exits.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// those that count
    pub samples: Vec<Sample>,
    /// those that do not
    pub apart: Apart,
    /// largest bound of the clocks' error, cycles
    pub clock_error: f64,
    /// guest rounds between two stamps whose parts add up to entry_to_exit within the clocks' error
    pub consistent: u64,
    /// those whose parts do not
    pub inconsistent: u64,
}

impl Samples {
    /// Appends another run's.
    pub fn add(&mut self, other: Samples) {
        self.samples.extend(other.samples);
        self.apart.add(other.apart);
        self.clock_error = self.clock_error.max(other.clock_error);
        self.consistent += other.consistent;
        self.inconsistent += other.inconsistent;
    }
}

/// Whether an exit with this reason is the one that a step causes.
fn is_reason_of(step: Step, isa: Isa, reason: u32, measured: &[u32]) -> bool {
    const VMX_CPUID: u32 = 10;
    const VMX_DR_ACCESS: u32 = 29;
    const VMX_MSR_WRITE: u32 = 32;
    match step {
        Step::Measured => measured.contains(&reason),
        Step::Debug => isa == Isa::Vmx && reason == VMX_DR_ACCESS,
        Step::Arm | Step::Cancel => isa == Isa::Vmx && reason == VMX_MSR_WRITE,
        Step::After | Step::After2 | Step::After3 => isa == Isa::Vmx && reason == VMX_CPUID,
    }
}

/// Finds the samples in one run's records, which are in the order of the exits. `measured` are the exit reasons of the exit that the
/// run is about, `cpu` the CPU that the vCPU is pinned to.
pub fn find(records: &[StampedEvent], mapping: &Mapping, measured: &[u32], cpu: u32) -> Samples {
    let mut found = Samples::default();
    for (at, record) in records.iter().enumerate() {
        let Some(step) = Step::from_mark(record.mark) else { continue };
        let outline = record.event.outline();
        let is_the_exit = outline.reason().is_some_and(|reason| is_reason_of(step, outline.isa(), reason, measured));
        if record.number <= WARM_UP {
            found.apart.warm_up += u64::from(is_the_exit);
            continue;
        }
        if !is_the_exit {
            // An interrupt of the host, for one: the guest goes on where it was, and exits as it should later.
            continue;
        }
        let next = records.get(at + 1).filter(|next| next.event.seq == record.event.seq + 1);
        let Some(next) = next else {
            found.apart.incomplete += 1;
            continue;
        };
        if record.event.cpu != cpu || next.event.cpu != cpu {
            found.apart.migrated += 1;
            continue;
        }
        let (Some(here), Some(then)) = (Clocked::of(record, mapping), Clocked::of(next, mapping)) else {
            found.apart.unclocked += 1;
            continue;
        };
        found.clock_error = found.clock_error.max(here.error).max(then.error);
        let (Some(left), Some(entered)) = (here.left(record), then.entered(next)) else {
            found.apart.interrupted += 1;
            continue;
        };
        if let Some(entered) = here.entered(record) {
            let parts = (entered - here.entry) + (left - entered) + (here.exit - left);
            let whole = record.event.entry_to_exit_ns() as f64 * mapping.khz() / 1e6;
            *if (parts - whole).abs() <= 2.0 * here.error { &mut found.consistent } else { &mut found.inconsistent } +=
                1;
        }
        found.samples.push(Sample {
            step,
            exit_latency: here.exit - left,
            host: then.entry - here.exit,
            entry_latency: entered - then.entry,
            round_trip: entered - left,
            guest: here.entered(record).filter(|first| *first <= left).map(|first| left - first),
            pin_writes: next.event.outline().known_pin_writes(),
            exec_written: exec_written(record, next),
            stopwatch_ns: record
                .event
                .flags
                .has(tracer_common::Flags::TRANSITION_KNOWN)
                .then_some(record.event.transition_ns),
        });
    }
    found
}

fn exec_written(record: &StampedEvent, next: &StampedEvent) -> Option<bool> {
    let looks = [record.exec_exit, next.exec_entry, next.exec_exit];
    // No vCPU runs with all of these controls off.
    (!looks.contains(&0)).then(|| looks[0] != looks[1] || looks[1] != looks[2])
}

/// A record's entry and exit on the TSC.
struct Clocked {
    entry: f64,
    exit: f64,
    error: f64,
}

impl Clocked {
    fn of(record: &StampedEvent, mapping: &Mapping) -> Option<Self> {
        let (entry, before) = mapping.tsc(record.event.entry_ns)?;
        let (exit, after) = mapping.tsc(record.event.exit_ns)?;
        Some(Self { entry, exit, error: before.max(after) })
    }

    /// The guest's first stamp, if it took it in this round.
    fn entered(&self, record: &StampedEvent) -> Option<f64> {
        self.within(record.entry_tsc as f64)
    }

    /// Its last stamp, if it took it in this round. The low half counts from the first one, which may be of a round before.
    fn left(&self, record: &StampedEvent) -> Option<f64> {
        let since = (record.exit_tsc as u32).wrapping_sub(record.entry_tsc as u32);
        self.within((record.entry_tsc + u64::from(since)) as f64)
    }

    fn within(&self, stamp: f64) -> Option<f64> {
        (self.entry - self.error <= stamp && stamp <= self.exit + self.error).then_some(stamp)
    }
}

#[cfg(test)]
mod tests {
    use tracer_common::{Event, Flags};

    use super::{super::mapping::Sandwich, *};

    const CPUID: u32 = 10;
    const EXTERNAL_INTERRUPT: u32 = 1;
    const MARK: u64 = u64::from_be_bytes(*b"vmentry\x01");

    /// 2 cycles per ns, from 0 to 1 ms.
    fn mapping() -> Mapping {
        let at = |ns: u64| Sandwich { before: 2 * ns, ns, after: 2 * ns };
        Mapping::new(&[at(0), at(500_000), at(1_000_000)]).unwrap()
    }

    /// Entered at `entry_ns`, first stamp 100 cycles later, last stamp 50 after it, exit 30 after that.
    fn record(seq: u64, entry_ns: u64) -> StampedEvent {
        let entered = 2 * entry_ns + 100;
        StampedEvent {
            event: Event {
                entry_ns,
                exit_ns: entry_ns + 90,
                seq,
                exit_reason: CPUID,
                isa: Isa::Vmx as u8,
                cpu: 3,
                flags: Flags::REASON_KNOWN,
                ..Event::default()
            },
            entry_tsc: entered,
            exit_tsc: (entered + 50) & 0xffff_ffff,
            number: WARM_UP + seq,
            mark: MARK,
            exec_entry: 7,
            exec_exit: 7,
        }
    }

    fn found(records: &[StampedEvent]) -> Samples {
        find(records, &mapping(), &[CPUID], 3)
    }

    #[test]
    fn a_round_trip_falls_into_its_three_parts() {
        let found = found(&[record(1, 1000), record(2, 2000), record(3, 3000)]);
        assert_eq!(found.samples.len(), 2, "the last one's entry was not seen");
        assert_eq!((found.apart.incomplete, found.consistent, found.inconsistent), (1, 2, 0));
        let sample = found.samples[0];
        assert_eq!((sample.exit_latency, sample.host, sample.entry_latency), (30.0, 1820.0, 100.0));
        assert_eq!(sample.round_trip, 1950.0);
        assert_eq!((sample.guest, sample.exec_written), (Some(50.0), Some(false)));
    }

    #[test]
    fn a_low_half_that_wraps_is_put_right() {
        // Stamps on both sides of 2^32 cycles.
        let shift = (1_u64 << 32) - 2120;
        let at = |ns: u64| Sandwich { before: 2 * ns + shift, ns, after: 2 * ns + shift };
        let mapping = Mapping::new(&[at(0), at(500_000), at(1_000_000)]).unwrap();
        let shifted = |mut r: StampedEvent| {
            let left = r.entry_tsc + 50 + shift;
            r.entry_tsc += shift;
            r.exit_tsc = left & 0xffff_ffff;
            r
        };
        let records = [shifted(record(1, 1000)), shifted(record(2, 2000))];
        assert!(records[0].entry_tsc < 1 << 32 && records[0].exit_tsc < 100, "{records:?}");
        let found = find(&records, &mapping, &[CPUID], 3);
        assert_eq!(found.samples[0].exit_latency, 30.0);
    }

    #[test]
    fn an_interrupt_before_the_last_stamps_exit_is_set_apart() {
        let mut late = record(2, 2000);
        // The stamp is of the round before: the host interrupted between it and CPUID.
        late.exit_tsc = record(1, 1000).exit_tsc;
        late.entry_tsc = record(1, 1000).entry_tsc;
        let found = found(&[record(1, 1000), late, record(3, 3000)]);
        assert_eq!((found.samples.len(), found.apart.interrupted, found.apart.incomplete), (0, 2, 1));
    }

    #[test]
    fn an_exit_for_another_reason_is_no_sample_and_nor_is_the_entry_before_it_if_no_instruction_ran() {
        let mut interrupt = record(2, 2000);
        interrupt.event.exit_reason = EXTERNAL_INTERRUPT;
        interrupt.entry_tsc = record(1, 1000).entry_tsc;
        let found = found(&[record(1, 1000), interrupt, record(3, 3000), record(4, 4000)]);
        assert_eq!((found.samples.len(), found.apart.interrupted), (1, 1));
        assert_eq!(found.samples[0].host, 1820.0);
    }

    #[test]
    fn other_cpus_lost_records_and_other_guests_are_set_apart() {
        let mut moved = record(2, 2000);
        moved.event.cpu = 4;
        assert_eq!(found(&[record(1, 1000), moved]).apart.migrated, 1);
        assert_eq!(found(&[record(1, 1000), record(3, 3000)]).apart.incomplete, 2);
        let mut foreign = record(2, 2000);
        foreign.mark = 1;
        assert_eq!(found(&[foreign, foreign]).apart, Apart::default());
        let mut early = record(1, 1000);
        early.number = WARM_UP;
        assert_eq!(found(&[early, record(2, 2000)]).apart, Apart { warm_up: 1, incomplete: 1, ..Apart::default() });
        assert_eq!(found(&[record(1, 1000), record(2, 2_000_000)]).apart.unclocked, 1);
    }

    #[test]
    fn a_written_control_shows_between_any_two_of_three_looks() {
        let (before, mut after) = (record(1, 1000), record(2, 2000));
        after.exec_entry = 6;
        after.exec_exit = 6;
        assert_eq!(exec_written(&before, &after), Some(true));
        after.exec_entry = 7;
        assert_eq!(exec_written(&before, &after), Some(true));
        after.exec_exit = 0;
        assert_eq!(exec_written(&before, &after), None);
    }
}
