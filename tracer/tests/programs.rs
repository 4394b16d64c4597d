//! The real programs on the running kernel: the real verifier, the real rings, made-up vCPUs. BPF_PROG_TEST_RUN calls
//! them with the address of a map value in which a vCPU is laid out.
//!
//! Needs root; `cargo xtask test` runs them, or `cargo test -p vmentry --test programs -- --ignored`.

#![allow(clippy::unwrap_used)]

#[path = "bed/mod.rs"]
mod bed;

use bed::*;
use tracer_common::{
    Config, Counters, Event, Flags, Isa, Outline, Slot, StampedEvent,
    rules::{TimerCause, Writes},
};
use vmentry::{
    kernel::{layout::ExitArguments, options::Options},
    model::measurement::{Aggregation, Stopwatch},
};

fn bed() -> Bed {
    Bed::new(config(), Options { details: true, ..Options::default() })
}

#[test]
#[ignore = "needs root"]
fn an_event_tells_who_when_and_why() {
    let mut bed = bed();
    let before = vmentry::host::clock::monotonic_ns();
    let first = bed.round(2, 10);
    assert_eq!((first.vcpu, first.outline().isa()), (2, Isa::Vmx));
    assert_eq!((first.tgid, first.outline().reason()), (std::process::id(), Some(10)));
    // SAFETY: gettid has no arguments.
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
    // ... and something else may write before and after kvm_entry of one round.
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
fn a_new_vcpu_at_a_dead_ones_address_inherits_nothing() {
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
fn nested_entries_are_l2_and_have_a_shadow_of_their_own() {
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
    // Only who asks for stamps gets them, whatever the layout knows.
    let mut bed = Bed::new(c, Options::default());
    assert_eq!(bed.round(0, 12).outline().reason(), Some(12));
}

#[test]
#[ignore = "needs root"]
fn the_stopwatch_tells_each_rounds_own_transition() {
    // 1 GHz: cycles are ns.
    let stopwatch = Some(Stopwatch { rate: Some(0), tsc_khz: 1_000_000 });
    let mut bed = Bed::new(config(), Options { stopwatch, ..Options::default() });
    bed.entry(0, HERE, false);
    bed.guest_time(0, 5_000_300, 5_000_000);
    bed.exit(0, HERE, VMX, 10);
    assert_eq!(bed.one_event().known_transition_ns(), Some(300));
    // A failed VM entry has none, and the round before lends it nothing.
    assert_eq!(bed.round(0, 0x8000_0021).known_transition_ns(), None);
    // More guest than there was time: by a timer that counts in steps.
    bed.entry(0, HERE, false);
    bed.guest_time(0, 31, 32);
    bed.exit(0, HERE, VMX, 10);
    assert_eq!(bed.one_event().known_transition_ns(), None);
    // Of an L2, and of a vCPU that is not in a round.
    bed.enter_level(0, 2);
    bed.guest_time(0, 900, 0);
    bed.entry(0, HERE, false);
    bed.guest_time(0, 700, 100);
    bed.exit(0, HERE, VMX, 18);
    let l2 = bed.one_event();
    assert_eq!((l2.outline().is_l2(), l2.known_transition_ns()), (Some(true), Some(600)));
    bed.guest_time(3, 700, 100);
    // Without the stopwatch, an entry that was forced to exit at once is all transition.
    let mut bed = self::bed();
    bed.entry(0, HERE, true);
    bed.exit(0, HERE, VMX, 52);
    let forced = bed.one_event();
    assert_eq!(forced.known_transition_ns(), Some(forced.entry_to_exit_ns()));
    assert_eq!(bed.round(0, 52).known_transition_ns(), None, "a deadline's guest has run");
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
    assert_eq!(first.exact_writes().unwrap(), Writes::default().plus(0).plus(4));
    assert_eq!((first.outline().known_pin_writes(), first.known_shadow_pin_writes()), (Some(1), Some(1)));
    // Two writes that cancel out: only the tracepoint sees them. One to vmcs02 waits for its own entry.
    bed.write(0, PIN_CONTROLS, false);
    bed.write(0, PIN_CONTROLS, true);
    bed.write(0, PIN_CONTROLS, false);
    bed.write(0, 0x482e, false);
    let second = bed.round(0, 10);
    assert_eq!((second.outline().known_pin_writes(), second.known_shadow_pin_writes()), (Some(2), Some(0)));
    bed.enter_level(0, 2);
    assert_eq!(bed.round(0, 18).outline().known_pin_writes(), Some(1));
    assert_eq!(bed.round(0, 18).outline().known_pin_writes(), Some(0));
    // A vCPU that ran before: what it wrote before its first exit is not known.
    bed.set(1, EXITS, 9);
    bed.write(1, PIN_CONTROLS, false);
    assert_eq!(bed.round(1, 10).exact_writes(), None);
    bed.write(1, PIN_CONTROLS, false);
    assert_eq!(bed.round(1, 10).outline().known_pin_writes(), Some(1));
    // Nor may its first write pass for a first entry: it is who it is.
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

#[test]
#[ignore = "needs root"]
fn what_does_not_pair_is_counted_as_unmatched() {
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
fn tdx_guests_are_left_out_and_counted() {
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
fn the_object_with_diagnostics_does_the_same_and_says_so() {
    let mut bed = Bed::new(config(), Options { kernel_log: true, ..Options::default() });
    assert_eq!(bed.round(0, 10).outline().reason(), Some(10));
    bed.memory[KVM_AT + VM_TYPE] = 5;
    bed.entry(1, 0, false);
    bed.tracer.flush_log();
    assert_eq!(bed.counters().td_entries, 1);
}

#[test]
#[ignore = "needs root"]
fn filters_leave_others_out_without_a_trace() {
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
fn a_full_ring_drops_and_every_drop_is_counted() {
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
    assert_eq!(events.len(), 64, "the power of two that fits");
    bed.entry(0, 0, false);
    bed.exit(0, 0, VMX, 10);
    let next = bed.one_event();
    assert_eq!(next.seq, ROUNDS + 1, "the gap in the numbers tells what was dropped");
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
fn an_address_that_cannot_be_read_is_no_event_of_zeros() {
    for cast in [None, cast()] {
        let mut bed = Bed::reading(config(), Options::default(), ExitArguments::VcpuIsa, cast);
        bed.run("kvm_entry", 0, &[0xdead_0000_0000_0000, 0]);
        bed.run("kvm_exit", 0, &[0xdead_0000_0000_0000, VMX]);
        assert_eq!(bed.events(), []);
        let c = bed.counters();
        assert_eq!((c.rounds, c.no_state, c.unmatched_exits), (0, 1, 1));
    }
}

/// An entry without its clocks.
fn timeless(event: Event) -> Event {
    Event { entry_ns: 0, exit_ns: 0, exit_to_entry_ns: 0, kvm: event.kvm & 0xfff, ..event }
}

#[test]
#[ignore = "needs root"]
fn loads_tell_what_the_helper_tells() {
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

#[test]
#[ignore = "needs root"]
fn more_vcpus_than_there_are_places_forget_the_one_entered_longest_ago() {
    let mut bed = bed();
    // Addresses of one set, none of which can be read: their kvm_entry claims a place all the same.
    let set_of = |vcpu: u64| vcpu.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
    let mine = set_of(bed.at(0));
    let others = (1..).map(|n: u64| 0xdead_0000_0000_0000 + n * 64).filter(|other| set_of(*other) == mine).take(40);
    bed.round(0, 10);
    for (n, other) in others.enumerate() {
        bed.run("kvm_entry", 0, &[other, 0]);
        if n == 20 {
            assert_eq!(bed.round(0, 12).previous.reason(), Some(10), "entered, so that it is none of the oldest");
        }
    }
    assert_eq!(bed.round(0, 12).previous.reason(), Some(12));
}

#[test]
#[ignore = "needs root"]
fn what_the_programs_count_themselves_is_what_records_tell() {
    let options = Options { aggregation: Aggregation::InKernel, ..Options::default() };
    let mut bed = Bed::new(config(), options);
    bed.set(0, VMCS01 + PIN, 0x3f);
    for n in 0..97 {
        bed.entry(n % 2, HERE, false);
        bed.exit(n % 2, HERE, VMX, if n % 7 == 0 { 52 } else { 10 });
    }
    assert_eq!((bed.events().len(), bed.counters().rounds, bed.counters().dropped), (0, 97, 0));
    let mut seen = Vec::new();
    bed.tracer.tallies().unwrap().take(|growth| seen.push(growth));
    let of = |vcpu, reason| {
        let series = seen.iter().filter(|g| g.whose.vcpu == vcpu && g.outline.reason() == Some(reason));
        series.fold((0, 0, 0), |sum, g| {
            (sum.0 + g.series.entries(), sum.1 + g.series.exit_to_entry.count(), sum.2 + g.series.pin_writes.sum())
        })
    };
    // 0, 14, .. 84 and 7, 21, .. 91 end in timer exits; the last round of each vCPU has no entry after it.
    assert_eq!((of(0, 52), of(0, 10)), ((7, 7, 1), (42, 41, 0)));
    assert_eq!((of(1, 52), of(1, 10)), ((7, 7, 0), (41, 40, 0)));
    assert!(seen.iter().all(|g| g.whose.tgid == std::process::id() && g.whose.kvm == bed.address + KVM_AT as u64));
    bed.entry(0, HERE, false);
    bed.exit(0, HERE, VMX, 10);
    let mut grown = Vec::new();
    bed.tracer
        .tallies()
        .unwrap()
        .take(|g| grown.push((g.outline.reason(), g.series.entries(), g.series.exit_to_entry.count())));
    assert_eq!(grown, [(Some(10), 1, 1)], "only what has come since");
}

#[test]
#[ignore = "needs root"]
fn series_that_find_no_place_are_dropped_and_counted() {
    let options = Options { aggregation: Aggregation::InKernel, ..Options::default() };
    let mut bed = Bed::new(config(), options);
    const REASONS: u32 = 6000;
    for reason in 0..REASONS {
        bed.entry(0, HERE, false);
        bed.exit(0, HERE, VMX, 1000 + reason);
    }
    let (mut series, mut entries) = (0, 0);
    bed.tracer.tallies().unwrap().take(|growth| {
        series += 1;
        entries += growth.series.entries();
    });
    let c = bed.counters();
    assert_eq!((c.rounds, c.rounds - c.dropped), (REASONS.into(), entries));
    assert!((3500..=4096).contains(&series), "{series} series");
}

#[test]
#[ignore = "needs root"]
fn the_verifier_is_soon_done() {
    // It gives up at a million, and half of that took a third of a second.
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
            // None before Linux 5.16.
            let verified = bed.tracer.program(name).unwrap().info().unwrap().verified_instruction_count();
            assert!(verified.is_none_or(|n| n < MOST), "{name}: {verified:?} instructions");
        }
    }
}
