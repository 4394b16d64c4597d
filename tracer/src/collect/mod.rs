//! From rings to intervals, on a thread of its own.

mod arrivals;
mod clocks;
pub(crate) mod collector;
mod shares;
mod vms;
