//! The programs' counters, one set per CPU.

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Counters of one CPU since the programs were loaded: eight-byte words in this order, native endian.
///
/// `delivered + dropped == rounds` holds exactly, with `delivered` counted in user space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Counters {
    /// rounds that a kvm_exit closed: the entries of every report
    pub rounds: u64,
    /// rounds whose record found the ring full; with `--aggregate in-kernel`, rounds whose series found no place
    pub dropped: u64,
    /// kvm_entry events that no kvm_exit followed (`vmx->fail`, a vCPU replaced in between)
    pub unmatched_entries: u64,
    /// kvm_exit events without a kvm_entry (the vCPU ran its guest when the programs were attached, or its state was evicted)
    pub unmatched_exits: u64,
    /// kvm_entry events of TDX guests, which are not traced: their state cannot be read
    pub td_entries: u64,
    /// kvm_entry events that found no place for the vCPU's state; their rounds are not traced
    pub no_state: u64,
    /// preemption-timer exits by the companion patch's `enum kvm_preemption_timer_cause`: spurious, immediate, deadline; the last
    /// count is for causes added to that enum later
    pub traced_timer_exits: [u64; 4],
    /// number of the first record that the ring has no room for until user space has taken more; used by the programs only
    pub room: u64,
    /// number of the round that wakes user space; used by the programs only
    pub wake_at: u64,
    /// a value on its way through memory, where the verifier forgets how it came about; used by the programs only
    pub scratch: u64,
    /// states of vCPUs that gave their place to those of other vCPUs: their next kvm_exit is unmatched, and their past is unknown at
    /// their next kvm_entry
    pub evicted: u64,
    /// preemption-timer exits that the companion patch saw before their deadline; these are among its deadline exits, too
    pub traced_early_exits: u64,
    /// rounds whose cycles in the guest, by the companion patch's stopwatch, exceed all cycles of the round: they have no transition
    pub stopwatch_excesses: u64,
    /// host times whose parts are not what they were: they added up to more and were cut, or another thread ran the vCPU before
    pub inexact_phases: u64,
}

impl Counters {
    /// Words of one CPU's counters.
    pub const WORDS: usize = 17;

    /// From one CPU's words.
    #[must_use]
    pub const fn from_words(words: [u64; Self::WORDS]) -> Self {
        zerocopy::transmute!(words)
    }
}
