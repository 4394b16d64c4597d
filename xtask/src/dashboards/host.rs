//! The dashboard of one host: its VMs and exit reasons.

use crate::dashboards::{
    POLICIES,
    grafana::{Dashboard, Kind, LABELS, Panel, Row, Variable},
};

/// The dashboard of one host.
pub fn dashboard() -> Dashboard {
    Dashboard {
        uid: "vmentry-host",
        title: "vmentry: one host",
        description: "VM-entry rounds of one KVM host by VM and exit reason: durations, pin-control VMCS writes, timer exits, loss and overhead.",
        from: "now-1h",
        refresh: "30s",
        variables: vec![
            Variable { name: "instance", title: "Host", series: "vmentry_build_info".into(), label: "instance", several: false },
            Variable {
                name: "vm",
                title: "VM",
                series: "vmentry_entries_total{instance=\"$instance\"}".into(),
                label: "vm",
                several: true,
            },
            Variable {
                name: "exit_reason",
                title: "Exit reason",
                series: "vmentry_entry_to_exit_seconds{instance=\"$instance\", vm=~\"$vm\"}".into(),
                label: "exit_reason",
                several: true,
            },
        ],
        rows: vec![now(), entry_to_exit(), exit_to_entry(), timer(), tool()],
    }
    .selecting("instance=\"$instance\"")
}

fn now() -> Row {
    let panels = vec![
        Panel::new(
            Kind::Stat,
            "Entries",
            "cps",
            "VM entries a second that the programs saw, of the chosen VMs and exit reasons.",
            &[("sum(histogram_count(rate(vmentry_entry_to_exit_seconds{SERIES}[$__rate_interval])))", "entries")],
        ),
        Panel::new(
            Kind::Stat,
            "entry_to_exit p50",
            "s",
            "Median of kvm_entry -> kvm_exit. The guest's own time is in it: it is not the VM-entry latency.",
            &[("histogram_quantile(0.5, sum(rate(vmentry_entry_to_exit_seconds{SERIES}[$__rate_interval])))", "p50")],
        ),
        Panel::new(
            Kind::Stat,
            "Pin writes per entry",
            "short",
            "Pin-control VMCS writes per entry: 0 with the soft policy once the guests run, up to 2 with the hard one. No value where the kernel does not tell.",
            &[(
                "sum(rate(vmentry_pin_writes_total{VMS}[$__rate_interval])) / sum(rate(vmentry_pin_known_entries_total{VMS}[$__rate_interval]))",
                "writes per entry",
            )],
        )
        .warns(0.1, 0.5),
        Panel::new(
            Kind::Stat,
            "Dirty share",
            "percentunit",
            "Entries with a pin-control write before them, of those where it is known.",
            &[(
                "(sum(rate(vmentry_entries_total{VMS, entry=\"dirty\"}[$__rate_interval])) or 0 * sum(rate(vmentry_entries_total{VMS}[$__rate_interval]))) / sum(rate(vmentry_entries_total{VMS, entry=~\"clean|dirty\"}[$__rate_interval]))",
                "dirty",
            )],
        )
        .warns(0.1, 0.5),
        Panel::new(
            Kind::Stat,
            "Lost",
            "percentunit",
            "Entries that did not fit into the rings, of all. Above 0 the percentiles are of what was seen.",
            &[(
                "sum(rate(vmentry_ring_dropped_total{HOST}[$__rate_interval])) / sum(rate(vmentry_ring_entries_total{HOST}[$__rate_interval]))",
                "lost",
            )],
        )
        .warns(1e-6, 1e-3),
        Panel::new(
            Kind::Stat,
            "Policy",
            "none",
            "How this host's KVM switches the preemption timer off: soft (a large value in the timer), hard (the pin control's bit), off (no timer at all).",
            &[("max(vmentry_policy{HOST, policy=\"soft\"} * 1 or vmentry_policy{HOST, policy=\"hard\"} * 2 or vmentry_policy{HOST, policy=\"off\"} * 3)", "policy")],
        )
        .named(POLICIES),
        Panel::new(
            Kind::Table,
            "Host",
            "none",
            "What runs here: kernel, CPU, and whether it is virtualized or emulated, in which case times are no times of a CPU.",
            &[("vmentry_host_info{HOST}", LABELS)],
        )
        .wide(24),
    ];
    Row { title: "Now", panels }
}

