//! From BTF to the programs' constants: the offsets of the fields that they read. Pure; kernel versions differ in the alternatives of the
//! table, never in the code.

use std::fmt;

use tracer_common::{Config, Slot, config::ABSENT};

use crate::{
    kernel::btf::{Argument, Btf, Field},
    model::vendor::Vendor,
};

/// Arguments of this kernel's kvm_exit, which decide the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitArguments {
    /// kvm_exit(vcpu, isa): Linux 5.16 and later
    VcpuIsa,
    /// kvm_exit(exit_reason, vcpu, isa): before Linux 5.16
    ReasonVcpuIsa,
}

/// Everything about this kernel that the programs depend on.
#[derive(Clone, Debug)]
pub struct Layout {
    /// the programs' constants; slots of fields that were not found are absent
    pub config: Config,
    /// arguments of kvm_exit
    pub exit_arguments: ExitArguments,
    /// fields that were not found, and the figures that are n/a without them
    pub missing: Vec<Missing>,
    /// the companion patch's tracepoints that are there
    pub companion: Companion,
    /// kvm_userspace_exit is there
    pub userspace_exit: bool,
    /// kvm_mmio is there, with the address as its third argument
    pub mmio: bool,
    /// kvm_fast_mmio is there
    pub fast_mmio: bool,
    /// `bpf_rdonly_cast`; none where this kernel does not have it
    pub cast: Option<Cast>,
}

/// Ids in the kernel's BTF by which programs load from kernel memory without a helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cast {
    /// of the function `bpf_rdonly_cast` (Linux 6.2, commit a35b9af4ec2c)
    pub function: u32,
    /// of a structure that begins with a 64-bit integer
    pub structure: u32,
}

impl Cast {
    /// Finds both; none where one is missing.
    pub fn find(btf: &Btf<'_>) -> Option<Self> {
        let kernel = btf.kernel();
        let structure = kernel.structure("timespec64")?;
        let begins = kernel.field("timespec64", "tv_sec")? == Field { offset: 0, size: 8 };
        let function = kernel.function("bpf_rdonly_cast").filter(|_| begins)?;
        Some(Self { function, structure })
    }
}

/// Tracepoints of the companion patch (`patches/`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Companion {
    /// kvm_vmcs_write(vcpu, field, old_val, new_val, vmcs02)
    pub vmcs_write: bool,
    /// kvm_preemption_timer_exit(vcpu, cause, vmcs02), or with a fourth argument
    pub timer_exit: bool,
    /// its fourth argument, the TSC cycles since the deadline
    pub timer_exit_late: bool,
    /// the stopwatch's kvm_guest_time(vcpu, total, guest)
    pub guest_time: bool,
}

/// A field that this kernel does not have, or has under an unknown name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// e.g. `loaded_vmcs.controls_shadow.pin`
    pub field: String,
    /// the figures that are n/a without it
    pub lost: &'static str,
}

/// Why the programs cannot run on this kernel at all.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// the tracepoint is not in BTF: kvm is not loaded, or has no BTF
    NoTracepoint(&'static str),
    /// the tracepoint's arguments have none of the known forms
    UnknownArguments(&'static str, Vec<Argument>),
    /// a field without which nothing can be measured
    NoField(&'static str),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTracepoint(name) => write!(f, "tracepoint {name} is not in the kernel's BTF"),
            Self::UnknownArguments(name, found) => {
                write!(f, "tracepoint {name} has arguments of an unknown form: {found:?}")
            }
            Self::NoField(field) => write!(f, "field {field} is not in the kernel's BTF"),
        }
    }
}

impl std::error::Error for Refusal {}

/// A field of the vendor's vCPU structure, or of a structure that it points to. Of several paths, the first that exists counts.
struct Wanted {
    slot: Slot,
    structure: &'static str,
    paths: &'static [&'static str],
    /// the offset counts from kvm_vcpu within the structure instead of from its beginning
    of_vcpu: bool,
    /// bytes that the program reads: the field must have at least as many
    size: u32,
    lost: &'static str,
}

