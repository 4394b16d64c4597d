//! What a program reads about an exit beyond its reason: one word, whose highest byte says where it comes from.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::Isa;

/// A word about an exit; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable)]
#[repr(transparent)]
pub struct RawDetail(pub u64);

/// Where the value of a [`RawDetail`] comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Source {
    /// there is none
    None = 0,
    /// the exit qualification (VMX), 56 bits of it
    Qualification = 1,
    /// VM-exit interruption information (VMX), 32 bits
    Interruption = 2,
    /// ECX: the number of an MSR that was read or written (VMX)
    Msr = 3,
    /// EAX, and 24 bits of ECX above it: a CPUID leaf and its subleaf
    Cpuid = 4,
    /// EAX: a hypercall's number
    Hypercall = 5,
    /// EXITINFO1 (SVM), 56 bits of it
    ExitInfo = 6,
    /// ECX, and bit 0 of EXITINFO1 above it: an MSR, and whether it was written (SVM)
    MsrWithDirection = 7,
    /// a fault of nested paging: 32 bits of the exit qualification or of EXITINFO1, and [`Outcome`] above them
    Fault = 8,
    /// the guest-physical address of an access that KVM emulated, 56 bits
    Address = 9,
    /// CX: a Hyper-V hypercall's code
    HypervCall = 10,
}

/// How KVM ended a fault of nested paging: bits of the counts in `kvm_vcpu.stat` that grew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome(pub u8);

impl Outcome {
    /// a page was mapped (`pf_fixed`)
    pub const FIXED: Self = Self(1);
    /// fixed without the lock of the page tables (`pf_fast`)
    pub const FAST: Self = Self(2);
    /// there was nothing to do (`pf_spurious`)
    pub const SPURIOUS: Self = Self(4);
    /// the instruction was emulated (`pf_emulate`)
    pub const EMULATED: Self = Self(8);
}

impl Source {
    const ALL: [Self; 11] = [
        Self::None,
        Self::Qualification,
        Self::Interruption,
        Self::Msr,
        Self::Cpuid,
        Self::Hypercall,
        Self::ExitInfo,
        Self::MsrWithDirection,
        Self::Fault,
        Self::Address,
        Self::HypervCall,
    ];

    /// The source of an exit's detail, by the basic exit reason or the exit code (SDM vol. 3, appendix C; APM vol. 2, appendix C).
    #[must_use]
    #[inline(always)]
    pub const fn of_exit(isa: Isa, reason: u32) -> Self {
        match isa {
            Isa::Vmx => match reason & 0xffff {
                0 | 1 => Self::Interruption,
                10 => Self::Cpuid,
                18 => Self::Hypercall,
                28..=30 | 44 | 45 | 56 => Self::Qualification,
                31 | 32 => Self::Msr,
                48 => Self::Fault,
                _ => Self::None,
            },
            Isa::Svm => match reason {
                0x72 => Self::Cpuid,
                0x7b | 0x402 => Self::ExitInfo,
                0x7c => Self::MsrWithDirection,
                0x81 => Self::Hypercall,
                0x400 => Self::Fault,
                _ => Self::None,
            },
            Isa::Other => Self::None,
        }
    }
}

impl RawDetail {
    /// No detail.
    pub const NONE: Self = Self(0);
    /// Bits of a value.
    const VALUE: u64 = (1 << 56) - 1;

    /// A value from a source; its highest byte is lost.
    #[must_use]
    #[inline(always)]
    pub const fn new(source: Source, value: u64) -> Self {
        Self((source as u64) << 56 | value & Self::VALUE)
    }

    /// Where it comes from; none for a number that no source has.
    #[must_use]
    #[inline]
    pub fn source(self) -> Option<Source> {
        Source::ALL.into_iter().find(|source| self.is_from(*source))
    }

    /// Whether it comes from this source.
    #[must_use]
    #[inline(always)]
    pub const fn is_from(self, source: Source) -> bool {
        self.0 >> 56 == source as u64
    }

    /// The value.
    #[must_use]
    #[inline(always)]
    pub const fn value(self) -> u64 {
        self.0 & Self::VALUE
    }
}
