//! A calibration as text: its limits, the exits, the cost of control writes, and the figures of kvm-unit-tests.

use std::fmt::Write as _;

use super::{
    Calibration,
    exits::Exit,
    sample::{Excluded, WARM_UP},
    summary::{Distribution, ExitCost, MedianInterval, WriteCost},
};
use crate::{
    model::{
        figures::{Unit, human},
        measurement::EMULATED,
        policy::Policy,
    },
    output::{align, wrap},
};

/// Renders a calibration for a terminal or a file, without colours.
pub(crate) fn render(c: &Calibration) -> String {
    let mut out = preamble(c);
    let mut policies: Vec<_> = c.measured.exits.iter().map(|e| e.policy).collect();
    policies.dedup();
    for policy in policies {
        let exits: Vec<_> = c.measured.exits.iter().filter(|e| e.policy == policy).collect();
        // Only VMX has timer policies.
        let name = if policy == Policy::Unknown { String::new() } else { format!("policy {}, ", policy.name()) };
        for unit in [DisplayUnit::Ns, DisplayUnit::Tsc] {
            let _ = writeln!(out, "\n{name}{}", unit.name());
            out += &table(c, &exits, unit);
        }
        out += &without_figures(&exits);
        out += &transitions(c, &exits);
    }
    out += &consistency(c);
    for cost in &c.measured.writes {
        out += &write_cost(c, cost);
    }
    out += &unit_tests(c);
    out + LEGEND
}

/// Characters of a line of prose at most.
const WIDTH: usize = 110;

const LEGEND: &str = "
exit latency   the guest's last stamp -> program on kvm_exit: the exiting instruction, the VM exit, KVM's path to kvm_exit
host           program on kvm_exit -> program on kvm_entry: KVM's handling, with the halt (hlt) and user space (out)
entry latency  program on kvm_entry -> the guest's first stamp: KVM's path to the VM entry (with its timer VMWRITEs), the VM entry
guest          first stamp -> last stamp
round trip     last stamp -> first stamp; untraced: without any program attached; tracing: the difference of the medians
'vmentry help latencies' says what each duration leaves out
";

fn preamble(c: &Calibration) -> String {
    let m = &c.measured;
    let mut out = String::new();
    if let Some(why) = c.stopped_by {
        let _ = writeln!(out, "INCOMPLETE: stopped by {why}; the figures below were complete before");
    }
    if c.host.emulated {
        let _ = writeln!(out, "EMULATED: {EMULATED}");
    }
    let host = &c.host;
    let _ = writeln!(out, "host     {}: Linux {}, {}", host.name, host.kernel, host.cpu);
    let work = if c.work > 0 { format!(", {} loop instructions between its stamps", c.work) } else { String::new() };
    let _ = writeln!(
        out,
        "guest    built in, pinned to CPU {}, with the host's TSC; {} samples of each exit{work}",
        c.cpu, c.samples
    );
    let _ = writeln!(
        out,
        "clocks   TSC {:.3} MHz; CLOCK_MONOTONIC converts to it within {}, which is an error of exit and entry latency",
        m.khz / 1e3,
        both(c, Some(m.clock_error)),
    );
    for caveat in &c.caveats {
        out += &wrap(&format!("note     {caveat}"), "         ", WIDTH);
    }
    out
}

/// Cycles as "123ns (456)".
fn both(c: &Calibration, cycles: Option<f64>) -> String {
    match cycles {
        Some(cycles) if c.measured.khz > 0.0 => format!("{} ({cycles:.0})", ns(c, cycles)),
        _ => "n/a".into(),
    }
}

fn ns(c: &Calibration, cycles: f64) -> String {
    let ns = cycles * 1e6 / c.measured.khz;
    if ns < 0.0 { format!("-{}", human(Some(-ns), Unit::Ns)) } else { human(Some(ns), Unit::Ns) }
}

/// The unit of a table.
#[derive(Clone, Copy)]
enum DisplayUnit {
    Ns,
    Tsc,
}