const VMX: &[Wanted] = &[
    Wanted {
        slot: Slot::VmxExitReason,
        structure: "vcpu_vmx",
        // in vcpu_vt since Linux 6.16; a bare u32 before 5.11
        paths: &["vt.exit_reason.full", "exit_reason.full", "exit_reason"],
        of_vcpu: true,
        size: 4,
        lost: "exit reasons and causes of timer exits",
    },
    Wanted {
        slot: Slot::VmxLoadedVmcs,
        structure: "vcpu_vmx",
        paths: &["loaded_vmcs"],
        of_vcpu: true,
        size: 8,
        lost: "pin writes and spurious timer exits",
    },
    Wanted {
        slot: Slot::VmxVmcs01,
        structure: "vcpu_vmx",
        paths: &["vmcs01"],
        of_vcpu: true,
        size: 0,
        lost: "the level (L1 or L2)",
    },
    Wanted {
        slot: Slot::VmcsPin,
        structure: "loaded_vmcs",
        paths: &["controls_shadow.pin"],
        of_vcpu: false,
        size: 4,
        lost: "pin writes, clean and dirty entries",
    },
    Wanted {
        slot: Slot::VmcsSoftDisabled,
        structure: "loaded_vmcs",
        paths: &["hv_timer_soft_disabled"],
        of_vcpu: false,
        size: 1,
        lost: "causes of timer exits",
    },
    Wanted {
        slot: Slot::VmxDeadlineTsc,
        structure: "vcpu_vmx",
        paths: &["hv_deadline_tsc"],
        of_vcpu: true,
        size: 8,
        lost: "early timer exits and the lateness of timers",
    },
];

const SVM: &[Wanted] = &[
    Wanted {
        slot: Slot::SvmVmcb,
        structure: "vcpu_svm",
        paths: &["vmcb"],
        of_vcpu: true,
        size: 8,
        lost: "exit reasons",
    },
    Wanted {
        slot: Slot::VmcbExitCode,
        structure: "vmcb",
        paths: &["control.exit_code"],
        of_vcpu: false,
        size: 4,
        lost: "exit reasons",
    },
];

/// Fields about exits beyond their reasons, and the level by a faster way: slot, structure, paths of which the first that exists counts, least size.
const DETAIL: &[(Slot, &str, &[&str], u32)] = &[
    (Slot::VmxQualification, "vcpu_vmx", &["vt.exit_qualification", "exit_qualification"], 8),
    (Slot::VmxInterruption, "vcpu_vmx", &["vt.exit_intr_info", "exit_intr_info"], 4),
    (Slot::VmcbExitInfo1, "vmcb", &["control.exit_info_1"], 8),
    (Slot::SvmVmcb01, "vcpu_svm", &["vmcb01.ptr"], 8),
];

/// Finds the fields. `kvm` is the BTF with kvm's tracepoints and `struct kvm_vcpu`, `vendor_btf` the one with the vendor module's structures;
/// both may be the kernel's own where KVM is built in.
pub(crate) fn resolve(kvm: &Btf<'_>, vendor: Vendor, vendor_btf: &Btf<'_>) -> Result<Layout, Refusal> {
    let mut fields = Fields { config: Config::empty(), missing: Vec::new() };
    fields.entry_arguments(kvm)?;
    let exit_arguments = exit_arguments(kvm)?;
    fields.vcpu(kvm)?;
    fields.calibration(kvm, vendor_btf);
    fields.vendor(vendor, vendor_btf);
    let userspace_exit = fields.host_time(kvm);
    fields.detail(kvm);
    let companion = Companion::find(vendor_btf);
    fields.config.set(Slot::TimerExitHasLate, companion.timer_exit_late);
    let Fields { config, missing } = fields;
    let mmio = [Argument::Scalar(4), Argument::Scalar(4), Argument::Scalar(8)];
    Ok(Layout {
        config,
        exit_arguments,
        missing,
        companion,
        userspace_exit,
        mmio: kvm.tracepoint("kvm_mmio").is_some_and(|found| found.starts_with(&mmio)),
        fast_mmio: kvm.tracepoint("kvm_fast_mmio").is_some_and(|found| found.starts_with(&[Argument::Scalar(8)])),
        cast: Cast::find(kvm),
    })
}

