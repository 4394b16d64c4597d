//! Reads the Perfetto traces that `vmentry` writes with the official schema, and compares every slice with its event.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

use std::{
    fs,
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;
use trace_check::{Slice, read, unknown_fields, whole_packets};
use tracer_common::{
    Event, Flags, Isa, Outline,
    detail::{RawDetail, Source},
    host_time::Phases,
    rules::TimerCause,
};
use vmentry::{
    host::naming::Naming,
    model::interval::Vm,
    recording::{Header, Reader},
    trace::{
        event_sink::EventSink,
        perfetto::{Closing, Trace},
        plan::{FlightOptions, TracePlan},
        recorder::{EventRecorder, EventSummary, OpenedTrace},
        trigger::Trigger,
        vm_event::{VmEvent, Vms},
    },
};

fn header() -> Header {
    let recording = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../tracer/tests/data/lab.hlog")).unwrap();
    Reader::new(recording.as_slice()).unwrap().header().clone()
}

fn vm(id: u32) -> Arc<Vm> {
    Arc::new(Vm { id, name: format!("web{id}"), tgid: 100 + id, start_ticks: 7, ..Vm::default() })
}

fn vms() -> Vms {
    (0..3).map(|id| (id, vm(id))).collect()
}

/// Events of three VMs with two vCPUs each, ordered by their exits. A vCPU's events follow each other without a gap.
fn events(rounds: u64) -> Vec<VmEvent> {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut events = Vec::new();
    for vcpu in 0..6u32 {
        let mut now = 5_000_000_000 + u64::from(vcpu);
        let mut previous = None;
        for seq in 1..=rounds {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let host = random % 3000;
            let guest = (random >> 20) % if random.is_multiple_of(7) { 3 } else { 1 << 20 };
            let (isa, reason) = match random % 5 {
                0 => (Isa::Vmx, 52),
                1 => (Isa::Vmx, 0x8000_0021),
                2 => (Isa::Vmx, 12),
                3 => (Isa::Svm, 0x78),
                _ => (Isa::Svm, 7777),
            };
            let known = Flags::REASON_KNOWN | Flags::LEVEL_KNOWN | Flags::IMMEDIATE_KNOWN | Flags::SOFT_KNOWN;
            let flags = match random % 11 {
                0 => Flags::NONE,
                1 => known | Flags::L2,
                _ => known | Flags::PIN_WRITES_KNOWN,
            };
            let event = Event {
                entry_ns: now + host,
                exit_ns: now + host + guest,
                exit_to_entry_ns: previous.map_or(Event::UNKNOWN_NS, |_| host),
                seq,
                exit_reason: reason,
                tid: 1000 + vcpu,
                vcpu: vcpu % 2,
                cpu: (random % 64) as u32,
                flags,
                isa: isa as u8,
                pin_writes: (random % 3) as u8,
                previous: previous.unwrap_or_default(),
                ..Event::default()
            };
            previous = Some(event.outline());
            now = event.exit_ns;
            events.push(VmEvent { vm: vcpu / 2, event });
        }
    }
    events.sort_by_key(|s| s.event.exit_ns);
    events
}

fn trace(header: &Header, events: &[VmEvent]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut trace = Trace::new(&mut bytes, header).unwrap();
    assert_eq!(trace.write(events.iter().copied(), &vms()).unwrap(), 0);
    let closing = Closing { reason: "SIGINT".into(), not_written: 3, dropped: Some(5) };
    trace.finish(9_000_000_000, &closing).unwrap();
    bytes
}

/// The slices that a viewer must show for an event: one for the host time, if known, and one for the guest time.
fn slices_of(vm_event: &VmEvent, emulated: bool) -> Vec<Slice> {
    let VmEvent { vm: id, event } = vm_event;
    let mark = if emulated { " (emulated)" } else { "" };
    let track = vec![format!("web{id} [{}]{mark}", 100 + id), format!("vCPU {}", event.vcpu)];
    let name = |isa: Isa, reason: Option<u32>| {
        reason.map_or("unknown".into(), |r| vmentry::model::exit_reasons::name(isa, r).into_owned())
    };
    let mut slices = Vec::new();
    if event.exit_to_entry_ns != Event::UNKNOWN_NS {
        slices.push(Slice {
            track: track.clone(),
            name: format!("host: {}", name(event.previous.isa(), event.previous.reason())),
            begin_ns: event.entry_ns - event.exit_to_entry_ns,
            end_ns: event.entry_ns,
            ..Slice::default()
        });
    }
    let round = event.outline();
    let guest = match round.is_l2() {
        None => "guest",
        Some(false) => "guest L1",
        Some(true) => "guest L2",
    };
    let mut arguments =
        vec![("cpu", event.cpu.to_string()), ("tid", event.tid.to_string()), ("seq", event.seq.to_string())];
    if let Some(reason) = round.reason() {
        arguments.extend([("exit_reason", name(round.isa(), Some(reason))), ("exit_reason_code", reason.to_string())]);
    }
    if let Some(n) = round.known_pin_writes() {
        arguments.extend([("pin_writes", n.to_string()), ("dirty", (n > 0).to_string())]);
    }
    let cause = round.timer_cause().filter(|c| *c != TimerCause::Unknown);
    arguments.extend(cause.map(|c| ("cause", c.name().to_owned())));
    slices.push(Slice {
        track,
        name: guest.into(),
        begin_ns: event.entry_ns,
        end_ns: event.exit_ns,
        depth: 0,
        arguments: arguments.into_iter().map(|(n, v)| (n.to_owned(), v)).collect(),
    });
    slices
}

fn sorted(mut slices: Vec<Slice>) -> Vec<Slice> {
    slices.sort_by(|a, b| (&a.track, a.begin_ns, a.end_ns, &a.name).cmp(&(&b.track, b.begin_ns, b.end_ns, &b.name)));
    slices
}

#[test]
fn every_event_has_its_slices_and_there_are_no_others() {
    let events = events(200);
    let header = header();
    let bytes = trace(&header, &events);
    let found = read(&bytes);
    let expected: Vec<_> = events.iter().flat_map(|s| slices_of(s, header.host.emulated)).collect();
    assert_eq!(found.unbalanced, 0);
    let (found_slices, expected) = (sorted(found.slices), sorted(expected));
    assert_eq!(found_slices.len(), expected.len());
    for (found, expected) in found_slices.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    // Pin writes are instants at the entries that had some.
    let writes: Vec<_> = found.instants.iter().filter(|i| i.name == "pin writes").collect();
    let dirty = |s: &&VmEvent| s.event.outline().known_pin_writes().is_some_and(|n| n > 0);
    assert_eq!(writes.len(), events.iter().filter(dirty).count());
    assert!(writes.iter().all(|w| w.depth == 0 && w.number("pin_writes").is_some_and(|n| n > 0)));
    assert_eq!(found.primary_clock, 3, "CLOCK_MONOTONIC");
    let anchor = header.anchor;
    assert_eq!(found.wall_minus_monotonic_ns, i128::from(anchor.unix_ns) - i128::from(anchor.monotonic_ns));
    println!("{} bytes per event", bytes.len() as f64 / events.len() as f64);
}

/// An event whose host time, on an exit with a detail, has parts: the host began with it at 10 us.
fn event_with(phases: Phases) -> VmEvent {
    let event = Event {
        entry_ns: 20_000,
        exit_ns: 25_000,
        exit_to_entry_ns: 10_000,
        seq: 2,
        exit_reason: 12,
        flags: Flags::REASON_KNOWN,
        isa: Isa::Vmx as u8,
        previous: Outline::of(32, Flags::REASON_KNOWN, 0, Isa::Vmx as u8),
        previous_detail: RawDetail::new(Source::Msr, 0x6e0),
        phases,
        ..Event::default()
    };
    VmEvent { vm: 0, event }
}

#[test]
fn parts_of_the_host_time_are_nested_slices_and_the_rest_of_it_is_the_kernels() {
    let nested = |phases: Phases| {
        let vm_event = event_with(phases);
        let bytes = trace(&header(), &[vm_event]);
        assert_eq!(unknown_fields(&trace_check::parse(&bytes)), 0);
        let read = read(&bytes);
        assert_eq!(read.unbalanced, 0);
        let (outer, inner): (Vec<_>, Vec<_>) = read.slices.into_iter().partition(|slice| slice.depth == 0);
        let host = outer.iter().find(|slice| slice.name == "host: MSR_WRITE").unwrap();
        assert_eq!((outer.len(), host.begin_ns, host.end_ns), (2, 10_000, 20_000));
        assert_eq!(host.arguments["detail"], "0x6e0 TSC_DEADLINE");
        let mut at_ns = host.begin_ns;
        let mut parts = Vec::new();
        for slice in sorted(inner) {
            assert!(slice.depth == 1 && slice.track == host.track, "{slice:?}");
            assert!(
                at_ns <= slice.begin_ns && slice.end_ns <= host.end_ns,
                "{slice:?} overlaps another, or its host time"
            );
            at_ns = slice.end_ns;
            parts.push((slice.name, slice.end_ns - slice.begin_ns));
        }
        let rest = host.end_ns - host.begin_ns - parts.iter().map(|(_, ns)| ns).sum::<u64>();
        assert_eq!(Some(rest), vm_event.event.kernel_ns());
        parts
    };
    let all = Phases { user_ns: 1_000, idle_ns: 4_000, polled_ns: 300, steal_ns: 2_500 };
    let of = |parts: Vec<(String, u64)>| parts.into_iter().map(|(name, ns)| format!("{name} {ns}")).collect::<Vec<_>>();
    assert_eq!(of(nested(all)), ["polled 300", "idle 4000", "steal 2500", "user 1000"]);
    assert_eq!(of(nested(Phases { idle_ns: 0, polled_ns: 0, ..all })), ["steal 2500", "user 1000"]);
    assert_eq!(of(nested(Phases { user_ns: 10_000, ..Phases::default() })), ["user 10000"]);
    assert_eq!(of(nested(Phases::default())), [""; 0]);
}

#[test]
fn the_official_schema_knows_every_field() {
    let bytes = trace(&header(), &events(30));
    assert_eq!(unknown_fields(&trace_check::parse(&bytes)), 0);
    // The check itself finds a field that belongs to no message.
    let packet_with_field_9999: &[u8] = &[0x0a, 4, 0xf8, 0xf0, 0x04, 1];
    assert_eq!(unknown_fields(&trace_check::parse(packet_with_field_9999)), 1);
}

#[test]
fn the_trace_describes_its_host_its_end_and_the_missing_events() {
    let mut header = header();
    for emulated in [true, false] {
        header.host.emulated = emulated;
        let read = read(&trace(&header, &events(2)));
        let instant = |name: &str| read.instants.iter().find(|i| i.name == name).unwrap();
        let begin = instant("recording begins");
        assert_eq!(begin.begin_ns, header.anchor.monotonic_ns);
        assert_eq!(begin.arguments["kernel"], header.host.kernel);
        assert_eq!(begin.arguments["emulated"].starts_with("yes"), emulated);
        assert!(read.slices.iter().all(|s| s.track[0].contains("emulated") == emulated));
        let end = instant("recording ends");
        assert_eq!((end.arguments["reason"].as_str(), end.number("events")), ("SIGINT", Some(12)));
        assert_eq!((end.number("events_not_written"), end.number("entries_dropped")), (Some(3), Some(5)));
    }
}

#[test]
fn a_trace_cut_at_any_byte_decodes_to_the_beginning_of_the_whole_one() {
    let events = events(500);
    let bytes = trace(&header(), &events);
    assert_eq!(whole_packets(&bytes), bytes.len());
    let packets = trace_check::parse(&bytes).packet;
    let mut cuts: Vec<_> = (0..12).map(|n| bytes.len() / 12 * n + n * 7).collect();
    cuts.extend([0, 1, 2, bytes.len() - 1]);
    for cut in cuts {
        let whole = whole_packets(&bytes[..cut]);
        assert!(cut - whole < 700, "{cut}: more than a packet is lost");
        let found = trace_check::parse(&bytes[..whole]).packet;
        assert!(found == packets[..found.len()], "{cut}");
        let read = read(&bytes[..whole]);
        assert!(read.unbalanced <= 6, "{cut}: at most one slice of each vCPU is open");
    }
}

#[test]
fn an_event_older_than_a_written_one_is_refused_and_counted() {
    let events = events(10);
    let late = events[20];
    let mut bytes = Vec::new();
    let mut trace = Trace::new(&mut bytes, &header()).unwrap();
    assert_eq!(trace.write(events.iter().copied().chain([late]), &vms()).unwrap(), 1);
    assert_eq!(trace.events(), 60);
    trace.finish(0, &Closing::default()).unwrap();
    assert_eq!(read(&bytes).unbalanced, 0);
}

#[test]
fn only_whole_packets_are_written_and_events_of_a_failed_write_are_not_counted() {
    struct Disk(Vec<usize>, usize);
    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            assert_eq!(whole_packets(bytes), bytes.len());
            if self.0.iter().sum::<usize>() + bytes.len() > self.1 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.push(bytes.len());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut disk = Disk(vec![], 2 << 20);
    let mut trace = Trace::new(&mut disk, &header()).unwrap();
    let all = events(4000);
    assert!(trace.write(all.iter().copied(), &vms()).is_err());
    assert!(trace.events() > 0 && trace.events() < all.len() as u64);
    drop(trace);
    assert!(disk.0.len() > 3);
}

fn names_in(folder: &TempDir) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Pushes events as a collector does: CPU by CPU, so that they are out of order within a pass.
fn feed(sink: &mut EventSink, events: &[VmEvent]) {
    // A collector numbers VMs in the order of their first event.
    let mut order: Vec<u32> = Vec::new();
    for pass in events.chunks(1000) {
        for cpu in 0..4 {
            for vm_event in pass.iter().filter(|s| s.event.cpu % 4 == cpu) {
                if !order.contains(&vm_event.vm) {
                    order.push(vm_event.vm);
                }
                let number = order.iter().position(|&v| v == vm_event.vm).unwrap() as u32;
                let vm = Arc::new(Vm { id: number, ..Vm::clone(&vm(vm_event.vm)) });
                sink.push(&vm_event.event, &vm, &Arc::new(Naming::known(vm.tgid, vm.name.clone())));
            }
        }
        sink.end_pass(pass.last().unwrap().event.exit_ns + 1);
        // The thread that writes must be able to keep up.
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn events_of_many_cpus_become_one_trace_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let plan = TracePlan { path: folder.path().join("a.pftrace"), overwrite: false, flight_recorder: None };
    let header = header();
    let (recorder, mut sink) = OpenedTrace::open(plan, &header).unwrap().start().unwrap();
    let events = events(500);
    feed(&mut sink, &events);
    sink.finish();
    let summary = recorder.finish(4, "duration").unwrap();
    let bytes = fs::read(folder.path().join("a.pftrace")).unwrap();
    assert_eq!((summary.written, summary.not_written, summary.failed), (events.len() as u64, 0, false));
    assert_eq!(summary.bytes, bytes.len() as u64);
    let read = read(&bytes);
    assert_eq!(read.unbalanced, 0);
    assert_eq!(read.slices.iter().filter(|s| s.name.starts_with("guest")).count(), events.len());
    assert!(read.slices.iter().all(|s| s.depth == 0 && s.track[0].starts_with("web")));
    let end = read.instants.iter().find(|i| i.name == "recording ends").unwrap();
    assert_eq!((end.number("events_not_written"), end.number("entries_dropped")), (Some(0), Some(4)));
}

fn flight(folder: &TempDir, trigger: &str, span: Duration) -> (EventRecorder, EventSink) {
    let trigger = Trigger(vec![trigger.parse().unwrap()]);
    let plan = TracePlan {
        path: folder.path().join("f.pftrace"),
        overwrite: false,
        flight_recorder: Some(FlightOptions { trigger, span }),
    };
    OpenedTrace::open(plan, &header()).unwrap().start().unwrap()
}

#[test]
fn a_flight_recorder_writes_the_time_before_its_trigger() {
    let folder = tempfile::tempdir().unwrap();
    let mut events = events(500);
    let span = Duration::from_millis(20);
    // The only event with so many pin writes.
    let chosen = events.len() * 3 / 4;
    let exit = events[chosen].event.exit_ns;
    events[chosen].event.pin_writes = 9;
    events[chosen].event.flags |= Flags::PIN_WRITES_KNOWN;
    let (recorder, mut sink) = flight(&folder, "pin_writes>8", span);
    feed(&mut sink, &events);
    sink.finish();
    let summary = recorder.finish(0, "SIGINT").unwrap();
    let wanted = |s: &&VmEvent| {
        let from = exit - span.as_nanos() as u64;
        (from..=exit).contains(&s.event.exit_ns)
    };
    let read = read(&fs::read(folder.path().join("f.pftrace")).unwrap());
    assert_eq!(names_in(&folder), ["f.pftrace"]);
    assert_eq!((summary.matches, summary.traces, summary.cut_short), (1, 1, false));
    assert_eq!(summary.written, events.iter().filter(wanted).count() as u64);
    assert!(summary.written > 20 && summary.written < events.len() as u64);
    assert_eq!(read.slices.iter().filter(|s| s.name.starts_with("guest")).count() as u64, summary.written);
    let end = read.instants.iter().find(|i| i.name == "recording ends").unwrap();
    assert!(end.arguments["reason"].starts_with("trigger: VM web"), "{:?}", end.arguments);
}

#[test]
fn a_trigger_that_never_matches_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let (recorder, mut sink) = flight(&folder, "pin_writes>8", Duration::from_secs(1));
    feed(&mut sink, &events(100));
    sink.finish();
    assert_eq!(recorder.finish(0, "SIGINT").unwrap(), EventSummary::default());
    assert_eq!(names_in(&folder), [""; 0]);
}

#[test]
fn further_traces_are_numbered_limited_in_number_and_do_not_overlap() {
    let folder = tempfile::tempdir().unwrap();
    let span = Duration::from_millis(10);
    let events = events(500);
    let (recorder, mut sink) = flight(&folder, "entry_to_exit_ns<1s", span);
    feed(&mut sink, &events);
    sink.finish();
    let summary = recorder.finish(0, "SIGINT").unwrap();
    assert_eq!((summary.matches, summary.traces), (events.len() as u64, 8));
    assert_eq!(names_in(&folder).len(), 8);
    assert!(names_in(&folder).contains(&"f-8.pftrace".into()));
    let ends: Vec<_> = (1..=8u32)
        .map(|n| {
            let name = if n == 1 { "f.pftrace".into() } else { format!("f-{n}.pftrace") };
            let read = read(&fs::read(folder.path().join(name)).unwrap());
            read.slices.iter().map(|s| s.end_ns).max().unwrap()
        })
        .collect();
    assert!(ends.windows(2).all(|w| w[1] - w[0] >= span.as_nanos() as u64), "{ends:?}");
    // Existing traces are not replaced.
    let again = TracePlan {
        path: folder.path().join("f.pftrace"),
        overwrite: false,
        flight_recorder: Some(FlightOptions { trigger: Trigger(vec!["reason=HLT".parse().unwrap()]), span }),
    };
    let error = OpenedTrace::open(again, &header()).err().unwrap().to_string();
    assert!(error.contains("--overwrite"), "{error}");
}

#[test]
fn a_full_disk_is_an_error_that_names_the_cause() {
    let plan = TracePlan { path: "/dev/full".into(), overwrite: false, flight_recorder: None };
    // The first packets already find no space.
    let error = OpenedTrace::open(plan, &header()).err().unwrap();
    assert!(format!("{error:#}").contains("No space left"), "{error:#}");
}
