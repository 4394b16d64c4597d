//! Signals in each phase of a recording, and a recorder that does not run for a while.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    thread::sleep,
    time::{Duration, Instant},
};

use libc::{SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGSTOP, SIGTERM};
use serde_json::Value;

use crate::rig::{
    Host, Rounds, Shape, Vm, Vmentry, assert_exact, assert_nothing_left, in_totals, kernel_objects, text, wait_until,
};

const SIGNALS: [(i32, &str); 4] = [(SIGTERM, "SIGTERM"), (SIGINT, "SIGINT"), (SIGHUP, "SIGHUP"), (SIGKILL, "SIGKILL")];

/// Starts a recording whose file is written to every 10 ms, and does not wait.
fn begin(host: &Host) -> Vmentry {
    let file = host.file("a.hlog");
    Vmentry::spawn(host.vmentry(&["record", "--overwrite", "-o", &file, "--interval", "10ms"]))
}

fn wait_until_attached(recorder: &Vmentry) {
    wait_until("the programs are attached", || kernel_objects::held_by(recorder.pid()).links.len() >= 2);
}

/// Bytes of the recording so far.
fn length(host: &Host) -> u64 {
    fs::metadata(host.path("a.hlog")).map_or(0, |m| m.len())
}

/// Ends the recorder by a signal and checks how: in order, or by the signal alone. Returns the report, unless the recorder had not written
/// the recording's first line yet.
fn killed(host: &Host, recorder: Vmentry, (signal, name): (i32, &str), may_die: bool) -> Option<Value> {
    let output = recorder.end(signal);
    let (status, said) = (output.status, text(&output.stderr));
    let died = status.signal();
    if signal == SIGKILL {
        assert_eq!(died, Some(SIGKILL), "{status}: {said}");
    } else if !(may_die && died == Some(signal)) {
        assert!(status.success(), "{name}: {status}: {said}");
    }
    if length(host) == 0 {
        assert!(died.is_some(), "{name}: an empty recording: {said}");
        return None;
    }
    let report = host.report(&host.file("a.hlog"));
    let (entries, delivered, dropped) =
        (in_totals(&report, "entries"), in_totals(&report, "delivered"), in_totals(&report, "dropped"));
    assert_eq!((entries, dropped), (delivered, 0), "{name}: {report}");
    if died.is_none() {
        assert_exact(&report);
        assert_eq!(report["recordings"][0]["ended"], name);
    }
    Some(report)
}

#[test]
#[ignore = "needs root and the module kvm"]
fn a_recorder_that_is_killed_while_it_starts_leaves_nothing_or_a_whole_recording() {
    let host = Shape::intel().build();
    // A start takes some 30 ms.
    for delay in [0, 2, 5, 10, 15, 20, 25, 30, 40, 60].map(Duration::from_millis) {
        for signal in SIGNALS {
            let _ = fs::remove_file(host.path("a.hlog"));
            let recorder = begin(&host);
            sleep(delay);
            killed(&host, recorder, signal, true);
        }
    }
    assert_nothing_left(&host);
}

#[test]
#[ignore = "needs root and the module kvm"]
fn a_recorder_that_is_killed_while_it_runs_keeps_what_it_has_written() {
    let host = Shape::intel().build();
    for signal in SIGNALS {
        let _ = fs::remove_file(host.path("a.hlog"));
        let recorder = begin(&host);
        wait_until_attached(&recorder);
        let mut vm = Vm::start();
        vm.run(&[recorder.pid()], &Rounds::vmx(97));
        // All rounds are in the file: two more intervals have been written.
        let after = length(&host);
        wait_until("the recording grows", || length(&host) > after);
        let after = length(&host);
        wait_until("the recording grows", || length(&host) > after);
        drop(vm);
        let report = killed(&host, recorder, signal, false).unwrap();
        assert_eq!(in_totals(&report, "entries"), 97, "{signal:?}");
    }
    assert_nothing_left(&host);
}

