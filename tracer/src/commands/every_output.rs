//! The property that no output shows a figure which its host cannot tell, and that each shows what the host can: every subset of the
//! fields that a kernel may lack, of every vendor, with the entries that the programs would deliver there, through every output.

use std::{collections::BTreeMap, sync::Arc};

use ratatui::{Terminal, backend::TestBackend};
use roxmltree::{Document, Node, ParsingOptions};
use serde_json::Value;
use tracer_common::{Event, Flags, Isa};

use super::{args::LinesFormat, live::Lines};
use crate::{
    kernel::{
        btf::Btf,
        layout::{self, made_up},
    },
    model::{
        accounting::Accounting,
        figures::Column,
        interval::{
            Interval,
            tests::{event, vm},
        },
        knowledge::Subject,
        measurement::{Latency, PinSource, Stopwatch, Timer},
        policy::Policy,
        vendor::Vendor,
    },
    output::is_deceptive,
    recording::{End, Header, Provenance, Reader, Writer, tests::header},
    report::{
        Dimension, Report, View,
        claims::{Evidence, claims},
        csv, html, json, openmetrics, text,
    },
    trace::{
        perfetto::{Closing, Trace},
        vm_event::{VmEvent, Vms},
    },
    tui::{App, Colors, Info, Origin, Palette, keys::Action, view},
};

/// Fields of kvm_intel that a kernel may lack; [`STATISTICS`] is kvm's.
const VMX: [&str; 7] = [
    "vcpu_vmx.exit_reason",
    "vcpu_vmx.loaded_vmcs",
    "vcpu_vmx.vmcs01",
    "loaded_vmcs.controls_shadow.pin",
    "loaded_vmcs.hv_timer_soft_disabled",
    "vcpu_vmx.req_immediate_exit",
    "vcpu_vmx.hv_deadline_tsc",
];
const SVM: [&str; 2] = ["vcpu_svm.vmcb", "vmcb.control.exit_code"];
/// Fields of the kernel that both vendors need.
const HOST_TIME: [&str; 5] = [
    "kvm_vcpu.stat.generic.halt_poll_success_ns",
    "kvm_vcpu.stat.generic.halt_poll_fail_ns",
    "kvm_vcpu.stat.generic.halt_wait_ns",
    "task_struct.sched_info.run_delay",
    "kvm_userspace_exit",
];
const STATISTICS: &str = "kvm_vcpu.stat.guest_mode";

/// A host.
#[derive(Clone, Debug)]
struct Shape {
    vendor: Vendor,
    lacks: Vec<&'static str>,
    stopwatch: bool,
    latency: Latency,
}

/// What a host can tell, or what an output shows; an output that never shows a subject has no value of it.
type Tells = BTreeMap<Subject, bool>;

impl Shape {
    fn has(&self, field: &str) -> bool {
        !self.lacks.contains(&field)
    }

    /// What the programs can read on this host: written down here once more, from the programs, not from the code under test.
    fn truth(&self) -> Tells {
        let vmx = self.vendor == Vendor::Intel;
        let has = |field| vmx && self.has(field);
        let reason = match self.vendor {
            Vendor::Intel => self.has(VMX[0]),
            Vendor::Amd => SVM.iter().all(|field| self.has(field)),
            Vendor::Other => false,
        };
        let loaded = has("vcpu_vmx.loaded_vmcs");
        let level = loaded && has("vcpu_vmx.vmcs01") || self.has(STATISTICS);
        let shadow = loaded && has("loaded_vmcs.controls_shadow.pin");
        let soft = loaded && has("loaded_vmcs.hv_timer_soft_disabled");
        let cause = vmx && reason && soft && has("vcpu_vmx.req_immediate_exit");
        let times = self.latency != Latency::Disturbed;
        BTreeMap::from([
            (Subject::ExitReason, reason),
            (Subject::Level, level),
            (Subject::PinWrites, shadow && level),
            (Subject::TimerExits, vmx && reason),
            (Subject::TimerCause, cause),
            (Subject::Deadline, cause && has("vcpu_vmx.hv_deadline_tsc")),
            (Subject::Lateness, cause && has("vcpu_vmx.hv_deadline_tsc") && times),
            (Subject::Transition, (self.stopwatch || cause) && times),
            (Subject::Times, times),
            (Subject::Policy, has("loaded_vmcs.hv_timer_soft_disabled")),
        ])
    }

