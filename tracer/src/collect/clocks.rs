//! The clocks of events and timers, read again and again: CLOCK_MONOTONIC and the TSC. From them follow whether a timer exit was early,
//! which the programs tell, and how late it was.

use std::{collections::VecDeque, thread, time::Duration};

use anyhow::{Context, Result};
use tracer_common::{Event, clock::ClockBase};

use crate::{
    host::{
        clock::monotonic_ns,
        clock_mapping::{ClockReading, Mapping},
    },
    kernel::tracer::Tracer,
};

/// Least time between two readings, ns: a closer pair tells the slope less exactly.
const BETWEEN_NS: u64 = 20_000_000;
/// Readings that are kept. Events are a moment old when they are read, longer where the rings hold many.
const KEPT: usize = 64;
/// Time after which the programs get a new base, ns.
const RENEWED_NS: u64 = 1_000_000_000;

/// Readings of the clocks, and the lines between them.
pub(super) struct Clocks {
    readings: VecDeque<ClockReading>,
    mapping: Mapping,
    /// moment of the programs' base, CLOCK_MONOTONIC in ns
    renewed_ns: u64,
}

/// From a timer's deadline to the exit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Lateness {
    /// ns, negative where the exit came first
    pub(super) ns: i64,
    /// bound of the error, ns
    pub(super) error_ns: u64,
}

impl Clocks {
    /// Reads the clocks for the first time, which takes the 20 ms between two readings, and gives the programs their base. For programs
    /// that are not attached yet, so that they know the base at the first exit.
    pub(super) fn start(tracer: &mut Tracer) -> Result<Self> {
        let first = ClockReading::now();
        thread::sleep(Duration::from_nanos(BETWEEN_NS));
        let mut clocks = Self::of([first, ClockReading::now()].into()).context("compare the clocks")?;
        clocks.renew(tracer);
        Ok(clocks)
    }

    fn of(readings: VecDeque<ClockReading>) -> Option<Self> {
        let mapping = Mapping::new(&readings.iter().copied().collect::<Vec<_>>())?;
        Some(Self { readings, mapping, renewed_ns: 0 })
    }

    /// Reads the clocks, unless that was a moment ago, and renews the programs' base, unless that is younger than a second.
    pub(super) fn read(&mut self, tracer: &mut Tracer) {
        // A wake-up passes here for every quarter of a ring, and a reading takes microseconds.
        if self.readings.back().is_some_and(|last| monotonic_ns().saturating_sub(last.ns) < BETWEEN_NS) {
            return;
        }
        let reading = ClockReading::now();
        if self.readings.len() == KEPT {
            self.readings.pop_front();
        }
        self.readings.push_back(reading);
        if let Some(mapping) = Mapping::new(self.readings.make_contiguous()) {
            self.mapping = mapping;
        }
        if reading.ns.saturating_sub(self.renewed_ns) >= RENEWED_NS {
            self.renew(tracer);
        }
    }

    fn renew(&mut self, tracer: &mut Tracer) {
        let Some(last) = self.readings.back() else { return };
        // A host whose TSC is out of range keeps a base without a moment: nothing is known about deadlines.
        if let Some(base) = ClockBase::new(last.ns, last.before, self.mapping.khz() / 1e6) {
            tracer.renew_clock(&base);
            self.renewed_ns = last.ns;
        }
    }

    /// From a timer exit's deadline to its kvm_exit; none where the event has no deadline, and where the distance fits no i64.
    pub(super) fn lateness(&self, event: &Event) -> Option<Lateness> {
        let deadline = event.known_deadline_tsc()?;
        let (cycles, error) = self.mapping.cycles_since(deadline, event.exit_ns)?;
        let cycles_per_ns = self.mapping.khz() / 1e6;
        let (ns, error_ns) = (cycles / cycles_per_ns, (error / cycles_per_ns).ceil());
        // A float converts to the nearest number that there is; only a clock that stands still makes none of it.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        (ns.is_finite() && error_ns.is_finite()).then(|| Lateness { ns: ns.round() as i64, error_ns: error_ns as u64 })
    }
}

#[cfg(test)]
mod tests {
    use tracer_common::Flags;

    use super::*;

    #[test]
    fn a_deadline_gives_the_lateness_in_ns_with_its_sign_and_error() {
        let at = |ns: u64| ClockReading { before: 2 * ns - 40, ns, after: 2 * ns + 40 };
        let clocks = Clocks::of([at(1_000_000), at(21_000_000), at(41_000_000)].into()).unwrap();
        let event =
            |deadline_tsc| Event { exit_ns: 30_000_000, deadline_tsc, flags: Flags::DEADLINE_READ, ..Event::default() };
        assert_eq!(clocks.lateness(&event(59_999_000)), Some(Lateness { ns: 500, error_ns: 21 }));
        assert_eq!(clocks.lateness(&event(60_000_000 + 343_600_000_000)).unwrap().ns, -171_800_000_000);
        assert_eq!(clocks.lateness(&Event { flags: Flags::NONE, ..event(59_999_000) }), None);
    }
}
