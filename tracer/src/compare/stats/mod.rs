//! The statistics of a comparison: units, tests, intervals and power. They know windows and rows, and no view.

pub(super) mod blocks;
pub(super) mod by_vm;
pub(super) mod dense;
pub(super) mod design;
pub(super) mod judging;
pub(super) mod measure;
pub(super) mod mix;
pub(crate) mod pairs;
pub(super) mod permutation;
pub mod random;
pub(super) mod rates;
mod resample;
pub(super) mod rows;
pub(crate) mod sequential;
pub(super) mod shares;
pub(super) mod statistic;
mod student;
pub(super) mod zeros;
