//! Edits of a whole survey, each of which one fault or one remark must tell.

use serde_json::{Value, json};

use super::{
    super::{
        made_up::survey,
        values::{Survey, today},
    },
    Findings, judge, read,
};

/// The survey after edits at JSON pointers; a value that is not there is added.
fn edited(edits: &[(&str, Value)]) -> Value {
    let mut json = serde_json::to_value(survey()).unwrap();
    for (pointer, value) in edits {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let parent = json.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}"));
        match parent {
            Value::Array(all) if field == "-" => all.push(value.clone()),
            Value::Array(all) => all[field.parse::<usize>().unwrap()] = value.clone(),
            parent => parent[field] = value.clone(),
        }
    }
    json
}

fn findings(edits: &[(&str, Value)]) -> Findings {
    let read: Result<Survey, String> = read(&edited(edits).to_string());
    read.map_or_else(|why| Findings { faults: vec![why], remarks: vec![] }, |survey| judge(&survey, &today()))
}

/// Each edit alone must give a fault with these words.
fn all_are_refused(edits: &[(&str, Value, &str)]) {
    for (pointer, value, words) in edits {
        let faults = findings(&[(pointer, value.clone())]).faults.join("; ");
        assert!(faults.contains(words), "{pointer} = {value}: '{faults}' has not '{words}'");
    }
}

const CPUID: &str = "/parts/calibrate/measured/exits/0";
const PIN: &str = "/parts/calibrate/measured/writes/0";

#[test]
fn the_survey_itself_has_no_fault_and_no_remark() {
    let Findings { faults, remarks } = findings(&[]);
    assert_eq!((faults, remarks), (vec![], vec![]));
}

#[test]
fn what_is_not_whole_is_refused() {
    all_are_refused(&[
        ("/format", json!("vmentry-survey/9"), "its format is 'vmentry-survey/9'"),
        ("/tool", json!("vmentry by hand"), "tool is not"),
        ("/day", json!("yesterday"), "day is not a date"),
        ("/day", json!("2026-13-99"), "day is not a date"),
        ("/day", json!("1999-01-01"), "day is not a date"),
        ("/day", json!("2099-01-01"), "day is not a date"),
        ("/cut", json!(true), "it was ended before"),
        ("/parts/check/cut", json!(true), "it was ended before"),
        ("/parts/calibrate/cut", json!(true), "cut of the parts disagree"),
        ("/parts/check/seconds", json!(-5), "check.seconds is not within"),
        ("/parts/recording/seconds", json!(1e9), "recording.seconds is not within"),
        ("/parts/check/unavailable", json!("no_btf"), "check has figures and a reason"),
        ("/parts/overhead/emulated", json!(true), "disagree on whether the CPU is emulated"),
    ]);
}

#[test]
fn parts_that_contradict_each_other_are_refused() {
    let na = |part: &str, reason: &str| {
        let [measured, unavailable] = ["measured", "unavailable"].map(|field| format!("/parts/{part}/{field}"));
        findings(&[(&measured, Value::Null), (&unavailable, json!(reason))]).faults.join("; ")
    };
    assert!(na("check", "silent").contains("that recording cannot have been measured with"));
    assert!(na("check", "silent").contains("check did not fail"));
    assert!(na("overhead", "not_privileged").contains("that check cannot have been measured with"));
    assert!(na("overhead", "no_dev_kvm").contains("that erratum cannot have been measured with"));
    assert_eq!(na("overhead", "failed"), "");
    assert_eq!(na("recording", "no_vms"), "");
    all_are_refused(&[
        ("/parts/check/measured/passed", json!(false), "check did not pass"),
        ("/parts/check/measured/entries", json!(3), "fewer entries than exits"),
        ("/parts/check/measured/cpuid", json!(26), "more of a kind than entries"),
        ("/parts/check/measured/cpuid", json!(24), "more CPUID exits than"),
        ("/parts/overhead/measured/modes/0/counted", json!(139_999), "counts fewer entries than exits"),
        ("/parts/overhead/measured/untraced_ns/0", json!(2000.0), "are not in order"),
    ]);
}

