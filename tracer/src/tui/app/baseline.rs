//! The baseline: values from before, which values are compared with.

use std::{collections::HashMap, sync::Arc};

use super::App;
use crate::{
    model::policy::Policy,
    tui::{
        columns::{COLUMNS, Change, EXITS, Kind, Values},
        history::Slice,
        node::Node,
        rows::Row,
    },
};

/// The window that others are compared with.
#[derive(Clone, Debug)]
pub struct Baseline {
    /// the slices of the window
    pub slices: Vec<Arc<Slice>>,
    /// policy at that time
    pub policy: Policy,
    /// by node, as far as they were shown
    pub(super) values: HashMap<Node, Values>,
}

impl Baseline {
    /// Seconds of observation.
    pub fn seconds(&self) -> f64 {
        self.slices.iter().map(|s| s.interval.length_ns as f64 / 1e9).sum()
    }
}

impl App {
    /// Change of a value against the baseline. Counts are compared per second.
    pub fn change(&self, row: &Row, column: usize) -> Change {
        let kind = COLUMNS[column].kind;
        let value = |values: Option<Values>, seconds: f64| {
            let per = if kind == Kind::Count { (seconds > 0.0).then_some(seconds)? } else { 1.0 };
            Some(values?[column]? / per)
        };
        let is_new = |before: Values| before[EXITS].is_none_or(|rate| rate == 0.0);
        // A percentile that the baseline has too few values for is not new.
        if row.before.is_some_and(|before| before[column].is_none() && !is_new(before)) {
            return Change::Unknown;
        }
        let before = value(row.before, self.baseline.as_ref().map_or(0.0, Baseline::seconds));
        Change::of(kind, before, value(row.values, self.seen.seconds))
    }

    pub(super) fn mark_baseline(&mut self) {
        self.refresh_whole();
        if self.seen.slices.is_empty() {
            self.status = "no baseline: nothing was seen yet".into();
            return;
        }
        let slices = self.seen.slices.clone();
        self.baseline = Some(Baseline { slices, policy: self.info.policy, values: HashMap::new() });
        self.status = "baseline marked: each value has its difference to it; B clears it".into();
        self.stale = true;
    }

    pub(super) fn clear_baseline(&mut self) {
        self.baseline = None;
        self.stale = true;
    }
}
