//! The real programs on the running kernel: the real verifier, the real rings, simulated vCPUs. BPF_PROG_TEST_RUN calls the programs
//! with the address of a map value in which a vCPU is laid out.
//!
//! Needs root; `cargo xtask test` runs them, or `cargo test -p vmentry --test programs -- --ignored`.

#![allow(clippy::unwrap_used, reason = "a test: an error is a failure")]

#[path = "bed/mod.rs"]
mod bed;
#[path = "programs/detail.rs"]
mod detail;
#[path = "programs/host_time.rs"]
mod host_time;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use aya::programs::{RawTracePoint, RawTracePointRunOptions, TestRun};
use bed::*;
use tracer_common::{
    Config, Counters, Event, Flags, Isa, Outline, Slot, StampedEvent,
    clock::ClockBase,
    rules::{Control, TimerCause, Writes},
    state::{MAX_STATES, Owner, Phase, VcpuState, set_of},
};
use vmentry::{
    kernel::{in_kernel_series::Growth, layout::ExitArguments, options::Options},
    model::{
        figures::Figure,
        measurement::{Aggregation, Stopwatch},
    },
};

fn bed() -> Bed {
    Bed::new(config(), Options { extras: true, ..Options::default() })
}

#[test]
#[ignore = "needs root"]
fn an_event_has_its_vcpu_its_times_and_its_exit_reason() {
    let mut bed = bed();
    let before = vmentry::host::clock::monotonic_ns();
    let first = bed.round(2, 10);
    assert_eq!((first.vcpu, first.outline().isa()), (2, Isa::Vmx));
    assert_eq!((first.tgid, first.outline().reason()), (std::process::id(), Some(10)));
    // SAFETY: gettid takes no argument and cannot fail.
    assert_eq!(first.tid, unsafe { libc::gettid() } as u32);
    assert_eq!(first.kvm, bed.address + KVM_AT as u64);
    assert_eq!(first.exit_to_entry_ns, Event::UNKNOWN_NS);
    assert!(before < first.entry_ns && first.entry_ns <= first.exit_ns);
    assert!(first.exit_ns < vmentry::host::clock::monotonic_ns());
    let second = bed.round(2, 0x8000_0021);
    assert_eq!(second.outline().reason(), Some(0x8000_0021), "a failed VM entry keeps its bit 31");
    assert_eq!(second.exit_to_entry_ns, second.entry_ns - first.exit_ns);
    assert_eq!(first.outline().is_l2(), Some(false));
    assert_eq!((first.previous, second.previous), (Outline::default(), first.outline()));
}

#[test]
#[ignore = "needs root"]
fn pin_writes_of_a_new_vcpu_are_exact() {
    let mut bed = bed();
    bed.set(0, VMCS01 + PIN, 0x3f);
    let first = bed.round(0, 10);
    assert_eq!(first.outline().known_pin_writes(), Some(1), "first seen, not 0, is one write");
    assert_eq!((first.pin_entry, first.pin_exit), (0x3f, 0x3f));
    assert_eq!(bed.round(0, 10).outline().known_pin_writes(), Some(0));
    // The hard policy sets the bit between kvm_entry and the VM entry ...
    bed.entry(0, 0, false);
    bed.set(0, VMCS01 + PIN, 0x7f);
    bed.exit(0, 0, VMX, 52);
    let armed = bed.one_event();
    assert_eq!((armed.outline().known_pin_writes(), armed.pin_entry, armed.pin_exit), (Some(1), 0x3f, 0x7f));
    // ... and other code may write before and after kvm_entry in the same round.
    bed.set(0, VMCS01 + PIN, 0x5f);
    bed.entry(0, 0, false);
    bed.set(0, VMCS01 + PIN, 0x3f);
    bed.exit(0, 0, VMX, 10);
    assert_eq!(bed.one_event().outline().known_pin_writes(), Some(2));
}

#[test]
#[ignore = "needs root"]
fn a_vcpu_that_ran_before_has_no_known_past() {
    let mut bed = bed();
    bed.set(0, EXITS, 5);
    bed.set(0, VMCS01 + PIN, 0x7f);
    let first = bed.round(0, 10);
    assert_eq!((first.outline().known_pin_writes(), first.exit_to_entry_ns), (None, Event::UNKNOWN_NS));
    assert!(first.flags.has(Flags::PIN_READ));
    assert_eq!(bed.round(0, 10).outline().known_pin_writes(), Some(0));
}

#[test]
#[ignore = "needs root"]
fn a_new_vcpu_at_the_address_of_a_dead_one_inherits_nothing() {
    let mut bed = bed();
    bed.set(0, VMCS01 + PIN, 0x3f);
    for _ in 0..3 {
        bed.round(0, 10);
    }
    bed.set(0, EXITS, 0);
    bed.set(0, ID, 7);
    let born = bed.round(0, 12);
    assert_eq!((born.vcpu, born.exit_to_entry_ns, born.outline().known_pin_writes()), (7, Event::UNKNOWN_NS, Some(1)));
}

#[test]
#[ignore = "needs root"]
fn nested_entries_are_l2_and_have_their_own_shadow() {
    let mut bed = bed();
    bed.set(0, VMCS01 + PIN, 0x3f);
    bed.round(0, 10);
    bed.enter_level(0, 2);
    bed.set(0, VMCS02 + PIN, 0x3f);
    bed.entry(0, 0, false);
    bed.set(0, VMCS02 + PIN, 0x7f);
    bed.exit(0, 0, VMX, 18);
    let l2 = bed.one_event();
    assert_eq!(
        (l2.outline().is_l2(), l2.outline().known_pin_writes()),
        (Some(true), Some(2)),
        "the nested double write"
    );
    bed.enter_level(0, 1);
    let l1 = bed.round(0, 24);
    assert_eq!((l1.outline().is_l2(), l1.outline().known_pin_writes()), (Some(false), Some(0)));
}

