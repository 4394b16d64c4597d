//! Surveys of made-up parts whose sources are full of names.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    facts, projection,
    reason::Reason,
    recorded,
    values::{Part, Parts, Survey},
};
use crate::{
    host::{
        erratum::Erratum,
        facts::{Facts, RunningVm},
        machine::Host,
        roots::made_up::Folder,
    },
    html::tests::HOSTILE,
    model::{knowledge::Unknown, measurement::Timer, policy::Policy, vendor::Vendor, vm_labels::VmLabels},
};

/// What must be in no file.
pub(super) const NAMES: [&str; 9] = [
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

pub(super) fn host_facts() -> Facts {
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
            ("preemption_timer_policy".to_owned(), "soft".to_owned()),
            ("alice".to_owned(), names()),
            ("pt_mode".to_owned(), names()),
            ("vmentry_l1d_flush".to_owned(), "not required".to_owned()),
        ]
        .into(),
        boot_id: NAMES[4].into(),
        ..Host::default()
    };
    facts.layout_error = Some(names());
    facts.vms_unseen = Some(names());
    facts.missing = vec![format!("vcpu_vmx.vmcs01: {}", names()), names()];
    (facts.policy, facts.companion_patch) = (Policy::Soft, true);
    facts.timer = Some(Timer { used: Some(true), rate: Some(5), tsc_khz: Some(2_000_000), max_delay_s: None });
    facts.erratum = Some(Erratum::of(None, Err(Unknown::because(names()))));
    let labels =
        VmLabels::from(BTreeMap::from([("uuid".to_owned(), names()), ("namespace".to_owned(), "acme-db".to_owned())]));
    facts.vms = vec![RunningVm { name: "acme-db".into(), tgid: 4711, labels }];
    facts
}

fn part<T>(measured: Result<T, Reason>) -> Part<T> {
    let unavailable = measured.as_ref().err().copied();
    Part { emulated: false, cut: false, seconds: 1.5, measured: measured.ok(), unavailable }
}

fn distribution(p50: f64) -> Value {
    let of = |factor: f64| {
        json!({ "count": 4917, "floor": 0.5 * p50 * factor, "p50": p50 * factor, "p90": 2.0 * p50 * factor, "p99": 3.0 * p50 * factor,
                "max": 9.0 * p50 * factor, "mean": p50 * factor })
    };
    json!({ "tsc": of(2.0), "ns": of(1.0) })
}

/// As the commands print them, each with names wherever it has text.
fn check_json() -> Value {
    json!({
        "problems": [{ "what": names(), "fix": names() }], "facts": { "host": { "name": "prod7" }, "vms": [{ "name": "acme-db", "labels": { "uuid": names() } }] },
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

pub(super) fn survey() -> Survey {
    let facts = host_facts();
    Survey::new(facts::of(&facts), parts(&facts))
}

/// A survey of a host on which each part failed with names in its text.
pub(super) fn nothing() -> Survey {
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
