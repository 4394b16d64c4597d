//! Names of MSRs, ports, hypercalls, vectors and APIC registers: those that exits of today's guests are about.

/// The entry of a table by its number.
fn find<N: PartialEq>(table: &'static [(N, &'static str)], number: &N) -> Option<&'static str> {
    table.iter().find(|(known, _)| known == number).map(|(_, name)| *name)
}

/// An MSR (SDM vol. 4; APM vol. 2, appendix A; Linux asm/kvm_para.h; Hyper-V TLFS, appendix A).
pub(super) fn msr(number: u32) -> Option<&'static str> {
    const NAMES: &[(u32, &str)] = &[
        (0x10, "TSC"),
        (0x1b, "APIC_BASE"),
        (0x3a, "FEATURE_CONTROL"),
        (0x3b, "TSC_ADJUST"),
        (0x48, "SPEC_CTRL"),
        (0x49, "PRED_CMD"),
        (0x8b, "UCODE_REV"),
        (0xc1, "PMC0"),
        (0xc2, "PMC1"),
        (0xe7, "MPERF"),
        (0xe8, "APERF"),
        (0xfe, "MTRRCAP"),
        (0x10a, "ARCH_CAPABILITIES"),
        (0x10b, "FLUSH_CMD"),
        (0x122, "TSX_CTRL"),
        (0x140, "MISC_FEATURES_ENABLES"),
        (0x174, "SYSENTER_CS"),
        (0x175, "SYSENTER_ESP"),
        (0x176, "SYSENTER_EIP"),
        (0x179, "MCG_CAP"),
        (0x17a, "MCG_STATUS"),
        (0x186, "EVENTSEL0"),
        (0x187, "EVENTSEL1"),
        (0x198, "PERF_STATUS"),
        (0x199, "PERF_CTL"),
        (0x1a0, "MISC_ENABLE"),
        (0x1b0, "ENERGY_PERF_BIAS"),
        (0x1c4, "XFD"),
        (0x1d9, "DEBUGCTL"),
        (0x277, "PAT"),
        (0x2ff, "MTRR_DEF_TYPE"),
        (0x309, "FIXED_CTR0"),
        (0x38d, "FIXED_CTR_CTRL"),
        (0x38e, "PERF_GLOBAL_STATUS"),
        (0x38f, "PERF_GLOBAL_CTRL"),
        (0x390, "PERF_GLOBAL_OVF_CTRL"),
        (0x3f1, "PEBS_ENABLE"),
        (0x480, "VMX_BASIC"),
        (0x600, "DS_AREA"),
        (0x606, "RAPL_POWER_UNIT"),
        (0x611, "PKG_ENERGY_STATUS"),
        (0x6e0, "TSC_DEADLINE"),
        (0x770, "PM_ENABLE"),
        (0x774, "HWP_REQUEST"),
        (0x802, "X2APIC ID"),
        (0x803, "X2APIC VERSION"),
        (0x808, "X2APIC TPR"),
        (0x80b, "X2APIC EOI"),
        (0x80d, "X2APIC LDR"),
        (0x80f, "X2APIC SVR"),
        (0x828, "X2APIC ESR"),
        (0x830, "X2APIC ICR"),
        (0x832, "X2APIC LVTT"),
        (0x838, "X2APIC TMICT"),
        (0x839, "X2APIC TMCCT"),
        (0x83e, "X2APIC TDCR"),
        (0x83f, "X2APIC SELF_IPI"),
        (0xda0, "XSS"),
        (0x4000_0000, "HV_GUEST_OS_ID"),
        (0x4000_0001, "HV_HYPERCALL"),
        (0x4000_0002, "HV_VP_INDEX"),
        (0x4000_0020, "HV_TIME_REF_COUNT"),
        (0x4000_0021, "HV_REFERENCE_TSC"),
        (0x4000_0070, "HV_EOI"),
        (0x4000_0071, "HV_ICR"),
        (0x4000_0072, "HV_TPR"),
        (0x4000_0080, "HV_SCONTROL"),
        (0x4000_0084, "HV_EOM"),
        (0x4000_00b0, "HV_STIMER0_CONFIG"),
        (0x4000_00b1, "HV_STIMER0_COUNT"),
        (0x4b56_4d00, "KVM_WALL_CLOCK_NEW"),
        (0x4b56_4d01, "KVM_SYSTEM_TIME_NEW"),
        (0x4b56_4d02, "KVM_ASYNC_PF_EN"),
        (0x4b56_4d03, "KVM_STEAL_TIME"),
        (0x4b56_4d04, "KVM_PV_EOI_EN"),
        (0x4b56_4d05, "KVM_POLL_CONTROL"),
        (0x4b56_4d06, "KVM_ASYNC_PF_INT"),
        (0x4b56_4d07, "KVM_ASYNC_PF_ACK"),
        (0x4b56_4d08, "KVM_MIGRATION_CONTROL"),
        (0xc000_0080, "EFER"),
        (0xc000_0081, "STAR"),
        (0xc000_0082, "LSTAR"),
        (0xc000_0084, "SYSCALL_MASK"),
        (0xc000_0100, "FS_BASE"),
        (0xc000_0101, "GS_BASE"),
        (0xc000_0102, "KERNEL_GS_BASE"),
        (0xc000_0103, "TSC_AUX"),
        (0xc001_0000, "K7_EVNTSEL0"),
        (0xc001_0004, "K7_PERFCTR0"),
        (0xc001_0015, "HWCR"),
        (0xc001_001f, "NB_CFG"),
        (0xc001_0114, "VM_CR"),
        (0xc001_0117, "VM_HSAVE_PA"),
        (0xc001_011f, "VIRT_SPEC_CTRL"),
        (0xc001_0130, "SEV_ES_GHCB"),
        (0xc001_0131, "SEV_STATUS"),
        (0xc001_1029, "DE_CFG"),
    ];
    find(NAMES, &number)
}