fn exit_arguments(kvm: &Btf<'_>) -> Result<ExitArguments, Refusal> {
    let exit = kvm.tracepoint("kvm_exit").ok_or(Refusal::NoTracepoint("kvm_exit"))?;
    match exit.as_slice() {
        [v, Argument::Scalar(4)] if is_vcpu(v) => Ok(ExitArguments::VcpuIsa),
        [Argument::Scalar(4), v, Argument::Scalar(4)] if is_vcpu(v) => Ok(ExitArguments::ReasonVcpuIsa),
        _ => Err(Refusal::UnknownArguments("kvm_exit", exit)),
    }
}

/// The fields found so far.
struct Fields {
    config: Config,
    missing: Vec<Missing>,
}

impl Fields {
    fn entry_arguments(&mut self, kvm: &Btf<'_>) -> Result<(), Refusal> {
        let entry = kvm.tracepoint("kvm_entry").ok_or(Refusal::NoTracepoint("kvm_entry"))?;
        match entry.as_slice() {
            [v] if is_vcpu(v) => {}
            [v, Argument::Scalar(1)] if is_vcpu(v) => self.config.set(Slot::EntryHasImmediate, 1),
            _ => return Err(Refusal::UnknownArguments("kvm_entry", entry)),
        }
        Ok(())
    }

    /// `struct kvm_vcpu` and `struct kvm`, the same for every vendor.
    fn vcpu(&mut self, kvm: &Btf<'_>) -> Result<(), Refusal> {
        let required = [(Slot::VcpuKvm, "kvm", 8, "kvm_vcpu.kvm"), (Slot::VcpuId, "vcpu_id", 4, "kvm_vcpu.vcpu_id")];
        for (slot, path, size, full) in required {
            let field = kvm.field("kvm_vcpu", path).filter(|field| field.size == size);
            self.config.set(slot, field.ok_or(Refusal::NoField(full))?.offset);
        }
        for (slot, path, lost) in [
            (Slot::StatExits, "stat.exits", "whether a new vCPU took over an address"),
            (Slot::StatGuestMode, "stat.guest_mode", "the level (L1 or L2) on SVM"),
        ] {
            match kvm.field("kvm_vcpu", path) {
                Some(field) if field.size == 8 => self.config.set(slot, field.offset),
                _ => self.missing.push(Missing { field: format!("kvm_vcpu.{path}"), lost }),
            }
        }
        // Absent before Linux 6.8, which had no TDX guests.
        if let Some(field) = kvm.field("kvm", "arch.vm_type") {
            self.config.set(Slot::KvmVmType, field.offset);
        }
        Ok(())
    }

    /// Fields for the calibration guest only, so their absence is not reported.
    fn calibration(&mut self, kvm: &Btf<'_>, vendor_btf: &Btf<'_>) {
        if let Some(field) = kvm.field("kvm_vcpu", "arch.regs").filter(|f| f.size >= 12 * 8) {
            self.config.set(Slot::GuestR8, field.offset + 8 * 8);
        }
        if let Some(field) = vendor_btf.field("loaded_vmcs", "controls_shadow.exec").filter(|f| f.size >= 4) {
            self.config.set(Slot::VmcsExec, field.offset);
        }
    }