#[test]
#[ignore = "needs root"]
fn a_calibration_guests_records_have_its_stamps_and_the_execution_controls() {
    let mut c = config();
    c.set(Slot::GuestR8, REGISTERS as i32);
    c.set(Slot::VmcsExec, EXEC as i32);
    let mut bed = Bed::new(c, Options { stamps: true, ..Options::default() });
    for (n, value) in [0x1111_2222_3333_4444, 0x5555, 7, 9].into_iter().enumerate() {
        bed.set(0, REGISTERS + 8 * n, value);
    }
    bed.set(0, VMCS01 + EXEC, 0xb5);
    bed.entry(0, HERE, false);
    bed.set(0, VMCS01 + EXEC, 0xb7);
    bed.exit(0, HERE, VMX, 10);
    let mut records = Vec::new();
    for ring in bed.tracer.rings() {
        ring.drain(usize::MAX, |bytes| records.push(StampedEvent::decode(bytes).expect("a stamped event")));
    }
    assert_eq!(records.len(), 1);
    let record = records[0];
    assert_eq!((record.event.vcpu, record.event.outline().reason()), (0, Some(10)));
    assert_eq!((record.entry_tsc, record.exit_tsc), (0x1111_2222_3333_4444, 0x5555));
    assert_eq!((record.number, record.mark), (7, 9));
    assert_eq!((record.exec_entry, record.exec_exit), (0xb5, 0xb7));
    // Records have stamps only where they were asked for, whatever the layout knows.
    let mut bed = Bed::new(c, Options::default());
    assert_eq!(bed.round(0, 12).outline().reason(), Some(12));
}

#[test]
#[ignore = "needs root"]
fn the_stopwatch_measures_the_transition_of_each_round() {
    // 1 GHz: cycles are ns.
    let stopwatch = Some(Stopwatch { rate: Some(0), tsc_khz: 1_000_000 });
    let mut bed = Bed::new(config(), Options { stopwatch, ..Options::default() });
    bed.entry(0, HERE, false);
    bed.guest_time(0, 5_000_300, 5_000_000);
    bed.exit(0, HERE, VMX, 10);
    assert_eq!(bed.one_event().known_transition_ns(), Some(300));
    // A failed VM entry has none, and does not inherit that of the previous round.
    assert_eq!(bed.round(0, 0x8000_0021).known_transition_ns(), None);
    // More guest cycles than cycles in total: the guest's timer counts in steps.
    bed.entry(0, HERE, false);
    bed.guest_time(0, 31, 32);
    bed.exit(0, HERE, VMX, 10);
    assert_eq!(bed.one_event().known_transition_ns(), None);
    assert_eq!(bed.counters().stopwatch_excesses, 1);
    // An L2 entry, and a vCPU that is not in a round.
    bed.enter_level(0, 2);
    bed.guest_time(0, 900, 0);
    bed.entry(0, HERE, false);
    bed.guest_time(0, 700, 100);
    bed.exit(0, HERE, VMX, 18);
    let l2 = bed.one_event();
    assert_eq!((l2.outline().is_l2(), l2.known_transition_ns()), (Some(true), Some(600)));
    bed.guest_time(3, 700, 100);
    // Without the stopwatch, all of an entry that was forced to exit immediately is transition.
    let mut bed = self::bed();
    bed.entry(0, HERE, true);
    bed.exit(0, HERE, VMX, 52);
    let forced = bed.one_event();
    assert_eq!(forced.known_transition_ns(), Some(forced.entry_to_exit_ns()));
    assert_eq!(bed.round(0, 52).known_transition_ns(), None, "the guest ran until the deadline");
}

#[test]
#[ignore = "needs root"]
fn exact_writes_belong_to_the_next_entry_of_their_vmcs() {
    const PIN_CONTROLS: u64 = 0x4000;
    const ENTRY_CONTROLS: u64 = 0x4012;
    let mut bed = Bed::new(config(), Options { exact_writes: true, timer_exits: true, ..Options::default() });
    // The VMCS of a new vCPU is written before it is entered for the first time.
    bed.write(0, PIN_CONTROLS, false);
    bed.write(0, ENTRY_CONTROLS, false);
    bed.set(0, VMCS01 + PIN, 0x3f);
    let first = bed.round(0, 10);
    assert_eq!(first.exact_writes().unwrap(), Writes::default().plus(Control::Pin).plus(Control::VmEntry));
    assert_eq!((first.outline().known_pin_writes(), first.known_shadow_pin_writes()), (Some(1), Some(1)));
    // Two writes that cancel each other out: only the tracepoint sees them. One to vmcs02 counts for the next L2 entry.
    bed.write(0, PIN_CONTROLS, false);
    bed.write(0, PIN_CONTROLS, true);
    bed.write(0, PIN_CONTROLS, false);
    bed.write(0, 0x482e, false);
    let second = bed.round(0, 10);
    assert_eq!((second.outline().known_pin_writes(), second.known_shadow_pin_writes()), (Some(2), Some(0)));
    bed.enter_level(0, 2);
    assert_eq!(bed.round(0, 18).outline().known_pin_writes(), Some(1));
    assert_eq!(bed.round(0, 18).outline().known_pin_writes(), Some(0));
    // A vCPU that ran before: its writes before its first exit are not known.
    bed.set(1, EXITS, 9);
    bed.write(1, PIN_CONTROLS, false);
    assert_eq!(bed.round(1, 10).exact_writes(), None);
    bed.write(1, PIN_CONTROLS, false);
    assert_eq!(bed.round(1, 10).outline().known_pin_writes(), Some(1));
    // And the state that its first write made does not count as a previous entry.
    bed.set(3, EXITS, 5000);
    bed.write(3, PIN_CONTROLS, false);
    let stranger = bed.round(3, 10);
    assert_eq!((stranger.vcpu, stranger.kvm), (3, bed.address + KVM_AT as u64));
    assert_eq!((stranger.exact_writes(), stranger.exit_to_entry_ns), (None, Event::UNKNOWN_NS));
    for cause in [0, 1, 1, 2, 2, 2] {
        bed.run("kvm_preemption_timer_exit", HERE, &[bed.at(0), cause, 0]);
    }
    assert_eq!(bed.counters().traced_timer_exits, [1, 2, 3, 0]);
}

#[test]
#[ignore = "needs root"]
fn timer_exits_have_their_cause() {
    let mut bed = bed();
    let mut cause = |soft: u64, immediate| {
        bed.set(0, VMCS01 + SOFT, soft);
        bed.entry(0, 0, immediate);
        bed.exit(0, 0, VMX, 52);
        bed.one_event().outline().timer_cause()
    };
    assert_eq!(cause(0, false), Some(TimerCause::Deadline));
    assert_eq!(cause(0, true), Some(TimerCause::Immediate));
    assert_eq!(cause(1, false), Some(TimerCause::Spurious));
    assert_eq!(bed.round(0, 10).outline().timer_cause(), None);
}

/// A round that ends by the timer, with this deadline.
fn timer_round(bed: &mut Bed, deadline: u64, soft: u64, immediate: bool) -> (TimerCause, Option<u64>) {
    bed.set(0, DEADLINE, deadline);
    bed.set(0, VMCS01 + SOFT, soft);
    bed.entry(0, 0, immediate);
    bed.exit(0, 0, VMX, 52);
    let event = bed.one_event();
    (event.outline().timer_cause().unwrap(), event.known_deadline_tsc())
}

