//! Reads a Perfetto trace as the Perfetto UI does: clocks, interned names, slices by track. Uses the official schema
//! (crate `perfetto_protos`, generated from Perfetto's .proto files), and none of vmentry's code.

#![expect(clippy::unwrap_used, reason = "a library of tests: a trace that cannot be read is a failed test")]

use std::collections::{BTreeMap, HashMap};

use perfetto_protos::{
    clock_snapshot::ClockSnapshot, debug_annotation::DebugAnnotation, trace::Trace, trace_packet::TracePacket,
};
use protobuf::{
    Message, MessageDyn,
    reflect::{ReflectFieldRef, ReflectValueRef},
};

/// Values of TrackEvent.Type.
const BEGIN: i32 = 1;
const END: i32 = 2;
const INSTANT: i32 = 3;
/// Values of BuiltinClock.
const REALTIME: u32 = 1;
const MONOTONIC: u32 = 3;
/// Bits of TracePacket.SequenceFlags.
const INCREMENTAL_STATE_CLEARED: u32 = 1;
const NEEDS_INCREMENTAL_STATE: u32 = 2;

/// A slice, or an instant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slice {
    /// Names of its track and of the tracks above, the top one first.
    pub track: Vec<String>,
    /// Name of the slice.
    pub name: String,
    /// Begin, CLOCK_MONOTONIC.
    pub begin_ns: u64,
    /// End, CLOCK_MONOTONIC; that of an instant is its begin.
    pub end_ns: u64,
    /// Number of slices around it on its track.
    pub depth: usize,
    /// Debug annotations by name.
    pub arguments: BTreeMap<String, String>,
}

impl Slice {
    /// Returns an argument that is a number.
    pub fn number(&self, argument: &str) -> Option<u64> {
        self.arguments.get(argument)?.parse().ok()
    }
}

/// The content of a trace.
#[derive(Debug, Default)]
pub struct Read {
    /// Slices by track, then by end.
    pub slices: Vec<Slice>,
    /// Instants by track, then by time.
    pub instants: Vec<Slice>,
    /// Number of slices without an end, and of ends without a begin.
    pub unbalanced: usize,
    /// Number of packets.
    pub packets: usize,
    /// CLOCK_REALTIME minus CLOCK_MONOTONIC.
    pub wall_minus_monotonic_ns: i128,
    /// Primary clock of the trace, a value of BuiltinClock.
    pub primary_clock: i32,
}

/// State of a packet sequence.
#[derive(Default)]
struct Sequence {
    /// Whether incremental state has been cleared, after which it is complete.
    valid: bool,
    /// Default clock of timestamps.
    clock: u32,
    /// Default track of events.
    track: u64,
    /// Last time of each incremental clock.
    last: HashMap<u32, u64>,
    /// Interned names of events.
    names: HashMap<u64, String>,
    /// Interned names of arguments.
    arguments: HashMap<u64, String>,
    /// Interned strings.
    texts: HashMap<u64, String>,
}

/// A track event: a begin, an end or an instant.
struct Moment {
    /// CLOCK_MONOTONIC.
    at_ns: u64,
    /// Value of TrackEvent.Type.
    kind: i32,
    name: String,
    arguments: BTreeMap<String, String>,
}