    /// Sums that KVM and the scheduler keep, from which the parts of the host time follow; whether kvm_userspace_exit is there.
    fn host_time(&mut self, kvm: &Btf<'_>) -> bool {
        let halts = "polled and idle time";
        for (slot, structure, path, lost) in [
            (Slot::HaltPollSuccess, "kvm_vcpu", "stat.generic.halt_poll_success_ns", halts),
            (Slot::HaltPollFail, "kvm_vcpu", "stat.generic.halt_poll_fail_ns", halts),
            (Slot::HaltWait, "kvm_vcpu", "stat.generic.halt_wait_ns", halts),
            (Slot::RunDelay, "task_struct", "sched_info.run_delay", "steal time"),
        ] {
            match kvm.field(structure, path) {
                Some(field) if field.size == 8 => self.config.set(slot, field.offset),
                _ => self.missing.push(Missing { field: format!("{structure}.{path}"), lost }),
            }
        }
        if let Some(field) = kvm.field("task_struct", "sched_info.pcount").filter(|field| field.size == 8)
            && self.config.get(Slot::RunDelay).is_some()
        {
            self.config.set(Slot::RunCount, field.offset);
        }
        // Halts are known by all three counts or not at all.
        let all = [Slot::HaltPollSuccess, Slot::HaltPollFail, Slot::HaltWait];
        if all.iter().any(|slot| self.config.get(*slot).is_none()) {
            all.into_iter().for_each(|slot| self.config.set(slot, ABSENT));
        }
        let is_there = kvm.tracepoint("kvm_userspace_exit").is_some();
        if !is_there {
            self.missing.push(Missing { field: "kvm_userspace_exit".into(), lost: "user time" });
        }
        is_there
    }

    /// Fields about exits beyond their reasons. A kernel without one of them lacks details of some exits, which is not reported.
    fn detail(&mut self, kvm: &Btf<'_>) {
        for (slot, structure, path, size) in [
            (Slot::GuestRegs, "kvm_vcpu", "arch.regs", 2 * 8),
            (Slot::FaultsFixed, "kvm_vcpu", "stat.pf_fixed", 8),
            (Slot::FaultsFast, "kvm_vcpu", "stat.pf_fast", 8),
            (Slot::FaultsSpurious, "kvm_vcpu", "stat.pf_spurious", 8),
            (Slot::FaultsEmulated, "kvm_vcpu", "stat.pf_emulate", 8),
            (Slot::HypervGuest, "kvm", "arch.hyperv.hv_guest_os_id", 8),
        ] {
            if let Some(field) = kvm.field(structure, path).filter(|field| field.size >= size) {
                self.config.set(slot, field.offset);
            }
        }
        // A mask of one word, and since Linux 7.2 an array of words under another prefix; bits are numbered through either way.
        let available = kvm.field("kvm_vcpu", "arch.regs_avail");
        for (slot, names) in [
            (Slot::QualificationRead, ["VCPU_EXREG_EXIT_INFO_1", "VCPU_REG_EXIT_INFO_1"]),
            (Slot::InterruptionRead, ["VCPU_EXREG_EXIT_INFO_2", "VCPU_REG_EXIT_INFO_2"]),
        ] {
            let bit =
                names.iter().find_map(|name| kvm.enumerator("kvm_reg", name)).and_then(|bit| u32::try_from(bit).ok());
            if let (Some(field), Some(bit)) = (available, bit)
                && bit < field.size * 8
            {
                self.config.set(slot, i64::from(field.offset) * 8 + i64::from(bit));
            }
        }
    }

