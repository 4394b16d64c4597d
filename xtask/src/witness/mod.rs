//! Compares vmentry's results in a lab with those of other witnesses of the same run: ftrace and the guests. Pure:
//! files in, failures out.

mod calibration;
pub(crate) mod claims;
pub(crate) mod companion;
pub(crate) mod counts;
mod early;
mod exits;
pub(crate) mod experiment;
mod failures;
pub(crate) mod figures;
pub(crate) mod guest_experiment;
pub(crate) mod stopwatch;
pub(crate) mod survey;
mod traces;
pub(crate) mod vms;

pub(crate) use crate::witness::traces::TRACES;
