//! The content of the screen: slices, rows and detail, made again when an interval or an action changed them.

use std::{collections::HashMap, sync::Arc};

use super::{App, LATEST, SPARK};
use crate::model::knowledge::Unknown;
use crate::tui::{
    budget::{self, Part},
    columns::COLUMNS,
    detail::{Detail, View},
    filter::Matcher,
    history::Slice,
    node::{Node, vm_names},
    rows::{Row, RowBuilder},
    sum::{Sum, SumCache},
    weight::Whole,
};

/// Slices, rows and detail of the window.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// the window
    pub slices: Vec<Arc<Slice>>,
    /// the latest intervals, oldest first
    pub latest: Vec<Arc<Slice>>,
    /// names of the VMs
    pub names: HashMap<u32, String>,
    /// the filter
    pub matcher: Matcher,
    /// everything in the window
    pub(crate) whole: Whole,
    /// everything in the baseline's window; none without a baseline
    pub(crate) before: Option<Whole>,
    /// rows, top to bottom
    pub rows: Vec<Row>,
    /// entries by the kernel's count
    pub entries: u64,
    /// seconds of observation
    pub seconds: f64,
    /// name and budget of the selected row, if it is shown
    pub(crate) budget: Option<(String, Result<Vec<Part>, Unknown>)>,
    /// detail of the selected row, if it is shown
    pub detail: Option<Detail>,
}

impl App {
    /// Makes the rows again if an interval or an action changed them.
    pub fn refresh(&mut self) {
        if !std::mem::take(&mut self.stale) {
            return;
        }
        self.seen.slices.clear();
        let Some(newest) = self.history.newest() else {
            self.seen = Seen::default();
            return;
        };
        let end = self.end.unwrap_or(newest).max(self.history.oldest().unwrap_or(0));
        let slices = match self.window.seconds() {
            Some(seconds) => self.history.window(seconds, end),
            None => {
                let whole = self.history.since_start(end);
                // The next frame goes on.
                self.stale = self.history.is_behind(end);
                vec![whole]
            }
        };
        let mut latest: Vec<_> =
            self.history.slices().rev().skip_while(|s| s.number > end).take(LATEST).cloned().collect();
        latest.reverse();
        let names = vm_names(&slices);
        let before = self.baseline.iter().flat_map(|b| &b.slices);
        let matcher = Matcher::new(&self.filter, slices.iter().chain(before), &names);
        if self.summed_filter != self.filter {
            self.summed_filter.clone_from(&self.filter);
            self.sums = SumCache::default();
            self.baseline.iter_mut().for_each(|b| b.values.clear());
        }
        self.sums.keep(slices.iter().chain(self.baseline.iter().flat_map(|b| &b.slices)));
        let knowledge = &self.info.knowledge;
        let whole = Whole::of(&slices, &matcher, knowledge);
        let before = self.baseline.as_ref().map(|b| Whole::of(&b.slices, &matcher, knowledge));
        let builder = RowBuilder {
            slices: &slices,
            names: &names,
            matcher: &matcher,
            group: self.group,
            order: self.order,
            whole: &whole,
            knowledge,
        };
        let mut rows = builder.rows(&self.unfolded, &mut self.sums);
        // Nothing but one folded row would say little: it unfolds, once.
        if let [Row { node, unfolded: Some(false), .. }] = rows[..]
            && self.filter.is_empty()
            && self.unfolded_alone.insert(node)
        {
            self.unfolded.insert(node);
            rows = builder.rows(&self.unfolded, &mut self.sums);
        }
        let entries = slices.iter().map(|s| s.interval.totals.entries).sum();
        let seconds = slices.iter().map(|s| s.interval.length_ns as f64 / 1e9).sum();
        self.seen =
            Seen { slices, latest, names, matcher, whole, before, rows, entries, seconds, budget: None, detail: None };
        let kept = self.selected_node.and_then(|node| self.seen.rows.iter().position(|r| r.node == node));
        self.select(kept.unwrap_or(self.selected));
    }

    /// As [`Self::refresh`], until the window has all its intervals.
    pub(crate) fn refresh_whole(&mut self) {
        self.refresh();
        while self.stale {
            self.refresh();
        }
    }

