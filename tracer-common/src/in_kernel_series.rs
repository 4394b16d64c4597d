//! The series that the programs count themselves (`--aggregate in-kernel`), instead of writing a record per VM entry.

use crate::{Flags, Isa, Outline, VMX_PREEMPTION_TIMER};

/// Buckets of a distribution: one for each value below 64, then 32 per doubling up to 2^36 ns (68 s). The last bucket also
/// has all higher values.
pub const BUCKETS: usize = 1024;

/// Buckets from a value to its double: a value differs from the middle of its bucket by at most 1/64, 1.6 %.
const PER_DOUBLING: u64 = 32;

/// Highest value with a bucket of its own.
#[cfg(test)]
const HIGHEST: u64 = (1 << 36) - 1;

/// Series that the programs keep; entries of further series are counted as dropped.
pub const MAX_IN_KERNEL_SERIES: usize = 4096;

/// Mark, instead of the address of a `struct kvm`, of a series that user space is taking back: no VM's programs count in it any more.
pub const TAKEN_BACK: u64 = 1;

/// Bucket of a value, below [`BUCKETS`]. A tree of comparisons whose leaves know the shift of their doubling, because BPF has no
/// instruction that counts leading zeros. Values from 0.5 to 4 us take three comparisons, the usual times of exits four at most.
#[must_use]
#[inline(always)]
pub const fn bucket(ns: u64) -> usize {
    macro_rules! within {
        // A node names a doubling: left of it are those before, right of it are this one and those after.
        ([$left:tt $first:literal $right:tt]) => {
            if ns < PER_DOUBLING << $first { within!($left) } else { within!($right) }
        };
        (above) => {
            BUCKETS as u64 - 1
        };
        ($doubling:literal) => {
            (ns >> $doubling) + $doubling * PER_DOUBLING
        };
    }
    let bucket = within!(
        [[[[[0 1 1] 2 [2 3 3]] 4 4] 5 [5 6 6]] 7 [[7 8 [8 9 9]] 10 [[[10 11 [11 12 12]] 13 [[13 14 14] 15 [15 16 16]]] 17 [[[17 18 18] 19 [[19 20 20] 21 [21 22 22]]] 23 [[[23 24 24] 25 [25 26 26]] 27 [[27 28 28] 29 [29 30 [30 31 above]]]]]]]]
    );
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a bucket is below 1024, and programs and user space are 64-bit"
    )]
    let bucket = bucket as usize;
    // Tells the verifier the bound.
    bucket & (BUCKETS - 1)
}

/// Middle of a bucket, which represents its values.
#[must_use]
pub const fn middle(bucket: usize) -> u64 {
    let doubling = (bucket as u64 / PER_DOUBLING).saturating_sub(1);
    let low = (bucket as u64 - doubling * PER_DOUBLING) << doubling;
    low + (1 << doubling) / 2
}

/// One series: its identity, and the counts of its place since the programs were loaded. Counts wrap around, because user space only
/// takes differences; for the same reason they stay when user space takes a place back and another series gets it. Only the hooks of the
/// vCPU in `who` count in a series, and these never run at the same time: one writer, on whatever CPU.
///
/// A sequence count makes the counts of a round visible together. A reader that finds the same even `sequence` before and after it has read
/// the counts has read those of whole rounds: each with its guest time and its pin-control writes. The host time of a round counts in the
/// series of the exit before it, so that it may become visible one look earlier or later than the round's entry.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SeriesCounts {
    /// address of `struct kvm`; 0 in an unused place, which programs claim by a compare-and-exchange, before all else; [`TAKEN_BACK`]
    /// while user space makes it unused again
    pub kvm: u64,
    /// the VMM's process in the high half, KVM's number of the vCPU in the low half; 0 until the identity is complete
    pub who: u64,
    /// [`series_key`] of the entries
    pub key: Outline,
    /// odd while a round is being counted in this series; 0 before the first one
    pub sequence: u64,
    /// sums of these entries' times
    pub sums: TimeSums,
    /// entries with 0, 1, 2, and more pin-control writes; entries whose writes are not known are in none of them
    pub pin_writes: [u32; 4],
    /// entries by guest time, in buckets of ns
    pub entry_to_exit: [u32; BUCKETS],
    /// entries that another entry followed, by the host time until then, in buckets of ns
    pub exit_to_entry: [u32; BUCKETS],
}

