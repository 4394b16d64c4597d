//! PromQL that panels share. HOST, VMS and SERIES stand for a dashboard's matchers (see `Dashboard::selecting`).

use crate::dashboards::grafana::Query;

/// Guest time: kvm_entry to kvm_exit.
pub(super) const GUEST_TIME: &str = "vmentry_entry_to_exit_seconds{SERIES}";
/// Host time: kvm_exit to the next kvm_entry.
pub(super) const HOST_TIME: &str = "vmentry_exit_to_entry_seconds{SERIES}";
/// Host time without HLT, which lasts as long as the guest halts.
pub(super) const HOST_TIME_WITHOUT_HLT: &str = "vmentry_exit_to_entry_seconds{SERIES, exit_reason!=\"HLT\"}";

/// Increase per second of series.
pub(super) fn rate(series: &str) -> String {
    format!("rate({series}[$__rate_interval])")
}

/// Sum by labels such as `vm, level`; over everything if there are none.
pub(super) fn sum(by: &str, expr: &str) -> String {
    if by.is_empty() { format!("sum({expr})") } else { format!("sum by ({by}) ({expr})") }
}

/// Sum of the increases per second of counters.
pub(super) fn sum_of_rates(by: &str, series: &str) -> String {
    sum(by, &rate(series))
}

/// A quantile of native histograms, merged by labels.
pub(super) fn quantile(quantile: f64, by: &str, histograms: &str) -> String {
    format!("histogram_quantile({quantile}, {})", sum_of_rates(by, histograms))
}

/// The median and the 99th percentile, with legends of the labels.
pub(super) fn p50_and_p99(by: &str, histograms: &str) -> Vec<Query> {
    let legend = by.split(", ").map(|label| format!(" {{{{{label}}}}}")).collect::<String>();
    [(0.5, "p50"), (0.99, "p99")]
        .map(|(q, name)| Query::new(quantile(q, by, histograms), format!("{name}{legend}")))
        .into()
}

/// The median and the 99th percentile of all hosts of the soft policy, and of those of the hard one.
pub(super) fn p50_and_p99_by_policy(histograms: &str) -> Vec<Query> {
    let of = |q: f64, name: &str, policy: &str| {
        let expr = format!("histogram_quantile({q}, sum({}))", of_policy(&rate(histograms), policy));
        Query::new(expr, format!("{name} {policy}"))
    };
    vec![of(0.5, "p50", "soft"), of(0.5, "p50", "hard"), of(0.99, "p99", "soft"), of(0.99, "p99", "hard")]
}

/// Those series whose host has a policy.
pub(super) fn of_policy(expr: &str, policy: &str) -> String {
    format!("{expr} and on (instance) vmentry_policy{{HOST, policy=\"{policy}\"}} == 1")
}

/// Entries per second, counted by native histograms.
pub(super) fn entries(by: &str, histograms: &str) -> String {
    sum(by, &format!("histogram_count({})", rate(histograms)))
}

/// Pin-control VMCS writes per entry, of the entries for which their number is known.
pub(super) fn pin_writes_per_entry(by: &str) -> String {
    let (writes, entries) = ("vmentry_pin_writes_total{VMS}", "vmentry_pin_known_entries_total{VMS}");
    format!("{} / {}", sum_of_rates(by, writes), sum_of_rates(by, entries))
}

/// Entries with a pin-control write before them, of the entries for which this is known.
pub(super) fn dirty_share(by: &str) -> String {
    format!(
        "({} or 0 * {}) / {}",
        sum_of_rates(by, "vmentry_entries_total{VMS, entry=\"dirty\"}"),
        sum_of_rates(by, "vmentry_entries_total{VMS}"),
        sum_of_rates(by, "vmentry_entries_total{VMS, entry=~\"clean|dirty\"}")
    )
}

/// Entries that did not fit into the rings, of all.
pub(super) fn lost_share(by: &str) -> String {
    let (lost, entries) = ("vmentry_ring_dropped_total{HOST}", "vmentry_ring_entries_total{HOST}");
    format!("{} / {}", sum_of_rates(by, lost), sum_of_rates(by, entries))
}

/// Spurious timer exits per second.
pub(super) fn spurious_exits(by: &str) -> String {
    sum_of_rates(by, "vmentry_timer_exits_total{VMS, cause=\"spurious\"}")
}

/// The policy as a number: see `POLICIES`.
pub(super) fn policy_number() -> String {
    "vmentry_policy{HOST, policy=\"soft\"} * 1 or vmentry_policy{HOST, policy=\"hard\"} * 2 \
     or vmentry_policy{HOST, policy=\"off\"} * 3"
        .to_owned()
}
