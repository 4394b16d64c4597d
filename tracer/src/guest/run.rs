//! Runs a scenario in a new virtual machine, with one thread for each vCPU.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use kvm_bindings::CpuId;

use super::deadline;
use super::expectation::expectations;
use super::guest_host::{Extension, GuestHost, Vmx};
use super::hypervisor;
use super::image::{self, ExerciseProgram, Parameters};
use super::intervention::Intervention;
use super::kick;
use super::machine::{self, Machine};
use super::outcome::{ExerciseOutcome, VcpuOutcome};
use super::scenario::Scenario;
use super::vcpu;
use super::watch::{VcpuReport, Watch};

/// vCPUs of a plan at most.
pub(crate) const MAX_VCPUS: u32 = 64;

const CPUID_1_ECX_XSAVE: u32 = 1 << 26;

/// The scenario to run, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExercisePlan {
    /// The work of each vCPU.
    pub(crate) scenario: Scenario,
    /// Iterations of each vCPU: 1 to 2^32 - 1.
    pub(crate) count: u64,
    /// Number of vCPUs: 1 to [`MAX_VCPUS`].
    pub(crate) vcpus: u32,
    /// TSC cycles for timers, loop iterations for `spin` and `pause`, ignored by the others; at least 1. None for the scenario's own, which
    /// grows on a host whose VM exits take long.
    pub(crate) delta: Option<u32>,
}

impl ExercisePlan {
    /// The delta with which the guest begins.
    pub(super) fn first_delta(&self) -> u32 {
        self.delta.unwrap_or(self.scenario.default_delta())
    }

    /// Round trips that a timer is ahead at least; 0 where the delta does not grow.
    fn round_trips(&self) -> u32 {
        let grows = self.delta.is_none() && matches!(self.scenario, Scenario::TscDeadline | Scenario::Hlt);
        if grows { deadline::ROUND_TRIPS } else { 0 }
    }
}

/// Runs the plan in a new virtual machine of this process.
pub(crate) fn run(plan: &ExercisePlan) -> Result<ExerciseOutcome> {
    let count = checked_count(plan)?;
    let host = GuestHost::probe(Path::new("/sys"));
    let kvm = machine::open_kvm()?;
    ensure_possible(plan.scenario, host.extension, &machine::supported_cpuid(&kvm)?)
        .with_context(|| format!("exercise {}", plan.scenario))?;
    let mut machine = Machine::new(&kvm, plan.vcpus)?;
    if plan.scenario.is_nested() {
        hypervisor::prepare(&machine).with_context(|| format!("exercise {}", plan.scenario))?;
    }
    let parameters = Parameters {
        program: program(plan.scenario, host),
        count,
        delta: guest_delta(plan, tsc_khz_of(&machine)?),
        round_trips: plan.round_trips(),
    };
    for id in 0..plan.vcpus {
        image::write_parameters(&machine.memory, id, parameters)?;
    }
    let vcpus = run_vcpus(&mut machine, plan).with_context(|| match host.extension {
        Extension::None => format!(
            "exercise {}: this host has neither VMX nor SVM, and its KVM may not be able to run the guest",
            plan.scenario
        ),
        _ => format!("exercise {}", plan.scenario),
    })?;
    Ok(ExerciseOutcome {
        scenario: plan.scenario,
        count: plan.count,
        delta: last_delta(plan, &machine)?,
        tgid: std::process::id(),
        vcpus,
        expects: expectations(plan.scenario, plan.count, host.extension),
    })
}

