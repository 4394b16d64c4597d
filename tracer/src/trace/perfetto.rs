//! Single events as a Perfetto trace: a track per VM, below it one per vCPU with a slice for each stretch of guest and of host.
//! Append-only: what was written before a crash is a trace of whole packets.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Write},
    sync::Arc,
};

use prost::Message as _;
use tracer_common::{Event, Isa, rules::TimerCause};

use crate::{
    model::{exit_reasons, interval::Vm},
    recording::Header,
    trace::proto::{
        Clock, ClockSnapshot, DebugAnnotation, EXPLICIT, INCREMENTAL_STATE_CLEARED, INSTANT, InternedData,
        InternedName, MONOTONIC, NEEDS_INCREMENTAL_STATE, REALTIME, SINCE_LAST_PACKET, SLICE_BEGIN, SLICE_END,
        SystemInfo, TracePacket, TracePacketDefaults, TrackDescriptor, TrackEvent, TrackEventDefaults, Utsname,
    },
};

/// Tracks remembered; beyond, the memory starts anew and a vCPU may get a second track.
const MAX_TRACKS: usize = 65_536;
/// Names interned for one track; those beyond are written out.
const MAX_NAMES: usize = 1024;
/// Packets are handed on when they are this many bytes.
const CHUNK_BYTES: usize = 1 << 18;
/// The track and sequence of what concerns the whole trace.
const WHOLE: u32 = 1;

/// Arguments of slices; their place, from 1, is their number in the file.
const ARGUMENTS: [&str; 9] =
    ["exit_reason", "exit_reason_code", "pin_writes", "dirty", "cause", "cpu", "tid", "seq", "transition_ns"];

/// One event, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// [`Vm::id`]
    pub vm: u32,
    /// the event
    pub event: Event,
}

/// VMs by number, as far as they were introduced.
pub type Vms = BTreeMap<u32, Arc<Vm>>;

/// What a trace ends with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closing {
    /// why it ended, e.g. "SIGINT"; for a flight recorder's the event that was waited for
    pub reason: String,
    /// events that arrived and are in no trace: the disk or the writer was too slow, or they came out of order
    pub not_written: u64,
    /// entries whose record found its ring full; none where that is not known yet
    pub dropped: Option<u64>,
}

/// Writes a trace.
pub struct Trace<W: Write> {
    out: W,
    buffer: Vec<u8>,
    vms: HashMap<u32, u64>,
    vcpus: HashMap<(u32, u32), Track>,
    last_uuid: u64,
    emulated: bool,
    /// in `buffer`
    pending: u64,
    events: u64,
    bytes: u64,
}

impl<W: Write> Trace<W> {
    /// Begins a trace of what `header` describes.
    pub fn new(out: W, header: &Header) -> io::Result<Self> {
        let mut trace = Self {
            out,
            buffer: Vec::new(),
            vms: HashMap::new(),
            vcpus: HashMap::new(),
            last_uuid: u64::from(WHOLE),
            emulated: header.host.emulated,
            pending: 0,
            events: 0,
            bytes: 0,
        };
        let clock = |id, timestamp| Clock { clock_id: Some(id), timestamp: Some(timestamp), ..Clock::default() };
        trace.packet(TracePacket {
            clock_snapshot: Some(ClockSnapshot {
                clocks: vec![clock(MONOTONIC, header.anchor.monotonic_ns), clock(REALTIME, header.anchor.unix_ns)],
                primary_trace_clock: Some(MONOTONIC as i32),
            }),
            first_packet_on_sequence: Some(true),
            sequence_flags: Some(INCREMENTAL_STATE_CLEARED),
            ..on(WHOLE)
        });
        let text = |s: &str| Some(s.to_owned());
        trace.packet(TracePacket {
            system_info: Some(SystemInfo {
                utsname: Some(Utsname {
                    sysname: text("Linux"),
                    release: text(&header.host.kernel),
                    machine: text(std::env::consts::ARCH),
                }),
            }),
            ..on(WHOLE)
        });
        let name = format!("{} on {}{}", header.tool, header.host.name, trace.mark());
        trace.packet(TracePacket {
            track_descriptor: Some(TrackDescriptor {
                uuid: Some(WHOLE.into()),
                name: Some(name),
                ..TrackDescriptor::default()
            }),
            ..on(WHOLE)
        });
        let emulated = if trace.emulated { "yes: times mean nothing" } else { "no" };
        let mut facts = vec![
            written("tool", &header.tool),
            written("host", &header.host.name),
            written("kernel", &header.host.kernel),
            written("cpu", &header.host.cpu),
            written("emulated", emulated),
            written("policy", header.policy.name()),
            written("pin_writes_source", header.pin_writes_source.name()),
            written("command", &header.command.join(" ")),
        ];
        facts.extend(header.label.as_deref().map(|label| written("label", label)));
        trace.moment(header.anchor.monotonic_ns, "recording begins", facts);
        trace.hand_on()?;
        Ok(trace)
    }

