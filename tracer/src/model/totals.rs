//! Counts of a stretch of time that are no distributions: the account of entries, and writes and timer exits by other witnesses.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tracer_common::{
    Isa,
    config::MAX_SITES,
    rules::{Control, Writes},
};

use crate::model::vendor::Vendor;

/// Counts of a stretch of time that are no distributions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// rounds closed by a kvm_exit, as the kernel counted them: delivered + dropped
    pub entries: u64,
    /// entries whose record arrived
    pub delivered: u64,
    /// entries whose record found the ring full; with in-kernel aggregation, entries whose series found no place
    pub dropped: u64,
    /// kvm_entry without kvm_exit, and kvm_exit without kvm_entry; where `evicted` is none, also entries that found no room for their
    /// vCPU's state
    pub unmatched: u64,
    /// of `delivered`: records that failed to decode; should be 0
    pub malformed: u64,
    /// of `delivered`: entries over the limit of series in an interval
    pub not_kept: u64,
    /// kvm_entry events of TDX guests, which are in no other count
    pub td_entries: u64,
    /// of `delivered`: entries of another instruction set than that of the host's KVM module, whose fields were therefore not read; none where
    /// nobody looked
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign_isa: Option<u64>,
    /// times that the places for vCPUs' states were too few: a state was evicted, which makes the vCPU's open round unmatched and its past
    /// unknown, or an entry found no place and was not traced; none where nobody counted them apart
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evicted: Option<u64>,
    /// control writes, from the companion patch's tracepoint; null without it
    #[serde(default)]
    pub control_writes: Option<ControlWrites>,
    /// pin-control writes by the shadow method, of all entries where they are known; none where nobody counted them apart
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow_pin_writes: Option<u64>,
    /// preemption-timer exits as the companion patch classified them; null without it
    #[serde(default)]
    pub traced_timer_exits: Option<TracedTimerExits>,
    /// entries without `transition_ns` because the guest's cycles by the stopwatch exceed all cycles of the round: the stopwatch counts in
    /// steps, or the timer that it reads is wrong; none without the stopwatch, and where nobody counted them
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopwatch_excesses: Option<u64>,
    /// host times whose parts are not known exactly: they added up to more and were cut, or another thread had run the vCPU before; none where
    /// nobody split host times
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inexact_phases: Option<u64>,
    /// bound of the error of `deadline_late_ns` and `deadline_remaining_ns`, the largest of all timer exits, ns; none without one
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_error_ns: Option<u64>,
    /// executions of each VMWRITE site, in the order of the header's `sites`
    #[serde(default)]
    pub site_writes: [u64; MAX_SITES],
}

/// VMWRITEs to VMCS controls, each one counted by the companion patch's tracepoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlWrites {
    /// to vmcs01, in the order of [`Control::ALL`]
    pub vmcs01: [u64; 6],
    /// to vmcs02
    pub vmcs02: [u64; 6],
    /// entries into L1 whose writes are known
    pub entries_l1: u64,
    /// entries into L2 whose writes are known
    pub entries_l2: u64,
    /// entries for which the shadow method counts another number of pin-control writes
    pub shadow_differs: u64,
}

/// VMX-preemption-timer exits by cause, from the companion patch's tracepoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedTimerExits {
    /// the guest's timer was due
    pub deadline: u64,
    /// forced by KVM
    pub immediate: u64,
    /// the timer was soft-disabled
    pub spurious: u64,
    /// the guest's timer was not due yet; none where the companion patch has no lateness, and these are among those that were due
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early: Option<u64>,
}

