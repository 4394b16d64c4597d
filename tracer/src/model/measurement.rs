//! How figures were measured: their sources, the settings, and the VMX-preemption timer. Part of every recording.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::model::knowledge::Unknown;

/// The worth of figures from an emulated CPU, for people.
pub(crate) const EMULATED: &str = "counts are exact; times say nothing about real hardware";

/// The source of pin writes per entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PinSource {
    /// differences of KVM's shadow copy of the pin controls between kvm_exit, kvm_entry and kvm_exit
    Shadow,
    /// the companion patch's tracepoint kvm_vmcs_write: exact
    Tracepoint,
    /// not known: the figure is n/a
    None,
}

impl PinSource {
    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shadow => "shadow",
            Self::Tracepoint => "tracepoint",
            Self::None => "none",
        }
    }
}

/// Whether guest and host times of a recording are disturbed by hooks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Latency {
    /// only the programs on kvm_entry and kvm_exit ran
    #[default]
    Clean,
    /// hooks on VMCS writes ran between kvm_entry and the VM entry: not shown
    Disturbed,
    /// the same, but shown because the user asked for them (`--with-latency`)
    DisturbedButAsked,
}

/// Other tracers on kvm_entry and kvm_exit at one moment: guest and host times contain their work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherTracers {
    /// each that was seen, for people; empty for none
    pub names: Vec<String>,
    /// where none could be looked for, each with the reason; empty where all was looked at
    pub unseen: Vec<String>,
}

impl OtherTracers {
    /// Those of several moments or recordings together, each once.
    pub(crate) fn merge(all: impl IntoIterator<Item = Self>) -> Self {
        let (mut names, mut unseen) = (BTreeSet::new(), BTreeSet::new());
        for one in all {
            names.extend(one.names);
            unseen.extend(one.unseen);
        }
        Self { names: names.into_iter().collect(), unseen: unseen.into_iter().collect() }
    }

    /// Says who "are" or "were" on the tracepoints; none where none was seen.
    pub(crate) fn shared(&self, are: &str) -> Option<String> {
        let who = self.names.join(", ");
        (!self.names.is_empty())
            .then(|| format!("other tracers {are} on kvm_entry and kvm_exit, and times contain their work: {who}"))
    }

    /// Says that there may be more, and why; none where all was looked at, or nothing.
    pub(crate) fn may_be_more(&self) -> Option<String> {
        let why = self.unseen.join(", ");
        (!self.unseen.is_empty())
            .then(|| format!("not all other tracers on kvm_entry and kvm_exit could be seen: {why}"))
    }

    /// For people: who, or that none was seen, and what is not known.
    pub(crate) fn text(&self) -> String {
        let names = if self.names.is_empty() { "none seen".to_owned() } else { self.names.join(", ") };
        if self.unseen.is_empty() { names } else { format!("{names}; not known: {}", self.unseen.join(", ")) }
    }
}

/// The companion patch's stopwatch: `transition_ns` of every entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopwatch {
    /// resolution: 2^rate TSC cycles; null where IA32_VMX_MISC could not be read
    pub rate: Option<u32>,
    /// TSC frequency used to convert its cycles to ns, kHz
    pub tsc_khz: u32,
}

impl Stopwatch {
    /// Its resolution, ns; none where the rate is not known.
    pub(crate) fn tick_ns(&self) -> Option<f64> {
        Some(f64::from(self.rate?).exp2() * 1e6 / f64::from(self.tsc_khz.max(1)))
    }
}

/// The place that counts entries: user space or the eBPF programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregation {
    /// In user space, from one record per VM entry: values are exact to 0.1 %
    #[default]
    Records,
    /// In the eBPF programs, without records: values are exact to 1.6 %, and the collector needs almost no CPU
    InKernel,
}

impl Aggregation {
    /// A note that reports must show; none for records.
    pub(crate) const fn note(self) -> Option<&'static str> {
        match self {
            Self::Records => None,
            Self::InKernel => Some("values were counted in the kernel, in 32 buckets per power of two: exact to 1.6 %"),
        }
    }

    /// Name in files and on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::InKernel => "in-kernel",
        }
    }

    /// Returns the source of the counts, and the precision of values.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Records => "from records, to 0.1 %",
            Self::InKernel => "in the kernel, to 1.6 %",
        }
    }

    /// Why entries were dropped.
    pub(crate) const fn why_dropped(self) -> &'static str {
        match self {
            Self::Records => "ring full",
            Self::InKernel => "no room for their series",
        }
    }

    /// Whether it need not be stored: [`Aggregation::Records`].
    pub(crate) fn is_usual(&self) -> bool {
        *self == Self::Records
    }
}