    /// What a recorder on this host writes first; an earlier one did not write what it could not know.
    fn header(&self, earlier: bool) -> Header {
        let truth = self.truth();
        let mut header = header();
        header.host.vendor = Some(self.vendor);
        header.missing = self.lacks.iter().map(|field| format!("{field}: something n/a")).collect();
        header.policy = if truth[&Subject::Policy] { Policy::Soft } else { Policy::Unknown };
        header.pin_writes_source = match self.vendor == Vendor::Intel && truth[&Subject::PinWrites] {
            true => PinSource::Shadow,
            false => PinSource::None,
        };
        header.stopwatch = self.stopwatch.then_some(Stopwatch { rate: Some(5), tsc_khz: 2_400_000 });
        header.latency = self.latency;
        header.unknown = (!earlier).then(|| header.knowledge().to_file());
        header
    }

    /// An event as the programs deliver it here, of one with everything known.
    fn deliver(&self, whole: Event) -> Event {
        let truth = self.truth();
        let (isa, code) = match self.vendor {
            Vendor::Intel => (Isa::Vmx, whole.exit_reason),
            Vendor::Amd => (Isa::Svm, 0x72),
            Vendor::Other => (Isa::Other, 0),
        };
        let reason = truth[&Subject::ExitReason];
        let is_timer = isa == Isa::Vmx && reason && code == 52;
        let soft = self.has("vcpu_vmx.loaded_vmcs") && self.has("loaded_vmcs.hv_timer_soft_disabled");
        let kept = [
            (truth[&Subject::Level], Flags::LEVEL_KNOWN | Flags::L2),
            (reason, Flags::REASON_KNOWN),
            (truth[&Subject::PinWrites], Flags::PIN_READ | Flags::SHADOW_KNOWN | Flags::PIN_WRITES_KNOWN),
            (is_timer && soft, Flags::SOFT_KNOWN | Flags::SOFT_DISABLED),
            (isa == Isa::Vmx && self.has("vcpu_vmx.req_immediate_exit"), Flags::IMMEDIATE_KNOWN | Flags::IMMEDIATE),
            (self.stopwatch, Flags::TRANSITION_KNOWN),
            (truth[&Subject::Deadline] && is_timer, Flags::DEADLINE_READ | Flags::EARLY),
        ];
        let mask = kept.into_iter().filter(|(is_kept, _)| *is_kept).fold(Flags::NONE, |all, (_, flags)| all | flags);
        let mut event = Event {
            flags: Flags(whole.flags.0 & mask.0),
            exit_reason: if reason { code } else { 0 },
            isa: isa as u8,
            pin_writes: if truth[&Subject::PinWrites] { whole.pin_writes } else { 0 },
            transition_ns: 300,
            late_ns: whole.late_ns.filter(|_| truth[&Subject::Deadline] && is_timer),
            ..whole
        };
        event.previous = event.outline();
        event
    }

