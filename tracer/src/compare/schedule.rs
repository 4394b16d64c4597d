//! The order of an experiment's windows: rounds of ABBA or BAAB, each by a coin that the seed determines. Within a round both settings
//! have the same mean time, so that a steady drift cancels out. The coin keeps periodic events from following one setting, and
//! the permutation test tosses it again.

use std::time::Duration;

use super::random::Random;
use crate::recording::Label;

/// Windows of a round.
pub(crate) const PLACES: u8 = 4;

/// The labels of all windows, in order.
pub(crate) fn windows(seed: u64, rounds: u32) -> impl Iterator<Item = Label> {
    let mut random = Random::new(seed);
    (0..rounds).flat_map(move |round| {
        let first = u8::from(random.coin());
        (0..PLACES).map(move |place| Label { arm: first ^ u8::from(place == 1 || place == 2), round, place })
    })
}

/// The time that the windows after the first `done` take.
pub(crate) fn time_left(done: u32, rounds: u32, window: Duration, washout: Duration) -> Duration {
    (window + washout) * (rounds * u32::from(PLACES)).saturating_sub(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(seed: u64, rounds: u32) -> String {
        windows(seed, rounds).map(|l| if l.arm == 0 { 'A' } else { 'B' }).collect()
    }

    #[test]
    fn every_round_is_abba_or_baab_by_the_seed() {
        let order = text(7, 200);
        let rounds: Vec<_> = order.as_bytes().chunks(4).collect();
        let abba = rounds.iter().filter(|r| **r == b"ABBA").count();
        assert!(rounds.iter().all(|r| *r == b"ABBA" || *r == b"BAAB"));
        assert!((70..130).contains(&abba), "{abba} of 200");
        assert_eq!(order, text(7, 200));
        assert_ne!(order, text(8, 200));
        assert!(order.starts_with(&text(7, 23)), "more rounds start like fewer");
    }

    #[test]
    fn labels_number_rounds_and_places() {
        let labels: Vec<_> = windows(1, 2).map(|l| (l.round, l.place)).collect();
        assert_eq!(labels, [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3)]);
    }

    #[test]
    fn the_time_left_reaches_zero() {
        let (window, washout) = (Duration::from_secs(5), Duration::from_millis(500));
        assert_eq!(time_left(0, 12, window, washout), Duration::from_secs(264));
        assert_eq!(time_left(48, 12, window, washout), Duration::ZERO);
    }
}
