//! The distance of the guests' timers: they must expire well after the VM exit that arms them, also on a slow host.

/// TSC cycles to a timer's deadline on any host, at least.
pub(crate) const LEAST_CYCLES: u32 = 200_000;
/// TSC cycles to a timer's deadline at most, so that a host that takes the CPU away for long does not stretch all of a run.
pub(super) const MOST_CYCLES: u32 = 64 * LEAST_CYCLES;
/// Distance of a timer in round trips: the exit that arms it, the exit that waits for it, and as much again for a slower one.
pub(super) const ROUND_TRIPS: u32 = 4;

/// TSC cycles from arming a timer to its deadline, where a VM exit and the next VM entry together take `round_trip` cycles.
pub(crate) fn cycles_ahead(round_trip: u32) -> u32 {
    round_trip.saturating_mul(ROUND_TRIPS).clamp(LEAST_CYCLES, MOST_CYCLES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_several_round_trips_ahead_within_its_bounds() {
        assert_eq!(cycles_ahead(3_000), LEAST_CYCLES);
        assert_eq!(cycles_ahead(370_000), 1_480_000);
        assert_eq!(cycles_ahead(u32::MAX), MOST_CYCLES);
    }
}
