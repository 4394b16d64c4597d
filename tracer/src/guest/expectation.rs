//! The exits that a tracer must count for a scenario, by exit reason.

use std::fmt;

use serde::{Serialize, Serializer};

use super::guest_host::{Extension, Svm, Vmx};
use super::scenario::Scenario;
use crate::model::series::Level;

/// Exits that a tracer must count for each vCPU of a run.
///
/// Timer counts hold only while a vCPU stays on its CPU, because KVM delivers a deadline that passed during a migration
/// without an exit. Exits with other reasons may be added at any time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Expectation {
    /// Names of exit reasons as in [`crate::model::exit_reasons`]. Several names stand for the sum of their exits.
    pub(crate) reasons: Vec<&'static str>,
    /// The cause of preemption-timer exits; none for other reasons.
    pub(crate) cause: Option<ExpectedCause>,
    /// L1 or L2 if the guest has a guest of its own; none if it has not, or if either may exit.
    #[serde(serialize_with = "level_name")]
    pub(crate) level: Option<Level>,
    /// Whether `exits_per_vcpu` is exact or a limit.
    pub(crate) bound: Bound,
    /// Exits of each vCPU.
    pub(crate) exits_per_vcpu: u64,
}

/// Why a preemption-timer exit happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExpectedCause {
    /// A timer of the guest expires.
    Deadline,
    /// KVM forces the exit to get control back at once.
    Immediate,
    /// A timer of the guest expires before it is due.
    Early,
}

/// Whether a number of exits is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    /// Exactly this many.
    Exactly,
    /// This many or more, because the host also causes such exits.
    AtLeast,
    /// This many or fewer, because the guest does not always have to wait.
    AtMost,
}

/// The exits of each vCPU that does `count` iterations; empty on a host without VMX and SVM.
pub(crate) fn expectations(scenario: Scenario, count: u64, extension: Extension) -> Vec<Expectation> {
    match extension {
        Extension::Vmx(host) => vmx(scenario, count, host),
        Extension::Svm(host) => svm(scenario, count, host),
        Extension::None => Vec::new(),
    }
}

/// The exits of a vCPU that armed and disarmed `count` far timers, of which `early` fired; empty on a host without VMX and SVM.
pub(crate) fn of_far_timers(count: u64, early: u64, extension: Extension) -> Vec<Expectation> {
    match extension {
        Extension::Vmx(_) => vec![
            timer(ExpectedCause::Early, early),
            exactly(&["MSR_WRITE"], 2 * count),
            exactly(&["IO_INSTRUCTION"], count),
        ],
        Extension::Svm(_) => vec![exactly(&["MSR"], 2 * count), exactly(&["IOIO"], count)],
        Extension::None => Vec::new(),
    }
}

fn vmx(scenario: Scenario, count: u64, host: Vmx) -> Vec<Expectation> {
    let deadline = host.guest_timers.then(|| timer(ExpectedCause::Deadline, count));
    let mut expected = Vec::new();
    match scenario {
        Scenario::Out | Scenario::Spin => {}
        Scenario::Cpuid => expected.push(exactly(&["CPUID"], count)),
        Scenario::Vmcall => expected.push(exactly(&["VMCALL"], count)),
        Scenario::TscDeadline => {
            expected.extend(deadline);
            expected.push(exactly(&["MSR_WRITE"], count));
        }
        Scenario::Oneshot => expected.extend(deadline),
        Scenario::Hlt => {
            expected.push(exactly(&["HLT"], count));
            expected.push(exactly(&["MSR_WRITE"], count));
        }
        Scenario::Immediate if host.preemption_timer => {
            expected.push(timer(ExpectedCause::Immediate, count));
        }
        // Without the timer KVM forces the exit by an interrupt to its own CPU.
        Scenario::Immediate => expected.push(at_least("EXTERNAL_INTERRUPT", count)),
        // L1's VMREADs and VMWRITEs are left out because only some of them exit with VMCS shadowing.
        Scenario::Nested | Scenario::NestedArmed => {
            expected.push(at_level(Level::L2, "VMCALL", count));
            expected.push(at_level(Level::L1, "VMLAUNCH", 1));
            expected.push(at_level(Level::L1, "VMRESUME", count - 1));
        }
        Scenario::IrqWindow => expected.extend((!host.apicv).then(|| exactly(&["INTERRUPT_WINDOW"], count))),
        Scenario::NmiWindow => expected.push(exactly(&["NMI_WINDOW"], count)),
        // The window in which a loop may pause doubles with each exit, so only the first one is certain.
        Scenario::Pause => expected.extend(host.pause_loops.then(|| at_least("PAUSE_INSTRUCTION", 1))),
        // The first write to a page violates the page tables, and KVM then makes its entry a misconfigured one.
        Scenario::Mmio if host.ept => expected.push(exactly(&["EPT_MISCONFIG"], count - 1)),
        Scenario::Mmio => expected.push(at_least("EXCEPTION_NMI", count)),
        Scenario::Cr4 => expected.push(exactly(&["CR_ACCESS"], count)),
        // A host's interrupt between the exit and the instruction's second try makes it exit once more.
        Scenario::Dr0 => {
            expected.push(at_least("DR_ACCESS", count));
            expected.push(exactly(&["CPUID"], count));
        }
        Scenario::Xsetbv => expected.push(exactly(&["XSETBV"], count)),
        Scenario::TripleFault => expected.push(exactly(&["TRIPLE_FAULT"], count)),
        Scenario::FailedEntry => expected.push(exactly(&["INVALID_STATE (failed entry)"], count)),
    }
    if scenario == Scenario::NestedArmed {
        expected.push(at_level(Level::L1, "MSR_WRITE", 1));
    }
    expected.push(exactly(&["IO_INSTRUCTION"], port_writes(scenario, count)));
    expected
}

