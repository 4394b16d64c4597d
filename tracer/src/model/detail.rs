//! What an exit was about beyond its reason: the MSR, the port, the CPUID leaf. One form in files, one for people.

use std::fmt;

use tracer_common::{
    Isa, Outline,
    detail::{Outcome, RawDetail, Source},
};

use crate::model::detail_names;

/// Most details of one exit reason of a vCPU that are told apart in an interval; the rest is [`Detail::Other`].
pub(crate) const MAX_DETAILS: usize = 64;

/// What an exit was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Detail {
    /// an MSR, by its number: the exit reason says whether it was read or written (VMX)
    Msr(u32),
    /// an MSR that was read (SVM)
    MsrRead(u32),
    /// an MSR that was written (SVM)
    MsrWrite(u32),
    /// an I/O port
    Port {
        /// number of the port
        port: u16,
        /// bytes of an access: 1, 2 or 4
        bytes: u8,
        /// the guest reads
        is_in: bool,
    },
    /// a CPUID leaf; subleaf only of leaves that have some
    Leaf(u32, Option<u32>),
    /// a hypercall, by its number
    Hypercall(u32),
    /// a Hyper-V hypercall, by its code
    HypervCall(u16),
    /// an interrupt of the host, by its vector
    Interrupt(u8),
    /// an exception or NMI, by its vector
    Exception(u8),
    /// an access to a control register
    ControlRegister(u8, RegisterAccess),
    /// an access to a debug register
    DebugRegister(u8, RegisterAccess),
    /// an access to the local APIC, by the offset in its page
    Apic(u16),
    /// a fault of nested paging: how the guest accessed memory, and how KVM ended it
    Fault(MemoryAccess, u8),
    /// an access that KVM emulated, by its guest-physical address
    Address(u64),
    /// one beyond [`MAX_DETAILS`]
    Other,
}

/// How a guest accessed a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RegisterAccess {
    /// to the register
    Write,
    /// from the register
    Read,
    /// CLTS
    Clts,
    /// LMSW
    Lmsw,
}

/// How a guest accessed memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemoryAccess {
    /// data read
    Read,
    /// data written
    Write,
    /// instruction fetch
    Fetch,
}

impl RegisterAccess {
    const ALL: [Self; 4] = [Self::Write, Self::Read, Self::Clts, Self::Lmsw];

    const fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::Clts => "clts",
            Self::Lmsw => "lmsw",
        }
    }
}

impl MemoryAccess {
    const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Fetch];

    const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Fetch => "fetch",
        }
    }
}

/// Names of the bits of [`Outcome`].
const OUTCOMES: [(Outcome, &str); 4] = [
    (Outcome::FIXED, "fixed"),
    (Outcome::FAST, "fast"),
    (Outcome::SPURIOUS, "spurious"),
    (Outcome::EMULATED, "emulated"),
];

/// CPUID leaves whose answer depends on ECX (SDM vol. 2, CPUID; APM vol. 3, appendix E).
const WITH_SUBLEAVES: [u32; 17] =
    [4, 7, 0xb, 0xd, 0xf, 0x10, 0x12, 0x14, 0x17, 0x18, 0x1d, 0x1e, 0x1f, 0x20, 0x23, 0x24, 0x8000_001d];

/// The low 32 bits of a word.
#[expect(clippy::cast_possible_truncation, reason = "takes 32 of the word's bits")]
const fn low32(word: u64) -> u32 {
    word as u32
}

/// The low 16 bits of a word.
#[expect(clippy::cast_possible_truncation, reason = "takes 16 of the word's bits")]
const fn low16(word: u64) -> u16 {
    word as u16
}

/// The low 8 bits of a word.
#[expect(clippy::cast_possible_truncation, reason = "takes 8 of the word's bits")]
const fn low8(word: u64) -> u8 {
    word as u8
}

