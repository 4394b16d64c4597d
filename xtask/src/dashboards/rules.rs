//! Prometheus's rules: recorded series that make a fleet cheap to watch, and alerts.

use std::fmt::Write as _;

/// A recorded series.
pub struct Recording {
    /// level:metric:operation, as Prometheus's naming guide has it
    pub name: &'static str,
    /// labels of its series
    pub labels: &'static [&'static str],
    /// PromQL
    pub expr: &'static str,
}

/// An alert: fires where its value meets the condition for a while.
pub struct Alert {
    /// its name
    pub name: &'static str,
    /// PromQL of the value that is watched
    pub value: &'static str,
    /// what is wrong with it, e.g. "> 0.001"
    pub condition: &'static str,
    /// for how long, e.g. "10m"
    pub holds: &'static str,
    /// "critical", "warning" or "info"
    pub severity: &'static str,
    /// one line
    pub summary: &'static str,
    /// what it means and what to do
    pub description: &'static str,
}

impl Alert {
    /// The rule's expression.
    pub fn expr(&self) -> String {
        format!("{}\n{}", self.value, self.condition)
    }
}

/// Recorded before the alerts that read them.
pub const RECORDINGS: &[Recording] = &[
    Recording {
        name: "instance:vmentry_entries:rate5m",
        labels: &["instance"],
        expr: "sum by (instance) (rate(vmentry_entries_total[5m]))",
    },
    Recording {
        name: "instance:vmentry_lost_entries:ratio_rate5m",
        labels: &["instance"],
        expr: "sum by (instance) (rate(vmentry_ring_dropped_total[5m])) / sum by (instance) (rate(vmentry_ring_entries_total[5m]))",
    },
    Recording {
        name: "instance:vmentry_pin_writes_per_entry:ratio_rate5m",
        labels: &["instance"],
        expr: "sum by (instance) (rate(vmentry_pin_writes_total[5m])) / sum by (instance) (rate(vmentry_pin_known_entries_total[5m]))",
    },
    Recording {
        name: "instance:vmentry_dirty_entries:ratio_rate5m",
        labels: &["instance"],
        expr: "(sum by (instance) (rate(vmentry_entries_total{entry=\"dirty\"}[5m])) or 0 * instance:vmentry_entries:rate5m)\n\
               / sum by (instance) (rate(vmentry_entries_total{entry=~\"clean|dirty\"}[5m]))",
    },
    Recording {
        name: "instance:vmentry_spurious_timer_exits:rate5m",
        labels: &["instance"],
        expr: "sum by (instance) (rate(vmentry_timer_exits_total{cause=\"spurious\"}[5m]))",
    },
    Recording {
        name: "instance_exit_reason:vmentry_exit_to_entry_seconds:count_rate1h",
        labels: &["instance", "exit_reason"],
        expr: "sum by (instance, exit_reason) (histogram_count(rate(vmentry_exit_to_entry_seconds[1h])))",
    },
    Recording {
        name: "instance_exit_reason:vmentry_exit_to_entry_seconds:p99_rate1h",
        labels: &["instance", "exit_reason"],
        expr: "histogram_quantile(0.99, sum by (instance, exit_reason) (rate(vmentry_exit_to_entry_seconds[1h])))",
    },
    Recording {
        name: "instance_entry:vmentry_entry_to_exit_seconds:p50_rate1h",
        labels: &["instance", "entry"],
        expr: "histogram_quantile(0.5, sum by (instance, entry) (rate(vmentry_entry_to_exit_seconds[1h])))",
    },
];

