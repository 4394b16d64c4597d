//! The parts of the host time, of simulated vCPUs in real time.

use std::{
    hint::spin_loop,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use tracer_common::{Event, Flags, host_time::Phases};
use vmentry::{
    kernel::{in_kernel_series::Growth, options::Options},
    model::{budget::Phase, measurement::Aggregation},
};

use crate::bed::*;

fn bed() -> Bed {
    let mut bed = Bed::new(config_of_host_time(), Options::default());
    bed.round(0, 10);
    bed
}

/// Nanoseconds that this thread was runnable and had no CPU.
fn run_delay_ns() -> u64 {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    schedstat.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The parts without the real delays of this thread.
fn without_steal(event: &Event) -> (u64, u64, u32) {
    (event.phases.user_ns, event.phases.idle_ns, event.phases.polled_ns)
}

#[test]
#[ignore = "needs root"]
fn a_halt_is_polled_and_idle_and_the_rest_of_the_host_time_is_the_kernels() {
    let mut bed = bed();
    let unchanged = bed.round(0, 10);
    let steal = unchanged.phases.steal_ns;
    assert_eq!(unchanged.phases, Phases { steal_ns: steal, ..Phases::default() });
    assert_eq!(unchanged.kernel_ns(), Some(unchanged.exit_to_entry_ns - u64::from(steal)));
    // Slept, so that the host time is longer than the parts.
    bed.set(0, HALT_POLL_SUCCESS, 1000);
    bed.set(0, HALT_POLL_FAIL, 300);
    bed.set(0, HALT_WAIT, 40_000_000);
    thread::sleep(Duration::from_millis(60));
    let halted = bed.round(0, 12);
    let (user, idle, polled) = without_steal(&halted);
    // The sleep of this thread ends with a real wait for a CPU.
    assert_eq!((user, polled, idle), (0, 1300, 40_000_000 - u64::from(halted.phases.steal_ns)));
    assert_eq!(halted.kernel_ns(), Some(halted.exit_to_entry_ns - halted.phases.sum_ns()));
    assert!(halted.flags.has(Flags::PHASES));
    assert_eq!(without_steal(&bed.round(0, 10)), (0, 0, 0), "each halt counts once");
}

#[test]
#[ignore = "needs root"]
fn user_time_begins_at_the_first_return_of_kvm_run_and_leaves_halts_after_it_out() {
    let mut bed = bed();
    bed.set(0, HALT_WAIT, 10_000);
    bed.run("kvm_userspace_exit", HERE, &[2, 0]);
    let returned = Instant::now();
    thread::sleep(Duration::from_millis(30));
    // The VMM runs the vCPU again, which halts, and returns once more.
    bed.set(0, HALT_WAIT, 5_010_000);
    bed.run("kvm_userspace_exit", HERE, &[2, 0]);
    bed.entry(0, HERE, false);
    let at_most = returned.elapsed().as_nanos() as u64 - 5_000_000;
    bed.exit(0, HERE, VMX, 10);
    let event = bed.one_event();
    let Phases { user_ns, idle_ns, steal_ns, .. } = event.phases;
    assert!((24_000_000..=at_most + 1_000_000).contains(&(user_ns + u64::from(steal_ns))), "{event:?}");
    assert!((5_010_000 - u64::from(steal_ns)..=5_010_000).contains(&idle_ns), "{event:?}");
    assert_eq!(without_steal(&bed.round(0, 10)).0, 0, "a return counts once");
    // A return while the guest runs, and of a thread that runs no vCPU, are none of a host time.
    bed.entry(0, HERE, false);
    bed.run("kvm_userspace_exit", HERE, &[2, 0]);
    bed.exit(0, HERE, VMX, 10);
    let program = bed.program("kvm_userspace_exit");
    thread::scope(|scope| {
        let run = || aya::programs::TestRun::test_run(&program, aya::programs::RawTracePointRunOptions::new());
        scope.spawn(run).join().unwrap().unwrap();
    });
    bed.entry(0, HERE, false);
    bed.exit(0, HERE, VMX, 10);
    assert!(bed.events().iter().all(|event| event.phases.user_ns == 0));
}

#[test]
#[ignore = "needs root"]
fn steal_is_the_delay_that_the_scheduler_counts() {
    let mut bed = bed();
    pin_to(0);
    let stop = &AtomicBool::new(false);
    let (inside, outside, stolen) = thread::scope(|scope| {
        scope.spawn(move || {
            pin_to(0);
            while !stop.load(Relaxed) {
                spin_loop();
            }
        });
        bed.round(0, 10);
        let mut inside = 0;
        let outside = run_delay_ns();
        bed.entry(0, HERE, false);
        bed.exit(0, HERE, VMX, 10);
        let mut stolen = 0;
        for _ in 0..20 {
            let before = run_delay_ns();
            let until = Instant::now() + Duration::from_millis(20);
            while Instant::now() < until {
                spin_loop();
            }
            inside += run_delay_ns() - before;
            bed.entry(0, HERE, false);
            bed.exit(0, HERE, VMX, 10);
        }
        let outside = run_delay_ns() - outside;
        stop.store(true, Relaxed);
        for event in bed.events() {
            stolen += u64::from(event.phases.steal_ns);
            assert_eq!(event.phases.idle_ns, 0);
        }
        (inside, outside, stolen)
    });
    assert!(inside > 20_000_000, "the burner had {inside} ns");
    assert!((inside..=outside).contains(&stolen), "{inside} <= {stolen} <= {outside}");
}

#[test]
#[ignore = "needs root"]
fn what_cannot_be_told_apart_is_the_kernels_and_counted() {
    let mut bed = bed();
    // Another thread runs the vCPU: the delays of two threads have no difference.
    bed.set(0, HALT_WAIT, 700);
    let [entry, exit] = [bed.program("kvm_entry"), bed.program("kvm_exit")];
    let at = bed.at(0);
    bed.arena.set(0, *bed.memory, 0).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let run = |program: &aya::programs::RawTracePoint, second| {
                let mut options = aya::programs::RawTracePointRunOptions::new();
                options.args[..2].copy_from_slice(&[at, second]);
                aya::programs::TestRun::test_run(program, options).unwrap();
            };
            run(&entry, 0);
            run(&exit, VMX);
        });
    });
    let event = bed.one_event();
    // At least: this thread may lose its CPU between kvm_entry and kvm_exit, which no vCPU does.
    assert_eq!(event.phases, Phases::default());
    assert!(bed.counters().inexact_phases >= 1);
    // The statistics were reset, and then say more than the host time.
    bed.round(0, 10);
    let before = bed.counters().inexact_phases;
    bed.set(0, HALT_WAIT, 0);
    // A thread that halts gives up its CPU.
    thread::sleep(Duration::from_micros(50));
    assert_eq!(bed.round(0, 10).phases, Phases::default());
    bed.set(0, HALT_WAIT, 1 << 50);
    thread::sleep(Duration::from_micros(50));
    let cut = bed.round(0, 10);
    assert_eq!((cut.kernel_ns(), cut.phases.sum_ns()), (Some(0), cut.exit_to_entry_ns));
    assert!(bed.counters().inexact_phases - before >= 2);
}

#[test]
#[ignore = "needs root"]
fn series_that_the_programs_count_have_the_same_sums() {
    let options = Options { aggregation: Aggregation::InKernel, ..Options::default() };
    let mut bed = Bed::new(config_of_host_time(), options);
    let mut waited = 0;
    for _ in 0..23 {
        bed.entry(0, HERE, false);
        bed.exit(0, HERE, VMX, 12);
        waited += 1009;
        bed.set(0, HALT_WAIT, waited);
        thread::sleep(Duration::from_micros(50));
    }
    let mut found = Vec::new();
    bed.tracer.in_kernel_series().unwrap().take(|growth: Growth| found.push(growth.series));
    let [series] = found.try_into().unwrap();
    let budget = series.budget;
    let of = |phase| budget.of(phase);
    // Of the sleeps of this thread, some end with a wait for a CPU.
    assert!(of(Phase::Idle) <= 22 * 1009, "{budget:?}");
    assert!(of(Phase::Idle) + of(Phase::Steal) >= 22 * 1009, "{budget:?}");
    assert!(budget.host_ns >= 22 * 50_000 && budget.guest_ns > 0);
    assert_eq!(Phase::ALL.map(of).iter().sum::<u64>(), budget.host_ns);
}
