//! The guest, the programs and the clocks together: runs of the guest in this thread, traced and untraced.

use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail, ensure};
use tracer_common::{StampedEvent, StampedRecord, rules::TimerCause};

use super::{
    mapping::{Mapping, Sandwich, narrowest},
    sample::{self, Samples, WARM_UP},
};
use crate::{
    guest::calibration::{CalibrationGuest, CalibrationProgram, GuestTask},
    host::clock::{monotonic_ns, tsc},
    kernel::tracer::Tracer,
};

/// Iterations of one run: their records fit into a ring, so that nobody has to read it meanwhile.
const BATCH: u64 = 500;
/// Sandwiches of which the narrowest counts.
const SANDWICHES: usize = 64;

/// The machine that measures.
pub struct Bench<'a> {
    guest: CalibrationGuest,
    tracer: Tracer,
    /// the CPU that this thread is pinned to
    pub cpu: u32,
    /// what the guest's timers and loops are set to
    settings: Settings,
    stop: &'a AtomicBool,
    /// told after each run
    progress: &'a dyn Fn(),
    first: Option<Sandwich>,
    last: Option<Sandwich>,
}

/// Of every run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// loop instructions between two stamps
    pub work: u32,
    /// TSC cycles until the guest's timers
    pub delta: u32,
    /// TSC cycles until timers that never come
    pub far: u64,
}

/// What traced runs showed.
#[derive(Debug, Default)]
pub struct Traced {
    /// from the records
    pub samples: Samples,
    /// round trips as the guest listed them, without the warm-up
    pub round_trips: Vec<u32>,
    /// entry_to_exit of entries that KVM forced to exit at once, cycles
    pub immediate: Vec<f64>,
}

/// What untraced runs showed.
#[derive(Debug, Default)]
pub struct Untraced {
    /// round trips as the guest listed them, without the warm-up
    pub round_trips: Vec<u32>,
    /// cycles from before the first iteration to after the last, of all runs, and iterations
    pub cycles: u64,
    /// see above
    pub iterations: u64,
}

impl<'a> Bench<'a> {
    /// For a thread that is pinned to `cpu`.
    pub fn new(
        tracer: Tracer,
        cpu: u32,
        settings: Settings,
        stop: &'a AtomicBool,
        progress: &'a dyn Fn(),
    ) -> Result<Self> {
        Ok(Self { guest: CalibrationGuest::new()?, tracer, cpu, settings, stop, progress, first: None, last: None })
    }

    /// The guest's TSC frequency, as KVM has it, kHz.
    pub fn guest_khz(&self) -> Result<u32> {
        self.guest.tsc_khz()
    }

    /// Timers that never come are set so far ahead: a second.
    pub fn set_far(&mut self, guest_khz: f64) {
        self.settings.far = (guest_khz * 1e3) as u64;
    }

    /// TSC frequency from the first look at the clocks to the last, kHz; none before there were two.
    pub fn khz(&self) -> Option<f64> {
        Mapping::new(&[self.first?, self.last?]).map(|m| m.khz())
    }

    /// Looks at both clocks.
    pub fn look(&mut self) -> Result<Sandwich> {
        let looks = (0..SANDWICHES).map(|_| Sandwich { before: tsc(), ns: monotonic_ns(), after: tsc() });
        let look = narrowest(looks).context("look at the clocks")?;
        self.first.get_or_insert(look);
        self.last = Some(look);
        Ok(look)
    }

    /// Runs `count` iterations, and the warm-up of each run, with the programs attached.
    pub fn traced(&mut self, program: CalibrationProgram, count: u64, measured: &[u32]) -> Result<Traced> {
        self.tracer.attach()?;
        let traced = self.attached(program, count, measured);
        self.tracer.detach()?;
        traced
    }

