//! A host that changes while it is recorded: modules that are unloaded, reloaded and replaced, CPUs that go off and on, a policy that a
//! killed command had switched.

use std::{fs, path::Path, thread::sleep, time::Duration};

use libc::{SIGHUP, SIGINT, SIGKILL, SIGTERM};

use crate::rig::{Rounds, Shape, Vendor, Vm, Vmentry, assert_exact, assert_nothing_left, in_totals, text, wait_until};

/// Longer than two intervals, so that the recorder has looked at the module.
const LOOKED: Duration = Duration::from_millis(350);

#[test]
#[ignore = "needs root and the module kvm"]
fn a_module_that_is_unloaded_and_reloaded_is_said_and_recorded_on() {
    let shape = Shape::intel();
    let host = shape.build();
    let recorder = host.record("a.hlog", &[]);
    let mut vm = Vm::start();
    vm.run(&[recorder.pid()], &Rounds::vmx(23));
    host.unload(Vendor::Intel);
    sleep(LOOKED);
    shape.load(&host, Vendor::Intel, 1);
    sleep(LOOKED);
    vm.run(&[recorder.pid()], &Rounds::vmx(97));
    drop(vm);
    let said = text(&recorder.interrupt().stderr);
    assert!(said.contains("was unloaded") && said.contains("is back"), "{said}");
    let report = host.report(&host.file("a.hlog"));
    assert_exact(&report);
    assert_eq!((in_totals(&report, "entries"), in_totals(&report, "dropped")), (120, 0));
    assert_nothing_left(&host);
}

#[test]
#[ignore = "needs root and the module kvm"]
fn a_module_that_is_replaced_ends_the_recording_with_what_was_measured_before() {
    let shape = Shape::intel();
    let host = shape.build();
    let recorder = host.record("a.hlog", &[]);
    let mut vm = Vm::start();
    vm.run(&[recorder.pid()], &Rounds::vmx(23));
    sleep(LOOKED);
    host.unload(Vendor::Intel);
    shape.load(&host, Vendor::Intel, 2);
    drop(vm);
    let output = recorder.wait();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("another build"), "{said}");
    let report = host.report(&host.file("a.hlog"));
    assert_exact(&report);
    assert_eq!(in_totals(&report, "entries"), 23);
    assert_nothing_left(&host);
}

#[test]
#[ignore = "needs root and the module kvm"]
fn a_module_that_is_replaced_right_before_the_end_leaves_a_recording_that_opens() {
    let shape = Shape::intel();
    let host = shape.build();
    let file = host.file("a.hlog");
    let recorder = Vmentry::tracing(host.vmentry(&["record", "-o", &file, "--interval", "1h"]));
    let mut vm = Vm::start();
    vm.run(&[recorder.pid()], &Rounds::vmx(23));
    host.unload(Vendor::Intel);
    shape.load(&host, Vendor::Intel, 2);
    drop(vm);
    let said = text(&recorder.interrupt().stderr);
    assert!(said.contains("23 entries were left out"), "{said}");
    let report = host.report(&file);
    assert_exact(&report);
    assert_eq!(in_totals(&report, "entries"), 0);
    assert_nothing_left(&host);
}

/// A CPU that is taken off, and comes back at the end.
struct OffCpu(&'static str);

impl OffCpu {
    /// None where this machine does not let its CPU be taken off.
    fn take(file: &'static str) -> Option<Self> {
        fs::write(file, "0").ok().map(|()| Self(file))
    }
}

impl Drop for OffCpu {
    fn drop(&mut self) {
        fs::write(self.0, "1").unwrap();
    }
}

#[test]
#[ignore = "needs root and the module kvm"]
fn a_cpu_that_goes_off_and_comes_back_loses_no_entry() {
    const CPU: &str = "/sys/devices/system/cpu/cpu1/online";
    let host = Shape::intel().build();
    let rounds = Rounds { cpu: Path::new(CPU).exists().then_some(1), pause_us: 1000, ..Rounds::vmx(600) };
    let report = host.recorded(&[], |recorder| {
        let mut vm = Vm::start();
        vm.begin(&[recorder], &rounds);
        sleep(Duration::from_millis(150));
        let off = OffCpu::take(CPU);
        if off.is_none() {
            eprintln!("this machine does not let CPU 1 be taken off: only its list of CPUs changes");
        }
        host.write("sys/devices/system/cpu/online", "0\n");
        sleep(Duration::from_millis(300));
        drop(off);
        host.write("sys/devices/system/cpu/online", "0-1\n");
        vm.end();
        vm.run(&[recorder], &Rounds { pause_us: 0, ..rounds.clone() });
    });
    assert_eq!((in_totals(&report, "entries"), in_totals(&report, "dropped")), (1200, 0));
    assert_nothing_left(&host);
}

#[test]
#[ignore = "needs root and the module kvm"]
fn a_policy_is_restored_on_every_way_out_and_a_killed_one_is_said() {
    const POLICY: &str = "sys/module/kvm_intel/parameters/preemption_timer_policy";
    let parameters = vec![("preemption_timer", "Y"), ("preemption_timer_policy", "soft")];
    let host = Shape { parameters, ..Shape::intel() }.build();
    let policy = || fs::read_to_string(host.path(POLICY)).unwrap().trim().to_owned();
    let switched = || {
        let vmentry = Vmentry::spawn(host.vmentry(&["policy", "hard", "--", "sleep", "3"]));
        wait_until("the policy is switched", || policy() == "hard");
        vmentry
    };
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        for delay in [0, 20].map(Duration::from_millis) {
            let vmentry = switched();
            sleep(delay);
            let output = vmentry.end(signal);
            assert_eq!(policy(), "soft", "{signal}: {}", text(&output.stderr));
            assert_nothing_left(&host);
        }
    }
    switched().end(SIGKILL);
    assert_eq!(policy(), "hard");
    let left = host.check()["facts"]["policy_left_behind"].clone();
    assert_eq!(left["before"], "soft", "{left}");
    let output = host.output(&["policy", "soft"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_nothing_left(&host);
}