impl Detail {
    /// The detail of an exit; none where there is none, and for a value that its source cannot have.
    pub(crate) fn of(exit: &Outline, raw: RawDetail) -> Option<Self> {
        let reason = exit.reason()?;
        let value = raw.value();
        Some(match raw.source()? {
            Source::None => return None,
            Source::Msr => Self::Msr(low32(value)),
            Source::MsrWithDirection if value >> 32 == 0 => Self::MsrRead(low32(value)),
            Source::MsrWithDirection => Self::MsrWrite(low32(value)),
            Source::Cpuid => {
                let leaf = low32(value);
                Self::Leaf(leaf, WITH_SUBLEAVES.contains(&leaf).then(|| low32(value >> 32)))
            }
            Source::Hypercall => Self::Hypercall(low32(value)),
            Source::HypervCall => Self::HypervCall(low16(value)),
            Source::Address => Self::Address(value),
            Source::Fault => Self::Fault(access(exit.isa(), value), low8(value >> 32) & 0xf),
            Source::Interruption if value & 1 << 31 == 0 => return None,
            Source::Interruption if reason & 0xffff == 1 => Self::Interrupt(low8(value)),
            Source::Interruption => Self::Exception(low8(value)),
            Source::ExitInfo => match reason {
                0x7b => svm_port(value)?,
                _ => Self::Apic(low16(value) & 0xff0),
            },
            Source::Qualification => vmx_qualification(reason & 0xffff, value)?,
        })
    }

