//! Reads a Perfetto trace with the official schema (crate `perfetto_protos`, generated from the project's .proto files), as the
//! Perfetto UI does: clocks, interned names, slices by track. Knows nothing of how vmentry writes.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, HashMap};

use perfetto_protos::{debug_annotation::DebugAnnotation, trace::Trace, trace_packet::TracePacket};
use protobuf::{
    Message, MessageDyn,
    reflect::{ReflectFieldRef, ReflectValueRef},
};

const BEGIN: i32 = 1;
const END: i32 = 2;
const INSTANT: i32 = 3;
const MONOTONIC: u32 = 3;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slice {
    /// names of its track and of those above, the highest first
    pub track: Vec<String>,
    pub name: String,
    /// CLOCK_MONOTONIC
    pub begin_ns: u64,
    /// equal to the beginning for an instant
    pub end_ns: u64,
    /// slices around it
    pub depth: usize,
    pub arguments: BTreeMap<String, String>,
}

impl Slice {
    pub fn number(&self, argument: &str) -> Option<u64> {
        self.arguments.get(argument)?.parse().ok()
    }
}

#[derive(Debug, Default)]
pub struct Read {
    /// by track, then by beginning
    pub slices: Vec<Slice>,
    pub instants: Vec<Slice>,
    /// slices that never ended, ends without a beginning
    pub unbalanced: usize,
    pub packets: usize,
    /// CLOCK_REALTIME minus CLOCK_MONOTONIC
    pub wall_minus_monotonic_ns: i128,
    pub primary_clock: i32,
}

#[derive(Default)]
struct Sequence {
    valid: bool,
    clock: u32,
    track: u64,
    last: HashMap<u32, u64>,
    names: HashMap<u64, String>,
    arguments: HashMap<u64, String>,
    texts: HashMap<u64, String>,
}

struct Moment {
    at_ns: u64,
    kind: i32,
    name: String,
    arguments: BTreeMap<String, String>,
}

/// Length of the whole packets at the beginning of a file.
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

/// Fields that the official schema does not know, in a message and those within it.
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

pub fn parse(bytes: &[u8]) -> Trace {
    Trace::parse_from_bytes(bytes).unwrap()
}

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
            let clocks = packet.clock_snapshot();
            let of = |id| clocks.clocks.iter().find(|c| c.clock_id() == id).map(|c| c.timestamp());
            sequence
                .last
                .extend(clocks.clocks.iter().filter(|c| c.is_incremental()).map(|c| (c.clock_id(), c.timestamp())));
            // A sequence's clock can be placed only where it is tied to one that is known.
            assert!(of(MONOTONIC).is_some());
            if let Some(wall) = of(1) {
                read.wall_minus_monotonic_ns = i128::from(wall) - i128::from(of(MONOTONIC).unwrap());
                read.primary_clock = clocks.primary_trace_clock.map_or(0, |c| c.value());
            }
        }
        if packet.has_track_descriptor() {
            let track = packet.track_descriptor();
            tracks.insert(track.uuid(), (track.name().to_owned(), track.parent_uuid()));
        }
        if packet.has_track_event() {
            let event = packet.track_event();
            assert!(sequence.valid || packet.sequence_flags() & 2 == 0);
            let track = if event.has_track_uuid() { event.track_uuid() } else { sequence.track };
            assert!(tracks.contains_key(&track), "track {track} was not introduced");
            let name =
                if event.has_name_iid() { sequence.names[&event.name_iid()].clone() } else { event.name().into() };
            moments.entry(track).or_default().push(Moment {
                at_ns: sequence.time(packet),
                kind: event.type_.map_or(0, |t| t.value()),
                name,
                arguments: event.debug_annotations.iter().map(|a| sequence.argument(a)).collect(),
            });
        }
    }
    for (track, mut moments) in moments {
        // As the UI does: by time, and in the order of the file where the time is the same.
        moments.sort_by_key(|m| m.at_ns);
        read.add(&path(&tracks, track), moments);
    }
    read
}

fn path(tracks: &HashMap<u64, (String, u64)>, mut track: u64) -> Vec<String> {
    let mut path = Vec::new();
    while let Some((name, parent)) = tracks.get(&track) {
        path.insert(0, name.clone());
        track = *parent;
    }
    path
}

impl Sequence {
    fn take(&mut self, packet: &TracePacket) {
        if packet.sequence_flags() & 1 != 0 {
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
    }

    fn time(&mut self, packet: &TracePacket) -> u64 {
        let clock = if packet.has_timestamp_clock_id() { packet.timestamp_clock_id() } else { self.clock };
        if clock == MONOTONIC {
            return packet.timestamp();
        }
        let last = self.last.get_mut(&clock).expect("an incremental clock of this sequence");
        *last += packet.timestamp();
        *last
    }

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
                other => panic!("unexpected kind of event {other}"),
            }
        }
        self.unbalanced += open.len();
    }
}