    fn events(&self) -> Vec<Event> {
        let timer = |ns, writes, more: Flags| {
            let e = event(0, 52, ns, writes);
            Event { flags: e.flags | more, ..e }
        };
        let mut whole: Vec<_> = (0..50).map(|n| event(0, 10, 4_000 + n, u8::from(n % 4 == 0))).collect();
        whole.extend((0..80).map(|n| timer(700 + n, u8::from(n % 2 == 0), Flags::IMMEDIATE)));
        let late = |late_ns, e: Event| Event { late_ns: Some(late_ns), ..e };
        whole.extend((0..7).map(|n| late(2_000, timer(90_000 + n, 0, Flags::DEADLINE_READ))));
        let early = Flags::DEADLINE_READ | Flags::EARLY;
        whole.extend((0..5).map(|n| late(-171_800_000_000, timer(80_000 + n, 0, early))));
        whole.extend((0..3).map(|n| timer(60_000_000 + n, 0, Flags::SOFT_DISABLED)));
        let whole =
            whole.into_iter().map(|e| Event { flags: e.flags | Flags::SHADOW_KNOWN | Flags::TRANSITION_KNOWN, ..e });
        whole.map(|e| self.deliver(e)).collect()
    }
}

/// Every subset of a vendor's fields, each with and without the stopwatch and with disturbed times.
fn shapes() -> Vec<Shape> {
    let fields = |vendor| match vendor {
        Vendor::Intel => [&VMX[..], &[STATISTICS]].concat(),
        Vendor::Amd => [&SVM[..], &[STATISTICS]].concat(),
        Vendor::Other => vec![STATISTICS],
    };
    let mut shapes = Vec::new();
    for vendor in [Vendor::Intel, Vendor::Amd, Vendor::Other] {
        let fields = fields(vendor);
        for subset in 0..1usize << fields.len() {
            let lacks: Vec<_> = (0..fields.len()).filter(|at| subset >> at & 1 == 1).map(|at| fields[at]).collect();
            let variant = subset.count_ones();
            let latency = if variant % 4 == 3 { Latency::Disturbed } else { Latency::Clean };
            let stopwatch = vendor == Vendor::Intel && subset % 3 == 1;
            shapes.push(Shape { vendor, lacks, stopwatch, latency });
        }
    }
    shapes
}

/// The entries of a host, ready for every output.
struct Recorded {
    header: Header,
    events: Vec<Event>,
    interval: Interval,
}

impl Recorded {
    fn on(shape: &Shape, earlier: bool) -> Self {
        let events = shape.events();
        let mut interval = Interval { length_ns: 1_000_000_000, ..Interval::default() };
        events.iter().for_each(|e| interval.record(e, &vm(0)));
        (interval.totals.entries, interval.totals.delivered) = (events.len() as u64, events.len() as u64);
        Self { header: shape.header(earlier), events, interval }
    }

    fn report(&self) -> Report {
        let mut report =
            Report { sources: vec![Provenance::unread("a.hlog".into(), self.header.clone())], ..Report::default() };
        report.timeline.add(0, 0, &self.interval);
        report.add(0, self.interval.clone(), &mut BTreeMap::new());
        report
    }
}

fn every_row() -> View {
    let by = vec![Dimension::Vm, Dimension::Level, Dimension::Reason, Dimension::Entry, Dimension::Cause];
    View { by, filters: vec![], sort: Column::Entries, top: None }
}