impl DisplayUnit {
    fn name(self) -> &'static str {
        match self {
            Self::Ns => "time",
            Self::Tsc => "TSC cycles",
        }
    }

    fn text(self, c: &Calibration, cycles: Option<f64>) -> String {
        match (self, cycles) {
            (_, None) => "n/a".into(),
            (Self::Ns, Some(cycles)) => ns(c, cycles),
            (Self::Tsc, Some(cycles)) => format!("{cycles:.0}"),
        }
    }
}

fn table(c: &Calibration, exits: &[&ExitCost], unit: DisplayUnit) -> String {
    let heading = |cells: &[&str]| cells.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let mut cells = vec![
        heading(&["", "", "EXIT", "", "HOST", "ENTRY", "", "", "GUEST", "ROUND", "TRIP", ""]),
        heading(&["", "N", "FLOOR", "P50", "P50", "FLOOR", "P50", "P99", "P50", "P50", "UNTRACED", "TRACING"]),
    ];
    for exit in exits.iter().filter(|e| e.entry_latency.is_some()) {
        let of = |d: Option<Distribution>, f: fn(Distribution) -> f64| unit.text(c, d.map(f));
        cells.push(vec![
            exit.exit.to_owned(),
            exit.entry_latency.map_or(0, |d| d.count).to_string(),
            of(exit.exit_latency, |d| d.floor),
            of(exit.exit_latency, |d| d.p50),
            of(exit.host, |d| d.p50),
            of(exit.entry_latency, |d| d.floor),
            of(exit.entry_latency, |d| d.p50),
            of(exit.entry_latency, |d| d.p99),
            of(exit.guest, |d| d.p50),
            of(exit.round_trip, |d| d.p50),
            of(exit.untraced, |d| d.p50),
            unit.text(c, exit.tracing()),
        ]);
    }
    if cells.len() == 2 { String::new() } else { align(&cells, 1) }
}

fn without_figures(exits: &[&ExitCost]) -> String {
    let why = |exit: &&&ExitCost| match &exit.unavailable {
        Some(why) => Some(format!("{}  n/a: {why}\n", exit.exit)),
        None if exit.entry_latency.is_none() && exit.transition.is_none() => {
            Some(format!("{}  n/a: every sample was excluded: {}\n", exit.exit, excluded(exit.excluded)))
        }
        None => None,
    };
    exits.iter().filter_map(|exit| why(&exit)).collect()
}

/// Transition times: VM entry + VM exit without guest code.
fn transitions(c: &Calibration, exits: &[&ExitCost]) -> String {
    let mut out = String::new();
    for exit in exits {
        let Some(d) = exit.transition else { continue };
        let source = if exit.exit == Exit::Immediate.name() && exit.exit_latency.is_none() {
            "kvm_entry -> kvm_exit of entries that run no guest instruction"
        } else {
            "the companion patch's stopwatch"
        };
        let line = format!(
            "{}  transition (VM entry + VM exit without guest code): floor {}, P50 {}, P99 {}; {} entries; {source}",
            exit.exit,
            both(c, Some(d.floor)),
            both(c, Some(d.p50)),
            both(c, Some(d.p99)),
            d.count
        );
        out += &wrap(&line, "  ", WIDTH);
    }
    out
}

fn excluded(a: Excluded) -> String {
    let parts = [
        (a.interrupted, "interrupted by the host"),
        (a.migrated, "on another CPU"),
        (a.incomplete, "without a record of the next VM entry"),
        (a.unclocked, "outside of the clock readings"),
        (a.warm_up, "warm-up"),
    ];
    let parts: Vec<_> = parts.into_iter().filter(|(n, _)| *n > 0).map(|(n, why)| format!("{n} {why}")).collect();
    if parts.is_empty() { "none".into() } else { parts.join(", ") }
}

