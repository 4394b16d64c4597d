//! The one table of metrics: name, kind, unit, labels, help. The encoders walk it; the check of the dashboards reads it from
//! `vmentry export --list-metrics`.

use serde_json::{Value, json};

/// Form of a metric's samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetricKind {
    /// increases, or restarts from 0
    Counter,
    /// increases and decreases
    Gauge,
    /// classic and native buckets, sum and count
    Histogram,
    /// always 1; the information is in its labels
    Info,
}

impl MetricKind {
    /// Name in OpenMetrics.
    pub(crate) const fn name(self) -> &'static str {
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
pub(crate) struct Metric {
    /// name of its samples: with `_total` or `_info`, without `_bucket`, `_sum`, `_count`
    pub(crate) name: &'static str,
    /// form of its samples
    pub(crate) kind: MetricKind,
    /// seconds or bytes; empty for plain numbers
    pub(crate) unit: &'static str,
    /// names of its labels; after `vm` follow the requested ones of [`VM_LABELS`]
    pub(crate) labels: &'static [&'static str],
    /// HELP text
    pub(crate) help: &'static str,
}

/// Labels that may identify VMs in addition to `vm`, the VM's name, and to those of a rule file; `host` only in reports on several hosts.
pub(crate) const VM_LABELS: [&str; 13] = [
    "host",
    "pid",
    "uid",
    "ordinal",
    "manager",
    "uuid",
    "namespace",
    "vmi",
    "pod_uid",
    "sandbox",
    "instance",
    "vmid",
    "jail",
];

const fn metric(
    name: &'static str,
    kind: MetricKind,
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind, unit, labels, help }
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    metric(name, MetricKind::Counter, "", labels, help)
}

/// Guest time, by the exit that ended it.
pub(crate) const ENTRY_TO_EXIT: Metric = metric(
    "vmentry_entry_to_exit_seconds",
    MetricKind::Histogram,
    "seconds",
    &["vm", "level", "exit_reason", "entry"],
    "Guest time (entry_to_exit): kvm_entry to kvm_exit, with timer VMWRITEs, VM entry and VM exit; not the VM-entry latency",
);
/// Host time, by the handled exit.
pub(crate) const EXIT_TO_ENTRY: Metric = metric(
    "vmentry_exit_to_entry_seconds",
    MetricKind::Histogram,
    "seconds",
    &["vm", "level", "exit_reason"],
    "Host time (exit_to_entry): kvm_exit to the next kvm_entry, with halts; by the exit that the host handled",
);
/// Parts of the host time.
pub(crate) const PHASE: Metric = metric(
    "vmentry_phase_seconds_total",
    MetricKind::Counter,
    "seconds",
    &["vm", "exit_reason", "phase"],
    "Host time by part; phase: kernel, user (the VMM), polled and idle (halted), steal (the vCPU's thread waited for a CPU); a part that is not known is in kernel",
);
/// Exits by detail.
pub(crate) const DETAIL_EXITS: Metric = counter(
    "vmentry_detail_exits_total",
    &["vm", "exit_reason", "detail"],
    "Handled exits by MSR, port, CPUID leaf, vector and the like, with --detail; detail=\"other\": beyond ten of an exit reason",
);
/// Host time by detail.
pub(crate) const DETAIL_SECONDS: Metric = metric(
    "vmentry_detail_host_seconds_total",
    MetricKind::Counter,
    "seconds",
    &["vm", "exit_reason", "detail"],
    "Host time of the exits in vmentry_detail_exits_total",
);
/// Number of entries.
pub(crate) const ENTRIES: Metric = counter(
    "vmentry_entries_total",
    &["vm", "level", "entry"],
    "VM entries with their exit; entry: dirty after a pin-control VMCS write, clean without, unknown",
);
/// Pin-control writes.
pub(crate) const PIN_WRITES: Metric = counter(
    "vmentry_pin_writes_total",
    &["vm", "level"],
    "Pin-control VMCS writes; absent if they are not known. Per entry: divide by vmentry_pin_known_entries_total",
);
/// Entries whose pin-control writes are known.
pub(crate) const PIN_KNOWN_ENTRIES: Metric =
    counter("vmentry_pin_known_entries_total", &["vm", "level"], "VM entries whose pin-control writes are known");
