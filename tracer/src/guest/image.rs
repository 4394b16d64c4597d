//! The layout of the guest's memory: its machine code (guest.S), descriptor tables, and the parameter block of each vCPU.

use core::arch::global_asm;

use anyhow::{Context, Result};

use super::deadline;
use super::hypervisor::{Stage, Steps};
use super::memory::Memory;
use super::vmcs;

/// Guest-physical address of the code, its descriptor tables included.
pub(crate) const LOAD: usize = 0x1000;
/// Guest-physical address of the page directory of hypervisors.
pub(crate) const PAGE_DIRECTORY: usize = 0x4000;
/// Guest-physical address of vCPU 0's pages. Each vCPU has three: the parameter block at the start of the first and the
/// stack at its end, then a hypervisor's VMXON region and its VMCS.
const VCPU_PAGES: usize = 0x5000;
const PAGES_PER_VCPU: usize = 3;
const PAGE_SIZE: usize = 0x1000;

/// Selector of the flat code segment in the guest's GDT.
pub(crate) const CODE_SELECTOR: u16 = 0x08;
/// Selector of the flat data segment in the guest's GDT.
pub(crate) const DATA_SELECTOR: u16 = 0x10;
/// The port that a scenario writes to as its work.
pub(crate) const WORK_PORT: u16 = 0x10;
/// Guest-physical address without memory that a scenario writes to as its work, above the largest guest.
pub(crate) const WORK_ADDRESS: u32 = 0xd000_0000;
/// The port that a guest writes to when it is done.
pub(crate) const END_PORT: u16 = 0xf4;
/// The vector of the guest's timers.
const TIMER_VECTOR: u8 = 0x40;
/// The vector for interrupts that user space injects past the local APIC: their handler writes no EOI.
pub(crate) const INJECTED_VECTOR: u8 = TIMER_VECTOR + 1;

// Offsets in the parameter block.
const PROGRAM: usize = 0x00;
const COUNT: usize = 0x04;
const DELTA: usize = 0x08;
const ITERATIONS: usize = 0x10;
const INTERRUPTS: usize = 0x14;
const NMIS: usize = 0x18;
const ROUND_TRIPS: usize = 0x1c;
const FIRST_TSC: usize = 0x20;
const LAST_TSC: usize = 0x28;
const STAGE: usize = 0x30;
const INSTRUCTION_ERROR: usize = 0x34;
const EXIT_REASON: usize = 0x38;
const VMXON_REGION: usize = 0x40;
const VMCS_REGION: usize = 0x48;
const FAR: usize = 0x50;
const ARMED_TSC: usize = 0x58;
const NOTICED_TSC: usize = 0x60;
const WAIT: usize = 0x68;
const FIELD_COUNT: usize = 0x6c;
const FIELDS: usize = 0x70;

global_asm!(
    include_str!("guest.S"),
    load = const LOAD,
    code_selector = const CODE_SELECTOR,
    work_port = const WORK_PORT,
    work_address = const WORK_ADDRESS,
    end_port = const END_PORT,
    timer_vector = const TIMER_VECTOR,
    program = const PROGRAM,
    count = const COUNT,
    delta = const DELTA,
    iterations = const ITERATIONS,
    interrupts = const INTERRUPTS,
    nmis = const NMIS,
    round_trips = const ROUND_TRIPS,
    most_cycles = const deadline::MOST_CYCLES,
    first_tsc = const FIRST_TSC,
    last_tsc = const LAST_TSC,
    stage = const STAGE,
    instruction_error = const INSTRUCTION_ERROR,
    exit_reason = const EXIT_REASON,
    far = const FAR,
    wait = const WAIT,
    armed_tsc = const ARMED_TSC,
    noticed_tsc = const NOTICED_TSC,
    vmxon_region = const VMXON_REGION,
    vmcs_region = const VMCS_REGION,
    field_count = const FIELD_COUNT,
    fields = const FIELDS,
    field_instruction_error = const vmcs::VM_INSTRUCTION_ERROR,
    field_exit_reason = const vmcs::EXIT_REASON,
    stage_vmxon = const Stage::Vmxon as u32,
    stage_vmclear = const Stage::Vmclear as u32,
    stage_vmptrld = const Stage::Vmptrld as u32,
    stage_vmwrite = const Stage::Vmwrite as u32,
    stage_vmlaunch = const Stage::Vmlaunch as u32,
    stage_vmresume = const Stage::Vmresume as u32,
    stage_vmread = const Stage::Vmread as u32,
    stage_l2_exit = const Stage::L2Exit as u32,
    options(att_syntax)
);

