//! Pure values: intervals, histograms, exit reasons, figures. No I/O.

pub mod accounting;
pub mod accumulator;
pub mod budget;
pub(crate) mod course;
pub mod detail;
mod detail_names;
pub mod exit_reasons;
pub mod figures;
pub mod histogram;
pub mod interval;
pub(crate) mod interval_sum;
pub mod knowledge;
pub mod measurement;
pub mod number;
pub mod policy;
pub(crate) mod quantity;
pub(crate) mod running_histogram;
pub mod series;
pub(crate) mod soft_timer;
pub(crate) mod suggestion;
pub mod totals;
pub(crate) mod vcpu_range;
pub(crate) mod vendor;
pub mod vm_labels;
pub(crate) mod vm_names;