#[test]
fn distributions_out_of_order_are_refused_wherever_they_are() {
    for figure in [
        "/parts/recording/measured/reasons/0/guest_time_ns",
        "/parts/recording/measured/reasons/1/host_time_ns",
        "/parts/calibrate/measured/exits/0/entry_latency_ns",
        "/parts/calibrate/measured/writes/0/dirty_ns",
    ] {
        for (field, value, words) in [
            ("p50", json!(1e9), "are not in order"),
            ("p99", json!(1), "are not in order"),
            ("mean", json!(1e12), "the mean 1000000000000 cannot be"),
            ("mean", json!(0), "the mean 0 cannot be"),
            ("p50", json!(-7), "are not in order"),
            ("count", json!(0), "a distribution of no values"),
        ] {
            all_are_refused(&[(&format!("{figure}/{field}"), value, words)]);
        }
    }
    all_are_refused(&[("/parts/recording/measured/vms/0/pin_writes/p50", json!(7), "are not in order")]);
}

#[test]
fn counts_of_a_recording_that_contradict_each_other_are_refused() {
    all_are_refused(&[
        ("/parts/recording/measured/entries", json!(273), "entries are not delivered and dropped"),
        ("/parts/recording/measured/vms/0/entries", json!(u64::MAX), "the entries of the VMs do not add up"),
        ("/parts/recording/measured/reasons/0/entries", json!(0), "the entries of the exit reasons do not add up"),
        ("/parts/recording/measured/exact", json!(false), "the kernel's counts"),
        ("/parts/recording/measured/timer_exits/early", json!(1000), "1030 timer exits by cause, and 30 exits"),
        ("/parts/recording/measured/timer_exits/unknown", json!(1), "31 timer exits by cause"),
        ("/parts/recording/measured/unknown_pin_writes", json!(101), "known and with unknown pin writes"),
        ("/parts/recording/measured/pin_writes", json!(500), "pin_writes is not the sum of those of the VMs, 5"),
        ("/parts/recording/measured/pin_writes", Value::Null, "pin_writes is not the sum"),
        ("/parts/recording/measured/vms/0/pin_writes/mean", json!(5), "pin_writes is not the sum"),
        ("/parts/recording/measured/vms/0/pin_writes/count", json!(5), "known and with unknown pin writes"),
        ("/parts/recording/measured/vms/0/pin_writes/count", json!(1000), "pin_writes of VM 1: more than its entries"),
        ("/parts/recording/measured/reasons/0/guest_time_ns/count", json!(1000), "more values than entries"),
        ("/parts/recording/measured/reasons/1/reason", json!("HLT"), "the exit reason HLT is there twice"),
        ("/parts/recording/measured/length_s", json!(0), "recording.length_s is not"),
        ("/parts/recording/measured/length_s", json!(-1), "recording.length_s is not"),
        ("/parts/recording/measured/length_s", json!(3000), "recording.length_s is not"),
        ("/parts/recording/measured/length_s", json!(20), "is more than its seconds"),
        ("/parts/recording/measured/vms/0/host_time_share", json!(7.0), "host_time_share of the VMs"),
        ("/parts/recording/measured/vms/0/host_time_share", json!(0.1), "host_time_share of the VMs"),
        ("/parts/recording/measured/reasons/0/host_time_share", json!(0.9), "host_time_share of the exit reasons"),
        ("/parts/recording/measured/reasons/0/exit_share", json!(0.9), "exit_share of the exit reasons"),
        ("/parts/recording/measured/reasons/0/exit_share", json!(0.9), "exit_share of HLT is not that of its entries"),
    ]);
    let nothing = ["entries", "delivered"].map(|field| format!("/parts/recording/measured/{field}"));
    let faults = findings(&[
        (&nothing[0], json!(0)),
        (&nothing[1], json!(0)),
        ("/parts/recording/measured/vms", json!([])),
        ("/parts/recording/measured/reasons", json!([])),
    ]);
    assert!(faults.faults.iter().any(|fault| fault.contains("no entries")), "{faults:?}");
}

