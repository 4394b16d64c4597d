//! A vCPU's track in a Perfetto trace: its slices and instants, with names and texts that are interned at their first use.

use std::collections::HashMap;

use tracer_common::{Event, Isa, rules::TimerCause};

use super::{
    perfetto::{append, packet_of},
    proto::{
        Clock, ClockSnapshot, DebugAnnotation, INCREMENTAL_STATE_CLEARED, INSTANT, InternedData, InternedName,
        MONOTONIC, NEEDS_INCREMENTAL_STATE, SINCE_LAST_PACKET, SLICE_BEGIN, SLICE_END, TracePacket,
        TracePacketDefaults, TrackDescriptor, TrackEvent, TrackEventDefaults,
    },
};

use crate::model::{
    budget::Phase,
    detail::Detail,
    exit_reasons::{self, name_or_unknown},
};

/// Names interned for one track; further ones are written in full.
const MAX_NAMES: usize = 1024;

/// Names of a slice's arguments. The number of each in the file is its position, from 1.
const ARGUMENTS: [&str; 12] = [
    "exit_reason",
    "exit_reason_code",
    "pin_writes",
    "dirty",
    "cause",
    "cpu",
    "tid",
    "seq",
    "transition_ns",
    "deadline_late_ns",
    "deadline_remaining_ns",
    "detail",
];

/// A vCPU's track. It is a packet sequence of its own, because its timestamps are the time since the sequence's last packet,
/// which cannot be negative.
pub(super) struct Track {
    sequence: u32,
    /// time of the last packet, CLOCK_MONOTONIC, ns
    last_ns: u64,
    names: HashMap<Name, u64>,
    texts: HashMap<Text, u64>,
}

/// Names of slices and instants.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Name {
    /// guest time; true for L2, none if the level is unknown
    Guest(Option<bool>),
    /// host time after an exit with this reason
    Host(Isa, Option<u32>),
    PinWrites,
    Phase(Phase),
}

/// The mark that a packet sets on a track.
#[derive(Clone, Copy)]
enum Mark {
    /// a slice begins
    Begin(Name),
    /// the innermost slice ends
    End,
    /// a single moment
    Instant(Name),
}

/// Text values of arguments.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Text {
    Reason(Isa, u32),
    Cause(TimerCause),
    Detail(Detail),
}

impl Name {
    fn text(self) -> String {
        match self {
            Self::Guest(None) => "guest".into(),
            Self::Guest(Some(false)) => "guest L1".into(),
            Self::Guest(Some(true)) => "guest L2".into(),
            Self::Host(isa, reason) => format!("host: {}", name_or_unknown(isa, reason)),
            Self::PinWrites => "pin writes".into(),
            Self::Phase(phase) => phase.name().into(),
        }
    }
}

impl Text {
    fn text(self) -> String {
        match self {
            Self::Reason(isa, reason) => exit_reasons::name(isa, reason).into_owned(),
            Self::Cause(cause) => cause.name().into(),
            Self::Detail(detail) => detail.to_string(),
        }
    }
}

