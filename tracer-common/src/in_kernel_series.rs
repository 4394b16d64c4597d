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

/// Bucket of a value, below [`BUCKETS`]. By a tree of comparisons that knows each doubling's shift: the kernel's programs have no
/// instruction that finds it.
#[must_use]
#[inline(always)]
pub const fn bucket(ns: u64) -> usize {
    macro_rules! within {
        // Left of a node are the doublings before the one that it names, right of it that one and those after it.
        ([$left:tt $first:literal $right:tt]) => {
            if ns < PER_DOUBLING << $first { within!($left) } else { within!($right) }
        };
        ($doubling:literal) => {
            (ns >> $doubling) + $doubling * PER_DOUBLING
        };
    }
    if ns > HIGHEST {
        return BUCKETS - 1;
    }
    let bucket = within!(
        [[[[0 1 [1 2 2]] 3 [[3 4 4] 5 [5 6 6]]] 7 [[[7 8 8] 9 [9 10 10]] 11 [[11 12 12] 13 [13 14 14]]]] 15 [[[[15 16 16] 17 [17 18 18]] 19 [[19 20 20] 21 [21 22 22]]] 23 [[[23 24 24] 25 [25 26 26]] 27 [[27 28 28] 29 [29 30 30]]]]]
    );
    bucket as usize & (BUCKETS - 1)
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
    pub what: Outline,
    /// changes after a count of this series has
    pub changes: u64,
    /// entries by pin-control writes: none, one, two, more; where they are not known, none
    pub pin_writes: [u32; 4],
    /// entries by ns from kvm_entry to kvm_exit
    pub entry_to_exit: [u32; BUCKETS],
    /// those that were followed by another by ns from kvm_exit to that kvm_entry
    pub exit_to_entry: [u32; BUCKETS],
}

/// What tells series of one vCPU apart, in a word: of the outline what a series' key is made of; of pin writes, whether there are any.
#[must_use]
#[inline(always)]
pub const fn what(outline: Outline) -> Outline {
    const OF_ALL: u64 = Outline::of(
        u32::MAX,
        Flags(Flags::LEVEL_KNOWN.0 | Flags::L2.0 | Flags::PIN_WRITES_KNOWN.0 | Flags::REASON_KNOWN.0),
        0,
        u8::MAX,
    )
    .0;
    const OF_TIMERS: u64 = Outline::of(
        0,
        Flags(Flags::IMMEDIATE_KNOWN.0 | Flags::IMMEDIATE.0 | Flags::SOFT_KNOWN.0 | Flags::SOFT_DISABLED.0),
        0,
        0,
    )
    .0;
    /// basic exit reason, and whose it is
    const REASON: u64 = Outline::of(0xffff, Flags::NONE, 0, u8::MAX).0;
    const TIMER: u64 = Outline::of(VMX_PREEMPTION_TIMER, Flags::NONE, 0, Isa::Vmx as u8).0;
    let mut what = outline.0 & OF_ALL;
    if outline.0 & REASON == TIMER {
        what |= outline.0 & OF_TIMERS;
    }
    if outline.pin_writes() != 0 {
        what |= Outline::of(0, Flags::NONE, 1, 0).0;
    }
    Outline(what)
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
        let kept = what(Outline::of(0x8000_000a, flags | Flags::PIN_READ, 2, 1));
        assert_eq!((kept.reason(), kept.is_l2(), kept.known_pin_writes()), (Some(0x8000_000a), Some(true), Some(1)));
        assert_eq!(kept, what(Outline::of(0x8000_000a, flags | Flags::IMMEDIATE, 1, 1)), "of timers only");
        let timer = |flags| Outline::of(52, flags, 0, 1);
        let deadline = timer(flags | Flags::SOFT_KNOWN);
        assert_eq!(what(deadline).timer_cause(), deadline.timer_cause());
        assert_ne!(what(deadline), what(timer(flags | Flags::SOFT_KNOWN | Flags::IMMEDIATE)));
        let svm = Outline::of(52, flags, 0, 2);
        assert_eq!(what(svm).flags().0 & Flags::IMMEDIATE_KNOWN.0, 0);
    }
}