#[test]
fn a_calibration_that_contradicts_itself_is_refused() {
    let at = |below: &str| format!("{CPUID}/{below}");
    let second = edited(&[]).pointer(CPUID).unwrap().clone();
    all_are_refused(&[
        (&at("exit"), json!("fast"), "an exit that is none"),
        (&at("policy"), json!("off"), "a policy that the host does not have"),
        (&at("entry_latency_ns/count"), json!(1), "1 of 5000 samples"),
        (&at("entry_latency_ns/p50"), json!(0), "a median of 0"),
        (&at("round_trip_untraced_ns/p50"), json!(700), "are not in order"),
        (&at("tracing_ns"), json!(-900), "tracing shortens the round trip"),
        ("/parts/calibrate/measured/exits/-", second, "the exit cpuid twice under one policy"),
        ("/parts/calibrate/measured/samples", json!(1), "calibrate.samples: 1, and"),
        ("/parts/calibrate/measured/tsc_khz", json!(3e6), "is not the host's, 2000000"),
        (&format!("{PIN}/cost_ns"), Value::Null, "a cost and a reason why not, or neither"),
        (&format!("{PIN}/cost_ns/value"), json!(900), "are not in order"),
        (&format!("{PIN}/clean_ns"), Value::Null, "without dirty_ns and clean_ns"),
        (&format!("{PIN}/control"), json!("exec"), "the exec controls twice"),
        ("/host/companion_patch", json!(false), "cannot be caused without the companion patch"),
    ]);
    let cost = json!({ "value": 900.0, "low": 890.0, "high": 911.0 });
    all_are_refused(&[(&format!("{PIN}/cost_ns"), cost, "costs +900 ns, and its median differs by +240 ns")]);
    let slow = json!({ "count": 4900, "floor": 5, "p50": 1200, "p90": 1300, "p99": 1400, "max": 9000, "mean": 1210 });
    all_are_refused(&[(&format!("{PIN}/clean_ns"), slow, "they have opposite signs")]);
    let short = json!({ "count": 4900, "floor": 5, "p50": 500, "p90": 600, "p99": 700, "max": 900, "mean": 500 });
    all_are_refused(&[(&at("round_trip_untraced_ns"), short, "is shorter than its VM entry")]);
}

#[test]
fn what_chance_makes_is_a_remark() {
    let low = json!({ "value": -4.0, "low": -9.0, "high": 3.0 });
    let clean = json!({ "count": 4900, "floor": 5, "p50": 1134, "p90": 1300, "p99": 1400, "max": 9000, "mean": 1210 });
    for (edits, words) in [
        (vec![(format!("{PIN}/cost_ns"), low), (format!("{PIN}/clean_ns"), clean)], "faster, maybe by chance"),
        (vec![(format!("{CPUID}/tracing_ns"), json!(-20))], "tracing shortens the round trip of cpuid by 20 ns"),
        (vec![("/host/cpu".into(), json!("Intel(R) Xeon(R) bob-laptop"))], "before you send: host.cpu: 'bob-laptop'"),
    ] {
        let edits: Vec<_> = edits.iter().map(|(pointer, value)| (pointer.as_str(), value.clone())).collect();
        let Findings { faults, remarks } = findings(&edits);
        assert_eq!(faults, [""; 0]);
        assert!(remarks.len() == 1 && remarks[0].contains(words), "{remarks:?}");
    }
}

/// A halt lasts until the guest's next timer: a few may be as long as the recording, and most of a calibration's are interrupted.
#[test]
fn halts_that_are_far_longer_than_most_are_no_contradiction() {
    let host_time = "/parts/recording/measured/reasons/0/host_time_ns";
    let whole = edited(&[]);
    assert_eq!(whole.pointer("/parts/recording/measured/reasons/0/reason"), Some(&json!("HLT")));
    let length_ns = whole.pointer("/parts/recording/measured/length_s").unwrap().as_f64().unwrap() * 1e9;
    let halts = |p99: f64, mean: f64| {
        let time = json!({ "count": 9, "p50": 1e6, "p99": p99, "mean": mean });
        findings(&[(host_time, time)]).faults.join("; ")
    };
    assert_eq!(halts(2e6, 2e6 + 0.01 * length_ns), "", "one halt of a hundred is as long as the recording");
    assert!(halts(2e6, 2e6 + 0.02 * length_ns).contains("the mean"), "two of a hundred would be above p99");
    assert_eq!(halts(length_ns, 0.5 * length_ns), "");
    assert!(halts(1.2 * length_ns, 0.5 * length_ns).contains("are not in order"), "longer than the recording");
    let mut halted = whole.pointer(CPUID).unwrap().clone();
    halted["exit"] = json!("hlt");
    halted["entry_latency_ns"]["count"] = json!(7);
    let Findings { faults, remarks } = findings(&[("/parts/calibrate/measured/exits/-", halted)]);
    assert_eq!(faults, [""; 0]);
    assert!(remarks.len() == 1 && remarks[0].contains("entry_latency_ns of hlt: 7 of 5000 samples"), "{remarks:?}");
}

