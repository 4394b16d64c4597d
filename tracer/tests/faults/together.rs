//! Several of them at once.

use std::{fs, time::Duration};

use crate::rig::{
    Exporter, Rounds, Shape, Vm, Vmentry, assert_exact, assert_nothing_left, in_totals, live_entries, text, wait_until,
};

#[test]
#[ignore = "needs root and the module kvm"]
fn recorders_an_exporter_and_a_live_screen_see_every_entry_each() {
    let host = Shape::intel().build();
    let recorders = [host.record("a.hlog", &[]), host.record("b.hlog", &["--aggregate", "in-kernel"])];
    let exporter = Exporter::start(&host);
    let live = Vmentry::tracing(host.vmentry(&["live", "--format", "jsonl"]));
    let tracers = [recorders[0].pid(), recorders[1].pid(), exporter.pid(), live.pid()];
    let mut vm = Vm::start();
    vm.run(&tracers, &Rounds { pin_writes: 23, pause_us: 500, ..Rounds::vmx(997) });
    wait_until("the exporter has all entries", || exporter.sum("vmentry_entries_total") == 997.0);
    std::thread::sleep(Duration::from_millis(1100));
    exporter.end();
    assert_eq!(live_entries(live), 997);
    drop(vm);
    for (recorder, file) in recorders.into_iter().zip(["a.hlog", "b.hlog"]) {
        recorder.interrupt();
        let report = host.report(&host.file(file));
        assert_exact(&report);
        let counts = ["entries", "dropped", "pin_writes"].map(|name| in_totals(&report, name));
        assert_eq!(counts, [997, 0, 23], "{file}");
    }
    assert_nothing_left(&host);
}

#[test]
#[ignore = "needs root and the module kvm"]
fn a_second_recorder_on_the_same_file_is_refused_and_the_first_goes_on() {
    let host = Shape::intel().build();
    let first = host.record("a.hlog", &[]);
    let mut vm = Vm::start();
    vm.run(&[first.pid()], &Rounds::vmx(97));
    wait_until("the first interval", || fs::read_to_string(host.path("a.hlog")).unwrap().contains("#{\"interval\""));
    let second = host.output(&["record", "--overwrite", "-o", &host.file("a.hlog"), "--duration", "200ms"]);
    assert_eq!(second.status.code(), Some(1), "{}", text(&second.stderr));
    vm.run(&[first.pid()], &Rounds::vmx(23));
    drop(vm);
    first.interrupt();
    let report = host.report(&host.file("a.hlog"));
    assert_exact(&report);
    assert_eq!(in_totals(&report, "entries"), 120);
    assert_nothing_left(&host);
}
