//! Why a part of a survey has no figures: a closed set, because the text of an error may hold names and paths.

use serde::{Deserialize, Serialize};

use crate::{
    calibrate::suitability::{HostClock, refusal},
    host::{facts::Facts, problems},
    model::{policy::Policy, vendor::Vendor},
};

/// A reason. The names are those of the JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reason {
    NotPrivileged,
    NoKvmModule,
    NoBtf,
    CannotTrace,
    Silent,
    NoDevKvm,
    OtherModule,
    CannotCalibrate,
    TscNotInvariant,
    PidNamespace,
    NoVms,
    VmxOnly,
    TimerOff,
    IsVm,
    NoValueReaches,
    Capped,
    TimersPosted,
    #[serde(rename = "no_leaf_15h")]
    NoLeaf15h,
    Stopwatch,
    Unarmed,
    Ambiguous,
    NotSeen,
    NoPatch,
    NoWrite,
    Cut,
    TooLong,
    Failed,
}

impl Reason {
    /// For people, in lower case, with the fix where there is one.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::NotPrivileged => "tracing needs root, or CAP_BPF and CAP_PERFMON: run it with sudo",
            Self::NoKvmModule => "no KVM module runs VMs here: load kvm_intel or kvm_amd",
            Self::NoBtf => "the kernel has no BTF (/sys/kernel/btf/vmlinux)",
            Self::CannotTrace => "this host cannot be traced: 'vmentry check' says why",
            Self::Silent => "kvm's tracepoints do not show a guest's exits as it makes them: 'vmentry check' says more",
            Self::NoDevKvm => "/dev/kvm cannot be used, so that no guest can run",
            Self::OtherModule => "neither kvm_intel nor kvm_amd runs the VMs",
            Self::CannotCalibrate => {
                "the guest's stamps cannot be read: kvm_vcpu.arch.regs is not in this kernel's BTF"
            }
            Self::TscNotInvariant => "the TSC is not invariant (CPUID 0x80000007, EDX bit 8)",
            Self::PidNamespace => "this process is in a PID namespace of its own: run it on the host",
            Self::NoVms => "no VM was seen to run",
            Self::VmxOnly => "only kvm_intel has pin controls and the VMX-preemption timer",
            Self::TimerOff => "KVM does not use the preemption timer (kvm_intel.preemption_timer=N)",
            Self::IsVm => "this host is itself a VM, and its preemption timer is the hypervisor's",
            Self::NoValueReaches => "no timer value reaches the erratum's limit on this CPU",
            Self::Capped => "the kernel keeps its timer values below the erratum's limit",
            Self::TimersPosted => "KVM posts the timer interrupts of guests, so that their timers are hrtimers",
            Self::NoLeaf15h => "CPUID has no leaf 15H, so that the erratum's limit is unknown",
            Self::Stopwatch => "the companion patch's stopwatch is on",
            Self::Unarmed => "KVM put the guest's timers on hrtimers",
            Self::Ambiguous => "timers had interrupts, but not when early ones would: try again",
            Self::NotSeen => "whether KVM armed the preemption timer was not seen",
            Self::NoPatch => "no companion patch: the policy cannot be switched",
            Self::NoWrite => "no write was seen where one was caused",
            Self::Cut => "the survey was ended before",
            Self::TooLong => "it took too long and was ended",
            Self::Failed => "it failed: the command of this part says why",
        }
    }

    /// Why no program can be attached here; none if one can, as far as facts tell.
    pub(super) fn not_to_trace(facts: &Facts) -> Option<Self> {
        if !facts.may_trace {
            return Some(Self::NotPrivileged);
        }
        if facts.host.vendor.is_none() {
            return Some(Self::NoKvmModule);
        }
        if !facts.kernel_btf {
            return Some(Self::NoBtf);
        }
        problems::errors(&facts.problems()).map(|_| Self::CannotTrace)
    }

    /// Why no guest can be traced here; none if one can.
    pub(super) fn not_to_trace_a_guest(facts: &Facts) -> Option<Self> {
        let not_traced = Self::not_to_trace(facts);
        let unseen = (facts.shows_host_processes == Some(false)).then_some(Self::PidNamespace);
        not_traced.or((!facts.dev_kvm).then_some(Self::NoDevKvm)).or(unseen)
    }

    /// Why a host that can be traced cannot be calibrated; none if it can.
    pub(super) fn not_to_calibrate(facts: &Facts, clock: &HostClock) -> Option<Self> {
        if !matches!(facts.host.vendor, Some(Vendor::Intel | Vendor::Amd)) {
            return Some(Self::OtherModule);
        }
        refusal(&facts.host, facts.layout.as_ref()?, clock)?;
        let is_clock = !clock.invariant && !facts.host.emulated;
        Some(if is_clock { Self::TscNotInvariant } else { Self::CannotCalibrate })
    }

    /// Why a calibration has no cost of a write to these controls.
    pub(super) fn no_write(facts: &Facts, control: &str) -> Self {
        match control {
            _ if facts.host.vendor != Some(Vendor::Intel) => Self::VmxOnly,
            "pin" if !facts.companion_patch => Self::NoPatch,
            "pin" if facts.stopwatch == Some(true) => Self::Stopwatch,
            "pin" if facts.policy == Policy::Off => Self::TimerOff,
            _ => Self::NoWrite,
        }
    }

    /// From the reason that `exercise early` gives.
    pub(super) fn of_probe(why: &str) -> Self {
        PROBE.iter().find(|(words, _)| why.contains(words)).map_or(Self::Failed, |(_, reason)| *reason)
    }
}

/// Words of the reasons that `exercise early` gives.
const PROBE: [(&str, Reason); 11] = [
    ("kvm_intel runs no VMs here", Reason::VmxOnly),
    ("KVM does not use the preemption timer", Reason::TimerOff),
    ("stopwatch never sets the timer", Reason::Stopwatch),
    ("this host is itself a VM", Reason::IsVm),
    ("KVM posts the timer interrupts", Reason::TimersPosted),
    ("no timer value reaches the erratum's limit", Reason::NoValueReaches),
    ("below the erratum's limit", Reason::Capped),
    ("CPUID has no leaf 15H", Reason::NoLeaf15h),
    ("on the host's timers (hrtimers)", Reason::Unarmed),
    ("but not at the times", Reason::Ambiguous),
    ("whether KVM armed the preemption timer was not seen", Reason::NotSeen),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_probes_reasons_are_those_that_it_says() {
        let sources =
            [include_str!("../early.rs"), include_str!("../../guest/verdict.rs"), include_str!("../../guest/probe.rs")]
                .concat();
        for (words, reason) in PROBE {
            assert!(sources.contains(words), "{words}");
            assert_eq!(Reason::of_probe(&format!("x {words} y")), reason);
        }
        assert_eq!(Reason::of_probe("open /home/alice/kvm: no"), Reason::Failed);
    }
}
