//! The real binary on hosts of many shapes, made up by the rig: what it says about each is true there.
//!
//! Needs root and the module kvm; `cargo xtask test` runs them, or `cargo test -p vmentry --test hosts -- --ignored`.

#![allow(clippy::unwrap_used, reason = "a test: an error is a failure")]

mod rig;

use std::time::Duration;

use rig::{
    Exporter, Host, PREEMPTION_TIMER, Rounds, Shape, Vendor, Vm, Vmentry, assert_exact, assert_nothing_left, in_totals,
    live_entries, text, wait_until,
};
use serde_json::Value;

/// Where entries are counted: in user space, or in the kernel.
const PLACES: [&[&str]; 2] = [&[], &["--aggregate", "in-kernel"]];

/// The report on a recording of one VM's rounds, all of which must be in it.
fn recorded(host: &Host, arguments: &[&str], rounds: &Rounds) -> Value {
    let mut vm = Vm::start();
    let report = host.recorded(arguments, |recorder| vm.run(&[recorder], rounds));
    assert_eq!(in_totals(&report, "entries"), u64::from(rounds.count), "{report}");
    report
}

/// Values of a field in all series.
fn of_series<'a>(report: &'a Value, field: &str) -> Vec<&'a Value> {
    report["series"].as_array().unwrap().iter().map(|series| &series[field]).collect()
}

/// Checks that a report has entries of an AMD host, and nothing that only VMX has.
fn assert_amd(report: &Value) {
    assert_eq!(report["host"]["vendor"], "amd");
    for series in report["series"].as_array().unwrap() {
        assert_eq!((&series["isa"], &series["exit_reason"]), (&"svm".into(), &"CPUID".into()), "{series}");
        assert_eq!((&series["pin_writes"], &series["timer_cause"]), (&Value::Null, &Value::Null), "{series}");
    }
    assert_unknown(report, &["pin_writes", "shadow_pin_writes", "timer_exits"]);
    assert!(!["soft", "hard"].contains(&report["policy"].as_str().unwrap_or("unknown")), "{}", report["policy"]);
}

/// Checks that these totals are not known, neither as a whole nor by cause.
fn assert_unknown(report: &Value, names: &[&str]) {
    for name in names {
        let total = &report["totals"][name];
        let is_unknown = total.is_null() || total.as_object().is_some_and(|o| o.values().all(Value::is_null));
        assert!(is_unknown, "{name}: {total}");
    }
}

#[test]
#[ignore = "needs root and the module kvm"]
fn an_intel_host_has_pin_writes_levels_and_causes() {
    let host = Shape::intel().build();
    for place in PLACES {
        let report = recorded(&host, place, &Rounds { pin_writes: 23, ..Rounds::vmx(97) });
        assert_eq!((in_totals(&report, "pin_writes"), &report["policy"]), (23, &"soft".into()));
        let rows: Vec<_> = report["series"].as_array().unwrap().iter().collect();
        assert!(rows.iter().all(|row| row["level"] == "L1" && row["exit_reason"] == "CPUID"), "{report}");
        let dirty: Vec<_> = rows.iter().filter(|row| row["entry"] == "dirty").map(|row| &row["entries"]).collect();
        assert_eq!(dirty, [&Value::from(23)]);
    }
    let timer = |count| Rounds { reason: PREEMPTION_TIMER, ..Rounds::vmx(count) };
    let mut vm = Vm::start();
    let report = host.recorded(&[], |recorder| {
        vm.run(&[recorder], &timer(7));
        vm.run(&[recorder], &Rounds { immediate: true, ..timer(5) });
        vm.run(&[recorder], &Rounds { soft_disabled: true, ..timer(3) });
        vm.run(&[recorder], &Rounds { level: 2, vcpu: 1, ..Rounds::vmx(13) });
    });
    let exits = &report["totals"]["timer_exits"];
    assert_eq!((&exits["deadline"], &exits["immediate"], &exits["spurious"]), (&7.into(), &5.into(), &3.into()));
    let l2 = report["series"].as_array().unwrap().iter().filter(|row| row["level"] == "L2");
    assert_eq!(l2.map(|row| row["entries"].as_u64().unwrap()).sum::<u64>(), 13);
    drop(vm);
    assert_nothing_left(&host);
}

