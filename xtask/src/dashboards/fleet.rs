//! The dashboard of a fleet: hosts beside each other, by policy, and what one of them costs the others.

use crate::dashboards::{
    POLICIES,
    grafana::{Dashboard, Kind, LABELS, Panel, Row, Variable},
};

/// The dashboard of a fleet.
pub fn dashboard() -> Dashboard {
    Dashboard {
        uid: "vmentry-fleet",
        title: "vmentry: fleet",
        description: "VM-entry rounds of many KVM hosts: durations by host, VM and exit reason, hosts by timer policy, spurious exits, loss and overhead.",
        from: "now-6h",
        refresh: "1m",
        variables: vec![
            Variable { name: "instance", title: "Host", series: "vmentry_build_info".into(), label: "instance", several: true },
            Variable {
                name: "vm",
                title: "VM",
                series: "vmentry_entries_total{instance=~\"$instance\"}".into(),
                label: "vm",
                several: true,
            },
            Variable {
                name: "exit_reason",
                title: "Exit reason",
                series: "vmentry_entry_to_exit_seconds{instance=~\"$instance\", vm=~\"$vm\"}".into(),
                label: "exit_reason",
                several: true,
            },
        ],
        rows: vec![now(), hosts(), distributions(), policies(), timer(), tool()],
    }
    .selecting("instance=~\"$instance\"")
}

fn now() -> Row {
    let panels = vec![
        Panel::new(
            Kind::Stat,
            "Hosts",
            "none",
            "Hosts that answer, of those chosen.",
            &[("count(vmentry_build_info{HOST})", "hosts")],
        ),
        Panel::new(
            Kind::Stat,
            "Entries",
            "cps",
            "VM entries a second of the chosen hosts and VMs.",
            &[("sum(rate(vmentry_entries_total{VMS}[$__rate_interval]))", "entries")],
        ),
        Panel::new(
            Kind::Stat,
            "entry_to_exit p99",
            "s",
            "99th percentile of kvm_entry -> kvm_exit of all of them. The guests' own time is in it.",
            &[("histogram_quantile(0.99, sum(rate(vmentry_entry_to_exit_seconds{SERIES}[$__rate_interval])))", "p99")],
        ),
        Panel::new(
            Kind::Stat,
            "Spurious timer exits",
            "cps",
            "Preemption-timer exits for nothing, a second: the timer ran out while it was switched off in software.",
            &[("sum(rate(vmentry_timer_exits_total{VMS, cause=\"spurious\"}[$__rate_interval]))", "spurious")],
        )
        .warns(0.1, 1.0),
        Panel::new(
            Kind::Stat,
            "Hosts on the hard policy",
            "none",
            "Hosts whose KVM toggles the timer's bit at every switch, which makes the next VM entry dearer.",
            &[("sum(vmentry_policy{HOST, policy=\"hard\"})", "hosts")],
        )
        .warns(1.0, 1e9),
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
    ];
    Row { title: "Now", panels }
}

fn hosts() -> Row {
    let panels = vec![
        Panel::new(
            Kind::Lines,
            "entry_to_exit by host",
            "s",
            "p50 and p99 of kvm_entry -> kvm_exit by host. Choose one exit reason to compare hosts: the guests' own time is in it.",
            &[
                ("histogram_quantile(0.5, sum by (instance) (rate(vmentry_entry_to_exit_seconds{SERIES}[$__rate_interval])))", "p50 {{instance}}"),
                ("histogram_quantile(0.99, sum by (instance) (rate(vmentry_entry_to_exit_seconds{SERIES}[$__rate_interval])))", "p99 {{instance}}"),
            ],
        )
        .log(),
        Panel::new(
            Kind::Lines,
            "exit_to_entry by host",
            "s",
            "p50 and p99 of the host's handling of exits (kvm_exit -> next kvm_entry) by host, without HLT, which is as long as the guest halts.",
            &[
                ("histogram_quantile(0.5, sum by (instance) (rate(vmentry_exit_to_entry_seconds{SERIES, exit_reason!=\"HLT\"}[$__rate_interval])))", "p50 {{instance}}"),
                ("histogram_quantile(0.99, sum by (instance) (rate(vmentry_exit_to_entry_seconds{SERIES, exit_reason!=\"HLT\"}[$__rate_interval])))", "p99 {{instance}}"),
            ],
        )
        .log(),
        Panel::new(
            Kind::Lines,
            "Entries by host",
            "cps",
            "VM entries a second by host.",
            &[("sum by (instance) (rate(vmentry_entries_total{VMS}[$__rate_interval]))", "{{instance}}")],
        ),
        Panel::new(
            Kind::Table,
            "What runs where",
            "none",
            "Kernel, CPU, and whether it is virtualized or emulated, in which case its times are no times of a CPU.",
            &[("vmentry_host_info{HOST}", LABELS)],
        ),
    ];
    Row { title: "By host", panels }
}

