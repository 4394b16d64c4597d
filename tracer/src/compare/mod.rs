//! A/B: is B better than A, and how sure are we? Pure: windows in, a [`Comparison`] out; text, JSON and HTML are views of it.

mod checks;
mod comparison;
pub(crate) mod condition;
pub(crate) mod fairness;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod schedule;
mod stats;
#[cfg(test)]
mod tests;
mod view;

pub(crate) use self::view::{html, json, text};
pub use self::{
    comparison::*,
    stats::{
        random,
        rows::{first_step, promised_power},
    },
};
