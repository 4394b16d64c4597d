//! The first and the last line of a recording, and the experiment that it may be a part of.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::{foreign, provenance::Provenance};
use crate::{
    host::{clock::Anchor, machine::Host},
    kernel::vmwrite_sites::Site,
    model::{
        accounting::Accounting,
        knowledge::{Knowledge, Source, Subject},
        measurement::{Aggregation, Latency, OtherTracers, PinSource, SoftDelay, Stopwatch, Timer},
        policy::Policy,
    },
};

/// Value of [`Header::format`].
pub(crate) const FORMAT: &str = "vmentry-recording";
/// Version that this program writes, and the highest that it reads. 2 added the figure `transition_ns`, 3 the figures `deadline_late_ns` and
/// `deadline_remaining_ns`, the cause `early`, sums of times with the parts of the host time, and details of exits, which earlier readers
/// refuse.
pub(crate) const VERSION: u32 = 3;

/// First version with `transition_ns`.
const FIRST_WITH_TRANSITION: u32 = 2;

/// First version with timers' deadlines.
const FIRST_WITH_DEADLINES: u32 = 3;

/// First version with the parts of the host time, and with details.
const FIRST_WITH_PHASES: u32 = 3;

/// Parameter of a kvm_intel with the companion patch, which shows the policy.
const SWITCH: &str = "preemption_timer_policy";

/// First line of a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`]
    pub format: String,
    /// [`VERSION`] of the writer
    pub version: u32,
    /// e.g. "vmentry 0.1.0"
    pub tool: String,
    /// the recorder's command line
    pub command: Vec<String>,
    /// `--label`
    pub label: Option<String>,
    /// the same moment on CLOCK_MONOTONIC and on the wall
    pub anchor: Anchor,
    /// requested length of an interval, ns
    pub interval_ns: u64,
    /// bytes of one CPU's ring
    pub ring_bytes: u32,
    /// the host
    pub host: Host,
    /// timer policy at the beginning
    pub policy: Policy,
    /// source of `pin_writes`
    pub pin_writes_source: PinSource,
    /// whether guest and host times are disturbed by hooks
    #[serde(default)]
    pub latency: Latency,
    /// place that counted entries
    #[serde(default, skip_serializing_if = "Aggregation::is_usual")]
    pub aggregation: Aggregation,
    /// the VMX-preemption timer; none without VMX
    #[serde(default)]
    pub timer: Option<Timer>,
    /// how long a soft-disabled timer runs; none without VMX, where it is unknown, and in recordings of versions before 3
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft_delay: Option<SoftDelay>,
    /// CPUs without a periodic tick, as in nohz_full; empty without one, none where nobody looked
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tickless_cpus: Option<String>,
    /// the stopwatch, where it was on; without it, `transition_ns` is known of immediate timer exits only
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopwatch: Option<Stopwatch>,
    /// host times were split into their parts
    #[serde(default)]
    pub phases: bool,
    /// exits were looked at beyond their reasons (`--detail`)
    #[serde(default)]
    pub detail: bool,
    /// the VMWRITE sites that kprobes counted
    #[serde(default)]
    pub sites: Vec<Site>,
    /// fields that this kernel does not have, each with the figures that are n/a without it
    pub missing: Vec<String>,
    /// what the recorder could not know, each with the reason; null in recordings of earlier programs, where it follows from the other fields
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<BTreeMap<String, String>>,
    /// other tracers on kvm_entry and kvm_exit at the beginning; none where nobody looked
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_tracers: Option<OtherTracers>,
    /// the experiment of `vmentry ab` that this records; none otherwise
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experiment: Option<Experiment>,
    /// the merged recordings with their own headers; empty unless this is a merge
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Provenance>,
}

