//! Names of exit reasons: the kernel's own, from arch/x86/include/uapi/asm/{vmx,svm}.h as of Linux 6.18.

use std::{borrow::Cow, str::FromStr};

use tracer_common::Isa;

use super::suggestion::did_you_mean;

const VMX_BASIC: u32 = 0xffff;
/// HLT's number.
const VMX_HLT: u32 = 12;
/// HLT, and HLT without a pending interrupt (the idle-HLT intercept).
const SVM_HLT: [u32; 2] = [0x78, 0xa6];
const VMX_BUS_LOCK_DETECTED: u32 = 1 << 26;
const VMX_FAILED_ENTRY: u32 = 1 << 31;
/// The modifier bits that a name shows.
const VMX_MODIFIERS: u32 = VMX_BUS_LOCK_DETECTED | VMX_FAILED_ENTRY;
/// How [`name`] shows [`VMX_BUS_LOCK_DETECTED`].
const BUS_LOCK: &str = "(bus lock)";
/// How [`name`] shows [`VMX_FAILED_ENTRY`].
const FAILED_ENTRY: &str = "(failed entry)";

/// Basic exit reasons, ascending; names as EXIT_REASON_*.
/// The names of all exit reasons.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    VMX_NAMES.iter().chain(SVM_NAMES).map(|(_, name)| *name)
}

static VMX_NAMES: &[(u32, &str)] = &[
    (0, "EXCEPTION_NMI"),
    (1, "EXTERNAL_INTERRUPT"),
    (2, "TRIPLE_FAULT"),
    (3, "INIT_SIGNAL"),
    (4, "SIPI_SIGNAL"),
    (6, "OTHER_SMI"),
    (7, "INTERRUPT_WINDOW"),
    (8, "NMI_WINDOW"),
    (9, "TASK_SWITCH"),
    (10, "CPUID"),
    (12, "HLT"),
    (13, "INVD"),
    (14, "INVLPG"),
    (15, "RDPMC"),
    (16, "RDTSC"),
    (18, "VMCALL"),
    (19, "VMCLEAR"),
    (20, "VMLAUNCH"),
    (21, "VMPTRLD"),
    (22, "VMPTRST"),
    (23, "VMREAD"),
    (24, "VMRESUME"),
    (25, "VMWRITE"),
    (26, "VMOFF"),
    (27, "VMON"),
    (28, "CR_ACCESS"),
    (29, "DR_ACCESS"),
    (30, "IO_INSTRUCTION"),
    (31, "MSR_READ"),
    (32, "MSR_WRITE"),
    (33, "INVALID_STATE"),
    (34, "MSR_LOAD_FAIL"),
    (36, "MWAIT_INSTRUCTION"),
    (37, "MONITOR_TRAP_FLAG"),
    (39, "MONITOR_INSTRUCTION"),
    (40, "PAUSE_INSTRUCTION"),
    (41, "MCE_DURING_VMENTRY"),
    (43, "TPR_BELOW_THRESHOLD"),
    (44, "APIC_ACCESS"),
    (45, "EOI_INDUCED"),
    (46, "GDTR_IDTR"),
    (47, "LDTR_TR"),
    (48, "EPT_VIOLATION"),
    (49, "EPT_MISCONFIG"),
    (50, "INVEPT"),
    (51, "RDTSCP"),
    (52, "PREEMPTION_TIMER"),
    (53, "INVVPID"),
    (54, "WBINVD"),
    (55, "XSETBV"),
    (56, "APIC_WRITE"),
    (57, "RDRAND"),
    (58, "INVPCID"),
    (59, "VMFUNC"),
    (60, "ENCLS"),
    (61, "RDSEED"),
    (62, "PML_FULL"),
    (63, "XSAVES"),
    (64, "XRSTORS"),
    (67, "UMWAIT"),
    (68, "TPAUSE"),
    (74, "BUS_LOCK"),
    (75, "NOTIFY"),
    (76, "SEAMCALL"),
    (77, "TDCALL"),
    (84, "MSR_READ_IMM"),
    (85, "MSR_WRITE_IMM"),
];

