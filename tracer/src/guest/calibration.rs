//! The calibration guest: one vCPU in 64-bit mode whose TSC is the host's, running calibration.S, round after round.

use core::arch::global_asm;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail, ensure};
use kvm_bindings::{
    KVM_MP_STATE_RUNNABLE, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, kvm_device_attr, kvm_mp_state, kvm_regs,
};
use kvm_ioctls::VcpuFd;

use super::image::{CODE_SELECTOR, DATA_SELECTOR, END_PORT, Table, WORK_PORT};
use super::machine::{self, CR0_EXTENSION_TYPE, CR0_PROTECTED_MODE, Machine, RFLAGS_RESERVED, flat_segment};
use super::memory::Memory;
use super::vcpu::{self, AtPortWrite, End};
use crate::host::clock::tsc;

const LOAD: usize = 0x1000;
const PAGE_TABLES: usize = 0x5000;
const PARAMETERS: usize = 0x8000;
const STACK: usize = 0xa000;
const LIST: usize = 0x10000;
const PAGE_SIZE: usize = 0x1000;
const TIMER_VECTOR: u8 = 0x40;

/// Round trips that one run can list: 4 MiB of memory.
pub const MAX_ROUND_TRIPS: usize = 1 << 20;

/// "vmentry", so that nothing else is taken for a stamp.
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

/// What the guest does over and over, in the order of the table in calibration.S.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// CPUID
    Cpuid = 0,
    /// Intel's hypercall
    Vmcall = 1,
    /// AMD's hypercall
    Vmmcall = 2,
    /// a port write, which user space handles
    Out = 3,
    /// RDMSR of IA32_TSC_ADJUST
    Msr = 4,
    /// HLT until a timer comes
    Hlt = 5,
    /// a busy wait for a timer
    TscDeadline = 6,
    /// entries that KVM forces to exit at once
    Immediate = 7,
    /// a debug register, then three CPUIDs
    Debug = 8,
    /// a timer armed, a CPUID, the timer cancelled, a CPUID
    Toggle = 9,
}

impl Program {
    /// Round trips that an iteration lists.
    pub const fn listed(self) -> usize {
        match self {
            Self::Debug => 3,
            Self::Toggle => 4,
            Self::Immediate => 0,
            _ => 1,
        }
    }
}

/// What the guest was doing at an exit, in R11.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Step {
    /// the exit that its program is about
    Measured = 1,
    /// the access to a debug register
    Debug = 2,
    /// arming the timer
    Arm = 3,
    /// cancelling it
    Cancel = 4,
    /// the first CPUID after one of these
    After = 8,
    /// the second
    After2 = 9,
    /// the third
    After3 = 10,
}

impl Step {
    /// From R11; none where the guest's exit is no sample, or the guest is another.
    pub fn from_mark(mark: u64) -> Option<Self> {
        let all = [Self::Measured, Self::Debug, Self::Arm, Self::Cancel, Self::After, Self::After2, Self::After3];
        all.into_iter().find(|step| mark == MAGIC << 8 | *step as u64)
    }
}

/// One run of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// what to do
    pub program: Program,
    /// how often, at least 1
    pub count: u32,
    /// loop instructions between two stamps
    pub work: u32,
    /// TSC cycles until the timers of `Hlt` and `TscDeadline`
    pub delta: u32,
    /// TSC cycles until the timers of `Toggle`, which never come
    pub far: u64,
}

/// What a run showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// TSC cycles from the stamp before each exit to the first one after it, in the order of the exits; 0 where there was none
    pub round_trips: Vec<u32>,
    /// TSC before the first iteration
    pub first_tsc: u64,
    /// TSC after the last
    pub last_tsc: u64,
}

/// The machine, with its one vCPU.
pub struct Guest {
    machine: Machine,
}

impl Guest {
    /// Makes the machine and gives its guest the host's TSC.
    pub fn new() -> Result<Self> {
        let kvm = machine::open_kvm()?;
        let memory = Memory::new(LIST + 4 * MAX_ROUND_TRIPS)?;
        let code = code();
        memory.write(LOAD, code).with_context(|| format!("load guest code: {} bytes", code.len()))?;
        write_page_tables(&memory)?;
        let machine = Machine::with(&kvm, memory, 1, start_in_64_bit_mode)?;
        set_tsc_offset_to_zero(&machine.vcpus[0])?;
        Ok(Self { machine })
    }

    /// The guest's TSC frequency, as KVM has it, kHz.
    pub fn tsc_khz(&self) -> Result<u32> {
        self.machine.vcpus[0].get_tsc_khz().context("ask KVM for the guest's TSC frequency")
    }

