//! Single events as a Perfetto trace: one track per VM and below it one per vCPU, with a slice for each guest time and each host
//! time. Packets are only appended, so that a trace whose recorder was killed ends after a whole packet.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use prost::Message as _;
use tracer_common::Event;

use super::{
    proto::{
        Clock, ClockSnapshot, DebugAnnotation, EXPLICIT, INCREMENTAL_STATE_CLEARED, INSTANT, MONOTONIC, REALTIME,
        SystemInfo, TracePacket, TrackDescriptor, TrackEvent, Utsname,
    },
    track::Track,
    vm_event::{VmEvent, Vms},
};
use crate::{model::measurement::EMULATED, recording::Header};

/// Tracks remembered. Beyond that, all are forgotten, and a vCPU that goes on gets a second track.
const MAX_TRACKS: usize = 65_536;
/// Bytes of packets that are buffered before they are written.
const CHUNK_BYTES: usize = 1 << 18;
/// The track, and the packet sequence, of everything that concerns the whole trace.
const WHOLE: u32 = 1;

/// Content of the last packet of a trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closing {
    /// why the trace ended, e.g. "SIGINT", or the event that matched a flight recorder's trigger
    pub reason: String,
    /// events that arrived but are in no trace: the disk or the writer was too slow, or they arrived out of order
    pub not_written: u64,
    /// entries whose record found its ring full; none if not yet known
    pub dropped: Option<u64>,
}

/// Writes a trace.
pub struct Trace<W: Write> {
    out: W,
    /// packets that are not yet written
    buffer: Vec<u8>,
    /// track ids by [`Vm::id`](crate::model::interval::Vm::id)
    vms: HashMap<u32, u32>,
    /// by VM and vCPU
    vcpus: HashMap<(u32, u32), Track>,
    /// the last id that a track got
    last_id: u32,
    emulated: bool,
    /// events in `buffer`
    pending: u64,
    /// events written
    events: u64,
    /// bytes written
    bytes: u64,
}

impl<W: Write> Trace<W> {
    /// Begins a trace and writes the packets that describe the recording.
    pub fn new(out: W, header: &Header) -> io::Result<Self> {
        let mut trace = Self {
            out,
            buffer: Vec::new(),
            vms: HashMap::new(),
            vcpus: HashMap::new(),
            last_id: WHOLE,
            emulated: header.host.emulated,
            pending: 0,
            events: 0,
            bytes: 0,
        };
        trace.append_clocks(header);
        trace.append_host(header);
        trace.append_beginning(header);
        trace.write_buffer()?;
        Ok(trace)
    }

    fn append_clocks(&mut self, header: &Header) {
        let clock = |id, timestamp| Clock { clock_id: Some(id), timestamp: Some(timestamp), ..Clock::default() };
        self.append(&TracePacket {
            clock_snapshot: Some(ClockSnapshot {
                clocks: vec![clock(MONOTONIC, header.anchor.monotonic_ns), clock(REALTIME, header.anchor.unix_ns)],
                primary_trace_clock: Some(MONOTONIC.cast_signed()),
            }),
            first_packet_on_sequence: Some(true),
            sequence_flags: Some(INCREMENTAL_STATE_CLEARED),
            ..packet_of(WHOLE)
        });
    }

    /// The host as the viewer's system information, and the track of the whole trace, named after tool and host.
    fn append_host(&mut self, header: &Header) {
        let text = |s: &str| Some(s.to_owned());
        self.append(&TracePacket {
            system_info: Some(SystemInfo {
                utsname: Some(Utsname {
                    sysname: text("Linux"),
                    release: text(&header.host.kernel),
                    machine: text(std::env::consts::ARCH),
                }),
            }),
            ..packet_of(WHOLE)
        });
        let name = format!("{} on {}{}", header.tool, header.host.name, self.emulation_mark());
        self.append(&TracePacket {
            track_descriptor: Some(TrackDescriptor {
                uuid: Some(WHOLE.into()),
                name: Some(name),
                ..TrackDescriptor::default()
            }),
            ..packet_of(WHOLE)
        });
    }

    fn append_beginning(&mut self, header: &Header) {
        let emulated = if self.emulated { format!("yes: {EMULATED}") } else { "no".to_owned() };
        let mut facts = vec![
            text_annotation("tool", &header.tool),
            text_annotation("host", &header.host.name),
            text_annotation("kernel", &header.host.kernel),
            text_annotation("cpu", &header.host.cpu),
            text_annotation("emulated", &emulated),
            text_annotation("policy", header.known_policy().name()),
            text_annotation("pin_writes_source", header.pin_writes_source.name()),
            text_annotation("command", &header.command.join(" ")),
        ];
        for (subject, reason) in header.knowledge().unknown() {
            facts.push(text_annotation(&format!("unknown_{}", subject.name()), &reason.to_string()));
        }
        facts.extend(header.label.as_deref().map(|label| text_annotation("label", label)));
        self.append_instant(header.anchor.monotonic_ns, "recording begins", facts);
    }

