//! The dashboard of a fleet: many hosts side by side, by policy.

use crate::dashboards::{
    POLICIES,
    expressions::{
        GUEST_TIME, HOST_TIME, HOST_TIME_WITHOUT_HLT, lost_share, of_policy, p50_and_p99, p50_and_p99_by_policy,
        policy_number, quantile, rate, spurious_exits, sum_of_rates,
    },
    grafana::{Dashboard, Kind, Panel, Query, Row, variables},
    panels,
};

/// The dashboard of a fleet.
pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        uid: "vmentry-fleet",
        title: "vmentry: fleet",
        description: "VM entries of many KVM hosts: guest time and host time by host, VM and exit reason, hosts by \
                      timer policy, spurious exits, loss and overhead.",
        from: "now-6h",
        refresh: "1m",
        variables: variables("instance=~\"$instance\"", true),
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
            "Number of chosen hosts that answer.",
            vec![Query::new("count(vmentry_build_info{HOST})", "hosts")],
        ),
        Panel::new(
            Kind::Stat,
            "Entries",
            "cps",
            "VM entries per second of the chosen hosts and VMs.",
            vec![Query::new(sum_of_rates("", "vmentry_entries_total{VMS}"), "entries")],
        ),
        Panel::new(
            Kind::Stat,
            "Guest time p99",
            "s",
            "99th percentile of guest time, kvm_entry to kvm_exit, of the chosen hosts, VMs and exit reasons.",
            vec![Query::new(quantile(0.99, "", GUEST_TIME), "p99")],
        ),
        Panel::new(
            Kind::Stat,
            "Spurious timer exits",
            "cps",
            "Exits per second of a timer that KVM had disabled in software.",
            vec![Query::new(spurious_exits(""), "spurious")],
        )
        .warns(0.1, 1.0),
        Panel::new(
            Kind::Stat,
            "Hosts on the hard policy",
            "none",
            "Hosts whose KVM toggles the timer's bit in the pin controls at every switch, which makes the next \
             VM entry slower.",
            vec![Query::new("sum(vmentry_policy{HOST, policy=\"hard\"})", "hosts")],
        )
        .warns(1.0, 1e9),
        panels::lost(),
    ];
    Row { title: "Now", panels }
}

fn hosts() -> Row {
    let panels = vec![
        Panel::new(
            Kind::Lines,
            "Guest time by host",
            "s",
            "p50 and p99 of guest time by host. Choose one exit reason to compare hosts, because their guests do \
             different work.",
            p50_and_p99("instance", GUEST_TIME),
        )
        .log(),
        Panel::new(
            Kind::Lines,
            "Host time by host",
            "s",
            "p50 and p99 of host time by host. Without HLT, which lasts as long as the guest halts.",
            p50_and_p99("instance", HOST_TIME_WITHOUT_HLT),
        )
        .log(),
        Panel::new(
            Kind::Lines,
            "Entries by host",
            "cps",
            "VM entries per second by host.",
            vec![Query::new(sum_of_rates("instance", "vmentry_entries_total{VMS}"), "{{instance}}")],
        ),
        panels::kernels("Kernels and CPUs"),
    ];
    Row { title: "By host", panels }
}

fn distributions() -> Row {
    let panels = vec![
        Panel::new(
            Kind::HeatMap,
            "Distribution of guest time",
            "s",
            "Guest time (kvm_entry to kvm_exit) of all chosen hosts over time, from native histograms.",
            vec![Query::new(sum_of_rates("", GUEST_TIME), "guest time")],
        ),
        Panel::new(
            Kind::HeatMap,
            "Distribution of host time",
            "s",
            "Host time (kvm_exit to the next kvm_entry) of all chosen hosts over time, from native histograms.",
            vec![Query::new(sum_of_rates("", HOST_TIME), "host time")],
        ),
        Panel::new(
            Kind::Lines,
            "Guest time p99 by exit reason",
            "s",
            "99th percentile of guest time by the exit that ended it.",
            vec![Query::new(quantile(0.99, "exit_reason", GUEST_TIME), "{{exit_reason}}")],
        )
        .log(),
        Panel::new(
            Kind::Lines,
            "Host time p99 by exit reason",
            "s",
            "99th percentile of host time by the exit that the host handled.",
            vec![Query::new(quantile(0.99, "exit_reason", HOST_TIME), "{{exit_reason}}")],
        )
        .log(),
        Panel::new(
            Kind::Table,
            "20 VMs with the longest guest time",
            "s",
            "VMs by the 99th percentile of guest time over the dashboard's time range.",
            vec![top_vms(GUEST_TIME)],
        ),
        Panel::new(
            Kind::Table,
            "20 VMs with the longest host time",
            "s",
            "VMs by the 99th percentile of host time over the dashboard's time range, without HLT.",
            vec![top_vms(HOST_TIME_WITHOUT_HLT)],
        ),
    ];
    Row { title: "By exit reason and VM", panels }
}