unsafe extern "C" {
    static vmentry_guest_start: u8;
    static vmentry_guest_gdt: u8;
    static vmentry_guest_idt: u8;
    static vmentry_guest_l2: u8;
    static vmentry_guest_l2_exit: u8;
    static vmentry_guest_end: u8;
}

/// The programs in guest.S, in the order of its jump table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExerciseProgram {
    /// Writes the work port.
    Out = 0,
    /// Executes CPUID.
    Cpuid = 1,
    /// Intel's hypercall instruction.
    Vmcall = 2,
    /// AMD's hypercall instruction.
    Vmmcall = 3,
    /// TSC-deadline timers, busy wait.
    TscDeadline = 4,
    /// Local APIC one-shot timers, busy wait.
    OneShot = 5,
    /// TSC-deadline timers, waited for in HLT.
    Hlt = 6,
    /// A loop without exits.
    Spin = 7,
    /// Writes the work port with interrupts on.
    Immediate = 8,
    /// Enters a guest of its own as a hypervisor.
    Nested = 9,
    /// The same with a TSC-deadline timer armed.
    NestedArmed = 10,
    /// Interrupts that are pending before the guest takes any.
    IrqWindow = 11,
    /// Loops of PAUSE.
    Pause = 12,
    /// Writes the work address.
    Mmio = 13,
    /// Writes CR4.
    Cr4 = 14,
    /// Writes DR0, with a CPUID after it.
    Dr0 = 15,
    /// Executes XSETBV.
    Xsetbv = 16,
    /// Shuts down, and ends if it has done so often enough.
    TripleFault = 17,
    /// Arms a far TSC-deadline timer, waits for a while, and disarms it.
    FarTimer = 18,
}

/// The distances of one far timer, in cycles of the guest's TSC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FarTimer {
    /// From arming to the deadline.
    pub(crate) far: u64,
    /// From arming until the guest disarms it, at most.
    pub(crate) wait: u32,
}

/// The work of one vCPU: the part of its parameter block that the guest reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameters {
    /// The program to run.
    pub(crate) program: ExerciseProgram,
    /// Iterations, at least 1.
    pub(crate) count: u32,
    /// TSC cycles, APIC timer ticks (ns in KVM) or loop iterations, as the program uses it; at least 1.
    pub(crate) delta: u32,
    /// Distance of timers in round trips, as the guest measures them; a `delta` that is shorter grows to it. 0 keeps `delta`.
    pub(crate) round_trips: u32,
}

/// The progress of one vCPU: the part of its parameter block that the guest writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GuestProgress {
    /// Completed iterations.
    pub(crate) iterations: u32,
    /// Timer interrupts, or injected ones, that the guest took.
    pub(crate) interrupts: u32,
    /// Non-maskable interrupts that the guest took.
    pub(crate) nmis: u32,
    /// Guest TSC at the first instruction, in cycles; 0 before it.
    pub(crate) first_tsc: u64,
    /// Guest TSC after the last iteration, in cycles; 0 before it.
    pub(crate) last_tsc: u64,
    /// The last step of a hypervisor; all 0 for other programs.
    pub(crate) steps: Steps,
}

/// A descriptor table in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// Guest-physical address.
    pub(crate) base: u32,
    /// Size in bytes, less 1.
    pub(crate) limit: u16,
}

/// Size in bytes of the memory of a guest with this many vCPUs.
pub(crate) fn memory_size(vcpus: u32) -> usize {
    parameter_block(vcpus)
}

/// Copies the code into the guest's memory.
pub(crate) fn load(memory: &Memory) -> Result<()> {
    let code = code();
    memory.write(LOAD, code).with_context(|| format!("load guest code: {} bytes", code.len()))
}

/// The guest's global descriptor table.
pub(crate) fn gdt() -> Table {
    Table { base: address(&raw const vmentry_guest_gdt), limit: 3 * 8 - 1 }
}

/// The guest's interrupt descriptor table.
pub(crate) fn idt() -> Table {
    Table { base: address(&raw const vmentry_guest_idt), limit: 256 * 8 - 1 }
}

/// Guest-physical address of the instruction that L2 executes.
pub(crate) fn l2() -> u32 {
    address(&raw const vmentry_guest_l2)
}

/// Guest-physical address at which L1 continues after an exit of L2.
pub(crate) fn l2_exit() -> u32 {
    address(&raw const vmentry_guest_l2_exit)
}

