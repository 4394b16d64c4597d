//! The dashboard of one host: its VMs and exit reasons.

use crate::dashboards::{
    POLICIES,
    expressions::{
        GUEST_TIME, HOST_TIME, HOST_TIME_WITHOUT_HLT, dirty_share, entries, p50_and_p99, pin_writes_per_entry,
        policy_number, quantile, rate, sum, sum_of_rates,
    },
    grafana::{Dashboard, Kind, Panel, Query, Row, variables},
    panels,
};

/// The dashboard of one host.
pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        uid: "vmentry-host",
        title: "vmentry: one host",
        description: "VM entries of one KVM host by VM and exit reason: guest time, host time, pin-control VMCS \
                      writes, timer exits, loss and overhead.",
        from: "now-1h",
        refresh: "30s",
        variables: variables("instance=\"$instance\"", false),
        rows: vec![now(), budget(), guest_time(), host_time(), timer(), tool()],
    }
    .selecting("instance=\"$instance\"")
}

fn now() -> Row {
    let panels = vec![
        Panel::new(
            Kind::Stat,
            "Entries",
            "cps",
            "VM entries per second of the chosen VMs and exit reasons.",
            vec![Query::new(entries("", GUEST_TIME), "entries")],
        ),
        Panel::new(
            Kind::Stat,
            "Guest time p50",
            "s",
            "Median guest time: kvm_entry to kvm_exit, with VM entry and VM exit. This is not the VM-entry latency.",
            vec![Query::new(quantile(0.5, "", GUEST_TIME), "p50")],
        ),
        Panel::new(
            Kind::Stat,
            "Pin writes per entry",
            "short",
            "Pin-control VMCS writes per entry: 0 with the soft policy once the guests run, up to 2 with the hard \
             policy. No value if the kernel does not provide the number.",
            vec![Query::new(pin_writes_per_entry(""), "writes per entry")],
        )
        .warns(0.1, 0.5),
        Panel::new(
            Kind::Stat,
            "Dirty share",
            "percentunit",
            "Share of entries with a pin-control write before them, among the entries for which this is known.",
            vec![Query::new(dirty_share(""), "dirty")],
        )
        .warns(0.1, 0.5),
        panels::lost(),
        Panel::new(
            Kind::Stat,
            "Policy",
            "none",
            "How KVM on this host disables the preemption timer: soft (a large value in the timer), hard (the bit in \
             the pin controls), off (KVM does not use the timer).",
            vec![Query::new(format!("max({})", policy_number()), "policy")],
        )
        .named(POLICIES),
        panels::kernels("Host").wide(24),
    ];
    Row { title: "Now", panels }
}

fn budget() -> Row {
    let guest = sum("", &format!("histogram_sum({})", rate(GUEST_TIME)));
    let by_reason = "rate(vmentry_phase_seconds_total{SERIES}[$__range])";
    let panels = vec![
        Panel::new(
            Kind::Lines,
            "Where vCPU time goes",
            "short",
            "vCPUs that are in the guest, and in each part of the host time: in KVM (kernel), in the VMM (user), halted \
             (polled, idle), or waiting for a CPU (steal). A part that the host's kernel does not tell is in kernel.",
            vec![
                Query::new(guest, "guest"),
                Query::new(sum_of_rates("phase", "vmentry_phase_seconds_total{SERIES}"), "{{phase}}"),
            ],
        )
        .stacked()
        .wide(16),
        Panel::new(
            Kind::Table,
            "Top exit reasons by host time",
            "short",
            "The ten exit reasons with the most host time over the time range: the mean number of vCPUs that are in it. HLT \
             lasts as long as the guest halts.",
            vec![Query::new(format!("topk(10, {})", sum("exit_reason", by_reason)), "vCPUs in host time")],
        )
        .wide(8),
    ];
    Row { title: "Where vCPU time goes", panels }
}

fn guest_time() -> Row {
    let panels = vec![
        Panel::new(
            Kind::HeatMap,
            "Distribution of guest time",
            "s",
            "Guest time (kvm_entry to kvm_exit: timer VMWRITEs, VM entry, guest, VM exit) over time, from native \
             histograms.",
            vec![Query::new(sum_of_rates("", GUEST_TIME), "guest time")],
        ),
        Panel::new(
            Kind::Lines,
            "Guest time of clean and dirty entries",
            "s",
            "p50 and p99 of entries without and with a pin-control write before them. Choose one exit reason, because \
             the mix of exit reasons may differ.",
            p50_and_p99("entry", GUEST_TIME),
        )
        .log(),
        Panel::new(
            Kind::Lines,
            "Guest time by exit reason",
            "s",
            "p50 and p99 of guest time by the exit that ended it.",
            p50_and_p99("exit_reason", GUEST_TIME),
        )
        .log(),
        Panel::new(
            Kind::Lines,
            "Guest time by VM",
            "s",
            "p50 and p99 of guest time by VM and level. L2 entries are those of nested guests.",
            p50_and_p99("vm, level", GUEST_TIME),
        )
        .log(),
        Panel::new(
            Kind::Lines,
            "Entries by exit reason",
            "cps",
            "VM entries per second by the exit that ended them.",
            vec![Query::new(entries("exit_reason", GUEST_TIME), "{{exit_reason}}")],
        ),
        Panel::new(
            Kind::Lines,
            "Entries by VM",
            "cps",
            "VM entries per second by VM and level, of all exit reasons.",
            vec![Query::new(sum_of_rates("vm, level", "vmentry_entries_total{VMS}"), "{{vm}} {{level}}")],
        ),
    ];
    Row { title: "Guest time (kvm_entry to kvm_exit)", panels }
}

