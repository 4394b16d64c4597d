//! A survey as one page: what the host is, all figures with their sources, the running VMs by number, and what was run.

use super::{
    figures::{self, ns},
    parts::{STEPS, Step},
    row::{erratum, runs_on},
    values::{Host, Part, Percentiles, Recording, Survey},
};
use crate::{
    html::{
        Markup, Section, Tone, callout, heading, join, list, page, paragraph,
        table::{Heading, Table},
    },
    model::measurement::EMULATED,
    output::grouped,
};

const NA: &str = "n/a";

/// Renders the page.
pub(super) fn render(survey: &Survey) -> String {
    let host = &survey.host;
    let emulated = if host.emulated { "EMULATED \u{b7} " } else { "" };
    let subtitle = format!("{emulated}{}, Linux {}, {}", host.cpu, host.kernel, survey.day);
    let sections = [
        Section { id: "host", title: "The host", body: join([warnings(survey), host_table(survey)]) },
        Section { id: "figures", title: "Figures", body: figures_table(survey) },
        Section { id: "vms", title: "Running VMs", body: vms(&survey.parts.recording) },
        Section { id: "parts", title: "What was run", body: parts(survey) },
        Section { id: "privacy", title: "What is in these files", body: privacy() },
    ];
    page("Survey of a KVM host", &subtitle, &sections)
}

fn warnings(survey: &Survey) -> Markup {
    let host = &survey.host;
    let hypervisor = host.virtualized.as_ref().filter(|_| !host.emulated);
    join([
        if host.emulated { callout(Tone::Alarm, "EMULATED", EMULATED) } else { join([]) },
        hypervisor.map_or(join([]), |hypervisor| {
            callout(
                Tone::Alarm,
                "VIRTUALIZED",
                &format!("times include the work of the hypervisor below ({hypervisor})"),
            )
        }),
        if survey.cut {
            callout(
                Tone::Alarm,
                "CUT",
                "a part was ended before it was done: its figures are of what it had until then",
            )
        } else {
            join([])
        },
    ])
}

fn host_table(survey: &Survey) -> Markup {
    let host = &survey.host;
    let mut table = Table::new("host-table", "The host", vec![Heading::word(""), Heading::text("")]);
    let or_na = |value: Option<String>| value.unwrap_or_else(|| NA.into());
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let parameters: Vec<_> = host.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let none = |text: String| if text.is_empty() { "none".into() } else { text };
    let rows = [
        ("CPU", format!("{} x {}", host.cpus, host.cpu)),
        ("microcode", or_na(host.microcode.clone())),
        ("kernel", host.kernel.clone()),
        ("runs on", runs_on(survey)),
        ("KVM module", or_na(host.vendor.map(|vendor| vendor.module().unwrap_or("another").into()))),
        ("parameters", none(parameters.join(", "))),
        ("timer policy", host.policy.name().into()),
        ("companion patch", yes(host.companion_patch)),
        ("stopwatch", or_na(host.stopwatch.map(yes))),
        ("TSC", or_na(host.tsc_khz.map(|khz| format!("{} kHz", grouped(khz.into()))))),
        (
            "preemption timer",
            or_na(host.timer_rate.map(|rate| format!("counts once in {} TSC cycles", 1_u64 << rate.min(63)))),
        ),
        ("soft-disabled timer", or_na(soft_delay(host))),
        ("erratum EMR158", erratum(survey)),
        ("tickless CPUs", none(host.tickless_cpus.clone())),
        ("fields that BTF lacks", none(host.missing.join(", "))),
        ("made by", survey.tool.clone()),
    ];
    rows.into_iter().for_each(|(name, value)| table.row([name.to_owned(), value]));
    table.render()
}

fn soft_delay(host: &Host) -> Option<String> {
    host.erratum.as_ref()?.soft_delay_s.map(|s| format!("expires after {s:.1} s"))
}

fn figures_table(survey: &Survey) -> Markup {
    let columns = vec![
        Heading::word("Figure"),
        Heading::word("Value"),
        Heading::word("Spread"),
        Heading::text("Source and loss"),
    ];
    let mark = if survey.host.emulated { " (EMULATED)" } else { "" };
    let mut table = Table::new("figures-table", format!("Times are of one VM entry or exit of a vCPU{mark}"), columns);
    for figures::Row { name, value, spread, source } in figures::all(survey) {
        table.row([name, value, spread, source]);
    }
    table.render()
}