/// Checks that the host can run the scenario. The error says how to enable it.
fn ensure_possible(scenario: Scenario, extension: Extension, supported: &CpuId) -> Result<()> {
    match scenario {
        Scenario::Nested | Scenario::NestedArmed => hypervisor::ensure_possible(extension, supported),
        Scenario::FailedEntry => match extension {
            Extension::Vmx(Vmx { unrestricted_guest: true, .. }) => Ok(()),
            Extension::Vmx(_) => bail!(
                "make a VM entry fail: kvm_intel has unrestricted_guest=N, with which KVM emulates a guest whose state \
                 the CPU would refuse; use a CPU and kvm_intel with unrestricted_guest=Y"
            ),
            _ => bail!("make a VM entry fail: only VMX checks the guest's state; use a host with an Intel CPU"),
        },
        Scenario::Xsetbv => {
            let leaf = supported.as_slice().iter().find(|entry| entry.function == 1);
            let offered = leaf.is_some_and(|entry| entry.ecx & CPUID_1_ECX_XSAVE != 0);
            ensure!(offered, "execute XSETBV: KVM does not offer XSAVE to guests; use a CPU that has it");
            Ok(())
        }
        _ => Ok(()),
    }
}

fn tsc_khz_of(machine: &Machine) -> Result<u32> {
    let vcpu = machine.vcpus.first().context("use a VM without vCPUs")?;
    vcpu.get_tsc_khz().context("ask KVM for the TSC frequency")
}

fn checked_count(plan: &ExercisePlan) -> Result<u32> {
    ensure!((1..=MAX_VCPUS).contains(&plan.vcpus), "use {} vCPUs: 1 to {MAX_VCPUS} are possible", plan.vcpus);
    ensure!(plan.first_delta() > 0, "use delta 0: it must be at least 1");
    match u32::try_from(plan.count) {
        Ok(count) if count > 0 => Ok(count),
        _ => bail!("use count {}: 1 to {} are possible", plan.count, u32::MAX),
    }
}

fn program(scenario: Scenario, host: GuestHost) -> ExerciseProgram {
    match scenario {
        Scenario::Out | Scenario::NmiWindow | Scenario::FailedEntry => ExerciseProgram::Out,
        Scenario::Cpuid => ExerciseProgram::Cpuid,
        Scenario::Vmcall if host.vmmcall => ExerciseProgram::Vmmcall,
        Scenario::Vmcall => ExerciseProgram::Vmcall,
        Scenario::TscDeadline => ExerciseProgram::TscDeadline,
        Scenario::Oneshot => ExerciseProgram::OneShot,
        Scenario::Hlt => ExerciseProgram::Hlt,
        Scenario::Spin => ExerciseProgram::Spin,
        Scenario::Immediate => ExerciseProgram::Immediate,
        Scenario::Nested => ExerciseProgram::Nested,
        Scenario::NestedArmed => ExerciseProgram::NestedArmed,
        Scenario::IrqWindow => ExerciseProgram::IrqWindow,
        Scenario::Pause => ExerciseProgram::Pause,
        Scenario::Mmio => ExerciseProgram::Mmio,
        Scenario::Cr4 => ExerciseProgram::Cr4,
        Scenario::Dr0 => ExerciseProgram::Dr0,
        Scenario::Xsetbv => ExerciseProgram::Xsetbv,
        Scenario::TripleFault => ExerciseProgram::TripleFault,
    }
}

/// The plan's delta in the unit of the guest's program. The local APIC timer of KVM counts ns.
fn guest_delta(plan: &ExercisePlan, tsc_khz: u32) -> u32 {
    if plan.scenario != Scenario::Oneshot {
        return plan.first_delta();
    }
    let ns = u64::from(plan.first_delta()) * 1_000_000 / u64::from(tsc_khz.max(1));
    u32::try_from(ns).unwrap_or(u32::MAX).max(1)
}

/// The delta at the end, of the vCPU whose delta grew most.
fn last_delta(plan: &ExercisePlan, machine: &Machine) -> Result<u32> {
    let mut last = plan.first_delta();
    if plan.round_trips() > 0 {
        for id in 0..plan.vcpus {
            last = last.max(image::read_delta(&machine.memory, id)?);
        }
    }
    Ok(last)
}

