//! Compares what `vmentry` reports of a lab with what others saw of the same run. Pure: files in, failures out.

pub mod calibration;
pub mod companion;
pub mod counts;
pub mod experiment;
pub mod stopwatch;
