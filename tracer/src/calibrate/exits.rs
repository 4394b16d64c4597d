//! The exits that a calibration measures, and whether this host has them.

use tracer_common::Isa;

use crate::{
    guest::{Extension, GuestHost, calibration::CalibrationProgram},
    model::exit_reasons,
};

/// An exit that the calibration guest causes.
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
    /// a TSC deadline of the guest, by the VMX-preemption timer
    TscDeadline,
    /// VM entries with a forced immediate exit
    Immediate,
}

impl Exit {
    /// All exits, in the order of the reports.
    pub(crate) const ALL: [Self; 7] =
        [Self::Cpuid, Self::Vmcall, Self::Out, Self::Msr, Self::Hlt, Self::TscDeadline, Self::Immediate];

    /// The name on the command line and in reports.
    pub(crate) const fn name(self) -> &'static str {
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

    /// The guest's program that causes the exit.
    pub(crate) const fn program(self, host: GuestHost) -> CalibrationProgram {
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

    /// The test in kvm-unit-tests' vmexit that measures the same exit; none if there is none.
    pub(crate) const fn unit_test(self) -> Option<&'static str> {
        match self {
            Self::Cpuid => Some("cpuid"),
            Self::Vmcall => Some("vmcall"),
            Self::Msr => Some("rd_tsc_adjust_msr"),
            _ => None,
        }
    }

    /// The reason why this host has no such exit; none if it has.
    pub(crate) fn unavailable(self, host: GuestHost) -> Option<String> {
        let Extension::Vmx(vmx) = host.extension else {
            let vmx_only = matches!(self, Self::TscDeadline | Self::Immediate);
            return vmx_only.then(|| "only VMX has a preemption timer".into());
        };
        match self {
            Self::TscDeadline if !vmx.guest_timers => Some(
                "KVM does not run guest timers on the preemption timer (preemption_timer=N, or pi_inject_timer)".into(),
            ),
            Self::Immediate if !vmx.preemption_timer => {
                Some("kvm_intel has preemption_timer=N: KVM sends itself an interrupt instead".into())
            }
            _ => None,
        }
    }

    /// The exit reasons of this exit, by their codes on an ISA.
    pub(crate) fn reasons(self, isa: Isa) -> Vec<u32> {
        let names: &[&str] = match self {
            Self::Cpuid => &["CPUID"],
            Self::Vmcall => &["VMCALL", "VMMCALL"],
            Self::Out => &["IO_INSTRUCTION", "IOIO"],
            Self::Msr => &["MSR_READ", "MSR"],
            Self::Hlt => &["HLT"],
            Self::TscDeadline | Self::Immediate => &["PREEMPTION_TIMER"],
        };
        names.iter().filter_map(|name| exit_reasons::parse(isa, name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::{Svm, Vmx};

    #[test]
    fn every_exit_has_an_exit_reason_on_vmx_and_all_but_timer_exits_on_svm() {
        for exit in Exit::ALL {
            assert_eq!(exit.reasons(Isa::Vmx).len(), 1, "{}", exit.name());
            let of_svm = exit.reasons(Isa::Svm).len();
            assert_eq!(of_svm, usize::from(!matches!(exit, Exit::TscDeadline | Exit::Immediate)), "{}", exit.name());
        }
        assert_eq!(Exit::Msr.reasons(Isa::Vmx), [31]);
    }

    #[test]
    fn an_exit_that_needs_the_preemption_timer_says_why_it_is_unavailable() {
        let host = |extension| GuestHost { extension, vmmcall: false };
        let off = host(Extension::Vmx(Vmx::default()));
        assert!(Exit::Immediate.unavailable(off).unwrap().contains("preemption_timer=N"));
        assert!(Exit::TscDeadline.unavailable(host(Extension::Svm(Svm::default()))).unwrap().contains("only VMX"));
        let on = host(Extension::Vmx(Vmx { preemption_timer: true, guest_timers: true, ..Vmx::default() }));
        assert!(Exit::ALL.iter().all(|exit| exit.unavailable(on).is_none()));
    }
}
