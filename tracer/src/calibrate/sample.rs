//! Finds samples in the calibration guest's records: a round trip, divided into exit latency, host time and VM-entry latency. Pure.

use tracer_common::{Flags, Isa, StampedEvent};

use crate::guest::calibration::Step;
use crate::host::clock_mapping::Mapping;

/// Iterations at the beginning of a run that are not counted, because caches and the VMCS are cold.
pub(crate) const WARM_UP: u32 = 8;

/// One exit of the calibration guest and the VM entry after it. Durations are in TSC cycles unless a name says ns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sample {
    /// the instruction that exited
    pub(crate) step: Step,
    /// from the guest's last stamp to the program on kvm_exit: the exiting instruction and the VM exit
    pub(crate) exit_latency: f64,
    /// host time, from the program on kvm_exit to the one on kvm_entry
    pub(crate) host: f64,
    /// VM-entry latency, from the program on kvm_entry to the guest's first stamp
    pub(crate) entry_latency: f64,
    /// from the last stamp to the first one after the VM entry: `exit_latency + host + entry_latency`
    pub(crate) round_trip: f64,
    /// between the guest's first and last stamp before the exit; none if it took no first stamp since the last VM entry
    pub(crate) guest: Option<f64>,
    /// pin-control writes before the VM entry; none if unknown
    pub(crate) pin_writes: Option<u8>,
    /// whether the primary execution controls were written before the VM entry; none if they could not be read
    pub(crate) exec_written: Option<bool>,
    /// transition time of the round that ends with this exit, by the companion patch's stopwatch, ns; none without it
    pub(crate) stopwatch_ns: Option<u32>,
}

/// Records of the guest that are excluded from every figure, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Excluded {
    /// the first iterations of each run
    pub(crate) warm_up: u64,
    /// the host interrupted the guest between a stamp and its VM exit or VM entry
    pub(crate) interrupted: u64,
    /// the vCPU ran on another CPU than the one it is pinned to
    pub(crate) migrated: u64,
    /// the record of the VM entry after the exit was lost, or does not exist because the exit is the last of its run
    pub(crate) incomplete: u64,
    /// outside of the clock readings
    pub(crate) unclocked: u64,
}

impl Excluded {
    /// Adds another's counts.
    pub(crate) fn add(&mut self, other: Excluded) {
        self.warm_up += other.warm_up;
        self.interrupted += other.interrupted;
        self.migrated += other.migrated;
        self.incomplete += other.incomplete;
        self.unclocked += other.unclocked;
    }
}

/// The samples of one run, in the order of the exits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    /// samples for the figures
    pub(crate) samples: Vec<Sample>,
    /// excluded records
    pub(crate) excluded: Excluded,
    /// largest bound of the clocks' error, cycles
    pub(crate) clock_error: f64,
    /// rounds whose parts add up to the guest time within the clocks' error
    pub(crate) consistent: u64,
    /// rounds whose parts do not
    pub(crate) inconsistent: u64,
}

impl Samples {
    /// Removes the samples and their counts, but keeps the clocks' error.
    pub(crate) fn discard(&mut self) {
        *self = Self { clock_error: self.clock_error, ..Self::default() };
    }

    /// Appends another run's samples and counts.
    pub(crate) fn add(&mut self, other: Samples) {
        self.samples.extend(other.samples);
        self.excluded.add(other.excluded);
        self.clock_error = self.clock_error.max(other.clock_error);
        self.consistent += other.consistent;
        self.inconsistent += other.inconsistent;
    }
}

/// Whether this step causes exits with this reason. `measured` are the reasons of [`Step::Measured`].
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