/// Preemption-timer exits.
pub(crate) const TIMER_EXITS: Metric = counter(
    "vmentry_timer_exits_total",
    &["vm", "cause"],
    "VMX-preemption-timer exits; cause: deadline, immediate (forced by KVM), spurious (expired while soft-disabled), early (expired before its deadline), unknown",
);
/// Entries by the kernel's count.
pub(crate) const RING_ENTRIES: Metric =
    counter("vmentry_ring_entries_total", &[], "VM entries by the kernel's own count: delivered + dropped");
/// Entries whose record was delivered.
pub(crate) const RING_DELIVERED: Metric =
    counter("vmentry_ring_delivered_total", &[], "VM entries whose record was delivered through the rings");
/// Entries whose record was lost.
pub(crate) const RING_DROPPED: Metric =
    counter("vmentry_ring_dropped_total", &[], "VM entries lost because a CPU's ring was full: in no other figure");
/// Undecodable records.
pub(crate) const RING_MALFORMED: Metric = counter(
    "vmentry_ring_malformed_total",
    &[],
    "Delivered records that failed to decode: should be 0, please report it",
);
/// Unmatched entries and exits.
pub(crate) const UNMATCHED: Metric =
    counter("vmentry_unmatched_total", &[], "kvm_entry without kvm_exit, and the reverse: in no other figure");
/// Too few places for vCPUs' states.
pub(crate) const EVICTED: Metric = counter(
    "vmentry_evicted_vcpus_total",
    &[],
    "Times that the places for states of vCPUs were too few: one was evicted, or an entry found none and is in no figure",
);
/// Entries over the series limit.
pub(crate) const NOT_KEPT: Metric = counter(
    "vmentry_not_kept_entries_total",
    &[],
    "Delivered VM entries over the limit of 65536 series of an interval: in no other figure",
);
/// Entries of TDX guests.
pub(crate) const TD_ENTRIES: Metric =
    counter("vmentry_td_entries_total", &[], "Entries of TDX guests, which cannot be read: in no other figure");
/// Timer policy.
pub(crate) const POLICY: Metric = metric(
    "vmentry_policy",
    MetricKind::Gauge,
    "",
    &["policy"],
    "1 for the timer policy in force (soft, hard, off, unknown), 0 for the others",
);
/// Version of this program.
pub(crate) const BUILD_INFO: Metric =
    metric("vmentry_build_info", MetricKind::Info, "", &["version"], "Version of vmentry");
/// Facts on the host.
pub(crate) const HOST_INFO: Metric = metric(
    "vmentry_host_info",
    MetricKind::Info,
    "",
    &["host", "kernel", "cpu", "microcode", "vendor", "emulated", "virtualized", "counted"],
    "The host; emulated=\"true\": times say nothing about real hardware; virtualized: signature of the hypervisor below, or empty; counted=\"in-kernel\": values are exact to 1.6 %",
);
/// Observed time.
pub(crate) const OBSERVED: Metric =
    metric("vmentry_observed_seconds_total", MetricKind::Counter, "seconds", &[], "Time that was traced");
/// Intervals.
pub(crate) const INTERVALS: Metric = counter("vmentry_intervals_total", &[], "Intervals that the collector delivered");
/// Time of the last interval.
pub(crate) const LAST_INTERVAL: Metric = metric(
    "vmentry_last_interval_timestamp_seconds",
    MetricKind::Gauge,
    "seconds",
    &[],
    "Time of the last interval from the collector, since 1970; stops if the collector hangs",
);
/// Number of histograms.
pub(crate) const SERIES: Metric = metric("vmentry_series", MetricKind::Gauge, "", &[], "Exported histograms");
/// Limit of histograms.
pub(crate) const SERIES_LIMIT: Metric = metric(
    "vmentry_series_limit",
    MetricKind::Gauge,
    "",
    &[],
    "Limit of histograms; over it, each process of a VMM has an equal share, and the rest counts for vm=\"other\"",
);
/// Expired histograms.
pub(crate) const SERIES_EXPIRED: Metric =
    counter("vmentry_series_expired_total", &[], "Histograms that expired because their VM had no entry for 5 minutes");
