//! From CLOCK_MONOTONIC to the TSC, with a bound of the error. Pure: pairs in, a mapping out.

/// Both clocks, read in a row: TSC, CLOCK_MONOTONIC, TSC. The clock was read somewhere between the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sandwich {
    /// TSC before, cycles
    pub before: u64,
    /// CLOCK_MONOTONIC, ns
    pub ns: u64,
    /// TSC after, cycles
    pub after: u64,
}

impl Sandwich {
    fn width(&self) -> u64 {
        self.after.saturating_sub(self.before)
    }

    fn middle(&self) -> f64 {
        self.before as f64 + self.width() as f64 / 2.0
    }
}

/// The narrowest of several: whatever interrupted the others did not interrupt it.
pub fn narrowest(sandwiches: impl IntoIterator<Item = Sandwich>) -> Option<Sandwich> {
    sandwiches.into_iter().min_by_key(Sandwich::width)
}

/// A stretch between two sandwiches, on a straight line.
#[derive(Clone, Copy, Debug)]
struct Segment {
    from: Sandwich,
    to: Sandwich,
    /// TSC cycles per ns
    slope: f64,
    /// how far the line may be from the truth, cycles
    error: f64,
}

impl Segment {
    fn between(from: Sandwich, to: Sandwich) -> Option<Self> {
        let ns = to.ns.checked_sub(from.ns).filter(|ns| *ns > 0)? as f64;
        Some(Self { from, to, slope: (to.middle() - from.middle()) / ns, error: 0.0 })
    }

    fn length_ns(&self) -> f64 {
        (self.to.ns - self.from.ns) as f64
    }
}

/// Straight lines from one sandwich to the next. CLOCK_MONOTONIC is itself made of the TSC by a line whose slope the kernel changes
/// now and then, to keep up with the world (NTP): so a line is wrong by half the width of its sandwiches, anywhere in which the clock
/// may have been read (at the same place of each: the code is the same, and the narrowest was not interrupted), and by what its slope
/// may have changed on the way, which its neighbours' slopes tell.
#[derive(Clone, Debug, Default)]
pub struct Mapping {
    segments: Vec<Segment>,
}

impl Mapping {
    /// From sandwiches in the order of time; none where there are fewer than two moments.
    pub fn new(sandwiches: &[Sandwich]) -> Option<Self> {
        let mut segments: Vec<_> =
            sandwiches.windows(2).filter_map(|pair| Segment::between(pair[0], pair[1])).collect();
        if segments.is_empty() {
            return None;
        }
        for n in 0..segments.len() {
            let here = segments[n];
            let neighbours: Vec<_> =
                [n.checked_sub(1), Some(n + 1)].into_iter().flatten().filter_map(|n| segments.get(n)).collect();
            // A slope that changes by d at a share f of the way leaves the line by f(1-f)d of the length, and differs from the
            // neighbours' by (1-f)d and fd: half of the larger is enough; of one alone, all of it.
            let share = if neighbours.len() == 2 { 0.5 } else { 1.0 };
            let bend = neighbours.iter().map(|other| (other.slope - here.slope).abs()).fold(0.0, f64::max);
            let bend = bend * here.length_ns() * share;
            let width = here.from.width().max(here.to.width()) as f64;
            // And a ns: the clock tells no less.
            segments[n].error = width / 2.0 + bend + here.slope;
        }
        Some(Self { segments })
    }

    /// TSC at a moment of CLOCK_MONOTONIC, and how far it may be from the truth, both in cycles; none outside of what was seen.
    pub fn tsc(&self, ns: u64) -> Option<(f64, f64)> {
        let at = self.segments.partition_point(|s| s.to.ns < ns);
        let segment = self.segments.get(at).filter(|s| s.from.ns <= ns)?;
        Some((segment.from.middle() + (ns - segment.from.ns) as f64 * segment.slope, segment.error))
    }

    /// TSC frequency over all of it, kHz.
    pub fn khz(&self) -> f64 {
        let (Some(first), Some(last)) = (self.segments.first(), self.segments.last()) else { return 0.0 };
        (last.to.middle() - first.from.middle()) / (last.to.ns - first.from.ns) as f64 * 1e6
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A TSC of 2.4 GHz whose frequency, as CLOCK_MONOTONIC sees it, is steered: a slow swing and sudden changes.
    struct Simulated {
        /// TSC and slope from each moment on, by ns
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
            let (at, tsc, slope) = self.pieces[(ns as usize / 100_000).min(self.pieces.len() - 1)];
            tsc + (ns - at as f64) * slope
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn a_drifting_tsc_is_never_further_away_than_said(
            changes in proptest::collection::btree_map(0_u64..100_000_000, -50.0..50.0_f64, 0..4),
            swing in 0.0..20.0_f64,
            width in 20_u64..200,
            place in 0.0..1.0_f64,
            jitters in proptest::collection::vec((0_u64..10, 0.0..1.0_f64), 30),
            moments in proptest::collection::vec(1_000_000_u64..86_000_000, 50),
        ) {
            // One sudden change at most between three sandwiches: NTP corrects once in many seconds.
            let mut last = None;
            let changes: Vec<_> = changes
                .into_iter()
                .filter(|(at, _)| last.replace(*at).is_none_or(|l| at - l > 12_000_000))
                .collect();
            let clock = Simulated::new(&changes, swing);
            let sandwiches: Vec<_> = jitters
                .iter()
                .enumerate()
                .map(|(n, (wider, part_of_ns))| {
                    let ns = n as u64 * 3_000_000;
                    let read_at = clock.tsc(ns as f64 + part_of_ns);
                    let before = (read_at - width as f64 * place) as u64;
                    Sandwich { before, ns, after: before + width + wider }
                })
                .collect();
            let mapping = Mapping::new(&sandwiches).unwrap();
            for ns in moments {
                let (tsc, error) = mapping.tsc(ns).unwrap();
                let off = (tsc - clock.tsc(ns as f64)).abs();
                prop_assert!(off <= error, "{off} cycles off at {ns}, {error} were said");
                prop_assert!(error < 2500.0, "a bound of {error} cycles says nothing");
            }
        }
    }

    #[test]
    fn a_steady_clock_is_known_to_half_a_sandwich_and_a_nanosecond() {
        let at = |ns: u64| Sandwich { before: 3 * ns - 20, ns, after: 3 * ns + 20 };
        let mapping = Mapping::new(&[at(1000), at(1_001_000), at(2_001_000)]).unwrap();
        let (tsc, error) = mapping.tsc(1_500_000).unwrap();
        assert!((tsc - 4_500_000.0).abs() < 1e-3 && (error - 23.0).abs() < 1e-3, "{tsc} {error}");
        assert!((mapping.khz() - 3e6).abs() < 1e-3);
    }

    #[test]
    fn outside_of_what_was_seen_nothing_is_said() {
        let at = |ns: u64| Sandwich { before: ns, ns, after: ns + 2 };
        let mapping = Mapping::new(&[at(1000), at(2000)]).unwrap();
        assert!(mapping.tsc(999).is_none() && mapping.tsc(2001).is_none());
        assert!(mapping.tsc(1000).is_some() && mapping.tsc(2000).is_some());
        assert!(Mapping::new(&[at(1000)]).is_none() && Mapping::new(&[at(1000), at(1000)]).is_none());
    }
}
