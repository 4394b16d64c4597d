//! Single events: from the collector into Perfetto traces, or kept until a trigger matches.

#[path = "../flight.rs"]
pub mod flight_recorder;
#[path = "../perfetto.rs"]
mod proto;
#[path = "../events.rs"]
pub mod sink;
#[path = "../trigger.rs"]
pub mod trigger;
#[path = "../trace.rs"]
pub mod writer;
