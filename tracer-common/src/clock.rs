//! The tie of CLOCK_MONOTONIC to the TSC, by which the programs tell whether a timer's deadline was due.

/// A timer exit is early where its deadline was further away than this, ns. Three things make a sound timer expire before its deadline,
/// all of them shorter: KVM cuts the value off to steps of 2^rate cycles, timers of CPUs with erratum EMR158 are fast by up to 15 ppm
/// (2.3 ms of the longest value that they keep), and the error of [`ClockBase`].
pub const EARLY_MARGIN_NS: u64 = 10_000_000;

/// Fraction bits of [`ClockBase::cycles_per_ns`].
const FRACTION: u32 = 20;

/// Longest time since its moment for which a [`ClockBase`] is used, ns: user space renews it every second. Later nothing is known about
/// the TSC, and the multiplication could overflow.
const LONGEST_NS: u64 = 1 << 38;

/// One moment on both clocks, and the TSC's speed. With a slope that is off by 500 ppm, the most that NTP slews by, it is off by 0.5 ms a
/// second later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ClockBase {
    /// CLOCK_MONOTONIC, ns; 0 where there is no moment. Written last, and made 0 before anything else is written
    pub ns: u64,
    /// TSC at that moment, cycles
    pub tsc: u64,
    /// TSC cycles per ns, times 2^20
    pub cycles_per_ns: u64,
    /// [`EARLY_MARGIN_NS`] in TSC cycles
    pub margin: u64,
}

impl ClockBase {
    /// From a moment, and the TSC's frequency in cycles per ns; none where that is not between 0.01 and 63.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 2^26, and above 0")]
    pub fn new(ns: u64, tsc: u64, cycles_per_ns: f64) -> Option<Self> {
        if !(0.01..63.0).contains(&cycles_per_ns) {
            return None;
        }
        let cycles_per_ns = (cycles_per_ns * f64::from(1_u32 << FRACTION)) as u64;
        let margin = (EARLY_MARGIN_NS * cycles_per_ns) >> FRACTION;
        Some(Self { ns, tsc, cycles_per_ns, margin })
    }

    /// Whether a timer that expired at `exit_ns` was early: its deadline, a TSC, lies further ahead than the margin. None where this is not
    /// known, because there is no moment or it is minutes ago.
    #[must_use]
    #[inline(always)]
    pub const fn is_early(&self, exit_ns: u64, deadline_tsc: u64) -> Option<bool> {
        // A kvm_exit on another CPU may lie shortly before the moment, which costs nothing of the margin.
        let since = exit_ns.saturating_sub(self.ns);
        if self.ns == 0 || since > LONGEST_NS {
            return None;
        }
        let tsc = self.tsc.wrapping_add((since * self.cycles_per_ns) >> FRACTION);
        let ahead = deadline_tsc.wrapping_sub(tsc);
        // In the upper half of the numbers, the deadline is past.
        Some(ahead > self.margin && ahead <= u64::MAX >> 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u64 = 5_000_000_000_000;

    #[test]
    fn a_deadline_that_lies_ahead_by_more_than_the_margin_makes_an_exit_early() {
        for cycles_per_ns in [0.8, 2.0, 3.175] {
            let base = ClockBase::new(1_000, AT, cycles_per_ns).unwrap();
            let cycles = |ns: f64| {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few seconds in cycles")]
                let cycles = (ns * cycles_per_ns) as u64;
                cycles
            };
            let exit_ns = 1_000 + 900_000_000;
            let now = AT + cycles(9e8);
            let is_early = |deadline| base.is_early(exit_ns, deadline).unwrap();
            assert!(!is_early(now) && !is_early(now - cycles(1e6)), "due, and late");
            assert!(!is_early(now + cycles(9.9e6)), "within the margin");
            assert!(is_early(now + cycles(10.1e6)));
            assert!(is_early(now + cycles(171.8e9)), "the erratum");
        }
    }

    #[test]
    fn nothing_is_known_without_a_moment_or_long_after_it() {
        let base = ClockBase::new(1_000, AT, 2.0).unwrap();
        assert_eq!(base.is_early(1_000, AT + (1 << 40)), Some(true));
        assert_eq!(base.is_early(1_000 + LONGEST_NS + 1, AT), None);
        assert_eq!(ClockBase { ns: 0, ..base }.is_early(1_000, AT + (1 << 40)), None);
        assert_eq!((ClockBase::new(1, 1, 0.0), ClockBase::new(1, 1, f64::NAN)), (None, None));
    }
}
