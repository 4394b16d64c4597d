//! A survey as it is written: format "vmentry-survey/1", whose fields are in docs/formats.md. It has no field for a name, and unknown fields
//! are refused when it is read: what is not here cannot be in a file that passes.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::reason::Reason;
use crate::{
    html::moment::utc,
    model::{measurement::Aggregation, policy::Policy, vendor::Vendor},
};

/// Name and version of the format.
pub(super) const FORMAT: &str = "vmentry-survey/1";

/// A survey of a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Survey {
    /// [`FORMAT`]
    pub(super) format: String,
    /// e.g. "vmentry 0.1.0"
    pub(super) tool: String,
    /// day in UTC, e.g. "2026-11-27"
    pub(super) day: String,
    /// ended by a signal before all parts were done
    pub(super) cut: bool,
    pub(super) host: Host,
    pub(super) parts: Parts,
}

impl Survey {
    /// Of what was gathered and measured, today.
    pub(super) fn new(host: Host, parts: Parts) -> Self {
        Self {
            format: FORMAT.into(),
            tool: format!("vmentry {}", env!("CARGO_PKG_VERSION")),
            day: today(),
            cut: parts.is_cut(),
            host,
            parts,
        }
    }
}

/// The day in UTC, e.g. "2026-11-27".
pub(super) fn today() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    utc(u64::try_from(now.as_nanos()).unwrap_or(0))[..10].into()
}

/// The host, without its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Host {
    pub(super) cpu: String,
    pub(super) microcode: Option<String>,
    /// CPUs online
    pub(super) cpus: u32,
    /// `uname -r`
    pub(super) kernel: String,
    /// module that runs VMs; null while none does
    pub(super) vendor: Option<Vendor>,
    /// parameters of that module
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) emulated: bool,
    /// signature of the hypervisor below; null on bare metal, as far as can be told
    pub(super) virtualized: Option<String>,
    pub(super) policy: Policy,
    pub(super) companion_patch: bool,
    /// null without the companion patch's stopwatch
    pub(super) stopwatch: Option<bool>,
    /// fields that this kernel's BTF lacks
    pub(super) missing: Vec<String>,
    /// TSC frequency by KVM, kHz
    pub(super) tsc_khz: Option<u32>,
    /// the preemption timer counts once in 2^rate TSC cycles
    pub(super) timer_rate: Option<u32>,
    /// CPUs without a periodic tick, e.g. "2-3"; empty for none
    pub(super) tickless_cpus: String,
    /// what is known of erratum EMR158 without trying it; null without VMX
    pub(super) erratum: Option<Expected>,
}

/// Erratum EMR158 by CPU model, kernel and model of the timer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expected {
    pub(super) cpu: Option<Known>,
    pub(super) reach: Option<ErratumLimit>,
    /// delay at which timers begin to expire early, s
    pub(super) limit_s: Option<f64>,
    /// delay after which a soft-disabled timer expires, s
    pub(super) soft_delay_s: Option<f64>,
}

/// Whether the erratum is known for a CPU model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Known {
    Published,
    Inferred,
    No,
}

/// Whether timer values reach the erratum's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ErratumLimit {
    Never,
    Avoided,
    Reached,
}

/// The parts, in the order in which they run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Parts {
    pub(super) check: Part<Proof>,
    pub(super) erratum: Part<Probe>,
    pub(super) overhead: Part<Overhead>,
    pub(super) calibrate: Part<Calibration>,
    pub(super) recording: Part<Recording>,
}

impl Parts {
    pub(super) fn is_cut(&self) -> bool {
        let cut = [self.check.cut, self.erratum.cut, self.overhead.cut, self.calibrate.cut, self.recording.cut];
        cut.contains(&true)
    }

    /// Whether anything was measured. A proof that failed says only that nothing can be.
    pub(super) fn has_figures(&self) -> bool {
        self.check.measured.as_ref().is_some_and(|proof| proof.passed)
            || self.erratum.measured.is_some()
            || self.overhead.measured.is_some()
            || self.calibrate.measured.is_some()
            || self.recording.measured.is_some()
    }
}

/// A part: figures, or why there are none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part<T> {
    /// the CPU is emulated: times say nothing about real hardware
    pub(super) emulated: bool,
    /// ended before it was done: by a signal, or because it took too long
    pub(super) cut: bool,
    pub(super) seconds: f64,
    pub(super) measured: Option<T>,
    /// null exactly if something was measured
    pub(super) unavailable: Option<Reason>,
}

