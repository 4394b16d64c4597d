//! The account of a collection: entries, records delivered and dropped, by CPU.

use serde::{Deserialize, Serialize};

/// The accounting at the end of a collection: the kernel's count against the records that arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accounting {
    /// `entries == delivered + dropped` holds on every CPU; with in-kernel aggregation, over all CPUs
    pub exact: bool,
    /// vCPUs that were running their guest when the programs were detached
    pub open: u64,
    /// one per CPU that had an entry
    pub cpus: Vec<CpuAccount>,
    /// of all CPUs: entries that the recorder left out, because another build of the KVM module was loaded; null for none
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
}

/// Entries whose intervals were not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// delivered + dropped
    pub entries: u64,
    /// entries whose record arrived
    pub delivered: u64,
    /// entries that were lost before
    pub dropped: u64,
}

/// One CPU's accounting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuAccount {
    /// number of the CPU
    pub cpu: u32,
    /// rounds closed, by the kernel's counter
    pub entries: u64,
    /// records that arrived; with in-kernel aggregation, entries that were not dropped
    pub delivered: u64,
    /// rounds that found the ring full, by the kernel's counter
    pub dropped: u64,
}