#[test]
fn an_erratum_that_does_not_follow_is_refused() {
    let timer = |after: Value| json!({ "offset_ns": 5_000_000, "after_ns": after, "armed": true });
    all_are_refused(&[
        ("/parts/erratum/measured/early", json!(true), "erratum.early true does not follow"),
        ("/parts/erratum/measured/timers", json!([]), "erratum.early false does not follow"),
        ("/parts/erratum/measured/timers/0", timer(json!(5_100_000)), "erratum.early false does not follow"),
        ("/parts/erratum/measured/timers/0/offset_ns", json!(u64::MAX), "an offset of a timer is not"),
        ("/host/erratum", Value::Null, "host.erratum is null or"),
        ("/host/erratum/reach", json!("never"), "no timer value reaches"),
        ("/host/erratum/limit_s", json!(-5), "reach and limit_s disagree"),
        ("/host/erratum/soft_delay_s", json!(-5), "a delay is not positive"),
        ("/host/vendor", json!("amd"), "host.vendor is not the module for this CPU"),
        ("/host/vendor", json!("amd"), "which only VMX has"),
        ("/host/cpu", json!("AMD EPYC 7763 64-Core Processor"), "host.vendor is not the module"),
        ("/host/policy", json!("off"), "host.policy does not follow from the parameters"),
    ]);
    let early = ["0", "1"].map(|at| format!("/parts/erratum/measured/timers/{at}"));
    let second = json!({ "offset_ns": 20_000_000, "after_ns": 20_100_000, "armed": true });
    let edits =
        [(&*early[0], timer(json!(5_100_000))), (&*early[1], second), ("/parts/erratum/measured/early", json!(true))];
    assert_eq!(findings(&edits).faults, [""; 0]);
}

#[test]
fn a_survey_with_a_name_gives_no_row() {
    for (pointer, texts) in [
        ("/host/cpu", &["Bob Smith", "Intel(R) Xeon(R) 10.1.2.3", "Xeon /home/alice", "Intel(R) a|b"][..]),
        (
            "/host/kernel",
            &[
                "",
                "hello",
                "db01.prod.acme.example",
                "6.12.17-bob-smith-laptop",
                "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            ],
        ),
        ("/host/microcode", &["bob", "0x", "52:54:00:12:34:56"]),
        ("/host/virtualized", &["BobsHostName"]),
        ("/host/missing/0", &["bob", "bob.smith", "kvm.Bob"]),
        ("/host/tickless_cpus", &["bob"]),
        ("/host/parameters/bob", &["1", "acme-host"]),
        ("/host/parameters/preemption_timer", &["a@b", "acme-host"]),
        ("/parts/calibrate/measured/clock_source", &["bob"]),
        ("/parts/recording/measured/pin_writes_source", &["bob"]),
        ("/parts/recording/measured/reasons/0/reason", &["BOB_SMITH", "CPUID of acme-db:1", "NPF"]),
    ] {
        for text in texts {
            all_are_refused(&[(pointer, json!(text), "may hold a name")]);
        }
    }
    all_are_refused(&[(
        "/parts/recording/measured/vms/0/name",
        json!("acme-db"),
        "parts.recording.measured.vms.0.name: unknown field `name`",
    )]);
}

#[test]
fn a_wrong_type_is_told_with_its_field_and_its_line() {
    let mut json = edited(&[]);
    json["parts"]["recording"]["measured"]["reasons"][1]["guest_time_ns"] = json!(3);
    let text = serde_json::to_string_pretty(&json).unwrap();
    let line = text.lines().position(|line| line.contains("\"guest_time_ns\": 3")).unwrap() + 1;
    let why = read(&text).unwrap_err();
    let expected = format!("line {line}: parts.recording.measured.reasons.1.guest_time_ns: invalid type: integer `3`");
    assert!(why.starts_with(&expected), "{why}");
    json["parts"]["recording"]["measured"]["reasons"][1]["guest_time_ns"] = Value::Null;
    json["host"].as_object_mut().unwrap().remove("cpus");
    let why = read(&json.to_string()).unwrap_err();
    assert!(why.starts_with("line 1: host: missing field `cpus`"), "{why}");
}

#[test]
fn a_byte_order_mark_is_skipped() {
    assert!(read(&format!("\u{feff}{}", edited(&[]))).is_ok());
}
