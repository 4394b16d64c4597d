//! What is in a survey's files, what is not, and what speaks against one.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    figures, is_link, judge,
    made_up::{NAMES, host_facts, nothing, survey},
    next_step, page, projection,
    reason::Reason,
    row,
    values::{Survey, today},
};
use crate::{
    calibrate,
    guest::{Verdict, probe::ProbeOutcome},
    html::tests::check as check_page,
};

fn faults(survey: &Survey) -> Vec<String> {
    judge::judge(survey, &today()).faults
}

#[test]
fn no_name_is_in_the_page_or_the_json() {
    for survey in [survey(), nothing()] {
        let json = serde_json::to_string_pretty(&survey).unwrap();
        for name in NAMES {
            for output in [&json, &page::render(&survey)] {
                assert!(!output.contains(name), "{name}: {output}");
            }
        }
        assert!(!json.contains("script"), "{json}");
    }
}

/// Fields that may hold a text, by path; `*` stands for each element and each parameter.
const TEXTS: [&str; 27] = [
    "format",
    "tool",
    "day",
    "host.cpu",
    "host.microcode",
    "host.kernel",
    "host.vendor",
    "host.parameters.*",
    "host.virtualized",
    "host.policy",
    "host.missing.*",
    "host.tickless_cpus",
    "host.erratum.cpu",
    "host.erratum.reach",
    "parts.check.unavailable",
    "parts.erratum.unavailable",
    "parts.overhead.unavailable",
    "parts.calibrate.unavailable",
    "parts.recording.unavailable",
    "parts.overhead.measured.modes.*.aggregation",
    "parts.calibrate.measured.clock_source",
    "parts.calibrate.measured.exits.*.exit",
    "parts.calibrate.measured.exits.*.policy",
    "parts.calibrate.measured.writes.*.control",
    "parts.calibrate.measured.writes.*.unavailable",
    "parts.recording.measured.pin_writes_source",
    "parts.recording.measured.reasons.*.reason",
];

fn texts(path: &str, value: &Value, found: &mut BTreeSet<String>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::String(_) => drop(found.insert(path.to_owned())),
        Value::Array(all) => all.iter().for_each(|value| texts(&below("*"), value, found)),
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            texts(&below(if path == "host.parameters" { "*" } else { name }), value, found);
        }),
        _ => {}
    }
}

#[test]
fn every_text_of_the_json_is_in_a_field_that_may_hold_one() {
    let mut found = BTreeSet::new();
    for survey in [survey(), nothing()] {
        texts("", &serde_json::to_value(&survey).unwrap(), &mut found);
    }
    let unknown: Vec<_> = found.iter().filter(|path| !TEXTS.contains(&path.as_str())).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    assert!(found.len() > 20, "{found:?}");
}

#[test]
fn a_survey_says_what_its_parts_measured() {
    let survey = survey();
    let parts = &survey.parts;
    assert!(parts.has_figures() && !survey.cut, "{parts:?}");
    let recording = parts.recording.measured.as_ref().unwrap();
    assert_eq!((recording.entries, recording.dropped, recording.timer_exits.deadline), (272, 0, Some(23)));
    assert_eq!(parts.calibrate.measured.as_ref().unwrap().exits.len(), 1, "an exit without figures is left out");
    let rows = figures::all(&survey);
    let of = |name: &str| rows.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("{name}: {rows:?}"));
    assert_eq!(of("VM-entry latency, cpuid").value, "p50 812ns");
    assert!(of("VM-entry latency, cpuid").source.contains("4,917 values, policy soft; 83 set apart"));
    assert_eq!(of("added to vCPU, records").spread, "80ns to 120ns");
    assert_eq!(of("added by pin-control write").spread, "95 %: 230ns to 251ns");
    assert_eq!(of("added by exec-control write").source, Reason::NoWrite.text());
}

#[test]
fn the_fields_that_are_taken_are_those_that_the_commands_print() {
    let facts = host_facts();
    let printed = calibrate::json::render(&calibrate::text::tests::calibration()).to_string();
    let calibration = projection::calibration(printed.as_bytes(), &facts).unwrap();
    let names: Vec<_> = calibration.exits.iter().map(|exit| exit.exit.as_str()).collect();
    assert_eq!(names, ["cpuid", "immediate"]);
    assert_eq!(calibration.exits[0].entry_latency_ns.unwrap().p50, 200.0);
    assert_eq!(calibration.exits[1].transition_ns.unwrap().p50, 350.0);
    let writes: Vec<_> = calibration.writes.iter().map(|write| (write.control.as_str(), write.unavailable)).collect();
    assert_eq!(writes, [("pin", None), ("exec", Some(Reason::NoWrite))]);
    let outcome = ProbeOutcome::not_tried("this host is itself a VM, and so on");
    assert_eq!(projection::probe(serde_json::to_string(&outcome).unwrap().as_bytes()), Err(Reason::IsVm));
    let outcome = ProbeOutcome { verdict: Verdict::No, ..outcome };
    let probe = projection::probe(serde_json::to_string(&outcome).unwrap().as_bytes()).unwrap();
    assert_eq!((probe.early, probe.timers.len()), (false, 0));
}

