//! Runs the calibration guest in this thread, traced and untraced, and reads the clocks and the records around each run.

use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail, ensure};
use tracer_common::{StampedEvent, StampedRecord, rules::TimerCause};

use super::sample::{self, Samples, WARM_UP};
use crate::{
    guest::{
        calibration::{CalibrationGuest, CalibrationProgram, GuestTask},
        deadline,
    },
    host::clock_mapping::{ClockReading, Mapping},
    kernel::tracer::Tracer,
};

/// Iterations of one run at most. Their records fit into a ring, which therefore need not be read during the run.
const BATCH: u32 = 500;

/// The guest, the tracer and the clocks of a calibration.
pub(crate) struct Bench<'a> {
    guest: CalibrationGuest,
    tracer: Tracer,
    /// the CPU that this thread is pinned to
    pub(crate) cpu: u32,
    /// settings of every run
    settings: Settings,
    stop: &'a AtomicBool,
    /// called after each run
    progress: &'a dyn Fn(),
    first_reading: Option<ClockReading>,
    last_reading: Option<ClockReading>,
}

/// The guest's settings, the same for every run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// loop instructions between two stamps
    pub(crate) work: u32,
    /// TSC cycles until the guest's timers
    pub(crate) delta: u32,
    /// TSC cycles until timers that are cancelled before they expire
    pub(crate) far: u64,
}

/// The results of traced runs.
#[derive(Debug, Default)]
pub(crate) struct Traced {
    /// samples found in the records
    pub(crate) samples: Samples,
    /// round trips as the guest listed them, without the warm-up
    pub(crate) round_trips: Vec<u32>,
    /// guest time of entries with a forced immediate exit, cycles
    pub(crate) immediate: Vec<f64>,
}

/// The results of untraced runs.
#[derive(Debug, Default)]
pub(crate) struct Untraced {
    /// round trips as the guest listed them, without the warm-up
    pub(crate) round_trips: Vec<u32>,
    /// cycles from the first iteration to the end of the last, summed over all runs
    pub(crate) cycles: u64,
    /// iterations of all runs, including the warm-up
    pub(crate) iterations: u64,
}

impl<'a> Bench<'a> {
    /// Creates the guest, for a thread that is pinned to `cpu`.
    pub(crate) fn new(
        tracer: Tracer,
        cpu: u32,
        settings: Settings,
        stop: &'a AtomicBool,
        progress: &'a dyn Fn(),
    ) -> Result<Self> {
        let guest = CalibrationGuest::new()?;
        Ok(Self { guest, tracer, cpu, settings, stop, progress, first_reading: None, last_reading: None })
    }

    /// The guest's TSC frequency according to KVM, in kHz.
    pub(crate) fn guest_khz(&self) -> Result<u32> {
        self.guest.tsc_khz()
    }

    /// Sets timers that are cancelled to a second ahead, for a TSC of `guest_khz` kHz.
    pub(crate) fn set_far(&mut self, guest_khz: u32) {
        self.settings.far = u64::from(guest_khz) * 1000;
    }

    /// Sets the timers that expire as far ahead as `count` traced round trips of an MSR access show to be necessary.
    pub(crate) fn set_delta(&mut self, count: u64) -> Result<()> {
        let mut round_trips = self.traced(CalibrationProgram::Msr, count, &[])?.round_trips;
        round_trips.sort_unstable();
        // Nine of ten: one that the host interrupted says nothing about the others.
        let slow = round_trips.get(round_trips.len() * 9 / 10).copied().context("list round trips")?;
        self.settings.delta = deadline::cycles_ahead(slow);
        Ok(())
    }

    /// TSC frequency between the first and the last reading of the clocks, in kHz; none before the second reading.
    pub(crate) fn khz(&self) -> Option<f64> {
        Mapping::new(&[self.first_reading?, self.last_reading?]).map(|m| m.khz())
    }

    /// Reads both clocks.
    pub(crate) fn read_clocks(&mut self) -> ClockReading {
        let reading = ClockReading::now();
        self.first_reading.get_or_insert(reading);
        self.last_reading = Some(reading);
        reading
    }

    /// Runs `count` iterations, plus the warm-up of each run, with the programs attached. `measured` are the reasons of the exit that
    /// the program is for.
    pub(crate) fn traced(&mut self, program: CalibrationProgram, count: u64, measured: &[u32]) -> Result<Traced> {
        self.tracer.attach()?;
        let traced = self.run_attached(program, count, measured);
        self.tracer.detach()?;
        traced
    }

