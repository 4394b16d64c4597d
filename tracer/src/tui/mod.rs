//! The live screen, pure: keys (one table), state, drawing. Whoever runs it feeds intervals and keys, draws frames and
//! carries out the effects.

pub mod app;
pub mod columns;
pub mod detail;
pub mod history;
pub mod keys;
pub mod palette;
pub mod rows;
pub mod series_sum;
pub mod terminal;
pub mod view;

pub use app::{App, Effect, ReplayCommand};
pub use palette::{Colors, Palette};

use crate::{
    host::machine::Host,
    model::{
        measurement::{Aggregation, PinSource},
        policy::Policy,
    },
};

/// What the header tells of the host and of the sources of the figures.
#[derive(Clone, Debug)]
pub struct Info {
    /// the host
    pub host: Host,
    /// timer policy in force
    pub policy: Policy,
    /// source of pin writes
    pub pin_writes_source: PinSource,
    /// where entries were counted, and so how well values are known
    pub aggregation: Aggregation,
    /// whether the policy can be switched from here: live, with the companion patch
    pub switchable: bool,
    /// longest delay of the preemption timer, seconds; none where not known
    pub max_delay_s: Option<f64>,
    /// TSC frequency, kHz; none where not known: there are no cycles then
    pub tsc_khz: Option<u32>,
    /// the companion patch's stopwatch is on: transitions are worth a column where there is little room, too
    pub stopwatch: bool,
    /// what this kernel does not tell: field and what is n/a without it
    pub missing: Vec<String>,
    /// where the intervals come from
    pub origin: Origin,
}

/// Where intervals come from.
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
