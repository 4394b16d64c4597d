//! The guest's memory: its machine code (guest.S), where everything lies, and the parameter block of each vCPU.

use core::arch::global_asm;

use anyhow::{Context, Result};

use super::memory::Memory;

/// Guest-physical address of the code, its descriptor tables included.
pub const LOAD: usize = 0x1000;
/// Guest-physical address of vCPU 0's page; each vCPU has one: the parameter block at its start, the stack at its end.
const VCPU_PAGES: usize = 0x4000;
const PAGE_SIZE: usize = 0x1000;

/// Selector of the flat code segment in the guest's GDT.
pub const CODE_SELECTOR: u16 = 0x08;
/// Selector of the flat data segment in the guest's GDT.
pub const DATA_SELECTOR: u16 = 0x10;
/// The port that a scenario writes to as its work.
pub const WORK_PORT: u16 = 0x10;
/// The port that a guest writes to when it is done.
pub const END_PORT: u16 = 0xf4;
/// The vector of the guest's timers.
const TIMER_VECTOR: u8 = 0x40;
/// The vector for interrupts that user space injects past the local APIC: their handler writes no EOI.
pub const INJECTED_VECTOR: u8 = TIMER_VECTOR + 1;

// Offsets in the parameter block.
const PROGRAM: usize = 0x00;
const COUNT: usize = 0x04;
const DELTA: usize = 0x08;
const ITERATIONS: usize = 0x10;
const INTERRUPTS: usize = 0x14;
const NMIS: usize = 0x18;
const FIRST_TSC: usize = 0x20;
const LAST_TSC: usize = 0x28;

global_asm!(
    include_str!("guest.S"),
    load = const LOAD,
    code_selector = const CODE_SELECTOR,
    work_port = const WORK_PORT,
    end_port = const END_PORT,
    timer_vector = const TIMER_VECTOR,
    program = const PROGRAM,
    count = const COUNT,
    delta = const DELTA,
    iterations = const ITERATIONS,
    interrupts = const INTERRUPTS,
    nmis = const NMIS,
    first_tsc = const FIRST_TSC,
    last_tsc = const LAST_TSC,
    options(att_syntax)
);

unsafe extern "C" {
    static vmentry_guest_start: u8;
    static vmentry_guest_gdt: u8;
    static vmentry_guest_idt: u8;
    static vmentry_guest_end: u8;
}

/// The guest's machine code, in the order of the jump table in guest.S.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
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
}

/// What one vCPU is to do: the part of its parameter block that the guest reads.
#[derive(Clone, Copy, Debug)]
pub struct Parameters {
    /// Which code to run.
    pub program: Program,
    /// Iterations, at least 1.
    pub count: u32,
    /// In the program's own unit: TSC cycles, APIC timer ticks or loop iterations; at least 1.
    pub delta: u32,
}

/// What one vCPU has done: the part of its parameter block that the guest writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Iterations completed.
    pub iterations: u32,
    /// Timer or injected interrupts taken.
    pub interrupts: u32,
    /// Non-maskable interrupts taken.
    pub nmis: u32,
    /// Guest TSC at the first instruction, in cycles; 0 before it.
    pub first_tsc: u64,
    /// Guest TSC after the last iteration, in cycles; 0 before it.
    pub last_tsc: u64,
}

/// A descriptor table in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Guest-physical address.
    pub base: u64,
    /// Size in bytes, less 1.
    pub limit: u16,
}

/// Size in bytes of the memory for a guest of so many vCPUs.
pub fn memory_size(vcpus: u32) -> usize {
    VCPU_PAGES + vcpus as usize * PAGE_SIZE
}

/// Puts the code into the guest's memory.
pub fn load(memory: &Memory) -> Result<()> {
    let code = code();
    memory.write(LOAD, code).with_context(|| format!("load guest code: {} bytes", code.len()))
}

/// The guest's global descriptor table.
pub fn gdt() -> Table {
    Table { base: address(&raw const vmentry_guest_gdt), limit: 3 * 8 - 1 }
}

/// The guest's interrupt descriptor table.
pub fn idt() -> Table {
    Table { base: address(&raw const vmentry_guest_idt), limit: 256 * 8 - 1 }
}

/// Guest-physical address of a vCPU's parameter block.
pub fn parameter_block(vcpu: u32) -> usize {
    VCPU_PAGES + vcpu as usize * PAGE_SIZE
}

/// Guest-physical address of the end of a vCPU's stack.
pub fn stack(vcpu: u32) -> usize {
    parameter_block(vcpu) + PAGE_SIZE
}

/// Tells a vCPU what to do.
pub fn write_parameters(memory: &Memory, vcpu: u32, parameters: Parameters) -> Result<()> {
    let block = parameter_block(vcpu);
    memory.write_u32(block + PROGRAM, parameters.program as u32)?;
    memory.write_u32(block + COUNT, parameters.count)?;
    memory.write_u32(block + DELTA, parameters.delta)
}

/// What a vCPU has done so far; it may be running.
pub fn read_progress(memory: &Memory, vcpu: u32) -> Result<Progress> {
    let block = parameter_block(vcpu);
    Ok(Progress {
        iterations: memory.read_u32(block + ITERATIONS)?,
        interrupts: memory.read_u32(block + INTERRUPTS)?,
        nmis: memory.read_u32(block + NMIS)?,
        first_tsc: memory.read_u64(block + FIRST_TSC)?,
        last_tsc: memory.read_u64(block + LAST_TSC)?,
    })
}

fn code() -> &'static [u8] {
    let start = &raw const vmentry_guest_start;
    let len = (&raw const vmentry_guest_end).addr() - start.addr();
    // SAFETY: guest.S defines both symbols around one run of read-only bytes, the start before the end.
    unsafe { core::slice::from_raw_parts(start, len) }
}

/// The guest-physical address of a symbol of guest.S.
fn address(symbol: *const u8) -> u64 {
    (LOAD + symbol.addr() - (&raw const vmentry_guest_start).addr()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_ends_below_the_pages_of_the_vcpus() {
        assert!(LOAD + code().len() <= VCPU_PAGES);
        assert_eq!(
            idt().base + u64::from(idt().limit) + 1,
            (LOAD + code().len()) as u64,
            "the interrupt table is the last thing in the code and has 256 gates"
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
    fn what_a_guest_wrote_is_read_from_its_own_block() {
        let memory = Memory::new(memory_size(2)).unwrap();
        let block = parameter_block(1);
        memory.write_u32(block + ITERATIONS, 7).unwrap();
        memory.write_u32(block + FIRST_TSC + 4, 1).unwrap();
        let progress = read_progress(&memory, 1).unwrap();
        assert_eq!((progress.iterations, progress.first_tsc), (7, 1 << 32));
        assert_eq!(read_progress(&memory, 0).unwrap(), Progress::default());
    }

    #[test]
    fn the_last_stack_ends_with_the_memory() {
        assert_eq!(stack(2), memory_size(3));
    }
}