fn svm(scenario: Scenario, count: u64, host: Svm) -> Vec<Expectation> {
    let mut expected = Vec::new();
    match scenario {
        // Timers expire in the host. The number of its interrupts that hit a running guest varies.
        Scenario::Out | Scenario::Spin | Scenario::Oneshot => {}
        Scenario::Cpuid => expected.push(exactly(&["CPUID"], count)),
        Scenario::Vmcall => expected.push(exactly(&["VMMCALL"], count)),
        Scenario::TscDeadline => expected.push(exactly(&["MSR"], count)),
        Scenario::Hlt => {
            // Linux 6.15 and later intercept only idle HLT if the CPU supports it: no exit if the timer came before HLT.
            expected.push(Expectation { bound: Bound::AtMost, ..exactly(&["HLT", "IDLE_HLT"], count) });
            expected.push(exactly(&["MSR"], count));
        }
        Scenario::Immediate => expected.push(at_least("INTR", count)),
        Scenario::Nested | Scenario::NestedArmed | Scenario::FailedEntry => return Vec::new(),
        Scenario::IrqWindow => expected.extend((!host.avic).then(|| exactly(&["VINTR"], count))),
        // KVM waits for the IRET of each NMI, also where no other NMI waits.
        Scenario::NmiWindow => expected.extend((!host.vnmi).then(|| exactly(&["IRET"], 2 * count))),
        Scenario::Pause => expected.extend(host.pause_loops.then(|| at_least("PAUSE", 1))),
        // The guest's own pages cause such exits, too.
        Scenario::Mmio if host.npt => expected.push(at_least("NPF", count)),
        Scenario::Mmio => expected.push(at_least("EXCP_PF", count)),
        Scenario::Cr4 => expected.push(exactly(&["WRITE_CR4"], count)),
        Scenario::Dr0 => {
            expected.push(at_least("WRITE_DR0", count));
            expected.push(exactly(&["CPUID"], count));
        }
        Scenario::Xsetbv => expected.push(exactly(&["XSETBV"], count)),
        Scenario::TripleFault => expected.push(exactly(&["SHUTDOWN"], count)),
    }
    expected.push(exactly(&["IOIO"], port_writes(scenario, count)));
    expected
}

/// The port write that ends a run, and those that are the work.
fn port_writes(scenario: Scenario, count: u64) -> u64 {
    1 + if scenario.writes_a_port() { count } else { 0 }
}