    /// Runs the guest in this thread until it is done; an error when `stop` is set meanwhile.
    pub fn run(&mut self, task: &Task, stop: &AtomicBool) -> Result<Done> {
        let listed = task.count as usize * task.program.listed();
        ensure!(listed <= MAX_ROUND_TRIPS, "list {listed} round trips: {MAX_ROUND_TRIPS} have room");
        let memory = &self.machine.memory;
        let pages = (4 * listed).div_ceil(PAGE_SIZE).max(1);
        for (at, word) in [
            (PROGRAM, task.program as u32),
            (COUNT, task.count),
            (DELTA, task.delta),
            (WORK, task.work),
            (PARAMETER_LIST, LIST as u32),
            (LIST_BYTES, (pages * PAGE_SIZE) as u32),
            (DONE, 0),
        ] {
            memory.write_u32(PARAMETERS + at, word)?;
        }
        memory.write(PARAMETERS + FAR, &task.far.to_le_bytes())?;
        memory.write(PARAMETERS + PARAMETER_MAGIC, &(MAGIC << 8).to_le_bytes())?;

        let vcpu = &mut self.machine.vcpus[0];
        start_in_64_bit_mode(vcpu, 0)?;
        vcpu.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE }).context("make the vCPU runnable")?;
        let at_port_write = match task.program {
            Program::Immediate => AtPortWrite::ForceImmediateExit,
            _ => AtPortWrite::Continue,
        };
        let before = tsc();
        match vcpu::run_to_end(vcpu, at_port_write, stop)? {
            End::Done(_) => {}
            End::Stopped { location } => bail!("stopped at {location}"),
        }
        let after = tsc();
        let memory = &self.machine.memory;
        let done = memory.read_u32(PARAMETERS + DONE)?;
        ensure!(done == task.count, "the guest did {done} of {} iterations", task.count);
        let (first_tsc, last_tsc) = (memory.read_u64(PARAMETERS + FIRST_TSC)?, memory.read_u64(PARAMETERS + LAST_TSC)?);
        ensure!(
            before <= first_tsc && first_tsc <= last_tsc && last_tsc <= after,
            "the guest's TSC went from {first_tsc} to {last_tsc} while the host's went from {before} to {after}: this KVM scales \
             or shifts the guest's TSC"
        );
        let round_trips = (0..listed).map(|n| memory.read_u32(LIST + 4 * n)).collect::<Result<_>>()?;
        Ok(Done { round_trips, first_tsc, last_tsc })
    }
}

/// Gives the vCPU the host's TSC (KVM_VCPU_TSC_OFFSET, Linux 5.16).
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
    // SAFETY: the descriptor is a vCPU's, the attribute and the offset that it points to live until the call returns.
    let failed = unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_SET_DEVICE_ATTR, &raw const attribute) } != 0;
    if failed {
        return Err(std::io::Error::last_os_error()).context(
            "set the guest's TSC offset to 0 (KVM_VCPU_TSC_OFFSET): Linux 5.16 or later can, where the host's TSC is stable",
        );
    }
    Ok(())
}

/// Maps the first GiB to itself, by 2 MiB pages.
fn write_page_tables(memory: &Memory) -> Result<()> {
    const PRESENT_WRITABLE: u64 = 0b11;
    const LARGE: u64 = 1 << 7;
    let [pml4, pdpt, directory] = [0, 1, 2].map(|n| PAGE_TABLES + n * PAGE_SIZE);
    memory.write(pml4, &(pdpt as u64 | PRESENT_WRITABLE).to_le_bytes())?;
    memory.write(pdpt, &(directory as u64 | PRESENT_WRITABLE).to_le_bytes())?;
    for n in 0..512 {
        memory.write(directory + 8 * n, &((n as u64) << 21 | PRESENT_WRITABLE | LARGE).to_le_bytes())?;
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
    (sregs.gdt.base, sregs.gdt.limit) = (gdt().base, gdt().limit);
    (sregs.idt.base, sregs.idt.limit) = (idt().base, idt().limit);
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
    // SAFETY: calibration.S defines both symbols around one run of read-only bytes, the start before the end.
    unsafe { core::slice::from_raw_parts(start, len) }
}

/// The guest-physical address of a symbol of calibration.S.
fn address(symbol: *const u8) -> u64 {
    (LOAD + symbol.addr() - (&raw const vmentry_calibration_start).addr()) as u64
}

#[cfg(test)]
mod tests {
    use super::super::image::INJECTED_VECTOR;
    use super::*;

    #[test]
    fn the_code_ends_below_the_page_tables() {
        assert!(LOAD + code().len() <= PAGE_TABLES);
        assert_eq!(idt().base + u64::from(idt().limit) + 1, (LOAD + code().len()) as u64);
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
    fn the_timers_handler_begins_with_its_stamp() {
        let idt = idt().base as usize - LOAD;
        let gate = &code()[idt + 16 * usize::from(TIMER_VECTOR)..];
        let handler = usize::from(u16::from_le_bytes([gate[0], gate[1]])) - LOAD;
        assert_eq!(&code()[handler..][..2], &[0x0f, 0x31]);
    }

    #[test]
    fn a_mark_is_the_guests_only_with_its_magic() {
        assert_eq!(Step::from_mark(MAGIC << 8 | 8), Some(Step::After));
        assert_eq!(Step::from_mark(8), None);
        assert_eq!(Step::from_mark(0), None);
        assert_eq!(Step::from_mark(MAGIC << 8), None);
    }
}