    /// From [`Self::tag`]'s text; none for any other.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let kind = parts.next()?;
        let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
        let found = match kind {
            "msr" => Self::Msr(number()?.try_into().ok()?),
            "rdmsr" => Self::MsrRead(number()?.try_into().ok()?),
            "wrmsr" => Self::MsrWrite(number()?.try_into().ok()?),
            "in" | "out" => {
                Self::Port { port: number()?.try_into().ok()?, bytes: number()?.try_into().ok()?, is_in: kind == "in" }
            }
            "leaf" => Self::Leaf(number()?.try_into().ok()?, number().map(u32::try_from).transpose().ok()?),
            "hypercall" => Self::Hypercall(number()?.try_into().ok()?),
            "hyperv" => Self::HypervCall(number()?.try_into().ok()?),
            "interrupt" => Self::Interrupt(number()?.try_into().ok()?),
            "exception" => Self::Exception(number()?.try_into().ok()?),
            "cr" | "dr" => {
                let register = number()?.try_into().ok()?;
                let access = *RegisterAccess::ALL.get(usize::try_from(number()?).ok()?)?;
                if kind == "cr" {
                    Self::ControlRegister(register, access)
                } else {
                    Self::DebugRegister(register, access)
                }
            }
            "apic" => Self::Apic(number()?.try_into().ok()?),
            "fault" => {
                let access = *MemoryAccess::ALL.get(usize::try_from(number()?).ok()?)?;
                Self::Fault(access, number()?.try_into().ok().filter(|outcome| *outcome < 16)?)
            }
            "address" => Self::Address(number()?),
            "other" => Self::Other,
            _ => return None,
        };
        // Only the form that is written: no leading zero, nothing after it.
        (found.tag() == text).then_some(found)
    }

    /// As files hold it: a word and hexadecimal numbers between full stops.
    pub(crate) fn tag(self) -> String {
        match self {
            Self::Msr(msr) => format!("msr.{msr:x}"),
            Self::MsrRead(msr) => format!("rdmsr.{msr:x}"),
            Self::MsrWrite(msr) => format!("wrmsr.{msr:x}"),
            Self::Port { port, bytes, is_in } => format!("{}.{port:x}.{bytes:x}", if is_in { "in" } else { "out" }),
            Self::Leaf(leaf, None) => format!("leaf.{leaf:x}"),
            Self::Leaf(leaf, Some(subleaf)) => format!("leaf.{leaf:x}.{subleaf:x}"),
            Self::Hypercall(number) => format!("hypercall.{number:x}"),
            Self::HypervCall(code) => format!("hyperv.{code:x}"),
            Self::Interrupt(vector) => format!("interrupt.{vector:x}"),
            Self::Exception(vector) => format!("exception.{vector:x}"),
            Self::ControlRegister(register, access) => format!("cr.{register:x}.{:x}", access as u8),
            Self::DebugRegister(register, access) => format!("dr.{register:x}.{:x}", access as u8),
            Self::Apic(offset) => format!("apic.{offset:x}"),
            Self::Fault(access, outcome) => format!("fault.{:x}.{outcome:x}", access as u8),
            Self::Address(address) => format!("address.{address:x}"),
            Self::Other => "other".into(),
        }
    }

    /// Without the name after its number: "0x6e0" of "0x6e0 TSC_DEADLINE".
    pub(crate) fn short(self) -> String {
        self.text(None)
    }

    /// Whether a user means it, in any case of letters: as shown, without its name, its name alone, its number alone, or as in a file.
    pub(crate) fn is_meant_by(self, wanted: &str) -> bool {
        let shown = self.to_string();
        let short = self.short();
        let name = shown.strip_prefix(&short).map(str::trim).filter(|name| !name.is_empty());
        let mut numbers = short.split([' ', '/']).filter(|part| part.starts_with("0x"));
        let forms = [Some(shown.as_str()), Some(&short), name, numbers.next(), short.split('/').next()];
        forms.into_iter().flatten().any(|form| form.eq_ignore_ascii_case(wanted)) || self.tag() == wanted
    }

    fn text(self, name: Option<&str>) -> String {
        let name = name.map(|name| format!(" {name}")).unwrap_or_default();
        match self {
            Self::Msr(msr) => format!("{msr:#x}{name}"),
            Self::MsrRead(msr) => format!("read {msr:#x}{name}"),
            Self::MsrWrite(msr) => format!("write {msr:#x}{name}"),
            Self::Port { port, bytes, is_in } => {
                format!("{} {port:#x}/{bytes}{name}", if is_in { "in" } else { "out" })
            }
            Self::Leaf(leaf, None) => format!("{leaf:#x}"),
            Self::Leaf(leaf, Some(subleaf)) => format!("{leaf:#x}.{subleaf:#x}"),
            Self::Hypercall(number) => format!("{number}{name}"),
            Self::HypervCall(code) => format!("Hyper-V {code:#x}{name}"),
            Self::Interrupt(vector) | Self::Exception(vector) => format!("{vector:#x}{name}"),
            Self::ControlRegister(register, access) => format!("CR{register} {}", access.name()),
            Self::DebugRegister(register, access) => format!("DR{register} {}", access.name()),
            Self::Apic(offset) => format!("{offset:#x}{name}"),
            Self::Fault(access, outcome) => {
                let names = OUTCOMES.iter().filter(|(bit, _)| outcome & bit.0 != 0).map(|(_, name)| *name);
                let names: Vec<_> = names.collect();
                let ended = if names.is_empty() { "no count grew".into() } else { names.join("+") };
                format!("{} {ended}", access.name())
            }
            Self::Address(address) => format!("{address:#x}{name}"),
            Self::Other => "other".into(),
        }
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::Msr(msr) | Self::MsrRead(msr) | Self::MsrWrite(msr) => detail_names::msr(msr),
            Self::Port { port, .. } => detail_names::port(port),
            Self::Hypercall(number) => detail_names::hypercall(number),
            Self::HypervCall(code) => detail_names::hyperv_call(code),
            Self::Exception(vector) => detail_names::exception(vector),
            Self::Interrupt(vector) => detail_names::interrupt(vector),
            Self::Apic(offset) => detail_names::apic(offset),
            Self::Address(address) => detail_names::address(address),
            _ => None,
        };
        f.write_str(&self.text(name))
    }
}