/// Sums of times of a series, ns. They wrap around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TimeSums {
    /// guest time
    pub guest_ns: u64,
    /// host time
    pub host_ns: u64,
    /// the parts of the host time, as [`Phases`](crate::host_time::Phases) has them
    pub user_ns: u64,
    /// see [`Self::user_ns`]
    pub idle_ns: u64,
    /// see [`Self::user_ns`]
    pub polled_ns: u64,
    /// see [`Self::user_ns`]
    pub steal_ns: u64,
}

/// The series of an outline, among those of one vCPU. Keeps the exit reason, the level, the timer cause of a preemption-timer exit, and
/// whether there were pin-control writes.
#[must_use]
#[inline(always)]
pub const fn series_key(outline: Outline) -> Outline {
    const OF_TIMERS: u64 = Outline::of(
        0,
        Flags(
            Flags::IMMEDIATE_KNOWN.0
                | Flags::IMMEDIATE.0
                | Flags::SOFT_KNOWN.0
                | Flags::SOFT_DISABLED.0
                | Flags::DEADLINE_READ.0
                | Flags::EARLY.0,
        ),
        0,
        0,
    )
    .0;
    /// basic exit reason and instruction set
    const REASON: u64 = Outline::of(0xffff, Flags::NONE, 0, u8::MAX).0;
    const TIMER: u64 = Outline::of(VMX_PREEMPTION_TIMER, Flags::NONE, 0, Isa::Vmx as u8).0;
    let mut key = series_key_of_svm(outline).0;
    if outline.0 & REASON == TIMER {
        key |= outline.0 & OF_TIMERS;
    }
    if outline.pin_writes() != 0 {
        key |= Outline::of(0, Flags::NONE, 1, 0).0;
    }
    Outline(key)
}

/// [`series_key`] of an outline of SVM, which has neither preemption timers nor pin controls.
#[must_use]
#[inline(always)]
pub const fn series_key_of_svm(outline: Outline) -> Outline {
    const OF_ALL: u64 = Outline::of(
        u32::MAX,
        Flags(Flags::LEVEL_KNOWN.0 | Flags::L2.0 | Flags::PIN_WRITES_KNOWN.0 | Flags::REASON_KNOWN.0),
        0,
        u8::MAX,
    )
    .0;
    Outline(outline.0 & OF_ALL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_differs_from_the_middle_of_its_bucket_by_at_most_a_64th() {
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
    fn a_series_key_keeps_reason_level_timer_cause_and_whether_there_were_pin_writes() {
        let flags =
            Flags::LEVEL_KNOWN | Flags::L2 | Flags::REASON_KNOWN | Flags::PIN_WRITES_KNOWN | Flags::IMMEDIATE_KNOWN;
        let kept = series_key(Outline::of(0x8000_000a, flags | Flags::PIN_READ, 2, 1));
        assert_eq!((kept.reason(), kept.is_l2(), kept.known_pin_writes()), (Some(0x8000_000a), Some(true), Some(1)));
        assert_eq!(kept, series_key(Outline::of(0x8000_000a, flags | Flags::IMMEDIATE, 1, 1)), "of timers only");
        let timer = |flags| Outline::of(52, flags, 0, 1);
        let deadline = timer(flags | Flags::SOFT_KNOWN);
        assert_eq!(series_key(deadline).timer_cause(), deadline.timer_cause());
        assert_ne!(series_key(deadline), series_key(timer(flags | Flags::SOFT_KNOWN | Flags::IMMEDIATE)));
        let svm = Outline::of(52, flags, 0, 2);
        assert_eq!(series_key(svm), series_key_of_svm(svm));
        assert_eq!(series_key(svm).flags().0 & Flags::IMMEDIATE_KNOWN.0, 0);
    }
}
