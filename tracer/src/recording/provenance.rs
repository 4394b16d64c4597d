//! The recordings behind a report, a comparison or a merge.

use serde::{Deserialize, Serialize};

use super::header::{End, Header};
use crate::model::{measurement::Aggregation, policy::Policy};

/// A recording that figures come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// the file, as the user named it
    pub name: String,
    /// its header
    pub header: Header,
    /// how it ended; none where it was cut off
    pub end: Option<End>,
    /// the file ends within an interval or a line
    pub torn: bool,
    /// whole intervals read
    pub intervals: u64,
    /// ns of observation
    pub length_ns: u64,
}

/// Returns the place that counted the entries of all recordings: the kernel if any of them were counted there, since it is coarser.
pub(crate) fn aggregation(sources: &[Provenance]) -> Aggregation {
    let in_kernel = sources.iter().any(|s| s.header.aggregation == Aggregation::InKernel);
    if in_kernel { Aggregation::InKernel } else { Aggregation::Records }
}

impl Provenance {
    /// The timer policy; unknown where it changed while recording.
    pub fn policy(&self) -> Policy {
        let changed = self.end.as_ref().is_some_and(|e| e.policy_changed) || self.header.experiment.is_some();
        if changed { Policy::Unknown } else { self.header.policy }
    }

    /// The other tracers that were on kvm_entry and kvm_exit at its beginning or end, for people; of a merge, those of its recordings.
    pub(crate) fn other_tracers(&self) -> Vec<String> {
        let merged = self.header.sources.iter().flat_map(Provenance::other_tracers);
        let own = [self.header.other_tracers.as_ref(), self.end.as_ref().and_then(|e| e.other_tracers.as_ref())];
        let mut names: Vec<_> = own.into_iter().flatten().flat_map(|o| o.names.clone()).chain(merged).collect();
        names.sort();
        names.dedup();
        names
    }

    /// The policy for people, also where it changed.
    pub(crate) fn policy_text(&self) -> String {
        let name = self.header.policy.name();
        match &self.header.experiment {
            Some(e) => format!(
                "{name} at the beginning, then {} and {} alternately (see 'vmentry compare')",
                e.arms[0], e.arms[1]
            ),
            None if self.policy() == self.header.policy => name.into(),
            None => format!("{name} at the beginning, another at the end"),
        }
    }
}
