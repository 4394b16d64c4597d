//! The index of a recording: a comment line before the last one, which readers of all versions pass over, and whose bytes the last line's
//! checksum has. docs/formats.md documents it.

use serde::{Deserialize, Serialize};

use super::{
    index::{Place, VmMark},
    limits::Limits,
    reader::Mark,
};
use crate::model::interval::MAX_VMS;

/// How the line begins: not as a JSON line, which earlier readers refuse where they do not know it.
const BEGINNING: &[u8] = b"#index ";

/// The places that a writer remembers: of so many intervals only every 2nd, 4th, ... that they stay few.
#[derive(Debug)]
pub(super) struct Places {
    each: Vec<Place>,
    vms: Vec<VmMark>,
    /// intervals so far
    intervals: u64,
    /// of so many intervals, one is remembered
    step: u64,
    played_ns: u64,
    /// beginning and end of the latest interval, ns
    latest: (u64, u64),
    /// at most so many places
    most: usize,
    /// bytes from which on a recording has an index: a smaller one is read at once
    least_bytes: u64,
    /// no interval began before the one before it
    is_ascending: bool,
}

impl Places {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            each: Vec::new(),
            vms: Vec::new(),
            intervals: 0,
            step: 1,
            played_ns: 0,
            latest: (0, 0),
            most: limits.places.max(2),
            least_bytes: limits.unindexed,
            is_ascending: true,
        }
    }

    /// Notes that an interval begins.
    pub(super) fn begin(&mut self, mark: Mark, start_ns: u64) {
        self.is_ascending &= self.latest.0 <= start_ns;
        self.latest = (start_ns, start_ns);
        if self.intervals.is_multiple_of(self.step) {
            if self.each.len() == self.most {
                let mut at = 0;
                self.each.retain(|_| {
                    at += 1;
                    at % 2 == 1
                });
                self.step *= 2;
            }
            if self.intervals.is_multiple_of(self.step) {
                self.each.push(Place { mark, played_ns: self.played_ns, start_ns });
            }
        }
        self.intervals += 1;
    }

    /// Notes an interval, or a part of one.
    pub(super) fn add(&mut self, start_ns: u64, length_ns: u64) {
        self.played_ns = self.played_ns.saturating_add(length_ns);
        self.latest.1 = self.latest.1.max(start_ns.saturating_add(length_ns));
    }

    /// Notes that a VM was introduced. More than are remembered anywhere would take a line that no reader takes.
    pub(super) fn introduce(&mut self, vm: VmMark) {
        if self.vms.len() <= MAX_VMS {
            self.vms.push(vm);
        }
    }

    /// The line, which stands at `end`; none where a recording needs none, or cannot have one.
    pub(super) fn line(&self, end: Mark, limits: &Limits) -> Option<Vec<u8>> {
        let is_large = end.offset >= self.least_bytes && !self.each.is_empty();
        if !is_large || !self.is_ascending || self.vms.len() > MAX_VMS {
            return None;
        }
        let end = Place { mark: end, played_ns: self.played_ns, start_ns: self.latest.1 };
        let places: Vec<_> = self.each.iter().chain([&end]).collect();
        let of_places = |column: fn(&Place) -> u64| steps(places.iter().map(|place| column(place)));
        let columns = Columns {
            offset: of_places(|place| place.mark.offset),
            line: of_places(|place| place.mark.line),
            number: of_places(|place| place.mark.number),
            length_ns: of_places(|place| place.played_ns),
            start_ns: of_places(|place| place.start_ns),
            vm_offset: steps(self.vms.iter().map(|vm| vm.offset)),
            vm_line: steps(self.vms.iter().map(|vm| vm.line)),
        };
        let mut text = BEGINNING.to_vec();
        serde_json::to_writer(&mut text, &columns).ok()?;
        text.push(b'\n');
        // The last line is found with it.
        (text.len() as u64 <= limits.line / 2).then_some(text)
    }
}

/// The columns of the index: each number is the difference to the one before, the first one to 0.
#[derive(Serialize, Deserialize)]
struct Columns {
    /// bytes before each interval, and before this line
    offset: Vec<u64>,
    /// lines before each, with the header
    line: Vec<u64>,
    /// interval lines before each
    number: Vec<u64>,
    /// ns of observation before each
    length_ns: Vec<u64>,
    /// CLOCK_MONOTONIC at the beginning of each, ns; at last, at the end of the last interval
    start_ns: Vec<u64>,
    /// bytes before the lines that the checksum of each VM's line is of
    vm_offset: Vec<u64>,
    /// lines up to each VM's, with it
    vm_line: Vec<u64>,
}

/// Differences of ascending numbers.
fn steps(numbers: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut before = 0;
    numbers.map(|number| number.saturating_sub(std::mem::replace(&mut before, number))).collect()
}

