//! A/B: is B better than A, and how certain is that? Windows in, a [`Comparison`] out, without I/O; text, JSON and HTML are views of it.

pub(crate) mod assemble;
mod checks;
mod comparison;
pub(crate) mod condition;
pub(crate) mod fairness;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod presence;
pub(crate) mod primary;
pub(crate) mod schedule;
mod stats;
#[cfg(test)]
mod tests;
mod view;
mod windows;

#[cfg(test)]
pub(crate) use self::comparison::{Better, Mix, MixRow};
pub use self::{
    assemble::compare,
    comparison::{ByVm, Combined, Comparison, Estimate, FigureByVm, Row, Verdict, VmEffect},
    stats::{
        judging::{first_step, promised_power},
        random,
    },
    windows::{ExperimentRound, Options, Stratum, Window, Windows},
};
pub(crate) use self::{
    comparison::{Check, Distributions, Point, Setting, Shift, Side},
    view::{html, json, text, wording},
    windows::Arm,
};