    /// Computes the values of the rows that are about to be drawn.
    pub(crate) fn prepare_rows(&mut self, first: usize, count: usize) {
        let Seen { slices, latest, matcher, whole, before, rows, .. } = &mut self.seen;
        let spark = &latest[latest.len().saturating_sub(usize::from(SPARK))..];
        for row in rows.iter_mut().skip(first).take(count) {
            let node = row.node;
            let mut values = |slices: &[Arc<Slice>], whole: &Whole| {
                Sum::of(slices, node, matcher, &mut self.sums, &self.info.knowledge).values(whole)
            };
            row.values.get_or_insert_with(|| values(slices, whole));
            row.spark.get_or_insert_with(|| spark.iter().map(|s| rate(s, node, matcher)).collect());
            if let (Some(baseline), Some(before)) = (&mut self.baseline, &*before) {
                row.before = Some(*baseline.values.entry(node).or_insert_with(|| values(&baseline.slices, before)));
            }
        }
    }

    /// Whether a column has values, now or in the baseline, or sorts the rows.
    pub(crate) fn shows_column(&self, at: usize) -> bool {
        let has_values = |whole: &Whole, policy| COLUMNS[at].has_values(whole, &self.info.knowledge, policy);
        let before = self.baseline.as_ref().zip(self.seen.before.as_ref());
        self.order.column == Some(at)
            || has_values(&self.seen.whole, self.info.policy)
            || before.is_some_and(|(baseline, whole)| has_values(whole, baseline.policy))
    }

    /// Computes the budget of the selected row.
    pub(crate) fn prepare_budget(&mut self) {
        let Some(row) = self.seen.rows.get(self.selected).filter(|_| self.seen.budget.is_none()) else { return };
        let Seen { slices, matcher, .. } = &self.seen;
        let sum = Sum::of(slices, row.node, matcher, &mut self.sums, &self.info.knowledge);
        self.seen.budget = Some((self.full_name(row), budget::parts(&sum, &self.info.knowledge)));
    }

    /// The row's name, after those of the rows that hold it.
    fn full_name(&self, row: &Row) -> String {
        let mut names = vec![row.name.clone()];
        let mut node = row.node;
        while let Some(parent) = node.parent() {
            names.extend(self.seen.rows.iter().find(|r| r.node == parent).map(|r| r.name.clone()));
            node = parent;
        }
        names.reverse();
        names.join(" / ")
    }

    /// Computes the detail of the selected row.
    pub(crate) fn prepare_detail(&mut self) {
        let Some(row) = self.seen.rows.get(self.selected) else {
            self.seen.detail = None;
            return;
        };
        if self.seen.detail.as_ref().is_some_and(|d| d.node == row.node) {
            return;
        }
        let Seen { slices, latest, matcher, .. } = &self.seen;
        let view = View { window: slices, latest, matcher, knowledge: &self.info.knowledge };
        self.seen.detail = Some(Detail::of(row.node, self.full_name(row), &view, &mut self.sums));
    }
}

fn rate(slice: &Slice, node: Node, matcher: &Matcher) -> Option<f64> {
    let exits: u64 = node.keys(slice).filter(|(k, _)| matcher.passes(k)).map(|(_, weight)| weight.exits).sum();
    slice.interval.entries_per_s(exits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::interval::{
            Interval,
            tests::{event, vm},
        },
        recording::tests::header,
        tui::{Colors, Info, Origin, Palette},
    };

    #[test]
    fn an_interval_has_a_rate_only_with_a_length() {
        let info = Info::of(&header(), None, Origin::Live);
        let mut app = App::new(info, Palette { color: Colors::None, ascii: true });
        for length_ns in [1, u64::MAX, 0, 1_000_000_000] {
            let mut interval = Interval { length_ns, ..Interval::default() };
            interval.record(&event(0, 10, 900, 0), &vm(0));
            app.push(interval);
        }
        app.refresh();
        app.prepare_rows(0, 1);
        let spark = app.seen.rows[0].spark.as_ref().unwrap();
        assert!(matches!(spark[..], [None, Some(1.0)]), "{spark:?}");
    }
}