fn distributions() -> Row {
    let panels = vec![
        Panel::new(
            Kind::HeatMap,
            "entry_to_exit",
            "s",
            "Distribution of kvm_entry -> kvm_exit of all chosen hosts over time, from native histograms.",
            &[("sum(rate(vmentry_entry_to_exit_seconds{SERIES}[$__rate_interval]))", "entry_to_exit")],
        ),
        Panel::new(
            Kind::HeatMap,
            "exit_to_entry",
            "s",
            "Distribution of the hosts' handling of exits (kvm_exit -> next kvm_entry) over time, from native histograms.",
            &[("sum(rate(vmentry_exit_to_entry_seconds{SERIES}[$__rate_interval]))", "exit_to_entry")],
        ),
        Panel::new(
            Kind::Lines,
            "entry_to_exit p99 by exit reason",
            "s",
            "99th percentile of kvm_entry -> kvm_exit by the exit that ended it.",
            &[("histogram_quantile(0.99, sum by (exit_reason) (rate(vmentry_entry_to_exit_seconds{SERIES}[$__rate_interval])))", "{{exit_reason}}")],
        )
        .log(),
        Panel::new(
            Kind::Lines,
            "exit_to_entry p99 by exit reason",
            "s",
            "99th percentile of the hosts' handling by the exit that was handled.",
            &[("histogram_quantile(0.99, sum by (exit_reason) (rate(vmentry_exit_to_entry_seconds{SERIES}[$__rate_interval])))", "{{exit_reason}}")],
        )
        .log(),
        Panel::new(
            Kind::Table,
            "The 20 VMs of the longest entry_to_exit",
            "s",
            "VMs by the 99th percentile of kvm_entry -> kvm_exit in the dashboard's time.",
            &[("topk(20, histogram_quantile(0.99, sum by (instance, vm) (rate(vmentry_entry_to_exit_seconds{SERIES}[$__range]))))", "p99")],
        ),
        Panel::new(
            Kind::Table,
            "The 20 VMs of the longest exit_to_entry",
            "s",
            "VMs by the 99th percentile of the host's handling in the dashboard's time, without HLT.",
            &[("topk(20, histogram_quantile(0.99, sum by (instance, vm) (rate(vmentry_exit_to_entry_seconds{SERIES, exit_reason!=\"HLT\"}[$__range]))))", "p99")],
        ),
    ];
    Row { title: "By exit reason and VM", panels }
}

