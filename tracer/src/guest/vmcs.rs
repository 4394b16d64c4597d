//! The VMCS that L1 writes: an L2 with L1's segments and paging, and no exits but the unconditional ones.
//! Encodings, access rights and reserved bits are those of Intel's SDM, volume 3.

use tracer_common::rules::Control;

use super::image::{self, CODE_SELECTOR, DATA_SELECTOR};

/// CR0 of L1 and L2: protected mode (bit 0) with paging (31), and native FPU errors (5) because VMX demands them; bit 4
/// always reads 1.
pub(crate) const CR0: u32 = 1 << 31 | 1 << 5 | 1 << 4 | 1 << 0;
/// CR3 of L1 and L2.
#[expect(clippy::cast_possible_truncation, reason = "a constant of 16 KiB")]
pub(crate) const CR3: u32 = image::PAGE_DIRECTORY as u32;
/// CR4 of L1 and L2: VMX (bit 13), and pages of 4 MiB (4).
pub(crate) const CR4: u32 = 1 << 13 | 1 << 4;

/// The field with the error of the last VMX instruction.
pub(crate) const VM_INSTRUCTION_ERROR: u32 = 0x4400;
/// The field with the exit reason of L2.
pub(crate) const EXIT_REASON: u32 = 0x4402;

// Controls.
const PIN_CONTROLS: u32 = Control::Pin.encoding();
const PROCESSOR_CONTROLS: u32 = Control::Exec.encoding();
const EXCEPTION_BITMAP: u32 = 0x4004;
const PAGE_FAULT_MASK: u32 = 0x4006;
const PAGE_FAULT_MATCH: u32 = 0x4008;
const CR3_TARGET_COUNT: u32 = 0x400a;
const EXIT_CONTROLS: u32 = Control::VmExit.encoding();
const EXIT_MSR_STORE_COUNT: u32 = 0x400e;
const EXIT_MSR_LOAD_COUNT: u32 = 0x4010;
const ENTRY_CONTROLS: u32 = Control::VmEntry.encoding();
const ENTRY_MSR_LOAD_COUNT: u32 = 0x4014;
const ENTRY_INTERRUPTION: u32 = 0x4016;
const CR0_MASK: u32 = 0x6000;
const CR4_MASK: u32 = 0x6002;

// The guest-state area: L2.
const L2_SELECTORS: u32 = 0x0800;
const LINK_POINTER: u32 = 0x2800;
const L2_DEBUGCTL: u32 = 0x2802;
const L2_LIMITS: u32 = 0x4800;
const L2_GDT_LIMIT: u32 = 0x4810;
const L2_IDT_LIMIT: u32 = 0x4812;
const L2_ACCESS_RIGHTS: u32 = 0x4814;
const L2_INTERRUPTIBILITY: u32 = 0x4824;
const L2_ACTIVITY: u32 = 0x4826;
const L2_SYSENTER_CS: u32 = 0x482a;
const L2_CR0: u32 = 0x6800;
const L2_CR3: u32 = 0x6802;
const L2_CR4: u32 = 0x6804;
const L2_BASES: u32 = 0x6806;
const L2_GDT_BASE: u32 = 0x6816;
const L2_IDT_BASE: u32 = 0x6818;
const L2_DR7: u32 = 0x681a;
const L2_RSP: u32 = 0x681c;
const L2_RIP: u32 = 0x681e;
const L2_RFLAGS: u32 = 0x6820;
const L2_PENDING_DEBUG: u32 = 0x6822;
const L2_SYSENTER_ESP: u32 = 0x6824;
const L2_SYSENTER_EIP: u32 = 0x6826;

// The host-state area: L1, as an exit of L2 loads it.
const L1_SELECTORS: u32 = 0x0c00;
const L1_SYSENTER_CS: u32 = 0x4c00;
const L1_CR0: u32 = 0x6c00;
const L1_CR3: u32 = 0x6c02;
const L1_CR4: u32 = 0x6c04;
const L1_FS_BASE: u32 = 0x6c06;
const L1_GS_BASE: u32 = 0x6c08;
const L1_TR_BASE: u32 = 0x6c0a;
const L1_GDT_BASE: u32 = 0x6c0c;
const L1_IDT_BASE: u32 = 0x6c0e;
const L1_SYSENTER_ESP: u32 = 0x6c10;
const L1_SYSENTER_EIP: u32 = 0x6c12;
const L1_RSP: u32 = 0x6c14;
const L1_RIP: u32 = 0x6c16;

/// In 32-bit mode the upper half of a 64-bit field is a separate field with the next encoding.
const UPPER: u32 = 1;

/// Fields that the CPU uses whatever the controls are, and that are 0 here because nothing is intercepted, loaded, stored or
/// injected, and L2 uses no stack.
const ZERO: [u32; 25] = [
    EXCEPTION_BITMAP,
    PAGE_FAULT_MASK,
    PAGE_FAULT_MATCH,
    CR3_TARGET_COUNT,
    EXIT_MSR_STORE_COUNT,
    EXIT_MSR_LOAD_COUNT,
    ENTRY_MSR_LOAD_COUNT,
    ENTRY_INTERRUPTION,
    CR0_MASK,
    CR4_MASK,
    L2_DEBUGCTL,
    L2_DEBUGCTL + UPPER,
    L2_INTERRUPTIBILITY,
    L2_ACTIVITY,
    L2_SYSENTER_CS,
    L2_RSP,
    L2_PENDING_DEBUG,
    L2_SYSENTER_ESP,
    L2_SYSENTER_EIP,
    L1_SYSENTER_CS,
    L1_FS_BASE,
    L1_GS_BASE,
    L1_TR_BASE,
    L1_SYSENTER_ESP,
    L1_SYSENTER_EIP,
];