/// Returns the length of the complete packets at the beginning of a file.
pub fn whole_packets(bytes: &[u8]) -> usize {
    let mut whole = 0;
    loop {
        let mut rest = &bytes[whole..];
        if rest.first() != Some(&0x0a) {
            return whole;
        }
        rest = &rest[1..];
        let (mut length, mut shift) = (0usize, 0);
        loop {
            let Some((&byte, more)) = rest.split_first() else { return whole };
            rest = more;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        if rest.len() < length {
            return whole;
        }
        whole = bytes.len() - rest.len() + length;
    }
}

/// Returns the number of fields that the official schema does not know, in a message and in those within it.
pub fn unknown_fields(message: &dyn MessageDyn) -> usize {
    let mut unknown = message.unknown_fields_dyn().iter().count();
    let mut look = |value: ReflectValueRef| {
        if let ReflectValueRef::Message(inner) = value {
            unknown += unknown_fields(&*inner);
        }
    };
    for field in message.descriptor_dyn().fields() {
        match field.get_reflect(message) {
            ReflectFieldRef::Optional(value) => value.value().into_iter().for_each(&mut look),
            ReflectFieldRef::Repeated(values) => values.into_iter().for_each(&mut look),
            ReflectFieldRef::Map(_) => {}
        }
    }
    unknown
}

/// Parses complete packets.
pub fn parse(bytes: &[u8]) -> Trace {
    Trace::parse_from_bytes(bytes).unwrap()
}

/// Reads complete packets.
pub fn read(bytes: &[u8]) -> Read {
    let trace = parse(bytes);
    let mut read = Read { packets: trace.packet.len(), ..Read::default() };
    let mut sequences: HashMap<u32, Sequence> = HashMap::new();
    let mut tracks: HashMap<u64, (String, u64)> = HashMap::new();
    let mut moments: BTreeMap<u64, Vec<Moment>> = BTreeMap::new();
    for packet in &trace.packet {
        let sequence = sequences.entry(packet.trusted_packet_sequence_id()).or_default();
        sequence.take(packet);
        if packet.has_clock_snapshot() {
            read.set_clocks(packet.clock_snapshot());
        }
        if packet.has_track_descriptor() {
            let track = packet.track_descriptor();
            tracks.insert(track.uuid(), (track.name().to_owned(), track.parent_uuid()));
        }
        if packet.has_track_event() {
            let (track, moment) = sequence.moment(packet);
            assert!(tracks.contains_key(&track), "track {track} has no descriptor before its first event");
            moments.entry(track).or_default().push(moment);
        }
    }
    for (track, mut moments) in moments {
        // As in the UI: by time, and in the order of the file for equal times.
        moments.sort_by_key(|m| m.at_ns);
        read.add(&path(&tracks, track), moments);
    }
    read
}

/// Returns the names of a track and of the tracks above it, the top one first.
fn path(tracks: &HashMap<u64, (String, u64)>, mut track: u64) -> Vec<String> {
    let mut path = Vec::new();
    while let Some((name, parent)) = tracks.get(&track) {
        path.insert(0, name.clone());
        track = *parent;
    }
    path
}

impl Sequence {
    /// Updates the state from a packet.
    fn take(&mut self, packet: &TracePacket) {
        if packet.sequence_flags() & INCREMENTAL_STATE_CLEARED != 0 {
            *self = Self { valid: true, ..Self::default() };
        }
        if let Some(defaults) = packet.trace_packet_defaults.as_ref() {
            self.clock = defaults.timestamp_clock_id();
            self.track = defaults.track_event_defaults.track_uuid();
        }
        if let Some(data) = packet.interned_data.as_ref() {
            self.names.extend(data.event_names.iter().map(|n| (n.iid(), n.name().to_owned())));
            self.arguments.extend(data.debug_annotation_names.iter().map(|n| (n.iid(), n.name().to_owned())));
            let texts = data.debug_annotation_string_values.iter();
            self.texts.extend(texts.map(|n| (n.iid(), String::from_utf8(n.str().to_vec()).unwrap())));
        }
        if packet.has_clock_snapshot() {
            let clocks = packet.clock_snapshot().clocks.iter();
            self.last.extend(clocks.filter(|c| c.is_incremental()).map(|c| (c.clock_id(), c.timestamp())));
        }
    }

    /// Returns the track event of a packet, and its track.
    fn moment(&mut self, packet: &TracePacket) -> (u64, Moment) {
        let event = packet.track_event();
        assert!(self.valid || packet.sequence_flags() & NEEDS_INCREMENTAL_STATE == 0);
        let track = if event.has_track_uuid() { event.track_uuid() } else { self.track };
        let name = if event.has_name_iid() { self.names[&event.name_iid()].clone() } else { event.name().into() };
        let moment = Moment {
            at_ns: self.time(packet),
            kind: event.type_.map_or(0, |t| t.value()),
            name,
            arguments: event.debug_annotations.iter().map(|a| self.argument(a)).collect(),
        };
        (track, moment)
    }

    /// Returns the time of a packet, CLOCK_MONOTONIC.
    fn time(&mut self, packet: &TracePacket) -> u64 {
        let clock = if packet.has_timestamp_clock_id() { packet.timestamp_clock_id() } else { self.clock };
        if clock == MONOTONIC {
            return packet.timestamp();
        }
        let last = self.last.get_mut(&clock).expect("an incremental clock of this sequence");
        *last += packet.timestamp();
        *last
    }

    /// Returns name and value of a debug annotation.
    fn argument(&self, annotation: &DebugAnnotation) -> (String, String) {
        let name = if annotation.has_name_iid() {
            self.arguments[&annotation.name_iid()].clone()
        } else {
            annotation.name().to_owned()
        };
        let value = if annotation.has_uint_value() {
            annotation.uint_value().to_string()
        } else if annotation.has_bool_value() {
            annotation.bool_value().to_string()
        } else if annotation.has_string_value_iid() {
            self.texts[&annotation.string_value_iid()].clone()
        } else {
            annotation.string_value().to_owned()
        };
        (name, value)
    }
}

impl Read {
    fn set_clocks(&mut self, snapshot: &ClockSnapshot) {
        let of = |id| snapshot.clocks.iter().find(|c| c.clock_id() == id).map(|c| c.timestamp());
        // A sequence's own clock has a place in time only by its relation to a known clock.
        let monotonic = of(MONOTONIC).expect("CLOCK_MONOTONIC in every snapshot");
        if let Some(wall) = of(REALTIME) {
            self.wall_minus_monotonic_ns = i128::from(wall) - i128::from(monotonic);
            self.primary_clock = snapshot.primary_trace_clock.map_or(0, |c| c.value());
        }
    }

    /// Adds the slices and instants of a track.
    fn add(&mut self, track: &[String], moments: Vec<Moment>) {
        let mut open: Vec<Slice> = Vec::new();
        for Moment { at_ns, kind, name, arguments } in moments {
            let slice =
                Slice { track: track.to_vec(), name, begin_ns: at_ns, end_ns: at_ns, depth: open.len(), arguments };
            match kind {
                BEGIN => open.push(slice),
                INSTANT => self.instants.push(slice),
                END => match open.pop() {
                    Some(begun) => self.slices.push(Slice { end_ns: at_ns, ..begun }),
                    None => self.unbalanced += 1,
                },
                other => panic!("unexpected type of event {other}"),
            }
        }
        self.unbalanced += open.len();
    }
}