    /// Appends events, which must be ordered by `exit_ns`; how many of them it refused, because an event of the same vCPU that lay
    /// later in time was written before.
    pub fn write(&mut self, events: impl IntoIterator<Item = Seen>, vms: &Vms) -> io::Result<u64> {
        let mut refused = 0;
        for seen in events {
            if self.vcpus.len() >= MAX_TRACKS && !self.vcpus.contains_key(&(seen.vm, seen.event.vcpu)) {
                self.vcpus.clear();
                self.vms.clear();
            }
            if self.event(&seen, vms) {
                self.pending += 1;
            } else {
                refused += 1;
            }
            if self.buffer.len() >= CHUNK_BYTES {
                self.hand_on()?;
            }
        }
        self.hand_on()?;
        Ok(refused)
    }

    /// Completes the trace, of how many bytes; `now_ns` is CLOCK_MONOTONIC.
    pub fn finish(mut self, now_ns: u64, closing: &Closing) -> io::Result<u64> {
        let count = |name: &str, n: u64| DebugAnnotation { uint_value: Some(n), ..named(name) };
        let mut facts = vec![
            written("reason", &closing.reason),
            count("events", self.events),
            count("events_not_written", closing.not_written),
        ];
        facts.extend(closing.dropped.map(|n| count("entries_dropped", n)));
        self.moment(now_ns, "recording ends", facts);
        self.hand_on()?;
        Ok(self.bytes)
    }

    /// Events handed on.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Bytes handed on.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn mark(&self) -> &'static str {
        if self.emulated { " (emulated)" } else { "" }
    }

    /// Whole packets only, so that a recorder that is killed between two of them leaves a trace.
    fn hand_on(&mut self) -> io::Result<()> {
        self.out.write_all(&self.buffer)?;
        self.out.flush()?;
        self.bytes += self.buffer.len() as u64;
        self.events += std::mem::take(&mut self.pending);
        self.buffer.clear();
        Ok(())
    }

    fn packet(&mut self, packet: TracePacket) {
        append(&mut self.buffer, &packet);
    }

    fn moment(&mut self, at_ns: u64, name: &str, debug_annotations: Vec<DebugAnnotation>) {
        self.packet(TracePacket {
            timestamp: Some(at_ns),
            timestamp_clock_id: Some(MONOTONIC),
            track_event: Some(TrackEvent {
                kind: Some(INSTANT),
                name: Some(name.into()),
                track_uuid: Some(WHOLE.into()),
                debug_annotations,
                ..TrackEvent::default()
            }),
            ..on(WHOLE)
        });
    }

    fn next_uuid(&mut self) -> u64 {
        self.last_uuid += 1;
        self.last_uuid
    }

    /// The VM's track, introduced when it is new.
    fn vm(&mut self, id: u32, vms: &Vms) -> u64 {
        if let Some(&uuid) = self.vms.get(&id) {
            return uuid;
        }
        let uuid = self.next_uuid();
        self.vms.insert(id, uuid);
        let name = vms.get(&id).map_or_else(
            || format!("vm-{id}"),
            |vm| {
                let ordinal = if vm.ordinal > 0 { format!("#{}", vm.ordinal) } else { String::new() };
                format!("{} [{}]{ordinal}", vm.name, vm.tgid)
            },
        );
        let name = name + self.mark();
        self.packet(TracePacket {
            track_descriptor: Some(TrackDescriptor {
                uuid: Some(uuid),
                name: Some(name),
                child_ordering: Some(EXPLICIT),
                ..TrackDescriptor::default()
            }),
            ..on(WHOLE)
        });
        uuid
    }

    fn event(&mut self, seen: &Seen, vms: &Vms) -> bool {
        let Seen { vm, event } = *seen;
        let host_ns = (event.exit_to_entry_ns != Event::UNKNOWN_NS)
            .then(|| event.entry_ns.checked_sub(event.exit_to_entry_ns))
            .flatten();
        let begin_ns = host_ns.unwrap_or(event.entry_ns);
        let key = (vm, event.vcpu);
        let mut track = match self.vcpus.remove(&key) {
            Some(track) => track,
            None => {
                let parent = self.vm(vm, vms);
                let uuid = self.next_uuid();
                Track::begin(&mut self.buffer, uuid, parent, event.vcpu, begin_ns)
            }
        };
        let fits = begin_ns >= track.last_ns;
        if fits {
            track.event(&mut self.buffer, &event, host_ns);
        }
        self.vcpus.insert(key, track);
        fits
    }
}

