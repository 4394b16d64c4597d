//! Single events: handed over by the collector, put in order, and written as Perfetto traces, either all of them or, as a
//! flight recorder, those before a trigger.

pub mod event_sink;
mod flight_recorder;
mod patience;
pub mod perfetto;
pub mod plan;
mod proto;
pub mod recorder;
mod reorder;
mod track;
pub mod trigger;
pub mod vm_event;