/// Exit codes, ascending; names as SVM_EXIT_* and SVM_VMGEXIT_*, exceptions by their mnemonics.
static SVM_NAMES: &[(u32, &str)] = &[
    (0x000, "READ_CR0"),
    (0x002, "READ_CR2"),
    (0x003, "READ_CR3"),
    (0x004, "READ_CR4"),
    (0x008, "READ_CR8"),
    (0x010, "WRITE_CR0"),
    (0x012, "WRITE_CR2"),
    (0x013, "WRITE_CR3"),
    (0x014, "WRITE_CR4"),
    (0x018, "WRITE_CR8"),
    (0x020, "READ_DR0"),
    (0x021, "READ_DR1"),
    (0x022, "READ_DR2"),
    (0x023, "READ_DR3"),
    (0x024, "READ_DR4"),
    (0x025, "READ_DR5"),
    (0x026, "READ_DR6"),
    (0x027, "READ_DR7"),
    (0x030, "WRITE_DR0"),
    (0x031, "WRITE_DR1"),
    (0x032, "WRITE_DR2"),
    (0x033, "WRITE_DR3"),
    (0x034, "WRITE_DR4"),
    (0x035, "WRITE_DR5"),
    (0x036, "WRITE_DR6"),
    (0x037, "WRITE_DR7"),
    (0x040, "EXCP_DE"),
    (0x041, "EXCP_DB"),
    (0x043, "EXCP_BP"),
    (0x044, "EXCP_OF"),
    (0x045, "EXCP_BR"),
    (0x046, "EXCP_UD"),
    (0x047, "EXCP_NM"),
    (0x048, "EXCP_DF"),
    (0x04a, "EXCP_TS"),
    (0x04b, "EXCP_NP"),
    (0x04c, "EXCP_SS"),
    (0x04d, "EXCP_GP"),
    (0x04e, "EXCP_PF"),
    (0x050, "EXCP_MF"),
    (0x051, "EXCP_AC"),
    (0x052, "EXCP_MC"),
    (0x053, "EXCP_XF"),
    (0x054, "EXCP_VE"),
    (0x055, "EXCP_CP"),
    (0x05c, "EXCP_HV"),
    (0x05d, "EXCP_VC"),
    (0x05e, "EXCP_SX"),
    (0x060, "INTR"),
    (0x061, "NMI"),
    (0x062, "SMI"),
    (0x063, "INIT"),
    (0x064, "VINTR"),
    (0x065, "CR0_SEL_WRITE"),
    (0x066, "IDTR_READ"),
    (0x067, "GDTR_READ"),
    (0x068, "LDTR_READ"),
    (0x069, "TR_READ"),
    (0x06a, "IDTR_WRITE"),
    (0x06b, "GDTR_WRITE"),
    (0x06c, "LDTR_WRITE"),
    (0x06d, "TR_WRITE"),
    (0x06e, "RDTSC"),
    (0x06f, "RDPMC"),
    (0x070, "PUSHF"),
    (0x071, "POPF"),
    (0x072, "CPUID"),
    (0x073, "RSM"),
    (0x074, "IRET"),
    (0x075, "SWINT"),
    (0x076, "INVD"),
    (0x077, "PAUSE"),
    (0x078, "HLT"),
    (0x079, "INVLPG"),
    (0x07a, "INVLPGA"),
    (0x07b, "IOIO"),
    (0x07c, "MSR"),
    (0x07d, "TASK_SWITCH"),
    (0x07e, "FERR_FREEZE"),
    (0x07f, "SHUTDOWN"),
    (0x080, "VMRUN"),
    (0x081, "VMMCALL"),
    (0x082, "VMLOAD"),
    (0x083, "VMSAVE"),
    (0x084, "STGI"),
    (0x085, "CLGI"),
    (0x086, "SKINIT"),
    (0x087, "RDTSCP"),
    (0x088, "ICEBP"),
    (0x089, "WBINVD"),
    (0x08a, "MONITOR"),
    (0x08b, "MWAIT"),
    (0x08c, "MWAIT_COND"),
    (0x08d, "XSETBV"),
    (0x08e, "RDPRU"),
    (0x08f, "EFER_WRITE_TRAP"),
    (0x090, "CR0_WRITE_TRAP"),
    (0x091, "CR1_WRITE_TRAP"),
    (0x092, "CR2_WRITE_TRAP"),
    (0x093, "CR3_WRITE_TRAP"),
    (0x094, "CR4_WRITE_TRAP"),
    (0x095, "CR5_WRITE_TRAP"),
    (0x096, "CR6_WRITE_TRAP"),
    (0x097, "CR7_WRITE_TRAP"),
    (0x098, "CR8_WRITE_TRAP"),
    (0x099, "CR9_WRITE_TRAP"),
    (0x09a, "CR10_WRITE_TRAP"),
    (0x09b, "CR11_WRITE_TRAP"),
    (0x09c, "CR12_WRITE_TRAP"),
    (0x09d, "CR13_WRITE_TRAP"),
    (0x09e, "CR14_WRITE_TRAP"),
    (0x09f, "CR15_WRITE_TRAP"),
    (0x0a2, "INVPCID"),
    (0x0a5, "BUS_LOCK"),
    (0x0a6, "IDLE_HLT"),
    (0x400, "NPF"),
    (0x401, "AVIC_INCOMPLETE_IPI"),
    (0x402, "AVIC_UNACCELERATED_ACCESS"),
    (0x403, "VMGEXIT"),
    (0x8000_0001, "VMGEXIT_MMIO_READ"),
    (0x8000_0002, "VMGEXIT_MMIO_WRITE"),
    (0x8000_0003, "VMGEXIT_NMI_COMPLETE"),
    (0x8000_0004, "VMGEXIT_AP_HLT_LOOP"),
    (0x8000_0005, "VMGEXIT_AP_JUMP_TABLE"),
    (0x8000_0010, "VMGEXIT_PSC"),
    (0x8000_0011, "VMGEXIT_GUEST_REQUEST"),
    (0x8000_0012, "VMGEXIT_EXT_GUEST_REQUEST"),
    (0x8000_0013, "VMGEXIT_AP_CREATION"),
    (0x8000_0018, "VMGEXIT_SNP_RUN_VMPL"),
    (0x8000_001a, "VMGEXIT_SAVIC"),
    (0x8000_fffd, "VMGEXIT_HV_FEATURES"),
    (0x8000_fffe, "VMGEXIT_TERM_REQUEST"),
    (0x8000_ffff, "VMGEXIT_UNSUPPORTED_EVENT"),
    (0xf000_0000, "SW"),
    (0xffff_ffff, "ERR"),
];