/// The TSC of the made-up host: 2 GHz, and 5000 cycles at `since_ns`.
fn tsc_base(since_ns: u64) -> ClockBase {
    ClockBase::new(since_ns, 5000, 2.0).unwrap()
}

#[test]
#[ignore = "needs root"]
fn a_timer_that_expires_before_its_deadline_is_early_and_its_record_has_the_deadline() {
    use TimerCause::{Deadline, Early, Immediate, Spurious};
    const SECOND: u64 = 2_000_000_000;
    let mut bed = bed();
    assert_eq!(timer_round(&mut bed, 1 << 50, 0, false), (Deadline, None), "nobody has compared the clocks");
    let start = vmentry::host::clock::monotonic_ns();
    bed.tracer.renew_clock(&tsc_base(start));
    let far = 5000 + 100 * SECOND;
    assert_eq!(timer_round(&mut bed, far, 0, false), (Early, Some(far)));
    assert_eq!(timer_round(&mut bed, 4999, 0, false), (Deadline, Some(4999)));
    assert_eq!(timer_round(&mut bed, u64::MAX, 0, false), (Deadline, None), "KVM's mark of no deadline");
    assert_eq!(timer_round(&mut bed, far, 1, false), (Spurious, None));
    assert_eq!(timer_round(&mut bed, far, 0, true), (Immediate, None));
    assert_eq!(timer_round(&mut bed, far, 0, false), (Early, Some(far)));
    assert_eq!(bed.round(0, 10).known_deadline_tsc(), None, "what an earlier record left behind is no deadline");
    // By a later base the same deadline is due: a second ago it was at most 20 seconds away.
    let near = 5000 + 20 * SECOND;
    assert_eq!(timer_round(&mut bed, near, 0, false), (Early, Some(near)));
    bed.tracer.renew_clock(&ClockBase { tsc: near + SECOND, ..tsc_base(start + 1) });
    assert_eq!(timer_round(&mut bed, near, 0, false), (Deadline, Some(near)));
    // And the base before it is the one that is replaced.
    bed.tracer.renew_clock(&tsc_base(start + 2));
    assert_eq!(timer_round(&mut bed, near, 0, false), (Early, Some(near)));
    // Host time is charged to the exit with its cause.
    let after = bed.round(0, 10);
    assert_eq!(after.previous.timer_cause(), Some(Early));
}

#[test]
#[ignore = "needs root"]
fn early_timer_exits_are_a_series_of_their_own_in_the_kernel() {
    let options = Options { aggregation: Aggregation::InKernel, ..Options::default() };
    let mut bed = Bed::new(config(), options);
    bed.tracer.renew_clock(&tsc_base(vmentry::host::clock::monotonic_ns()));
    for deadline in [1, 1 << 50, 1, 1 << 50, 1 << 50] {
        bed.set(0, DEADLINE, deadline);
        bed.entry(0, 0, false);
        bed.exit(0, 0, VMX, 52);
    }
    let mut counts = BTreeMap::new();
    bed.tracer.in_kernel_series().unwrap().take(|growth: Growth| {
        *counts.entry(growth.outline.timer_cause().unwrap()).or_insert(0) += growth.series.entries();
    });
    assert_eq!(counts, [(TimerCause::Deadline, 2), (TimerCause::Early, 3)].into());
}

#[test]
#[ignore = "needs root"]
fn the_companion_patchs_lateness_tells_early_deadline_exits() {
    const DEADLINE: u64 = 2;
    let mut c = config();
    c.set(Slot::TimerExitHasLate, 1);
    let mut bed = Bed::new(c, Options { timer_exits: true, ..Options::default() });
    bed.tracer.renew_clock(&tsc_base(vmentry::host::clock::monotonic_ns()));
    // 10 ms of 2 GHz are the margin.
    let late = [0, 7_000, -20_000_001, -19_900_000, -343_600_000_000, i64::MIN];
    for late in late {
        bed.run("kvm_preemption_timer_exit", HERE, &[bed.at(0), DEADLINE, 0, late.cast_unsigned()]);
    }
    bed.run("kvm_preemption_timer_exit", HERE, &[bed.at(0), 1, 0, (-343_600_000_000_i64).cast_unsigned()]);
    let counters = bed.counters();
    assert_eq!((counters.traced_timer_exits, counters.traced_early_exits), ([0, 1, 6, 0], 3));
}

#[test]
#[ignore = "needs root"]
fn an_entry_without_exit_and_an_exit_without_entry_are_unmatched() {
    let mut bed = bed();
    bed.exit(0, 0, VMX, 10);
    assert_eq!(bed.counters().unmatched_exits, 1, "attached while the guest ran");
    bed.entry(0, 0, false);
    bed.entry(0, 0, false);
    bed.exit(0, 0, VMX, 10);
    bed.exit(0, 0, VMX, 10);
    assert_eq!(bed.events().len(), 1);
    let c = bed.counters();
    assert_eq!((c.unmatched_entries, c.unmatched_exits, c.rounds, bed.tracer.open_rounds()), (1, 2, 1, 0));
}

#[test]
#[ignore = "needs root"]
fn a_vcpu_may_change_its_cpu_at_any_time() {
    let mut bed = bed();
    bed.entry(0, 0, false);
    bed.exit(0, 0, VMX, 10);
    let first = bed.one_event();
    bed.entry(0, 1, false);
    bed.exit(0, 1, VMX, 10);
    let second = bed.one_event();
    assert_eq!((first.cpu, second.cpu, first.seq, second.seq), (0, 1, 1, 1));
    assert_eq!(second.exit_to_entry_ns, second.entry_ns - first.exit_ns);
    // Linux 6.1 fires kvm_exit with preemption on for SVM.
    bed.entry(0, 0, false);
    bed.exit(0, 1, VMX, 10);
    assert_eq!(bed.events().len(), 1);
    assert_eq!(bed.counters().unmatched_entries + bed.counters().unmatched_exits, 0);
}

#[test]
#[ignore = "needs root"]
fn tdx_guests_are_not_traced_but_counted() {
    let mut bed = bed();
    bed.memory[KVM_AT + VM_TYPE] = 5;
    bed.entry(0, 0, false);
    bed.exit(0, 0, VMX, 10);
    assert_eq!(bed.events(), []);
    let c = bed.counters();
    assert_eq!((c.td_entries, c.rounds, c.unmatched_exits, c.unmatched_entries), (1, 0, 0, 0));
}

