//! The first and the last line of a recording, and the experiment that it may be a part of.

use serde::{Deserialize, Serialize};

use super::provenance::Provenance;
use crate::{
    host::{clock::Anchor, machine::Host},
    kernel::vmwrite_sites::Site,
    model::{
        accounting::Accounting,
        measurement::{Aggregation, Latency, PinSource, Stopwatch, Timer},
        policy::Policy,
    },
};

/// Value of [`Header::format`].
pub const FORMAT: &str = "vmentry-recording";
/// Version this program writes; it reads no later one. 2 has the figure `transition_ns`, which readers of 1 refuse.
pub const VERSION: u32 = 2;

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
    /// what the user called it
    pub label: Option<String>,
    /// the same moment on CLOCK_MONOTONIC and on the wall
    pub anchor: Anchor,
    /// length of an interval that was asked for, ns
    pub interval_ns: u64,
    /// bytes of one CPU's ring
    pub ring_bytes: u32,
    /// the host
    pub host: Host,
    /// timer policy at the beginning
    pub policy: Policy,
    /// source of `pin_writes`
    pub pin_writes_source: PinSource,
    /// what the latencies are worth
    #[serde(default)]
    pub latency: Latency,
    /// where entries were counted
    #[serde(default, skip_serializing_if = "Aggregation::is_usual")]
    pub aggregation: Aggregation,
    /// the preemption timer; none without VMX
    #[serde(default)]
    pub timer: Option<Timer>,
    /// CPUs without a periodic tick, as in nohz_full
    #[serde(default)]
    pub tickless_cpus: String,
    /// the stopwatch that `transition_ns` comes from; none where it is that of entries that were forced to exit at once
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopwatch: Option<Stopwatch>,
    /// VMWRITE sites of the pin controls that were counted
    #[serde(default)]
    pub sites: Vec<Site>,
    /// what this kernel does not tell: field and what is n/a without it
    pub missing: Vec<String>,
    /// the experiment that this is a recording of; none of an ordinary one
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experiment: Option<Experiment>,
    /// the recordings that this one is a merge of; empty of an ordinary one. What they differ in is told by their own headers
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Provenance>,
}

impl Header {
    /// Where `transition_ns` comes from: "stopwatch", or "immediate" for that of entries that were forced to exit at once.
    pub fn transition_source(&self) -> &'static str {
        if self.stopwatch.is_some() { "stopwatch" } else { "immediate" }
    }
}

/// Two settings of the host, by turns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Experiment {
    /// name of each setting, e.g. "soft": A, then B
    pub arms: [String; 2],
    /// what switches to each: a policy's name, or a command of the user's
    pub switches: [String; 2],
    /// length of a window that was asked for, ns
    pub window_ns: u64,
    /// what is left out after each switch, ns
    pub washout_ns: u64,
    /// rounds that were asked for, of four windows each
    pub rounds: u32,
    /// of the order of the windows
    pub seed: u64,
}

/// Which window of an experiment an interval is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// 0 for A, 1 for B
    pub arm: u8,
    /// from 0
    pub round: u32,
    /// place within the round, 0..=3
    pub place: u8,
}

/// Last line of a recording that ended in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// why it ended, e.g. "duration", "SIGINT"
    pub reason: String,
    /// the balance
    pub accounting: Accounting,
    /// TSC frequency measured over the recording, kHz; none of a recording under a tenth of a second
    #[serde(default)]
    pub tsc_khz: Option<u32>,
    /// the timer policy at the end was another than at the beginning
    #[serde(default)]
    pub policy_changed: bool,
}
