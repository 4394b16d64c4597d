//! The course of recordings: a bounded number of points, each a stretch of time of one recording.

use std::collections::BTreeMap;

use crate::model::{figures::Figure, histogram::Histogram, interval::Interval};

/// Points at most: about as many as a chart can show.
const MOST: usize = 512;

/// A stretch of a recording: one interval, or neighbours merged.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Point {
    /// index of the report's source
    pub source: usize,
    /// ns since the epoch at its beginning
    pub start_unix_ns: u64,
    /// ns of observation
    pub length_ns: u64,
    /// entries, by the kernel's own count
    pub entries: u64,
    /// entries that found the ring full
    pub dropped: u64,
    /// guest time of all entries
    pub entry_to_exit: Histogram,
    /// pin-control writes of entries where they are known
    pub pin_writes: u64,
    /// entries whose pin-control writes are known
    pub with_pin_writes: u64,
}

impl Point {
    /// Entries per second; none if its length is 0.
    pub(crate) fn rate(&self) -> Option<f64> {
        (self.length_ns > 0).then(|| self.entries as f64 * 1e9 / self.length_ns as f64)
    }

    /// Pin-control writes per entry; none if they are unknown.
    pub(crate) fn pin_writes_per_entry(&self) -> Option<f64> {
        (self.with_pin_writes > 0).then(|| self.pin_writes as f64 / self.with_pin_writes as f64)
    }

    fn merge(&mut self, next: &Point) {
        self.length_ns = self.length_ns.saturating_add(next.length_ns);
        self.entries += next.entries;
        self.dropped += next.dropped;
        self.entry_to_exit.merge(&next.entry_to_exit);
        self.pin_writes = self.pin_writes.saturating_add(next.pin_writes);
        self.with_pin_writes += next.with_pin_writes;
    }
}

/// Points in the order of the recordings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timeline {
    points: Vec<Point>,
    /// intervals per point, of the recording that is read
    each: usize,
    /// intervals in the last point
    last: usize,
}

impl Timeline {
    /// Adds the next interval of a recording.
    pub fn add(&mut self, source: usize, start_unix_ns: u64, interval: &Interval) {
        let mut point = Point {
            source,
            start_unix_ns,
            length_ns: interval.length_ns,
            entries: interval.totals.entries,
            dropped: interval.totals.dropped,
            ..Point::default()
        };
        for series in interval.series.values() {
            point.entry_to_exit.merge(&series[Figure::EntryToExit]);
            point.pin_writes = point.pin_writes.saturating_add(series[Figure::PinWrites].sum());
            point.with_pin_writes += series[Figure::PinWrites].count();
        }
        match self.points.last_mut() {
            // The rest of an interval whose series were too many for one.
            Some(last) if last.source == source && interval.length_ns == 0 => {
                last.merge(&point);
                return;
            }
            Some(last) if last.source == source && self.last < self.each => {
                last.merge(&point);
                self.last += 1;
                return;
            }
            Some(last) if last.source == source => {}
            _ => self.each = 1,
        }
        self.points.push(point);
        self.last = 1;
        if self.points.len() > MOST {
            self.thin();
        }
    }

    /// Merges pairs of neighbours of the recording that has the most points.
    fn thin(&mut self) {
        let mut of_source: BTreeMap<usize, usize> = BTreeMap::new();
        self.points.iter().for_each(|p| *of_source.entry(p.source).or_default() += 1);
        let most = of_source.iter().max_by_key(|(_, n)| **n).map(|(source, _)| *source);
        let now = self.points.last().map(|p| p.source);
        let mut thin: Vec<Point> = Vec::with_capacity(MOST);
        let mut open = false;
        for point in self.points.drain(..) {
            match thin.last_mut() {
                Some(last) if open && Some(point.source) == most && last.source == point.source => {
                    last.merge(&point);
                    open = false;
                }
                _ => {
                    thin.push(point);
                    open = true;
                }
            }
        }
        if now == most {
            self.last += if open { 0 } else { self.each };
            self.each *= 2;
        }
        self.points = thin;
    }

    /// The same course in about `most` points.
    pub(crate) fn at_most(&self, most: usize) -> Vec<Point> {
        let every = self.points.len().div_ceil(most.max(1)).max(1);
        let of_one_source = self.points.chunk_by(|a, b| a.source == b.source);
        let merged = of_one_source.flat_map(|points| points.chunks(every)).filter_map(|chunk| {
            let (first, rest) = chunk.split_first()?;
            let mut merged = first.clone();
            rest.iter().for_each(|p| merged.merge(p));
            Some(merged)
        });
        merged.collect()
    }

    /// The points.
    pub(crate) fn points(&self) -> &[Point] {
        &self.points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(entries: u64) -> Interval {
        let mut interval = Interval { length_ns: 1_000_000_000, ..Interval::default() };
        interval.totals.entries = entries;
        interval
    }

    #[test]
    fn a_short_recording_keeps_every_interval() {
        let mut timeline = Timeline::default();
        (0..3).for_each(|n| timeline.add(0, n, &interval(n)));
        assert_eq!(timeline.points().iter().map(|p| p.entries).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(timeline.points()[2].rate(), Some(2.0));
        assert_eq!(timeline.points()[2].pin_writes_per_entry(), None);
    }

    #[test]
    fn a_long_one_is_merged_without_losing_an_entry_and_never_across_recordings() {
        let mut timeline = Timeline::default();
        for source in 0..3 {
            (0..10_000).for_each(|n| timeline.add(source, n, &interval(1)));
            assert!(timeline.points().len() <= MOST);
        }
        for source in 0..3 {
            let sum: u64 = timeline.points().iter().filter(|p| p.source == source).map(|p| p.entries).sum();
            assert_eq!(sum, 10_000);
        }
        let few = timeline.at_most(60);
        assert!(few.len() <= 63 && few.iter().map(|p| p.entries).sum::<u64>() == 30_000, "{}", few.len());
        let of_last: Vec<_> = timeline.points().iter().filter(|p| p.source == 2).map(|p| p.entries).collect();
        assert!(of_last.len() > 50 && of_last.windows(2).rev().skip(1).all(|p| p[0] == p[1]), "{of_last:?}");
    }
}