    /// The vendor's vCPU structure and what it points to.
    fn vendor(&mut self, vendor: Vendor, btf: &Btf<'_>) {
        let (table, structure): (&[Wanted], _) = match vendor {
            Vendor::Intel => (VMX, "vcpu_vmx"),
            Vendor::Amd => (SVM, "vcpu_svm"),
            Vendor::Other => (&[], ""),
        };
        if let Some(isa) = vendor.isa() {
            self.config.set(Slot::LayoutIsa, isa as u8);
        }
        let vcpu_at = btf.field(structure, "vcpu").map_or(0, |f| i64::from(f.offset));
        for wanted in table {
            let mut paths = wanted.paths.iter();
            let field = paths.find_map(|path| btf.field(wanted.structure, path)).filter(|f| f.size >= wanted.size);
            let from = if wanted.of_vcpu { vcpu_at } else { 0 };
            // A slot cannot say that a field lies before the vcpu.
            match field.map(|field| i64::from(field.offset) - from).filter(|offset| *offset >= 0) {
                Some(offset) => self.config.set(wanted.slot, offset),
                None => self.missing.push(Missing {
                    field: format!("{}.{}", wanted.structure, wanted.paths[wanted.paths.len() - 1]),
                    lost: wanted.lost,
                }),
            }
        }
        // Without these, details of some exits are unknown, which is not reported.
        for (slot, structure, paths, size) in
            DETAIL.iter().filter(|(_, of, ..)| *of == structure || *of == "vmcb" && vendor == Vendor::Amd)
        {
            let field = paths.iter().find_map(|path| btf.field(structure, path)).filter(|field| field.size >= *size);
            let from = if *structure == "vmcb" { 0 } else { vcpu_at };
            if let Some(offset) = field.map(|field| i64::from(field.offset) - from).filter(|offset| *offset >= 0) {
                self.config.set(*slot, offset);
            }
        }
        if vendor == Vendor::Intel && self.config.get(Slot::EntryHasImmediate).is_none() {
            let field = btf.field("vcpu_vmx", "req_immediate_exit");
            match field.map(|field| i64::from(field.offset) - vcpu_at).filter(|offset| *offset >= 0) {
                Some(offset) => self.config.set(Slot::VmxReqImmediate, offset),
                None => {
                    let field = "vcpu_vmx.req_immediate_exit".into();
                    self.missing.push(Missing { field, lost: "causes of timer exits" });
                }
            }
        }
    }
}

impl Companion {
    fn find(btf: &Btf<'_>) -> Self {
        let scalar = Argument::Scalar;
        let has = |name, expected: &[Argument]| {
            let found = btf.tracepoint(name);
            // Newer patches add arguments at the end.
            found.is_some_and(|f| {
                f.split_first().is_some_and(|(vcpu, rest)| is_vcpu(vcpu) && rest.starts_with(expected))
            })
        };
        Self {
            vmcs_write: has("kvm_vmcs_write", &[scalar(4), scalar(8), scalar(8), scalar(1)]),
            timer_exit: has("kvm_preemption_timer_exit", &[scalar(4), scalar(1)]),
            timer_exit_late: has("kvm_preemption_timer_exit", &[scalar(4), scalar(1), scalar(8)]),
            guest_time: has("kvm_guest_time", &[scalar(8), scalar(8)]),
        }
    }
}

fn is_vcpu(argument: &Argument) -> bool {
    matches!(argument, Argument::StructPointer(name) if name == "kvm_vcpu")
}

#[cfg(test)]
pub(crate) mod made_up {
    //! BTF of made-up kernels.

    use crate::{kernel::btf::build::Builder, model::vendor::Vendor};

    pub(crate) struct Kernel {
        pub(super) vmlinux: Builder,
        pub(super) u32_type: u32,
        pub(super) u64_type: u32,
        pub(super) flag: u32,
        pub(super) vcpu_pointer: u32,
        pub(super) vcpu: u32,
    }

