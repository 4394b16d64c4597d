//! The calibration guest: one vCPU in 64-bit mode with the host's TSC, which runs the programs in calibration.S.

use core::arch::global_asm;
use core::ops::RangeInclusive;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail, ensure};
use kvm_bindings::{
    KVM_MP_STATE_RUNNABLE, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, kvm_device_attr, kvm_mp_state, kvm_regs,
};
use kvm_ioctls::VcpuFd;

use super::image::{CODE_SELECTOR, DATA_SELECTOR, END_PORT, Table, WORK_PORT};
use super::intervention::Intervention;
use super::machine::{self, CR0_EXTENSION_TYPE, CR0_PROTECTED_MODE, Machine, RFLAGS_RESERVED, flat_segment};
use super::memory::Memory;
use super::vcpu::{self, End};
use crate::host::clock::tsc;

const LOAD: usize = 0x1000;
const PAGE_TABLES: usize = 0x5000;
const PARAMETERS: usize = 0x8000;
const STACK: usize = 0xa000;
const LIST: usize = 0x10000;
const PAGE_SIZE: usize = 0x1000;
const TIMER_VECTOR: u8 = 0x40;

/// Round trips that one run can list, in 4 MiB of memory.
pub(crate) const MAX_ROUND_TRIPS: usize = 1 << 20;

/// "vmentry", so that no other value of R11 is taken for a mark.
const MAGIC: u64 = u64::from_be_bytes(*b"\0vmentry");

// Offsets in the parameter block.
const PROGRAM: usize = 0x00;
const COUNT: usize = 0x04;
const DELTA: usize = 0x08;
const WORK: usize = 0x0c;
const FAR: usize = 0x10;
const PARAMETER_MAGIC: usize = 0x18;
const PARAMETER_LIST: usize = 0x20;
const LIST_BYTES: usize = 0x24;
const FIRST_TSC: usize = 0x30;
const LAST_TSC: usize = 0x38;
const DONE: usize = 0x40;

global_asm!(
    include_str!("calibration.S"),
    load = const LOAD,
    code_selector = const CODE_SELECTOR,
    work_port = const WORK_PORT,
    end_port = const END_PORT,
    timer_vector = const TIMER_VECTOR,
    program = const PROGRAM,
    count = const COUNT,
    delta = const DELTA,
    work = const WORK,
    far = const FAR,
    magic = const PARAMETER_MAGIC,
    list = const PARAMETER_LIST,
    list_bytes = const LIST_BYTES,
    first_tsc = const FIRST_TSC,
    last_tsc = const LAST_TSC,
    done = const DONE,
    step_measured = const Step::Measured as u8,
    step_debug = const Step::Debug as u8,
    step_after = const Step::After as u8,
    step_arm = const Step::Arm as u8,
    step_cancel = const Step::Cancel as u8,
    options(att_syntax)
);

unsafe extern "C" {
    static vmentry_calibration_start: u8;
    static vmentry_calibration_gdt: u8;
    static vmentry_calibration_idt: u8;
    static vmentry_calibration_end: u8;
}

/// The programs in calibration.S, in the order of its table. The guest repeats one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CalibrationProgram {
    /// CPUID
    Cpuid = 0,
    /// Intel's hypercall
    Vmcall = 1,
    /// AMD's hypercall
    Vmmcall = 2,
    /// a port write, handled by user space
    Out = 3,
    /// RDMSR of IA32_TSC_ADJUST
    Msr = 4,
    /// HLT until a timer's interrupt
    Hlt = 5,
    /// a busy wait for a timer's interrupt
    TscDeadline = 6,
    /// VM entries with a forced immediate exit
    Immediate = 7,
    /// an access to a debug register, then three CPUIDs
    Debug = 8,
    /// arms a timer, CPUID, cancels the timer, CPUID
    Toggle = 9,
}

impl CalibrationProgram {
    /// Round trips that each iteration lists.
    pub(crate) const fn listed(self) -> usize {
        match self {
            Self::Debug => 3,
            Self::Toggle => 4,
            Self::Immediate => 0,
            _ => 1,
        }
    }
}