/// Finds the samples in one run's records, which must be in the order of the exits. `measured` are the reasons of the exit that the
/// program is for, and `cpu` is the CPU that the vCPU is pinned to.
pub(crate) fn find(records: &[StampedEvent], mapping: &Mapping, measured: &[u32], cpu: u32) -> Samples {
    let mut found = Samples::default();
    for (at, record) in records.iter().enumerate() {
        let Some(step) = Step::from_mark(record.mark) else { continue };
        let outline = record.event.outline();
        let is_the_exit = outline.reason().is_some_and(|reason| is_reason_of(step, outline.isa(), reason, measured));
        if record.number <= u64::from(WARM_UP) {
            found.excluded.warm_up += u64::from(is_the_exit);
            continue;
        }
        if !is_the_exit {
            // An interrupt of the host, for example. The guest continues and makes the expected exit later.
            continue;
        }
        let next = records.get(at + 1).filter(|next| next.event.seq == record.event.seq + 1);
        let Some(next) = next else {
            found.excluded.incomplete += 1;
            continue;
        };
        if record.event.cpu != cpu || next.event.cpu != cpu {
            found.excluded.migrated += 1;
            continue;
        }
        found.add_exit(step, record, next, mapping);
    }
    found
}

impl Samples {
    /// Adds the sample of the exit in `record` and the VM entry in `next`, or counts it as excluded.
    fn add_exit(&mut self, step: Step, record: &StampedEvent, next: &StampedEvent, mapping: &Mapping) {
        let (Some(here), Some(then)) = (Clocked::of(record, mapping), Clocked::of(next, mapping)) else {
            self.excluded.unclocked += 1;
            return;
        };
        self.clock_error = self.clock_error.max(here.error).max(then.error);
        let (Some(left), Some(entered)) = (here.last_stamp(record), then.first_stamp(next)) else {
            self.excluded.interrupted += 1;
            return;
        };
        let first = here.first_stamp(record);
        if let Some(first) = first {
            let parts = (first - here.entry) + (left - first) + (here.exit - left);
            let whole = record.event.entry_to_exit_ns() as f64 * mapping.khz() / 1e6;
            if (parts - whole).abs() <= 2.0 * here.error {
                self.consistent += 1;
            } else {
                self.inconsistent += 1;
            }
        }
        self.samples.push(Sample {
            step,
            exit_latency: here.exit - left,
            host: then.entry - here.exit,
            entry_latency: entered - then.entry,
            round_trip: entered - left,
            guest: first.filter(|first| *first <= left).map(|first| left - first),
            pin_writes: next.event.outline().known_pin_writes(),
            exec_written: exec_written(record, next),
            stopwatch_ns: record.event.flags.has(Flags::TRANSITION_KNOWN).then_some(record.event.transition_ns),
        });
    }
}

/// Whether the execution controls changed between the exit and the next one; none if they could not be read.
fn exec_written(record: &StampedEvent, next: &StampedEvent) -> Option<bool> {
    let controls = [record.exec_exit, next.exec_entry, next.exec_exit];
    // 0 means unread: no vCPU runs with all of these controls off.
    (!controls.contains(&0)).then(|| controls[0] != controls[1] || controls[1] != controls[2])
}

/// The VM entry and VM exit of a record on the TSC, and the bound of their error, in cycles.
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

    /// The guest's first stamp; none if it is not of this round.
    fn first_stamp(&self, record: &StampedEvent) -> Option<f64> {
        self.within(record.entry_tsc as f64)
    }

    /// The guest's last stamp; none if it is not of this round. Its low half counts from the first stamp, which may be of an earlier
    /// round.
    fn last_stamp(&self, record: &StampedEvent) -> Option<f64> {
        let since = record.exit_tsc.wrapping_sub(record.entry_tsc) & u64::from(u32::MAX);
        self.within((record.entry_tsc + since) as f64)
    }

    fn within(&self, stamp: f64) -> Option<f64> {
        (self.entry - self.error <= stamp && stamp <= self.exit + self.error).then_some(stamp)
    }
}

#[cfg(test)]
mod tests {
    use tracer_common::Event;

    use super::*;
    use crate::host::clock_mapping::ClockReading;