#[test]
#[ignore = "needs root and the module kvm"]
fn a_timer_that_expires_before_its_deadline_is_early_and_its_remaining_time_is_told() {
    let host = Shape::intel().build();
    let timer = |count, deadline_us| Rounds { reason: PREEMPTION_TIMER, deadline_us, ..Rounds::vmx(count) };
    for place in PLACES {
        let mut vm = Vm::start();
        let report = host.recorded(place, |recorder| {
            // 171.8 s, the sign of erratum EMR158; less than the margin of 10 ms; and past.
            vm.run(&[recorder], &timer(23, Some(171_800_000)));
            vm.run(&[recorder], &timer(7, Some(5_000)));
            // A second later, the programs must still know the time.
            vm.run(&[recorder], &Rounds { pause_us: 100_000, ..timer(17, Some(-3_000)) });
            vm.run(&[recorder], &Rounds { soft_disabled: true, ..timer(5, None) });
        });
        let exits = &report["totals"]["timer_exits"];
        let counts = ["deadline", "immediate", "spurious", "early"].map(|cause| exits[cause].as_u64().unwrap());
        assert_eq!(counts, [24, 0, 5, 23], "{place:?}: {exits}");
        let of_cause = |cause: &str, figure: &str| {
            let row = report["series"].as_array().unwrap().iter().find(|row| row["timer_cause"] == cause);
            row.unwrap()[figure].clone()
        };
        if !place.is_empty() {
            assert_eq!(of_cause("deadline", "deadline_late_ns"), Value::Null, "the programs keep none");
            assert_eq!(report["unknown"]["timer_lateness"], "in-kernel counting does not keep it");
            continue;
        }
        let near = |value: &Value, us: f64, within_us: f64| (value.as_f64().unwrap() / 1e3 - us).abs() < within_us;
        let remaining = of_cause("early", "deadline_remaining_ns");
        assert_eq!(remaining["count"], 23);
        assert!(near(&remaining["p50"], 171_800_000.0, 400_000.0), "{remaining}");
        let late = of_cause("deadline", "deadline_late_ns");
        // The time from the made-up deadline to the exit is the rig's; that it is no less than 3 ms is exact, to the clocks' error.
        assert_eq!(late["count"], 17);
        assert!(late["min"].as_f64().unwrap() > 2_990_000.0 && near(&late["p50"], 3_000.0, 2_000.0), "{late}");
        assert_eq!(of_cause("deadline", "deadline_remaining_ns")["count"], 7);
        let error = report["totals"]["deadline_error_ns"].as_u64().unwrap();
        assert!((1..100_000).contains(&error), "{error}");
    }
}

#[test]
#[ignore = "needs root and the module kvm"]
fn a_vm_that_takes_all_series_in_the_kernel_leaves_the_next_one_its_own() {
    let host = Shape::intel().build();
    let recorder = host.record("a.hlog", PLACES[1]);
    let mut greedy = Vm::start();
    let mut next = Vm::with(b"qemu-system-x86", &["qemu-system-x86_64", "-name", "next"]);
    for reason in 1000..6000 {
        greedy.run(&[recorder.pid()], &Rounds { reason, ..Rounds::vmx(1) });
    }
    let intervals = || std::fs::read_to_string(host.path("a.hlog")).unwrap().matches("\"interval\"").count();
    let before = intervals();
    wait_until("its share is taken back", || intervals() > before + 2);
    for reason in 1000..1020 {
        next.run(&[recorder.pid()], &Rounds { reason, ..Rounds::vmx(1) });
    }
    let said = text(&recorder.interrupt().stderr);
    assert!(said.contains(&format!("process {} has its share of the 4096 series", greedy.pid())), "{said}");
    let report = host.report(&host.file("a.hlog"));
    assert_exact(&report);
    assert_eq!(in_totals(&report, "entries"), 5020);
    let of_next = report["series"].as_array().unwrap().iter().filter(|row| row["vm"] == "next");
    assert_eq!(of_next.map(|row| row["entries"].as_u64().unwrap()).sum::<u64>(), 20, "{said}");
}

#[test]
#[ignore = "needs root and the module kvm"]
fn an_intel_host_without_the_timer_has_the_policy_off() {
    let host = Shape { parameters: vec![("preemption_timer", "N")], ..Shape::intel() }.build();
    let report = recorded(&host, &[], &Rounds { pin_writes: 23, ..Rounds::vmx(97) });
    assert_eq!((in_totals(&report, "pin_writes"), &report["policy"]), (23, &"off".into()));
}

#[test]
#[ignore = "needs root and the module kvm"]
fn an_amd_host_has_nothing_that_only_vmx_has() {
    let host = Shape::amd().build();
    for place in PLACES {
        assert_amd(&recorded(&host, place, &Rounds::svm(97)));
    }
}

