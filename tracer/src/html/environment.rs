//! What was recorded where: the recordings side by side, with what differs marked.

use std::collections::BTreeSet;

use super::{
    moment,
    table::{Column, Table},
};
use crate::{
    model::{
        figures::{Unit, human},
        measurement::{Latency, PinSource},
        vendor::Vendor,
    },
    recording::Provenance,
};

const UNKNOWN: &str = "n/a";

/// One column per recording. `heads` are their headings.
pub fn table(id: &str, heads: &[String], sources: &[&Provenance]) -> Table {
    let several = sources.len() > 1;
    let mut columns = vec![Column::word("")];
    columns.extend(several.then(|| Column::word("alike?")));
    columns.extend(heads.iter().map(|h| Column::text(h.clone())));
    let caption = if several { "The recordings and their hosts, side by side" } else { "The recording and its host" };
    let mut table = Table::new(id, caption, columns);
    let mut add = |name: &str, must_agree: bool, of: &dyn Fn(&Provenance) -> String| {
        let values: Vec<_> = sources.iter().map(|s| of(s)).collect();
        let differ = values.iter().any(|v| *v != values[0]);
        let marked = several && must_agree && differ;
        let alike = match (must_agree, differ) {
            (false, _) => "",
            (true, false) => "alike",
            (true, true) => "differs",
        };
        let mut cells = vec![name.to_owned()];
        cells.extend(several.then(|| alike.to_owned()));
        cells.extend(values);
        table.row_of(if marked { "differs" } else { "" }, cells);
    };
    add("file", false, &|s| s.name.clone());
    add("label", false, &|s| s.header.label.clone().unwrap_or_else(|| "none".into()));
    add("begun", false, &|s| moment::utc(s.header.anchor.unix_ns));
    add("length", false, &|s| format!("{} in {} intervals", human(Some(s.length_ns as f64), Unit::Ns), s.intervals));
    add("end", false, &ended);
    add("command", false, &|s| s.header.command.join(" "));
    add("tool", true, &|s| s.header.tool.clone());
    add("host", true, &|s| s.header.host.name.clone());
    add("boot", false, &|s| s.header.host.boot_id.clone());
    add("kernel", true, &|s| s.header.host.kernel.clone());
    add("CPU", true, &|s| format!("{} x {}", s.header.host.cpus, s.header.host.cpu));
    add("microcode", true, &|s| s.header.host.microcode.clone().unwrap_or_else(|| UNKNOWN.into()));
    add("times", true, &|s| match (s.header.host.emulated, &s.header.host.virtualized) {
        (true, _) => "EMULATED: no times of any CPU".into(),
        (false, Some(v)) => format!("of a host that is itself a guest ({v})"),
        (false, None) => "of the CPU".into(),
    });
    add("KVM module", true, &|s| match s.header.host.vendor {
        Some(Vendor::Intel) => "kvm_intel".into(),
        Some(Vendor::Amd) => "kvm_amd".into(),
        Some(Vendor::Other) => "another".into(),
        None => UNKNOWN.into(),
    });
    let names = |of: fn(&Provenance) -> Vec<&String>| sources.iter().flat_map(|s| of(s)).collect::<BTreeSet<_>>();
    for module in names(|s| s.header.host.build_ids.keys().collect()) {
        let of = |s: &Provenance| s.header.host.build_ids.get(module).cloned().unwrap_or_else(|| UNKNOWN.into());
        add(&format!("build-id of {module}"), true, &of);
    }
    add("timer policy", false, &|s| s.policy_text());
    add("timer's longest delay", true, &|s| {
        let delay = s.header.timer.as_ref().and_then(|t| t.max_delay_s);
        delay.map_or(UNKNOWN.into(), |d| format!("{d:.1}s"))
    });
    add("TSC, measured", false, &|s| {
        s.end.as_ref().and_then(|e| e.tsc_khz).map_or(UNKNOWN.into(), |khz| format!("{:.1} MHz", f64::from(khz) / 1e3))
    });
    add("tickless CPUs", true, &|s| match s.header.tickless_cpus.as_str() {
        "" => "none".into(),
        cpus => cpus.into(),
    });
    add("pin writes from", true, &|s| pin_source(s.header.pin_writes_source).into());
    add("transition_ns from", true, &|s| match s.header.stopwatch {
        Some(stopwatch) => match stopwatch.tick_ns() {
            Some(ns) => format!("the companion patch's stopwatch, to {}", human(Some(ns), Unit::Ns)),
            None => "the companion patch's stopwatch".into(),
        },
        None => "entries that were forced to exit at once".into(),
    });
    add("entries counted", true, &|s| s.header.aggregation.text().into());
    add("latencies", true, &|s| latency(s.header.latency).into());
    add("not told by this kernel", true, &|s| match s.header.missing.as_slice() {
        [] => "nothing is missing".into(),
        missing => missing.join("; "),
    });
    add("counted VMWRITE sites", true, &|s| match s.header.sites.as_slice() {
        [] => "none".into(),
        sites => sites.iter().map(|s| s.name()).collect::<Vec<_>>().join(", "),
    });
    for parameter in names(|s| s.header.host.parameters.keys().collect()) {
        // It is what two policies are told apart by.
        let must_agree = parameter != "preemption_timer_policy";
        let of = |s: &Provenance| s.header.host.parameters.get(parameter).cloned().unwrap_or_else(|| UNKNOWN.into());
        add(&format!("parameter {parameter}"), must_agree, &of);
    }
    table
}