/// A vCPU's track. It is a packet sequence of its own: its clock counts from packet to packet, which must not go back.
struct Track {
    sequence: u32,
    last_ns: u64,
    names: HashMap<Name, u64>,
    texts: HashMap<Text, u64>,
}

/// Names of slices and moments.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Name {
    /// true for L2
    Guest(Option<bool>),
    Host(Isa, Option<u32>),
    PinWrites,
}

/// Values of arguments that are text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Text {
    Reason(Isa, Option<u32>),
    Cause(TimerCause),
}

/// Name of an exit reason as reports have it.
pub fn reason_name(isa: Isa, reason: Option<u32>) -> String {
    reason.map_or_else(|| "unknown".into(), |r| exit_reasons::name(isa as u32, r).into_owned())
}

impl Name {
    fn text(self) -> String {
        match self {
            Self::Guest(None) => "guest".into(),
            Self::Guest(Some(false)) => "guest L1".into(),
            Self::Guest(Some(true)) => "guest L2".into(),
            Self::Host(isa, reason) => format!("host: {}", reason_name(isa, reason)),
            Self::PinWrites => "pin writes".into(),
        }
    }
}

impl Text {
    fn text(self) -> String {
        match self {
            Self::Reason(isa, reason) => reason_name(isa, reason),
            Self::Cause(cause) => cause.name().into(),
        }
    }
}

impl Track {
    fn begin(buffer: &mut Vec<u8>, uuid: u64, parent: u64, vcpu: u32, at_ns: u64) -> Self {
        let track = Self { sequence: uuid as u32, last_ns: at_ns, names: HashMap::new(), texts: HashMap::new() };
        let arguments = ARGUMENTS.iter().zip(1..).map(|(name, iid)| interned(iid, (*name).into()));
        let clocks = vec![
            Clock { clock_id: Some(MONOTONIC), timestamp: Some(at_ns), ..Clock::default() },
            Clock {
                clock_id: Some(SINCE_LAST_PACKET),
                timestamp: Some(at_ns),
                is_incremental: Some(true),
                unit_multiplier_ns: None,
            },
        ];
        append(
            buffer,
            &TracePacket {
                first_packet_on_sequence: Some(true),
                sequence_flags: Some(INCREMENTAL_STATE_CLEARED),
                clock_snapshot: Some(ClockSnapshot { clocks, primary_trace_clock: None }),
                trace_packet_defaults: Some(TracePacketDefaults {
                    timestamp_clock_id: Some(SINCE_LAST_PACKET),
                    track_event_defaults: Some(TrackEventDefaults { track_uuid: Some(uuid) }),
                }),
                interned_data: Some(InternedData {
                    debug_annotation_names: arguments.collect(),
                    ..InternedData::default()
                }),
                ..on(track.sequence)
            },
        );
        let descriptor = TrackDescriptor {
            uuid: Some(uuid),
            parent_uuid: Some(parent),
            name: Some(format!("vCPU {vcpu}")),
            sibling_order_rank: i32::try_from(vcpu).ok(),
            ..TrackDescriptor::default()
        };
        append(buffer, &TracePacket { track_descriptor: Some(descriptor), ..on(track.sequence) });
        track
    }

