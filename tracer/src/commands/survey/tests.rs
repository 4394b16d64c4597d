//! A survey of made-up parts whose sources are full of names, and what speaks against one.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    facts, figures, judge, page, projection,
    reason::Reason,
    recorded, row,
    values::{Part, Parts, Survey},
};
use crate::{
    host::{
        facts::{Facts, RunningVm},
        machine::Host,
        roots::made_up::Folder,
    },
    html::tests::{HOSTILE, check as check_page},
    model::vendor::Vendor,
};

/// What must be in no file.
const NAMES: [&str; 9] = [
    "acme-db",
    "prod7",
    "alice",
    "/home",
    "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
    "tsc-deadline-vm",
    "52:54:00:12:34:56",
    "SN-4711",
    "password=x",
];

/// A text with all of them.
fn names() -> String {
    format!("open {} {HOSTILE}", NAMES.join(" "))
}

fn host_facts() -> Facts {
    let folder = Folder::new();
    let mut facts = Facts::gather(&folder.roots, false);
    facts.host = Host {
        name: "prod7".into(),
        kernel: "6.12.1-amd64".into(),
        cpu: "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz".into(),
        microcode: Some("0xd0003e7".into()),
        cpus: 128,
        vendor: Some(Vendor::Intel),
        build_ids: [("kvm".to_owned(), NAMES[4].to_owned())].into(),
        parameters: [
            ("preemption_timer".to_owned(), "Y".to_owned()),
            ("l1d_flush".to_owned(), "not required".to_owned()),
        ]
        .into(),
        boot_id: NAMES[4].into(),
        ..Host::default()
    };
    facts.layout_error = Some(names());
    facts.vms_unseen = Some(names());
    facts.missing = vec![format!("vcpu_vmx.vmcs01: {}", names())];
    facts.vms = vec![RunningVm { name: "acme-db".into(), tgid: 4711 }];
    facts
}

fn part<T>(measured: Result<T, Reason>) -> Part<T> {
    let unavailable = measured.as_ref().err().copied();
    Part { emulated: false, cut: false, seconds: 1.5, measured: measured.ok(), unavailable }
}

fn distribution(p50: f64) -> Value {
    let of = |factor: f64| {
        json!({ "count": 2400, "floor": 0.5 * p50 * factor, "p50": p50 * factor, "p90": 2.0 * p50 * factor, "p99": 3.0 * p50 * factor,
                "max": 9.0 * p50 * factor, "mean": p50 * factor })
    };
    json!({ "tsc": of(2.0), "ns": of(1.0) })
}

/// As the commands print them, each with names wherever it has text.
fn check_json() -> Value {
    json!({
        "problems": [{ "what": names(), "fix": names() }], "facts": { "host": { "name": "prod7" }, "vms": [{ "name": "acme-db" }] },
        "proof": { "outcome": "passed", "exits": 23, "entries": 25, "dropped": 0, "cpuid": 23, "with_reason": 25, "with_level": 25,
                   "with_pin_writes": 24, "why": names() },
        "overhead": { "exits": 20_000, "rounds": 7, "untraced_ns": [900.0, 1000.0, 1100.0], "direct_loads": true, "modes": [
            { "aggregation": "records", "vcpu_ns": [80.0, 100.0, 120.0], "collector_ns": [1.0, 2.0, 3.0], "speed": [0.8, 0.9, 0.95],
              "dropped": 0, "counted": 140_021 } ] },
    })
}

fn probe_json() -> Value {
    let timer = |offset: u64| json!({ "offset_ns": offset, "after_ns": null, "armed": true, "why": names() });
    json!({ "verdict": "no", "why": names(), "timers": [timer(5_000_000), timer(20_000_000), timer(35_000_000)], "expects": [names()] })
}

