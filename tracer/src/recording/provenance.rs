//! Where figures come from: the recordings of a report or of a merge.

use serde::{Deserialize, Serialize};

use super::header::{End, Header};
use crate::model::{measurement::Aggregation, policy::Policy};

/// One recording of several that are reported on, or were merged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// the file, as it was given
    pub name: String,
    /// its header
    pub header: Header,
    /// how it ended; none where it was cut off
    pub end: Option<End>,
    /// ended within an interval or a line
    pub torn: bool,
    /// whole intervals read
    pub intervals: u64,
    /// ns of observation
    pub length_ns: u64,
}

/// Where entries were counted, of several recordings: the coarsest.
pub fn aggregation(sources: &[Provenance]) -> Aggregation {
    let in_kernel = sources.iter().any(|s| s.header.aggregation == Aggregation::InKernel);
    if in_kernel { Aggregation::InKernel } else { Aggregation::Records }
}

impl Provenance {
    /// The timer policy, where it was the same from beginning to end.
    pub fn policy(&self) -> Policy {
        let changed = self.end.as_ref().is_some_and(|e| e.policy_changed) || self.header.experiment.is_some();
        if changed { Policy::Unknown } else { self.header.policy }
    }

    /// The policy in words, also where it changed.
    pub fn policy_text(&self) -> String {
        let name = self.header.policy.name();
        match &self.header.experiment {
            Some(e) => format!(
                "{name} at the beginning, then {} and {} by turns (see 'vmentry compare')",
                e.arms[0], e.arms[1]
            ),
            None if self.policy() == self.header.policy => name.into(),
            None => format!("{name} at the beginning, another at the end"),
        }
    }
}
