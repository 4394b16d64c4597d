//! Makes the guest a hypervisor (L1) with a guest of its own (L2): paging, VMX, and for each vCPU its regions and VMCS fields.
//! Reports a failed step by its name, stage and VM-instruction error.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use kvm_bindings::{CpuId, Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;
use tracer_common::Isa;

use super::guest_host::Extension;
use super::image;
use super::machine::Machine;
use super::memory::Memory;
use super::vmcs::{self, Controls};
use crate::model::exit_reasons;

const CPUID_1_ECX_VMX: u32 = 1 << 5;
const MSR_FEATURE_CONTROL: u32 = 0x3a;
/// Locked (bit 0), with VMX enabled outside SMX (bit 2). VMXON faults without them.
const FEATURE_CONTROL: u64 = 1 << 2 | 1 << 0;
const MSR_VMX_BASIC: u32 = 0x480;
/// The revision of the VMCS format, in the lower half.
const VMX_BASIC_REVISION: u32 = 0x7fff_ffff;
const MSR_VMX_PIN_CONTROLS: u32 = 0x481;
const MSR_VMX_PROCESSOR_CONTROLS: u32 = 0x482;
const MSR_VMX_EXIT_CONTROLS: u32 = 0x483;
const MSR_VMX_ENTRY_CONTROLS: u32 = 0x484;

/// The step that a hypervisor executes or executed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Stage {
    /// Enter VMX operation.
    Vmxon = 1,
    /// Initialize the VMCS.
    Vmclear = 2,
    /// Make the VMCS current.
    Vmptrld = 3,
    /// Write the fields of the VMCS.
    Vmwrite = 4,
    /// Enter L2 for the first time.
    Vmlaunch = 5,
    /// Enter L2 again.
    Vmresume = 6,
    /// Read the exit reason of L2.
    Vmread = 7,
    /// Check that the exit reason is VMCALL.
    L2Exit = 8,
}

impl Stage {
    const ALL: [Self; 8] = [
        Self::Vmxon,
        Self::Vmclear,
        Self::Vmptrld,
        Self::Vmwrite,
        Self::Vmlaunch,
        Self::Vmresume,
        Self::Vmread,
        Self::L2Exit,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Vmxon => "VMXON",
            Self::Vmclear => "VMCLEAR",
            Self::Vmptrld => "VMPTRLD",
            Self::Vmwrite => "VMWRITE",
            Self::Vmlaunch => "VMLAUNCH",
            Self::Vmresume => "VMRESUME",
            Self::Vmread => "VMREAD",
            Self::L2Exit => "L2's exit",
        }
    }
}

/// The last step of a hypervisor, displayed as its failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Steps {
    /// Number of its last [`Stage`]; 0 before the first.
    pub(crate) stage: u32,
    /// VM-instruction error of the failed step; 0 if none failed, or if there was no current VMCS.
    pub(crate) instruction_error: u32,
    /// Exit reason of L2's last exit, as in the VMCS; 0 before the first exit.
    pub(crate) exit_reason: u32,
}

impl Steps {
    /// Name of the last step; none before the first.
    pub(crate) fn last(self) -> Option<&'static str> {
        self.last_stage().map(Stage::name)
    }

    fn last_stage(self) -> Option<Stage> {
        Stage::ALL.into_iter().find(|stage| *stage as u32 == self.stage)
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stage: number, instruction_error, exit_reason } = *self;
        match self.last_stage() {
            None => write!(f, "ended before VMXON, in stage {number}"),
            Some(Stage::L2Exit) => {
                let reason = exit_reasons::name(Isa::Vmx, exit_reason);
                write!(f, "L2 exited by {reason}, not by VMCALL, in stage {number}")
            }
            Some(stage) => {
                write!(f, "{} failed in stage {number}: ", stage.name())?;
                match instruction_error {
                    0 => f.write_str("no VM-instruction error, as there was no current VMCS"),
                    error => write!(f, "VM-instruction error {error}"),
                }
            }
        }
    }
}

/// Checks that KVM offers VMX to guests, by the CPUID that it supports. The error says how to enable it.
pub(crate) fn ensure_possible(extension: Extension, supported: &CpuId) -> Result<()> {
    if !matches!(extension, Extension::Vmx(_)) {
        bail!("find VMX for the guest's hypervisor: this host has none; use one with an Intel CPU");
    }
    let offered = supported.as_slice().iter().any(|entry| entry.function == 1 && entry.ecx & CPUID_1_ECX_VMX != 0);
    ensure!(
        offered,
        "find VMX for the guest's hypervisor: kvm_intel does not offer it to guests; reload the module: \
         modprobe -r kvm_intel && modprobe kvm_intel nested=1"
    );
    Ok(())
}