/// The word that follows a phrase; a figure is shown where it is a number.
fn shows_after(text: &str, phrase: &str) -> bool {
    let rest = text.split_once(phrase).map(|(_, rest)| rest.trim_start());
    rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

fn of_text(recorded: &Recorded) -> Tells {
    let text = text::render(&recorded.report(), &every_row());
    let has_word = |word: &str| text.lines().any(|line| line.split_whitespace().any(|w| w == word));
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or_default();
    let exits = line("timer exits");
    Tells::from([
        (Subject::ExitReason, has_word("CPUID")),
        (Subject::Level, has_word("L1")),
        (Subject::PinWrites, shows_after(&text, "\npin writes  ")),
        (Subject::TimerExits, shows_after(exits, "spurious") || shows_after(exits, "unknown")),
        (Subject::TimerCause, ["deadline", "immediate", "spurious"].iter().all(|cause| shows_after(exits, cause))),
        (Subject::Deadline, shows_after(exits, "early")),
        (Subject::Lateness, shows_after(&text, "(deadline_late_ns):") && text.contains("remaining: least 17")),
        (Subject::Transition, shows_after(&text, "(transition_ns):")),
        (Subject::Times, text.contains("- HOST TIME -") && text.contains("- GUEST TIME -")),
        (Subject::Policy, line("policy").contains(" soft;")),
    ])
}

fn of_json(recorded: &Recorded) -> Tells {
    let json = json::render(&recorded.report(), &every_row(), None);
    let series = json["series"].as_array().unwrap();
    let any = |name: &str| series.iter().any(|s| !s[name].is_null() && s[name] != "unknown");
    let exits = &json["totals"]["timer_exits"];
    assert_eq!(any("pin_writes"), !json["totals"]["pin_writes"].is_null());
    Tells::from([
        (Subject::ExitReason, any("exit_reason")),
        (Subject::Level, any("level")),
        (Subject::PinWrites, any("pin_writes")),
        (Subject::TimerExits, !exits["unknown"].is_null()),
        (Subject::TimerCause, ["deadline", "immediate", "spurious"].iter().all(|cause| !exits[cause].is_null())),
        (Subject::Deadline, !exits["early"].is_null()),
        (Subject::Lateness, any("deadline_late_ns") && any("deadline_remaining_ns")),
        (Subject::Transition, any("transition_ns")),
        (Subject::Times, any("entry_to_exit_ns") && any("exit_to_entry_ns")),
        (Subject::Policy, json["policy"] == "soft"),
    ])
}

fn of_csv(recorded: &Recorded) -> Tells {
    let csv = csv::render(&recorded.report(), &every_row());
    let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    let any = |name: &str| {
        let at = lines[0].iter().position(|title| *title == name).unwrap();
        lines[1..].iter().any(|line| !line[at].is_empty() && line[at] != "unknown")
    };
    Tells::from([
        (Subject::ExitReason, any("exit_reason")),
        (Subject::Level, any("level")),
        (Subject::PinWrites, any("pin_writes_mean")),
        // That the timer was soft-disabled may be read where that KVM forced an exit is not: then spurious exits are named.
        (Subject::TimerCause, csv.contains(",deadline,") && csv.contains(",immediate,")),
        (Subject::Deadline, csv.contains(",early,")),
        (Subject::Lateness, any("deadline_late_ns_p50") && any("deadline_remaining_ns_min")),
        (Subject::Transition, any("transition_ns_p50")),
        (Subject::Times, any("entry_to_exit_ns_p99") && any("exit_to_entry_ns_p99")),
    ])
}

fn of_html(recorded: &Recorded) -> Tells {
    let html = html::render(&recorded.report(), &every_row());
    let options = ParsingOptions { allow_dtd: true, ..Default::default() };
    let page = Document::parse_with_options(&html, options).unwrap();
    let text =
        |node: Node<'_, '_>| node.descendants().filter(Node::is_text).filter_map(|t| t.text()).collect::<String>();
    let cells = || page.descendants().filter(|n| n.has_tag_name("td") || n.has_tag_name("th") || n.has_tag_name("dt"));
    let after = |name: &str| {
        let cell = cells().find(|cell| text(*cell) == name).and_then(|cell| cell.next_sibling_element()).unwrap();
        let value = text(cell);
        let is_explained = cell.descendants().any(|n| n.attribute("title").is_some());
        assert_eq!(value == "n/a", is_explained, "{name}: {value} has a reason where it is n/a");
        value != "n/a"
    };
    let any = |value: &str| cells().any(|cell| text(cell) == value);
    assert_eq!(after("pin writes"), after("pin writes per entry"));
    assert_eq!(after("spurious timer exits"), after("timer exits: spurious"));
    Tells::from([
        (Subject::ExitReason, any("CPUID")),
        (Subject::Level, any("L1")),
        (Subject::PinWrites, after("pin writes")),
        (
            Subject::TimerCause,
            ["deadline", "immediate", "spurious"].iter().all(|c| after(&format!("timer exits: {c}"))),
        ),
        (Subject::Deadline, after("timer exits: early")),
        (Subject::Lateness, html.contains("rows-deadline_late_ns") && html.contains("rows-deadline_remaining_ns")),
        (Subject::Transition, html.contains("rows-transition_ns")),
        (Subject::Times, after("guest time, median")),
        (Subject::Policy, any("soft")),
    ])
}

fn of_openmetrics(recorded: &Recorded) -> Tells {
    let metrics = openmetrics::render(&recorded.report(), &every_row());
    let has = |sample: &str| metrics.lines().any(|line| !line.starts_with('#') && line.contains(sample));
    Tells::from([
        (Subject::Level, has("level=\"L1\"")),
        (Subject::PinWrites, has("vmentry_pin_writes_total{")),
        (Subject::TimerExits, has("vmentry_timer_exits_total{")),
        (Subject::TimerCause, ["deadline", "immediate", "spurious"].iter().all(|c| has(&format!("cause=\"{c}\"")))),
        (Subject::Deadline, has("cause=\"early\"")),
        (Subject::Times, has("_seconds_bucket{")),
        (Subject::Policy, has("vmentry_policy{policy=\"soft\"} 1")),
    ])
}

/// Claims: of the ratio of transitions, which needs pin writes, too; of pin writes under the soft policy; of spurious exits.
fn of_claims(recorded: &Recorded) -> [bool; 3] {
    let report = recorded.report();
    let by_policy = BTreeMap::from([(report.sources[0].policy(), recorded.report())]);
    let found = claims(&Evidence { whole: report, by_policy });
    [0, 3, 5].map(|at| found[at].measured.is_some())
}

/// The lines of the live screen.
fn screen(recorded: &Recorded) -> Vec<String> {
    let info = Info::of(&recorded.header, None, Origin::Live);
    let mut app = App::new(info, Palette { color: Colors::None, ascii: true });
    app.push(recorded.interval.clone());
    app.act(Action::Detail);
    let Ok(mut terminal) = Terminal::new(TestBackend::new(260, 60));
    let Ok(_) = terminal.draw(|frame| view::draw(frame, &mut app));
    let buffer = terminal.backend().buffer();
    (0..60).map(|y| (0..260).map(|x| buffer[(x, y)].symbol()).collect()).collect()
}

fn of_screen(recorded: &Recorded) -> (Tells, bool) {
    let lines = screen(recorded);
    let titles = lines.iter().position(|line| line.contains("EXITS/S")).unwrap();
    let (groups, row) = (&lines[titles - 1], &lines[titles + 1]);
    // A column without known values is not there.
    let value = |end: usize| row[..end].rsplit(' ').next().unwrap().starts_with(|c: char| c.is_ascii_digit());
    let shows = |title: &str| lines[titles].find(title).is_some_and(|at| value(at + title.len()));
    let last = |title: &str| value(lines[titles].rfind(title).unwrap() + title.len());
    assert_eq!((shows("PIN/E"), shows("DEADLINE"), shows("IMMEDIATE")), {
        (shows("DIRTY%"), shows("SPURIOUS"), shows("SPURIOUS"))
    });
    let screen = lines.join("\n");
    let tells = Tells::from([
        (Subject::ExitReason, screen.contains("CPUID")),
        (Subject::PinWrites, shows("PIN/E")),
        (Subject::TimerCause, shows("SPURIOUS")),
        (Subject::Transition, groups.contains("transition") && last("P50")),
        (Subject::Times, shows("TIME%") && shows("P50")),
        (Subject::Policy, screen.contains("policy soft")),
    ]);
    (tells, screen.contains("n/a here"))
}

fn of_line(recorded: &Recorded) -> Tells {
    let line = |format| Lines::new(format, None, &recorded.header).line(&recorded.interval);
    let text = line(LinesFormat::Text);
    let (heading, values) = text.split_once('\n').unwrap();
    let shows = |title: &str| {
        let value = &values[..heading.find(title).unwrap() + title.len()];
        value.rsplit(' ').next().unwrap().starts_with(|c: char| c.is_ascii_digit())
    };
    let json: Value = serde_json::from_str(&line(LinesFormat::Jsonl)).unwrap();
    let tells = Tells::from([
        (Subject::Level, shows("L2/S")),
        (Subject::PinWrites, shows("PIN/E")),
        (Subject::Times, shows("GUEST P50")),
    ]);
    for (subject, field) in
        [(Subject::Level, "l2_entries"), (Subject::PinWrites, "pin_writes"), (Subject::Times, "entry_to_exit_ns")]
    {
        assert_eq!(!json[field].is_null(), tells[&subject], "{field}: {text} {json}");
    }
    tells
}

/// The bytes of a Perfetto trace.
fn trace(recorded: &Recorded) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut trace = Trace::new(&mut bytes, &recorded.header).unwrap();
    let mut at = 1_000_000_000;
    let events = recorded.events.iter().map(|e| {
        let guest = e.entry_to_exit_ns();
        let (entry_ns, exit_ns) = (at + 10_000, at + 10_000 + guest);
        at = exit_ns;
        VmEvent { vm: 0, event: Event { entry_ns, exit_ns, ..*e } }
    });
    let vms: Vms = recorded.interval.vms.iter().map(|(id, vm)| (*id, Arc::clone(vm))).collect();
    trace.write(events.collect::<Vec<_>>(), &vms).unwrap();
    trace.finish(at, &Closing::default()).unwrap();
    bytes
}

