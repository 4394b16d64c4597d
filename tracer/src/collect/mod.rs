//! From rings to intervals, on a thread of its own.

mod arrivals;
pub(crate) mod collector;
mod shares;
mod vms;