fn entry_to_exit() -> Row {
    let panels = vec![
        Panel::new(
            Kind::HeatMap,
            "entry_to_exit",
            "s",
            "Distribution of kvm_entry -> kvm_exit (timer VMWRITEs, VM entry, guest, VM exit) over time, from native histograms.",
            &[("sum(rate(vmentry_entry_to_exit_seconds{SERIES}[$__rate_interval]))", "entry_to_exit")],
        ),
        Panel::new(
            Kind::Lines,
            "entry_to_exit of clean and dirty entries",
            "s",
            "Entries without and with a pin-control write before them, p50 and p99: the natural experiment. Choose one exit reason, or the mix of reasons differs.",
            &[
                ("histogram_quantile(0.5, sum by (entry) (rate(vmentry_entry_to_exit_seconds{SERIES}[$__rate_interval])))", "p50 {{entry}}"),
                ("histogram_quantile(0.99, sum by (entry) (rate(vmentry_entry_to_exit_seconds{SERIES}[$__rate_interval])))", "p99 {{entry}}"),
            ],
        )
        .log(),
        Panel::new(
            Kind::Lines,
            "entry_to_exit by exit reason",
            "s",
            "p50 and p99 of kvm_entry -> kvm_exit by the exit that ended it. The guest's own time is in it.",
            &[
                ("histogram_quantile(0.5, sum by (exit_reason) (rate(vmentry_entry_to_exit_seconds{SERIES}[$__rate_interval])))", "p50 {{exit_reason}}"),
                ("histogram_quantile(0.99, sum by (exit_reason) (rate(vmentry_entry_to_exit_seconds{SERIES}[$__rate_interval])))", "p99 {{exit_reason}}"),
            ],
        )
        .log(),
        Panel::new(
            Kind::Lines,
            "entry_to_exit by VM",
            "s",
            "p50 and p99 of kvm_entry -> kvm_exit by VM and level (L2 entries are those of guests of guests).",
            &[
                ("histogram_quantile(0.5, sum by (vm, level) (rate(vmentry_entry_to_exit_seconds{SERIES}[$__rate_interval])))", "p50 {{vm}} {{level}}"),
                ("histogram_quantile(0.99, sum by (vm, level) (rate(vmentry_entry_to_exit_seconds{SERIES}[$__rate_interval])))", "p99 {{vm}} {{level}}"),
            ],
        )
        .log(),
        Panel::new(
            Kind::Lines,
            "Entries by exit reason",
            "cps",
            "VM entries a second by the exit that ended them.",
            &[("sum by (exit_reason) (histogram_count(rate(vmentry_entry_to_exit_seconds{SERIES}[$__rate_interval])))", "{{exit_reason}}")],
        ),
        Panel::new(
            Kind::Lines,
            "Entries by VM",
            "cps",
            "VM entries a second by VM and level, of all exit reasons.",
            &[("sum by (vm, level) (rate(vmentry_entries_total{VMS}[$__rate_interval]))", "{{vm}} {{level}}")],
        ),
    ];
    Row { title: "From kvm_entry to kvm_exit", panels }
}

fn exit_to_entry() -> Row {
    let panels = vec![
        Panel::new(
            Kind::HeatMap,
            "exit_to_entry",
            "s",
            "Distribution of the host's handling of exits (kvm_exit -> next kvm_entry), halts and user space included, from native histograms.",
            &[("sum(rate(vmentry_exit_to_entry_seconds{SERIES}[$__rate_interval]))", "exit_to_entry")],
        ),
        Panel::new(
            Kind::Lines,
            "exit_to_entry by exit reason",
            "s",
            "p50 and p99 of the host's handling, by the exit that was handled. HLT is as long as the guest halts.",
            &[
                ("histogram_quantile(0.5, sum by (exit_reason) (rate(vmentry_exit_to_entry_seconds{SERIES}[$__rate_interval])))", "p50 {{exit_reason}}"),
                ("histogram_quantile(0.99, sum by (exit_reason) (rate(vmentry_exit_to_entry_seconds{SERIES}[$__rate_interval])))", "p99 {{exit_reason}}"),
            ],
        )
        .log(),
        Panel::new(
            Kind::Lines,
            "exit_to_entry by VM",
            "s",
            "p50 and p99 of the host's handling by VM, without HLT.",
            &[
                ("histogram_quantile(0.5, sum by (vm) (rate(vmentry_exit_to_entry_seconds{SERIES, exit_reason!=\"HLT\"}[$__rate_interval])))", "p50 {{vm}}"),
                ("histogram_quantile(0.99, sum by (vm) (rate(vmentry_exit_to_entry_seconds{SERIES, exit_reason!=\"HLT\"}[$__rate_interval])))", "p99 {{vm}}"),
            ],
        )
        .log(),
        Panel::new(
            Kind::Lines,
            "Time in the host by exit reason",
            "short",
            "Seconds of handling per second of clock, by exit reason: what the exits cost, in CPUs. HLT is left out: halted is not busy.",
            &[("sum by (exit_reason) (histogram_sum(rate(vmentry_exit_to_entry_seconds{SERIES, exit_reason!=\"HLT\"}[$__rate_interval])))", "{{exit_reason}}")],
        ),
    ];
    Row { title: "From kvm_exit to the next kvm_entry", panels }
}

