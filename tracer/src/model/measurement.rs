//! How figures were measured: sources, settings, and the timer that they depend on. Written into every recording.

use serde::{Deserialize, Serialize};

/// Where pin writes per entry come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PinSource {
    /// differences of the controls' shadow copy between kvm_exit, kvm_entry and kvm_exit
    Shadow,
    /// the companion patch's kvm_vmcs_write: exact
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

/// What the latencies of a recording are worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Latency {
    /// only the programs on kvm_entry and kvm_exit ran
    #[default]
    Clean,
    /// hooks on VMCS writes ran between kvm_entry and the VM entry: not shown
    Disturbed,
    /// the same, and the user asked for them nevertheless
    DisturbedButAsked,
}

/// The companion patch's stopwatch, where it was on: it tells `transition_ns` of every entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopwatch {
    /// guest time is known to 2^rate TSC cycles; null where IA32_VMX_MISC could not be read
    pub rate: Option<u32>,
    /// TSC frequency with which its cycles were made ns, kHz
    pub tsc_khz: u32,
}

impl Stopwatch {
    /// What guest time is known to, ns; none where the rate is not known.
    pub fn tick_ns(&self) -> Option<f64> {
        Some(2f64.powi(i32::try_from(self.rate?).ok()?) * 1e6 / f64::from(self.tsc_khz.max(1)))
    }
}

/// Where entries are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregation {
    /// Here, from a record per VM entry: values are known to 0.1 %
    #[default]
    Records,
    /// By the eBPF programs, without records: values are known to 1.6 %, and no CPU is needed to fold them
    InKernel,
}

impl Aggregation {
    /// What reports must say of it; none of what is usual.
    pub const fn note(self) -> Option<&'static str> {
        match self {
            Self::Records => None,
            Self::InKernel => {
                Some("values were counted in the kernel, by 32 classes to a doubling: each is known to 1.6 %")
            }
        }
    }

    /// Name in files and on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::InKernel => "in-kernel",
        }
    }

    /// Where, and what values are known to.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Records => "from records, to 0.1 %",
            Self::InKernel => "in the kernel, to 1.6 %",
        }
    }

    /// What became of entries that were dropped.
    pub const fn why_dropped(self) -> &'static str {
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
    /// delay of the largest value, seconds; null where one of its parts is unknown
    pub max_delay_s: Option<f64>,
}

/// Largest delay of the timer in seconds: `(2^32 - 1) << rate` TSC cycles.
pub fn max_delay_s(rate: u32, tsc_khz: u32) -> f64 {
    (f64::from(u32::MAX) * 2f64.powi(rate as i32)) / (f64::from(tsc_khz) * 1e3)
}
