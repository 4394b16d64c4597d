//! What the programs keep of a series where they aggregate themselves, instead of a record per VM entry.

use crate::{Flags, Isa, Outline, VMX_PREEMPTION_TIMER};

/// Buckets of a figure: values below 64 have one each, then there are [`PER_DOUBLING`] to a doubling, up to 2^36 ns (68 s), in whose
/// bucket all higher values are, too.
pub const BUCKETS: usize = 1024;

/// Buckets from a value to its double: a value is at most 1/64, 1.6 %, from its bucket's middle.
pub const PER_DOUBLING: u64 = 32;

/// Highest value with a bucket of its own.
const HIGHEST: u64 = (1 << 36) - 1;

/// Series that are kept; entries of those beyond are counted as dropped.
pub const MAX_TALLIES: usize = 4096;

/// Bucket of a value, below [`BUCKETS`]. A shift found in five steps: the kernel's programs have no instruction for it.
#[must_use]
#[inline(always)]
pub const fn bucket(ns: u64) -> usize {
    let mut sub = if ns > HIGHEST { HIGHEST } else { ns };
    let mut doubling = 0;
    if sub >= 1 << 21 {
        (sub, doubling) = (sub >> 16, 16);
    }
    if sub >= 1 << 13 {
        (sub, doubling) = (sub >> 8, doubling + 8);
    }
    if sub >= 1 << 9 {
        (sub, doubling) = (sub >> 4, doubling + 4);
    }
    if sub >= 1 << 7 {
        (sub, doubling) = (sub >> 2, doubling + 2);
    }
    if sub >= 1 << 6 {
        (sub, doubling) = (sub >> 1, doubling + 1);
    }
    (doubling * PER_DOUBLING + sub) as usize & (BUCKETS - 1)
}

/// Middle of a bucket, which stands for its values.
#[must_use]
pub const fn middle(bucket: usize) -> u64 {
    let doubling = (bucket as u64 / PER_DOUBLING).saturating_sub(1);
    let low = (bucket as u64 - doubling * PER_DOUBLING) << doubling;
    low + (1 << doubling) / 2
}

/// A series: whose entries, and their counts since the programs were loaded. Counts wrap around: what user space wants is how much they
/// have grown.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Tally {
    /// address of `struct kvm`; 0 where there is no series. Claimed first
    pub kvm: u64,
    /// the VMM's process in the high half, KVM's number of the vCPU in the low one; written last
    pub who: u64,
    /// [`what`] the entries have in common
    pub what: u64,
    /// changes after a count of this series has
    pub changes: u64,
    /// entries by pin-control writes: none, one, two, more; where they are not known, none
    pub pin_writes: [u32; 4],
    /// entries by ns from kvm_entry to kvm_exit
    pub entry_to_exit: [u32; BUCKETS],
    /// those that were followed by another by ns from kvm_exit to that kvm_entry
    pub exit_to_entry: [u32; BUCKETS],
}

/// What tells series of one vCPU apart, in a word: of the outline what a series' key is made of.
#[must_use]
#[inline(always)]
pub const fn what(outline: &Outline) -> u64 {
    let of_all = Flags::LEVEL_KNOWN.0 | Flags::L2.0 | Flags::PIN_WRITES_KNOWN.0 | Flags::REASON_KNOWN.0;
    let of_timers = Flags::IMMEDIATE_KNOWN.0 | Flags::IMMEDIATE.0 | Flags::SOFT_KNOWN.0 | Flags::SOFT_DISABLED.0;
    let is_timer = outline.isa == Isa::Vmx as u8 && outline.exit_reason & 0xffff == VMX_PREEMPTION_TIMER;
    let flags = outline.flags.0 & if is_timer { of_all | of_timers } else { of_all };
    let dirty = (outline.pin_writes != 0) as u64;
    outline.exit_reason as u64 | (flags as u64) << 32 | dirty << 48 | (outline.isa as u64) << 56
}

/// An outline of such entries.
#[must_use]
pub const fn outline(what: u64) -> Outline {
    Outline {
        exit_reason: what as u32,
        flags: Flags((what >> 32) as u16),
        pin_writes: (what >> 48) as u8,
        isa: (what >> 56) as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_within_a_64th_of_its_buckets_middle() {
        let mut last = 0;
        for value in (0..5000).chain((6..36).flat_map(|n| [(1 << n) - 1, 1 << n, (1 << n) + 1, 3 << (n - 1)])) {
            let middle = middle(bucket(value));
            assert!(middle.abs_diff(value) * 64 <= value, "{value} in the bucket of {middle}");
        }
        for value in 0..100_000 {
            assert!(bucket(value) == last || bucket(value) == last + 1);
            last = bucket(value);
        }
        assert_eq!((bucket(HIGHEST), bucket(HIGHEST + 1), bucket(u64::MAX)), (1023, 1023, 1023));
    }

    #[test]
    fn an_outline_keeps_what_a_series_is_told_by() {
        let flags =
            Flags::LEVEL_KNOWN | Flags::L2 | Flags::REASON_KNOWN | Flags::PIN_WRITES_KNOWN | Flags::IMMEDIATE_KNOWN;
        let cpuid = Outline { exit_reason: 0x8000_000a, flags: flags | Flags::PIN_READ, pin_writes: 2, isa: 1 };
        let kept = outline(what(&cpuid));
        assert_eq!((kept.reason(), kept.is_l2(), kept.known_pin_writes()), (Some(0x8000_000a), Some(true), Some(1)));
        let timer = Outline { exit_reason: 52, flags: flags | Flags::SOFT_KNOWN, pin_writes: 0, isa: 1 };
        assert_eq!(outline(what(&timer)).timer_cause(), timer.timer_cause());
        assert_ne!(what(&timer), what(&Outline { flags: timer.flags | Flags::IMMEDIATE, ..timer }));
        assert_eq!(what(&cpuid), what(&Outline { flags: cpuid.flags | Flags::IMMEDIATE, ..cpuid }), "of timers only");
    }
}
