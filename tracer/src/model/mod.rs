//! Pure values: intervals, histograms, exit reasons, figures. No I/O.

#[path = "../gathering.rs"]
pub mod accumulator;
#[path = "../reasons.rs"]
pub mod exit_reasons;
#[path = "../columns.rs"]
pub mod figures;
#[path = "../histogram.rs"]
pub mod histogram;
#[path = "../interval.rs"]
pub mod interval;