/// Guest-physical address of a vCPU's parameter block.
pub(crate) fn parameter_block(vcpu: u32) -> usize {
    VCPU_PAGES + vcpu as usize * PAGES_PER_VCPU * PAGE_SIZE
}

/// Guest-physical address of the end of a vCPU's stack.
pub(crate) fn stack(vcpu: u32) -> usize {
    parameter_block(vcpu) + PAGE_SIZE
}

/// Writes the work of a vCPU into its parameter block.
pub(crate) fn write_parameters(memory: &Memory, vcpu: u32, parameters: Parameters) -> Result<()> {
    let block = parameter_block(vcpu);
    memory.write_u32(block + PROGRAM, parameters.program as u32)?;
    memory.write_u32(block + COUNT, parameters.count)?;
    memory.write_u32(block + DELTA, parameters.delta)?;
    memory.write_u32(block + ROUND_TRIPS, parameters.round_trips)
}

/// Writes the distances of a vCPU's far timer.
pub(crate) fn write_far_timer(memory: &Memory, vcpu: u32, timer: FarTimer) -> Result<()> {
    let block = parameter_block(vcpu);
    memory.write(block + FAR, &timer.far.to_le_bytes())?;
    memory.write_u32(block + WAIT, timer.wait)
}

/// Reads the cycles from arming a vCPU's far timer until the guest noticed its interrupt, or gave up.
pub(crate) fn read_waited(memory: &Memory, vcpu: u32) -> Result<u64> {
    let block = parameter_block(vcpu);
    Ok(memory.read_u64(block + NOTICED_TSC)?.wrapping_sub(memory.read_u64(block + ARMED_TSC)?))
}

/// Forgets a vCPU's progress, before it runs again.
pub(crate) fn reset_progress(memory: &Memory, vcpu: u32) -> Result<()> {
    for counter in [ITERATIONS, INTERRUPTS, NMIS] {
        memory.write_u32(parameter_block(vcpu) + counter, 0)?;
    }
    Ok(())
}

/// Reads a vCPU's delta, which the guest may have raised.
pub(crate) fn read_delta(memory: &Memory, vcpu: u32) -> Result<u32> {
    memory.read_u32(parameter_block(vcpu) + DELTA)
}

/// Writes the page directory of hypervisors, which maps every address to itself.
pub(crate) fn write_page_directory(memory: &Memory) -> Result<()> {
    const PRESENT_WRITABLE_4_MIB: u32 = 1 << 0 | 1 << 1 | 1 << 7;
    for (at, page) in (PAGE_DIRECTORY..).step_by(4).zip(0..1024_u32) {
        memory.write_u32(at, page << 22 | PRESENT_WRITABLE_4_MIB)?;
    }
    Ok(())
}

/// Writes the VMXON and VMCS regions of a vCPU that is a hypervisor, which begin with the CPU's `revision` of their format, and
/// the encodings and values of its VMCS fields.
pub(crate) fn write_hypervisor(memory: &Memory, vcpu: u32, revision: u32, fields: &[(u32, u32)]) -> Result<()> {
    let block = parameter_block(vcpu);
    for (number, pointer) in (1..).zip([VMXON_REGION, VMCS_REGION]) {
        let region = block + number * PAGE_SIZE;
        memory.write_u32(region, revision)?;
        memory.write(block + pointer, &(region as u64).to_le_bytes())?;
    }
    memory.write_u32(block + FIELD_COUNT, u32::try_from(fields.len())?)?;
    for (at, (field, value)) in (block + FIELDS..).step_by(8).zip(fields) {
        memory.write_u32(at, *field)?;
        memory.write_u32(at + 4, *value)?;
    }
    Ok(())
}

/// Reads the progress of a vCPU, which may be running.
pub(crate) fn read_progress(memory: &Memory, vcpu: u32) -> Result<GuestProgress> {
    let block = parameter_block(vcpu);
    Ok(GuestProgress {
        iterations: memory.read_u32(block + ITERATIONS)?,
        interrupts: memory.read_u32(block + INTERRUPTS)?,
        nmis: memory.read_u32(block + NMIS)?,
        first_tsc: memory.read_u64(block + FIRST_TSC)?,
        last_tsc: memory.read_u64(block + LAST_TSC)?,
        steps: Steps {
            stage: memory.read_u32(block + STAGE)?,
            instruction_error: memory.read_u32(block + INSTRUCTION_ERROR)?,
            exit_reason: memory.read_u32(block + EXIT_REASON)?,
        },
    })
}

