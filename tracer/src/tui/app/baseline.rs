//! The baseline: values from before, which values are compared with.

use std::{collections::HashMap, sync::Arc};

use super::App;
use crate::{
    model::policy::Policy,
    tui::{
        columns::{COLUMNS, Kind, Values, change},
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
    /// Change of a value against the baseline, percent; none if either is unknown. Counts are compared per second.
    pub fn change(&self, row: &Row, column: usize) -> Option<f64> {
        let is_count = COLUMNS[column].kind == Kind::Count;
        let per = |seconds: f64| if is_count { (seconds > 0.0).then_some(seconds) } else { Some(1.0) };
        let now = row.values?[column]? / per(self.seen.seconds)?;
        let before = row.before?[column]? / per(self.baseline.as_ref()?.seconds())?;
        change(Some(now), Some(before))
    }

    pub(super) fn mark_baseline(&mut self) {
        if self.seen.slices.is_empty() {
            self.status = "no baseline: nothing was seen yet".into();
            return;
        }
        let slices = self.seen.slices.clone();
        self.baseline = Some(Baseline { slices, policy: self.info.policy, values: HashMap::new() });
        self.status = "baseline marked: values are differences to it; B clears it".into();
        self.stale = true;
    }

    pub(super) fn clear_baseline(&mut self) {
        self.baseline = None;
        self.stale = true;
    }
}
