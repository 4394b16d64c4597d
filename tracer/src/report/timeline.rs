//! The course of recordings: a bounded number of points, each a stretch of time of one recording, whose intervals may come in any order.

use std::collections::BTreeMap;

use crate::model::{
    course::Course, figures::Figure, histogram::Histogram, interval::Interval, running_histogram::RunningHistogram,
};

/// Points at most: about as many as a chart can show.
const MOST: usize = 512;
/// Buckets of all points' histograms at most, 64 MB: the guest times of a point rarely have more than 8000.
const MOST_BUCKETS: usize = 4 << 20;

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

/// Points by recording.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timeline {
    courses: BTreeMap<usize, Course<Point>>,
    /// of all recordings
    points: usize,
    /// buckets of all points' histograms
    buckets: usize,
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
        let mut guest_times = RunningHistogram::default();
        for series in interval.series.values() {
            guest_times.merge(&series[Figure::EntryToExit]);
            point.pin_writes = point.pin_writes.saturating_add(series[Figure::PinWrites].sum());
            point.with_pin_writes += series[Figure::PinWrites].count();
        }
        point.entry_to_exit = guest_times.finish();
        self.change(source, |course| match course.last_mut() {
            // The rest of an interval whose series were too many for one.
            Some(last) if point.length_ns == 0 => last.merge(&point),
            _ => course.add(point, |last, point| last.merge(&point)),
        });
        // A recording always has a point, so that with more recordings than points there are more.
        while (self.points > MOST || self.buckets > MOST_BUCKETS) && self.points > self.courses.len() {
            let most = self.courses.iter().max_by_key(|(_, course)| course.parts().len());
            let Some(most) = most.map(|(source, _)| *source) else { break };
            self.change(most, |course| course.halve(|first, second| first.merge(&second)));
        }
    }

    /// Changes the points of a recording, and counts again what it has.
    fn change(&mut self, source: usize, how: impl FnOnce(&mut Course<Point>)) {
        let course = self.courses.entry(source).or_default();
        let count = |course: &Course<Point>| {
            (course.parts().len(), course.parts().iter().map(|point| point.entry_to_exit.len()).sum::<usize>())
        };
        let before = count(course);
        how(course);
        let after = count(course);
        (self.points, self.buckets) = (self.points + after.0 - before.0, self.buckets + after.1 - before.1);
    }

    /// The same course in about `most` points.
    pub(crate) fn at_most(&self, most: usize) -> Vec<Point> {
        let every = self.points.div_ceil(most.max(1)).max(1);
        let merged = self.courses.values().flat_map(|course| course.parts().chunks(every)).filter_map(|chunk| {
            let (first, rest) = chunk.split_first()?;
            let mut merged = first.clone();
            rest.iter().for_each(|p| merged.merge(p));
            Some(merged)
        });
        merged.collect()
    }

    /// The points, in the order of the recordings.
    pub(crate) fn points(&self) -> Vec<&Point> {
        self.courses.values().flat_map(Course::parts).collect()
    }

    /// Buckets of all points' histograms.
    pub(crate) fn buckets(&self) -> usize {
        self.buckets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        histogram::BUCKETS,
        series::{Key, Series},
    };

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
    fn intervals_of_two_recordings_alternately_make_no_more_points_than_one_after_the_other() {
        let mut timeline = Timeline::default();
        (0..20_000).for_each(|n| timeline.add(n % 2, n as u64, &interval(1)));
        let points = timeline.points();
        assert!(points.len() <= MOST && points.len() > MOST / 4, "{}", points.len());
        assert_eq!(points.iter().map(|p| p.entries).sum::<u64>(), 20_000);
        assert!(points.is_sorted_by_key(|p| (p.source, p.start_unix_ns)));
    }

    #[test]
    fn with_more_recordings_than_points_each_has_one() {
        let mut timeline = Timeline::default();
        (0..4 * MOST).for_each(|n| timeline.add(n % (2 * MOST), n as u64, &interval(1)));
        let points = timeline.points();
        assert_eq!(points.len(), 2 * MOST);
        assert!(points.iter().all(|p| p.entries == 2));
    }

    #[test]
    fn points_with_many_buckets_are_fewer() {
        let mut timeline = Timeline::default();
        let mut wide = interval(1);
        let mut guest_time = Histogram::default();
        (0..BUCKETS).for_each(|bucket| guest_time.record_bucket(bucket, 1));
        let series =
            Series::from_fn(
                |figure| if figure == Figure::EntryToExit { guest_time.clone() } else { Histogram::default() },
            );
        wide.series.insert(Key::default(), series);
        (0..MOST as u64 / 4).for_each(|n| timeline.add(0, n, &wide));
        assert!(timeline.buckets() <= MOST_BUCKETS && timeline.buckets() > MOST_BUCKETS / 4, "{}", timeline.buckets());
        assert_eq!(timeline.buckets(), timeline.points().iter().map(|p| p.entry_to_exit.len()).sum::<usize>());
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