impl Header {
    /// What is known about this recording's entries; of a merge, about those of all its recordings.
    pub fn knowledge(&self) -> Knowledge {
        if !self.sources.is_empty() {
            return Knowledge::merge(self.sources.iter().map(|s| s.header.knowledge()));
        }
        let traced = match &self.unknown {
            Some(reasons) => Knowledge::from_file(reasons),
            None => Knowledge::of(&Source {
                vendor: self.host.vendor,
                missing: &self.missing,
                pin_writes: self.pin_writes_source,
                stopwatch: self.stopwatch.is_some(),
                counted_in_kernel: self.aggregation == Aggregation::InKernel,
                policy_is_shown: self.policy != Policy::Unknown,
                policy_is_parameter: self.policy == Policy::Off || self.host.parameters.contains_key(SWITCH),
                phases: self.phases,
                detail: self.detail,
            }),
        };
        let subjects = [
            (Subject::Transition, FIRST_WITH_TRANSITION),
            (Subject::Deadline, FIRST_WITH_DEADLINES),
            (Subject::Lateness, FIRST_WITH_DEADLINES),
            (Subject::UserTime, FIRST_WITH_PHASES),
            (Subject::HaltTime, FIRST_WITH_PHASES),
            (Subject::StealTime, FIRST_WITH_PHASES),
            (Subject::Detail, FIRST_WITH_PHASES),
        ];
        let too_old = subjects.into_iter().filter(|(_, first)| self.version < *first).map(|(subject, _)| subject);
        let traced = traced.without(too_old, &format!("recordings of version {} do not have it", self.version));
        traced.with_latency(self.latency)
    }

    /// The header as a reader of its recording gets it: with printable strings, though names and arguments of the command line may be any.
    pub(crate) fn printable(&self) -> Result<Self> {
        foreign::parse(&serde_json::to_vec(self)?)
    }

    /// The policy at the beginning; unknown where the host could not know it, whatever an earlier program wrote.
    pub(crate) fn known_policy(&self) -> Policy {
        if self.knowledge().known(Subject::Policy).is_ok() { self.policy } else { Policy::Unknown }
    }

    /// Source of `transition_ns`: "stopwatch", or "immediate" for immediate timer exits.
    pub(crate) fn transition_source(&self) -> &'static str {
        if self.stopwatch.is_some() { "stopwatch" } else { "immediate" }
    }

    /// The place that counted the entries of a recording of [`Self::sources`]; of this recording where it is no merge.
    pub(super) fn aggregation_of(&self, source: usize) -> Aggregation {
        self.sources.get(source).map_or(self.aggregation, |source| source.header.aggregation)
    }
}

/// Whether a first line begins as that of every recording.
pub(super) fn is_header(first: &[u8]) -> bool {
    first.starts_with(b"#{\"format\":\"vmentry-recording\"")
}

/// The header in a recording's first line.
pub(super) fn parse(first: &[u8]) -> Result<Header> {
    #[derive(Deserialize)]
    struct Any {
        format: String,
        version: u32,
    }
    let json = first.strip_prefix(b"#").unwrap_or_default();
    let any: Any = foreign::parse(json).map_err(|_| {
        if first.is_empty() {
            anyhow!("the file is empty: nothing was recorded")
        } else if is_header(first) {
            anyhow!("the header is cut off or damaged: nothing can be read without it")
        } else {
            anyhow!("not a vmentry recording (its first line is no vmentry header): record one with 'vmentry record -o FILE'")
        }
    })?;
    if any.format != FORMAT {
        bail!("not a vmentry recording: format is '{}', not '{FORMAT}'", any.format);
    }
    if any.version > VERSION {
        bail!("recording of format version {}, this vmentry reads up to {VERSION}: use a newer vmentry", any.version);
    }
    foreign::parse(json).context("read the header")
}

/// An experiment: two settings of the host, alternately.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Experiment {
    /// name of each setting, e.g. "soft", "kvm.halt_poll_ns=0": A, then B
    pub arms: [String; 2],
    /// the switch to each setting: a policy's name, a value, or a shell command
    pub switches: [String; 2],
    /// requested length of a window, ns
    pub window_ns: u64,
    /// time left out after each switch, ns
    pub washout_ns: u64,
    /// requested rounds, of four windows each
    pub rounds: u32,
    /// seed of the windows' order
    pub seed: u64,
    /// primary figures in their order, as FIGURE.STATISTIC; absent in older recordings
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub primary: Vec<String>,
}

/// The window of an experiment that an interval belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// 0 for A, 1 for B
    pub arm: u8,
    /// round, from 0
    pub round: u32,
    /// place within the round, 0..=3
    pub place: u8,
}

/// Last line of a recording that ended in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// why it ended, e.g. "duration", "SIGINT"
    pub reason: String,
    /// entries, delivered and dropped, by CPU
    pub accounting: Accounting,
    /// TSC frequency measured over the recording, kHz; none below 0.1 s
    #[serde(default)]
    pub tsc_khz: Option<u32>,
    /// the timer policy at the end differs from that at the beginning
    #[serde(default)]
    pub policy_changed: bool,
    /// other tracers on kvm_entry and kvm_exit at the end; none where nobody looked
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_tracers: Option<OtherTracers>,
}