fn exactly(reasons: &[&'static str], count: u64) -> Expectation {
    Expectation { reasons: reasons.to_vec(), cause: None, level: None, bound: Bound::Exactly, exits_per_vcpu: count }
}

fn at_least(reason: &'static str, count: u64) -> Expectation {
    Expectation { bound: Bound::AtLeast, ..exactly(&[reason], count) }
}

fn at_level(level: Level, reason: &'static str, count: u64) -> Expectation {
    Expectation { level: Some(level), ..exactly(&[reason], count) }
}

fn timer(cause: ExpectedCause, count: u64) -> Expectation {
    Expectation { cause: Some(cause), ..exactly(&["PREEMPTION_TIMER"], count) }
}

fn level_name<S: Serializer>(level: &Option<Level>, serializer: S) -> Result<S::Ok, S::Error> {
    level.map(Level::name).serialize(serializer)
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = match self.bound {
            Bound::Exactly => "",
            Bound::AtLeast => "at least ",
            Bound::AtMost => "at most ",
        };
        let cause = match self.cause {
            None => "",
            Some(ExpectedCause::Deadline) => " (deadline)",
            Some(ExpectedCause::Immediate) => " (immediate)",
            Some(ExpectedCause::Early) => " (early)",
        };
        let reasons = self.reasons.join(" or ");
        write!(f, "{reasons} {bound}{}{cause}", self.exits_per_vcpu)?;
        match self.level {
            None => Ok(()),
            Some(level) => write!(f, " ({})", level.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMERS: Vmx = Vmx {
        preemption_timer: true,
        guest_timers: true,
        apicv: false,
        ept: true,
        unrestricted_guest: true,
        pause_loops: true,
    };
    const FULL_VMX: Extension = Extension::Vmx(TIMERS);
    const FULL_SVM: Extension = Extension::Svm(Svm { avic: false, vnmi: false, npt: true, pause_loops: true });

    fn lines(scenario: Scenario, extension: Extension) -> Vec<String> {
        let expected = expectations(scenario, 23, extension);
        expected.iter().map(Expectation::to_string).collect()
    }

    #[test]
    fn deadline_timers_on_vmx_exit_once_each_by_the_preemption_timer() {
        assert_eq!(
            lines(Scenario::TscDeadline, FULL_VMX),
            ["PREEMPTION_TIMER 23 (deadline)", "MSR_WRITE 23", "IO_INSTRUCTION 1"]
        );
    }

    #[test]
    fn immediate_exits_use_the_preemption_timer_even_where_guest_timers_do_not() {
        let posted = Extension::Vmx(Vmx { guest_timers: false, ..TIMERS });
        assert_eq!(lines(Scenario::Immediate, posted), ["PREEMPTION_TIMER 23 (immediate)", "IO_INSTRUCTION 24"]);
        assert_eq!(lines(Scenario::Oneshot, posted), ["IO_INSTRUCTION 1"]);
    }

    #[test]
    fn without_the_preemption_timer_immediate_exits_are_interrupts() {
        let off = Extension::Vmx(Vmx::default());
        assert_eq!(lines(Scenario::Immediate, off), ["EXTERNAL_INTERRUPT at least 23", "IO_INSTRUCTION 24"]);
    }

    #[test]
    fn on_svm_hlt_and_idle_hlt_both_count() {
        assert_eq!(lines(Scenario::Hlt, FULL_SVM), ["HLT or IDLE_HLT at most 23", "MSR 23", "IOIO 1"]);
    }

    #[test]
    fn exits_of_nested_guests_are_told_apart_by_level() {
        assert_eq!(
            lines(Scenario::Nested, FULL_VMX),
            ["VMCALL 23 (L2)", "VMLAUNCH 1 (L1)", "VMRESUME 22 (L1)", "IO_INSTRUCTION 1"]
        );
        assert_eq!(lines(Scenario::NestedArmed, FULL_VMX)[3], "MSR_WRITE 1 (L1)");
    }

    #[test]
    fn what_the_cpu_does_by_itself_causes_no_exit() {
        let apicv = Extension::Vmx(Vmx { apicv: true, pause_loops: false, ..TIMERS });
        for scenario in [Scenario::IrqWindow, Scenario::Pause] {
            assert_eq!(lines(scenario, apicv), ["IO_INSTRUCTION 1"], "{scenario}");
        }
        let svm = Extension::Svm(Svm { avic: true, vnmi: true, ..Svm::default() });
        assert_eq!(lines(Scenario::IrqWindow, svm), ["IOIO 1"]);
        assert_eq!(lines(Scenario::NmiWindow, svm), ["IOIO 24"]);
        assert_eq!(lines(Scenario::Pause, svm), ["IOIO 1"]);
    }

    #[test]
    fn the_first_mmio_write_violates_the_page_tables_and_the_others_are_misconfigurations() {
        assert_eq!(lines(Scenario::Mmio, FULL_VMX), ["EPT_MISCONFIG 22", "IO_INSTRUCTION 1"]);
        assert_eq!(lines(Scenario::Mmio, FULL_SVM), ["NPF at least 23", "IOIO 1"]);
    }

    #[test]
    fn every_expected_reason_is_in_the_table_of_its_isa() {
        use tracer_common::Isa;

        use crate::model::exit_reasons;

        let isas = [(Isa::Vmx, FULL_VMX), (Isa::Svm, FULL_SVM)];
        for (isa, extension) in isas {
            for scenario in Scenario::ALL {
                let expected = expectations(scenario, 1, extension);
                for reason in expected.iter().flat_map(|e| &e.reasons) {
                    let (name, flags) = match reason.strip_suffix(" (failed entry)") {
                        Some(name) => (name, 1 << 31),
                        None => (*reason, 0),
                    };
                    let code = exit_reasons::parse(isa, name).unwrap_or_else(|| panic!("{scenario}: {name}"));
                    assert_eq!(exit_reasons::name(isa, code | flags), *reason, "{scenario}");
                }
            }
        }
    }

    #[test]
    fn nothing_is_expected_of_a_host_without_vmx_and_svm() {
        for scenario in Scenario::ALL {
            assert_eq!(expectations(scenario, 1, Extension::None), []);
        }
    }

    #[test]
    fn json_has_snake_case_names_and_null_for_no_cause_or_level() {
        let json = serde_json::to_string(&at_least("INTR", 5)).unwrap();
        assert_eq!(json, r#"{"reasons":["INTR"],"cause":null,"level":null,"bound":"at_least","exits_per_vcpu":5}"#);
        let json = serde_json::to_value(at_level(Level::L2, "VMCALL", 5)).unwrap();
        assert_eq!(json["level"], "L2");
    }
}
