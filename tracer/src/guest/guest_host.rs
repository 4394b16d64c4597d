//! The properties of the host that decide how a guest runs and which exits it causes.

use std::collections::BTreeMap;
use std::path::Path;

use core::arch::x86_64::{__cpuid, __cpuid_count};

use crate::host::machine;

/// The CPU's virtualization extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extension {
    /// Intel VT-x.
    Vmx(Vmx),
    /// AMD SVM.
    Svm(Svm),
    /// Neither. Expect no kvm_exit.
    None,
}

/// How kvm_intel uses the CPU, by its parameters. A parameter that it does not have is off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Vmx {
    /// KVM uses the VMX-preemption timer at all, which it then does for forced immediate exits.
    pub(crate) preemption_timer: bool,
    /// KVM also runs the timers of busy guests on it.
    pub(crate) guest_timers: bool,
    /// The CPU delivers interrupts to guests by itself, as soon as they take any.
    pub(crate) apicv: bool,
    /// Guests have extended page tables.
    pub(crate) ept: bool,
    /// The CPU runs guests in any mode, and checks their state; else KVM emulates guests with a state that it knows to fail.
    pub(crate) unrestricted_guest: bool,
    /// Loops of PAUSE exit.
    pub(crate) pause_loops: bool,
}

/// How kvm_amd uses the CPU, by its parameters. A parameter that it does not have is off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Svm {
    /// The CPU delivers interrupts to guests by itself, as soon as they take any.
    pub(crate) avic: bool,
    /// The CPU holds back NMIs by itself; else KVM needs an exit at each IRET from one.
    pub(crate) vnmi: bool,
    /// Guests have nested page tables.
    pub(crate) npt: bool,
    /// Loops of PAUSE exit.
    pub(crate) pause_loops: bool,
}

/// The host, as far as its guests depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GuestHost {
    /// The extension that runs the guest.
    pub(crate) extension: Extension,
    /// Whether guests must use VMMCALL (AMD, Hygon) instead of VMCALL for hypercalls.
    pub(crate) vmmcall: bool,
}

impl GuestHost {
    /// Reads CPUID, and the parameters of the KVM modules below `sysfs`, usually /sys.
    pub(crate) fn probe(sysfs: &Path) -> Self {
        let vendor = __cpuid(0);
        let vendor = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
        let vendor = vendor.as_flattened();
        let vmx = __cpuid(1).ecx & 1 << 5 != 0;
        let svm = __cpuid(0x8000_0000).eax >= 0x8000_0001 && __cpuid_count(0x8000_0001, 0).ecx & 4 != 0;
        let extension = if vmx {
            Extension::Vmx(probe_vmx(sysfs))
        } else if svm {
            Extension::Svm(probe_svm(sysfs))
        } else {
            Extension::None
        };
        Self { extension, vmmcall: uses_vmmcall(vendor) }
    }
}

fn uses_vmmcall(vendor: &[u8]) -> bool {
    [b"AuthenticAMD".as_slice(), b"HygonGenuine"].contains(&vendor)
}

/// KVM does not run guest timers on the preemption timer if it posts timer interrupts from other CPUs instead
/// (kvm_can_use_hv_timer, Linux 5.3 and later: `pi_inject_timer` with APICv, the default on nohz_full hosts).
fn probe_vmx(sysfs: &Path) -> Vmx {
    let [kvm, intel] = ["kvm", "kvm_intel"].map(|module| machine::parameters(sysfs, module));
    let (preemption_timer, apicv) = (is_on(&intel, "preemption_timer"), is_on(&intel, "enable_apicv"));
    let posted = is_on(&kvm, "pi_inject_timer") && apicv;
    Vmx {
        preemption_timer,
        guest_timers: preemption_timer && !posted,
        apicv,
        ept: is_on(&intel, "ept"),
        unrestricted_guest: is_on(&intel, "unrestricted_guest"),
        // The gap is 0 where the CPU has no pause-loop exiting, too.
        pause_loops: is_set(&intel, "ple_gap"),
    }
}

fn probe_svm(sysfs: &Path) -> Svm {
    let amd = machine::parameters(sysfs, "kvm_amd");
    Svm {
        avic: is_on(&amd, "avic"),
        vnmi: is_on(&amd, "vnmi"),
        npt: is_on(&amd, "npt"),
        // Both are 0 where the CPU cannot count PAUSEs.
        pause_loops: is_set(&amd, "pause_filter_count") && is_set(&amd, "pause_filter_thresh"),
    }
}

/// Whether a switch is on. A module without it has it off.
fn is_on(parameters: &BTreeMap<String, String>, name: &str) -> bool {
    parameters.get(name).is_some_and(|value| matches!(value.as_str(), "Y" | "1"))
}

/// Whether a number is not 0. A module without it has none.
fn is_set(parameters: &BTreeMap<String, String>, name: &str) -> bool {
    parameters.get(name).is_some_and(|value| value != "0")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_amd_and_hygon_use_vmmcall() {
        assert!(uses_vmmcall(b"AuthenticAMD"));
        assert!(uses_vmmcall(b"HygonGenuine"));
        assert!(!uses_vmmcall(b"GenuineIntel"));
    }

    /// Whether the preemption timer is used at all, and for guests' timers.
    fn timers(sysfs: &Path) -> (bool, bool) {
        let Vmx { preemption_timer, guest_timers, .. } = probe_vmx(sysfs);
        (preemption_timer, guest_timers)
    }

    #[test]
    fn guest_timers_use_the_preemption_timer_unless_it_is_off_or_timer_interrupts_are_posted() {
        let folder = tempfile::tempdir().unwrap();
        let sysfs = folder.path();
        let intel = sysfs.join("module/kvm_intel/parameters");
        let kvm = sysfs.join("module/kvm/parameters");
        fs::create_dir_all(&intel).unwrap();
        fs::create_dir_all(&kvm).unwrap();
        let mut probed = Vec::new();
        for (timer, apicv, posted) in [
            ("Y\n", "N\n", "0\n"),
            ("Y\n", "Y\n", "0\n"),
            ("Y\n", "N\n", "1\n"),
            ("Y\n", "Y\n", "1\n"),
            ("N\n", "N\n", "0\n"),
        ] {
            fs::write(intel.join("preemption_timer"), timer).unwrap();
            fs::write(intel.join("enable_apicv"), apicv).unwrap();
            fs::write(kvm.join("pi_inject_timer"), posted).unwrap();
            probed.push(timers(sysfs));
        }
        assert_eq!(probed, [(true, true), (true, true), (true, true), (true, false), (false, false)]);
    }

    #[test]
    fn a_module_without_parameters_uses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(probe_vmx(folder.path()), Vmx::default());
        assert_eq!(probe_svm(folder.path()), Svm::default());
    }

    #[test]
    fn pause_loops_exit_unless_the_gap_is_0() {
        let folder = tempfile::tempdir().unwrap();
        let parameters = folder.path().join("module/kvm_intel/parameters");
        fs::create_dir_all(&parameters).unwrap();
        let found = ["128\n", "0\n"].map(|gap| {
            fs::write(parameters.join("ple_gap"), gap).unwrap();
            probe_vmx(folder.path()).pause_loops
        });
        assert_eq!(found, [true, false]);
    }
}