    fn event(&mut self, buffer: &mut Vec<u8>, event: &Event, host_ns: Option<u64>) {
        if let Some(at_ns) = host_ns {
            let name = Name::Host(event.previous.isa(), event.previous.reason());
            self.put(buffer, at_ns, SLICE_BEGIN, Some(name), &[]);
            self.put(buffer, event.entry_ns, SLICE_END, None, &[]);
        }
        let round = event.outline();
        let writes = round.known_pin_writes();
        if let Some(n) = writes.filter(|&n| n > 0) {
            self.put(buffer, event.entry_ns, INSTANT, Some(Name::PinWrites), &[Argument::Number(3, n.into())]);
        }
        let arguments = [
            Some(Argument::Text(1, Text::Reason(round.isa(), round.reason()))),
            round.reason().map(|r| Argument::Number(2, r.into())),
            writes.map(|n| Argument::Number(3, n.into())),
            writes.map(|n| Argument::Bool(4, n > 0)),
            round.timer_cause().map(|c| Argument::Text(5, Text::Cause(c))),
            Some(Argument::Number(6, event.cpu.into())),
            Some(Argument::Number(7, event.tid.into())),
            Some(Argument::Number(8, event.seq)),
            event.known_transition_ns().map(|ns| Argument::Number(9, ns)),
        ];
        let arguments: Vec<_> = arguments.into_iter().flatten().collect();
        self.put(buffer, event.entry_ns, SLICE_BEGIN, Some(Name::Guest(round.is_l2())), &arguments);
        self.put(buffer, event.exit_ns, SLICE_END, None, &[]);
    }

    fn put(&mut self, buffer: &mut Vec<u8>, at_ns: u64, kind: i32, name: Option<Name>, arguments: &[Argument]) {
        let mut new = InternedData::default();
        let mut event = TrackEvent { kind: Some(kind), ..TrackEvent::default() };
        if let Some(name) = name {
            match intern(&mut self.names, name, &mut new.event_names, Name::text) {
                Ok(iid) => event.name_iid = Some(iid),
                Err(text) => event.name = Some(text),
            }
        }
        for argument in arguments {
            let value = match *argument {
                Argument::Number(name, n) => DebugAnnotation { uint_value: Some(n), ..numbered(name) },
                Argument::Bool(name, b) => DebugAnnotation { bool_value: Some(b), ..numbered(name) },
                Argument::Text(name, text) => {
                    match intern(&mut self.texts, text, &mut new.debug_annotation_string_values, Text::text) {
                        Ok(iid) => DebugAnnotation { string_value_iid: Some(iid), ..numbered(name) },
                        Err(text) => DebugAnnotation { string_value: Some(text), ..numbered(name) },
                    }
                }
            };
            event.debug_annotations.push(value);
        }
        append(
            buffer,
            &TracePacket {
                timestamp: Some(at_ns - self.last_ns),
                track_event: Some(event),
                interned_data: (new != InternedData::default()).then_some(new),
                sequence_flags: Some(NEEDS_INCREMENTAL_STATE),
                ..on(self.sequence)
            },
        );
        self.last_ns = at_ns;
    }
}

/// An argument's number in [`ARGUMENTS`], from 1, and its value.
#[derive(Clone, Copy)]
enum Argument {
    Number(u64, u64),
    Bool(u64, bool),
    Text(u64, Text),
}

/// The number of a name, announced in `new` at its first use; the text itself when there are too many.
fn intern<N: Copy + Eq + std::hash::Hash>(
    known: &mut HashMap<N, u64>,
    name: N,
    new: &mut Vec<InternedName>,
    text: fn(N) -> String,
) -> Result<u64, String> {
    if let Some(&iid) = known.get(&name) {
        return Ok(iid);
    }
    if known.len() >= MAX_NAMES {
        return Err(text(name));
    }
    let iid = known.len() as u64 + 1;
    known.insert(name, iid);
    new.push(interned(iid, text(name)));
    Ok(iid)
}

fn interned(iid: u64, name: String) -> InternedName {
    InternedName { iid: Some(iid), name: Some(name) }
}

fn numbered(name: u64) -> DebugAnnotation {
    DebugAnnotation { name_iid: Some(name), ..DebugAnnotation::default() }
}

fn named(name: &str) -> DebugAnnotation {
    DebugAnnotation { name: Some(name.into()), ..DebugAnnotation::default() }
}

fn written(name: &str, value: &str) -> DebugAnnotation {
    DebugAnnotation { string_value: Some(value.into()), ..named(name) }
}

fn on(sequence: u32) -> TracePacket {
    TracePacket { trusted_packet_sequence_id: Some(sequence), ..TracePacket::default() }
}

/// A trace is one message with a repeated field, so that packets can be appended.
fn append(buffer: &mut Vec<u8>, packet: &TracePacket) {
    const PACKET: u8 = 1 << 3 | 2;
    buffer.push(PACKET);
    // Fails only where a buffer has no room, and a Vec grows.
    let _ = packet.encode_length_delimited(buffer);
}
