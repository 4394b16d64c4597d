//! The virtual machine, created through /dev/kvm, with vCPUs that are ready to run.

use anyhow::{Context, Result, bail, ensure};
use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, KVM_MP_STATE_RUNNABLE, kvm_mp_state, kvm_regs, kvm_segment,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};

use super::image::{self, CODE_SELECTOR, DATA_SELECTOR};
use super::memory::Memory;

/// Guest-physical address for the task-state segment that kvm_intel needs if the CPU cannot run real mode; nothing else is there.
const TSS_ADDRESS: usize = 0xfffb_d000;

/// CR0.PE.
pub(crate) const CR0_PROTECTED_MODE: u64 = 1 << 0;
/// CR0.ET, which always reads as 1.
pub(crate) const CR0_EXTENSION_TYPE: u64 = 1 << 4;
/// RFLAGS with all flags clear; this bit always reads as 1.
pub(crate) const RFLAGS_RESERVED: u64 = 1 << 1;
const CPUID_1_ECX_TSC_DEADLINE: u32 = 1 << 24;

/// A virtual machine with its vCPUs.
#[derive(Debug)]
pub(crate) struct Machine {
    /// The vCPUs, by id.
    pub(crate) vcpus: Vec<VcpuFd>,
    /// Keeps the VM open.
    _vm: VmFd,
    /// The guest's memory. It is the last field because fields are dropped in order, and the guest may use the mapping as long
    /// as one of the descriptors above is open.
    pub(crate) memory: Memory,
}

/// Opens /dev/kvm. The error says how to fix it.
pub(crate) fn open_kvm() -> Result<Kvm> {
    let kvm = Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT | libc::ENXIO | libc::ENODEV => anyhow::anyhow!(
            "open /dev/kvm: {error}: load kvm_intel or kvm_amd (modprobe), and check that virtualization is on in \
             the firmware"
        ),
        libc::EACCES | libc::EPERM => anyhow::anyhow!(
            "open /dev/kvm: {error}: run as root, or add the user to the device's group (usually `kvm`)"
        ),
        _ => anyhow::anyhow!("open /dev/kvm: {error}"),
    })?;
    let version = kvm.get_api_version();
    ensure!(version == 12, "use /dev/kvm: API version {version}, not 12");
    Ok(kvm)
}

/// The CPUID entries that KVM supports for guests.
pub(crate) fn supported_cpuid(kvm: &Kvm) -> Result<CpuId> {
    kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).context("ask KVM for its CPUID")
}

impl Machine {
    /// Creates a machine of `vcpus` vCPUs in flat 32-bit protected mode, with the code of guest.S in its memory but no work yet.
    pub(crate) fn new(kvm: &Kvm, vcpus: u32) -> Result<Self> {
        let memory = Memory::new(image::memory_size(vcpus))?;
        image::load(&memory)?;
        Self::with(kvm, memory, vcpus, |vcpu, id| start_in_protected_mode(vcpu, id, image::start()))
    }

    /// Creates a machine of `vcpus` vCPUs with this memory; `start` sets the registers of a vCPU by its id.
    pub(crate) fn with(kvm: &Kvm, memory: Memory, vcpus: u32, start: fn(&VcpuFd, u32) -> Result<()>) -> Result<Self> {
        let most = kvm.get_max_vcpus();
        if vcpus as usize > most {
            bail!("create {vcpus} vCPUs: KVM allows {most}");
        }
        for (capability, name) in [
            (Cap::Irqchip, "an interrupt controller in the kernel"),
            (Cap::TscDeadlineTimer, "TSC-deadline timers"),
            (Cap::ImmediateExit, "immediate exits"),
        ] {
            ensure!(kvm.check_extension(capability), "use /dev/kvm: it has no {name}");
        }

        let vm = kvm.create_vm().context("create VM")?;
        vm.set_tss_address(TSS_ADDRESS).context("set address of the task-state segment")?;
        vm.create_irq_chip().context("create interrupt controller")?;
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: memory.size() as u64,
            userspace_addr: memory.host_address(),
        };
        // SAFETY: the region is exactly the mapping of `memory`. The mapping outlives every descriptor through which the guest can
        // use it: `Machine` drops `memory` last, and on an early return `vm` is dropped before the parameter `memory`.
        unsafe { vm.set_user_memory_region(region) }.context("give memory to the VM")?;