/// The instruction that exited, as R11 marks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum Step {
    /// the exit that the program is for
    Measured = 1,
    /// the access to a debug register
    Debug = 2,
    /// arming the timer
    Arm = 3,
    /// cancelling the timer
    Cancel = 4,
    /// the first CPUID after an access to a debug register or a timer
    After = 8,
    /// the second CPUID
    After2 = 9,
    /// the third CPUID
    After3 = 10,
}

impl Step {
    /// Decodes R11; none if the exit is no sample, or if this is another guest.
    pub(crate) fn from_mark(mark: u64) -> Option<Self> {
        let all = [Self::Measured, Self::Debug, Self::Arm, Self::Cancel, Self::After, Self::After2, Self::After3];
        all.into_iter().find(|step| mark == MAGIC << 8 | *step as u64)
    }
}

/// The work of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GuestTask {
    /// the program to repeat
    pub(crate) program: CalibrationProgram,
    /// iterations, at least 1
    pub(crate) count: u32,
    /// loop instructions between two stamps
    pub(crate) work: u32,
    /// TSC cycles until the timers of `Hlt` and `TscDeadline`
    pub(crate) delta: u32,
    /// TSC cycles until the timers of `Toggle`, which are cancelled before
    pub(crate) far: u64,
}

/// The stamps of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TaskResult {
    /// TSC cycles from the last stamp before each exit to the first one after it, in the order of the exits; 0 if there was no exit
    pub(crate) round_trips: Vec<u32>,
    /// TSC before the first iteration
    pub(crate) first_tsc: u64,
    /// TSC after the last iteration
    pub(crate) last_tsc: u64,
}

/// The machine, with its one vCPU.
pub(crate) struct CalibrationGuest {
    machine: Machine,
}

impl CalibrationGuest {
    /// Creates the machine and sets its TSC to the host's.
    pub(crate) fn new() -> Result<Self> {
        let kvm = machine::open_kvm()?;
        let memory = Memory::new(LIST + 4 * MAX_ROUND_TRIPS)?;
        let code = code();
        memory.write(LOAD, code).with_context(|| format!("load guest code: {} bytes", code.len()))?;
        write_page_tables(&memory)?;
        let machine = Machine::with(&kvm, memory, 1, start_in_64_bit_mode)?;
        set_tsc_offset_to_zero(&machine.vcpus[0])?;
        Ok(Self { machine })
    }

    /// The guest's TSC frequency according to KVM, in kHz.
    pub(crate) fn tsc_khz(&self) -> Result<u32> {
        self.machine.vcpus[0].get_tsc_khz().context("ask KVM for the guest's TSC frequency")
    }

    /// Runs the guest in this thread until it is done. Fails if `stop` is set before.
    pub(crate) fn run(&mut self, task: &GuestTask, stop: &AtomicBool) -> Result<TaskResult> {
        let listed = task.count as usize * task.program.listed();
        ensure!(listed <= MAX_ROUND_TRIPS, "list {listed} round trips: at most {MAX_ROUND_TRIPS} fit");
        self.write_task(task, listed)?;
        let vcpu = &mut self.machine.vcpus[0];
        start_in_64_bit_mode(vcpu, 0)?;
        vcpu.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE }).context("make the vCPU runnable")?;
        let intervention = match task.program {
            CalibrationProgram::Immediate => Intervention::ForceImmediateExit,
            _ => Intervention::None,
        };
        let before = tsc();
        match vcpu::run_to_end(vcpu, 0, intervention, stop)? {
            End::Done(_) => {}
            End::Stopped { location } => bail!("stopped at {location}"),
        }
        self.read_result(task, listed, before..=tsc())
    }

    /// Writes the parameter block for a run that lists `listed` round trips.
    fn write_task(&self, task: &GuestTask, listed: usize) -> Result<()> {
        let memory = &self.machine.memory;
        let pages = (4 * listed).div_ceil(PAGE_SIZE).max(1);
        for (at, word) in [
            (PROGRAM, task.program as u32),
            (COUNT, task.count),
            (DELTA, task.delta),
            (WORK, task.work),
            (PARAMETER_LIST, u32::try_from(LIST)?),
            (LIST_BYTES, u32::try_from(pages * PAGE_SIZE)?),
            (DONE, 0),
        ] {
            memory.write_u32(PARAMETERS + at, word)?;
        }
        memory.write(PARAMETERS + FAR, &task.far.to_le_bytes())?;
        memory.write(PARAMETERS + PARAMETER_MAGIC, &(MAGIC << 8).to_le_bytes())
    }

    /// Reads the stamps of a run that took place within `host_tsc`.
    fn read_result(&self, task: &GuestTask, listed: usize, host_tsc: RangeInclusive<u64>) -> Result<TaskResult> {
        let memory = &self.machine.memory;
        let done = memory.read_u32(PARAMETERS + DONE)?;
        ensure!(done == task.count, "guest did {done} of {} iterations", task.count);
        let (first_tsc, last_tsc) = (memory.read_u64(PARAMETERS + FIRST_TSC)?, memory.read_u64(PARAMETERS + LAST_TSC)?);
        ensure!(
            *host_tsc.start() <= first_tsc && first_tsc <= last_tsc && last_tsc <= *host_tsc.end(),
            "compare the guest's TSC, {first_tsc} to {last_tsc}, with the host's, {} to {}: this KVM scales or shifts the guest's \
             TSC",
            host_tsc.start(),
            host_tsc.end()
        );
        let round_trips = (0..listed).map(|n| memory.read_u32(LIST + 4 * n)).collect::<Result<_>>()?;
        Ok(TaskResult { round_trips, first_tsc, last_tsc })
    }
}

