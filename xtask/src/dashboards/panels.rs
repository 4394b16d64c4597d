//! Panels that both dashboards have.

use crate::dashboards::{
    expressions::{dirty_share, lost_share, pin_writes_per_entry, spurious_exits},
    grafana::{Kind, LABELS, Panel, Query},
};

/// Entries that did not fit into the rings.
pub(super) fn lost() -> Panel {
    Panel::new(
        Kind::Stat,
        "Lost",
        "percentunit",
        "Share of entries that did not fit into the rings. Above 0, percentiles describe the measured entries only.",
        vec![Query::new(lost_share(""), "lost")],
    )
    .warns(1e-6, 1e-3)
}

/// Kernel and CPU of each host.
pub(super) fn kernels(title: &'static str) -> Panel {
    Panel::new(
        Kind::Table,
        title,
        "none",
        "Kernel and CPU, and whether the host is virtualized or emulated. Times of an emulated host say nothing about \
         real hardware.",
        vec![Query::new("vmentry_host_info{HOST}", LABELS)],
    )
}

/// Pin writes per entry, a line for each value of a label.
pub(super) fn pin_writes(title: &'static str, label: &str) -> Panel {
    Panel::new(
        Kind::Lines,
        title,
        "short",
        "Pin-control VMCS writes per entry. After each, the next VM entry repeats its checks. No line if the kernel \
         does not provide the number.",
        vec![Query::new(pin_writes_per_entry(label), format!("{{{{{label}}}}}"))],
    )
}

/// Entries with a pin-control write before them, a line for each value of a label.
pub(super) fn dirty_entries(title: &'static str, label: &str) -> Panel {
    Panel::new(
        Kind::Lines,
        title,
        "percentunit",
        "Share of entries with a pin-control write before them, among the entries for which this is known.",
        vec![Query::new(dirty_share(label), format!("{{{{{label}}}}}"))],
    )
}

/// Spurious timer exits, a line for each value of a label.
pub(super) fn spurious(title: &'static str, label: &str) -> Panel {
    Panel::new(
        Kind::Lines,
        title,
        "cps",
        "Exits of a timer that KVM had disabled in software. Only a vCPU without other exits for about a minute should \
         make one.",
        vec![Query::new(spurious_exits(label), format!("{{{{{label}}}}}"))],
    )
}
