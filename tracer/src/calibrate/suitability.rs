//! Whether times measured on this host can be trusted: the TSC, the KVM module, the fields that the programs need.

use tracer_common::Slot;

use crate::{
    host::{facts::Facts, machine::Host, roots::Roots},
    kernel::layout::Layout,
    model::vendor::Vendor,
};

/// The host's TSC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clock {
    /// it runs at one rate in all states of the CPU (CPUID 0x80000007, EDX bit 8)
    pub(crate) invariant: bool,
    /// the kernel's clock source
    pub(crate) source: String,
}

impl Clock {
    /// Asks the CPU and the kernel.
    pub(crate) fn gather() -> Self {
        let source = Roots::default().sys.join("devices/system/clocksource/clocksource0/current_clocksource");
        Self {
            invariant: has_invariant_tsc(),
            source: std::fs::read_to_string(source).map_or("unknown".into(), |s| s.trim().to_owned()),
        }
    }
}

fn has_invariant_tsc() -> bool {
    use std::arch::x86_64::__cpuid;
    __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & 1 << 8 != 0
}

/// Why no figure of this host could be trusted; none where some can.
pub(crate) fn refusal(host: &Host, layout: &Layout, clock: &Clock) -> Option<String> {
    if !matches!(host.vendor, Some(Vendor::Intel | Vendor::Amd)) {
        return Some(
            "the KVM module is neither kvm_intel nor kvm_amd: there are no kvm_entry and kvm_exit around its VM entries, if it has any"
                .into(),
        );
    }
    if layout.config.get(Slot::GuestR8).is_none() {
        return Some("kvm_vcpu.arch.regs is not in this kernel's BTF: the guest's stamps cannot be read".into());
    }
    // An emulator's times are no times of any CPU anyway: that is said with every figure.
    (!clock.invariant && !host.emulated).then(|| {
        "the TSC is not invariant (CPUID 0x80000007, EDX bit 8): its cycles are no measure of time. Hypervisors hide the bit unless          told otherwise (QEMU: -cpu host,invtsc=on)"
            .into()
    })
}

/// What makes the figures worth less.
pub(crate) fn caveats(facts: &Facts, clock: &Clock) -> Vec<String> {
    let mut caveats = Vec::new();
    if let Some(hypervisor) = facts.host.virtualized.as_ref().filter(|_| !facts.host.emulated) {
        caveats.push(format!(
            "this host is itself a VM (of {hypervisor}): its VM entries and exits contain the outer hypervisor's work, and its TSC may              be scaled by it"
        ));
    }
    if !clock.invariant {
        caveats.push("the TSC is not said to be invariant".into());
    }
    if facts.stopwatch == Some(true) {
        caveats.push(
            "the stopwatch is on: its VMWRITE is in entry latency, its VMREAD, tracepoint and program are in exit latency".into(),
        );
    }
    if clock.source != "tsc" {
        caveats.push(format!(
            "the kernel's clock source is {}, not tsc: CLOCK_MONOTONIC takes longer to read, which the clocks' error contains",
            clock.source
        ));
    }
    caveats
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::layout::{Companion, ExitArguments};

    fn layout(with_registers: bool) -> Layout {
        let mut config = tracer_common::Config::empty();
        if with_registers {
            config.set(Slot::GuestR8, 64);
        }
        let (exit_arguments, companion) = (ExitArguments::VcpuIsa, Companion::default());
        Layout { config, exit_arguments, missing: vec![], companion, cast: None }
    }

    #[test]
    fn hosts_whose_figures_could_not_be_trusted_are_refused_with_the_reason() {
        let clock = |invariant| Clock { invariant, source: "tsc".into() };
        let intel = Host { vendor: Some(Vendor::Intel), ..Host::default() };
        assert_eq!(refusal(&intel, &layout(true), &clock(true)), None);
        assert!(refusal(&intel, &layout(true), &clock(false)).unwrap().contains("not invariant"));
        assert!(refusal(&intel, &layout(false), &clock(true)).unwrap().contains("arch.regs"));
        let other = Host { vendor: Some(Vendor::Other), ..Host::default() };
        assert!(refusal(&other, &layout(true), &clock(true)).unwrap().contains("neither kvm_intel nor kvm_amd"));
        let emulated = Host { emulated: true, ..intel };
        assert_eq!(refusal(&emulated, &layout(true), &clock(false)), None);
    }
}