        let supported = supported_cpuid(kvm)?;
        let vcpus = (0..vcpus)
            .map(|id| create_vcpu(&vm, id, supported.clone(), start).with_context(|| format!("create vCPU {id}")))
            .collect::<Result<_>>()?;
        Ok(Self { vcpus, _vm: vm, memory })
    }
}

fn create_vcpu(vm: &VmFd, id: u32, mut cpuid: CpuId, start: fn(&VcpuFd, u32) -> Result<()>) -> Result<VcpuFd> {
    let vcpu = vm.create_vcpu(u64::from(id))?;
    set_identity(&mut cpuid, id);
    vcpu.set_cpuid2(&cpuid).context("set CPUID")?;
    start(&vcpu, id)?;
    // Without this, all vCPUs but the first would wait for the guest to start them.
    vcpu.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE }).context("make it runnable")?;
    Ok(vcpu)
}

/// Sets the registers of vCPU `id` for flat 32-bit protected mode with the tables of guest.S, to run from `rip`.
pub(super) fn start_in_protected_mode(vcpu: &VcpuFd, id: u32, rip: u32) -> Result<()> {
    let mut sregs = vcpu.get_sregs().context("get system registers")?;
    sregs.cs = flat_segment(CODE_SELECTOR, 0xb);
    let data = flat_segment(DATA_SELECTOR, 0x3);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.cr0 = CR0_PROTECTED_MODE | CR0_EXTENSION_TYPE;
    (sregs.gdt.base, sregs.gdt.limit) = (image::gdt().base.into(), image::gdt().limit);
    (sregs.idt.base, sregs.idt.limit) = (image::idt().base.into(), image::idt().limit);
    vcpu.set_sregs(&sregs).context("set system registers")?;
    vcpu.set_regs(&kvm_regs {
        rip: rip.into(),
        rsp: image::stack(id) as u64,
        rbp: image::parameter_block(id) as u64,
        rflags: RFLAGS_RESERVED,
        ..Default::default()
    })
    .context("set registers")
}

/// Adds the APIC id and the TSC-deadline timer, which KVM reports as a capability and not in its supported CPUID.
fn set_identity(cpuid: &mut CpuId, id: u32) {
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            0x1 => {
                entry.ecx |= CPUID_1_ECX_TSC_DEADLINE;
                entry.ebx = entry.ebx & 0x00ff_ffff | id << 24;
            }
            0xb | 0x1f => entry.edx = id,
            _ => {}
        }
    }
}

/// A 32-bit segment that covers all 4 GiB.
pub(crate) fn flat_segment(selector: u16, type_: u8) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        dpl: 0,
        db: 1,
        s: 1,
        l: 0,
        g: 1,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvm_bindings::kvm_cpuid_entry2;

    #[test]
    fn each_vcpu_gets_its_apic_id_and_the_deadline_timer() {
        let entry = |function, ebx| kvm_cpuid_entry2 { function, ebx, ..Default::default() };
        let mut cpuid = CpuId::from_entries(&[entry(0, 7), entry(1, 0xff12_3456), entry(0xb, 7)]).unwrap();
        set_identity(&mut cpuid, 3);
        let entries = cpuid.as_slice();
        assert_eq!((entries[0].ebx, entries[0].ecx, entries[0].edx), (7, 0, 0));
        assert_eq!((entries[1].ebx, entries[1].ecx), (0x0312_3456, 1 << 24));
        assert_eq!((entries[2].ebx, entries[2].edx), (7, 3));
    }
}