impl Track {
    /// Appends the packets that introduce the track with this id, below its VM's track.
    pub(super) fn begin(buffer: &mut Vec<u8>, id: u32, parent: u32, vcpu: u32, at_ns: u64) -> Self {
        let track = Self { sequence: id, last_ns: at_ns, names: HashMap::new(), texts: HashMap::new() };
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
                    track_event_defaults: Some(TrackEventDefaults { track_uuid: Some(id.into()) }),
                }),
                interned_data: Some(InternedData {
                    debug_annotation_names: arguments.collect(),
                    ..InternedData::default()
                }),
                ..packet_of(track.sequence)
            },
        );
        let descriptor = TrackDescriptor {
            uuid: Some(id.into()),
            parent_uuid: Some(parent.into()),
            name: Some(format!("vCPU {vcpu}")),
            sibling_order_rank: i32::try_from(vcpu).ok(),
            ..TrackDescriptor::default()
        };
        append(buffer, &TracePacket { track_descriptor: Some(descriptor), ..packet_of(track.sequence) });
        track
    }

    /// Time of the last packet, CLOCK_MONOTONIC, ns.
    pub(super) fn last_ns(&self) -> u64 {
        self.last_ns
    }

    /// Appends an event's slices; `host_ns` is the begin of its host time, none if unknown.
    pub(super) fn append_event(&mut self, buffer: &mut Vec<u8>, event: &Event, host_ns: Option<u64>) {
        if let Some(at_ns) = host_ns {
            let name = Name::Host(event.previous.isa(), event.previous.reason());
            let detail = Detail::of(&event.previous, event.previous_detail);
            let arguments = [detail.map(|detail| Argument::Text(12, Text::Detail(detail)))];
            let arguments: Vec<_> = arguments.into_iter().flatten().collect();
            self.append_packet(buffer, Mark::Begin(name), at_ns, &arguments);
            self.append_phases(buffer, event);
            self.append_packet(buffer, Mark::End, event.entry_ns, &[]);
        }
        let round = event.outline();
        let writes = round.known_pin_writes();
        if let Some(n) = writes.filter(|&n| n > 0) {
            self.append_packet(
                buffer,
                Mark::Instant(Name::PinWrites),
                event.entry_ns,
                &[Argument::Number(3, n.into())],
            );
        }
        let arguments = [
            round.reason().map(|r| Argument::Text(1, Text::Reason(round.isa(), r))),
            round.reason().map(|r| Argument::Number(2, r.into())),
            writes.map(|n| Argument::Number(3, n.into())),
            writes.map(|n| Argument::Bool(4, n > 0)),
            round.timer_cause().filter(|c| *c != TimerCause::Unknown).map(|c| Argument::Text(5, Text::Cause(c))),
            Some(Argument::Number(6, event.cpu.into())),
            Some(Argument::Number(7, event.tid.into())),
            Some(Argument::Number(8, event.seq)),
            event.known_transition_ns().map(|ns| Argument::Number(9, ns)),
            event.deadline_late_ns().map(|ns| Argument::Number(10, ns)),
            event.deadline_remaining_ns().map(|ns| Argument::Number(11, ns)),
        ];
        let arguments: Vec<_> = arguments.into_iter().flatten().collect();
        self.append_packet(buffer, Mark::Begin(Name::Guest(round.is_l2())), event.entry_ns, &arguments);
        self.append_packet(buffer, Mark::End, event.exit_ns, &[]);
    }

    /// Slices inside of the host time's, one for each part that is not the kernel's. Their lengths are measured; their order is not: they lie
    /// one behind the other before kvm_entry, user time last.
    fn append_phases(&mut self, buffer: &mut Vec<u8>, event: &Event) {
        const ORDER: [Phase; 4] = [Phase::Polled, Phase::Idle, Phase::Steal, Phase::User];
        let mut at_ns = event.entry_ns.saturating_sub(event.phases.sum_ns()).max(self.last_ns);
        for phase in ORDER {
            let ns = phase.of_event(event).unwrap_or(0);
            if ns > 0 {
                self.append_packet(buffer, Mark::Begin(Name::Phase(phase)), at_ns, &[]);
                at_ns = at_ns.saturating_add(ns).min(event.entry_ns);
                self.append_packet(buffer, Mark::End, at_ns, &[]);
            }
        }
    }

    fn append_packet(&mut self, buffer: &mut Vec<u8>, mark: Mark, at_ns: u64, arguments: &[Argument]) {
        let mut new = InternedData::default();
        let (kind, name) = match mark {
            Mark::Begin(name) => (SLICE_BEGIN, Some(name)),
            Mark::End => (SLICE_END, None),
            Mark::Instant(name) => (INSTANT, Some(name)),
        };
        let mut event = TrackEvent { kind: Some(kind), ..TrackEvent::default() };
        if let Some(name) = name {
            match intern(&mut self.names, name, &mut new.event_names, Name::text) {
                Ok(iid) => event.name_iid = Some(iid),
                Err(text) => event.name = Some(text),
            }
        }
        for argument in arguments {
            let value = match *argument {
                Argument::Number(name, n) => DebugAnnotation { uint_value: Some(n), ..interned_annotation(name) },
                Argument::Bool(name, b) => DebugAnnotation { bool_value: Some(b), ..interned_annotation(name) },
                Argument::Text(name, text) => {
                    match intern(&mut self.texts, text, &mut new.debug_annotation_string_values, Text::text) {
                        Ok(iid) => DebugAnnotation { string_value_iid: Some(iid), ..interned_annotation(name) },
                        Err(text) => DebugAnnotation { string_value: Some(text), ..interned_annotation(name) },
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
                ..packet_of(self.sequence)
            },
        );
        self.last_ns = at_ns;
    }
}

/// A slice's argument: its position in [`ARGUMENTS`], from 1, and its value.
#[derive(Clone, Copy)]
enum Argument {
    Number(u64, u64),
    Bool(u64, bool),
    Text(u64, Text),
}

/// Returns the number of a name, which is added to `new` at its first use; the text itself if too many names are interned.
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

fn interned_annotation(name: u64) -> DebugAnnotation {
    DebugAnnotation { name_iid: Some(name), ..DebugAnnotation::default() }
}