#[test]
#[ignore = "needs root"]
fn the_object_with_diagnostics_does_the_same() {
    let mut bed = Bed::new(config(), Options { kernel_log: true, ..Options::default() });
    assert_eq!(bed.round(0, 10).outline().reason(), Some(10));
    bed.memory[KVM_AT + VM_TYPE] = 5;
    bed.entry(1, 0, false);
    bed.tracer.flush_log();
    assert_eq!(bed.counters().td_entries, 1);
}

#[test]
#[ignore = "needs root"]
fn vcpus_that_a_filter_excludes_are_not_counted_at_all() {
    let mut other = Bed::new(config(), Options { tgids: Some(vec![1]), ..Options::default() });
    other.entry(0, 0, false);
    other.exit(0, 0, VMX, 10);
    assert_eq!((other.events().len(), other.counters()), (0, Counters::default()));
    let mut mine = Bed::new(config(), Options { tgids: Some(vec![1, std::process::id()]), ..Options::default() });
    mine.round(0, 10);
    let mut second = Bed::new(config(), Options { vcpu_ids: Some(vec![1]), ..Options::default() });
    second.entry(0, 0, false);
    second.exit(0, 0, VMX, 10);
    assert_eq!(second.counters(), Counters::default());
    assert_eq!(second.round(1, 10).vcpu, 1);
}

#[test]
#[ignore = "needs root"]
fn a_full_ring_drops_records_and_counts_every_drop() {
    const ROUNDS: u64 = 500;
    let mut bed = Bed::new(config(), Options { ring_bytes: 4096, ..Options::default() });
    for _ in 0..ROUNDS {
        bed.entry(0, 0, false);
        bed.exit(0, 0, VMX, 10);
    }
    let events = bed.events();
    let c = bed.counters();
    assert_eq!(c.rounds, ROUNDS);
    assert_eq!(events.len() as u64 + c.dropped, ROUNDS);
    assert_eq!(events.len(), 32, "the power of two that fits");
    bed.entry(0, 0, false);
    bed.exit(0, 0, VMX, 10);
    let next = bed.one_event();
    assert_eq!(next.seq, ROUNDS + 1, "the gap in the numbers is the dropped records");
    assert_eq!(next.outline().known_pin_writes(), Some(0), "writes of dropped rounds are not carried over");
}

#[test]
#[ignore = "needs root"]
fn svm_has_exit_codes_and_no_pin_controls() {
    let mut c = config();
    c.set(Slot::VmxLoadedVmcs, tracer_common::config::ABSENT);
    let mut bed = Bed::new(c, Options::default());
    let vmcb = bed.at(0);
    bed.set(0, VMCB, vmcb);
    bed.set(0, EXIT_CODE, 0x72);
    bed.set(0, GUEST_MODE, 1);
    bed.entry(0, 0, false);
    bed.exit(0, 0, SVM, 0);
    let event = bed.one_event();
    assert_eq!(
        (event.outline().isa(), event.outline().reason(), event.outline().is_l2()),
        (Isa::Svm, Some(0x72), Some(true))
    );
    assert_eq!((event.outline().known_pin_writes(), event.outline().timer_cause()), (None, None));
}

#[test]
#[ignore = "needs root"]
fn an_event_of_another_instruction_set_than_the_layouts_has_no_field_of_a_vendor() {
    let mut c = config();
    c.set(Slot::LayoutIsa, Isa::Vmx as u8);
    for isa in [SVM, 0, 3] {
        let mut bed = Bed::new(c, Options { extras: true, ..Options::default() });
        let round = |bed: &mut Bed, isa: u64, pin: u64| {
            bed.set(0, VMCS01 + PIN, pin);
            bed.set(0, VMCS01 + SOFT, 1);
            bed.entry(0, HERE, true);
            bed.exit(0, HERE, isa, 52);
            bed.one_event()
        };
        let foreign = round(&mut bed, isa, 0x3f);
        let of = |event: &Event| {
            let outline = event.outline();
            (outline.reason(), outline.is_l2(), outline.known_pin_writes(), outline.timer_cause())
        };
        assert_eq!((of(&foreign), foreign.isa), ((None, None, None, None), isa as u8));
        assert_eq!((foreign.pin_entry, foreign.pin_exit, foreign.known_shadow_pin_writes()), (0, 0, None));
        assert!(foreign.flags.has(Flags::IMMEDIATE_KNOWN | Flags::IMMEDIATE), "kvm_entry itself says so");
        // Nothing that was read in it counts in the next round of the layout's own instruction set.
        let own = round(&mut bed, VMX, 0x7f);
        assert_eq!(of(&own), (Some(52), Some(false), Some(1), Some(TimerCause::Spurious)));
        assert_eq!(of(&round(&mut bed, VMX, 0x7f)).2, Some(0));
        assert_eq!(own.previous, foreign.outline());
    }
}

#[test]
#[ignore = "needs root"]
fn series_of_another_instruction_set_have_no_pin_writes() {
    let mut c = config();
    c.set(Slot::LayoutIsa, Isa::Vmx as u8);
    let mut bed = Bed::new(c, Options { aggregation: Aggregation::InKernel, ..Options::default() });
    for n in 0..10 {
        bed.set(0, VMCS01 + PIN, n);
        bed.entry(0, HERE, false);
        bed.exit(0, HERE, SVM, 52);
    }
    let mut found = Vec::new();
    bed.tracer.in_kernel_series().unwrap().take(|growth| {
        let outline = growth.outline;
        let fields = (outline.isa(), outline.reason(), outline.is_l2(), growth.series[Figure::PinWrites].count());
        found.push((growth.series.entries(), fields));
    });
    assert_eq!(found, [(10, (Isa::Svm, None, None, 0))]);
}

#[test]
#[ignore = "needs root"]
fn an_unknown_vendor_gives_entries_without_reasons() {
    let mut bed = Bed::new(Config::empty(), Options::default());
    bed.entry(0, 0, false);
    bed.exit(0, 0, 3, 10);
    let event = bed.one_event();
    assert_eq!(
        (event.outline().isa(), event.outline().reason(), event.outline().is_l2(), event.outline().timer_cause()),
        (Isa::Other, None, None, None)
    );
}

#[test]
#[ignore = "needs root"]
fn before_linux_5_16_kvm_exit_has_the_reason_first() {
    let mut bed = Bed::with(config(), Options::default(), ExitArguments::ReasonVcpuIsa);
    bed.entry(0, 0, false);
    bed.set(0, REASON, 12);
    bed.run("kvm_exit_5_15", 0, &[999, bed.at(0), VMX]);
    assert_eq!(bed.one_event().outline().reason(), Some(12));
}

