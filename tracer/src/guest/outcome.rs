//! The outcome of a run: as values, text lines and JSON.

use std::fmt;

use serde::Serialize;

use super::scenario::Scenario;
use super::{expectation::Expectation, statistics::Statistics};

/// The work of a run, and the exits that a tracer must have counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ExerciseOutcome {
    /// The work of each vCPU.
    pub(crate) scenario: Scenario,
    /// Iterations of each vCPU.
    pub(crate) count: u64,
    /// TSC cycles for timers (of the vCPU that needed most), loop iterations for `spin`, meaningless for the others.
    pub(crate) delta: u32,
    /// Process id of the VM, which is this process.
    pub(crate) tgid: u32,
    /// One entry per vCPU, by id.
    pub(crate) vcpus: Vec<VcpuOutcome>,
    /// The exits that a tracer must count for each vCPU; empty if the host has neither VMX nor SVM.
    pub(crate) expects: Vec<Expectation>,
}

/// The outcome of one vCPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct VcpuOutcome {
    /// The vCPU's id, from 0.
    pub(crate) vcpu: u32,
    /// Thread id of the vCPU.
    pub(crate) tid: u32,
    /// Exits to user space, including the last one.
    pub(crate) user_exits: u64,
    /// Timer or injected interrupts that the guest took.
    pub(crate) interrupts: u64,
    /// Non-maskable interrupts that the guest took.
    pub(crate) nmis: u64,
    /// From the guest's first instruction, or the first after its last triple fault, to its last iteration, in cycles of the
    /// guest's TSC.
    pub(crate) guest_tsc: u64,
    /// From the first KVM_RUN to the return of the last, in ns of CLOCK_MONOTONIC.
    pub(crate) run_ns: u64,
    /// CPU time of the vCPU's thread in that time, in ns.
    pub(crate) cpu_ns: u64,
    /// From the first return of KVM_RUN to its last call, in ns: without the time within KVM_RUN.
    pub(crate) user_ns: u64,
    /// KVM's and the scheduler's own sums; none where the kernel does not have them.
    pub(crate) statistics: Option<Statistics>,
}

impl fmt::Display for ExerciseOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scenario = self.scenario;
        for vcpu in &self.vcpus {
            let VcpuOutcome { vcpu: id, tid, .. } = vcpu;
            let work = counted(self.count, scenario.work());
            write!(f, "exercise {scenario}: vcpu {id} (tid {tid}): {work}, ")?;
            for (count, noun) in [(vcpu.interrupts, "interrupt"), (vcpu.nmis, "NMI")] {
                if count > 0 {
                    write!(f, "{} taken, ", counted(count, noun))?;
                }
            }
            writeln!(
                f,
                "{} to user space, {:.3} ms, {} TSC cycles in the guest",
                counted(vcpu.user_exits, "exit"),
                vcpu.run_ns as f64 / 1e6,
                vcpu.guest_tsc
            )?;
        }
        write!(f, "exercise {scenario}: ")?;
        if self.expects.is_empty() {
            return write!(f, "the host has neither VMX nor SVM: a tracer sees no exits");
        }
        let expects: Vec<_> = self.expects.iter().map(Expectation::to_string).collect();
        write!(f, "a tracer should see for each vcpu: {}", expects.join(", "))
    }
}

/// "1 exit", "2 exits".
pub(super) fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::super::expectation::expectations;
    use super::super::guest_host::{Extension, Svm, Vmx};
    use super::*;

    fn outcome(scenario: Scenario, extension: Extension) -> ExerciseOutcome {
        ExerciseOutcome {
            scenario,
            count: 23,
            delta: 200_000,
            tgid: 120,
            vcpus: vec![VcpuOutcome {
                vcpu: 0,
                tid: 123,
                user_exits: 1,
                interrupts: 23,
                nmis: 0,
                guest_tsc: 4_600_100,
                run_ns: 2_345_678,
                cpu_ns: 2_000_000,
                user_ns: 0,
                statistics: None,
            }],
            expects: expectations(scenario, 23, extension),
        }
    }

    #[test]
    fn text_has_a_line_for_each_vcpu_and_one_for_the_tracer() {
        let vmx = Extension::Vmx(Vmx { preemption_timer: true, guest_timers: true, ..Vmx::default() });
        assert_eq!(
            outcome(Scenario::TscDeadline, vmx).to_string(),
            "exercise tsc-deadline: vcpu 0 (tid 123): 23 timers, 23 interrupts taken, 1 exit to user space, \
             2.346 ms, 4600100 TSC cycles in the guest\n\
             exercise tsc-deadline: a tracer should see for each vcpu: PREEMPTION_TIMER 23 (deadline), \
             MSR_WRITE 23, IO_INSTRUCTION 1"
        );
    }

    #[test]
    fn text_says_that_a_host_without_vmx_and_svm_shows_no_exits() {
        let text = outcome(Scenario::Oneshot, Extension::None).to_string();
        assert!(text.contains("neither VMX nor SVM"), "{text}");
    }

    #[test]
    fn json_fields_name_their_units() {
        let json = serde_json::to_value(outcome(Scenario::TscDeadline, Extension::Svm(Svm::default()))).unwrap();
        assert_eq!(json["scenario"], "tsc-deadline");
        assert_eq!(json["vcpus"][0]["run_ns"], 2_345_678);
        assert_eq!(json["vcpus"][0]["guest_tsc"], 4_600_100);
        assert_eq!(json["expects"][0]["exits_per_vcpu"], 23);
    }
}
