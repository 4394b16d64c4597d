//! The time in which a row's entries were observed: the divisor of every rate of a report.

use std::collections::{BTreeMap, BTreeSet};

use super::{Dimension, Filter, Report, View};
use crate::model::series::Key;

/// ns by the values of those of the view's dimensions that tell recordings apart: VM and host.
pub(super) struct Observed {
    /// places of these dimensions in the view
    places: Vec<usize>,
    by_group: BTreeMap<Vec<Option<String>>, u64>,
}

impl Observed {
    /// ns of a row; 0 if nothing is known of it.
    pub(super) fn of(&self, group: &[Option<String>]) -> u64 {
        let values: Vec<_> = self.places.iter().map(|at| group[*at].clone()).collect();
        self.by_group.get(&values).copied().unwrap_or(0)
    }
}

impl Report {
    /// ns that the recordings cover together; a moment that several cover counts once.
    pub(crate) fn observed_ns(&self) -> u64 {
        self.covered.of(&self.sources, 0..self.sources.len())
    }

    /// The time of each row of a view: what its own recordings cover. Where the view is grouped or filtered by VM, these are the
    /// recordings that have an entry of such a VM; where by host, those of the host; else all.
    pub(super) fn observed(&self, view: &View) -> Observed {
        let tells_apart = |d: Dimension| view.by.contains(&d) || view.filters.iter().any(|f| f.dimension == d);
        let is_place = |at: &usize| matches!(view.by[*at], Dimension::Vm | Dimension::Host);
        let places: Vec<usize> = (0..view.by.len()).filter(is_place).collect();
        let mut recordings: BTreeMap<Vec<Option<String>>, BTreeSet<usize>> = BTreeMap::new();
        let mut add = |value: &dyn Fn(Dimension) -> Option<String>, of: &mut dyn Iterator<Item = usize>| {
            let group = places.iter().map(|at| value(view.by[*at])).collect();
            recordings.entry(group).or_default().extend(of);
        };
        if tells_apart(Dimension::Vm) {
            for (vm, seen_in) in &self.seen_in {
                let key = Key { vm: *vm, ..Key::default() };
                let passes = |f: &&Filter| matches!(f.dimension, Dimension::Vm | Dimension::Host);
                let filters: Vec<_> = view.filters.iter().filter(passes).cloned().collect();
                if self.passes(&key, &filters) {
                    add(&|d| self.value(&key, d), &mut seen_in.iter().copied());
                }
            }
        } else if tells_apart(Dimension::Host) {
            for (at, source) in self.sources.iter().enumerate() {
                let host = Some(&source.header.host.name).filter(|name| !name.is_empty());
                if view
                    .filters
                    .iter()
                    .all(|f| f.dimension != Dimension::Host || f.passes_value(host.map(String::as_str)))
                {
                    add(&|_| host.cloned(), &mut std::iter::once(at));
                }
            }
        } else {
            add(&|_| None, &mut (0..self.sources.len()));
        }
        // Most groups have the same recordings.
        let mut known: BTreeMap<BTreeSet<usize>, u64> = BTreeMap::new();
        let mut covered = |of: BTreeSet<usize>| match known.get(&of) {
            Some(ns) => *ns,
            None => {
                let ns = self.covered.of(&self.sources, of.iter().copied());
                known.insert(of, ns);
                ns
            }
        };
        let by_group = recordings.into_iter().map(|(group, of)| (group, covered(of))).collect();
        Observed { places, by_group }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        model::{
            figures::Column,
            interval::{
                Interval,
                tests::{event, vm},
            },
        },
        recording::{Provenance, tests::header},
    };

    /// Adds a recording that starts and ends at seconds of one day; each VM has two entries a second: one CPUID and one HLT.
    fn record(report: &mut Report, host: &str, seconds: std::ops::Range<u64>, vms: &[u32]) {
        let mut header = header();
        (header.host.name, header.host.boot_id) = (host.into(), host.into());
        header.anchor.unix_ns += seconds.start;
        header.anchor.monotonic_ns += seconds.start;
        report.sources.push(Provenance::unread(host.into(), header));
        let mut interval = Interval::starting(seconds.start * 1_000_000_000);
        for id in vms {
            for _ in seconds.clone() {
                interval.record(&event(0, 10, 1000, 0), &vm(*id));
                interval.record(&event(0, 12, 1000, 0), &vm(*id));
            }
        }
        interval.length_ns = (seconds.end - seconds.start) * 1_000_000_000;
        report.add(report.sources.len() - 1, interval, &mut BTreeMap::new());
    }

    /// The rows' groups, and their entries a second.
    fn rates(report: &Report, by: &[Dimension], filter: &[&str]) -> Vec<(String, f64)> {
        let filters = filter.iter().map(|f| f.parse().unwrap()).collect();
        let view = View { by: by.to_vec(), filters, sort: Column::Entries, top: None };
        let mut rates: Vec<_> =
            report.rows(&view).iter().map(|r| (r.group.join("/"), r.rate(r.series.entries()).unwrap())).collect();
        rates.sort_by(|a, b| a.0.cmp(&b.0));
        rates
    }

    fn expected(rows: &[(&str, f64)]) -> Vec<(String, f64)> {
        rows.iter().map(|(group, rate)| ((*group).to_owned(), *rate)).collect()
    }

    #[test]
    fn recordings_of_the_same_seconds_add_up_and_each_row_has_its_own_time() {
        use Dimension::{Host, Reason, Vm};
        let mut report = Report::default();
        record(&mut report, "a", 0..10, &[1, 2]);
        record(&mut report, "b", 5..15, &[3]);
        assert_eq!(report.observed_ns(), 15_000_000_000);
        // 60 entries in 15 seconds, but each host's and VM's in its own ten.
        assert_eq!(rates(&report, &[], &[]), expected(&[("", 4.0)]));
        assert_eq!(rates(&report, &[Reason], &[]), expected(&[("CPUID", 2.0), ("HLT", 2.0)]));
        assert_eq!(rates(&report, &[Host], &[]), expected(&[("a", 4.0), ("b", 2.0)]));
        assert_eq!(rates(&report, &[Vm], &[]), expected(&[("vm1", 2.0), ("vm2", 2.0), ("vm3", 2.0)]));
        assert_eq!(rates(&report, &[Reason, Vm], &["reason=HLT"]).len(), 3);
        assert_eq!(rates(&report, &[Reason], &["vm=vm1,vm2"]), expected(&[("CPUID", 2.0), ("HLT", 2.0)]));
        assert_eq!(rates(&report, &[Reason], &["host=b"]), expected(&[("CPUID", 1.0), ("HLT", 1.0)]));
    }

    #[test]
    fn a_vm_has_the_time_of_the_recordings_that_it_is_in_also_for_exits_that_one_of_them_lacks() {
        let mut report = Report::default();
        record(&mut report, "a", 0..10, &[1]);
        record(&mut report, "a", 10..20, &[1, 2]);
        record(&mut report, "a", 20..30, &[2]);
        let whole = &mut report.whole;
        whole.series.retain(|key, _| key.vm != 0 || key.reason == Some(10));
        assert_eq!(
            rates(&report, &[Dimension::Vm, Dimension::Reason], &[]),
            expected(&[("vm1/CPUID", 1.0), ("vm2/CPUID", 1.0), ("vm2/HLT", 1.0)])
        );
        assert_eq!(rates(&report, &[], &["reason=HLT"])[0].1, 20.0 / 30.0);
    }
}
