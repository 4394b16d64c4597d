//! From rings to intervals, on a thread of its own.

#[path = "../collect.rs"]
pub mod collector;
