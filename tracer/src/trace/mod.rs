//! Single events: from the collector into Perfetto traces, or kept until a trigger matches.

pub mod flight_recorder;
mod proto;
pub mod sink;
pub mod trigger;
pub mod writer;