impl Totals {
    /// Adds another's counts.
    pub fn merge(&mut self, other: &Totals) {
        add(&mut self.entries, other.entries);
        add(&mut self.delivered, other.delivered);
        add(&mut self.dropped, other.dropped);
        add(&mut self.unmatched, other.unmatched);
        add(&mut self.malformed, other.malformed);
        add(&mut self.not_kept, other.not_kept);
        add(&mut self.td_entries, other.td_entries);
        add_counted(&mut self.foreign_isa, other.foreign_isa);
        add_counted(&mut self.evicted, other.evicted);
        add_counted(&mut self.shadow_pin_writes, other.shadow_pin_writes);
        add_counted(&mut self.stopwatch_excesses, other.stopwatch_excesses);
        add_counted(&mut self.inexact_phases, other.inexact_phases);
        self.deadline_error_ns = self.deadline_error_ns.max(other.deadline_error_ns);
        for (mine, theirs) in self.site_writes.iter_mut().zip(other.site_writes) {
            add(mine, theirs);
        }
        if let Some(other) = &other.control_writes {
            self.control_writes.get_or_insert_default().merge(other);
        }
        if let Some(other) = &other.traced_timer_exits {
            let mine = self.traced_timer_exits.get_or_insert_default();
            add(&mut mine.deadline, other.deadline);
            add(&mut mine.immediate, other.immediate);
            add(&mut mine.spurious, other.spurious);
            add_counted(&mut mine.early, other.early);
        }
    }

    /// Every count, so that a reader can bound their sum.
    pub fn counts(&self) -> impl Iterator<Item = u64> {
        let writes = self.control_writes.unwrap_or_default();
        let exits = self.traced_timer_exits.unwrap_or_default();
        [self.entries, self.delivered, self.dropped, self.unmatched, self.malformed, self.not_kept, self.td_entries]
            .into_iter()
            .chain(
                [self.foreign_isa, self.shadow_pin_writes, self.evicted, self.stopwatch_excesses, self.inexact_phases]
                    .map(Option::unwrap_or_default),
            )
            .chain(self.site_writes)
            .chain(writes.vmcs01)
            .chain(writes.vmcs02)
            .chain([writes.entries_l1, writes.entries_l2, writes.shadow_differs])
            .chain([exits.deadline, exits.immediate, exits.spurious, exits.early.unwrap_or_default()])
    }
}

/// Adds; a damaged file's counts saturate at 2^64 - 1.
pub(crate) fn add(mine: &mut u64, theirs: u64) {
    *mine = mine.saturating_add(theirs);
}

/// Adds a count that not every recording has: none only where neither was counted.
fn add_counted(mine: &mut Option<u64>, theirs: Option<u64>) {
    if let Some(theirs) = theirs {
        add(mine.get_or_insert_default(), theirs);
    }
}

impl ControlWrites {
    fn merge(&mut self, other: &ControlWrites) {
        for lane in 0..6 {
            add(&mut self.vmcs01[lane], other.vmcs01[lane]);
            add(&mut self.vmcs02[lane], other.vmcs02[lane]);
        }
        add(&mut self.entries_l1, other.entries_l1);
        add(&mut self.entries_l2, other.entries_l2);
        add(&mut self.shadow_differs, other.shadow_differs);
    }

    /// Counts an entry's writes. `shadow`: its pin-control writes by the shadow method, where they are known.
    pub fn record(&mut self, writes: Writes, l2: bool, shadow: Option<u64>) {
        let (counts, entries) =
            if l2 { (&mut self.vmcs02, &mut self.entries_l2) } else { (&mut self.vmcs01, &mut self.entries_l1) };
        *entries += 1;
        for (control, count) in Control::ALL.into_iter().zip(counts) {
            *count += u64::from(writes.of(control));
        }
        self.shadow_differs += u64::from(shadow.is_some_and(|s| s != u64::from(writes.of(Control::Pin))));
    }
}

/// Says how many entries are of another instruction set than that of the host's KVM module (none where hosts differ); none where none are.
/// `isas` are those of all entries.
pub(crate) fn foreign_isa_text(
    totals: &Totals,
    vendor: Option<Vendor>,
    isas: impl IntoIterator<Item = Isa>,
) -> Option<String> {
    let own = vendor.and_then(Vendor::isa);
    let foreign: BTreeSet<_> = isas.into_iter().filter(|isa| own.is_some_and(|own| own != *isa)).collect();
    let names: Vec<_> = foreign.into_iter().map(|isa| isa.name().to_uppercase()).collect();
    let names = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
    let module = vendor.and_then(Vendor::module).unwrap_or("the KVM module");
    let Totals { foreign_isa, entries, .. } = totals;
    foreign_isa.filter(|n| *n > 0).map(|n| {
        format!(
            "{n} of {entries} entries are of another instruction set{names} than {module}'s layout: their exit reasons, levels and \
             pin writes are unknown"
        )
    })
}
