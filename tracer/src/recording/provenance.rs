//! The recordings behind a report, a comparison or a merge.

use serde::{Deserialize, Serialize};

use super::{
    damage::Damage,
    header::{End, Header},
};
use crate::{
    host::stopwatch,
    model::{
        knowledge::{Subject, Unknown},
        measurement::{Aggregation, OtherTracers},
        policy::Policy,
    },
};

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
    /// further files that have the recording or a part of it; what they share counts once
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also_in: Vec<String>,
    /// what was left out because it is damaged: of the recording, of merges that it came through
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damage: Vec<Damage>,
}

/// Returns the place that counted the entries of all recordings: the kernel if any of them were counted there, since it is coarser.
pub(crate) fn aggregation(sources: &[Provenance]) -> Aggregation {
    let in_kernel = sources.iter().any(|s| s.header.aggregation == Aggregation::InKernel);
    if in_kernel { Aggregation::InKernel } else { Aggregation::Records }
}

/// The longest timer delay of a recording's host, seconds; the reason where it is not known. Every view shows this one.
pub(crate) fn longest_timer_delay_s(header: &Header, end: Option<&End>) -> Result<f64, Unknown> {
    let Some(timer) = &header.timer else {
        header.knowledge().known(Subject::TimerExits).map_err(Unknown::clone)?;
        return Err(Unknown::because("the recording does not describe the timer"));
    };
    // KVM may keep the timer's values below the largest one.
    let promised = header.soft_delay.map(|delay| delay.promised_ns as f64 / 1e9);
    promised.map_or_else(|| timer.longest_delay_s(end.and_then(|e| e.tsc_khz)), Ok)
}

/// The other tracers that were on kvm_entry and kvm_exit at a recording's beginning or end; of a merge, those of its recordings.
pub(crate) fn other_tracers(header: &Header, end: Option<&End>) -> OtherTracers {
    let own = [header.other_tracers.clone(), end.and_then(|e| e.other_tracers.clone())];
    let merged = header.sources.iter().map(Provenance::other_tracers);
    OtherTracers::merge(own.into_iter().flatten().chain(merged))
}

impl Provenance {
    /// A recording of which only the header was read.
    pub(crate) fn unread(name: String, header: Header) -> Self {
        Self {
            name,
            header,
            end: None,
            torn: false,
            intervals: 0,
            length_ns: 0,
            also_in: Vec::new(),
            damage: Vec::new(),
        }
    }

    /// As [`longest_timer_delay_s`].
    pub(crate) fn longest_timer_delay_s(&self) -> Result<f64, Unknown> {
        longest_timer_delay_s(&self.header, self.end.as_ref())
    }

    /// Whether the companion patch's stopwatch was on: it restarts the timer over and over, so that spurious exits are normal.
    pub(crate) fn has_stopwatch(&self) -> bool {
        let parameter = self.header.host.parameters.get(stopwatch::PARAMETER);
        self.header.stopwatch.is_some() || parameter.is_some_and(|on| on == "Y")
    }

    /// The timer policy; unknown where it changed while recording.
    pub fn policy(&self) -> Policy {
        let changed = self.end.as_ref().is_some_and(|e| e.policy_changed) || self.header.experiment.is_some();
        if changed { Policy::Unknown } else { self.header.known_policy() }
    }

    /// As [`other_tracers`].
    pub(crate) fn other_tracers(&self) -> OtherTracers {
        other_tracers(&self.header, self.end.as_ref())
    }

    /// Whether other tracers on kvm_entry and kvm_exit were looked for; of a merge, in all its recordings.
    pub(crate) fn looked_for_tracers(&self) -> bool {
        let merged = &self.header.sources;
        let own = self.header.other_tracers.is_some() || self.end.as_ref().is_some_and(|e| e.other_tracers.is_some());
        own || !merged.is_empty() && merged.iter().all(Provenance::looked_for_tracers)
    }

    /// The policy for people, also where it changed, and why it is not known where it is not.
    pub(crate) fn policy_text(&self) -> String {
        if let Err(reason) = self.header.knowledge().known(Subject::Policy) {
            return format!("{} ({reason})", Policy::Unknown.name());
        }
        let at_first = self.header.known_policy();
        let name = at_first.name();
        match &self.header.experiment {
            Some(e) => format!(
                "{name} at the beginning, then {} and {} alternately (see 'vmentry compare')",
                e.arms[0], e.arms[1]
            ),
            None if self.policy() == at_first => name.into(),
            None => format!("{name} at the beginning, another at the end"),
        }
    }
}