fn consistency(c: &Calibration) -> String {
    let mut all = Excluded::default();
    let (mut consistent, mut inconsistent) = (0, 0);
    for exit in &c.measured.exits {
        all.add(exit.excluded);
        consistent += exit.consistent;
        inconsistent += exit.inconsistent;
    }
    c.measured.writes.iter().for_each(|w| all.add(w.excluded));
    let mut out =
        format!("\nexcluded from every figure: {} (the first {WARM_UP} of each run are warm-up)\n", excluded(all));
    let _ = writeln!(
        out,
        "entry latency + guest + exit latency = kvm_entry to kvm_exit, within twice the clocks' error: {consistent} of {} entries",
        consistent + inconsistent
    );
    if inconsistent > 0 {
        let _ = writeln!(out, "DO NOT TRUST THESE FIGURES: the clocks of {inconsistent} entries contradict each other");
    }
    out
}

fn write_cost(c: &Calibration, w: &WriteCost) -> String {
    let mut out = format!("\nwrites to the {} controls\n", w.control);
    if let Some(why) = &w.unavailable {
        let _ = writeln!(out, "  n/a: {why}");
        return out;
    }
    let times = |i: MedianInterval| format!("{:.2} times [{:.2}, {:.2}]", i.value, i.low, i.high);
    match (w.cost, w.ratio) {
        (Some(cost), Some(ratio)) => {
            let _ = writeln!(
                out,
                "  a {} write costs {} ({:.0} cycles) [{}, {}]; the next VM entry takes {} as long\n  [95 % confidence interval]; \
                 commit 804939ea20 says it 'more than doubles'",
                if w.control == "pin" { "pin-control" } else { "control" },
                ns(c, cost.value),
                cost.value,
                ns(c, cost.low),
                ns(c, cost.high),
                times(ratio),
            );
        }
        _ => {
            let _ = writeln!(out, "  n/a: {} rounds are too few for a confidence interval", w.rounds);
        }
    }
    if let Some(untraced) = w.untraced {
        let _ = writeln!(
            out,
            "  cross-check with untraced round trips: {} ({:.0} cycles) [{}, {}]",
            ns(c, untraced.value),
            untraced.value,
            ns(c, untraced.low),
            ns(c, untraced.high)
        );
    }
    for (group, d) in [("dirty", w.dirty), ("clean", w.clean)] {
        if let Some(d) = d {
            let _ = writeln!(
                out,
                "  VM-entry latency of {} {group} entries: floor {}, P50 {}, P99 {}",
                d.count,
                both(c, Some(d.floor)),
                both(c, Some(d.p50)),
                both(c, Some(d.p99))
            );
        }
    }
    if let Some(control) = w.control_ratio {
        let _ = writeln!(out, "  control, clean entries against other clean entries: {}", times(control));
    }
    if w.unexpected > 0 {
        let _ = writeln!(
            out,
            "  {} entries had a write where none was expected, or the reverse: excluded from every figure",
            w.unexpected
        );
    }
    out += &wrap(&format!("  {} rounds, {}", w.rounds, w.how), "  ", WIDTH);
    out + "  VM-entry latency includes KVM's path to the VM entry: for the VM entry alone the factor is larger and the\n  difference is the same\n"
}