    /// Appends events, which must be ordered by `exit_ns`. Returns how many were refused because they began before the end of an
    /// event of the same vCPU that was already written.
    pub fn write(&mut self, events: impl IntoIterator<Item = VmEvent>, vms: &Vms) -> io::Result<u64> {
        let mut refused = 0;
        for vm_event in events {
            if self.vcpus.len() >= MAX_TRACKS && !self.vcpus.contains_key(&(vm_event.vm, vm_event.event.vcpu)) {
                self.vcpus.clear();
                self.vms.clear();
            }
            if self.append_event(&vm_event, vms) {
                self.pending += 1;
            } else {
                refused += 1;
            }
            if self.buffer.len() >= CHUNK_BYTES {
                self.write_buffer()?;
            }
        }
        self.write_buffer()?;
        Ok(refused)
    }

    /// Completes the trace at `now_ns`, CLOCK_MONOTONIC, and returns its size in bytes.
    pub fn finish(mut self, now_ns: u64, closing: &Closing) -> io::Result<u64> {
        let count = |name: &str, n: u64| DebugAnnotation { uint_value: Some(n), ..annotation(name) };
        let mut facts = vec![
            text_annotation("reason", &closing.reason),
            count("events", self.events),
            count("events_not_written", closing.not_written),
        ];
        facts.extend(closing.dropped.map(|n| count("entries_dropped", n)));
        self.append_instant(now_ns, "recording ends", facts);
        self.write_buffer()?;
        Ok(self.bytes)
    }

    /// Events written, without those still in the buffer.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Bytes written, without those still in the buffer.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn emulation_mark(&self) -> &'static str {
        if self.emulated { " (emulated)" } else { "" }
    }

    /// Writes whole packets only, so that the file is readable if the recorder is killed between two writes.
    fn write_buffer(&mut self) -> io::Result<()> {
        self.out.write_all(&self.buffer)?;
        self.out.flush()?;
        self.bytes += self.buffer.len() as u64;
        self.events += std::mem::take(&mut self.pending);
        self.buffer.clear();
        Ok(())
    }

    fn append(&mut self, packet: &TracePacket) {
        append(&mut self.buffer, packet);
    }

    fn append_instant(&mut self, at_ns: u64, name: &str, debug_annotations: Vec<DebugAnnotation>) {
        self.append(&TracePacket {
            timestamp: Some(at_ns),
            timestamp_clock_id: Some(MONOTONIC),
            track_event: Some(TrackEvent {
                kind: Some(INSTANT),
                name: Some(name.into()),
                track_uuid: Some(WHOLE.into()),
                debug_annotations,
                ..TrackEvent::default()
            }),
            ..packet_of(WHOLE)
        });
    }

    fn next_id(&mut self) -> u32 {
        self.last_id += 1;
        self.last_id
    }

    /// The id of the VM's track, which is appended if it is new.
    fn vm_track(&mut self, id: u32, vms: &Vms) -> u32 {
        if let Some(&track) = self.vms.get(&id) {
            return track;
        }
        let track = self.next_id();
        self.vms.insert(id, track);
        let name = vms.get(&id).map_or_else(
            || format!("vm-{id}"),
            |vm| {
                let ordinal = if vm.ordinal > 0 { format!("#{}", vm.ordinal) } else { String::new() };
                format!("{} [{}]{ordinal}", vm.name, vm.tgid)
            },
        );
        let name = name + self.emulation_mark();
        self.append(&TracePacket {
            track_descriptor: Some(TrackDescriptor {
                uuid: Some(track.into()),
                name: Some(name),
                child_ordering: Some(EXPLICIT),
                ..TrackDescriptor::default()
            }),
            ..packet_of(WHOLE)
        });
        track
    }

    /// Appends an event's slices; returns false, without appending any, if it overlaps the vCPU's last event.
    fn append_event(&mut self, vm_event: &VmEvent, vms: &Vms) -> bool {
        let VmEvent { vm, event } = *vm_event;
        let host_ns = (event.exit_to_entry_ns != Event::UNKNOWN_NS)
            .then(|| event.entry_ns.checked_sub(event.exit_to_entry_ns))
            .flatten();
        let begin_ns = host_ns.unwrap_or(event.entry_ns);
        let key = (vm, event.vcpu);
        let mut track = match self.vcpus.remove(&key) {
            Some(track) => track,
            None => {
                let parent = self.vm_track(vm, vms);
                let id = self.next_id();
                Track::begin(&mut self.buffer, id, parent, event.vcpu, begin_ns)
            }
        };
        let fits = begin_ns >= track.last_ns();
        if fits {
            track.append_event(&mut self.buffer, &event, host_ns);
        }
        self.vcpus.insert(key, track);
        fits
    }
}

fn annotation(name: &str) -> DebugAnnotation {
    DebugAnnotation { name: Some(name.into()), ..DebugAnnotation::default() }
}

fn text_annotation(name: &str, value: &str) -> DebugAnnotation {
    DebugAnnotation { string_value: Some(value.into()), ..annotation(name) }
}

/// An empty packet of a sequence.
pub(super) fn packet_of(sequence: u32) -> TracePacket {
    TracePacket { trusted_packet_sequence_id: Some(sequence), ..TracePacket::default() }
}

/// Appends a packet. A trace is one message with a repeated field, so packets simply follow one another.
pub(super) fn append(buffer: &mut Vec<u8>, packet: &TracePacket) {
    const PACKET: u8 = 1 << 3 | 2;
    buffer.push(PACKET);
    // Encoding fails only if the buffer lacks room, and a Vec grows.
    let _ = packet.encode_length_delimited(buffer);
}
