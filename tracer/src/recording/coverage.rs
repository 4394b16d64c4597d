//! The time that recordings cover, in which each moment counts once.

use std::collections::BTreeMap;

use super::provenance::Provenance;

/// Stretches of time that neither touch nor overlap: ends by starts, ns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spans(BTreeMap<u64, u64>);

impl Spans {
    /// Adds a stretch of `length` ns; returns how many of them were not covered before.
    pub(crate) fn add(&mut self, mut start: u64, length: u64) -> u64 {
        let (mut end, mut before) = (start.saturating_add(length), 0);
        if length == 0 {
            return 0;
        }
        while let Some((&first, &last)) = self.0.range(..=end).next_back().filter(|(_, last)| **last >= start) {
            (start, end) = (start.min(first), end.max(last));
            before += last - first;
            self.0.remove(&first);
        }
        self.0.insert(start, end);
        end - start - before
    }

    /// Whether a part of a stretch of `length` ns is covered; if that is 0, whether time goes on there.
    pub(crate) fn overlaps(&self, start: u64, length: u64) -> bool {
        let before = self.0.range(..start.saturating_add(length.max(1))).next_back();
        before.is_some_and(|(_, end)| *end > start)
    }

    /// Sum of the stretches, ns.
    pub(crate) fn length_ns(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).fold(0, u64::saturating_add)
    }
}

/// The time that each of some recordings covers, on its wall clock.
///
/// Rates have one definition, for every view: events a second of the time that the recordings behind the row cover. A moment that
/// several of them cover counts once, so that two hosts' or two recorders' entries of the same second add up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Coverage(Vec<Spans>);

impl Coverage {
    /// Adds an interval of recording `at`; it started `start_unix_ns` after 1970.
    pub(crate) fn add(&mut self, at: usize, start_unix_ns: u64, length_ns: u64) {
        self.0.resize_with(self.0.len().max(at + 1), Spans::default);
        self.0[at].add(start_unix_ns, length_ns);
    }

    /// The first and the last moment that any of the recordings covers, ns since 1970; none without any.
    pub(crate) fn ends(&self) -> Option<(u64, u64)> {
        let first = self.0.iter().filter_map(|spans| spans.0.keys().next()).min()?;
        let last = self.0.iter().filter_map(|spans| spans.0.values().next_back()).max()?;
        Some((*first, *last))
    }

    /// ns that some of the recordings cover. Those of one boot are laid on one clock, in case the wall clock was set between them.
    pub(crate) fn of(&self, recordings: &[Provenance], which: impl IntoIterator<Item = usize>) -> u64 {
        let mut all = Spans::default();
        for at in which {
            let Some(spans) = self.0.get(at) else { continue };
            let ahead = clock_ahead(recordings, at);
            for (from, to) in &spans.0 {
                all.add(set_back(*from, ahead), to - from);
            }
        }
        all.length_ns()
    }
}

/// A moment of recording `at`, in ns since 1970 on the wall clock of the first recording of its boot.
pub(crate) fn on_one_clock(start_unix_ns: u64, recordings: &[Provenance], at: usize) -> u64 {
    set_back(start_unix_ns, clock_ahead(recordings, at))
}

fn set_back(moment: u64, ahead: i128) -> u64 {
    u64::try_from(i128::from(moment) - ahead).unwrap_or(moment)
}

/// ns by which a recording's wall clock is ahead of that of the first recording of its boot.
fn clock_ahead(recordings: &[Provenance], at: usize) -> i128 {
    let Some(this) = recordings.get(at) else { return 0 };
    let boot = &this.header.host.boot_id;
    let first = recordings.iter().find(|other| !boot.is_empty() && other.header.host.boot_id == *boot);
    let booted = |source: &Provenance| {
        let anchor = source.header.anchor;
        i128::from(anchor.unix_ns) - i128::from(anchor.monotonic_ns)
    };
    first.map_or(0, |first| booted(this) - booted(first))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::recording::tests::header;

    fn recording(boot: &str, set_ahead_ns: u64) -> Provenance {
        let mut header = header();
        header.host.boot_id = boot.into();
        header.anchor.unix_ns += set_ahead_ns;
        Provenance::unread(String::new(), header)
    }

    proptest! {
        #[test]
        fn every_moment_counts_once(spans in proptest::collection::vec((0..60u64, 0..9u64), 0..12)) {
            let mut all = Spans::default();
            let mut moments = [false; 80];
            for &(start, length) in &spans {
                let range = usize::try_from(start).unwrap()..usize::try_from(start + length).unwrap();
                prop_assert_eq!(length > 0 && all.overlaps(start, length), moments[range.clone()].contains(&true) && length > 0);
                let new = moments[range.clone()].iter().filter(|m| !**m).count() as u64;
                prop_assert_eq!(all.add(start, length), new);
                moments[range].fill(true);
            }
            prop_assert_eq!(all.length_ns(), moments.iter().filter(|m| **m).count() as u64);
            let joined: Vec<_> = all.0.iter().collect();
            prop_assert!(joined.windows(2).all(|pair| pair[0].1 < pair[1].0), "{:?}", joined);
        }
    }

    #[test]
    fn recordings_of_one_boot_are_laid_on_one_clock() {
        let minute = 60_000_000_000;
        for (other, seconds) in [(recording("a", minute), 10), (recording("b", minute), 20), (recording("b", 0), 10)] {
            let recordings = [recording("a", 0), other];
            let mut coverage = Coverage::default();
            for (at, recording) in recordings.iter().enumerate() {
                coverage.add(at, recording.header.anchor.unix_ns + 5, 10_000_000_000);
            }
            assert_eq!(coverage.of(&recordings, 0..2), seconds * 1_000_000_000);
            assert_eq!(coverage.of(&recordings, [1]), 10_000_000_000);
        }
    }
}