/// The VMX-preemption timer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timer {
    /// KVM uses it (parameter `preemption_timer`); null where there is no such parameter
    pub used: Option<bool>,
    /// it counts once every 2^rate TSC cycles; null where the MSR cannot be read
    pub rate: Option<u32>,
    /// TSC frequency as KVM has it, kHz; null where KVM cannot be asked
    pub tsc_khz: Option<u32>,
    /// the longest timer delay, seconds; null where rate or frequency is unknown
    pub max_delay_s: Option<f64>,
}

/// How long a soft-disabled timer runs, which KVM expects nobody to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoftDelay {
    /// the delay that its value promises, ns
    pub promised_ns: u64,
    /// the delay after which it expires on this CPU and kernel, ns: shorter with erratum EMR158, by the model of docs/erratum.md; null
    /// where it is unknown whether the CPU has the erratum
    pub real_ns: Option<u64>,
    /// the time by which a deadline's timer is early on a CPU with the erratum, ns; null where it is unknown
    pub limit_ns: Option<u64>,
}

/// Time by which a deadline's timer is early on a CPU with erratum EMR158, ns: 2^32 ticks of a crystal of 25 MHz, where the recording does not
/// tell a better one.
const USUAL_LIMIT_NS: u64 = 171_798_691_840;

impl SoftDelay {
    /// Least guest time after which a soft-disabled timer may expire, ns: 1 % for the timer's step and the TSC's measurement.
    pub(crate) fn least_ns(&self) -> u64 {
        self.promised_ns - self.promised_ns / 100
    }

    /// Whether the erratum explains a soft-disabled timer that expired before its time, after so many ns of guest time.
    pub(crate) fn explains(&self, guest_ns: u64) -> bool {
        self.real_ns.is_some_and(|real| real < self.least_ns() && guest_ns >= real - real / 100)
    }
}

/// Whether the erratum explains a deadline's timer that expired so many ns early: by its limit, which has 1 % of tolerance for the time that
/// the exit took and for the CPU's conversion.
pub(crate) fn erratum_explains_early(remaining_ns: u64, delay: Option<&SoftDelay>) -> bool {
    let limit = delay.and_then(|delay| delay.limit_ns).unwrap_or(USUAL_LIMIT_NS);
    remaining_ns.abs_diff(limit) <= limit / 100
}

impl Timer {
    /// The longest timer delay, seconds, by the TSC frequency that was measured (kHz) or else that KVM has; the reason where it is not known.
    pub(crate) fn longest_delay_s(&self, measured_khz: Option<u32>) -> Result<f64, Unknown> {
        let rate = self.rate.ok_or(Unknown::because("IA32_VMX_MISC could not be read (modprobe msr)"))?;
        let short = "the TSC frequency was not measured: the recording was too short or cut off";
        let khz = measured_khz.or(self.tsc_khz).ok_or(Unknown::because(short))?;
        Ok(max_delay_s(rate, khz))
    }
}

/// The longest timer delay, seconds: `(2^32 - 1) << rate` TSC cycles. `rate` is below 32.
pub fn max_delay_s(rate: u32, tsc_khz: u32) -> f64 {
    f64::from(u32::MAX) * f64::from(rate).exp2() / (f64::from(tsc_khz) * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_erratum_explains_the_times_of_its_model_only() {
        const SECOND: u64 = 1_000_000_000;
        let delay = |real_ns| SoftDelay { promised_ns: 275 * SECOND, real_ns, limit_ns: Some(172 * SECOND) };
        let xeon = delay(Some(103 * SECOND));
        assert!(xeon.explains(103 * SECOND) && xeon.explains(200 * SECOND) && !xeon.explains(SECOND));
        assert!(!delay(Some(275 * SECOND)).explains(200 * SECOND), "this CPU has no erratum, or KVM avoids it");
        assert!(!delay(None).explains(200 * SECOND));
        let early = |seconds: f64, delay| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some minutes in ns")]
            let ns = (seconds * 1e9) as u64;
            erratum_explains_early(ns, delay)
        };
        assert!(early(171.79, None) && early(171.0, Some(&xeon)) && early(173.5, Some(&xeon)));
        assert!(!early(4.0, None) && !early(171.79 * 2.0, None) && !early(165.0, Some(&xeon)));
    }
}