const FLAT: u32 = u32::MAX;
/// Present, data, writable, accessed, 32 bits, limit in pages.
const DATA: (u16, u32, u32) = (DATA_SELECTOR, FLAT, 0xc093);
/// Selector, limit and access rights of L2's segments, all with base 0, in the order of their fields.
const SEGMENTS: [(u16, u32, u32); 8] = [
    DATA,                          // ES
    (CODE_SELECTOR, FLAT, 0xc09b), // CS: present, code, readable, accessed, 32 bits, limit in pages
    DATA,                          // SS
    DATA,                          // DS
    DATA,                          // FS
    DATA,                          // GS
    (0, 0, 0x1_0000),              // LDTR: unusable
    (DATA_SELECTOR, 0x67, 0x008b), // TR: present, busy 32-bit TSS, which VMX demands although nothing reads it
];

const DR7_RESERVED: u32 = 1 << 10;
const RFLAGS_RESERVED: u32 = 1 << 1;

/// The bits that must be 1 in each word of controls. L1 sets no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Controls {
    /// Pin-based VM-execution controls.
    pub(crate) pin: u32,
    /// Primary processor-based VM-execution controls.
    pub(crate) processor: u32,
    /// VM-exit controls.
    pub(crate) exit: u32,
    /// VM-entry controls.
    pub(crate) entry: u32,
}

/// Encodings and values of the fields, for an L1 whose stack ends at `l1_stack`.
pub(crate) fn fields(controls: Controls, l1_stack: u32) -> Vec<(u32, u32)> {
    let (gdt, idt) = (image::gdt(), image::idt());
    let mut fields = vec![
        (PIN_CONTROLS, controls.pin),
        (PROCESSOR_CONTROLS, controls.processor),
        (EXIT_CONTROLS, controls.exit),
        (ENTRY_CONTROLS, controls.entry),
        // All ones: no other VMCS is linked.
        (LINK_POINTER, u32::MAX),
        (LINK_POINTER + UPPER, u32::MAX),
        (L2_CR0, CR0),
        (L2_CR3, CR3),
        (L2_CR4, CR4),
        (L2_GDT_BASE, gdt.base),
        (L2_GDT_LIMIT, gdt.limit.into()),
        (L2_IDT_BASE, idt.base),
        (L2_IDT_LIMIT, idt.limit.into()),
        (L2_DR7, DR7_RESERVED),
        (L2_RFLAGS, RFLAGS_RESERVED),
        (L2_RIP, image::l2()),
        (L1_CR0, CR0),
        (L1_CR3, CR3),
        (L1_CR4, CR4),
        (L1_GDT_BASE, gdt.base),
        (L1_IDT_BASE, idt.base),
        (L1_RSP, l1_stack),
        (L1_RIP, image::l2_exit()),
    ];
    fields.extend(ZERO.map(|field| (field, 0)));
    // The encodings of consecutive segments are two apart.
    for (at, (selector, limit, access_rights)) in (0..).step_by(2).zip(SEGMENTS) {
        fields.extend([
            (L2_SELECTORS + at, selector.into()),
            (L2_BASES + at, 0),
            (L2_LIMITS + at, limit),
            (L2_ACCESS_RIGHTS + at, access_rights),
        ]);
    }
    // A VM exit sets L1's segments from the selectors alone and does not read the GDT. TR's selector may be any but 0.
    let l1 = [DATA_SELECTOR, CODE_SELECTOR, DATA_SELECTOR, DATA_SELECTOR, DATA_SELECTOR, DATA_SELECTOR, DATA_SELECTOR];
    fields.extend((L1_SELECTORS..).step_by(2).zip(l1.map(u32::from)));
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const CONTROLS: Controls = Controls { pin: 0x16, processor: 0x0401_e172, exit: 0x3_6dff, entry: 0x11ff };

    #[test]
    fn no_field_is_written_twice() {
        let fields = fields(CONTROLS, 0x6000);
        let distinct: BTreeMap<_, _> = fields.iter().copied().collect();
        assert_eq!(distinct.len(), fields.len());
    }

    #[test]
    fn segment_fields_have_the_encodings_of_the_manual() {
        let fields: BTreeMap<_, _> = fields(CONTROLS, 0x6000).into_iter().collect();
        // Selector, limit, access rights and base of L2's CS and TR; L1's CS and TR.
        assert_eq!([0x0802, 0x4802, 0x4816, 0x6808].map(|f| fields[&f]), [0x08, u32::MAX, 0xc09b, 0]);
        assert_eq!([0x080e, 0x480e, 0x4822, 0x6814].map(|f| fields[&f]), [0x10, 0x67, 0x8b, 0]);
        assert_eq!([0x0c02, 0x0c0c].map(|f| fields[&f]), [0x08, 0x10]);
        assert!(!fields.contains_key(&0x0c0e));
    }

    #[test]
    fn the_given_controls_and_stack_are_written() {
        let fields: BTreeMap<_, _> = fields(CONTROLS, 0x6000).into_iter().collect();
        assert_eq!([0x4000, 0x4002, 0x400c, 0x4012].map(|f| fields[&f]), [0x16, 0x0401_e172, 0x3_6dff, 0x11ff]);
        assert_eq!(fields[&0x6c14], 0x6000);
    }
}