/// Name of a basic VMX exit reason, without modifier bits; none for those that Linux has no name for.
pub(crate) fn vmx(reason: u32) -> Option<&'static str> {
    find(VMX_NAMES, reason)
}

/// Name of an SVM exit code; none for those that Linux has no name for.
pub(crate) fn svm(code: u32) -> Option<&'static str> {
    find(SVM_NAMES, code)
}

/// Name of an exit reason as kvm_exit has it, for VMX with the modifier bits. A reason without a name becomes its number, as the
/// manuals write it: `VMX 123`, `SVM 0x123`.
pub fn name(isa: Isa, reason: u32) -> Cow<'static, str> {
    match isa {
        Isa::Vmx => vmx_full(reason),
        Isa::Svm => svm(reason).map_or_else(|| format!("SVM {reason:#x}").into(), Cow::Borrowed),
        Isa::Other => format!("{reason:#x}").into(),
    }
}

/// Whether an exit is the guest's HLT: its host time is the guest's idle time.
pub(crate) fn is_halt(isa: Isa, reason: u32) -> bool {
    match isa {
        Isa::Vmx => reason & VMX_BASIC == VMX_HLT,
        Isa::Svm => SVM_HLT.contains(&reason),
        Isa::Other => false,
    }
}

/// Name of an exit reason, or "unknown" where it could not be read.
pub(crate) fn name_or_unknown(isa: Isa, reason: Option<u32>) -> Cow<'static, str> {
    reason.map_or(Cow::Borrowed("unknown"), |reason| name(isa, reason))
}

fn vmx_full(reason: u32) -> Cow<'static, str> {
    let basic = reason & VMX_BASIC;
    let name = vmx(basic).map_or_else(|| format!("VMX {basic}").into(), Cow::Borrowed);
    let bus_lock = reason & VMX_BUS_LOCK_DETECTED != 0;
    let failed = reason & VMX_FAILED_ENTRY != 0;
    match (bus_lock, failed) {
        (false, false) => name,
        (true, false) => format!("{name} {BUS_LOCK}").into(),
        (false, true) => format!("{name} {FAILED_ENTRY}").into(),
        (true, true) => format!("{name} {BUS_LOCK} {FAILED_ENTRY}").into(),
    }
}

/// The basic reason (VMX) or code (SVM) that a name means, whatever its case and without suffixes.
///
/// Numbers are accepted too: `52`, `0x34`, and as [`name`] writes them. None if there is no such name for this `isa`.
pub fn parse(isa: Isa, name: &str) -> Option<u32> {
    let name = name.trim();
    let (table, prefix) = match isa {
        Isa::Vmx => (VMX_NAMES, "vmx "),
        Isa::Svm => (SVM_NAMES, "svm "),
        Isa::Other => return None,
    };
    if let Some((reason, _)) = table.iter().find(|(_, n)| n.eq_ignore_ascii_case(name)) {
        return Some(*reason);
    }
    let name = name.to_ascii_lowercase();
    parse_number(name.strip_prefix(prefix).unwrap_or(&name))
}