fn timer() -> Row {
    let panels = vec![
        Panel::new(
            Kind::Lines,
            "Pin writes per entry by VM",
            "short",
            "Pin-control VMCS writes per entry. Each makes the VM entry after it redo its checks. No line where the kernel does not tell.",
            &[(
                "sum by (vm) (rate(vmentry_pin_writes_total{VMS}[$__rate_interval])) / sum by (vm) (rate(vmentry_pin_known_entries_total{VMS}[$__rate_interval]))",
                "{{vm}}",
            )],
        ),
        Panel::new(
            Kind::Lines,
            "Dirty share by exit reason",
            "percentunit",
            "Entries with a pin-control write before them, of those where it is known, by the exit that ended them.",
            &[(
                "sum by (exit_reason) (histogram_count(rate(vmentry_entry_to_exit_seconds{SERIES, entry=\"dirty\"}[$__rate_interval]))) / sum by (exit_reason) (histogram_count(rate(vmentry_entry_to_exit_seconds{SERIES, entry=~\"clean|dirty\"}[$__rate_interval])))",
                "{{exit_reason}}",
            )],
        ),
        Panel::new(
            Kind::Lines,
            "Timer exits by cause",
            "cps",
            "Preemption-timer exits: the guest's deadline, an immediate exit that KVM forced, or spurious (the timer ran out while it was off).",
            &[("sum by (cause) (rate(vmentry_timer_exits_total{VMS}[$__rate_interval]))", "{{cause}}")],
        ),
        Panel::new(
            Kind::Lines,
            "Spurious timer exits by VM",
            "cps",
            "Exits for nothing: the timer ran out while it was switched off in software. Only a vCPU that is left alone for a minute or so should make one.",
            &[("sum by (vm) (rate(vmentry_timer_exits_total{VMS, cause=\"spurious\"}[$__rate_interval]))", "{{vm}}")],
        ),
    ];
    Row { title: "Preemption timer", panels }
}

fn tool() -> Row {
    let panels = vec![
        Panel::new(
            Kind::Lines,
            "Not seen",
            "cps",
            "What is missing in the other panels, a second: entries that did not fit into the rings, records without their other half.",
            &[
                ("rate(vmentry_ring_dropped_total{HOST}[$__rate_interval])", "lost"),
                ("rate(vmentry_unmatched_total{HOST}[$__rate_interval])", "unmatched"),
                ("rate(vmentry_ring_malformed_total{HOST}[$__rate_interval])", "malformed"),
                ("rate(vmentry_not_kept_entries_total{HOST}[$__rate_interval])", "beyond an interval's series"),
                ("rate(vmentry_td_entries_total{HOST}[$__rate_interval])", "of TDX guests"),
            ],
        ),
        Panel::new(
            Kind::Lines,
            "Own CPU",
            "percentunit",
            "CPU of the exporter, of one CPU. What the programs in the kernel take is charged to the vCPUs, some 0.5 us an entry (README: Overhead).",
            &[("rate(process_cpu_seconds_total{HOST}[$__rate_interval])", "exporter")],
        ),
        Panel::new(
            Kind::Lines,
            "Own memory",
            "bytes",
            "Memory of the exporter: rings, and some kB for each series.",
            &[("process_resident_memory_bytes{HOST}", "resident")],
        ),
        Panel::new(
            Kind::Lines,
            "Series",
            "short",
            "Series that the exporter holds, and its limit. Beyond it new VMs are counted under one name.",
            &[("vmentry_series{HOST}", "series"), ("vmentry_series_limit{HOST}", "limit")],
        ),
        Panel::new(
            Kind::Lines,
            "Folded and expired",
            "cps",
            "Entries that were counted for VM \"other\" because of the limit of series, and series dropped because their VM has gone.",
            &[
                ("rate(vmentry_folded_entries_total{HOST}[$__rate_interval])", "entries folded"),
                ("rate(vmentry_series_expired_total{HOST}[$__rate_interval])", "series expired"),
            ],
        ),
        Panel::new(
            Kind::Lines,
            "Age of the last interval",
            "s",
            "Time since the collector last delivered. It should stay below the interval and a scrape; a rising line is a collector that hangs.",
            &[("time() - vmentry_last_interval_timestamp_seconds{HOST}", "age")],
        ),
    ];
    Row { title: "The tool itself", panels }
}