#[test]
#[ignore = "needs root and the module kvm"]
fn a_recorder_that_is_killed_while_it_writes_loses_at_most_the_last_interval() {
    let host = Shape::intel().build();
    for signal in SIGNALS {
        for delay in [0, 1, 3].map(Duration::from_millis) {
            let _ = fs::remove_file(host.path("a.hlog"));
            let recorder = begin(&host);
            wait_until_attached(&recorder);
            let mut vm = Vm::start();
            vm.begin(&[recorder.pid()], &Rounds { pause_us: 500, pin_writes: 300, ..Rounds::vmx(300) });
            // The moment at which an interval has just been written, and a part of the next one after it.
            let mut last = length(&host);
            let written = |last: &mut u64| std::mem::replace(last, length(&host)) != *last;
            let start = Instant::now();
            while !written(&mut last) || start.elapsed() < Duration::from_millis(50) {
                assert!(start.elapsed() < Duration::from_secs(10));
            }
            sleep(delay);
            let report = killed(&host, recorder, signal, false).unwrap();
            assert!(in_totals(&report, "entries") <= 300);
            vm.end();
        }
    }
    assert_nothing_left(&host);
}

#[test]
#[ignore = "needs root and the module kvm"]
fn a_second_signal_while_it_ends_changes_nothing_that_was_written() {
    let host = Shape::intel().build();
    for signal in SIGNALS {
        for delay in [0, 1, 2, 5, 10].map(Duration::from_millis) {
            let _ = fs::remove_file(host.path("a.hlog"));
            let recorder = begin(&host);
            wait_until_attached(&recorder);
            let mut vm = Vm::start();
            vm.run(&[recorder.pid()], &Rounds::vmx(97));
            drop(vm);
            let after = length(&host);
            wait_until("the recording grows", || length(&host) > after);
            recorder.send(SIGINT);
            sleep(delay);
            let output = recorder.end(signal.0);
            let report = host.report(&host.file("a.hlog"));
            assert_eq!(in_totals(&report, "entries"), in_totals(&report, "delivered"), "{signal:?}");
            if output.status.success() {
                assert_exact(&report);
                assert_eq!(in_totals(&report, "entries"), 97);
                // Both signals may have come before the recorder looked.
                let reason = report["recordings"][0]["ended"].as_str().unwrap();
                assert!(["SIGINT", signal.1].contains(&reason), "{reason}");
            } else {
                assert_eq!(output.status.signal(), Some(SIGKILL), "{}", text(&output.stderr));
            }
        }
    }
    assert_nothing_left(&host);
}

/// A recorder that does not run for five seconds, as in a suspended system, while a VM does.
fn stopped(arguments: &[&str]) -> Value {
    let host = Shape::intel().build();
    let report = host.recorded(arguments, |recorder| {
        // SAFETY: the recorder runs until the closure has returned, so that the number is its own.
        let send = |signal| assert_eq!(unsafe { libc::kill(recorder as i32, signal) }, 0);
        let mut vm = Vm::start();
        send(SIGSTOP);
        vm.run(&[recorder], &Rounds { pause_us: 500, pin_writes: 23, ..Rounds::vmx(5000) });
        send(SIGCONT);
        sleep(Duration::from_millis(300));
        vm.run(&[recorder], &Rounds::vmx(97));
    });
    assert_nothing_left(&host);
    report
}

#[test]
#[ignore = "needs root and the module kvm"]
fn a_recorder_that_was_stopped_has_every_entry_that_its_rings_have_room_for() {
    let report = stopped(&[]);
    let counts = ["entries", "dropped", "pin_writes"].map(|name| in_totals(&report, name));
    assert_eq!(counts, [5097, 0, 23]);
}

#[test]
#[ignore = "needs root and the module kvm"]
fn a_recorder_that_was_stopped_counts_the_entries_that_its_rings_had_no_room_for() {
    let report = stopped(&["--ring-kib", "4"]);
    assert_eq!(in_totals(&report, "entries"), 5097);
    assert!(in_totals(&report, "dropped") > 4000, "{report}");
}

#[test]
#[ignore = "needs root and the module kvm"]
fn counts_in_the_kernel_go_on_while_the_recorder_is_stopped() {
    let report = stopped(&["--aggregate", "in-kernel"]);
    let counts = ["entries", "dropped", "pin_writes"].map(|name| in_totals(&report, name));
    assert_eq!(counts, [5097, 0, 23]);
}