#[test]
fn what_failed_is_not_available_for_a_reason_of_the_set() {
    let survey = nothing();
    assert!(!survey.parts.has_figures());
    assert_eq!(survey.parts.erratum.unavailable, Some(Reason::Failed));
    let rows = figures::all(&survey);
    assert_eq!(rows.len(), 4);
    assert!(rows.iter().all(|row| row.value == "n/a" && row.source == Reason::Failed.text()), "{rows:?}");
    assert!(faults(&survey).contains(&"nothing was measured".to_owned()));
}

#[test]
fn every_time_of_an_emulated_cpu_is_marked() {
    let mut survey = survey();
    survey.host.emulated = true;
    let parts = &mut survey.parts;
    (parts.check.emulated, parts.erratum.emulated, parts.overhead.emulated) = (true, true, true);
    (parts.calibrate.emulated, parts.recording.emulated) = (true, true);
    assert!(figures::all(&survey).iter().all(|row| row.value == "n/a" || row.source.starts_with("EMULATED; ")));
    assert!(page::render(&survey).contains("272 VM entries, no loss (EMULATED)"));
    assert_eq!(faults(&survey).len(), 1, "{:?}", faults(&survey));
    assert!(faults(&survey)[0].starts_with("the CPU is emulated"));
}

#[test]
fn the_page_keeps_the_rules_of_pages() {
    let mut cut = survey();
    (cut.cut, cut.parts.calibrate.cut) = (true, true);
    for survey in [survey(), nothing(), cut] {
        check_page(&page::render(&survey));
    }
}

#[test]
fn a_good_survey_gives_its_row() {
    let survey = survey();
    let read = judge::read(&serde_json::to_string_pretty(&survey).unwrap()).unwrap();
    assert_eq!(faults(&read), [""; 0]);
    assert_eq!(page::render(&read), page::render(&survey), "the page shows what the JSON has");
    assert_eq!(
        row::row(&read, "xeon.json"),
        "| Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz | 0xd0003e7 | 6.12.1-amd64 | bare | 812 ns / 1130 ns (the write: +240 ns, 95 % 230 to \
         251) | 100 ns (80 to 120) | no: a guest's far timers did not fire early | n/a: the kernel does not tell | \
         [xeon.json](hosts/xeon.json) |"
    );
}

#[test]
fn a_link_to_a_file_of_an_unusual_name_would_be_broken() {
    for (name, is) in [("xeon-gold_6338.v2.json", true), ("a) b.json", false), (".json", false), ("a.html", false)] {
        assert_eq!(is_link(name), is, "{name}");
    }
}

#[test]
fn a_recording_without_timer_exits_has_no_share_of_them() {
    let mut survey = survey();
    let exits = &mut survey.parts.recording.measured.as_mut().unwrap().timer_exits;
    exits.early = Some(2);
    assert!(row::row(&survey, "x.json").contains("| 2 of 32 timer exits |"));
    let exits = &mut survey.parts.recording.measured.as_mut().unwrap().timer_exits;
    (exits.deadline, exits.immediate, exits.early) = (Some(0), Some(0), Some(0));
    assert!(row::row(&survey, "x.json").contains("| n/a: no timer exits |"));
}

#[test]
fn a_survey_is_written_with_words_of_the_lists_alone() {
    let mut facts = host_facts();
    facts.host.kernel = "6.12.17-bob-smith-laptop".into();
    facts.host.microcode = Some("bob".into());
    facts.host.virtualized = Some("BobsHostName".into());
    let host = super::facts::of(&facts);
    assert_eq!((host.kernel.as_str(), host.microcode), ("6.12.17-own", None));
    assert_eq!((host.virtualized.as_deref(), host.missing), (Some("other"), vec!["vcpu_vmx.vmcs01".to_owned()]));
    let parameters: Vec<_> = host.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(
        parameters,
        ["preemption_timer=Y", "preemption_timer_policy=soft", "pt_mode=other", "vmentry_l1d_flush=not required"]
    );
}

#[test]
fn only_the_owner_of_a_real_cpu_is_asked_to_send_the_file() {
    let mut survey = survey();
    let said = |survey: &Survey| next_step(survey, std::path::Path::new("host.json"));
    assert!(said(&survey).starts_with("please send the JSON") && said(&survey).contains("--check host.json"));
    survey.host.emulated = true;
    assert!(said(&survey).starts_with("EMULATED") && !said(&survey).contains("please send"), "{}", said(&survey));
}