/// All alerts.
pub const ALERTS: &[Alert] = &[
    Alert {
        name: "VmentryExporterDown",
        value: "up{job=\"vmentry\"}",
        condition: "== 0",
        holds: "5m",
        severity: "warning",
        summary: "{{ $labels.instance }}: vmentry export does not answer",
        description: "On the host: systemctl status vmentry-export; vmentry check names what is wrong with its fix.",
    },
    Alert {
        name: "VmentryCollectorStalled",
        value: "time() - vmentry_last_interval_timestamp_seconds",
        condition: "> 60",
        holds: "5m",
        severity: "warning",
        summary: "{{ $labels.instance }}: no interval for {{ $value | humanizeDuration }}",
        description: "vmentry export answers, but its collector delivers nothing: the counters stand still. Restart it, and please report it.",
    },
    Alert {
        name: "VmentryEntriesLost",
        value: "instance:vmentry_lost_entries:ratio_rate5m",
        condition: "> 0.001",
        holds: "10m",
        severity: "warning",
        summary: "{{ $labels.instance }}: {{ $value | humanizePercentage }} of the VM entries were not seen",
        description: "The rings were full: percentiles are of what was seen. Let vmentry export have CPU when it wants some (CPUWeight=, Nice= of its service), or watch fewer VMs (--vm).",
    },
    Alert {
        name: "VmentrySpuriousTimerExits",
        value: "instance:vmentry_spurious_timer_exits:rate5m",
        condition: "> 0.1",
        holds: "15m",
        severity: "warning",
        summary: "{{ $labels.instance }}: {{ $value | humanize }} spurious preemption-timer exits a second",
        description: "A timer that KVM had switched off in software ran out. The timer's full count takes a minute or so, therefore a vCPU that is left alone \
                      for that long makes one now and then; more than six a minute on a host are worth a look: which VM it is, the dashboard tells.",
    },
    Alert {
        name: "VmentryHardPolicyLeftOn",
        value: "vmentry_policy{policy=\"hard\"}",
        condition: "== 1",
        holds: "1h",
        severity: "warning",
        summary: "{{ $labels.instance }}: the preemption timer's hard policy is on",
        description: "Every switch of the timer's bit makes the next VM entry dearer. If no experiment runs: vmentry policy soft.",
    },
    Alert {
        name: "VmentryExitToEntryP99Regressed",
        value: "instance_exit_reason:vmentry_exit_to_entry_seconds:p99_rate1h{exit_reason!~\"HLT|MWAIT_INSTRUCTION|PAUSE_INSTRUCTION\"}\n\
                / instance_exit_reason:vmentry_exit_to_entry_seconds:p99_rate1h offset 1d",
        condition: "> 1.5\n\
                    and instance_exit_reason:vmentry_exit_to_entry_seconds:count_rate1h > 1\n\
                    and instance_exit_reason:vmentry_exit_to_entry_seconds:count_rate1h offset 1d > 1",
        holds: "30m",
        severity: "warning",
        summary: "{{ $labels.instance }}: p99 of handling {{ $labels.exit_reason }} is {{ $value | humanize }} times yesterday's",
        description: "The host's part (kvm_exit to the next kvm_entry) against the same hour of yesterday, by exit reason, of reasons with more than one exit a \
                      second on both days. Reasons that wait for an event are left out. The same reason can do other work on another day: compare VMs first.",
    },
    Alert {
        name: "VmentryEntryToExitP50Regressed",
        value: "instance_entry:vmentry_entry_to_exit_seconds:p50_rate1h{entry=~\"clean|dirty\"}\n\
                / instance_entry:vmentry_entry_to_exit_seconds:p50_rate1h offset 1d",
        condition: "> 2",
        holds: "1h",
        severity: "info",
        summary: "{{ $labels.instance }}: the median {{ $labels.entry }} entry_to_exit is {{ $value | humanize }} times yesterday's",
        description: "The guests' own time is in it: a hint that the work has changed, or that entries have become dearer. vmentry compare with recordings of both \
                      kinds tells which.",
    },
];

/// The rules file.
pub fn yaml() -> String {
    let mut text = String::from(
        "# Made by `cargo xtask dashboards`: change xtask/src/dashboards/rules.rs.\n\
         # Needs native histograms: see README.md.\ngroups:\n  - name: vmentry\n    rules:\n",
    );
    for Recording { name, expr, .. } in RECORDINGS {
        let _ = write!(text, "      - record: {name}\n        expr: {}\n", block(expr));
    }
    text += "  - name: vmentry-alerts\n    rules:\n";
    for alert in ALERTS {
        let Alert { name, holds, severity, summary, description, .. } = alert;
        let _ = write!(
            text,
            "      - alert: {name}\n        expr: {}\n        for: {holds}\n        labels:\n          severity: {severity}\n\
             \x20       annotations:\n          summary: {}\n          description: {}\n",
            block(&alert.expr()),
            quoted(summary),
            quoted(description),
        );
    }
    text
}

fn block(expr: &str) -> String {
    expr.lines().fold("|-".to_owned(), |text, line| text + "\n          " + line)
}

/// A JSON string is a YAML one.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