fn code() -> &'static [u8] {
    let start = &raw const vmentry_guest_start;
    let len = (&raw const vmentry_guest_end).addr() - start.addr();
    // SAFETY: guest.S defines both symbols in one read-only section, the end after the start, so `len` bytes from `start` are
    // initialized, belong to one object and never change.
    unsafe { core::slice::from_raw_parts(start, len) }
}

/// The guest-physical address of a symbol of guest.S.
fn address(symbol: *const u8) -> u32 {
    let address = LOAD + symbol.addr() - (&raw const vmentry_guest_start).addr();
    #[expect(clippy::cast_possible_truncation, reason = "a test holds the code below the page directory, at 16 KiB")]
    let address = address as u32;
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_ends_below_the_page_directory() {
        assert!(LOAD + code().len() <= PAGE_DIRECTORY);
        assert_eq!(
            idt().base as usize + usize::from(idt().limit) + 1,
            LOAD + code().len(),
            "the interrupt descriptor table ends the code and has 256 gates"
        );
    }

    #[test]
    fn the_code_begins_by_stamping_the_tsc() {
        assert_eq!(&code()[..2], &[0x0f, 0x31]);
    }

    #[test]
    fn gates_of_the_vectors_in_use_point_into_the_code_and_no_other_vector_has_one() {
        let code = code();
        let idt = idt().base as usize - LOAD;
        for vector in 0..256 {
            let gate = &code[idt + 8 * vector..][..8];
            let used = [2, 0x40, usize::from(INJECTED_VECTOR), 0xff].contains(&vector);
            if used {
                let handler = usize::from(u16::from_le_bytes([gate[0], gate[1]]));
                assert!((LOAD..LOAD + idt).contains(&handler), "vector {vector:#x}");
                assert_eq!(&gate[2..], &[8, 0, 0, 0x8e, 0, 0], "vector {vector:#x}");
            } else {
                assert_eq!(gate, &[0; 8], "vector {vector:#x}");
            }
        }
    }

    #[test]
    fn progress_is_read_from_the_block_of_the_vcpu() {
        let memory = Memory::new(memory_size(2)).unwrap();
        let block = parameter_block(1);
        memory.write_u32(block + ITERATIONS, 7).unwrap();
        memory.write_u32(block + FIRST_TSC + 4, 1).unwrap();
        let progress = read_progress(&memory, 1).unwrap();
        assert_eq!((progress.iterations, progress.first_tsc), (7, 1 << 32));
        assert_eq!(read_progress(&memory, 0).unwrap(), GuestProgress::default());
    }

    #[test]
    fn the_last_vcpus_regions_end_with_the_memory() {
        assert_eq!(stack(2) + 2 * PAGE_SIZE, memory_size(3));
    }

    #[test]
    fn each_hypervisor_has_regions_and_fields_of_its_own() {
        let memory = Memory::new(memory_size(2)).unwrap();
        write_hypervisor(&memory, 1, 0x12, &[(0x4000, 0x16), (0x6c14, 7)]).unwrap();
        let block = parameter_block(1);
        let regions = [VMXON_REGION, VMCS_REGION]
            .map(|pointer| usize::try_from(memory.read_u64(block + pointer).unwrap()).unwrap());
        assert_eq!(regions, [stack(1), stack(1) + PAGE_SIZE]);
        assert_eq!(regions.map(|region| memory.read_u32(region).unwrap()), [0x12, 0x12]);
        let list = [0, 4, 8, 12, 16].map(|at| memory.read_u32(block + FIELD_COUNT + at).unwrap());
        assert_eq!(list, [2, 0x4000, 0x16, 0x6c14, 7]);
        assert_eq!(memory.read_u32(parameter_block(0) + FIELD_COUNT).unwrap(), 0);
    }

    #[test]
    fn the_page_directory_maps_every_address_to_itself() {
        let memory = Memory::new(memory_size(1)).unwrap();
        write_page_directory(&memory).unwrap();
        let entry = |address: usize| memory.read_u32(PAGE_DIRECTORY + 4 * (address >> 22)).unwrap();
        assert_eq!([entry(LOAD), entry(0xfee0_0000)], [0x83, 0xfec0_0083]);
    }

    #[test]
    fn l2_is_one_vmcall() {
        assert_eq!(&code()[l2() as usize - LOAD..][..3], &[0x0f, 0x01, 0xc1]);
    }
}
