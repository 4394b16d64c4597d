//! The commands: arguments, I/O, signals, exit codes. Everything below is called from here; nothing below calls back.

pub mod ab;
pub mod args;
pub mod calibrate;
pub mod check;
pub mod child;
pub mod compare;
pub mod exercise;
pub mod export;
pub mod live;
pub mod merge;
pub mod policy;
mod progress;
pub mod record;
pub mod report;
mod session;
