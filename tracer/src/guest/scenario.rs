//! The scenarios that a guest can run.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::deadline;

/// The work that each vCPU of a guest does a given number of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Port writes.
    Out,
    /// CPUID instructions.
    Cpuid,
    /// Hypercalls.
    Vmcall,
    /// TSC-deadline timers with a busy wait.
    TscDeadline,
    /// Local APIC one-shot timers with a busy wait.
    Oneshot,
    /// TSC-deadline timers with HLT.
    Hlt,
    /// Loops without an exit.
    Spin,
    /// Forced immediate exits.
    Immediate,
    /// Entries into a nested guest (L2).
    Nested,
    /// The same with a TSC-deadline timer armed.
    NestedArmed,
    /// Interrupts that the guest cannot take at once.
    IrqWindow,
    /// NMIs of which the second cannot be taken at once.
    NmiWindow,
    /// Loops of PAUSE.
    Pause,
    /// Writes to an address without memory.
    Mmio,
    /// Writes to control register 4.
    Cr4,
    /// Writes to debug register 0.
    Dr0,
    /// XSETBV instructions.
    Xsetbv,
    /// Triple faults.
    TripleFault,
    /// VM entries that fail for the guest's state.
    FailedEntry,
}

impl Scenario {
    /// All scenarios, in the order in which they are shown.
    pub(crate) const ALL: [Self; 19] = [
        Self::Out,
        Self::Cpuid,
        Self::Vmcall,
        Self::TscDeadline,
        Self::Oneshot,
        Self::Hlt,
        Self::Spin,
        Self::Immediate,
        Self::Nested,
        Self::NestedArmed,
        Self::IrqWindow,
        Self::NmiWindow,
        Self::Pause,
        Self::Mmio,
        Self::Cr4,
        Self::Dr0,
        Self::Xsetbv,
        Self::TripleFault,
        Self::FailedEntry,
    ];

    /// The name on the command line and in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Cpuid => "cpuid",
            Self::Vmcall => "vmcall",
            Self::TscDeadline => "tsc-deadline",
            Self::Oneshot => "oneshot",
            Self::Hlt => "hlt",
            Self::Spin => "spin",
            Self::Immediate => "immediate",
            Self::Nested => "nested",
            Self::NestedArmed => "nested-armed",
            Self::IrqWindow => "irq-window",
            Self::NmiWindow => "nmi-window",
            Self::Pause => "pause",
            Self::Mmio => "mmio",
            Self::Cr4 => "cr4",
            Self::Dr0 => "dr0",
            Self::Xsetbv => "xsetbv",
            Self::TripleFault => "triple-fault",
            Self::FailedEntry => "failed-entry",
        }
    }

    /// One line of help.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Out => "write a port: one exit to user space each",
            Self::Cpuid => "execute CPUID: one exit handled in the kernel each",
            Self::Vmcall => "make a hypercall: VMCALL on Intel, VMMCALL on AMD",
            Self::TscDeadline => "arm a TSC-deadline timer and busy-wait for its interrupt",
            Self::Oneshot => "arm a local APIC one-shot timer and busy-wait for its interrupt",
            Self::Hlt => "arm a TSC-deadline timer and wait for its interrupt in HLT",
            Self::Spin => "loop --delta times without an exit",
            Self::Immediate => "write a port, after which KVM forces an immediate exit",
            Self::Nested => "as a hypervisor (L1), enter an L2 that exits by VMCALL (VMX only)",
            Self::NestedArmed => "the same while a far TSC-deadline timer is armed (VMX only)",
            Self::IrqWindow => "send itself an interrupt, and only then enable interrupts",
            Self::NmiWindow => "write a port, after which two NMIs come at once",
            Self::Pause => "execute --delta PAUSEs: one loop exit or more in all",
            Self::Mmio => "write an address without memory: one exit to user space each",
            Self::Cr4 => "change CR4.MCE, a bit that KVM owns",
            Self::Dr0 => "write DR0, then execute CPUID",
            Self::Xsetbv => "execute XSETBV",
            Self::TripleFault => "shut down by a triple fault, and start again",
            Self::FailedEntry => "write a port, after which a VM entry fails for the guest's state (VMX only)",
        }
    }

    /// The default of `--delta`: TSC cycles for timers, loop iterations for `spin` and `pause`, ignored by the others.
    pub(super) fn default_delta(self) -> u32 {
        match self {
            Self::Spin => 100_000,
            // Several times KVM's first window of pause-loop exiting: 4096 TSC cycles on VMX, 3000 PAUSEs on SVM.
            Self::Pause => 5_000,
            // Late enough to expire after the end, but small enough for the 32-bit preemption timer at any rate.
            Self::NestedArmed => u32::MAX,
            _ => deadline::LEAST_CYCLES,
        }
    }

    /// Whether each iteration arms a timer, `--delta` TSC cycles ahead, and takes its interrupt.
    pub(crate) fn has_timers(self) -> bool {
        matches!(self, Self::TscDeadline | Self::Oneshot | Self::Hlt)
    }

    /// Interrupts that the guest takes in each iteration.
    pub(super) fn interrupts(self) -> u64 {
        u64::from(self.has_timers() || matches!(self, Self::Immediate | Self::IrqWindow))
    }

    /// Non-maskable interrupts that the guest takes in each iteration.
    pub(super) fn nmis(self) -> u64 {
        match self {
            Self::Immediate => 1,
            Self::NmiWindow => 2,
            _ => 0,
        }
    }

    /// Whether each iteration is a write to the work port.
    pub(super) fn writes_a_port(self) -> bool {
        matches!(self, Self::Out | Self::Immediate | Self::NmiWindow | Self::FailedEntry)
    }

    /// Whether the guest is a hypervisor (L1) with a guest of its own (L2).
    pub(crate) fn is_nested(self) -> bool {
        matches!(self, Self::Nested | Self::NestedArmed)
    }

    /// The noun for one iteration.
    pub(super) fn work(self) -> &'static str {
        match self {
            Self::Out | Self::Immediate | Self::NmiWindow | Self::FailedEntry => "port write",
            Self::Cpuid => "CPUID",
            Self::Vmcall => "hypercall",
            Self::TscDeadline | Self::Oneshot | Self::Hlt => "timer",
            Self::Spin | Self::Pause => "loop",
            Self::IrqWindow => "interrupt window",
            Self::Mmio => "MMIO write",
            Self::Cr4 => "CR4 write",
            Self::Dr0 => "DR0 write",
            Self::Xsetbv => "XSETBV",
            Self::TripleFault => "triple fault",
            Self::Nested | Self::NestedArmed => "L2 exit",
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|scenario| scenario.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("no scenario `{name}`; there are: {names}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_is_found_by_its_name() {
        for scenario in Scenario::ALL {
            assert_eq!(scenario.name().parse(), Ok(scenario));
        }
    }

    #[test]
    fn json_and_the_command_line_use_the_same_names() {
        for scenario in Scenario::ALL {
            let json = serde_json::to_string(&scenario).unwrap();
            assert_eq!(json, format!("\"{scenario}\""));
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let error = "timer".parse::<Scenario>().unwrap_err();
        assert!(error.contains("`timer`") && error.contains("tsc-deadline"));
    }
}