/// An exit reason as people select one: a name or a number, for whichever instruction set the entries are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// basic reason on VMX; none if VMX has no reason of that name
    vmx: Option<u32>,
    /// code on SVM; none if SVM has no reason of that name
    svm: Option<u32>,
    /// the number that was given, as kvm_exit has it; none for a name
    number: Option<u32>,
    /// modifier bits on VMX that a name shows; none for any
    modifiers: Option<u32>,
}

impl Wanted {
    /// Whether an exit reason, with its modifier bits, is this one.
    pub(crate) fn is(self, isa: Isa, reason: u32) -> bool {
        match isa {
            // JSON has the whole number, with the modifier bits.
            Isa::Vmx if self.number == Some(reason) => true,
            Isa::Vmx => {
                self.vmx == Some(reason & VMX_BASIC) && self.modifiers.is_none_or(|m| m == reason & VMX_MODIFIERS)
            }
            Isa::Svm => self.svm == Some(reason),
            Isa::Other => self.number == Some(reason),
        }
    }
}

impl FromStr for Wanted {
    type Err = String;

    /// From a name as [`name`] writes it, in any case, or from a number; without "(failed entry)" and "(bus lock)", with and without.
    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.trim().to_ascii_lowercase();
        let (mut bare, mut given) = (lower.as_str(), 0);
        for (suffix, bit) in [(FAILED_ENTRY, VMX_FAILED_ENTRY), (BUS_LOCK, VMX_BUS_LOCK_DETECTED)] {
            if let Some(rest) = bare.strip_suffix(suffix) {
                (bare, given) = (rest.trim_end(), given | bit);
            }
        }
        let number = parse_number(bare);
        let vmx = parse(Isa::Vmx, bare).filter(|n| *n <= VMX_BASIC);
        let svm = parse(Isa::Svm, bare).filter(|_| lower == bare);
        if (vmx, svm, number) == (None, None, None) {
            let meant = did_you_mean(bare, VMX_NAMES.iter().chain(SVM_NAMES).map(|(_, name)| name));
            return Err(format!(
                "'{text}' is not an exit reason: {meant}write a name as 'vmentry report' shows it, e.g. HLT or CPUID, or a \
                 number"
            ));
        }
        Ok(Self { vmx, svm, number, modifiers: (given != 0).then_some(given) })
    }
}

