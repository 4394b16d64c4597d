//! The environment: recordings and their hosts side by side, with differences marked.

use std::collections::BTreeSet;

use super::{
    moment,
    table::{Cell, Heading, Table},
};
use crate::{
    model::{
        figures::{Figure, Unit, human},
        knowledge::{Subject, Unknown},
        measurement::{Latency, PinSource},
    },
    recording::Provenance,
};

const UNKNOWN: &str = "n/a";

/// One column per recording, below `heads`.
pub(crate) fn table(id: &str, heads: &[String], sources: &[&Provenance]) -> Table {
    let several = sources.len() > 1;
    let mut columns = vec![Heading::word("")];
    columns.extend(several.then(|| Heading::word("alike?")));
    columns.extend(heads.iter().map(|h| Heading::text(h.clone())));
    let caption = if several { "The recordings and their hosts, side by side" } else { "The recording and its host" };
    let mut facts = Facts { sources, table: Table::new(id, caption, columns) };
    facts.add_recording();
    facts.add_host();
    facts.add_measurement();
    facts.add_parameters();
    facts.table
}

/// The table under construction.
struct Facts<'a> {
    sources: &'a [&'a Provenance],
    table: Table,
}

impl Facts<'_> {
    /// Adds a row; if the recordings must agree but differ, it is marked.
    fn add(&mut self, name: &str, must_agree: bool, of: &dyn Fn(&Provenance) -> String) {
        self.add_known(name, must_agree, &|s| Ok(of(s)));
    }

    /// Adds a row of values that may not be known.
    fn add_known(&mut self, name: &str, must_agree: bool, of: &dyn Fn(&Provenance) -> Result<String, Unknown>) {
        let several = self.sources.len() > 1;
        let values: Vec<_> = self.sources.iter().map(|s| of(s)).collect();
        let differ = values.iter().any(|v| *v != values[0]);
        let alike = match (must_agree, differ) {
            (false, _) => "",
            (true, false) => "alike",
            (true, true) => "differs",
        };
        let mut cells = vec![Cell::from(name)];
        cells.extend(several.then(|| Cell::from(alike)));
        cells.extend(values.into_iter().map(Cell::from));
        self.table.row_of(if several && must_agree && differ { "differs" } else { "" }, cells);
    }

    fn add_recording(&mut self) {
        self.add("file", false, &|s| s.name.clone());
        self.add("label", false, &|s| s.header.label.clone().unwrap_or_else(|| "none".into()));
        self.add("start", false, &|s| moment::utc(s.header.anchor.unix_ns));
        self.add("length", false, &|s| {
            format!("{} in {} intervals", human(Some(s.length_ns as f64), Unit::Ns), s.intervals)
        });
        self.add("end", false, &ended);
        self.add("command", false, &|s| s.header.command.join(" "));
        self.add("tool", true, &|s| s.header.tool.clone());
    }

    fn add_host(&mut self) {
        self.add("host", true, &|s| s.header.host.name.clone());
        self.add("boot", false, &|s| s.header.host.boot_id.clone());
        self.add("kernel", true, &|s| s.header.host.kernel.clone());
        self.add("CPU", true, &|s| format!("{} x {}", s.header.host.cpus, s.header.host.cpu));
        self.add("microcode", true, &|s| s.header.host.microcode.clone().unwrap_or_else(|| UNKNOWN.into()));
        self.add("times", true, &|s| match (s.header.host.emulated, &s.header.host.virtualized) {
            (true, _) => "EMULATED: they say nothing about real hardware".into(),
            (false, Some(v)) => format!("from a host that is itself a guest ({v})"),
            (false, None) => "from real hardware".into(),
        });
        self.add("KVM module", true, &|s| match s.header.host.vendor {
            Some(vendor) => vendor.module().unwrap_or("another").into(),
            None => UNKNOWN.into(),
        });
        for module in names(self.sources, |s| s.header.host.build_ids.keys().collect()) {
            let of = |s: &Provenance| s.header.host.build_ids.get(module).cloned().unwrap_or_else(|| UNKNOWN.into());
            self.add(&format!("build-id of {module}"), true, &of);
        }
        self.add("timer policy", false, &|s| s.policy_text());
        self.add_known("longest timer delay", true, &|s| s.longest_timer_delay_s().map(|d| format!("{d:.1} s")));
        self.add("TSC, measured", false, &|s| {
            let khz = s.end.as_ref().and_then(|e| e.tsc_khz);
            khz.map_or(UNKNOWN.into(), |khz| format!("{:.1} MHz", f64::from(khz) / 1e3))
        });
        self.add("tickless CPUs", true, &|s| match s.header.tickless_cpus.as_deref() {
            None => UNKNOWN.into(),
            Some("") => "none".into(),
            Some(cpus) => cpus.into(),
        });
    }

    fn add_measurement(&mut self) {
        self.add_known("pin writes from", true, &|s| {
            s.header.knowledge().figure(Figure::PinWrites).map_err(Unknown::clone)?;
            Ok(pin_source(s.header.pin_writes_source).into())
        });
        self.add_known("transition_ns from", true, &|s| {
            s.header.knowledge().known(Subject::Transition).map_err(Unknown::clone)?;
            Ok(match s.header.stopwatch.map(|stopwatch| stopwatch.tick_ns()) {
                Some(Some(ns)) => format!("the companion patch's stopwatch, to {}", human(Some(ns), Unit::Ns)),
                Some(None) => "the companion patch's stopwatch".into(),
                None => "immediate timer exits".into(),
            })
        });
        self.add("entries counted", true, &|s| s.header.aggregation.text().into());
        self.add("guest and host time", true, &|s| latency(s.header.latency).into());
        self.add("other tracers on kvm_entry and kvm_exit", true, &|s| match (
            s.other_tracers(),
            &s.header.other_tracers,
        ) {
            (tracers, _) if !tracers.names.is_empty() => tracers.text(),
            (_, Some(looked)) => looked.text(),
            (_, None) => UNKNOWN.into(),
        });
        self.add("missing in this kernel", true, &|s| match s.header.missing.as_slice() {
            [] => "nothing".into(),
            missing => missing.join("; "),
        });
        self.add("counted VMWRITE sites", true, &|s| match s.header.sites.as_slice() {
            [] => "none".into(),
            sites => sites.iter().map(|s| s.name()).collect::<Vec<_>>().join(", "),
        });
    }

    fn add_parameters(&mut self) {
        for parameter in names(self.sources, |s| s.header.host.parameters.keys().collect()) {
            // The policy may be the compared setting.
            let must_agree = parameter != "preemption_timer_policy";
            let value = |s: &Provenance| s.header.host.parameters.get(parameter).cloned();
            self.add(&format!("parameter {parameter}"), must_agree, &|s| value(s).unwrap_or_else(|| UNKNOWN.into()));
        }
    }
}

