//! The kernel's own account of what it saw, one per CPU.

/// Counters of one CPU since the programs were loaded. Eight-byte words in this order, native endian.
///
/// `delivered + dropped == rounds` holds exactly, with `delivered` counted in user space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// rounds that were closed by a kvm_exit: the entries of every report
    pub rounds: u64,
    /// rounds whose record found the ring full
    pub dropped: u64,
    /// kvm_entry events that no kvm_exit followed (`vmx->fail`, a vCPU replaced in the middle)
    pub unmatched_entries: u64,
    /// kvm_exit events without a kvm_entry (the vCPU ran its guest when the programs were attached)
    pub unmatched_exits: u64,
    /// kvm_entry events of TDX guests, which are left out: their state cannot be read
    pub td_entries: u64,
    /// kvm_entry events that found no room for the vCPU's state, so that the round is lost
    pub no_state: u64,
    /// preemption-timer exits as the companion patch classified them, by its `enum kvm_preemption_timer_cause`: spurious,
    /// immediate, deadline; the last is for causes it did not have when this was written
    pub traced_timer_exits: [u64; 4],
    /// records that the ring has room for until user space has taken more: the programs' own
    pub room: u64,
    /// rounds after which user space is woken: the programs' own
    pub wake_at: u64,
    /// what a search found: the programs' own
    pub found: u64,
    /// so that no cache line is two CPUs'
    pub unused: [u64; 3],
}

impl Counters {
    /// Words of one CPU's counters.
    pub const WORDS: usize = 16;

    /// From one CPU's words.
    #[must_use]
    pub const fn from_words(words: [u64; Self::WORDS]) -> Self {
        let [
            rounds,
            dropped,
            unmatched_entries,
            unmatched_exits,
            td_entries,
            no_state,
            a,
            b,
            c,
            d,
            room,
            wake_at,
            found,
            unused @ ..,
        ] = words;
        let traced_timer_exits = [a, b, c, d];
        Self {
            rounds,
            dropped,
            unmatched_entries,
            unmatched_exits,
            td_entries,
            no_state,
            traced_timer_exits,
            room,
            wake_at,
            found,
            unused,
        }
    }
}

const _: () = assert!(size_of::<Counters>() == Counters::WORDS * 8);