fn policies() -> Row {
    let panels = vec![
        Panel::new(
            Kind::States,
            "Policy by host",
            "none",
            "Which timer policy each host had when: soft (a large value in the timer), hard (the pin control's bit), off (no timer at all).",
            &[("max by (instance) (vmentry_policy{HOST, policy=\"soft\"} * 1 or vmentry_policy{HOST, policy=\"hard\"} * 2 or vmentry_policy{HOST, policy=\"off\"} * 3 or vmentry_policy{HOST, policy=\"unknown\"} * 0)", "{{instance}}")],
        )
        .named(POLICIES),
        Panel::new(
            Kind::Lines,
            "Hosts by policy",
            "none",
            "How many of the chosen hosts have which policy.",
            &[("sum by (policy) (vmentry_policy{HOST})", "{{policy}}")],
        ),
        Panel::new(
            Kind::Lines,
            "entry_to_exit by policy",
            "s",
            "A/B: p50 and p99 of kvm_entry -> kvm_exit of all hosts of a policy. Other hosts, other work: choose one exit reason and alike VMs, and take vmentry ab \
             for an answer with a confidence.",
            &[
                ("histogram_quantile(0.5, sum(rate(vmentry_entry_to_exit_seconds{SERIES}[$__rate_interval]) and on (instance) vmentry_policy{HOST, policy=\"soft\"} == 1))", "p50 soft"),
                ("histogram_quantile(0.5, sum(rate(vmentry_entry_to_exit_seconds{SERIES}[$__rate_interval]) and on (instance) vmentry_policy{HOST, policy=\"hard\"} == 1))", "p50 hard"),
                ("histogram_quantile(0.99, sum(rate(vmentry_entry_to_exit_seconds{SERIES}[$__rate_interval]) and on (instance) vmentry_policy{HOST, policy=\"soft\"} == 1))", "p99 soft"),
                ("histogram_quantile(0.99, sum(rate(vmentry_entry_to_exit_seconds{SERIES}[$__rate_interval]) and on (instance) vmentry_policy{HOST, policy=\"hard\"} == 1))", "p99 hard"),
            ],
        )
        .log(),
        Panel::new(
            Kind::Lines,
            "exit_to_entry by policy",
            "s",
            "A/B: p50 and p99 of the hosts' handling of exits of all hosts of a policy, without HLT.",
            &[
                ("histogram_quantile(0.5, sum(rate(vmentry_exit_to_entry_seconds{SERIES, exit_reason!=\"HLT\"}[$__rate_interval]) and on (instance) vmentry_policy{HOST, policy=\"soft\"} == 1))", "p50 soft"),
                ("histogram_quantile(0.5, sum(rate(vmentry_exit_to_entry_seconds{SERIES, exit_reason!=\"HLT\"}[$__rate_interval]) and on (instance) vmentry_policy{HOST, policy=\"hard\"} == 1))", "p50 hard"),
                ("histogram_quantile(0.99, sum(rate(vmentry_exit_to_entry_seconds{SERIES, exit_reason!=\"HLT\"}[$__rate_interval]) and on (instance) vmentry_policy{HOST, policy=\"soft\"} == 1))", "p99 soft"),
                ("histogram_quantile(0.99, sum(rate(vmentry_exit_to_entry_seconds{SERIES, exit_reason!=\"HLT\"}[$__rate_interval]) and on (instance) vmentry_policy{HOST, policy=\"hard\"} == 1))", "p99 hard"),
            ],
        )
        .log(),
        Panel::new(
            Kind::Lines,
            "Pin writes per entry by policy",
            "short",
            "A/B: pin-control VMCS writes per entry of all hosts of a policy.",
            &[(
                "sum by (policy) (rate(vmentry_pin_writes_total{VMS}[$__rate_interval]) * on (instance) group_left (policy) (vmentry_policy{HOST} == 1)) / sum by (policy) (rate(vmentry_pin_known_entries_total{VMS}[$__rate_interval]) * on (instance) group_left (policy) (vmentry_policy{HOST} == 1))",
                "{{policy}}",
            )],
        ),
        Panel::new(
            Kind::Lines,
            "Hard policy against soft",
            "percentunit",
            "A/B: the hard hosts' median and mean of kvm_entry -> kvm_exit, as a share of the soft hosts'. 100 %: no difference.",
            &[
                ("histogram_quantile(0.5, sum(rate(vmentry_entry_to_exit_seconds{SERIES}[$__rate_interval]) and on (instance) vmentry_policy{HOST, policy=\"hard\"} == 1)) / histogram_quantile(0.5, sum(rate(vmentry_entry_to_exit_seconds{SERIES}[$__rate_interval]) and on (instance) vmentry_policy{HOST, policy=\"soft\"} == 1))", "median"),
                ("sum(histogram_sum(rate(vmentry_entry_to_exit_seconds{SERIES}[$__rate_interval])) and on (instance) vmentry_policy{HOST, policy=\"hard\"} == 1) / sum(histogram_count(rate(vmentry_entry_to_exit_seconds{SERIES}[$__rate_interval])) and on (instance) vmentry_policy{HOST, policy=\"hard\"} == 1) / (sum(histogram_sum(rate(vmentry_entry_to_exit_seconds{SERIES}[$__rate_interval])) and on (instance) vmentry_policy{HOST, policy=\"soft\"} == 1) / sum(histogram_count(rate(vmentry_entry_to_exit_seconds{SERIES}[$__rate_interval])) and on (instance) vmentry_policy{HOST, policy=\"soft\"} == 1))", "mean"),
            ],
        ),
    ];
    Row { title: "By policy", panels }
}

