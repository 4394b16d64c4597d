//! The rows of a report: series grouped by the dimensions of a view, sorted, with the row of all of them.

use std::{cmp::Ordering, collections::BTreeMap};

use super::{Dimension, Report, View};
use crate::model::{
    budget::{Budget, Phase},
    exit_reasons,
    figures::{Column, Figure},
    knowledge::{Shown, TimerExits},
    series::{Key, Level, Series},
};

/// Entries that share the values of the view's dimensions, or a sum of such rows.
#[derive(Clone, Debug)]
pub struct Row {
    /// values of the view's dimensions, in its order
    pub group: Vec<String>,
    /// the lowest key of the group
    pub key: Key,
    /// the distributions that are known
    pub series: Shown,
    /// exits: as many as entries, and where details are told apart, those that the host handled
    pub(crate) exits: u64,
    /// entries; none where details are told apart
    pub(crate) entries: Option<u64>,
    /// the timer exits among the entries
    pub(crate) timer_exits: TimerExits,
    /// ns that the recordings behind the row cover
    pub(crate) observed_ns: u64,
}

/// The rows of a view.
#[derive(Clone, Debug)]
pub struct Rows {
    /// each group whose entries pass the filters, those with the highest value of the view's column first
    pub each: Vec<Row>,
    /// all of them together
    pub total: Row,
    /// whether details are told apart: then rows count exits, and those with a detail have no entries and no guest time
    pub(crate) by_detail: bool,
    /// exits that are in no row, because no kvm_entry followed them: the last of each vCPU; none but where details are told apart
    pub(crate) unfinished: u64,
}

impl Row {
    /// Events a second of the row's own time; none if that is 0.
    pub(crate) fn rate(&self, events: u64) -> Option<f64> {
        (self.observed_ns > 0).then(|| events as f64 * 1e9 / self.observed_ns as f64)
    }

    /// Sum of a time's values, ns; none where none is known, and of the other figures.
    pub(crate) fn sum_ns(&self, figure: Figure) -> Option<u64> {
        match figure {
            Figure::EntryToExit => self.series.guest_ns(),
            Figure::ExitToEntry => self.series.host_ns(),
            _ => None,
        }
    }

    /// Share of the exits of `total`, 0..1; none if that has none.
    pub(crate) fn exit_share(&self, total: &Row) -> Option<f64> {
        share(self.exits, total.exits)
    }

    /// Share of the host time of `total`, halts included, 0..1; none where host time is not known.
    pub(crate) fn host_time_share(&self, total: &Row) -> Option<f64> {
        share(self.series.host_ns()?, total.series.host_ns()?)
    }

    /// Share of a part of the row's host time, 0..1; none where it is not known.
    pub(crate) fn part(&self, phase: Phase) -> Option<f64> {
        share(self.series.phase(phase)?, self.series.host_ns()?)
    }

    /// Whether all its exits are halts of the host's guest, so that its host time is the guest's idle time. `by` are the dimensions of its
    /// group. The HLT of a nested guest is one of L1's to handle.
    pub(crate) fn is_halted(&self, by: &[Dimension]) -> bool {
        let is_halt = self.key.reason.is_some_and(|reason| exit_reasons::is_halt(self.key.isa, reason));
        by.contains(&Dimension::Reason) && is_halt && self.key.level != Level::L2
    }

