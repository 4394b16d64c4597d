//! Runs other programs.

pub mod filter;
pub mod output;