#[test]
#[ignore = "needs root and the module kvm"]
fn with_both_modules_built_in_the_vendor_is_the_cpus() {
    let both = vec![Vendor::Intel, Vendor::Amd];
    let host = Shape { modules: both.clone(), built_in: true, ..Shape::amd() }.build();
    assert_eq!(host.check()["facts"]["host"]["vendor"], "amd");
    for place in PLACES {
        assert_amd(&recorded(&host, place, &Rounds::svm(97)));
    }
    let host = Shape { modules: both, built_in: true, ..Shape::intel() }.build();
    let report = recorded(&host, &[], &Rounds { pin_writes: 23, ..Rounds::vmx(97) });
    assert_eq!((&report["host"]["vendor"], in_totals(&report, "pin_writes")), (&"intel".into(), 23));
}

#[test]
#[ignore = "needs root and the module kvm"]
fn only_the_other_vendors_module_built_in_is_no_kvm() {
    let host = Shape { modules: vec![Vendor::Intel], built_in: true, ..Shape::amd() }.build();
    let check = host.check();
    assert_eq!((&check["ready"], &check["facts"]["host"]["vendor"]), (&false.into(), &Value::Null), "{check}");
    let output = host.output(&["record", "-o", &host.file("a.hlog")]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(!host.path("a.hlog").exists());
}

#[test]
#[ignore = "needs root and the module kvm"]
fn an_event_of_the_other_vendor_brings_no_figure_that_its_layout_lacks() {
    let host = Shape::intel().build();
    for place in PLACES {
        let report = recorded(&host, place, &Rounds { pin_writes: 23, ..Rounds::svm(97) });
        for field in ["pin_writes", "timer_cause"] {
            assert!(of_series(&report, field).iter().all(|value| value.is_null()), "{field}: {report}");
        }
        assert!(of_series(&report, "level").iter().all(|level| !["L1", "L2"].contains(&level.as_str().unwrap_or("?"))));
        let said = text(&host.output(&["report", &host.file("kept.hlog")]).stdout);
        assert!(said.contains("97") && said.contains("SVM"), "{said}");
    }
}

#[test]
#[ignore = "needs root and the module kvm"]
fn without_the_vendors_btf_what_it_would_tell_is_unknown_everywhere() {
    let host = Shape { vendor_btf: false, ..Shape::intel() }.build();
    let report = recorded(&host, &[], &Rounds { pin_writes: 23, soft_disabled: true, ..Rounds::vmx(97) });
    assert_unknown(&report, &["pin_writes", "shadow_pin_writes", "timer_exits"]);
    let unknown = |policy: &Value| !["soft", "hard", "off"].contains(&policy.as_str().unwrap_or("unknown"));
    assert!(unknown(&report["policy"]), "{}", report["policy"]);
    let check = host.check();
    assert!(unknown(&check["facts"]["policy"]), "{check}");
    let problems: Vec<_> = check["problems"].as_array().unwrap().iter().map(|p| p["what"].to_string()).collect();
    let about_btf: Vec<_> = problems.iter().filter(|what| what.contains("kvm_intel") && what.contains("BTF")).collect();
    assert_eq!(about_btf.len(), 1, "{problems:?}");
    assert!(!problems.iter().any(|what| what.contains("hv_timer_soft_disabled")), "{problems:?}");
    let claims = host.json(&["report", "--claims", &host.file("kept.hlog"), "--format", "json"]);
    let claims = claims["claims"].as_array().unwrap();
    let spurious = claims.iter().find(|claim| claim["claim"].as_str().unwrap().contains("spurious")).unwrap();
    assert!(spurious["measured"].is_null(), "{spurious}");
}

#[test]
#[ignore = "needs root and the module kvm"]
fn a_cpu_that_comes_online_later_is_recorded() {
    // The CPU that the VM runs on was offline when the recorder started.
    let host = Shape { online: Some("1"), ..Shape::intel() }.build();
    for place in PLACES {
        let report = recorded(&host, place, &Rounds { cpu: Some(0), pin_writes: 23, ..Rounds::vmx(97) });
        assert_eq!((in_totals(&report, "dropped"), in_totals(&report, "pin_writes")), (0, 23));
    }
}

#[test]
#[ignore = "needs root and the module kvm"]
fn without_a_vendors_module_nothing_is_recorded_and_the_fix_is_named() {
    let host = Shape { modules: vec![], ..Shape::intel() }.build();
    let check = host.check();
    assert_eq!(check["ready"], false);
    assert!(check["problems"].to_string().contains("modprobe kvm_intel"), "{check}");
    for command in ["record", "live", "export"] {
        let output = host.command(env!("CARGO_BIN_EXE_vmentry")).arg(command).current_dir(host.path("")).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(1), "{command}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains("modprobe kvm_intel"), "{command}: {}", text(&output.stderr));
    }
    assert!(!host.path("vmentry.hlog").exists());
}

#[test]
#[ignore = "needs root and the module kvm"]
fn the_exporter_and_the_live_screen_count_what_the_vm_did() {
    let host = Shape::intel().build();
    let exporter = Exporter::start(&host);
    let live = Vmentry::tracing(host.vmentry(&["live", "--format", "jsonl"]));
    let mut vm = Vm::start();
    vm.run(&[exporter.pid(), live.pid()], &Rounds { pin_writes: 23, ..Rounds::vmx(97) });
    wait_until("the exporter has 97 entries", || exporter.sum("vmentry_entries_total") == 97.0);
    assert_eq!(exporter.sum("vmentry_pin_writes_total"), 23.0);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(live_entries(live), 97);
    exporter.end();
    drop(vm);
    assert_nothing_left(&host);
}

#[test]
#[ignore = "needs root and the module kvm"]
fn leaves_are_told_apart_by_recorder_and_exporter_and_what_the_kernel_does_not_tell_is_said() {
    let host = Shape::intel().build();
    let exporter = Exporter::with(&host, &["--detail"]);
    let recorder = host.record("a.hlog", &["--detail"]);
    let mut vm = Vm::start();
    vm.run(&[recorder.pid(), exporter.pid()], &Rounds::vmx(97));
    // The made-up kernel has the guest's registers, and not the bits that tell which fields of the VMCS KVM has read.
    let said = text(&recorder.interrupt().stderr);
    assert_eq!(said.matches("details of I/O, control registers, interrupts and faults are n/a").count(), 1, "{said}");
    let report = host.json(&["report", "--by", "reason,detail", "--format", "json", &host.file("a.hlog")]);
    let rows = report["series"].as_array().unwrap().iter().filter(|row| row["detail"] == "0x0");
    // The exit of the last round is not handled yet.
    assert_eq!(rows.map(|row| row["exits"].as_u64().unwrap()).sum::<u64>(), 96, "{report}");
    wait_until("the exporter has the details", || exporter.sum("vmentry_detail_exits_total") == 96.0);
    exporter.end();
    drop(vm);
    assert_nothing_left(&host);
}

#[test]
#[ignore = "needs root and the module kvm"]
fn a_vm_is_named_and_labelled_after_its_command_line_even_where_its_comm_is_cut_within_a_character() {
    let host = Shape::intel().build();
    let uuid = "c7a5fdbd-edaf-9455-926a-d65c16db1809";
    let arguments = ["qemu-system-x86_64", "-name", "datenbank", "-uuid", uuid];
    let mut vm = Vm::with("qemu-systéméé".as_bytes().get(..15).unwrap(), &arguments);
    let (pid, holds_kvm) = (vm.pid(), vm.holds_kvm);
    host.write("rules", "purpose name ^(daten)");
    let report = host.recorded(&["--vm-label-rules", &host.file("rules")], |recorder| {
        vm.run(&[recorder], &Rounds::vmx(9));
        if holds_kvm {
            let vms = host.check()["facts"]["vms"].clone();
            let expected = serde_json::json!({"name": "datenbank", "tgid": pid, "labels": {"uuid": uuid}});
            assert!(vms.as_array().unwrap().contains(&expected), "{vms}");
        }
    });
    assert_eq!(of_series(&report, "vm"), ["datenbank"]);
    let labels = &report["series"][0]["labels"];
    assert_eq!(*labels, serde_json::json!({"purpose": "daten", "uuid": uuid}));
}

#[test]
#[ignore = "needs root and the module kvm"]
fn an_experiment_that_fails_leaves_neither_a_note_nor_a_hole_where_a_recording_was() {
    let host = Shape::intel().build();
    let vm = Vm::start();
    let file = host.file("old.hlog");
    host.write("old.hlog", "precious");
    let short =
        ["--window", "50ms", "--washout", "10ms", "--warmup", "10ms", "--rounds", "6", "--overwrite", "-o", &file];
    let said = |arms: [&str; 2]| {
        let output = host.output(&[&["ab", "--arm", arms[0], "--arm", arms[1]], &short[..]].concat());
        assert!(!output.status.success());
        text(&output.stderr)
    };
    let no_entry = said(["a=true", "b=true"]);
    assert!(no_entry.contains("no VM entered in round 1"), "{no_entry}");
    let failed = said(["a=exit 3", "b=exit 3"]);
    assert!(failed.contains("'exit 3' failed"), "{failed}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    let new =
        host.output(&["ab", "--arm", "a=true", "--arm", "b=true", "--window", "50ms", "-o", &host.file("new.hlog")]);
    assert!(!new.status.success() && !host.path("new.hlog").exists());
    drop(vm);
    assert_nothing_left(&host);
}