fn timer() -> Row {
    let panels = vec![
        Panel::new(
            Kind::Lines,
            "Pin writes per entry by host",
            "short",
            "Pin-control VMCS writes per entry. Each makes the VM entry after it redo its checks. No line where the kernel does not tell.",
            &[(
                "sum by (instance) (rate(vmentry_pin_writes_total{VMS}[$__rate_interval])) / sum by (instance) (rate(vmentry_pin_known_entries_total{VMS}[$__rate_interval]))",
                "{{instance}}",
            )],
        )
        .wide(8),
        Panel::new(
            Kind::Lines,
            "Dirty share by host",
            "percentunit",
            "Entries with a pin-control write before them, of those where it is known.",
            &[(
                "(sum by (instance) (rate(vmentry_entries_total{VMS, entry=\"dirty\"}[$__rate_interval])) or 0 * sum by (instance) (rate(vmentry_entries_total{VMS}[$__rate_interval]))) / sum by (instance) (rate(vmentry_entries_total{VMS, entry=~\"clean|dirty\"}[$__rate_interval]))",
                "{{instance}}",
            )],
        )
        .wide(8),
        Panel::new(
            Kind::Lines,
            "Spurious timer exits by host",
            "cps",
            "Preemption-timer exits for nothing. Only a vCPU that is left alone for a minute or so should make one.",
            &[("sum by (instance) (rate(vmentry_timer_exits_total{VMS, cause=\"spurious\"}[$__rate_interval]))", "{{instance}}")],
        )
        .wide(8),
    ];
    Row { title: "Preemption timer", panels }
}

fn tool() -> Row {
    let panels = vec![
        Panel::new(
            Kind::Lines,
            "Lost by host",
            "percentunit",
            "Entries that did not fit into the rings, of all that the kernel side counted.",
            &[(
                "sum by (instance) (rate(vmentry_ring_dropped_total{HOST}[$__rate_interval])) / sum by (instance) (rate(vmentry_ring_entries_total{HOST}[$__rate_interval]))",
                "{{instance}}",
            )],
        )
        .wide(8),
        Panel::new(
            Kind::Lines,
            "Own CPU by host",
            "percentunit",
            "CPU of the exporters, of one CPU. What the programs in the kernel take is charged to the vCPUs, some 0.5 us an entry (README: Overhead).",
            &[("rate(process_cpu_seconds_total{HOST}[$__rate_interval]) and on (instance) vmentry_build_info", "{{instance}}")],
        )
        .wide(8),
        Panel::new(
            Kind::Lines,
            "Series by host",
            "percentunit",
            "Series that each exporter holds, of its limit, beyond which new VMs are counted under one name.",
            &[("vmentry_series{HOST} / vmentry_series_limit{HOST}", "{{instance}}")],
        )
        .wide(8),
    ];
    Row { title: "The tool itself", panels }
}