fn host_time() -> Row {
    let busy = format!("histogram_sum({})", rate(HOST_TIME_WITHOUT_HLT));
    let panels = vec![
        Panel::new(
            Kind::HeatMap,
            "Distribution of host time",
            "s",
            "Host time (kvm_exit to the next kvm_entry) over time, from native histograms. Halts and user space are \
             part of it.",
            vec![Query::new(sum_of_rates("", HOST_TIME), "host time")],
        ),
        Panel::new(
            Kind::Lines,
            "Host time by exit reason",
            "s",
            "p50 and p99 of host time by the exit that the host handled. Host time of HLT lasts as long as the guest \
             halts.",
            p50_and_p99("exit_reason", HOST_TIME),
        )
        .log(),
        Panel::new(
            Kind::Lines,
            "Host time by VM",
            "s",
            "p50 and p99 of host time by VM, without HLT.",
            p50_and_p99("vm", HOST_TIME_WITHOUT_HLT),
        )
        .log(),
        Panel::new(
            Kind::Lines,
            "CPUs in host time by exit reason",
            "short",
            "Seconds of host time per second, by exit reason: the number of CPUs that handle exits. Without HLT, \
             because a halted vCPU takes no CPU.",
            vec![Query::new(sum("exit_reason", &busy), "{{exit_reason}}")],
        ),
    ];
    Row { title: "Host time (kvm_exit to the next kvm_entry)", panels }
}

fn timer() -> Row {
    let dirty = "vmentry_entry_to_exit_seconds{SERIES, entry=\"dirty\"}";
    let known = "vmentry_entry_to_exit_seconds{SERIES, entry=~\"clean|dirty\"}";
    let dirty_share = format!("{} / {}", entries("exit_reason", dirty), entries("exit_reason", known));
    let panels = vec![
        panels::pin_writes("Pin writes per entry by VM", "vm"),
        Panel::new(
            Kind::Lines,
            "Dirty share by exit reason",
            "percentunit",
            "Share of entries with a pin-control write before them, among the entries for which this is known, by the \
             exit that ended them.",
            vec![Query::new(dirty_share, "{{exit_reason}}")],
        ),
        Panel::new(
            Kind::Lines,
            "Timer exits by cause",
            "cps",
            "Preemption-timer exits: the guest's deadline, an immediate exit that KVM forced, a spurious exit of a disabled \
             timer, or an early exit before the deadline.",
            vec![Query::new(sum_of_rates("cause", "vmentry_timer_exits_total{VMS}"), "{{cause}}")],
        ),
        panels::spurious("Spurious timer exits by VM", "vm"),
    ];
    Row { title: "Preemption timer", panels }
}

fn tool() -> Row {
    let panels = vec![
        Panel::new(
            Kind::Lines,
            "Entries not measured",
            "cps",
            "Entries per second that are missing in the other panels: lost in full rings, unmatched, undecodable, \
             beyond the limit of series, or of TDX guests.",
            vec![
                Query::new(rate("vmentry_ring_dropped_total{HOST}"), "lost"),
                Query::new(rate("vmentry_unmatched_total{HOST}"), "unmatched"),
                Query::new(rate("vmentry_ring_malformed_total{HOST}"), "undecodable"),
                Query::new(rate("vmentry_not_kept_entries_total{HOST}"), "over an interval's limit of series"),
                Query::new(rate("vmentry_td_entries_total{HOST}"), "of TDX guests"),
            ],
        ),
        Panel::new(
            Kind::Lines,
            "CPU of the exporter",
            "percentunit",
            "Share of one CPU. The eBPF programs are not part of it: they run on the vCPUs' time, about 0.5 us per \
             entry (vmentry help overhead).",
            vec![Query::new(rate("process_cpu_seconds_total{HOST}"), "exporter")],
        ),
        Panel::new(
            Kind::Lines,
            "Memory of the exporter",
            "bytes",
            "Resident memory of the exporter: rings, and some kB for each series.",
            vec![Query::new("process_resident_memory_bytes{HOST}", "resident")],
        ),
        Panel::new(
            Kind::Lines,
            "Series",
            "short",
            "Series that the exporter holds, and their limit. At the limit, each process of a VMM has an equal share, \
             and the rest is counted together as VM \"other\".",
            vec![Query::new("vmentry_series{HOST}", "series"), Query::new("vmentry_series_limit{HOST}", "limit")],
        ),
        Panel::new(
            Kind::Lines,
            "Folded and expired",
            "cps",
            "Entries counted for VM \"other\" because of the limit of series, series dropped because their VM has ended, \
             and series that gave their place to others at the limit.",
            vec![
                Query::new(rate("vmentry_folded_entries_total{HOST}"), "entries folded"),
                Query::new(rate("vmentry_series_expired_total{HOST}"), "series expired"),
                Query::new(rate("vmentry_series_evicted_total{HOST}"), "series evicted"),
            ],
        ),
        Panel::new(
            Kind::Lines,
            "Age of the last interval",
            "s",
            "Time since the collector last delivered an interval. Normally below the sum of interval and scrape \
             interval; if it keeps rising, the collector hangs.",
            vec![Query::new("time() - vmentry_last_interval_timestamp_seconds{HOST}", "age")],
        ),
    ];
    Row { title: "Exporter", panels }
}