    pub(super) fn kernel() -> Kernel {
        let mut b = Builder::new();
        let u32_type = b.int("unsigned int", 4);
        let u64_type = b.int("unsigned long long", 8);
        let flag = b.int("_Bool", 1);
        let arch = b.structure("kvm_arch", 8, &[("vm_type", flag, 4)]);
        let kvm = b.structure("kvm", 64, &[("arch", arch, 32)]);
        let kvm_pointer = b.ptr(kvm);
        let regs = b.array(u64_type, 17);
        let vcpu_arch = b.structure("kvm_vcpu_arch", 144, &[("regs", regs, 0), ("regs_avail", u32_type, 136)]);
        let generic = b.structure(
            "kvm_vcpu_stat_generic",
            24,
            &[
                ("halt_poll_success_ns", u64_type, 0),
                ("halt_poll_fail_ns", u64_type, 8),
                ("halt_wait_ns", u64_type, 16),
            ],
        );
        let stat = b.structure(
            "kvm_vcpu_stat",
            56,
            &[("exits", u64_type, 8), ("guest_mode", u64_type, 24), ("generic", generic, 32)],
        );
        let sched_info = b.structure("sched_info", 16, &[("pcount", u64_type, 0), ("run_delay", u64_type, 8)]);
        b.structure("task_struct", 64, &[("sched_info", sched_info, 32)]);
        b.enumeration("kvm_reg", &[("VCPU_EXREG_EXIT_INFO_1", 23), ("VCPU_EXREG_EXIT_INFO_2", 24)]);
        b.tracepoint("kvm_userspace_exit", &[u32_type, u32_type]);
        let vcpu = b.structure(
            "kvm_vcpu",
            336,
            &[
                ("kvm", kvm_pointer, 0),
                ("cpu", u32_type, 0x20),
                ("vcpu_id", u32_type, 0x24),
                ("stat", stat, 0x80),
                ("arch", vcpu_arch, 0xb8),
            ],
        );
        let vcpu_pointer = b.ptr(vcpu);
        Kernel { vmlinux: b, u32_type, u64_type, flag, vcpu_pointer, vcpu }
    }

    pub(super) fn intel(k: &Kernel, vt: bool) -> Builder {
        let mut m = Builder::split(&k.vmlinux);
        let shadow = m.structure("vmcs_controls_shadow", 16, &[("vm_entry", k.u32_type, 0), ("pin", k.u32_type, 8)]);
        let vmcs = m.structure(
            "loaded_vmcs",
            0xa0,
            &[("hv_timer_soft_disabled", k.flag, 0x16), ("controls_shadow", shadow, 0x80)],
        );
        let vmcs_pointer = m.ptr(vmcs);
        let reason = m.union(4, &[("full", k.u32_type)]);
        if vt {
            let vt = m.structure("vcpu_vt", 64, &[("exit_reason", reason, 0x10)]);
            m.structure(
                "vcpu_vmx",
                8192,
                &[
                    ("vcpu", k.vcpu, 0),
                    ("vt", vt, 0x1000),
                    ("vmcs01", vmcs, 0x1100),
                    ("loaded_vmcs", vmcs_pointer, 0x1200),
                    ("hv_deadline_tsc", k.u64_type, 0x1300),
                ],
            );
        } else {
            m.structure(
                "vcpu_vmx",
                8192,
                &[
                    ("vcpu", k.vcpu, 16),
                    ("exit_reason", reason, 0x1e80),
                    ("vmcs01", vmcs, 0x1a88),
                    ("loaded_vmcs", vmcs_pointer, 0x1b28),
                    ("req_immediate_exit", k.flag, 0x1c00),
                    ("hv_deadline_tsc", k.u64_type, 0x1c08),
                ],
            );
        }
        m
    }

    fn amd(k: &Kernel) -> Builder {
        let mut m = Builder::split(&k.vmlinux);
        let control = m.structure("vmcb_control_area", 128, &[("exit_code", k.u32_type, 0x70)]);
        let vmcb = m.structure("vmcb", 4096, &[("control", control, 0)]);
        let vmcb = m.ptr(vmcb);
        m.structure("vcpu_svm", 4096, &[("vcpu", k.vcpu, 0), ("vmcb", vmcb, 0x800)]);
        m
    }