/// The exit qualification of an exit (SDM vol. 3, 29.2.1).
fn vmx_qualification(reason: u32, value: u64) -> Option<Detail> {
    Some(match reason {
        28 => {
            let access = RegisterAccess::ALL[usize::from(low8(value >> 4) & 3)];
            Detail::ControlRegister(low8(value) & 15, access)
        }
        29 => {
            let access = if value & 1 << 4 == 0 { RegisterAccess::Write } else { RegisterAccess::Read };
            Detail::DebugRegister(low8(value) & 7, access)
        }
        30 => Detail::Port { port: low16(value >> 16), bytes: (low8(value) & 7) + 1, is_in: value & 8 != 0 },
        // An access, or a write, by its offset in the page.
        44 | 56 => Detail::Apic(low16(value) & 0xfff),
        // An end of interrupt, by the vector.
        45 => Detail::Interrupt(low8(value)),
        _ => return None,
    })
}

/// EXITINFO1 of IOIO (APM vol. 2, 15.10.2).
fn svm_port(value: u64) -> Option<Detail> {
    let bytes = match value >> 4 & 7 {
        size @ (1 | 2 | 4) => low8(size),
        _ => return None,
    };
    Some(Detail::Port { port: low16(value >> 16), bytes, is_in: value & 1 != 0 })
}

/// How memory was accessed: bits of the exit qualification (SDM vol. 3, table 29-7), or of a page fault's error code (APM vol. 2, 15.25.6).
fn access(isa: Isa, value: u64) -> MemoryAccess {
    let (write, fetch) = match isa {
        Isa::Svm => (1 << 1, 1 << 4),
        _ => (1 << 1, 1 << 2),
    };
    match value {
        v if v & fetch != 0 => MemoryAccess::Fetch,
        v if v & write != 0 => MemoryAccess::Write,
        _ => MemoryAccess::Read,
    }
}

#[cfg(test)]
mod tests {
    use tracer_common::Flags;

    use super::*;

    fn of(isa: Isa, reason: u32, source: Source, value: u64) -> Option<String> {
        let exit = Outline::of(reason, Flags::REASON_KNOWN, 0, isa as u8);
        let detail = Detail::of(&exit, RawDetail::new(source, value))?;
        assert_eq!(Detail::parse(&detail.tag()), Some(detail));
        Some(detail.to_string())
    }

    fn vmx(reason: u32, source: Source, value: u64) -> Option<String> {
        of(Isa::Vmx, reason, source, value)
    }

    #[test]
    fn vmx_exits_are_told_apart_by_what_the_manual_says() {
        let qualification = |reason, value| vmx(reason, Source::Qualification, value).unwrap();
        // As read beside a known guest: OUT to port 0x10, immediate.
        assert_eq!(qualification(30, 0x0010_0040), "out 0x10/1");
        assert_eq!(qualification(30, 0x03f8_0000), "out 0x3f8/1 COM1");
        assert_eq!(qualification(30, 0x0060_0008 | 3), "in 0x60/4 keyboard");
        assert_eq!(qualification(28, 0x003), "CR3 write");
        assert_eq!(qualification(28, 0x218), "CR8 read");
        assert_eq!(qualification(28, 0x20), "CR0 clts");
        assert_eq!(qualification(29, 0x17), "DR7 read");
        assert_eq!(qualification(56, 0x300), "0x300 ICR");
        assert_eq!(qualification(44, 0x1_0380), "0x380 TMICT");
        assert_eq!(vmx(1, Source::Interruption, 0x8000_00ec).unwrap(), "0xec local timer");
        assert_eq!(vmx(0, Source::Interruption, 0x8000_0301).unwrap(), "0x1 #DB");
        assert_eq!(vmx(0, Source::Interruption, 0x0301), None, "not valid");
        assert_eq!(vmx(32, Source::Msr, 0x6e0).unwrap(), "0x6e0 TSC_DEADLINE");
        assert_eq!(vmx(10, Source::Cpuid, 7).unwrap(), "0x7.0x0");
        assert_eq!(vmx(10, Source::Cpuid, 0xffff << 32 | 1).unwrap(), "0x1", "ECX means nothing to this leaf");
        assert_eq!(vmx(18, Source::Hypercall, 5).unwrap(), "5 KICK_CPU");
        assert_eq!(vmx(48, Source::Fault, 0x182 | 1 << 32).unwrap(), "write fixed");
        assert_eq!(vmx(48, Source::Fault, 0x184).unwrap(), "fetch no count grew");
        assert_eq!(vmx(49, Source::Address, 0xfed0_00f0).unwrap(), "0xfed000f0 HPET");
    }