/// Evicted histograms.
pub(crate) const SERIES_EVICTED: Metric = counter(
    "vmentry_series_evicted_total",
    &[],
    "Histograms that gave their place to those of others because of vmentry_series_limit, the least recently used first",
);
/// Entries over the limit of histograms.
pub(crate) const FOLDED_ENTRIES: Metric =
    counter("vmentry_folded_entries_total", &[], "VM entries counted for vm=\"other\" because of vmentry_series_limit");
/// Entries of VMs that have no samples any more.
pub(crate) const EXPIRED_ENTRIES: Metric = counter(
    "vmentry_expired_entries_total",
    &[],
    "VM entries of VMs whose histograms all expired or were evicted: in no sample of vmentry_entries_total any more",
);
/// Number of scrapes.
pub(crate) const SCRAPES: Metric = counter("vmentry_scrapes_total", &[], "Answered requests for metrics");
/// Own CPU time.
pub(crate) const PROCESS_CPU: Metric = metric(
    "process_cpu_seconds_total",
    MetricKind::Counter,
    "seconds",
    &[],
    "CPU time of this process, without the eBPF programs, which run on the traced CPUs",
);
/// Own memory.
pub(crate) const PROCESS_MEMORY: Metric =
    metric("process_resident_memory_bytes", MetricKind::Gauge, "bytes", &[], "Resident memory of this process");
/// Own start.
pub(crate) const PROCESS_START: Metric =
    metric("process_start_time_seconds", MetricKind::Gauge, "seconds", &[], "Start of this process, since 1970");

/// All metrics, in the order of the output.
pub(crate) const METRICS: [&Metric; 33] = [
    &BUILD_INFO,
    &HOST_INFO,
    &POLICY,
    &ENTRY_TO_EXIT,
    &EXIT_TO_ENTRY,
    &PHASE,
    &DETAIL_EXITS,
    &DETAIL_SECONDS,
    &ENTRIES,
    &PIN_WRITES,
    &PIN_KNOWN_ENTRIES,
    &TIMER_EXITS,
    &RING_ENTRIES,
    &RING_DELIVERED,
    &RING_DROPPED,
    &RING_MALFORMED,
    &UNMATCHED,
    &EVICTED,
    &NOT_KEPT,
    &TD_ENTRIES,
    &OBSERVED,
    &INTERVALS,
    &LAST_INTERVAL,
    &SERIES,
    &SERIES_LIMIT,
    &SERIES_EXPIRED,
    &SERIES_EVICTED,
    &FOLDED_ENTRIES,
    &EXPIRED_ENTRIES,
    &SCRAPES,
    &PROCESS_CPU,
    &PROCESS_MEMORY,
    &PROCESS_START,
];

/// The table as JSON: `format` "vmentry-metrics/1", `vm_labels[]`, `metrics[]` with `name`, `type`, `unit`, `labels`, `help`.
pub(crate) fn json() -> Value {
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
    use crate::{host::labels::rules, model::vm_labels};

    #[test]
    fn names_follow_the_conventions() {
        let names: BTreeSet<_> = METRICS.iter().map(|m| m.name).collect();
        assert_eq!(names.len(), METRICS.len());
        for m in METRICS {
            assert_eq!(m.name.ends_with("_total"), m.kind == MetricKind::Counter, "{}", m.name);
            assert_eq!(m.name.ends_with("_info"), m.kind == MetricKind::Info, "{}", m.name);
            assert!(m.name.trim_end_matches("_total").ends_with(m.unit), "{}", m.name);
            assert!(m.name.starts_with("vmentry_") || m.name.starts_with("process_"), "{}", m.name);
            assert!(!m.help.is_empty() && !m.help.contains('\n'), "{}", m.name);
            assert!(m.labels.iter().all(|l| l.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')), "{}", m.name);
        }
    }

    #[test]
    fn the_labels_of_vms_are_no_labels_of_metrics_and_a_rule_file_can_give_none_of_both() {
        assert_eq!(VM_LABELS[4..], vm_labels::KEYS);
        let with_vm = METRICS.iter().filter(|m| m.labels.contains(&"vm"));
        for label in with_vm.flat_map(|m| m.labels).chain(&VM_LABELS[..4]) {
            assert!(rules::TAKEN.contains(label), "{label}");
            assert!(!vm_labels::KEYS.contains(label), "{label}");
        }
    }
}