fn vms(part: &Part<Recording>) -> Markup {
    let Some(recording) = &part.measured else {
        return paragraph(&format!("n/a: {}.", part.unavailable.map_or("not recorded", super::reason::Reason::text)));
    };
    let mark = if part.emulated { " (EMULATED)" } else { "" };
    let Recording { length_s, entries, dropped, .. } = recording;
    let loss = if *dropped == 0 { "no loss".into() } else { format!("{} lost", grouped(*dropped)) };
    let summary = format!("{length_s:.1} s, {} VM entries, {loss}{mark}.", grouped(*entries));
    join([
        paragraph(&summary),
        totals(recording),
        vm_table(recording, mark),
        heading("Exits"),
        reason_table(recording, mark),
    ])
}

fn totals(recording: &Recording) -> Markup {
    let count = |count: Option<u64>| count.map_or(NA.into(), grouped);
    let exits = &recording.timer_exits;
    let source = recording.pin_writes_source.as_deref().map_or(String::new(), |source| format!(" ({source})"));
    list(&[
        format!(
            "Pin-control writes: {}{source}; not known of {} entries",
            count(recording.pin_writes),
            grouped(recording.unknown_pin_writes)
        ),
        format!(
            "Timer exits: deadline {}, immediate {}, spurious {}, early {}, of unknown cause {}",
            count(exits.deadline),
            count(exits.immediate),
            count(exits.spurious),
            count(exits.early),
            count(exits.unknown)
        ),
    ])
}

fn vm_table(recording: &Recording, mark: &str) -> Markup {
    let columns = vec![
        Heading::word("VM"),
        Heading::number("Entries"),
        Heading::number("Share of host time"),
        Heading::number("Pin writes per entry"),
    ];
    let mut table = Table::new("vms-table", format!("VMs by number, most host time first{mark}"), columns);
    for (at, vm) in recording.vms.iter().enumerate() {
        let writes = vm.pin_writes.map_or(NA.into(), |writes| format!("{:.3}", writes.mean));
        table.row([format!("VM {}", at + 1), grouped(vm.entries), share(vm.host_time_share), writes]);
    }
    table.render()
}

fn reason_table(recording: &Recording, mark: &str) -> Markup {
    let columns = vec![
        Heading::word("Exit reason"),
        Heading::number("Share of exits"),
        Heading::number("Share of host time"),
        Heading::number("Host time p50"),
        Heading::number("p99"),
        Heading::number("Guest time p50"),
        Heading::number("p99"),
    ];
    let mut table = Table::new("reasons-table", format!("Exits of all VMs, most host time first{mark}"), columns);
    let both = |time: Option<Percentiles>| time.map_or([NA.into(), NA.into()], |time| [ns(time.p50), ns(time.p99)]);
    for row in &recording.reasons {
        let [host_p50, host_p99] = both(row.host_time_ns);
        let [guest_p50, guest_p99] = both(row.guest_time_ns);
        let reason = row.reason.clone().unwrap_or_else(|| NA.into());
        table.row([
            reason,
            share(row.exit_share),
            share(row.host_time_share),
            host_p50,
            host_p99,
            guest_p50,
            guest_p99,
        ]);
    }
    table.render()
}

fn share(share: Option<f64>) -> String {
    share.map_or(NA.into(), |share| format!("{:.1} %", share * 100.0))
}

fn parts(survey: &Survey) -> Markup {
    let parts = &survey.parts;
    let columns = vec![
        Heading::word("Part"),
        Heading::number("Seconds"),
        Heading::text("Result"),
        Heading::text("What, and the command"),
    ];
    let mut table = Table::new("parts-table", "The parts, in their order", columns);
    let mut ends =
        [end(&parts.check), end(&parts.erratum), end(&parts.overhead), end(&parts.calibrate), end(&parts.recording)];
    if parts.check.measured.as_ref().is_some_and(|proof| !proof.passed) {
        ends[0].1 = "failed: the exits do not arrive as they were made".into();
    }
    for (Step { name, what, arguments, .. }, (seconds, result)) in STEPS.into_iter().zip(ends) {
        table.row([
            (*name).to_owned(),
            format!("{seconds:.1}"),
            result,
            format!("{what}: vmentry {}", arguments.join(" ")),
        ]);
    }
    table.render()
}

fn end<T>(part: &Part<T>) -> (f64, String) {
    let result = match (&part.measured, part.unavailable) {
        (Some(_), _) if part.cut => "CUT: figures of what it had until then".into(),
        (Some(_), _) => "measured".into(),
        (None, reason) => format!("n/a: {}", reason.map_or("not run", super::reason::Reason::text)),
    };
    (part.seconds, result)
}

fn privacy() -> Markup {
    list(&[
        "No names of VMs, users or hosts, no UUIDs, MAC addresses, paths, command lines or serial numbers: the JSON has no field for them.",
        "VMs have numbers, in the order of their host time.",
        "CPU model, microcode, kernel release and the parameters of the KVM module are kept: figures are of no use without them.",
    ])
}