fn of_trace(recorded: &Recorded) -> Tells {
    let bytes = trace(recorded);
    let has = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    Tells::from([
        (Subject::ExitReason, has("CPUID")),
        (Subject::Level, has("guest L1")),
        (Subject::PinWrites, has("pin writes")),
        // Texts with their length before them; a missing field's name has these words, too.
        (Subject::TimerCause, has("\u{8}deadline") && has("\u{9}immediate")),
        (Subject::Deadline, has("\u{5}early")),
        (Subject::Policy, has("\u{4}soft")),
    ])
}

#[test]
fn the_screen_and_a_trace_show_a_hostile_recording_without_what_is_hostile() {
    const HOSTILE: &str = "web\u{1b}]0;x\u{7}\r\n\u{202e}\u{200b}";
    let shape = Shape { vendor: Vendor::Intel, lacks: vec![], stopwatch: false, latency: Latency::Clean };
    let mut recorded = Recorded::on(&shape, false);
    let header = &mut recorded.header;
    header.label = Some(HOSTILE.into());
    (header.host.name, header.host.kernel, header.host.cpu) = (HOSTILE.into(), HOSTILE.into(), HOSTILE.into());
    header.host.virtualized = Some(HOSTILE.into());
    recorded.interval.vms.values_mut().for_each(|vm| Arc::make_mut(vm).name = HOSTILE.into());
    let mut bytes = Vec::new();
    Writer::new(&mut bytes, header).unwrap().write(&recorded.interval).unwrap();
    let mut reader = Reader::new(bytes.as_slice()).unwrap();
    recorded.interval = reader.read_joined().unwrap().unwrap();
    recorded.header = reader.header().clone();
    let lines = screen(&recorded);
    assert!(lines.iter().any(|line| line.contains("web?]0;x?????~")), "{lines:#?}");
    assert!(!lines.concat().contains(is_deceptive), "{lines:#?}");
    let trace = trace(&recorded);
    let has = |text: &[u8]| trace.windows(text.len()).any(|part| part == text);
    assert!(has("web\u{fffd}]0;x".as_bytes()) && !has(b"\x1b]0") && !has("\u{202e}".as_bytes()));
}

