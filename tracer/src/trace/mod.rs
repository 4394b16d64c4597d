//! Single events: from the collector into Perfetto traces, or kept until a trigger matches.

pub mod flight_recorder;
pub mod perfetto;
mod proto;
pub mod recorder;
pub mod trigger;