/// Sets the vCPU's TSC to the host's (KVM_VCPU_TSC_OFFSET, Linux 5.16 and later).
fn set_tsc_offset_to_zero(vcpu: &VcpuFd) -> Result<()> {
    use std::os::fd::AsRawFd;
    /// _IOW(KVMIO, 0xe1, struct kvm_device_attr)
    const KVM_SET_DEVICE_ATTR: libc::c_ulong = 0x4018_aee1;
    let offset = 0_u64;
    let attribute = kvm_device_attr {
        flags: 0,
        group: KVM_VCPU_TSC_CTRL,
        attr: u64::from(KVM_VCPU_TSC_OFFSET),
        addr: (&raw const offset).addr() as u64,
    };
    // kvm-ioctls has set_device_attr of vCPUs for aarch64 only.
    // SAFETY: the descriptor belongs to `vcpu` and is open. KVM_SET_DEVICE_ATTR only reads: a kvm_device_attr, and for this
    // attribute the u64 at `addr`; both are locals that live until the call returns.
    let failed = unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_SET_DEVICE_ATTR, &raw const attribute) } != 0;
    if failed {
        return Err(std::io::Error::last_os_error()).context(
            "set the guest's TSC offset to 0 (KVM_VCPU_TSC_OFFSET): this needs Linux 5.16 or later and a stable host TSC",
        );
    }
    Ok(())
}

/// Writes page tables that map the first GiB to itself with 2 MiB pages.
fn write_page_tables(memory: &Memory) -> Result<()> {
    const PRESENT_WRITABLE: u64 = 0b11;
    const LARGE: u64 = 1 << 7;
    let [pml4, pdpt, directory] = [0, 1, 2].map(|n| PAGE_TABLES + n * PAGE_SIZE);
    memory.write(pml4, &(pdpt as u64 | PRESENT_WRITABLE).to_le_bytes())?;
    memory.write(pdpt, &(directory as u64 | PRESENT_WRITABLE).to_le_bytes())?;
    for (at, page) in (directory..).step_by(8).zip(0..512_u64) {
        memory.write(at, &(page << 21 | PRESENT_WRITABLE | LARGE).to_le_bytes())?;
    }
    Ok(())
}