fn calibration_json() -> Value {
    let write = |control: &str, why: Value, has: bool| {
        let interval = json!({ "ns": { "value": 240.0, "low": 230.0, "high": 251.0 } });
        json!({ "control": control, "how": names(), "unavailable": why, "rounds": if has { 12 } else { 0 }, "unexpected": 1,
                "dirty": if has { distribution(1130.0) } else { Value::Null },
                "clean": if has { distribution(890.0) } else { Value::Null },
                "cost": if has { interval } else { Value::Null } })
    };
    json!({
        "host": { "name": "prod7" }, "caveats": [names()], "samples": 5000, "stopped": names(),
        "clock": { "source": "tsc", "tsc_khz": 2_000_000.0, "error": { "tsc": 20.0, "ns": 10.0 } },
        "exits": [
            { "exit": "cpuid", "policy": "soft", "unavailable": null, "entry_latency": distribution(812.0),
              "exit_latency": distribution(700.0), "round_trip_untraced": distribution(1500.0), "tracing": { "ns": 110.0 },
              "set_apart": { "warm_up": 80, "interrupted": 3 }, "inconsistent": 0 },
            { "exit": "hlt", "policy": "soft", "unavailable": names() },
        ],
        "control_writes": [write("pin", Value::Null, true), write("exec", names().into(), false)],
    })
}

/// The lab's recording, with other names: its version has no checksums.
fn recording() -> Vec<u8> {
    let text = include_str!("../../../tests/data/lab.hlog");
    let named = text
        .replace("\"name\":\"lab\"", "\"name\":\"prod7\"")
        .replace("\"name\":\"tsc-deadline\"", "\"name\":\"tsc-deadline-vm\"");
    let named = named.replace("/out/guests.sh", "/home/alice/password=x");
    assert!(NAMES.iter().filter(|name| named.contains(**name)).count() >= 5);
    named.into_bytes()
}

fn parts(facts: &Facts) -> Parts {
    let bytes = |json: Value| json.to_string().into_bytes();
    Parts {
        check: part(projection::proof(&bytes(check_json()))),
        erratum: part(projection::probe(&bytes(probe_json()))),
        overhead: part(projection::overhead(&bytes(check_json()))),
        calibrate: part(projection::calibration(&bytes(calibration_json()), facts)),
        recording: part(recorded::recording(&recording())),
    }
}

fn survey() -> Survey {
    let facts = host_facts();
    Survey::new(facts::of(&facts), parts(&facts))
}

/// A survey of a host on which each part failed with names in its text.
fn nothing() -> Survey {
    let facts = host_facts();
    let bytes = |json: Value| json.to_string().into_bytes();
    let failed = json!({ "proof": { "outcome": "failed", "why": names() }, "verdict": "unknown", "why": names(), "overhead": names() });
    let parts = Parts {
        check: part(projection::proof(&bytes(failed.clone()))),
        erratum: part(projection::probe(&bytes(failed.clone()))),
        overhead: part(projection::overhead(&bytes(failed.clone()))),
        calibrate: part(projection::calibration(&bytes(failed), &facts)),
        recording: part(recorded::recording(names().as_bytes())),
    };
    Survey::new(facts::of(&facts), parts)
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
    assert!(of("VM-entry latency, cpuid").source.contains("2,400 values, policy soft; 83 set apart"));
    assert_eq!(of("added to vCPU, records").spread, "80ns to 120ns");
    assert_eq!(of("added by pin-control write").spread, "95 %: 230ns to 251ns");
    assert_eq!(of("added by exec-control write").source, Reason::NoWrite.text());
}