/// A port of a PC, or of QEMU's and Firecracker's devices.
pub(super) fn port(number: u16) -> Option<&'static str> {
    Some(match number {
        0x20 | 0x21 => "PIC",
        0x40..=0x43 => "PIT",
        0x60 | 0x64 => "keyboard",
        0x61 => "speaker",
        0x70 | 0x71 => "RTC",
        0x80 => "delay",
        0x92 => "port 92",
        0xa0 | 0xa1 => "PIC 2",
        0xb2 | 0xb3 => "APM",
        0xf4 => "isa-debug-exit",
        0x170..=0x177 => "IDE 2",
        0x1f0..=0x1f7 => "IDE",
        0x2e8..=0x2ef => "COM4",
        0x2f8..=0x2ff => "COM2",
        0x378..=0x37a => "LPT1",
        0x3c0..=0x3df => "VGA",
        0x3e8..=0x3ef => "COM3",
        0x3f0..=0x3f5 | 0x3f7 => "floppy",
        0x3f8..=0x3ff => "COM1",
        0x402 => "debug console",
        0x510..=0x51b => "fw_cfg",
        0x600..=0x603 => "PM1",
        0x608..=0x60b => "PM timer",
        0xae00..=0xae0f => "PCI hot-plug",
        0xafe0..=0xafe3 => "GPE0",
        0xb008..=0xb00b => "PM timer",
        0xcd8..=0xce3 => "memory and CPU hot-plug",
        0xcf8 => "PCI address",
        0xcf9 => "reset",
        0xcfc..=0xcff => "PCI data",
        _ => return None,
    })
}

