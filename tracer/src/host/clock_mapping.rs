//! Reads CLOCK_MONOTONIC and the TSC together, and maps the one to the other with a bound of the error.

use std::{thread, time::Duration};

use crate::host::clock::{monotonic_ns, tsc};

/// Readings of the clocks of which the narrowest is used.
const TRIES: usize = 64;

/// CLOCK_MONOTONIC, read between two reads of the TSC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClockReading {
    /// TSC before, cycles
    pub(crate) before: u64,
    /// CLOCK_MONOTONIC, ns
    pub(crate) ns: u64,
    /// TSC after, cycles
    pub(crate) after: u64,
}

impl ClockReading {
    /// The present moment: the narrowest of many readings, which was not interrupted if any was not.
    pub(crate) fn now() -> Self {
        let one = || Self { before: tsc(), ns: monotonic_ns(), after: tsc() };
        (1..TRIES).fold(one(), |best, _| std::cmp::min_by_key(best, one(), Self::width))
    }

    /// TSC cycles between the two reads of the TSC.
    fn width(&self) -> u64 {
        self.after.saturating_sub(self.before)
    }

    fn middle(&self) -> f64 {
        self.before as f64 + self.width() as f64 / 2.0
    }
}

/// The TSC's frequency, measured for a moment: kHz; none where the clock stands still or the frequency does not fit.
pub(crate) fn measured_khz() -> Option<u32> {
    /// As short as it can be for 10 ppm: reading the clocks takes some 100 ns.
    const METERING: Duration = Duration::from_millis(20);
    let first = ClockReading::now();
    thread::sleep(METERING);
    let khz = Mapping::new(&[first, ClockReading::now()])?.khz().round();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the bounds of a u32")]
    (1.0..=f64::from(u32::MAX)).contains(&khz).then_some(khz as u32)
}

/// A straight line from one reading to the next.
#[derive(Clone, Copy, Debug)]
struct Segment {
    from: ClockReading,
    to: ClockReading,
    /// TSC cycles per ns
    slope: f64,
    /// bound of the line's error, cycles
    error: f64,
}

impl Segment {
    fn between(from: ClockReading, to: ClockReading) -> Option<Self> {
        let ns = to.ns.checked_sub(from.ns).filter(|ns| *ns > 0)? as f64;
        // Differences of the readings, not of their middles: a TSC has more digits than a float.
        let cycles = distance(from.before, to.before) + distance(from.width(), to.width()) / 2.0;
        Some(Self { from, to, slope: cycles / ns, error: 0.0 })
    }

    fn length_ns(&self) -> f64 {
        (self.to.ns - self.from.ns) as f64
    }
}

/// Straight lines from each reading to the next.
///
/// The kernel computes CLOCK_MONOTONIC from the TSC by a line whose slope it changes now and then (NTP). The error of a line is
/// therefore bounded by half the width of its readings, because the clock may have been read anywhere within them, plus the effect of
/// a change of slope within the line, which the slopes of its neighbours bound. The place of the clock's read does not change the
/// slope, because it is the same in all readings: the code is the same, and the narrowest reading was not interrupted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mapping {
    segments: Vec<Segment>,
}

impl Mapping {
    /// Makes the lines from readings in the order of time; none if there are fewer than two different moments.
    pub(crate) fn new(readings: &[ClockReading]) -> Option<Self> {
        let mut segments: Vec<_> = readings.windows(2).filter_map(|pair| Segment::between(pair[0], pair[1])).collect();
        if segments.is_empty() {
            return None;
        }
        for n in 0..segments.len() {
            let here = segments[n];
            let neighbours: Vec<_> =
                [n.checked_sub(1), Some(n + 1)].into_iter().flatten().filter_map(|n| segments.get(n)).collect();
            // If the slope changes by d at a fraction f of the line's length, the line is off by up to f(1-f)d of the length, and its
            // slope differs from its neighbours' by (1-f)d and fd. Half the larger difference is therefore a bound with two
            // neighbours, and the whole difference with one.
            let share = if neighbours.len() == 2 { 0.5 } else { 1.0 };
            let bend = neighbours.iter().map(|other| (other.slope - here.slope).abs()).fold(0.0, f64::max);
            let bend = bend * here.length_ns() * share;
            let width = here.from.width().max(here.to.width()) as f64;
            // Plus 1 ns, the resolution of the clock.
            segments[n].error = width / 2.0 + bend + here.slope;
        }
        Some(Self { segments })
    }