#[test]
fn no_output_shows_what_its_host_cannot_tell_and_each_shows_what_it_can() {
    for (n, shape) in shapes().into_iter().enumerate() {
        let truth = shape.truth();
        let recorded = Recorded::on(&shape, n % 2 == 0);
        let check = |output: &str, shown: Tells| {
            for (subject, is_shown) in shown {
                assert_eq!(is_shown, truth[&subject], "{output}: {subject:?} on {shape:?}");
            }
        };
        check("text", of_text(&recorded));
        check("JSON", of_json(&recorded));
        check("CSV", of_csv(&recorded));
        check("HTML", of_html(&recorded));
        check("OpenMetrics", of_openmetrics(&recorded));
        check("line", of_line(&recorded));
        check("trace", of_trace(&recorded));
        let (screen, says_which) = of_screen(&recorded);
        check("screen", screen);
        assert_eq!(says_which, truth.values().any(|known| !known), "the screen's header on {shape:?}");
        let [transitions, writes, exits] = of_claims(&recorded);
        let knows = |subjects: &[Subject]| subjects.iter().all(|s| truth[s]);
        assert_eq!(transitions, knows(&[Subject::Transition, Subject::PinWrites]), "claim 1 on {shape:?}");
        assert_eq!(writes, knows(&[Subject::Policy, Subject::PinWrites]), "claim 4 on {shape:?}");
        assert_eq!(exits, truth[&Subject::TimerCause] && !shape.stopwatch, "the claim on spurious exits on {shape:?}");
        let unknown: Value = json::render(&recorded.report(), &every_row(), None)["unknown"].clone();
        let may_be_disturbed = [Subject::Transition, Subject::Lateness];
        let named = truth.iter().filter(|(s, known)| !**known && !may_be_disturbed.contains(s));
        named.for_each(|(s, _)| assert!(unknown[s.name()].is_string(), "JSON names {s:?} on {shape:?}: {unknown}"));
    }
}

