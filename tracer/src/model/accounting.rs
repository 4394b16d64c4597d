//! The account of a collection: entries, records delivered and dropped, by CPU.

use serde::{Deserialize, Serialize};

/// The balance at the end of a collection, by two independent witnesses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accounting {
    /// what the kernel counted and what arrived agree on every CPU (of entries counted in the kernel: of all CPUs together):
    /// `entries == delivered + dropped`
    pub exact: bool,
    /// vCPUs that were running their guest when the programs were detached
    pub open: u64,
    /// by CPU: number, entries and dropped as the kernel counted them, delivered as they arrived
    pub cpus: Vec<CpuAccount>,
}

/// One CPU's balance. CPUs without an entry are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuAccount {
    /// number of the CPU
    pub cpu: u32,
    /// rounds closed, by the kernel's counter
    pub entries: u64,
    /// records that arrived; of entries counted in the kernel, all that were not dropped
    pub delivered: u64,
    /// rounds that found the ring full, by the kernel's counter
    pub dropped: u64,
}
