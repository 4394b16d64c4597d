//! The one table of metrics: name, kind, unit, labels, help. The encoders walk it; the dashboards' check reads it from
//! `vmentry export --list-metrics`.

use serde_json::{Value, json};

use crate::model::figures::Figure;

/// Form of a metric's samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// grows, or starts anew
    Counter,
    /// goes up and down
    Gauge,
    /// classic and native buckets, sum and count
    Histogram,
    /// 1, and what it says is in its labels
    Info,
}

impl Kind {
    /// Lower-case name, as OpenMetrics has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// name of its samples: with `_total` or `_info`, without `_bucket`, `_sum`, `_count`
    pub name: &'static str,
    /// form of its samples
    pub kind: Kind,
    /// seconds, bytes; empty for plain numbers
    pub unit: &'static str,
    /// names of its labels; where one is `vm`, those of [`VM_LABELS`] that were asked for follow
    pub labels: &'static [&'static str],
    /// what it tells
    pub help: &'static str,
}

/// Labels that tell VMs apart beside `vm`, the VM's name; `host` only in reports on several hosts.
pub const VM_LABELS: [&str; 3] = ["host", "pid", "ordinal"];

const fn metric(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind, unit, labels, help }
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    metric(name, Kind::Counter, "", labels, help)
}

/// Durations of entries, by the exit that ended them.
pub const ENTRY_TO_EXIT: Metric = metric(
    "vmentry_entry_to_exit_seconds",
    Kind::Histogram,
    "seconds",
    &["vm", "level", "exit_reason", "entry"],
    Figure::EntryToExit.help(),
);
/// Durations of the host's handling, by the exit that was handled.
pub const EXIT_TO_ENTRY: Metric = metric(
    "vmentry_exit_to_entry_seconds",
    Kind::Histogram,
    "seconds",
    &["vm", "level", "exit_reason"],
    Figure::ExitToEntry.help(),
);
/// Entries.
pub const ENTRIES: Metric = counter(
    "vmentry_entries_total",
    &["vm", "level", "entry"],
    "VM entries whose exit was seen; entry: dirty with a pin-control VMCS write before it, clean without, unknown",
);
/// Pin-control writes.
pub const PIN_WRITES: Metric = counter(
    "vmentry_pin_writes_total",
    &["vm", "level"],
    "Pin-control VMCS writes; absent where they are not known. Per entry: divide by vmentry_pin_known_entries_total",
);
/// Entries whose writes are known.
pub const PIN_KNOWN_ENTRIES: Metric =
    counter("vmentry_pin_known_entries_total", &["vm", "level"], "VM entries whose pin-control writes are known");
/// Preemption-timer exits.
pub const TIMER_EXITS: Metric = counter(
    "vmentry_timer_exits_total",
    &["vm", "cause"],
    "VMX-preemption-timer exits; cause: deadline, immediate (forced by KVM), spurious (ran out while soft-disabled), unknown",
);
/// Entries by the kernel's count.
pub const RING_ENTRIES: Metric =
    counter("vmentry_ring_entries_total", &[], "VM entries by the kernel side's count: delivered + dropped");
/// Entries whose record arrived.
pub const RING_DELIVERED: Metric =
    counter("vmentry_ring_delivered_total", &[], "VM entries whose record came through the rings");
/// Entries whose record was lost.
pub const RING_DROPPED: Metric =
    counter("vmentry_ring_dropped_total", &[], "VM entries lost because a CPU's ring was full: in no other figure");
/// Records that were no event.
pub const RING_MALFORMED: Metric =
    counter("vmentry_ring_malformed_total", &[], "Delivered records that were no event: a bug, please report it");
/// Half rounds.
pub const UNMATCHED: Metric =
    counter("vmentry_unmatched_total", &[], "kvm_entry without kvm_exit and the reverse: in no other figure");
/// Entries beyond the bound of an interval.
pub const NOT_KEPT: Metric = counter(
    "vmentry_not_kept_entries_total",
    &[],
    "Delivered VM entries beyond the 65536 series of an interval: in no other figure",
);
/// Entries of TDX guests.
pub const TD_ENTRIES: Metric =
    counter("vmentry_td_entries_total", &[], "Entries of TDX guests, which cannot be read: in no other figure");