    fn run_attached(&mut self, program: CalibrationProgram, count: u64, measured: &[u32]) -> Result<Traced> {
        let mut traced = Traced::default();
        let mut readings = vec![self.read_clocks()];
        let mut runs = Vec::new();
        for count in batches(count) {
            // Discards the records of the last run's end, and of anything else that this process ran.
            self.records()?;
            readings.push(self.read_clocks());
            let done = self.guest.run(&self.task(program, count), self.stop)?;
            readings.push(self.read_clocks());
            traced.round_trips.extend(without_warm_up(&done.round_trips, program));
            runs.push(self.records()?);
            (self.progress)();
        }
        ensure!(
            runs.iter().any(|records| !records.is_empty()),
            "no record of the guest's VM entries arrived: 'vmentry check' shows whether kvm's tracepoints fire on this host"
        );
        readings.push(self.read_clocks());
        let mapping = Mapping::new(&readings).context("compare the clocks: CLOCK_MONOTONIC stood still")?;
        for records in runs {
            let forced = records.iter().filter(|r| r.event.outline().timer_cause() == Some(TimerCause::Immediate));
            let forced = forced.filter(|r| r.number > u64::from(WARM_UP) && r.event.cpu == self.cpu);
            traced.immediate.extend(forced.map(|r| r.event.entry_to_exit_ns() as f64 * mapping.khz() / 1e6));
            traced.samples.add(sample::find(&records, &mapping, measured, self.cpu));
        }
        Ok(traced)
    }

    /// Runs `count` iterations, plus the warm-up of each run, without any program attached.
    pub(crate) fn untraced(&mut self, program: CalibrationProgram, count: u64) -> Result<Untraced> {
        let mut untraced = Untraced::default();
        for count in batches(count) {
            let done = self.guest.run(&self.task(program, count), self.stop)?;
            untraced.round_trips.extend(without_warm_up(&done.round_trips, program));
            untraced.cycles += done.last_tsc - done.first_tsc;
            untraced.iterations += u64::from(count + WARM_UP);
            (self.progress)();
        }
        Ok(untraced)
    }

    fn task(&self, program: CalibrationProgram, count: u32) -> GuestTask {
        let Settings { work, delta, far } = self.settings;
        GuestTask { program, count: count + WARM_UP, work, delta, far }
    }

    /// Drains the rings and returns the records in the order of the exits.
    fn records(&mut self) -> Result<Vec<StampedEvent>> {
        let mut records = Vec::new();
        let mut undecodable = 0;
        for ring in self.tracer.rings() {
            ring.drain(usize::MAX, |bytes| match StampedEvent::decode(bytes) {
                Some(record) => records.push(record),
                None => undecodable += 1,
            });
        }
        if undecodable > 0 {
            bail!("decode records: {undecodable} are undecodable: this is a bug, please report it");
        }
        records.sort_by_key(|record| record.event.exit_ns);
        Ok(records)
    }
}

/// Splits `count` iterations into runs of at most [`BATCH`].
fn batches(count: u64) -> impl Iterator<Item = u32> {
    let whole = count / u64::from(BATCH);
    let rest = u32::try_from(count % u64::from(BATCH)).ok().filter(|rest| *rest > 0);
    (0..whole).map(|_| BATCH).chain(rest)
}

/// The round trips after those of the warm-up.
fn without_warm_up(round_trips: &[u32], program: CalibrationProgram) -> impl Iterator<Item = u32> {
    round_trips.iter().skip(WARM_UP as usize * program.listed()).copied()
}

/// Bytes of each CPU's ring. The number of records that it holds is a power of two, so up to half of the bytes are unused.
pub(crate) const RING_BYTES: u32 = 2 << 20;
/// The records of one run, including those of some interrupts of the host, must fit into a ring.
const _: () = assert!((BATCH + WARM_UP) as usize * 6 * StampedRecord::SIZE < RING_BYTES as usize / 2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_add_up_to_all_iterations() {
        for count in [1, 97, BATCH, BATCH + 1, 10_000] {
            let count = u64::from(count);
            assert_eq!(batches(count).map(u64::from).sum::<u64>(), count);
            assert!(batches(count).all(|n| (1..=BATCH).contains(&n)));
        }
    }

    #[test]
    fn the_round_trips_of_the_warm_up_are_left_out() {
        let list: Vec<u32> = (0..20).collect();
        assert_eq!(without_warm_up(&list, CalibrationProgram::Cpuid).next(), Some(8));
        let list: Vec<u32> = (0..40).collect();
        assert_eq!(
            without_warm_up(&list, CalibrationProgram::Toggle).collect::<Vec<_>>(),
            [32, 33, 34, 35, 36, 37, 38, 39]
        );
    }
}