    /// The TSC at a moment of CLOCK_MONOTONIC, and the bound of its error, both in cycles; none outside of the readings.
    pub(crate) fn tsc(&self, ns: u64) -> Option<(f64, f64)> {
        let at = self.segments.partition_point(|s| s.to.ns < ns);
        let segment = self.segments.get(at).filter(|s| s.from.ns <= ns)?;
        Some((segment.from.middle() + (ns - segment.from.ns) as f64 * segment.slope, segment.error))
    }

    /// TSC cycles from a moment of the TSC to one of CLOCK_MONOTONIC, negative where that comes first, and the bound of their error. Before
    /// the first and after the last reading the line goes on: its error grows with the distance.
    pub(crate) fn cycles_since(&self, tsc: u64, ns: u64) -> Option<(f64, f64)> {
        let at = self.segments.partition_point(|s| s.to.ns < ns).min(self.segments.len() - 1);
        let segment = self.segments.get(at)?;
        // Relative to the reading: a TSC has more digits than a float.
        let since_reading = distance(segment.from.ns, ns);
        let cycles =
            segment.from.width() as f64 / 2.0 + since_reading * segment.slope - distance(segment.from.before, tsc);
        let outside = (-since_reading).max(since_reading - segment.length_ns()).max(0.0);
        Some((cycles, segment.error * (1.0 + 2.0 * outside / segment.length_ns())))
    }

    /// TSC frequency between the first and the last reading, in kHz.
    pub(crate) fn khz(&self) -> f64 {
        let (Some(first), Some(last)) = (self.segments.first(), self.segments.last()) else { return 0.0 };
        Segment::between(first.from, last.to).map_or(0.0, |whole| whole.slope * 1e6)
    }
}