fn unit_tests(c: &Calibration) -> String {
    let mut out = String::new();
    for exit in Exit::ALL {
        let costs = c.measured.exits.iter().filter(|e| e.exit == exit.name());
        for cost in costs {
            if let (Some(name), Some(cycles)) = (exit.unit_test(), cost.per_iteration) {
                let policy = match cost.policy {
                    Policy::Unknown => String::new(),
                    policy => format!("    (policy {})", policy.name()),
                };
                let _ = writeln!(out, "{name} {cycles:.0}{policy}");
            }
        }
    }
    if out.is_empty() {
        return out;
    }
    format!(
        "\nas in kvm-unit-tests' vmexit: mean TSC cycles per iteration, untraced; this includes two RDTSC that vmexit does not have\n{out}"
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{super::measure::Measured, *};
    use crate::{
        calibrate::{
            sample::Samples,
            summary::{CostRound, ExitSource},
        },
        guest::calibration::Step,
        host::machine::Host,
        model::policy::Policy,
    };

    /// A made-up calibration at 2 GHz: a VM-entry latency of 400 cycles, an exit latency of 300.
    pub(crate) fn calibration() -> Calibration {
        let sample = crate::calibrate::sample::Sample {
            step: Step::Measured,
            exit_latency: 300.0,
            host: 900.0,
            entry_latency: 400.0,
            round_trip: 1600.0,
            guest: Some(60.0),
            pin_writes: Some(0),
            exec_written: Some(false),
            stopwatch_ns: None,
        };
        let found = Samples { samples: vec![sample; 10], consistent: 10, ..Samples::default() };
        let source = ExitSource { samples: &found, traced: &[1600; 10], untraced: &[1400; 10] };
        let mut cpuid = ExitCost::of("cpuid", Policy::Soft, source);
        cpuid.per_iteration = Some(1460.0);
        let nothing = ExitSource { samples: &Samples::default(), traced: &[], untraced: &[] };
        let mut immediate = ExitCost::of("immediate", Policy::Soft, nothing);
        immediate.transition = Distribution::of([700.0; 10]);
        let hlt = ExitCost::unavailable("hlt", Policy::Soft, "made up".into());
        let rounds: Vec<_> = (0..12)
            .map(|n| CostRound {
                dirty: 900.0 + f64::from(n),
                clean: 400.0,
                control: Some(400.0),
                untraced: Some((1900.0, 1400.0)),
            })
            .collect();
        let writes = vec![
            WriteCost::of("pin", "alternately", &rounds, &[900.0; 12], &[400.0; 12]),
            WriteCost::unavailable("exec", "", "no such writes".into()),
        ];
        Calibration {
            host: Host { name: "made-up".into(), kernel: "6.12".into(), cpu: "CPU".into(), ..Host::default() },
            cpu: 3,
            samples: 10,
            work: 0,
            clocksource: "tsc".into(),
            caveats: vec!["a caveat".into()],
            measured: Measured { exits: vec![cpuid, immediate, hlt], writes, khz: 2e6, clock_error: 30.0 },
            stopped_by: None,
        }
    }

    #[test]
    fn the_headline_has_the_cost_its_factor_their_intervals_and_the_claim() {
        let text = render(&calibration());
        assert!(
            text.contains(
                "a pin-control write costs 253ns (506 cycles) [251ns, 254ns]; the next VM entry takes 2.26 times [2.25, 2.27] as long"
            ),
            "{text}"
        );
        assert!(
            text.contains("'more than doubles'") && text.contains("untraced round trips: 250ns (500 cycles)"),
            "{text}"
        );
    }

    #[test]
    fn unavailable_figures_are_n_a_with_the_reason() {
        let text = render(&calibration());
        assert!(text.contains("hlt  n/a: made up") && text.contains("n/a: no such writes"), "{text}");
        assert!(
            text.contains("immediate  transition (VM entry + VM exit without guest code): floor 350ns (700)"),
            "{text}"
        );
    }

    #[test]
    fn a_row_has_every_part_in_both_units() {
        let text = render(&calibration());
        let rows: Vec<Vec<_>> =
            text.lines().filter(|l| l.starts_with("cpuid ")).map(|l| l.split_whitespace().collect()).collect();
        let ns =
            ["cpuid", "10", "150ns", "150ns", "450ns", "200ns", "200ns", "200ns", "30ns", "800ns", "700ns", "100ns"];
        assert_eq!(rows[0], ns, "{text}");
        assert_eq!(rows[1][2..], ["300", "300", "900", "400", "400", "400", "60", "1600", "1400", "200"], "{text}");
        assert!(text.contains("cpuid 1460"), "{text}");
        assert!(text.contains("converts to it within 15ns (30)"), "{text}");
    }

    #[test]
    fn emulation_an_early_end_and_contradicting_clocks_are_reported_and_only_then() {
        let mut c = calibration();
        let good = render(&c);
        assert!(!good.contains("EMULATED") && !good.contains("INCOMPLETE") && !good.contains("DO NOT TRUST"), "{good}");
        c.host.emulated = true;
        c.stopped_by = Some("SIGINT");
        c.measured.exits[0].inconsistent = 1;
        let bad = render(&c);
        assert!(
            bad.contains("EMULATED") && bad.contains("INCOMPLETE: stopped by SIGINT") && bad.contains("DO NOT TRUST"),
            "{bad}"
        );
    }
}