/// The 20 VMs with the highest 99th percentile over the dashboard's time range.
fn top_vms(histograms: &str) -> Query {
    let merged = format!("sum by (instance, vm) (rate({histograms}[$__range]))");
    Query::new(format!("topk(20, histogram_quantile(0.99, {merged}))"), "p99")
}

fn policies() -> Row {
    let number = format!("{} or vmentry_policy{{HOST, policy=\"unknown\"}} * 0", policy_number());
    let panels = vec![
        Panel::new(
            Kind::States,
            "Policy by host",
            "none",
            "Timer policy of each host over time: soft (a large value in the timer), hard (the bit in the pin \
             controls), off (KVM does not use the timer).",
            vec![Query::new(format!("max by (instance) ({number})"), "{{instance}}")],
        )
        .named(POLICIES),
        Panel::new(
            Kind::Lines,
            "Hosts by policy",
            "none",
            "Number of chosen hosts with each policy.",
            vec![Query::new("sum by (policy) (vmentry_policy{HOST})", "{{policy}}")],
        ),
        Panel::new(
            Kind::Lines,
            "Guest time by policy",
            "s",
            "p50 and p99 of guest time of all hosts with a policy. Other hosts do other work: choose one exit reason \
             and similar VMs, and run vmentry ab for a result with a confidence interval.",
            p50_and_p99_by_policy(GUEST_TIME),
        )
        .log(),
        Panel::new(
            Kind::Lines,
            "Host time by policy",
            "s",
            "p50 and p99 of host time of all hosts with a policy, without HLT.",
            p50_and_p99_by_policy(HOST_TIME_WITHOUT_HLT),
        )
        .log(),
        Panel::new(
            Kind::Lines,
            "Pin writes per entry by policy",
            "short",
            "Pin-control VMCS writes per entry of all hosts with a policy.",
            vec![Query::new(pin_writes_by_policy(), "{{policy}}")],
        ),
        Panel::new(
            Kind::Lines,
            "Hard policy relative to soft",
            "percentunit",
            "Median and mean guest time of the hosts with the hard policy, as a share of the soft ones'. 100 %: no \
             difference.",
            hard_relative_to_soft(),
        ),
    ];
    Row { title: "By policy", panels }
}

fn pin_writes_by_policy() -> String {
    let by_policy = |series: &str| {
        let policy = "on (instance) group_left (policy) (vmentry_policy{HOST} == 1)";
        format!("sum by (policy) ({} * {policy})", rate(series))
    };
    format!("{} / {}", by_policy("vmentry_pin_writes_total{VMS}"), by_policy("vmentry_pin_known_entries_total{VMS}"))
}

fn hard_relative_to_soft() -> Vec<Query> {
    let sum = |expr: &str, policy: &str| format!("sum({})", of_policy(expr, policy));
    let median = |policy: &str| format!("histogram_quantile(0.5, {})", sum(&rate(GUEST_TIME), policy));
    let mean = |policy: &str| {
        let of = |function: &str| sum(&format!("histogram_{function}({})", rate(GUEST_TIME)), policy);
        format!("{} / {}", of("sum"), of("count"))
    };
    vec![
        Query::new(format!("{} / {}", median("hard"), median("soft")), "median"),
        Query::new(format!("{} / ({})", mean("hard"), mean("soft")), "mean"),
    ]
}

fn timer() -> Row {
    let panels = vec![
        panels::pin_writes("Pin writes per entry by host", "instance").wide(8),
        panels::dirty_entries("Dirty share by host", "instance").wide(8),
        panels::spurious("Spurious timer exits by host", "instance").wide(8),
    ];
    Row { title: "Preemption timer", panels }
}

fn tool() -> Row {
    let cpu = format!("{} and on (instance) vmentry_build_info", rate("process_cpu_seconds_total{HOST}"));
    let panels = vec![
        Panel::new(
            Kind::Lines,
            "Lost by host",
            "percentunit",
            "Share of entries that did not fit into the rings, among all that the eBPF programs counted.",
            vec![Query::new(lost_share("instance"), "{{instance}}")],
        )
        .wide(8),
        Panel::new(
            Kind::Lines,
            "CPU of the exporter by host",
            "percentunit",
            "Share of one CPU. The eBPF programs are not part of it: they run on the vCPUs' time, about 0.5 us per \
             entry (vmentry help overhead).",
            vec![Query::new(cpu, "{{instance}}")],
        )
        .wide(8),
        Panel::new(
            Kind::Lines,
            "Series by host",
            "percentunit",
            "Series that each exporter holds, as a share of their limit. At the limit, new VMs are counted together as \
             VM \"other\".",
            vec![Query::new("vmentry_series{HOST} / vmentry_series_limit{HOST}", "{{instance}}")],
        )
        .wide(8),
    ];
    Row { title: "Exporters", panels }
}