    fn attached(&mut self, program: CalibrationProgram, count: u64, measured: &[u32]) -> Result<Traced> {
        let mut traced = Traced::default();
        let mut looks = vec![self.look()?];
        let mut runs = Vec::new();
        for count in batches(count) {
            // What is still there is of the end of a run, or of whatever else this process ran.
            self.records()?;
            looks.push(self.look()?);
            let done = self.guest.run(&self.task(program, count), self.stop)?;
            looks.push(self.look()?);
            traced.round_trips.extend(warm(&done.round_trips, program));
            runs.push(self.records()?);
            (self.progress)();
        }
        ensure!(
            runs.iter().any(|records| !records.is_empty()),
            "no VM entry of the guest was seen: this process ({}) may be in a PID namespace of its own, where the kernel knows it by \
             another number; run it outside of the container",
            std::process::id()
        );
        looks.push(self.look()?);
        let mapping = Mapping::new(&looks).context("compare the clocks: CLOCK_MONOTONIC stood still")?;
        for records in runs {
            let found = sample::find(&records, &mapping, measured, self.cpu);
            let forced = records.iter().filter(|r| r.event.outline().timer_cause() == Some(TimerCause::Immediate));
            let forced = forced.filter(|r| r.number > WARM_UP && r.event.cpu == self.cpu);
            traced.immediate.extend(forced.map(|r| r.event.entry_to_exit_ns() as f64 * mapping.khz() / 1e6));
            traced.samples.add(found);
        }
        Ok(traced)
    }

    /// The same without any program.
    pub fn untraced(&mut self, program: CalibrationProgram, count: u64) -> Result<Untraced> {
        let mut untraced = Untraced::default();
        for count in batches(count) {
            let done = self.guest.run(&self.task(program, count), self.stop)?;
            untraced.round_trips.extend(warm(&done.round_trips, program));
            untraced.cycles += done.last_tsc - done.first_tsc;
            untraced.iterations += count + WARM_UP;
            (self.progress)();
        }
        Ok(untraced)
    }

    fn task(&self, program: CalibrationProgram, count: u64) -> GuestTask {
        let Settings { work, delta, far } = self.settings;
        GuestTask { program, count: (count + WARM_UP) as u32, work, delta, far }
    }

    /// Empties the rings; the records in the order of the exits.
    fn records(&mut self) -> Result<Vec<StampedEvent>> {
        let mut records = Vec::new();
        let mut malformed = 0;
        for ring in self.tracer.rings() {
            ring.drain(usize::MAX, |bytes| match StampedEvent::decode(bytes) {
                Some(record) => records.push(record),
                None => malformed += 1,
            });
        }
        if malformed > 0 {
            bail!("{malformed} records are malformed: this is a bug, please report it");
        }
        records.sort_by_key(|record| record.event.exit_ns);
        Ok(records)
    }
}

/// Runs that do so many iterations together.
fn batches(count: u64) -> impl Iterator<Item = u64> {
    let whole = count / BATCH;
    (0..whole).map(|_| BATCH).chain(Some(count % BATCH).filter(|rest| *rest > 0))
}

/// A list without the warm-up's round trips.
fn warm(round_trips: &[u32], program: CalibrationProgram) -> impl Iterator<Item = u32> {
    round_trips.iter().skip(WARM_UP as usize * program.listed()).copied()
}

/// The most records that one run makes, some interrupts of the host included, must fit into a ring.
/// Bytes of a CPU's ring, of which a power of two of records is used: up to half of it is not.
pub const RING_BYTES: u32 = 1 << 20;
const _: () = assert!((BATCH + WARM_UP) * 6 * (StampedRecord::SIZE as u64) < RING_BYTES as u64 / 2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_do_all_iterations_and_none_twice() {
        for count in [1, 97, BATCH, BATCH + 1, 10_000] {
            assert_eq!(batches(count).sum::<u64>(), count);
            assert!(batches(count).all(|n| (1..=BATCH).contains(&n)));
        }
    }

    #[test]
    fn the_warm_up_is_left_out_of_the_guests_list() {
        let list: Vec<u32> = (0..20).collect();
        assert_eq!(warm(&list, CalibrationProgram::Cpuid).next(), Some(8));
        let list: Vec<u32> = (0..40).collect();
        assert_eq!(warm(&list, CalibrationProgram::Toggle).collect::<Vec<_>>(), [32, 33, 34, 35, 36, 37, 38, 39]);
    }
}