/// Where pin writes come from, in words.
pub const fn pin_source(source: PinSource) -> &'static str {
    match source {
        PinSource::Tracepoint => "tracepoint (companion patch, exact)",
        PinSource::Shadow => "shadow (differences of the controls' shadow copy)",
        PinSource::None => "none: n/a",
    }
}

const fn latency(latency: Latency) -> &'static str {
    match latency {
        Latency::Clean => "undisturbed: only the programs on kvm_entry and kvm_exit ran",
        Latency::Disturbed => "not shown: hooks on VMCS writes ran between kvm_entry and the VM entry",
        Latency::DisturbedButAsked => "DISTURBED by hooks on VMCS writes, shown because they were asked for",
    }
}

fn ended(source: &Provenance) -> String {
    match (&source.end, source.torn) {
        (Some(end), _) => format!("ended by {}", end.reason),
        (None, true) => "cut off within an interval (what is whole was read)".into(),
        (None, false) => "cut off (its last whole interval was read)".into(),
    }
}

/// What figures contain and leave out, whoever shows them.
pub const METHOD: [&str; 8] = [
    "One round is kvm_exit -> kvm_entry -> kvm_exit of one vCPU. One record per VM entry leaves the kernel, when its round closes; a record \
     that finds its ring full is counted, so that entries = delivered + dropped, always.",
    "entry_to_exit_ns is no VM-entry latency: the time in the guest is in it, and most of it. Between policies, the difference is what counts.",
    "transition_ns of entries that were forced to exit at once is all of their entry_to_exit_ns; with the stopwatch, of every entry, it is \
     less, and the stopwatch's own VMREAD, tracepoint and program are in entry_to_exit_ns.",
    "exit_to_entry_ns belongs to the exit that the host handled; where the vCPU was halted, the wait is in it.",
    "Pin writes are writes of the pin-based VM-execution controls since the previous kvm_exit. The shadow method compares the controls' \
     shadow copy at kvm_exit and kvm_entry: writes that cancel out between two looks are missed. The companion patch's tracepoint sees all.",
    "Times are of CLOCK_MONOTONIC and contain the two programs on kvm_entry and kvm_exit. Under emulation they count emulated work.",
    "Histograms keep three significant digits: quantiles, minimum and maximum are bounds of buckets, right to 0.1 %. Nothing was sampled.",
    "n/a means: not known, by this kernel or in this recording. It is never shown as 0.",
];
