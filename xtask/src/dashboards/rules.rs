//! Prometheus's rules: recorded series, which make dashboards of a fleet cheap, and alerts.

use std::fmt::Write as _;

/// A recorded series.
pub(crate) struct Recording {
    /// level:metric:operation, as in Prometheus's naming guide.
    pub(crate) name: &'static str,
    /// Labels of its series.
    pub(crate) labels: &'static [&'static str],
    /// PromQL.
    pub(crate) expr: &'static str,
}

/// An alert, which fires if its value has met the condition for some time.
pub(crate) struct Alert {
    pub(crate) name: &'static str,
    /// PromQL of the watched value.
    pub(crate) value: &'static str,
    /// Condition of the alert, e.g. "> 0.001".
    pub(crate) condition: &'static str,
    /// Time for which the condition must hold, e.g. "10m".
    pub(crate) holds: &'static str,
    /// "critical", "warning" or "info".
    pub(crate) severity: &'static str,
    /// One line.
    pub(crate) summary: &'static str,
    /// Its meaning, and what to do.
    pub(crate) description: &'static str,
}

impl Alert {
    /// The rule's expression.
    pub(crate) fn expr(&self) -> String {
        format!("{}\n{}", self.value, self.condition)
    }
}

/// All recorded series, in an order in which later ones and alerts may use earlier ones.
pub(crate) const RECORDINGS: &[Recording] = &[
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
        name: "instance:vmentry_early_timer_exits:increase1h",
        labels: &["instance"],
        expr: "sum by (instance) (increase(vmentry_timer_exits_total{cause=\"early\"}[1h]))",
    },
    Recording {
        name: "instance_vm:vmentry_entry_to_exit_seconds:sum_rate5m",
        labels: &["instance", "vm"],
        expr: "sum by (instance, vm) (histogram_sum(rate(vmentry_entry_to_exit_seconds[5m])))",
    },
    Recording {
        name: "instance_vm:vmentry_steal:ratio_rate5m",
        labels: &["instance", "vm"],
        expr: "sum by (instance, vm) (rate(vmentry_phase_seconds_total{phase=\"steal\"}[5m]))\n\
               / (instance_vm:vmentry_entry_to_exit_seconds:sum_rate5m + sum by (instance, vm) (rate(vmentry_phase_seconds_total[5m])))",
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
pub(crate) const ALERTS: &[Alert] = &[
    Alert {
        name: "VmentryExporterDown",
        value: "up{job=\"vmentry\"}",
        condition: "== 0",
        holds: "5m",
        severity: "warning",
        summary: "{{ $labels.instance }}: vmentry export does not answer",
        description: "On the host, run systemctl status vmentry-export, and vmentry check, which lists every problem \
                      with its fix.",
    },
    Alert {
        name: "VmentryCollectorStalled",
        value: "time() - vmentry_last_interval_timestamp_seconds",
        condition: "> 60",
        holds: "5m",
        severity: "warning",
        summary: "{{ $labels.instance }}: no interval for {{ $value | humanizeDuration }}",
        description: "vmentry export answers, but its collector delivers no intervals, so the counters do not change. \
                      Restart the service, and please report this bug.",
    },
    Alert {
        name: "VmentryEntriesLost",
        value: "instance:vmentry_lost_entries:ratio_rate5m",
        condition: "> 0.001",
        holds: "10m",
        severity: "warning",
        summary: "{{ $labels.instance }}: {{ $value | humanizePercentage }} of the VM entries were lost",
        description: "The rings were full, so percentiles describe the measured entries only. Give vmentry export more \
                      CPU time (CPUWeight=, Nice= of its service), or measure fewer VMs (--vm).",
    },
    Alert {
        name: "VmentrySteal",
        value: "instance_vm:vmentry_steal:ratio_rate5m",
        condition: "> 0.1",
        holds: "10m",
        severity: "warning",
        summary: "{{ $labels.instance }}: vCPUs of {{ $labels.vm }} waited for a CPU {{ $value | humanizePercentage }} of their \
                  time",
        description: "The threads of these vCPUs were runnable, and the host ran others: it has more work than CPUs, or the \
                      threads are pinned to busy CPUs or throttled by a cgroup's cpu.max. Halted time counts as time, so \
                      a mostly idle VM suffers more than the number says.",
    },
    Alert {
        name: "VmentrySpuriousTimerExits",
        value: "instance:vmentry_spurious_timer_exits:rate5m",
        condition: "> 0.1",
        holds: "15m",
        severity: "warning",
        summary: "{{ $labels.instance }}: {{ $value | humanize }} spurious preemption-timer exits per second",
        description: "A timer that KVM had disabled in software expired. Its full count takes about a minute, so a \
                      vCPU without other exits for that long makes one now and then. More than six per minute on a \
                      host need a look: the dashboard shows the VM. On CPUs with erratum EMR158 it takes less, 1.4 s \
                      at worst: vmentry check tells how long.",
    },
    Alert {
        name: "VmentryEarlyTimerExits",
        value: "instance:vmentry_early_timer_exits:increase1h",
        condition: "> 0",
        holds: "1m",
        severity: "warning",
        summary: "{{ $labels.instance }}: timers expired before their deadline within the last hour",
        description: "Guests got timer interrupts too early. Intel's erratum EMR158 makes timers 171.8 s early: vmentry \
                      report of a recording shows the time that remained, and vmentry check on the host the fix.",
    },
    Alert {
        name: "VmentryHardPolicyLeftOn",
        value: "vmentry_policy{policy=\"hard\"}",
        condition: "== 1",
        holds: "1h",
        severity: "warning",
        summary: "{{ $labels.instance }}: the preemption timer's hard policy is on",
        description: "Every switch of the timer's bit makes the next VM entry slower. If no experiment is running, run \
                      vmentry policy soft.",
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
        summary: "{{ $labels.instance }}: p99 of host time on {{ $labels.exit_reason }} is {{ $value | humanize }} \
                  times yesterday's",
        description: "Host time (kvm_exit to the next kvm_entry) by exit reason, compared with the same hour of \
                      yesterday, if both days have more than one such exit per second. Exit reasons that wait for an \
                      event are left out. The same exit reason can mean other work on another day: compare VMs first.",
    },
    Alert {
        name: "VmentryEntryToExitP50Regressed",
        value: "instance_entry:vmentry_entry_to_exit_seconds:p50_rate1h{entry=~\"clean|dirty\"}\n\
                / instance_entry:vmentry_entry_to_exit_seconds:p50_rate1h offset 1d",
        condition: "> 2",
        holds: "1h",
        severity: "info",
        summary: "{{ $labels.instance }}: median guest time of {{ $labels.entry }} entries is {{ $value | humanize }} \
                  times yesterday's",
        description: "Guest time includes the work of the guests, so either their work has changed or VM entry has \
                      become slower. Compare recordings of both states with vmentry compare to find out.",
    },
];

/// Content of the rules file.
pub(crate) fn yaml() -> String {
    let mut text = String::from(
        "# Written by `cargo xtask dashboards`: change xtask/src/dashboards/rules.rs.\n\
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

/// A YAML block of lines.
fn block(expr: &str) -> String {
    expr.lines().fold("|-".to_owned(), |text, line| text + "\n          " + line)
}

/// A YAML string; JSON strings are YAML strings.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