    /// Several rows as one, in the time that `of` was observed in; none of no rows.
    pub(crate) fn sum<'a>(rows: impl IntoIterator<Item = &'a Row>, of: &Row) -> Option<Row> {
        let mut rows = rows.into_iter();
        let first = Row { observed_ns: of.observed_ns, ..rows.next()?.clone() };
        Some(rows.fold(first, |mut sum, row| {
            sum.series.merge(&row.series);
            sum.exits = sum.exits.saturating_add(row.exits);
            sum.entries = sum.entries.zip(row.entries).map(|(mine, more)| mine.saturating_add(more));
            sum.timer_exits.merge(&row.timer_exits);
            sum
        }))
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// A dimension's value as it orders rows: a vCPU by its number.
type Place = (u32, Option<String>);

impl Report {
    /// The rows of a view, at most its `top`.
    pub fn rows(&self, view: &View) -> Vec<Row> {
        let mut rows = self.all_rows(view).each;
        rows.truncate(view.top.unwrap_or(usize::MAX));
        rows
    }

    /// The rows of a view, whatever its `top`, and their sum.
    pub fn all_rows(&self, view: &View) -> Rows {
        // Series with a detail have exits and no entries, which are in the series without one.
        let filters_detail = view.filters.iter().any(|f| f.dimension == Dimension::Detail);
        let asks = view.by.contains(&Dimension::Detail) || filters_detail;
        let by_detail = asks && self.whole.series.keys().any(|key| key.detail.is_some());
        let mut entries = 0_u64;
        let mut groups: BTreeMap<Vec<Place>, Group> = BTreeMap::new();
        for (key, series) in self.whole.series.iter().filter(|(key, _)| self.passes(key, &view.filters)) {
            entries = entries.saturating_add(series.entries());
            let place = |&d: &Dimension| (if d == Dimension::Vcpu { key.vcpu } else { 0 }, self.value(key, d));
            if by_detail && series[Figure::ExitToEntry].count() == 0 {
                continue;
            }
            let group = groups.entry(view.by.iter().map(place).collect()).or_insert_with(|| Group::of(*key));
            if by_detail { group.add_exits(key, series) } else { group.add(key, series) }
        }
        let knowledge = self.knowledge();
        let row = |group: Vec<String>, of: Group, observed_ns| Row {
            group,
            key: of.lowest,
            exits: if by_detail { of.series[Figure::ExitToEntry].count() } else { of.series.entries() },
            entries: (!by_detail).then(|| of.series.entries()),
            series: knowledge.show(of.series),
            timer_exits: of.timer_exits,
            observed_ns,
        };
        let mut whole = Group::of(groups.values().map(|group| group.lowest).min().unwrap_or_default());
        groups.values().for_each(|group| whole.merge(group));
        let of_all = self.observed(&View { by: vec![], ..view.clone() }).of(&[]);
        let observed = self.observed(view);
        let each = groups.into_iter().map(|(places, group)| {
            let values: Vec<_> = places.into_iter().map(|(_, value)| value).collect();
            let observed_ns = observed.of(&values);
            row(values.into_iter().map(|v| v.unwrap_or_else(|| "-".into())).collect(), group, observed_ns)
        });
        let mut each: Vec<Row> = each.collect();
        let total = row(vec!["-".into(); view.by.len()], whole, of_all);
        // Where times are not known, all values are none, and those with most exits come first.
        let column =
            if view.sort == Column::HostTime && total.series.host_ns().is_none() { Column::Entries } else { view.sort };
        let value = |row: &Row| match column {
            Column::Entries => row.exits as f64,
            column => column.value(&row.series).unwrap_or(f64::NEG_INFINITY),
        };
        // Stable: rows with equal values stay in the order of their groups.
        each.sort_by(|a, b| value(b).partial_cmp(&value(a)).unwrap_or(Ordering::Equal));
        let unfinished = if by_detail && !filters_detail { entries.saturating_sub(total.exits) } else { 0 };
        Rows { each, total, by_detail, unfinished }
    }
}

/// Series of a group.
struct Group {
    lowest: Key,
    series: Series,
    timer_exits: TimerExits,
}

impl Group {
    fn of(key: Key) -> Self {
        Self { lowest: key, series: Series::default(), timer_exits: TimerExits::default() }
    }

    fn add(&mut self, key: &Key, series: &Series) {
        self.lowest = self.lowest.min(*key);
        self.timer_exits.count(key, series.entries());
        self.series.merge(series);
    }

    /// Adds the host's side of a series alone.
    fn add_exits(&mut self, key: &Key, series: &Series) {
        self.lowest = self.lowest.min(*key);
        let mut exits = Series::default();
        exits[Figure::ExitToEntry] = series[Figure::ExitToEntry].clone();
        exits.budget = Budget { guest_ns: 0, ..series.budget };
        self.series.merge(&exits);
    }

    fn merge(&mut self, other: &Self) {
        self.timer_exits.merge(&other.timer_exits);
        self.series.merge(&other.series);
    }
}

#[cfg(test)]
mod tests {
    use tracer_common::{
        Event,
        detail::{RawDetail, Source},
    };

    use super::*;
    use crate::{
        model::{
            detail::Detail,
            interval::{
                Interval,
                tests::{event, vm},
            },
            totals::Totals,
        },
        report::tests::{report, view},
    };

    #[test]
    fn shares_are_those_of_the_entries_that_pass_the_filters() {
        let report = report();
        let rows = report.all_rows(&View { top: Some(1), ..view() });
        let shares: Vec<_> = rows.each.iter().map(|row| row.exit_share(&rows.total).unwrap()).collect();
        assert_eq!(shares, [97.0 / 120.0, 23.0 / 120.0]);
        let host: f64 = rows.each.iter().map(|row| row.host_time_share(&rows.total).unwrap()).sum();
        assert!((host - 1.0).abs() < 1e-9, "{host}");
        let filters = vec!["reason=CPUID".parse().unwrap()];
        let rows = report.all_rows(&View { filters, ..view() });
        assert_eq!(rows.each[0].exit_share(&rows.total), Some(1.0));
    }

    #[test]
    fn details_count_the_same_exits_whether_they_group_or_filter() {
        let mut interval = Interval::starting(0);
        let round = event(0, 32, 900, 0);
        for msr in [0x6e0, 0x6e0, 0x10] {
            let previous_detail = RawDetail::new(Source::Msr, msr);
            interval.record(&Event { previous: round.outline(), previous_detail, ..round }, &vm(0));
        }
        interval.record(&Event { exit_to_entry_ns: Event::UNKNOWN_NS, ..round }, &vm(0));
        interval.totals = Totals { entries: 4, delivered: 4, ..Totals::default() };
        let mut report = report();
        report.whole.series.clear();
        report.add(0, interval, &mut BTreeMap::new());
        let counts = |by: &[Dimension], filter: &str| {
            let filters = [filter].iter().filter(|f| !f.is_empty()).map(|f| f.parse().unwrap()).collect();
            let rows = report.all_rows(&View { by: by.to_vec(), filters, ..view() });
            let each: Vec<_> = rows.each.iter().map(|row| (row.group.join("/"), row.exits, row.entries)).collect();
            (each, rows.total.exits)
        };
        let (reason, detail) = (Dimension::Reason, Dimension::Detail);
        let row = |group: &str, exits, entries| (group.to_owned(), exits, entries);
        let deadline = row("MSR_WRITE/0x6e0 TSC_DEADLINE", 2, None);
        let (mut both, total) = counts(&[reason, detail], "");
        both.sort();
        assert_eq!((both, total), (vec![row("MSR_WRITE/0x10 TSC", 1, None), deadline.clone()], 3));
        let by = vec![reason, detail];
        assert_eq!(report.all_rows(&View { by, filters: vec![], ..view() }).unfinished, 1, "the last one");
        for filter in ["detail=0x6e0", "detail=TSC_DEADLINE"] {
            assert_eq!(counts(&[reason, detail], filter), (vec![deadline.clone()], 2));
            assert_eq!(counts(&[reason], filter), (vec![row("MSR_WRITE", 2, None)], 2));
        }
        assert_eq!(counts(&[reason], "detail=-"), (vec![], 0), "every exit with a host time has a detail");
        assert_eq!(counts(&[reason], ""), (vec![row("MSR_WRITE", 4, Some(4))], 4));
    }

    #[test]
    fn vcpus_are_in_the_order_of_their_numbers() {
        let mut interval = Interval::starting(0);
        for vcpu in [10, 2, 1, 100] {
            interval.record(&event(vcpu, 10, 1000, 0), &vm(0));
        }
        let mut report = report();
        report.whole.series.clear();
        report.add(0, interval, &mut BTreeMap::new());
        let view = View { by: vec![Dimension::Vcpu], ..view() };
        let vcpus: Vec<_> = report.rows(&view).iter().map(|row| row.group[0].clone()).collect();
        assert_eq!(vcpus, ["1", "2", "10", "100"]);
    }

    #[test]
    fn a_halt_of_a_nested_guest_is_work_of_its_hypervisor() {
        let mut report = report();
        let halt = event(0, 12, 1000, 0);
        let mut interval = Interval::starting(0);
        interval.record(&halt, &vm(0));
        report.add(0, interval, &mut BTreeMap::new());
        let halted = |by: Vec<Dimension>| {
            let rows = report.rows(&View { by: by.clone(), ..view() });
            rows.iter().filter(|row| row.is_halted(&by)).map(|row| row.group.join("/")).collect::<Vec<_>>()
        };
        assert_eq!(halted(vec![Dimension::Vm, Dimension::Reason]), ["vm0/HLT"]);
        assert!(halted(vec![Dimension::Vm]).is_empty(), "a VM is more than its halts");
        let mut row = report.rows(&view()).into_iter().find(|row| row.is_halted(&[Dimension::Reason])).unwrap();
        row.key.level = Level::L2;
        assert!(!row.is_halted(&[Dimension::Reason]));
    }

    #[test]
    fn where_details_are_told_apart_rows_count_exits_and_no_exit_twice() {
        let mut report = report();
        let (&key, series) = report.whole.series.iter().find(|(key, _)| key.reason == Some(10)).unwrap();
        let mut of_leaf = Series::default();
        // Of 97 exits that the host handled, 90 are known to be of a leaf.
        of_leaf[Figure::ExitToEntry].record_n(500, 90);
        of_leaf.budget.host_ns = 45_000;
        let mut rest = series.clone();
        rest[Figure::ExitToEntry] = Default::default();
        rest[Figure::ExitToEntry].record_n(500, 7);
        rest.budget.host_ns = 3500;
        report.whole.series.insert(key, rest);
        report.whole.series.insert(Key { detail: Some(Detail::Leaf(1, None)), ..key }, of_leaf);
        let by = |by: Vec<Dimension>| report.all_rows(&View { by, ..view() });
        let exits = |rows: &Rows| rows.each.iter().map(|row| (row.group.join("/"), row.exits)).collect::<Vec<_>>();
        let rows = by(vec![Dimension::Reason, Dimension::Detail]);
        assert!(rows.by_detail);
        assert_eq!(exits(&rows)[0], ("CPUID/0x1".into(), 90), "{:?}", exits(&rows));
        assert_eq!(rows.total.exits, 97 + 23);
        assert_eq!((rows.each[0].series.entries(), rows.each[0].series.guest_ns()), (0, None));
        let whole = by(vec![Dimension::Reason]);
        assert_eq!((exits(&whole)[0].clone(), whole.by_detail), (("CPUID".into(), 97), false));
        assert_eq!(whole.each[0].series.host_ns(), Some(48_500));
    }
}