#[test]
#[ignore = "needs root"]
fn an_address_that_cannot_be_read_gives_no_event() {
    for cast in [None, cast()] {
        let mut bed = Bed::reading(config(), Options::default(), ExitArguments::VcpuIsa, cast);
        bed.run("kvm_entry", 0, &[0xdead_0000_0000_0000, 0]);
        bed.run("kvm_exit", 0, &[0xdead_0000_0000_0000, VMX]);
        assert_eq!(bed.events(), []);
        let c = bed.counters();
        assert_eq!((c.rounds, c.no_state, c.unmatched_exits), (0, 1, 1));
    }
}

/// An event without its times.
fn timeless(event: Event) -> Event {
    Event { entry_ns: 0, exit_ns: 0, exit_to_entry_ns: 0, kvm: event.kvm & 0xfff, ..event }
}

#[test]
#[ignore = "needs root"]
fn direct_loads_read_the_same_as_the_helper() {
    let [with_helper, with_loads] = [None, cast()].map(|cast| {
        let mut bed = Bed::reading(config(), Options::default(), ExitArguments::VcpuIsa, cast);
        let mut events = Vec::new();
        bed.set(0, VMCS01 + PIN, 0x3f);
        events.push(bed.round(0, 10));
        bed.set(0, VMCS01 + PIN, 0x7f);
        bed.set(0, VMCS01 + SOFT, 1);
        events.push(bed.round(0, 52));
        bed.enter_level(0, 2);
        bed.set(0, VMCS02 + PIN, 0x1f);
        events.push(bed.round(0, 0x8000_0021));
        let vmcb = bed.at(1);
        bed.set(1, VMCB, vmcb);
        bed.set(1, EXIT_CODE, 0xffff_ffff);
        bed.entry(1, HERE, true);
        bed.exit(1, HERE, SVM, 0);
        events.push(bed.one_event());
        events.into_iter().map(timeless).map(|e| Event { cpu: 0, seq: 0, ..e }).collect::<Vec<_>>()
    });
    assert_eq!(with_helper, with_loads);
    assert_eq!(with_loads[1].outline().timer_cause(), Some(TimerCause::Spurious));
    assert_eq!(with_loads[3].outline().reason(), Some(0xffff_ffff));
}

/// Rounds of every kind on a host of one vendor: other reasons and levels, pin-control writes, causes of timer exits, parts of host time, another
/// instruction set, and a new vCPU at the address of a dead one.
fn rounds_of_every_kind(bed: &mut Bed, isa: u64) {
    let vmcb = bed.at(0);
    bed.set(0, VMCB, vmcb);
    bed.set(0, EXIT_CODE, 0x72);
    for n in 0..48 {
        bed.set(0, VMCS01 + PIN, n / 5);
        bed.set(0, VMCS02 + PIN, n / 7);
        bed.set(0, VMCS01 + SOFT, n % 2);
        bed.enter_level(0, if n % 11 == 3 { 2 } else { 1 });
        bed.set(0, GUEST_MODE, u64::from(n % 11 == 3));
        // On SVM, L2 has another vmcb.
        bed.set(0, VMCB, if n % 11 == 3 { vmcb + 8 } else { vmcb });
        bed.set(0, EXIT_CODE + 8, 0x73);
        bed.set(0, HALT_POLL_SUCCESS, n / 4 * 100);
        if n == 40 {
            bed.set(0, EXITS, 0);
        }
        bed.entry(0, HERE, n % 3 == 0);
        bed.exit(0, HERE, if n % 13 == 6 { 3 - isa } else { isa }, [10, 52, 0x8000_0021][n as usize % 3]);
    }
}

#[test]
#[ignore = "needs root"]
fn programs_for_one_instruction_set_count_the_same_as_those_for_all() {
    for isa in [VMX, SVM] {
        for phases in [false, true] {
            let mut c = config_of_host_time();
            c.set(Slot::LayoutIsa, i64::try_from(isa).unwrap());
            c.set(Slot::SvmVmcb01, VMCB01 as i32);
            if isa == SVM {
                c.set(Slot::VmxLoadedVmcs, tracer_common::config::ABSENT);
                c.set(Slot::VmcsPin, tracer_common::config::ABSENT);
            }
            // Without bpf_rdonly_cast, the programs for all options run.
            let counted = [None, cast()].map(|cast| {
                let options = |aggregation| Options { aggregation, phases, ..Options::default() };
                let vcpu_ready = |bed: &mut Bed| {
                    let vmcb = bed.at(0);
                    bed.set(0, VMCB01, vmcb);
                };
                let mut bed = Bed::reading(c, options(Aggregation::Records), ExitArguments::VcpuIsa, cast);
                vcpu_ready(&mut bed);
                rounds_of_every_kind(&mut bed, isa);
                // The thread may be preempted at any time: which host times have parts differs from run to run.
                let without_parts = |e: Event| Event {
                    phases: Default::default(),
                    flags: Flags(e.flags.0 & !Flags::PHASES.0),
                    previous: Outline(e.previous.0 & !Outline::of(0, Flags::PHASES, 0, 0).0),
                    seq: 0,
                    ..timeless(e)
                };
                let events = bed.events();
                assert!(!phases || events.iter().any(|e| e.flags.has(Flags::PHASES)));
                let events: Vec<_> = events.into_iter().map(without_parts).collect();
                let mut bed = Bed::reading(c, options(Aggregation::InKernel), ExitArguments::VcpuIsa, cast);
                vcpu_ready(&mut bed);
                rounds_of_every_kind(&mut bed, isa);
                let mut series = Vec::new();
                bed.tracer.in_kernel_series().unwrap().take(|growth| {
                    let figure = |figure: Figure| growth.series[figure].count();
                    let counts = [Figure::PinWrites, Figure::EntryToExit, Figure::ExitToEntry].map(figure);
                    series.push((growth.outline.0, counts, growth.series[Figure::PinWrites].sum()));
                });
                series.sort_unstable();
                (events, series)
            });
            let [(events, series), (usual_events, usual_series)] = &counted;
            assert_eq!(events, usual_events, "isa {isa}, phases {phases}");
            assert_eq!(series, usual_series, "isa {isa}, phases {phases}");
            assert_eq!(events.len(), 48);
            // SVM has no pin writes, so no dirty entries.
            assert!(series.len() >= 3 && events.iter().any(|e| e.outline().is_l2() == Some(true)), "{series:x?}");
        }
    }
}

#[test]
#[ignore = "needs root"]
fn a_new_vcpu_in_a_full_set_evicts_the_one_entered_longest_ago() {
    let mut bed = bed();
    // Addresses of one set. They cannot be read, but their kvm_entry takes a place nevertheless.
    let mine = set_of(bed.at(0));
    let others = (1..).map(|n: u64| 0xdead_0000_0000_0000 + n * 64).filter(|other| set_of(*other) == mine).take(40);
    bed.round(0, 10);
    for (n, other) in others.enumerate() {
        bed.run("kvm_entry", 0, &[other, 0]);
        if n == 20 {
            assert_eq!(bed.round(0, 12).previous.reason(), Some(10), "entered recently, so it is not the LRU victim");
        }
    }
    assert_eq!(bed.round(0, 12).previous.reason(), Some(12));
}

