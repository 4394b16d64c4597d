//! The live screen: keys (one table), state, drawing; all pure but for `terminal`. The caller feeds intervals and keys, draws frames
//! and carries out the effects.

pub mod app;
mod budget;
pub(crate) mod clock;
mod columns;
mod detail;
mod filter;
mod history;
pub mod keys;
pub mod node;
mod palette;
mod rows;
mod series_sum;
mod sum;
pub(crate) mod terminal;
pub mod view;
mod weight;

pub use app::{App, Effect, ReplayCommand};
pub use palette::{Colors, Palette};

use crate::{
    host::{clock::Anchor, machine::Host},
    model::{
        knowledge::Knowledge,
        measurement::{Aggregation, PinSource},
        policy::Policy,
    },
    recording::{End, Header, longest_timer_delay_s, other_tracers},
};

/// The host and the sources of figures, for the header.
#[derive(Clone, Debug)]
pub struct Info {
    /// the host
    pub host: Host,
    /// timer policy in force
    pub policy: Policy,
    /// source of pin writes
    pub pin_writes_source: PinSource,
    /// place that counted entries, which decides the precision of values
    pub aggregation: Aggregation,
    /// whether the policy can be switched: live, with the companion patch
    pub switchable: bool,
    /// longest timer delay, seconds; none if unknown
    pub max_delay_s: Option<f64>,
    /// TSC frequency, kHz; none if unknown: then times cannot be shown in cycles
    pub tsc_khz: Option<u32>,
    /// the companion patch's stopwatch is on: transitions get their columns on narrow screens, too
    pub stopwatch: bool,
    /// what is known about the entries
    pub knowledge: Knowledge,
    /// other tracers on the tracepoints, whose work is in the times
    pub other_tracers: Vec<String>,
    /// source of the intervals
    pub origin: Origin,
    /// a moment on the intervals' clock and on the wall clock
    pub anchor: Anchor,
}

impl Info {
    /// Of the recording with this header, live or played; `end` is its last line, if it has one.
    pub fn of(header: &Header, end: Option<&End>, origin: Origin) -> Self {
        Self {
            host: header.host.clone(),
            policy: header.known_policy(),
            pin_writes_source: header.pin_writes_source,
            aggregation: header.aggregation,
            switchable: false,
            max_delay_s: longest_timer_delay_s(header, end).ok(),
            tsc_khz: end.and_then(|e| e.tsc_khz).or(header.timer.as_ref().and_then(|t| t.tsc_khz)),
            stopwatch: header.stopwatch.is_some(),
            knowledge: header.knowledge(),
            other_tracers: other_tracers(header, end).names,
            origin,
            anchor: header.anchor,
        }
    }
}

/// The source of intervals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// this host, now
    Live,
    /// a recording
    Replay {
        /// its name
        file: String,
    },
}