#[test]
fn every_field_that_a_kernel_may_lack_is_one_of_the_test() {
    for (vendor, fields) in [(Vendor::Intel, &VMX[..]), (Vendor::Amd, &SVM[..])] {
        // Without the vendor's structures, all its fields are missing.
        let (kernel, _) = made_up::btf(vendor);
        let kernel = Btf::parse(&kernel, None).unwrap();
        let missing = layout::resolve(&kernel, vendor, &kernel).unwrap().missing;
        assert!(!missing.is_empty());
        for missing in missing {
            let field = missing.field.as_str();
            assert!(fields.contains(&field) || HOST_TIME.contains(&field), "{}: what depends on it?", missing.field);
        }
    }
}

#[test]
fn the_longest_timer_delay_is_the_same_in_every_output() {
    let shape = Shape { vendor: Vendor::Intel, lacks: vec![], stopwatch: false, latency: Latency::Clean };
    let mut recorded = Recorded::on(&shape, true);
    // KVM was not asked for its TSC frequency; the recording measured it.
    recorded.header.timer = Some(Timer { used: Some(true), rate: Some(0), tsc_khz: None, max_delay_s: None });
    let accounting = Accounting::default();
    let end = End {
        reason: "duration".into(),
        accounting,
        tsc_khz: Some(100_000),
        policy_changed: false,
        other_tracers: None,
    };
    let mut report = recorded.report();
    report.sources[0].end = Some(end.clone());
    let delay = json::render(&report, &every_row(), None)["recordings"][0]["longest_timer_delay_s"].as_f64().unwrap();
    assert!((delay - 42.949).abs() < 0.001, "{delay}");
    assert!(html::render(&report, &every_row()).contains("42.9 s"));
    assert_eq!(Info::of(&recorded.header, Some(&end), Origin::Live).max_delay_s, Some(delay));
    let found = claims(&Evidence { whole: report, ..Evidence::default() });
    assert_eq!(found[6].measured.as_deref(), Some("42.9 s, and KVM uses it"));
}
