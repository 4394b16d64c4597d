//! Checks whether times measured on this host can be trusted: the TSC, the KVM module, and the fields that the programs need.

use tracer_common::Slot;

use crate::{
    host::{facts::Facts, machine::Host, roots::Roots},
    kernel::layout::Layout,
    model::vendor::Vendor,
};

/// The host's clocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostClock {
    /// whether the TSC runs at one rate in all states of the CPU (CPUID 0x80000007, EDX bit 8)
    pub(crate) invariant: bool,
    /// the kernel's clock source, e.g. "tsc"
    pub(crate) source: String,
}

impl HostClock {
    /// Reads CPUID and sysfs.
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

/// The reason why no figure of this host can be trusted; none if some can.
pub(crate) fn refusal(host: &Host, layout: &Layout, clock: &HostClock) -> Option<String> {
    if !matches!(host.vendor, Some(Vendor::Intel | Vendor::Amd)) {
        return Some(
            "the KVM module is neither kvm_intel nor kvm_amd, so its VM entries have no kvm_entry and kvm_exit".into(),
        );
    }
    if layout.config.get(Slot::GuestR8).is_none() {
        return Some("kvm_vcpu.arch.regs is not in this kernel's BTF: the guest's stamps cannot be read".into());
    }
    // An emulated host is not refused: every figure says that its times say nothing about real hardware.
    (!clock.invariant && !host.emulated).then(|| {
        "the TSC is not invariant (CPUID 0x80000007, EDX bit 8), so its cycles do not measure time. Hypervisors hide the bit by default \
         (QEMU shows it with -cpu host,invtsc=on)"
            .into()
    })
}

/// The limits of the figures on this host.
pub(crate) fn caveats(facts: &Facts, clock: &HostClock) -> Vec<String> {
    let mut caveats = Vec::new();
    if let Some(hypervisor) = facts.host.virtualized.as_ref().filter(|_| !facts.host.emulated) {
        caveats.push(format!(
            "this host is itself a VM (of {hypervisor}): its VM entries and VM exits include work of the outer hypervisor, which may also \
             scale its TSC"
        ));
    }
    if !clock.invariant {
        caveats.push("the CPU does not report an invariant TSC".into());
    }
    if facts.stopwatch == Some(true) {
        caveats.push(
            "the stopwatch is on: the VM-entry latency includes its VMWRITE, and the exit latency its VMREAD, tracepoint and program".into(),
        );
    }
    if clock.source != "tsc" {
        caveats.push(format!(
            "the kernel's clock source is {}, not tsc: CLOCK_MONOTONIC takes longer to read, which increases the clocks' error",
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
        Layout {
            config,
            exit_arguments,
            missing: vec![],
            companion,
            userspace_exit: true,
            mmio: true,
            fast_mmio: true,
            cast: None,
        }
    }

    #[test]
    fn hosts_whose_figures_cannot_be_trusted_are_refused_with_the_reason() {
        let clock = |invariant| HostClock { invariant, source: "tsc".into() };
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