/// From one number to another, negative where that is lower.
fn distance(from: u64, to: u64) -> f64 {
    if to >= from { (to - from) as f64 } else { -((from - to) as f64) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A TSC of 2.4 GHz whose frequency relative to CLOCK_MONOTONIC varies slowly and changes suddenly.
    struct Simulated {
        /// start in ns, and TSC and slope from there on
        pieces: Vec<(u64, f64, f64)>,
    }

    impl Simulated {
        fn new(changes: &[(u64, f64)], swing_ppm: f64) -> Self {
            let (mut pieces, mut tsc) = (Vec::new(), 5e12);
            let step = 100_000;
            let mut change_at = changes.iter().peekable();
            let mut ppm = 0.0;
            for ns in (0..100_000_000_u64).step_by(step) {
                while let Some((_, by)) = change_at.next_if(|(at, _)| *at <= ns) {
                    ppm = *by;
                }
                let swing = swing_ppm * (ns as f64 / 3e7).sin();
                let slope = 2.4 * (1.0 + (ppm + swing) / 1e6);
                pieces.push((ns, tsc, slope));
                tsc += slope * step as f64;
            }
            Self { pieces }
        }

        fn tsc(&self, ns: f64) -> f64 {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100 ms in ns")]
            let piece = ns as usize / 100_000;
            let (at, tsc, slope) = self.pieces[piece.min(self.pieces.len() - 1)];
            tsc + (ns - at as f64) * slope
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn the_error_of_a_drifting_tsc_is_within_its_bound(
            changes in proptest::collection::btree_map(0_u64..100_000_000, -50.0..50.0_f64, 0..4),
            swing in 0.0..20.0_f64,
            width in 20_u64..200,
            place in 0.0..1.0_f64,
            jitters in proptest::collection::vec((0_u64..10, 0.0..1.0_f64), 30),
            moments in proptest::collection::vec(1_000_000_u64..86_000_000, 50),
        ) {
            // At most one sudden change between three readings: NTP corrects once in many seconds.
            let mut last = None;
            let changes: Vec<_> = changes
                .into_iter()
                .filter(|(at, _)| last.replace(*at).is_none_or(|l| at - l > 12_000_000))
                .collect();
            let clock = Simulated::new(&changes, swing);
            let readings: Vec<_> = jitters
                .iter()
                .enumerate()
                .map(|(n, (wider, part_of_ns))| {
                    let ns = n as u64 * 3_000_000;
                    let read_at = clock.tsc(ns as f64 + part_of_ns);
                    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "about 5e12, as the TSC starts there")]
                    let before = (read_at - width as f64 * place) as u64;
                    ClockReading { before, ns, after: before + width + wider }
                })
                .collect();
            let mapping = Mapping::new(&readings).unwrap();
            for ns in moments {
                let (tsc, error) = mapping.tsc(ns).unwrap();
                let off = (tsc - clock.tsc(ns as f64)).abs();
                prop_assert!(off <= error, "{off} cycles off at {ns}, the bound is {error}");
                prop_assert!(error < 2500.0, "a bound of {error} cycles is useless");
            }
        }
    }

    #[test]
    fn the_error_bound_of_a_steady_clock_is_half_a_reading_and_a_nanosecond() {
        let at = |ns: u64| ClockReading { before: 3 * ns - 20, ns, after: 3 * ns + 20 };
        let mapping = Mapping::new(&[at(1000), at(1_001_000), at(2_001_000)]).unwrap();
        let (tsc, error) = mapping.tsc(1_500_000).unwrap();
        assert!((tsc - 4_500_000.0).abs() < 1e-3 && (error - 23.0).abs() < 1e-3, "{tsc} {error}");
        assert!((mapping.khz() - 3e6).abs() < 1e-3);
    }

    #[test]
    fn cycles_since_a_deadline_are_signed_and_exact_however_long_the_host_has_been_up() {
        let up = u64::MAX / 3;
        let at = |ns: u64| ClockReading { before: up + 3 * ns - 20, ns, after: up + 3 * ns + 20 };
        let mapping = Mapping::new(&[at(1000), at(1_001_000), at(2_001_000)]).unwrap();
        let since = |deadline: u64, ns| mapping.cycles_since(up + deadline, ns).unwrap();
        for (ns, error) in [(1_500_000, 23.0), (1_001_000, 23.0), (2_501_000, 46.0), (1000, 23.0)] {
            let (late, bound) = since(3 * ns - 120, ns);
            assert!((late - 120.0).abs() < 1e-3 && (bound - error).abs() < 1e-3, "{ns}: {late} {bound}");
            let (early, _) = since(3 * ns + 90_000, ns);
            assert!((early + 90_000.0).abs() < 1e-3, "{early}");
        }
        assert!((since(0, 500).0 - 1500.0).abs() < 1e-3, "before the first reading");
    }

    #[test]
    fn a_reading_of_the_clocks_is_narrow_and_later_readings_are_later() {
        let (first, second) = (ClockReading::now(), ClockReading::now());
        assert!(first.before < first.after && first.after < second.before && first.ns < second.ns);
    }

    #[test]
    fn moments_outside_of_the_readings_are_not_mapped() {
        let at = |ns: u64| ClockReading { before: ns, ns, after: ns + 2 };
        let mapping = Mapping::new(&[at(1000), at(2000)]).unwrap();
        assert!(mapping.tsc(999).is_none() && mapping.tsc(2001).is_none());
        assert!(mapping.tsc(1000).is_some() && mapping.tsc(2000).is_some());
        assert!(Mapping::new(&[at(1000)]).is_none() && Mapping::new(&[at(1000), at(1000)]).is_none());
    }
}