/// Makes every vCPU of a new machine a hypervisor. Call it before the vCPUs run.
pub(crate) fn prepare(machine: &Machine) -> Result<()> {
    image::write_page_directory(&machine.memory)?;
    for (id, vcpu) in (0..).zip(&machine.vcpus) {
        prepare_vcpu(&machine.memory, id, vcpu).with_context(|| format!("make vCPU {id} a hypervisor"))?;
    }
    Ok(())
}

fn prepare_vcpu(memory: &Memory, id: u32, vcpu: &VcpuFd) -> Result<()> {
    allow_vmxon(vcpu)?;
    let mut sregs = vcpu.get_sregs().context("get system registers")?;
    (sregs.cr0, sregs.cr3, sregs.cr4) = (vmcs::CR0.into(), vmcs::CR3.into(), vmcs::CR4.into());
    vcpu.set_sregs(&sregs).context("set system registers")?;

    let revision = lower_half(read_msr(vcpu, MSR_VMX_BASIC)?) & VMX_BASIC_REVISION;
    // The lower halves of these MSRs are the bits that must be 1, the upper halves those that may be 1.
    let required = |msr| read_msr(vcpu, msr).map(lower_half);
    let controls = Controls {
        pin: required(MSR_VMX_PIN_CONTROLS)?,
        processor: required(MSR_VMX_PROCESSOR_CONTROLS)?,
        exit: required(MSR_VMX_EXIT_CONTROLS)?,
        entry: required(MSR_VMX_ENTRY_CONTROLS)?,
    };
    image::write_hypervisor(memory, id, revision, &vmcs::fields(controls, u32::try_from(image::stack(id))?))
}

/// Sets IA32_FEATURE_CONTROL as firmware does. VMXON faults without it.
fn allow_vmxon(vcpu: &VcpuFd) -> Result<()> {
    let entry = kvm_msr_entry { index: MSR_FEATURE_CONTROL, data: FEATURE_CONTROL, ..Default::default() };
    let msrs = Msrs::from_entries(&[entry])?;
    let written = vcpu.set_msrs(&msrs).context("set MSR IA32_FEATURE_CONTROL")?;
    ensure!(written == 1, "set MSR IA32_FEATURE_CONTROL: KVM refused {FEATURE_CONTROL:#x}");
    Ok(())
}

fn lower_half(value: u64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the upper half is meant to be dropped")]
    let lower = value as u32;
    lower
}

fn read_msr(vcpu: &VcpuFd, index: u32) -> Result<u64> {
    let mut msrs = Msrs::from_entries(&[kvm_msr_entry { index, ..Default::default() }])?;
    let read = vcpu.get_msrs(&mut msrs).with_context(|| format!("get MSR {index:#x}"))?;
    ensure!(read == 1, "get MSR {index:#x}: KVM has no such MSR");
    Ok(msrs.as_slice()[0].data)
}

#[cfg(test)]
mod tests {
    use super::super::guest_host::{Svm, Vmx};
    use super::*;
    use kvm_bindings::kvm_cpuid_entry2;

    fn cpuid(ecx: u32) -> CpuId {
        CpuId::from_entries(&[kvm_cpuid_entry2 { function: 1, ecx, ..Default::default() }]).unwrap()
    }

    #[test]
    fn a_failed_step_is_reported_with_its_stage_and_error() {
        let steps = |stage: Stage, instruction_error, exit_reason| {
            Steps { stage: stage as u32, instruction_error, exit_reason }.to_string()
        };
        assert_eq!(steps(Stage::Vmlaunch, 7, 0), "VMLAUNCH failed in stage 5: VM-instruction error 7");
        assert_eq!(
            steps(Stage::Vmptrld, 0, 0),
            "VMPTRLD failed in stage 3: no VM-instruction error, as there was no current VMCS"
        );
        let exit = steps(Stage::L2Exit, 0, 48);
        assert_eq!(exit, "L2 exited by EPT_VIOLATION, not by VMCALL, in stage 8");
        assert_eq!(Steps::default().to_string(), "ended before VMXON, in stage 0");
    }

    #[test]
    fn a_host_without_nesting_is_refused_with_the_fix() {
        let vmx = Extension::Vmx(Vmx::default());
        ensure_possible(vmx, &cpuid(CPUID_1_ECX_VMX)).unwrap();
        let error = |extension, ecx| ensure_possible(extension, &cpuid(ecx)).unwrap_err().to_string();
        assert!(error(vmx, 0).ends_with("modprobe kvm_intel nested=1"));
        assert!(error(Extension::Svm(Svm::default()), 0).contains("Intel"));
        assert!(error(Extension::None, CPUID_1_ECX_VMX).contains("Intel"));
    }
}
