//! The properties of the host that decide how a guest runs and which exits it causes.

use std::fs;
use std::path::Path;

use core::arch::x86_64::{__cpuid, __cpuid_count};

/// The CPU's virtualization extension and how KVM uses it for timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extension {
    /// Intel VT-x.
    Vmx {
        /// Whether KVM uses the VMX-preemption timer at all, which it then does for forced immediate exits.
        preemption_timer: bool,
        /// Whether KVM also runs the timers of busy guests on it.
        guest_timers: bool,
    },
    /// AMD SVM.
    Svm,
    /// Neither. Expect no kvm_exit.
    None,
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
            probe_vmx(sysfs)
        } else if svm {
            Extension::Svm
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
fn probe_vmx(sysfs: &Path) -> Extension {
    let is_on = |parameter: &str| {
        fs::read_to_string(sysfs.join("module").join(parameter)).is_ok_and(|value| matches!(value.trim(), "Y" | "1"))
    };
    let preemption_timer = is_on("kvm_intel/parameters/preemption_timer");
    let posted = is_on("kvm/parameters/pi_inject_timer") && is_on("kvm_intel/parameters/enable_apicv");
    Extension::Vmx { preemption_timer, guest_timers: preemption_timer && !posted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_amd_and_hygon_use_vmmcall() {
        assert!(uses_vmmcall(b"AuthenticAMD"));
        assert!(uses_vmmcall(b"HygonGenuine"));
        assert!(!uses_vmmcall(b"GenuineIntel"));
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
            probed.push(probe_vmx(sysfs));
        }
        let vmx = |preemption_timer, guest_timers| Extension::Vmx { preemption_timer, guest_timers };
        let both = vmx(true, true);
        let none = vmx(false, false);
        assert_eq!(probed, [both, both, both, vmx(true, false), none]);
        assert_eq!(probe_vmx(sysfs), none, "no parameters to read");
    }
}