/// A hypercall of KVM (Linux uapi/linux/kvm_para.h).
pub(super) fn hypercall(number: u32) -> Option<&'static str> {
    const NAMES: &[(u32, &str)] = &[
        (1, "VAPIC_POLL_IRQ"),
        (2, "MMU_OP"),
        (3, "FEATURES"),
        (5, "KICK_CPU"),
        (9, "CLOCK_PAIRING"),
        (10, "SEND_IPI"),
        (11, "SCHED_YIELD"),
        (12, "MAP_GPA_RANGE"),
    ];
    find(NAMES, &number)
}

/// A hypercall of Hyper-V (TLFS, appendix A).
pub(super) fn hyperv_call(code: u16) -> Option<&'static str> {
    const NAMES: &[(u16, &str)] = &[
        (0x02, "FlushVirtualAddressSpace"),
        (0x03, "FlushVirtualAddressList"),
        (0x08, "NotifyLongSpinWait"),
        (0x0b, "SendSyntheticClusterIpi"),
        (0x13, "FlushVirtualAddressSpaceEx"),
        (0x14, "FlushVirtualAddressListEx"),
        (0x15, "SendSyntheticClusterIpiEx"),
        (0x5c, "PostMessage"),
        (0x5d, "SignalEvent"),
    ];
    find(NAMES, &code)
}

/// An exception (SDM vol. 3, table 7-1).
pub(super) fn exception(vector: u8) -> Option<&'static str> {
    const NAMES: [&str; 22] = [
        "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "", "#TS", "#NP", "#SS", "#GP", "#PF", "",
        "#MF", "#AC", "#MC", "#XM", "#VE", "#CP",
    ];
    NAMES.get(usize::from(vector)).copied().filter(|name| !name.is_empty())
}

/// A vector that Linux uses for one purpose on every CPU (arch/x86/include/asm/irq_vectors.h, the same from 5.15 to 7.3); others are devices'.
pub(super) fn interrupt(vector: u8) -> Option<&'static str> {
    const NAMES: &[(u8, &str)] = &[
        (0xec, "local timer"),
        (0xf0, "posted interrupt, nested"),
        (0xf1, "posted interrupt, wake-up"),
        (0xf2, "posted interrupt"),
        (0xf3, "hypervisor callback"),
        (0xf4, "deferred error"),
        (0xf6, "IRQ work"),
        (0xf7, "x86 platform IPI"),
        (0xf8, "reboot"),
        (0xf9, "threshold"),
        (0xfa, "thermal"),
        (0xfb, "call function, one CPU"),
        (0xfc, "call function"),
        (0xfd, "reschedule"),
        (0xfe, "error"),
        (0xff, "spurious"),
    ];
    find(NAMES, &vector)
}

/// A register of the local APIC, by the offset in its page (SDM vol. 3, table 12-1).
pub(super) fn apic(offset: u16) -> Option<&'static str> {
    const NAMES: &[(u16, &str)] = &[
        (0x20, "ID"),
        (0x30, "VERSION"),
        (0x80, "TPR"),
        (0xb0, "EOI"),
        (0xd0, "LDR"),
        (0xe0, "DFR"),
        (0xf0, "SVR"),
        (0x280, "ESR"),
        (0x300, "ICR"),
        (0x310, "ICR2"),
        (0x320, "LVTT"),
        (0x330, "LVTTHMR"),
        (0x340, "LVTPC"),
        (0x350, "LVT0"),
        (0x360, "LVT1"),
        (0x370, "LVTERR"),
        (0x380, "TMICT"),
        (0x390, "TMCCT"),
        (0x3e0, "TDCR"),
    ];
    find(NAMES, &offset)
}

/// A guest-physical address of a PC's devices that lies where every firmware puts it.
pub(super) fn address(address: u64) -> Option<&'static str> {
    Some(match address {
        0xa_0000..=0xb_ffff => "VGA",
        0xfec0_0000..=0xfec0_0fff => "I/O APIC",
        0xfed0_0000..=0xfed0_03ff => "HPET",
        0xfed4_0000..=0xfed4_4fff => "TPM",
        0xfee0_0000..=0xfee0_0fff => "local APIC",
        _ => return None,
    })
}