/// Every name that one of the recordings has.
fn names<'a>(sources: &[&'a Provenance], of: fn(&'a Provenance) -> Vec<&'a String>) -> BTreeSet<&'a String> {
    sources.iter().flat_map(|s| of(s)).collect()
}

/// Source of pin writes, for people.
pub(crate) const fn pin_source(source: PinSource) -> &'static str {
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
        Latency::DisturbedButAsked => "DISTURBED by hooks on VMCS writes, shown because of --with-latency",
    }
}

fn ended(source: &Provenance) -> String {
    match (&source.end, source.torn) {
        (Some(end), _) => format!("ended by {}", end.reason),
        (None, true) => "cut off within an interval (the whole intervals were read)".into(),
        (None, false) => "cut off (its last whole interval was read)".into(),
    }
}

/// Contents and limits of the figures.
pub(crate) const METHOD: [&str; 8] = [
    "A round is kvm_exit -> kvm_entry -> kvm_exit of one vCPU. One record per VM entry leaves the kernel when its round closes; a record \
     that finds its ring full is counted, so that entries = delivered + dropped, always.",
    "Guest time (entry_to_exit_ns) is not the VM-entry latency: it contains the time in the guest, which is most of it. Between policies, \
     the difference counts.",
    "For entries that were forced to exit immediately, transition_ns is all of their guest time. With the stopwatch it is known for every \
     entry and is less, because the stopwatch's own VMREAD, tracepoint and program are in the guest time.",
    "Host time (exit_to_entry_ns) belongs to the exit that the host handled; if the vCPU was halted, it contains the wait.",
    "Pin writes are writes of the pin-based VM-execution controls since the previous kvm_exit. The shadow method compares the controls' \
     shadow copy at kvm_exit and kvm_entry, and misses writes that cancel out in between. The companion patch's tracepoint counts all.",
    "Times are CLOCK_MONOTONIC and contain the two programs on kvm_entry and kvm_exit. Under emulation they say nothing about real \
     hardware.",
    "Histograms keep three significant digits: quantiles, minimum and maximum are bounds of buckets, exact to 0.1 %. Nothing was sampled.",
    "n/a: not known, by this kernel or in this recording. It is never shown as 0.",
];