/// Timer policy.
pub const POLICY: Metric = metric(
    "vmentry_policy",
    Kind::Gauge,
    "",
    &["policy"],
    "1 for the timer policy in force (soft, hard, off, unknown), 0 for the others",
);
/// This program.
pub const BUILD_INFO: Metric = metric("vmentry_build_info", Kind::Info, "", &["version"], "Version of vmentry");
/// The host.
pub const HOST_INFO: Metric = metric(
    "vmentry_host_info",
    Kind::Info,
    "",
    &["host", "kernel", "cpu", "microcode", "vendor", "emulated", "virtualized", "counted"],
    "The host; emulated=\"true\": times mean nothing; virtualized: signature of the hypervisor below, or empty; counted=\"in-kernel\": values are known to 1.6 %",
);
/// Observed time.
pub const OBSERVED: Metric =
    metric("vmentry_observed_seconds_total", Kind::Counter, "seconds", &[], "Time that was traced");
/// Intervals.
pub const INTERVALS: Metric = counter("vmentry_intervals_total", &[], "Intervals that came from the collector");
/// Collector's health.
pub const LAST_INTERVAL: Metric = metric(
    "vmentry_last_interval_timestamp_seconds",
    Kind::Gauge,
    "seconds",
    &[],
    "When the last interval came from the collector, since 1970; it stands still where the collector hangs",
);
/// Series there are.
pub const SERIES: Metric = metric("vmentry_series", Kind::Gauge, "", &[], "Histograms that are exported");
/// Series there may be.
pub const SERIES_LIMIT: Metric =
    metric("vmentry_series_limit", Kind::Gauge, "", &[], "Histograms beyond which new ones count for vm=\"other\"");
/// Series that are gone.
pub const SERIES_EXPIRED: Metric = counter(
    "vmentry_series_expired_total",
    &[],
    "Histograms that were dropped because their VM had no entry for 5 minutes",
);
/// Entries beyond the bound.
pub const FOLDED_ENTRIES: Metric =
    counter("vmentry_folded_entries_total", &[], "VM entries counted for vm=\"other\" because of vmentry_series_limit");
/// Answers with metrics.
pub const SCRAPES: Metric = counter("vmentry_scrapes_total", &[], "Answered requests for metrics");
/// Own CPU time.
pub const PROCESS_CPU: Metric = metric(
    "process_cpu_seconds_total",
    Kind::Counter,
    "seconds",
    &[],
    "CPU time of this process; the eBPF programs' time is the guests' CPUs'",
);
/// Own memory.
pub const PROCESS_MEMORY: Metric =
    metric("process_resident_memory_bytes", Kind::Gauge, "bytes", &[], "Resident memory of this process");
/// Own start.
pub const PROCESS_START: Metric =
    metric("process_start_time_seconds", Kind::Gauge, "seconds", &[], "Start of this process, since 1970");

/// All metrics, in the order of the output.
pub const METRICS: [&Metric; 27] = [
    &BUILD_INFO,
    &HOST_INFO,
    &POLICY,
    &ENTRY_TO_EXIT,
    &EXIT_TO_ENTRY,
    &ENTRIES,
    &PIN_WRITES,
    &PIN_KNOWN_ENTRIES,
    &TIMER_EXITS,
    &RING_ENTRIES,
    &RING_DELIVERED,
    &RING_DROPPED,
    &RING_MALFORMED,
    &UNMATCHED,
    &NOT_KEPT,
    &TD_ENTRIES,
    &OBSERVED,
    &INTERVALS,
    &LAST_INTERVAL,
    &SERIES,
    &SERIES_LIMIT,
    &SERIES_EXPIRED,
    &FOLDED_ENTRIES,
    &SCRAPES,
    &PROCESS_CPU,
    &PROCESS_MEMORY,
    &PROCESS_START,
];

/// The table as JSON: `format` "vmentry-metrics/1", `vm_labels[]`, `metrics[]` with `name`, `type`, `unit`, `labels`, `help`.
pub fn json() -> Value {
    let metric = |m: &&Metric| json!({ "name": m.name, "type": m.kind.name(), "unit": m.unit, "labels": m.labels, "help": m.help });
    json!({
        "format": "vmentry-metrics/1",
        "vm_labels": VM_LABELS,
        "metrics": METRICS.iter().map(metric).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        let names: BTreeSet<_> = METRICS.iter().map(|m| m.name).collect();
        assert_eq!(names.len(), METRICS.len());
        for m in METRICS {
            assert_eq!(m.name.ends_with("_total"), m.kind == Kind::Counter, "{}", m.name);
            assert_eq!(m.name.ends_with("_info"), m.kind == Kind::Info, "{}", m.name);
            assert!(m.name.trim_end_matches("_total").ends_with(m.unit), "{}", m.name);
            assert!(m.name.starts_with("vmentry_") || m.name.starts_with("process_"), "{}", m.name);
            assert!(!m.help.is_empty() && !m.help.contains('\n'), "{}", m.name);
            assert!(m.labels.iter().all(|l| l.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')), "{}", m.name);
        }
    }
}
