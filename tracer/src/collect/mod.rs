//! From rings to intervals, on a thread of its own.

pub mod collector;
