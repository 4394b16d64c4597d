//! Judges the recording of running VMs: every count is a sum of others.

use super::{
    super::{
        values::{Host, Percentiles, Recording},
        words,
    },
    BUCKET, Findings, SHARE_ERROR, sum,
};
use crate::{model::vendor::Vendor, output::printable};

/// Longest recording that is one of half a minute, s.
const MOST_SECONDS: f64 = 60.0;
/// The exit reason of the preemption timer, with or without a modifier behind it.
const TIMER: &str = "PREEMPTION_TIMER";

impl Findings {
    pub(super) fn recording(&mut self, host: &Host, recording: &Recording) {
        let Recording { length_s, entries, delivered, dropped, not_kept, .. } = *recording;
        let is_length = length_s > 0.0 && length_s <= MOST_SECONDS;
        self.unless(is_length, format!("recording.length_s is not more than 0 and at most {MOST_SECONDS}: {length_s}"));
        self.unless(recording.exact, "recording: the kernel's counts and the delivered records disagree");
        self.unless(entries > 0, "recording: no entries, and so no VM ran");
        self.unless(
            Some(entries) == delivered.checked_add(dropped),
            "recording: entries are not delivered and dropped",
        );
        let kept = delivered.checked_sub(not_kept);
        let of_vms = sum(recording.vms.iter().map(|vm| vm.entries));
        let of_reasons = sum(recording.reasons.iter().map(|reason| reason.entries));
        self.unless(kept == Some(of_vms), "recording: the entries of the VMs do not add up");
        self.unless(kept == Some(of_reasons), "recording: the entries of the exit reasons do not add up");
        self.vms(recording);
        self.reasons(host, recording, kept.unwrap_or(0));
        self.pin_writes(host, recording, kept.unwrap_or(0));
        self.timer_exits(host, recording);
    }

    fn vms(&mut self, recording: &Recording) {
        self.shares("recording: host_time_share of the VMs", recording.vms.iter().map(|vm| vm.host_time_share));
        for (at, vm) in recording.vms.iter().enumerate() {
            let Some(writes) = &vm.pin_writes else { continue };
            let of = format!("pin_writes of VM {}", at + 1);
            self.spread(&of, writes, None);
            self.unless(writes.count <= vm.entries, format!("{of}: more than its entries"));
        }
    }

    fn reasons(&mut self, host: &Host, recording: &Recording, kept: u64) {
        let rows = &recording.reasons;
        self.shares("recording: exit_share of the exit reasons", rows.iter().map(|row| row.exit_share));
        self.shares("recording: host_time_share of the exit reasons", rows.iter().map(|row| row.host_time_share));
        for (at, row) in rows.iter().enumerate() {
            let name = row.reason.as_deref().unwrap_or("unknown");
            let shown = printable(name, 40);
            if let Some(reason) = &row.reason {
                self.text(words::is_reason(host.vendor, reason), "an exit reason", reason, "one of the host's module");
            }
            let is_new = rows[..at].iter().all(|other| other.reason != row.reason);
            self.unless(is_new, format!("recording: the exit reason {shown} is there twice"));
            let share = row.entries as f64 / kept.max(1) as f64;
            let is_share = row.exit_share.is_none_or(|given| (given - share).abs() <= SHARE_ERROR);
            self.unless(is_share, format!("recording: exit_share of {shown} is not that of its entries"));
            for (of, time) in [("guest_time_ns", row.guest_time_ns), ("host_time_ns", row.host_time_ns)] {
                let Some(time) = &time else { continue };
                self.spread(&format!("{of} of {shown}"), time, Some(recording.length_s * 1e9 * (1.0 + BUCKET)));
                // The first host time of a vCPU may follow an exit whose entry was before the recording.
                let most = if of == "guest_time_ns" { row.entries } else { kept };
                self.unless(time.count <= most, format!("{of} of {shown}: more values than entries"));
            }
        }
    }

    fn pin_writes(&mut self, host: &Host, recording: &Recording, kept: u64) {
        let Recording { pin_writes, pin_writes_source, unknown_pin_writes, vms, .. } = recording;
        if let Some(source) = pin_writes_source {
            let is_known = words::is_pin_source(source);
            self.text(is_known, "recording.pin_writes_source", source, "shadow or tracepoint");
        }
        let is_vmx = host.vendor == Some(Vendor::Intel);
        let has_any = pin_writes.is_some() || pin_writes_source.is_some();
        self.unless(is_vmx || !has_any, "recording: pin-control writes, which only VMX has");
        let known: Vec<&Percentiles> = vms.iter().filter_map(|vm| vm.pin_writes.as_ref()).collect();
        let counted = sum(known.iter().map(|writes| writes.count)).saturating_add(*unknown_pin_writes);
        self.unless(counted == kept, "recording: entries with known and with unknown pin writes do not add up");
        let writes: f64 = known.iter().map(|writes| writes.mean * writes.count as f64).sum();
        let is_sum = match pin_writes {
            Some(all) => (writes - *all as f64).abs() <= 0.5 + 0.001 * writes.abs(),
            None => known.is_empty(),
        };
        self.unless(is_sum, format!("recording: pin_writes is not the sum of those of the VMs, {writes:.0}"));
    }

    fn timer_exits(&mut self, host: &Host, recording: &Recording) {
        let exits = &recording.timer_exits;
        let causes = [exits.deadline, exits.immediate, exits.spurious, exits.early, exits.unknown];
        let all = sum(causes.into_iter().flatten());
        let is_timer = |reason: &str| reason == TIMER || reason.starts_with(&format!("{TIMER} ("));
        let rows = recording.reasons.iter().filter(|row| row.reason.as_deref().is_none_or(is_timer));
        let most = sum(rows.map(|row| row.entries));
        self.unless(all <= most, format!("recording: {all} timer exits by cause, and {most} exits of the timer"));
        let is_vmx = host.vendor == Some(Vendor::Intel);
        self.unless(is_vmx || all == 0, "recording: exits of the preemption timer, which only VMX has");
    }
}