/// The numbers of differences; none where they are too large. `least` is the least difference after the first.
fn sums(steps: &[u64], least: u64) -> Option<Vec<u64>> {
    let mut sum = 0_u64;
    let add = |(at, step): (usize, &u64)| {
        sum = sum.checked_add(*step)?;
        (at == 0 || *step >= least).then_some(sum)
    };
    steps.iter().enumerate().map(add).collect()
}

/// The places of intervals and of VMs that a line tells, ascending; none where it is no index, or tells nonsense.
pub(super) fn parse(line: &[u8]) -> Option<(Vec<Place>, Vec<VmMark>)> {
    let columns: Columns = serde_json::from_slice(line.strip_prefix(BEGINNING)?).ok()?;
    let (offset, number) = (sums(&columns.offset, 1)?, sums(&columns.number, 1)?);
    let (lines, length_ns, start_ns) =
        (sums(&columns.line, 1)?, sums(&columns.length_ns, 0)?, sums(&columns.start_ns, 0)?);
    let (vm_offset, vm_line) = (sums(&columns.vm_offset, 1)?, sums(&columns.vm_line, 1)?);
    let places = offset.len();
    let is_even = [&lines, &number, &length_ns, &start_ns].iter().all(|column| column.len() == places);
    if !is_even || places < 2 || vm_offset.len() != vm_line.len() {
        return None;
    }
    let end = *offset.last()?;
    let place = |at: usize| Place {
        mark: Mark { offset: offset[at], line: lines[at], number: number[at] },
        played_ns: length_ns[at],
        start_ns: start_ns[at],
    };
    let vms = vm_offset.iter().zip(&vm_line).map(|(&offset, &line)| VmMark { offset, line });
    let vms: Vec<_> = vms.filter(|vm| vm.offset < end).collect();
    Some(((0..places).map(place).collect(), vms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::limits::LIMITS;

    const SMALL: Limits = Limits { unindexed: 0, places: 4, ..LIMITS };

    /// What a writer remembers of so many intervals, of one VM each.
    fn places(intervals: u64, limits: &Limits) -> Places {
        let mut places = Places::new(limits);
        for n in 0..intervals {
            let mark = Mark { offset: 100 + 50 * n, line: 1 + 3 * n, number: n };
            places.begin(mark, 7 * n);
            places.add(7 * n, 5);
            places.introduce(VmMark { offset: mark.offset, line: mark.line + 1 });
        }
        places
    }

    fn end(intervals: u64) -> Mark {
        Mark { offset: 100 + 50 * intervals, line: 1 + 3 * intervals, number: intervals }
    }

    #[test]
    fn places_are_read_as_they_were_written_and_stay_few() {
        for (intervals, kept) in [(1, 1), (4, 4), (5, 3), (8, 4), (9, 3), (100, 4)] {
            let line = places(intervals, &SMALL).line(end(intervals), &SMALL).unwrap();
            let (read, vms) = parse(&line).unwrap();
            assert_eq!((read.len(), vms.len() as u64), (kept + 1, intervals), "{intervals}");
            let step = read[1].mark.number;
            for (at, place) in read[..kept].iter().enumerate() {
                let n = at as u64 * step;
                assert_eq!(*place, Place { mark: end(n), played_ns: 5 * n, start_ns: 7 * n });
            }
            let last = Place { mark: end(intervals), played_ns: 5 * intervals, start_ns: 7 * intervals - 2 };
            assert_eq!(read[kept], last);
        }
    }

    #[test]
    fn a_recording_that_is_small_or_not_in_order_of_time_has_no_index() {
        assert!(places(3, &LIMITS).line(end(3), &LIMITS).is_none());
        assert!(places(0, &SMALL).line(end(0), &SMALL).is_none());
        let mut unordered = places(3, &SMALL);
        unordered.begin(end(3), 13);
        assert!(unordered.line(end(4), &SMALL).is_none());
        let short = Limits { line: 200, ..SMALL };
        assert!(places(3, &short).line(end(3), &short).is_none(), "a line that is too long");
    }

    #[test]
    fn nonsense_is_no_index() {
        let good = places(3, &SMALL).line(end(3), &SMALL).unwrap();
        let good = String::from_utf8(good).unwrap();
        assert!(parse(good.as_bytes()).is_some());
        for (from, to) in [
            ("#index ", "#index"),
            ("[100,50", "[100,0"),
            ("[100,50", "[100,18446744073709551615"),
            ("[100,50", "[100,-1"),
            ("[100,50", "[100,1.5"),
            ("[100,50", "[100"),
            ("[100,50,50,50]", "[]"),
            ("\"line\":[1,3,3,3],", ""),
            ("\"vm_line\":[2", "\"vm_line\":[2,2"),
            ("{\"offset\"", "{\"offset\":[],\"offset\""),
            ("}", ""),
        ] {
            assert!(good.contains(from), "{from} {good}");
            assert!(parse(good.replacen(from, to, 1).as_bytes()).is_none(), "{to}");
        }
    }
}