fn run_vcpus(machine: &mut Machine, plan: &ExercisePlan) -> Result<Vec<VcpuOutcome>> {
    let intervention = match plan.scenario {
        Scenario::Immediate => Intervention::ForceImmediateExit,
        Scenario::NmiWindow => Intervention::SendNmis,
        Scenario::FailedEntry => Intervention::FailEntry,
        Scenario::TripleFault => Intervention::Restart,
        _ => Intervention::None,
    };
    kick::prepare()?;
    let stop = &AtomicBool::new(false);
    let mut watch = Watch::new(&machine.memory, *plan, stop);
    let vcpus = &mut machine.vcpus;
    thread::scope(|scope| {
        let (sender, reports) = mpsc::channel();
        for (id, vcpu) in (0..).zip(vcpus.iter_mut()) {
            let sender = sender.clone();
            let work = move || {
                let tid = kick::this_thread();
                // The receiver outlives all senders, so sending cannot fail.
                let _ = sender.send(VcpuReport::Started { vcpu: id, tid });
                let end = vcpu::run_to_end(vcpu, id, intervention, stop);
                let _ = sender.send(VcpuReport::Ended { vcpu: id, end });
            };
            let thread = thread::Builder::new().name(format!("vcpu {id}"));
            if let Err(error) = thread.spawn_scoped(scope, work) {
                watch.fail(anyhow!(error).context(format!("start thread of vcpu {id}")));
                break;
            }
        }
        drop(sender);
        watch.until_all_ended(&reports)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: ExercisePlan = ExercisePlan { scenario: Scenario::Cpuid, count: 10, vcpus: 1, delta: Some(1) };

    #[test]
    fn a_plan_out_of_range_is_refused_with_the_range() {
        for (plan, said) in [
            (ExercisePlan { vcpus: 0, ..PLAN }, "1 to 64"),
            (ExercisePlan { vcpus: 65, ..PLAN }, "1 to 64"),
            (ExercisePlan { count: 0, ..PLAN }, "1 to 4294967295"),
            (ExercisePlan { count: 1 << 32, ..PLAN }, "1 to 4294967295"),
            (ExercisePlan { delta: Some(0), ..PLAN }, "at least 1"),
        ] {
            let error = run(&plan).unwrap_err().to_string();
            assert!(error.contains(said), "{plan:?}: {error}");
        }
    }

    #[test]
    fn the_largest_plan_is_accepted() {
        let plan = ExercisePlan { vcpus: MAX_VCPUS, count: u64::from(u32::MAX), ..PLAN };
        assert_eq!(checked_count(&plan).unwrap(), u32::MAX);
    }

    #[test]
    fn only_one_shot_timers_are_counted_in_nanoseconds() {
        let plan = |scenario| ExercisePlan { scenario, delta: Some(200_000), ..PLAN };
        assert_eq!(guest_delta(&plan(Scenario::Oneshot), 2_000_000), 100_000);
        assert_eq!(guest_delta(&plan(Scenario::TscDeadline), 2_000_000), 200_000);
        assert_eq!(guest_delta(&plan(Scenario::Oneshot), u32::MAX), 46);
    }

    #[test]
    fn only_a_deadline_that_was_not_asked_for_grows_with_the_round_trip() {
        let grows = |scenario, delta| ExercisePlan { scenario, delta, ..PLAN }.round_trips() > 0;
        assert!(grows(Scenario::Hlt, None) && grows(Scenario::TscDeadline, None));
        assert!(
            !grows(Scenario::Hlt, Some(20_000)) && !grows(Scenario::NestedArmed, None) && !grows(Scenario::Spin, None)
        );
    }

    #[test]
    fn the_hypercall_instruction_is_the_one_of_the_hosts_vendor() {
        let host = |vmmcall| GuestHost { extension: Extension::None, vmmcall };
        assert_eq!(program(Scenario::Vmcall, host(false)), ExerciseProgram::Vmcall);
        assert_eq!(program(Scenario::Vmcall, host(true)), ExerciseProgram::Vmmcall);
    }
}