    /// BTF of a kernel with KVM built in, and of the vendor's module.
    pub(crate) fn btf(vendor: Vendor) -> (Vec<u8>, Vec<u8>) {
        let mut k = kernel();
        k.vmlinux.tracepoint("kvm_entry", &[k.vcpu_pointer, k.flag]);
        k.vmlinux.tracepoint("kvm_exit", &[k.vcpu_pointer, k.u32_type]);
        let module = if vendor == Vendor::Intel { intel(&k, true) } else { amd(&k) };
        (k.vmlinux.bytes(), module.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        made_up::{Kernel, intel, kernel},
        *,
    };
    use tracer_common::Isa;

    use crate::kernel::btf::build::Builder;

    fn resolved(k: &Kernel, module: &Builder, vendor: Vendor) -> Result<Layout, Refusal> {
        let (base, module) = (k.vmlinux.bytes(), module.bytes());
        let base = Btf::parse(&base, None).unwrap();
        let module = Btf::parse(&module, Some(&base)).unwrap();
        resolve(&base, vendor, &module)
    }

    #[test]
    fn offsets_count_from_the_vcpu_wherever_it_lies() {
        let mut k = kernel();
        k.vmlinux.tracepoint("kvm_entry", &[k.vcpu_pointer]);
        k.vmlinux.tracepoint("kvm_exit", &[k.vcpu_pointer, k.u32_type]);
        let layout = resolved(&k, &intel(&k, false), Vendor::Intel).unwrap();
        let c = &layout.config;
        assert_eq!(c.layout_isa(), Some(Isa::Vmx));
        assert_eq!(c.get(Slot::VmxExitReason), Some(0x1e80 - 16));
        assert_eq!(c.get(Slot::VmxLoadedVmcs), Some(0x1b28 - 16));
        assert_eq!(c.get(Slot::VmcsPin), Some(0x88));
        assert_eq!(c.get(Slot::VmcsSoftDisabled), Some(0x16));
        assert_eq!(c.get(Slot::VmxDeadlineTsc), Some(0x1c08 - 16));
        assert_eq!(c.get(Slot::StatExits), Some(0x88));
        assert_eq!(c.get(Slot::KvmVmType), Some(36));
        assert_eq!(c.get(Slot::GuestR8), Some(0xb8 + 64));
        assert_eq!((c.get(Slot::HaltWait), c.get(Slot::RunDelay)), (Some(0x80 + 48), Some(40)));
        assert_eq!(c.get(Slot::QualificationRead), Some((0xb8 + 136) * 8 + 23));
        assert!(layout.userspace_exit && !layout.mmio);
        assert_eq!(c.get(Slot::EntryHasImmediate), None);
        assert_eq!(c.get(Slot::VmxReqImmediate), Some(0x1c00 - 16));
        assert_eq!(layout.missing, []);
        assert_eq!(layout.exit_arguments, ExitArguments::VcpuIsa);
    }

    #[test]
    fn since_linux_6_16_the_exit_reason_is_in_vcpu_vt() {
        let mut k = kernel();
        k.vmlinux.tracepoint("kvm_entry", &[k.vcpu_pointer, k.flag]);
        k.vmlinux.tracepoint("kvm_exit", &[k.vcpu_pointer, k.u32_type]);
        let layout = resolved(&k, &intel(&k, true), Vendor::Intel).unwrap();
        assert_eq!(layout.config.get(Slot::VmxExitReason), Some(0x1010));
        assert_eq!(layout.config.get(Slot::EntryHasImmediate), Some(1));
        assert_eq!(layout.config.get(Slot::VmxReqImmediate), None);
    }

    #[test]
    fn before_linux_5_16_kvm_exit_has_the_reason_first() {
        let mut k = kernel();
        k.vmlinux.tracepoint("kvm_entry", &[k.vcpu_pointer]);
        k.vmlinux.tracepoint("kvm_exit", &[k.u32_type, k.vcpu_pointer, k.u32_type]);
        let layout = resolved(&k, &intel(&k, false), Vendor::Intel).unwrap();
        assert_eq!(layout.exit_arguments, ExitArguments::ReasonVcpuIsa);
    }

    #[test]
    fn unknown_arguments_are_refused_and_not_guessed() {
        let mut k = kernel();
        k.vmlinux.tracepoint("kvm_entry", &[k.vcpu_pointer, k.u64_type]);
        k.vmlinux.tracepoint("kvm_exit", &[k.vcpu_pointer, k.u32_type]);
        assert!(matches!(
            resolved(&k, &intel(&k, false), Vendor::Intel),
            Err(Refusal::UnknownArguments("kvm_entry", _))
        ));
        let k = kernel();
        assert!(matches!(resolved(&k, &intel(&k, false), Vendor::Intel), Err(Refusal::NoTracepoint("kvm_entry"))));
    }

    #[test]
    fn the_companion_patchs_tracepoints_are_recognised_by_their_arguments() {
        let mut k = kernel();
        k.vmlinux.tracepoint("kvm_entry", &[k.vcpu_pointer]);
        k.vmlinux.tracepoint("kvm_exit", &[k.vcpu_pointer, k.u32_type]);
        let mut patched = intel(&k, false);
        patched.tracepoint("kvm_vmcs_write", &[k.vcpu_pointer, k.u32_type, k.u64_type, k.u64_type, k.flag]);
        patched.tracepoint("kvm_preemption_timer_exit", &[k.vcpu_pointer, k.u32_type, k.u32_type]);
        let companion = resolved(&k, &patched, Vendor::Intel).unwrap().companion;
        assert_eq!(companion, Companion { vmcs_write: true, ..Companion::default() });
        for late in [None, Some(k.u64_type), Some(k.u32_type)] {
            let mut patched = intel(&k, false);
            let arguments = [Some(k.vcpu_pointer), Some(k.u32_type), Some(k.flag), late].into_iter().flatten();
            patched.tracepoint("kvm_preemption_timer_exit", &arguments.collect::<Vec<_>>());
            let layout = resolved(&k, &patched, Vendor::Intel).unwrap();
            let has_late = late == Some(k.u64_type);
            assert_eq!((layout.companion.timer_exit, layout.companion.timer_exit_late), (true, has_late));
            assert_eq!(layout.config.get(Slot::TimerExitHasLate), Some(has_late.into()));
        }
        assert_eq!(resolved(&k, &intel(&k, false), Vendor::Intel).unwrap().companion, Companion::default());
    }

    #[test]
    fn a_field_before_the_vcpu_is_missing() {
        let mut k = kernel();
        k.vmlinux.tracepoint("kvm_entry", &[k.vcpu_pointer, k.flag]);
        k.vmlinux.tracepoint("kvm_exit", &[k.vcpu_pointer, k.u32_type]);
        let mut module = Builder::split(&k.vmlinux);
        module.structure("vcpu_vmx", 4096, &[("exit_reason", k.u32_type, 0), ("vcpu", k.vcpu, 64)]);
        let layout = resolved(&k, &module, Vendor::Intel).unwrap();
        let is_missing = layout.missing.iter().any(|missing| missing.field == "vcpu_vmx.exit_reason");
        assert_eq!((layout.config.get(Slot::VmxExitReason), is_missing), (None, true));
    }

    #[test]
    fn a_missing_field_is_named_with_the_figures_that_are_lost() {
        let mut k = kernel();
        k.vmlinux.tracepoint("kvm_entry", &[k.vcpu_pointer]);
        k.vmlinux.tracepoint("kvm_exit", &[k.vcpu_pointer, k.u32_type]);
        let mut module = Builder::split(&k.vmlinux);
        let control = module.structure("vmcb_control_area", 128, &[("exit_code", k.u32_type, 0x70)]);
        module.structure("vmcb", 4096, &[("control", control, 0)]);
        module.structure("vcpu_svm", 4096, &[("vcpu", k.vcpu, 0)]);
        let layout = resolved(&k, &module, Vendor::Amd).unwrap();
        assert_eq!(layout.config.layout_isa(), Some(Isa::Svm));
        assert_eq!(layout.config.get(Slot::VmcbExitCode), Some(0x70));
        assert_eq!(layout.missing, [Missing { field: "vcpu_svm.vmcb".into(), lost: "exit reasons" }]);
    }
}