#[test]
#[ignore = "needs root"]
fn a_quiet_vcpu_keeps_its_state_where_those_of_vms_that_ended_are_freed() {
    let mut bed = bed();
    // In one set of 16 places, and each of a VM of its own.
    let crowd = bed.crowd(CROWD);
    // In the guest from now on, without an exit.
    bed.run("kvm_entry", 0, &[crowd.at(0), 0]);
    for vcpu in 1..CROWD {
        bed.run("kvm_entry", 0, &[crowd.at(vcpu), 0]);
        bed.run("kvm_exit", 0, &[crowd.at(vcpu), VMX]);
        bed.tracer.free_states(|_, kvm| kvm == crowd.at(vcpu));
    }
    assert_eq!(bed.tracer.open_rounds(), 1, "the quiet one's");
    bed.run("kvm_exit", 0, &[crowd.at(0), VMX]);
    let counters = bed.counters();
    assert_eq!((counters.evicted, counters.unmatched_exits, counters.rounds), (0, 0, CROWD as u64));
}

const CROWD: usize = 40;
const ROUNDS_OF_EACH: usize = 20_000;

/// Runs rounds of a crowd on CPUs 0 and 1, half of the crowd on each. A vCPU that exits on one CPU is often the LRU victim of an entry on
/// the other. Returns the number of kvm_exit events.
fn run_a_crowd(bed: &mut Bed, crowd: &Crowd) -> u64 {
    let cpus = [0, 1].map(|cpu| (cpu, bed.program("kvm_entry"), bed.program("kvm_exit")));
    let at = &(0..CROWD).map(|vcpu| crowd.at(vcpu)).collect::<Vec<_>>();
    std::thread::scope(|scope| {
        let threads = cpus.map(|(cpu, entry, exit)| {
            scope.spawn(move || {
                pin_to(cpu);
                let mut exits = 0;
                let run = |program: &RawTracePoint, vcpu: usize, second: u64| {
                    let mut options = RawTracePointRunOptions::new();
                    options.args[..2].copy_from_slice(&[at[vcpu], second]);
                    program.test_run(options).unwrap();
                };
                let mine = |n: usize| 2 * (n % (CROWD / 2)) + cpu;
                for n in 0..ROUNDS_OF_EACH {
                    run(&entry, mine(n), 0);
                    // A vCPU that was entered 6 to 9 entries ago on each CPU: about where a set of 16 places evicts.
                    if let Some(open) = n.checked_sub(6 + n / (CROWD / 2) % 4) {
                        run(&exit, mine(open), VMX);
                        exits += 1;
                    }
                }
                exits
            })
        });
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

#[test]
#[ignore = "needs root"]
fn vcpus_that_evict_each_other_on_two_cpus_keep_their_identity_and_the_balance() {
    let mut bed = Bed::new(config(), Options { extras: true, ring_bytes: 4 << 20, ..Options::default() });
    let crowd = bed.crowd(CROWD);
    let exits = run_a_crowd(&mut bed, &crowd);
    let (mut delivered, mut wrong) = (0, Vec::new());
    for ring in bed.tracer.rings() {
        ring.drain(usize::MAX, |bytes| {
            delivered += 1;
            // Undecodable where a stray hook made a round end before it began.
            let Some(event) = Event::decode(bytes) else { return };
            let vcpu = event.vcpu as usize;
            let is_own = vcpu < CROWD && event.kvm == crowd.at(vcpu) && event.exit_reason == Crowd::reason(vcpu);
            if !is_own || vcpu % 2 != event.cpu as usize {
                wrong.push(event);
            }
        });
    }
    let c = bed.counters();
    assert_eq!(c.rounds, delivered + c.dropped);
    assert_eq!(exits, c.rounds + c.unmatched_exits);
    assert!(c.unmatched_exits > 0 && delivered > 1000, "{c:?}");
    assert!(wrong.is_empty(), "{} of {delivered} entries of another vCPU: {:?}", wrong.len(), wrong[0]);
}

#[test]
#[ignore = "needs root"]
fn series_counted_in_the_kernel_lose_no_entry_when_vcpus_evict_each_other() {
    let options = Options { aggregation: Aggregation::InKernel, ..Options::default() };
    let mut bed = Bed::new(config(), options);
    let crowd = bed.crowd(CROWD);
    let exits = run_a_crowd(&mut bed, &crowd);
    let mut entries = 0;
    bed.tracer.in_kernel_series().unwrap().take(|growth| {
        let vcpu = growth.owner.vcpu as usize;
        assert!(vcpu < CROWD && growth.owner.kvm == crowd.at(vcpu), "{:?}", growth.owner);
        entries += growth.series.entries();
    });
    let c = bed.counters();
    assert_eq!((c.rounds, exits), (entries + c.dropped, c.rounds + c.unmatched_exits));
    assert!(c.unmatched_exits > 0 && entries > 1000, "{c:?}");
}

/// Simulates a hook of vCPU 1, with this state, that writes into the state of vCPU 0.
type Stray = fn(&mut VcpuState, VcpuState);

/// kvm_entry, kvm_exit, and kvm_exit of a vCPU whose pin controls are the same.
const STRAY_HOOKS: [Stray; 3] = [stray_entry, stray_exit, |state, own| {
    stray_exit(state, own);
    state.last_pin = own.last_pin;
}];

fn stray_entry(state: &mut VcpuState, own: VcpuState) {
    (state.phase, state.exits, state.flags) = (Phase::OPEN, 1 << 40, Flags(0xffff));
    (state.shadow_pin_writes, state.pin_entry, state.exec_entry) = (1, 0x5555, 0x5555);
    (state.loaded_vmcs, state.entry_ns) = (own.loaded_vmcs, u64::MAX / 2);
}

fn stray_exit(state: &mut VcpuState, own: VcpuState) {
    (state.phase, state.shadow_pin_writes, state.last_pin, state.pin_seen) = (Phase::CLOSED, 0, [0x5555; 2], 3);
    (state.previous, state.exit_ns, state.writes) = (Outline(u64::MAX), u64::MAX / 2, [Writes(0); 2]);
    state.series = own.series;
}

/// A bed after three rounds of each of two vCPUs, with the same exit reason. Then a stray hook of vCPU 1 writes into the state of vCPU 0,
/// between two rounds or within one (`is_open`), and vCPU 0 completes this round.
fn bed_after(stray: Stray, is_open: bool, aggregation: Aggregation) -> Bed {
    let mut bed = Bed::new(config(), Options { aggregation, ..Options::default() });
    for n in 0..6 {
        bed.set(n % 2, VMCS01 + PIN, 0x3f);
        run_round(&mut bed, n % 2, 10);
    }
    if is_open {
        bed.entry(0, HERE, false);
    }
    let states = bed.states();
    let state_of = |vcpu: usize| {
        // SAFETY: inside the mapping, and no program runs at this time.
        let mut all = (0..MAX_STATES).map(|place| unsafe { &mut *states.as_ptr().cast::<VcpuState>().add(place) });
        all.find(|state| state.owner == Owner::vcpu(bed.at(vcpu))).unwrap()
    };
    stray(state_of(0), *state_of(1));
    if is_open {
        bed.exit(0, HERE, VMX, 10);
    } else {
        run_round(&mut bed, 0, 10);
    }
    bed
}

fn run_round(bed: &mut Bed, vcpu: usize, reason: u32) {
    bed.entry(vcpu, HERE, false);
    bed.exit(vcpu, HERE, VMX, reason);
}

#[test]
#[ignore = "needs root"]
fn a_stray_hook_of_an_evicted_vcpu_spoils_two_rounds_at_most() {
    for (stray, is_open) in STRAY_HOOKS.into_iter().flat_map(|stray| [(stray, false), (stray, true)]) {
        let mut bed = bed_after(stray, is_open, Aggregation::Records);
        run_round(&mut bed, 0, 12);
        let kvm = bed.address + KVM_AT as u64;
        let events = bed.events_that_decode();
        assert!(
            events.iter().all(|event| event.kvm == kvm) && events.iter().filter(|event| event.vcpu == 1).count() == 3
        );
        let c = bed.counters();
        let unmatched = |c: Counters| c.unmatched_entries + c.unmatched_exits;
        assert!(unmatched(c) <= 2, "{c:?}");
        let (third, fourth) = (bed.round(0, 30), bed.round(0, 31));
        assert_eq!((unmatched(bed.counters()), bed.counters().rounds), (unmatched(c), c.rounds + 2));
        assert_eq!((third.vcpu, third.outline().reason(), third.previous.reason()), (0, Some(30), Some(12)));
        assert_eq!((third.outline().known_pin_writes(), third.outline().is_l2()), (Some(0), Some(false)));
        assert_eq!((fourth.previous, fourth.exit_to_entry_ns), (third.outline(), fourth.entry_ns - third.exit_ns));
    }
}

#[test]
#[ignore = "needs root"]
fn after_a_stray_hook_each_vcpu_counts_in_its_own_series_only() {
    for (stray, is_open) in STRAY_HOOKS.into_iter().flat_map(|stray| [(stray, false), (stray, true)]) {
        let mut bed = bed_after(stray, is_open, Aggregation::InKernel);
        run_round(&mut bed, 0, 10);
        let mut entries = [0; 2];
        bed.tracer
            .in_kernel_series()
            .unwrap()
            .take(|growth| entries[growth.owner.vcpu as usize] += growth.series.entries());
        let c = bed.counters();
        assert_eq!((entries[0] + entries[1], entries[1]), (c.rounds - c.dropped, 3));
    }
}

#[test]
#[ignore = "needs root"]
fn series_counted_in_the_kernel_equal_those_from_records() {
    let options = Options { aggregation: Aggregation::InKernel, ..Options::default() };
    let mut bed = Bed::new(config(), options);
    bed.set(0, VMCS01 + PIN, 0x3f);
    for n in 0..97 {
        bed.entry(n % 2, HERE, false);
        bed.exit(n % 2, HERE, VMX, if n % 7 == 0 { 52 } else { 10 });
    }
    assert_eq!((bed.events().len(), bed.counters().rounds, bed.counters().dropped), (0, 97, 0));
    let mut seen = Vec::new();
    bed.tracer.in_kernel_series().unwrap().take(|growth| seen.push(growth));
    let of = |vcpu, reason| {
        let series = seen.iter().filter(|g| g.owner.vcpu == vcpu && g.outline.reason() == Some(reason));
        series.fold((0, 0, 0), |sum, g| {
            (
                sum.0 + g.series.entries(),
                sum.1 + g.series[Figure::ExitToEntry].count(),
                sum.2 + g.series[Figure::PinWrites].sum(),
            )
        })
    };
    // 0, 14, .. 84 and 7, 21, .. 91 end in timer exits; the last round of each vCPU has no entry after it.
    assert_eq!((of(0, 52), of(0, 10)), ((7, 7, 1), (42, 41, 0)));
    assert_eq!((of(1, 52), of(1, 10)), ((7, 7, 0), (41, 40, 0)));
    assert!(seen.iter().all(|g| g.owner.tgid == std::process::id() && g.owner.kvm == bed.address + KVM_AT as u64));
    bed.entry(0, HERE, false);
    bed.exit(0, HERE, VMX, 10);
    let mut grown = Vec::new();
    bed.tracer
        .in_kernel_series()
        .unwrap()
        .take(|g| grown.push((g.outline.reason(), g.series.entries(), g.series[Figure::ExitToEntry].count())));
    assert_eq!(grown, [(Some(10), 1, 1)], "only entries since the last read");
}

#[test]
#[ignore = "needs root"]
fn counts_of_a_series_that_are_read_while_it_grows_belong_together() {
    busy::look_at_busy_series(Duration::from_secs(3)).check();
}

#[test]
#[ignore = "needs root"]
fn entries_whose_series_finds_no_place_are_counted_as_dropped() {
    let options = Options { aggregation: Aggregation::InKernel, ..Options::default() };
    let mut bed = Bed::new(config(), options);
    const REASONS: u32 = 6000;
    for reason in 0..REASONS {
        bed.entry(0, HERE, false);
        bed.exit(0, HERE, VMX, 1000 + reason);
    }
    let (mut series, mut entries) = (0, 0);
    bed.tracer.in_kernel_series().unwrap().take(|growth| {
        series += 1;
        entries += growth.series.entries();
    });
    let c = bed.counters();
    assert_eq!((c.rounds, c.rounds - c.dropped), (REASONS.into(), entries));
    assert!((3500..=4096).contains(&series), "{series} series");
}

/// Makes a vCPU one of another process, from its next round on.
fn give_to_process(bed: &mut Bed, vcpu: usize, tgid: u32) {
    bed.entry(vcpu, HERE, false);
    bed.exit(vcpu, HERE, VMX, 10);
    let (states, owner) = (bed.states(), Owner::vcpu(bed.at(vcpu)));
    // SAFETY: inside the mapping, and no program runs at this time.
    let mut all = (0..MAX_STATES).map(|place| unsafe { &mut *states.as_ptr().cast::<VcpuState>().add(place) });
    all.find(|state| state.owner == owner).unwrap().who = u64::from(tgid) << 32 | vcpu as u64;
}

/// Entries of the growth since the last look, by process; the look takes places back, too.
fn look(bed: &mut Bed) -> (BTreeMap<u32, u64>, Vec<u32>) {
    let mut entries = BTreeMap::new();
    let series = bed.tracer.in_kernel_series().unwrap();
    let mut add = |growth: Growth| *entries.entry(growth.owner.tgid).or_default() += growth.series.entries();
    series.take(&mut add);
    let limited = series.share(&mut add).unwrap();
    (entries, limited.iter().map(|owner| owner.tgid).collect())
}

#[test]
#[ignore = "needs root"]
fn a_vm_that_takes_all_series_gives_some_back_and_its_further_drops_are_its_own() {
    let mut bed = Bed::new(config(), Options { aggregation: Aggregation::InKernel, ..Options::default() });
    let (me, other) = (std::process::id(), 4_000_000);
    give_to_process(&mut bed, 1, other);
    for reason in 0..6000 {
        run_round(&mut bed, 0, 1000 + reason);
    }
    let (entries, limited) = look(&mut bed);
    assert_eq!(limited, [me]);
    let dropped = bed.counters().dropped;
    assert_eq!(entries.values().sum::<u64>(), bed.counters().rounds - dropped);
    for reason in 0..20 {
        run_round(&mut bed, 1, 1000 + reason);
    }
    assert_eq!(bed.counters().dropped, dropped, "the newcomer has no room");
    for reason in 6000..6100 {
        run_round(&mut bed, 0, 1000 + reason);
    }
    let (entries, limited) = look(&mut bed);
    assert_eq!((entries.get(&other), entries.get(&me), limited), (Some(&20), None, vec![]));
    let lost = bed.tracer.in_kernel_series().unwrap().lost();
    assert_eq!((lost, bed.counters().dropped), (BTreeMap::from([(me, 100)]), dropped + 100));
}

#[test]
#[ignore = "needs root"]
fn series_of_vms_that_ended_make_room_for_new_ones_and_no_entry_is_lost() {
    let mut bed = Bed::new(config(), Options { aggregation: Aggregation::InKernel, ..Options::default() });
    let mut entries = 0;
    for reason in 0..12_000 {
        run_round(&mut bed, 0, 1000 + reason);
        if reason % 500 == 0 {
            let (found, limited) = look(&mut bed);
            entries += found.values().sum::<u64>();
            assert_eq!(limited, [0; 0]);
        }
    }
    entries += look(&mut bed).0.values().sum::<u64>();
    let c = bed.counters();
    assert_eq!((c.rounds, entries), (12_000, c.rounds - c.dropped));
    assert!(c.dropped < 100, "{} of 12000 entries were dropped", c.dropped);
}

#[test]
#[ignore = "needs root"]
fn series_that_are_taken_back_while_vcpus_count_in_them_lose_no_entry() {
    const EACH: u32 = 300;
    let mut bed = Bed::new(config(), Options { aggregation: Aggregation::InKernel, ..Options::default() });
    let crowd = &bed.vcpus_in_mapped_memory(CROWD);
    let cpus = [0, 1].map(|cpu| (cpu, bed.program("kvm_entry"), bed.program("kvm_exit")));
    let running = &AtomicUsize::new(cpus.len());
    let (mut entries, mut taken_back) = (0, 0);
    std::thread::scope(|scope| {
        for (cpu, entry, exit) in cpus {
            scope.spawn(move || {
                pin_to(cpu);
                let run = |program: &RawTracePoint, vcpu: usize, second: u64| {
                    let mut options = RawTracePointRunOptions::new();
                    options.args[..2].copy_from_slice(&[crowd.at(vcpu), second]);
                    program.test_run(options).unwrap();
                };
                for n in 0..2 * ROUNDS_OF_EACH {
                    let vcpu = 2 * (n % (CROWD / 2)) + cpu;
                    // Some reasons come again soon, others late, so that series are taken back at any time of their life.
                    let reason = (n as u32).wrapping_mul(2_654_435_761) >> 16 & if n % 3 == 0 { 7 } else { 511 };
                    crowd.set(vcpu, REASON, u64::from(1000 * (1 + vcpu as u32) + reason % EACH));
                    run(&entry, vcpu, 0);
                    run(&exit, vcpu, VMX);
                }
                running.fetch_sub(1, Relaxed);
            });
        }
        let mut was_last = false;
        while !was_last {
            was_last = running.load(Relaxed) == 0;
            let series = bed.tracer.in_kernel_series().unwrap();
            let mut add = |growth: Growth| {
                let (vcpu, reason) = (growth.owner.vcpu, growth.outline.reason().unwrap());
                assert_eq!((growth.owner.kvm, reason / 1000), (crowd.at(vcpu as usize), 1 + vcpu));
                entries += growth.series.entries();
            };
            series.take(&mut add);
            let before = series.owners().count();
            series.share(&mut add).unwrap();
            taken_back += before.saturating_sub(series.owners().count());
        }
    });
    let c = bed.counters();
    assert_eq!((c.rounds, c.rounds - c.dropped), (4 * ROUNDS_OF_EACH as u64, entries));
    assert!(taken_back > 1000 && entries > 1000, "{taken_back} series taken back, {entries} entries, {c:?}");
}

#[test]
#[ignore = "needs root"]
fn the_verifier_processes_fewer_than_100_000_instructions() {
    // It gives up at 1,000,000; half of that took a third of a second.
    const MOST: u32 = 100_000;
    let options = [
        Options::default(),
        Options {
            exact_writes: true,
            stopwatch: Some(Stopwatch { tsc_khz: 1_000_000, rate: None }),
            ..Options::default()
        },
        Options { aggregation: Aggregation::InKernel, ..Options::default() },
    ];
    for (options, cast) in options.into_iter().flat_map(|options| [(options.clone(), cast()), (options, None)]) {
        let mut bed = Bed::reading(config(), options, ExitArguments::VcpuIsa, cast);
        for name in ["kvm_entry", "kvm_exit"] {
            // None before Linux 5.16, which does not report it.
            let verified = bed.tracer.program(name).unwrap().info().unwrap().verified_instruction_count();
            assert!(verified.is_none_or(|n| n < MOST), "{name}: {verified:?} instructions");
        }
    }
}
