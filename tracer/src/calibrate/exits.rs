//! The exits that a calibration measures, and what each can be on this host.

use tracer_common::Isa;

use crate::{
    guest::{Extension, GuestHost, calibration::CalibrationProgram},
    model::exit_reasons,
};

/// One kind of exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Exit {
    /// CPUID: handled by KVM
    Cpuid,
    /// a hypercall: VMCALL, or VMMCALL on AMD
    Vmcall,
    /// a port write: handled by user space
    Out,
    /// RDMSR of IA32_TSC_ADJUST
    Msr,
    /// HLT until a timer's interrupt
    Hlt,
    /// the guest's TSC deadline, by the VMX-preemption timer
    TscDeadline,
    /// entries that KVM forces to exit at once
    Immediate,
}

impl Exit {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 7] =
        [Self::Cpuid, Self::Vmcall, Self::Out, Self::Msr, Self::Hlt, Self::TscDeadline, Self::Immediate];

    /// Name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpuid => "cpuid",
            Self::Vmcall => "vmcall",
            Self::Out => "out",
            Self::Msr => "msr",
            Self::Hlt => "hlt",
            Self::TscDeadline => "tsc-deadline",
            Self::Immediate => "immediate",
        }
    }

    /// What the guest does for it.
    pub const fn program(self, host: GuestHost) -> CalibrationProgram {
        match self {
            Self::Cpuid => CalibrationProgram::Cpuid,
            Self::Vmcall if host.vmmcall => CalibrationProgram::Vmmcall,
            Self::Vmcall => CalibrationProgram::Vmcall,
            Self::Out => CalibrationProgram::Out,
            Self::Msr => CalibrationProgram::Msr,
            Self::Hlt => CalibrationProgram::Hlt,
            Self::TscDeadline => CalibrationProgram::TscDeadline,
            Self::Immediate => CalibrationProgram::Immediate,
        }
    }

    /// The test of kvm-unit-tests' vmexit whose figure is of the same exit.
    pub const fn unit_test(self) -> Option<&'static str> {
        match self {
            Self::Cpuid => Some("cpuid"),
            Self::Vmcall => Some("vmcall"),
            Self::Msr => Some("rd_tsc_adjust_msr"),
            _ => None,
        }
    }

    /// Why this host has no such exit; none where it has.
    pub fn unavailable(self, host: GuestHost) -> Option<String> {
        let Extension::Vmx { preemption_timer, guest_timers } = host.extension else {
            let vmx_only = matches!(self, Self::TscDeadline | Self::Immediate);
            return vmx_only.then(|| "only VMX has a preemption timer".into());
        };
        match self {
            Self::TscDeadline if !guest_timers => Some(
                "KVM does not run guest timers on the preemption timer here (preemption_timer=N, or pi_inject_timer)"
                    .into(),
            ),
            Self::Immediate if !preemption_timer => {
                Some("kvm_intel has preemption_timer=N: KVM sends itself an interrupt instead".into())
            }
            _ => None,
        }
    }

    /// Exit reasons that it may have.
    pub fn reasons(self, isa: Isa) -> Vec<u32> {
        let names: &[&str] = match self {
            Self::Cpuid => &["CPUID"],
            Self::Vmcall => &["VMCALL", "VMMCALL"],
            Self::Out => &["IO_INSTRUCTION", "IOIO"],
            Self::Msr => &["MSR_READ", "MSR"],
            Self::Hlt => &["HLT"],
            Self::TscDeadline | Self::Immediate => &["PREEMPTION_TIMER"],
        };
        names.iter().filter_map(|name| exit_reasons::parse(isa as u32, name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_has_its_reasons_on_both_vendors_cpus() {
        for exit in Exit::ALL {
            assert_eq!(exit.reasons(Isa::Vmx).len(), 1, "{}", exit.name());
            let of_svm = exit.reasons(Isa::Svm).len();
            assert_eq!(of_svm, usize::from(!matches!(exit, Exit::TscDeadline | Exit::Immediate)), "{}", exit.name());
        }
        assert_eq!(Exit::Msr.reasons(Isa::Vmx), [31]);
    }

    #[test]
    fn what_needs_the_timer_says_why_it_is_not_there() {
        let host = |extension| GuestHost { extension, vmmcall: false };
        let off = host(Extension::Vmx { preemption_timer: false, guest_timers: false });
        assert!(Exit::Immediate.unavailable(off).unwrap().contains("preemption_timer=N"));
        assert!(Exit::TscDeadline.unavailable(host(Extension::Svm)).unwrap().contains("only VMX"));
        let on = host(Extension::Vmx { preemption_timer: true, guest_timers: true });
        assert!(Exit::ALL.iter().all(|exit| exit.unavailable(on).is_none()));
    }
}