fn start_in_64_bit_mode(vcpu: &VcpuFd, _id: u32) -> Result<()> {
    const CR0_PAGING: u64 = 1 << 31;
    const CR4_PHYSICAL_ADDRESS_EXTENSION: u64 = 1 << 5;
    const EFER_LONG_MODE_ENABLED_AND_ACTIVE: u64 = 1 << 8 | 1 << 10;
    const APIC_BASE_X2APIC_ENABLED: u64 = 1 << 10 | 1 << 11;
    let mut sregs = vcpu.get_sregs().context("get system registers")?;
    sregs.cs = flat_segment(CODE_SELECTOR, 0xb);
    (sregs.cs.l, sregs.cs.db) = (1, 0);
    let data = flat_segment(DATA_SELECTOR, 0x3);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.cr0 = CR0_PROTECTED_MODE | CR0_EXTENSION_TYPE | CR0_PAGING;
    sregs.cr3 = PAGE_TABLES as u64;
    sregs.cr4 = CR4_PHYSICAL_ADDRESS_EXTENSION;
    sregs.efer = EFER_LONG_MODE_ENABLED_AND_ACTIVE;
    sregs.apic_base |= APIC_BASE_X2APIC_ENABLED;
    (sregs.gdt.base, sregs.gdt.limit) = (gdt().base.into(), gdt().limit);
    (sregs.idt.base, sregs.idt.limit) = (idt().base.into(), idt().limit);
    vcpu.set_sregs(&sregs).context("set system registers")?;
    let (rip, rsp, rbp) = (LOAD as u64, STACK as u64, PARAMETERS as u64);
    vcpu.set_regs(&kvm_regs { rip, rsp, rbp, rflags: RFLAGS_RESERVED, ..Default::default() }).context("set registers")
}

fn gdt() -> Table {
    Table { base: address(&raw const vmentry_calibration_gdt), limit: 3 * 8 - 1 }
}

fn idt() -> Table {
    Table { base: address(&raw const vmentry_calibration_idt), limit: 256 * 16 - 1 }
}

fn code() -> &'static [u8] {
    let start = &raw const vmentry_calibration_start;
    let len = (&raw const vmentry_calibration_end).addr() - start.addr();
    // SAFETY: calibration.S defines both symbols in one read-only section, the end after the start, so `len` bytes from `start`
    // are initialized, belong to one object and never change.
    unsafe { core::slice::from_raw_parts(start, len) }
}

/// The guest-physical address of a symbol of calibration.S.
fn address(symbol: *const u8) -> u32 {
    let address = LOAD + symbol.addr() - (&raw const vmentry_calibration_start).addr();
    #[expect(clippy::cast_possible_truncation, reason = "a test holds the code below the page tables, at 20 KiB")]
    let address = address as u32;
    address
}

#[cfg(test)]
mod tests {
    use super::super::image::INJECTED_VECTOR;
    use super::*;

    #[test]
    fn the_code_ends_below_the_page_tables() {
        assert!(LOAD + code().len() <= PAGE_TABLES);
        assert_eq!(idt().base as usize + usize::from(idt().limit) + 1, LOAD + code().len());
    }

    #[test]
    fn gates_of_the_vectors_in_use_point_into_the_code_and_no_other_vector_has_one() {
        let code = code();
        let idt = idt().base as usize - LOAD;
        for vector in 0..256 {
            let gate = &code[idt + 16 * vector..][..16];
            let used = [2, usize::from(TIMER_VECTOR), usize::from(INJECTED_VECTOR), 0xff].contains(&vector);
            if used {
                let handler = usize::from(u16::from_le_bytes([gate[0], gate[1]]));
                assert!((LOAD..LOAD + idt).contains(&handler), "vector {vector:#x}");
                assert_eq!(&gate[2..], &[8, 0, 0, 0x8e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "vector {vector:#x}");
            } else {
                assert_eq!(gate, &[0; 16], "vector {vector:#x}");
            }
        }
    }

    #[test]
    fn the_timer_handler_begins_with_its_stamp() {
        let idt = idt().base as usize - LOAD;
        let gate = &code()[idt + 16 * usize::from(TIMER_VECTOR)..];
        let handler = usize::from(u16::from_le_bytes([gate[0], gate[1]])) - LOAD;
        assert_eq!(&code()[handler..][..2], &[0x0f, 0x31]);
    }

    #[test]
    fn a_mark_without_the_magic_belongs_to_another_guest() {
        assert_eq!(Step::from_mark(MAGIC << 8 | 8), Some(Step::After));
        assert_eq!(Step::from_mark(8), None);
        assert_eq!(Step::from_mark(0), None);
        assert_eq!(Step::from_mark(MAGIC << 8), None);
    }
}