    #[test]
    fn svm_exits_are_told_apart_by_what_the_manual_says() {
        let svm = |reason, source, value| of(Isa::Svm, reason, source, value);
        // As read beside a known guest.
        assert_eq!(svm(0x7b, Source::ExitInfo, 0x0010_0010).unwrap(), "out 0x10/1");
        assert_eq!(svm(0x7b, Source::ExitInfo, 0x0064_0011).unwrap(), "in 0x64/1 keyboard");
        assert_eq!(svm(0x7b, Source::ExitInfo, 0x0064_0001), None, "an access of no size");
        assert_eq!(svm(0x7c, Source::MsrWithDirection, 1 << 32 | 0xc000_0080).unwrap(), "write 0xc0000080 EFER");
        assert_eq!(svm(0x7c, Source::MsrWithDirection, 0x10).unwrap(), "read 0x10 TSC");
        assert_eq!(svm(0x402, Source::ExitInfo, 1 << 32 | 0x310).unwrap(), "0x310 ICR2");
        assert_eq!(svm(0x400, Source::Fault, 1 << 1 | 8 << 32).unwrap(), "write emulated");
    }

    #[test]
    fn a_detail_of_an_unread_reason_or_without_a_source_is_none() {
        let unread = Outline::of(30, Flags::NONE, 0, Isa::Vmx as u8);
        assert_eq!(Detail::of(&unread, RawDetail::new(Source::Qualification, 0x0010_0040)), None);
        assert_eq!(vmx(30, Source::None, 7), None);
        let exit = Outline::of(30, Flags::REASON_KNOWN, 0, Isa::Vmx as u8);
        assert_eq!(Detail::of(&exit, RawDetail(0xff << 56)), None);
        assert_eq!(vmx(12, Source::Qualification, 0x182), None, "a halt has none");
    }

    #[test]
    fn a_user_may_name_it_in_several_ways() {
        let means = |detail: Detail, wanted: &[&str]| wanted.iter().all(|wanted| detail.is_meant_by(wanted));
        let deadline = Detail::Msr(0x6e0);
        assert!(means(deadline, &["0x6e0", "0x6E0 tsc_deadline", "TSC_DEADLINE", "msr.6e0"]));
        assert!(!deadline.is_meant_by("0x6e") && !deadline.is_meant_by("") && !deadline.is_meant_by("6e0"));
        let port = Detail::Port { port: 0x3f8, bytes: 1, is_in: false };
        assert!(means(port, &["out 0x3f8/1 COM1", "out 0x3f8/1", "out 0x3f8", "0x3f8", "com1"]));
        assert!(!port.is_meant_by("in 0x3f8") && !port.is_meant_by("out"));
        assert!(means(Detail::Leaf(7, Some(0)), &["0x7.0x0"]) && means(Detail::Other, &["other"]));
    }

    #[test]
    fn only_the_form_that_is_written_is_read() {
        for text in ["msr.06e0", "msr", "msr.6e0.1", "msr.1ffffffff", "in.3f8", "cr.3.4", "fault.0.10", "x.1", ""] {
            assert_eq!(Detail::parse(text), None, "{text}");
        }
        assert_eq!(Detail::parse("other"), Some(Detail::Other));
        assert_eq!(Detail::Msr(0x10).short(), "0x10");
    }
}