    const CPUID: u32 = 10;
    const EXTERNAL_INTERRUPT: u32 = 1;
    const MARK: u64 = u64::from_be_bytes(*b"vmentry\x01");

    /// 2 cycles per ns, from 0 to 1 ms.
    fn mapping() -> Mapping {
        let at = |ns: u64| ClockReading { before: 2 * ns, ns, after: 2 * ns };
        Mapping::new(&[at(0), at(500_000), at(1_000_000)]).unwrap()
    }

    /// VM entry at `entry_ns`, first stamp 100 cycles later, last stamp 50 cycles after it, VM exit 30 cycles after that.
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
            number: u64::from(WARM_UP) + seq,
            mark: MARK,
            exec_entry: 7,
            exec_exit: 7,
        }
    }

    fn found(records: &[StampedEvent]) -> Samples {
        find(records, &mapping(), &[CPUID], 3)
    }

    #[test]
    fn a_round_trip_is_divided_into_its_three_parts() {
        let found = found(&[record(1, 1000), record(2, 2000), record(3, 3000)]);
        assert_eq!(found.samples.len(), 2, "the entry after the last exit has no record");
        assert_eq!((found.excluded.incomplete, found.consistent, found.inconsistent), (1, 2, 0));
        let sample = found.samples[0];
        assert_eq!((sample.exit_latency, sample.host, sample.entry_latency), (30.0, 1820.0, 100.0));
        assert_eq!(sample.round_trip, 1950.0);
        assert_eq!((sample.guest, sample.exec_written), (Some(50.0), Some(false)));
    }

    #[test]
    fn a_stamp_whose_low_half_wraps_is_corrected() {
        // Stamps on both sides of 2^32 cycles.
        let shift = (1_u64 << 32) - 2120;
        let at = |ns: u64| ClockReading { before: 2 * ns + shift, ns, after: 2 * ns + shift };
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
    fn an_exit_that_was_interrupted_after_the_last_stamp_is_excluded() {
        let mut late = record(2, 2000);
        // The stamp is of the previous round, because the host interrupted between it and CPUID.
        late.exit_tsc = record(1, 1000).exit_tsc;
        late.entry_tsc = record(1, 1000).entry_tsc;
        let found = found(&[record(1, 1000), late, record(3, 3000)]);
        assert_eq!((found.samples.len(), found.excluded.interrupted, found.excluded.incomplete), (0, 2, 1));
    }

    #[test]
    fn an_exit_for_another_reason_is_no_sample() {
        let mut interrupt = record(2, 2000);
        interrupt.event.exit_reason = EXTERNAL_INTERRUPT;
        interrupt.entry_tsc = record(1, 1000).entry_tsc;
        let found = found(&[record(1, 1000), interrupt, record(3, 3000), record(4, 4000)]);
        assert_eq!((found.samples.len(), found.excluded.interrupted), (1, 1));
        assert_eq!(found.samples[0].host, 1820.0);
    }

    #[test]
    fn other_cpus_lost_records_and_other_guests_are_excluded() {
        let mut moved = record(2, 2000);
        moved.event.cpu = 4;
        assert_eq!(found(&[record(1, 1000), moved]).excluded.migrated, 1);
        assert_eq!(found(&[record(1, 1000), record(3, 3000)]).excluded.incomplete, 2);
        let mut foreign = record(2, 2000);
        foreign.mark = 1;
        assert_eq!(found(&[foreign, foreign]).excluded, Excluded::default());
        let mut early = record(1, 1000);
        early.number = WARM_UP.into();
        assert_eq!(
            found(&[early, record(2, 2000)]).excluded,
            Excluded { warm_up: 1, incomplete: 1, ..Excluded::default() }
        );
        assert_eq!(found(&[record(1, 1000), record(2, 2_000_000)]).excluded.unclocked, 1);
    }

    #[test]
    fn a_control_write_shows_between_any_two_of_three_reads() {
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