fn parse_number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn find(table: &[(u32, &'static str)], reason: u32) -> Option<&'static str> {
    let at = table.binary_search_by_key(&reason, |(code, _)| *code).ok()?;
    Some(table[at].1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_halt_is_hlt_by_its_name() {
        for (isa, names) in [(Isa::Vmx, VMX_NAMES), (Isa::Svm, SVM_NAMES)] {
            for (code, name) in names {
                assert_eq!(is_halt(isa, *code), matches!(*name, "HLT" | "IDLE_HLT"), "{name}");
            }
        }
        assert!(is_halt(Isa::Vmx, 1 << 26 | 12) && !is_halt(Isa::Svm, 12) && !is_halt(Isa::Other, 12));
    }

    #[test]
    fn tables_ascend_and_have_no_name_twice() {
        for table in [VMX_NAMES, SVM_NAMES] {
            assert!(table.is_sorted_by(|a, b| a.0 < b.0));
            let names: HashSet<_> = table.iter().map(|(_, name)| name).collect();
            assert_eq!(names.len(), table.len());
        }
    }

    #[test]
    fn well_known_reasons_have_their_names() {
        let known = [
            (0, "EXCEPTION_NMI"),
            (1, "EXTERNAL_INTERRUPT"),
            (12, "HLT"),
            (30, "IO_INSTRUCTION"),
            (32, "MSR_WRITE"),
            (48, "EPT_VIOLATION"),
            (52, "PREEMPTION_TIMER"),
            (75, "NOTIFY"),
            (85, "MSR_WRITE_IMM"),
        ];
        for (reason, name) in known {
            assert_eq!(vmx(reason), Some(name));
        }
        let known = [
            (0x60, "INTR"),
            (0x72, "CPUID"),
            (0x78, "HLT"),
            (0x7b, "IOIO"),
            (0x81, "VMMCALL"),
            (0xa6, "IDLE_HLT"),
            (0x400, "NPF"),
            (u32::MAX, "ERR"),
        ];
        for (code, name) in known {
            assert_eq!(svm(code), Some(name));
        }
        assert_eq!(svm(0x42), None, "NMI has its own code, not an exception's");
    }

    #[test]
    fn modifier_bits_of_vmx_leave_the_name_and_add_what_matters() {
        assert_eq!(name(Isa::Vmx, 52), "PREEMPTION_TIMER");
        assert_eq!(name(Isa::Vmx, 1 << 31 | 33), "INVALID_STATE (failed entry)");
        assert_eq!(name(Isa::Vmx, 1 << 26 | 12), "HLT (bus lock)");
        assert_eq!(name(Isa::Vmx, 1 << 31 | 1 << 26 | 2), "TRIPLE_FAULT (bus lock) (failed entry)");
        let unnamed_bits = 1 << 25 | 1 << 27 | 1 << 28 | 1 << 29;
        assert_eq!(name(Isa::Vmx, unnamed_bits | 10), "CPUID");
    }

    #[test]
    fn reasons_without_a_name_are_numbers() {
        assert_eq!(name(Isa::Vmx, 123), "VMX 123");
        assert_eq!(name(Isa::Vmx, 1 << 31 | 123), "VMX 123 (failed entry)");
        assert_eq!(name(Isa::Svm, 0x123), "SVM 0x123");
        assert_eq!(name(Isa::Other, 0x7b), "0x7b");
        assert_eq!(name_or_unknown(Isa::Vmx, None), "unknown");
    }

    #[test]
    fn every_name_and_number_parses_back() {
        for (isa, table) in [(Isa::Vmx, VMX_NAMES), (Isa::Svm, SVM_NAMES)] {
            for (reason, _) in table {
                assert_eq!(parse(isa, &name(isa, *reason)), Some(*reason));
            }
        }
        assert_eq!(parse(Isa::Vmx, &name(Isa::Vmx, 123)), Some(123));
        assert_eq!(parse(Isa::Svm, &name(Isa::Svm, 0x123)), Some(0x123));
    }

    #[test]
    fn filters_take_any_case_and_numbers() {
        assert_eq!(parse(Isa::Vmx, "preemption_timer"), Some(52));
        assert_eq!(parse(Isa::Vmx, " Hlt "), Some(12));
        assert_eq!(parse(Isa::Svm, "hlt"), Some(0x78));
        assert_eq!(parse(Isa::Vmx, "52"), Some(52));
        assert_eq!(parse(Isa::Vmx, "0x34"), Some(52));
        assert_eq!(parse(Isa::Svm, "SVM 0x72"), Some(0x72));
    }

    #[test]
    fn a_wanted_reason_is_selected_as_it_is_shown_and_by_its_numbers() {
        let is = |text: &str, isa, reason| text.parse::<Wanted>().unwrap().is(isa, reason);
        let failed = 1 << 31 | 33;
        for text in ["invalid_state", "INVALID_STATE (failed entry)", "33", "0x21", "2147483681", "VMX 33"] {
            assert!(is(text, Isa::Vmx, failed), "{text}");
        }
        assert!(!is("INVALID_STATE (failed entry)", Isa::Vmx, 33) && !is("2147483681", Isa::Vmx, 33));
        assert!(!is("INVALID_STATE (bus lock)", Isa::Vmx, failed) && is("33", Isa::Vmx, 1 << 26 | 33));
        assert!(is("hlt", Isa::Svm, 0x78) && is("SVM 0x78", Isa::Svm, 0x78) && !is("SVM 0x78", Isa::Vmx, 0x78));
        assert!(is("0x7b", Isa::Other, 0x7b) && !is("HLT", Isa::Other, 12));
        for bad in ["", "CPUD", "-1", "(failed entry)", "1.5"] {
            assert!(bad.parse::<Wanted>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_reason_of_the_isa_is_refused() {
        assert_eq!(parse(Isa::Vmx, "IOIO"), None);
        assert_eq!(parse(Isa::Svm, "PREEMPTION_TIMER"), None);
        assert_eq!(parse(Isa::Svm, "VMX 3"), None);
        assert_eq!(parse(Isa::Vmx, ""), None);
        assert_eq!(parse(Isa::Vmx, "-1"), None);
        assert_eq!(parse(Isa::Other, "HLT"), None);
    }
}
