//! The statistics of a comparison: units, tests, intervals and power. They know windows and rows, and no view.

pub(super) mod blocks;
pub(super) mod by_vm;
pub(super) mod dense;
pub(super) mod design;
pub(super) mod judging;
pub(super) mod measure;
pub(super) mod mix;
pub(super) mod permutation;
pub mod random;
mod resample;
pub(super) mod rows;
pub(super) mod shares;
mod student;
