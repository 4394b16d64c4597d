//! The commands: arguments, I/O, signals, exit codes. Everything below is called from here; nothing below calls back.

#[path = "../ab.rs"]
pub mod ab;
#[path = "../cli.rs"]
pub mod args;
#[path = "../process.rs"]
pub mod child;
#[path = "../comparing.rs"]
pub mod compare;
#[path = "../exporting.rs"]
pub mod export;
#[path = "../live.rs"]
pub mod live;
#[path = "../merging.rs"]
pub mod merge;
#[path = "../overhead.rs"]
pub mod overhead;
#[path = "../record.rs"]
pub mod record;
#[path = "../reporting.rs"]
pub mod report;