#[test]
fn what_failed_is_not_available_for_a_reason_of_the_set() {
    let survey = nothing();
    assert!(!survey.parts.has_figures());
    assert_eq!(survey.parts.erratum.unavailable, Some(Reason::Failed));
    let rows = figures::all(&survey);
    assert_eq!(rows.len(), 4);
    assert!(rows.iter().all(|row| row.value == "n/a" && row.source == Reason::Failed.text()), "{rows:?}");
    assert!(judge::faults(&survey).contains(&"nothing was measured".to_owned()));
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
    assert_eq!(judge::faults(&survey).len(), 1, "{:?}", judge::faults(&survey));
    assert!(judge::faults(&survey)[0].starts_with("the CPU is emulated"));
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
    assert_eq!(judge::faults(&read), [""; 0]);
    assert_eq!(page::render(&read), page::render(&survey), "the page shows what the JSON has");
    assert_eq!(
        row::row(&read, "xeon.json"),
        "| Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz | 0xd0003e7 | 6.12.1-amd64 | bare | 812 ns / 1130 ns (the write: +240 ns, 95 % 230 to \
         251) | 100 ns (80 to 120) | no: a guest's far timers did not fire early | n/a: the kernel does not tell | \
         [xeon.json](hosts/xeon.json) |"
    );
}

/// The faults of a survey whose value at a JSON pointer is another one.
fn faults_with(pointer: &str, value: Value) -> String {
    let mut json = serde_json::to_value(survey()).unwrap();
    *json.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
    judge::read(&json.to_string()).map_or_else(|why| why, |survey| judge::faults(&survey).join("; "))
}

#[test]
fn a_survey_that_does_not_add_up_gives_no_row() {
    for (pointer, value, fault) in [
        ("/format", json!("vmentry-survey/9"), "its format is 'vmentry-survey/9'"),
        ("/tool", json!("vmentry by hand"), "tool is not"),
        ("/day", json!("yesterday"), "day is not a date"),
        ("/cut", json!(true), "it was ended before"),
        ("/parts/recording/measured/entries", json!(273), "entries are not delivered and dropped"),
        ("/parts/recording/measured/vms/0/entries", json!(u64::MAX), "the entries of the VMs do not add up"),
        ("/parts/recording/measured/reasons/0/entries", json!(0), "the entries of the exit reasons do not add up"),
        ("/parts/recording/measured/exact", json!(false), "the kernel's counts"),
        ("/parts/check/measured/entries", json!(3), "fewer entries than exits"),
        ("/parts/check/unavailable", json!("no_btf"), "check has figures and a reason"),
        ("/parts/overhead/measured/modes/0/counted", json!(139_999), "counts fewer entries than exits"),
        ("/parts/overhead/measured/untraced_ns/0", json!(2000.0), "are not in order"),
        ("/parts/overhead/emulated", json!(true), "disagree on whether the CPU is emulated"),
        (
            "/parts/calibrate/measured/exits/0/entry_latency_ns/p50",
            json!(1e9),
            "cpuid: least, median and most are not in order",
        ),
        ("/parts/calibrate/measured/exits/0/exit", json!("fast"), "an exit that is none"),
        ("/parts/calibrate/measured/writes/0/cost_ns", Value::Null, "a cost and a reason why not, or neither"),
    ] {
        let faults = faults_with(pointer, value);
        assert!(faults.contains(fault), "{pointer}: {faults}");
    }
}

#[test]
fn a_survey_with_a_name_gives_no_row() {
    for (pointer, text) in [
        ("/host/cpu", "Xeon /home/alice"),
        ("/host/kernel", "6.12.1 on prod7.example"),
        ("/host/kernel", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
        ("/host/microcode", "52:54:00:12:34:56"),
        ("/host/parameters/preemption_timer", "a@b"),
        ("/parts/recording/measured/reasons/0/reason", "CPUID of acme-db:1"),
    ] {
        let faults = faults_with(pointer, json!(text));
        assert!(faults.contains("may hold a name"), "{pointer}: {faults}");
    }
    let mut json = serde_json::to_value(survey()).unwrap();
    json["parts"]["recording"]["measured"]["vms"][0]["name"] = json!("acme-db");
    let why = judge::read(&json.to_string()).unwrap_err();
    assert!(why.contains("unknown field `name`"), "{why}");
}