/// A guest with a known number of exits, as it was traced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Proof {
    pub(super) passed: bool,
    /// CPUID exits that the guest made
    pub(super) exits: u64,
    pub(super) entries: u64,
    pub(super) dropped: u64,
    /// entries that ended with a CPUID exit
    pub(super) cpuid: u64,
    pub(super) with_reason: u64,
    pub(super) with_level: u64,
    pub(super) with_pin_writes: u64,
}

/// Far timers of a guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Probe {
    /// they fire early
    pub(super) early: bool,
    pub(super) timers: Vec<FarTimer>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FarTimer {
    /// an early timer fires after this time
    pub(super) offset_ns: u64,
    /// null where no interrupt came
    pub(super) after_ns: Option<u64>,
    /// whether KVM armed the preemption timer; null where that was not seen
    pub(super) armed: Option<bool>,
}

/// As `check --overhead` has it: three values are least, median and most of the rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Overhead {
    pub(super) exits: u64,
    pub(super) rounds: u64,
    pub(super) untraced_ns: [f64; 3],
    pub(super) direct_loads: bool,
    pub(super) modes: Vec<Mode>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mode {
    pub(super) aggregation: Aggregation,
    pub(super) vcpu_ns: [f64; 3],
    pub(super) collector_ns: [f64; 3],
    pub(super) speed: [f64; 3],
    pub(super) dropped: u64,
    pub(super) counted: u64,
}

/// As `calibrate` has it, in ns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Calibration {
    pub(super) clock_source: String,
    pub(super) tsc_khz: Option<f64>,
    /// bound of the clocks' error
    pub(super) clock_error_ns: Option<f64>,
    /// wanted of each exit
    pub(super) samples: u64,
    pub(super) exits: Vec<Exit>,
    pub(super) writes: Vec<Write>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exit {
    pub(super) exit: String,
    pub(super) policy: Policy,
    pub(super) entry_latency_ns: Option<Distribution>,
    pub(super) exit_latency_ns: Option<Distribution>,
    /// VM entry plus VM exit without guest code
    pub(super) transition_ns: Option<Distribution>,
    pub(super) round_trip_untraced_ns: Option<Distribution>,
    /// added to the median round trip by tracing
    pub(super) tracing_ns: Option<f64>,
    /// records left out of every figure, the warm-up among them
    pub(super) set_apart: u64,
    pub(super) inconsistent: u64,
}

/// The cost of a write to these controls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Write {
    /// "pin" or "exec"
    pub(super) control: String,
    /// null exactly if there is a cost
    pub(super) unavailable: Option<Reason>,
    pub(super) rounds: u64,
    /// VM-entry latency with, without a write before
    pub(super) dirty_ns: Option<Distribution>,
    pub(super) clean_ns: Option<Distribution>,
    pub(super) cost_ns: Option<Interval>,
    /// entries left out because a write was where none was expected, or the reverse
    pub(super) unexpected: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Distribution {
    pub(super) count: u64,
    pub(super) floor: f64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
    pub(super) mean: f64,
}

/// A median and its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Interval {
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// Running VMs, by number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recording {
    pub(super) length_s: f64,
    /// entries == delivered + dropped
    pub(super) entries: u64,
    pub(super) delivered: u64,
    pub(super) dropped: u64,
    /// delivered, but in no row: undecodable, or beyond the number of series
    pub(super) not_kept: u64,
    /// the kernel's counts and the delivered records agree
    pub(super) exact: bool,
    pub(super) pin_writes: Option<u64>,
    /// "shadow" or "tracepoint"
    pub(super) pin_writes_source: Option<String>,
    /// entries whose pin writes are not known
    pub(super) unknown_pin_writes: u64,
    pub(super) timer_exits: TimerExits,
    /// VM 1, VM 2, ..., most host time first
    pub(super) vms: Vec<Vm>,
    pub(super) reasons: Vec<ExitReason>,
}

/// Timer exits by cause; null where that is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TimerExits {
    pub(super) deadline: Option<u64>,
    pub(super) immediate: Option<u64>,
    pub(super) spurious: Option<u64>,
    pub(super) early: Option<u64>,
    pub(super) unknown: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vm {
    pub(super) entries: u64,
    pub(super) host_time_share: Option<f64>,
    pub(super) pin_writes: Option<Percentiles>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExitReason {
    /// null where exit reasons cannot be read
    pub(super) reason: Option<String>,
    pub(super) entries: u64,
    pub(super) exit_share: Option<f64>,
    pub(super) host_time_share: Option<f64>,
    pub(super) guest_time_ns: Option<Percentiles>,
    pub(super) host_time_ns: Option<Percentiles>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Percentiles {
    pub(super) count: u64,
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) mean: f64,
}
