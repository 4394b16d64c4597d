//! Everything in vmentry that reads bytes of strangers, as targets of a fuzzer: a name, a function from bytes that panics where a
//! property fails, and mutations that get past checksums. `cargo xtask fuzz` runs them under libFuzzer, `cargo test -p fuzz` with the
//! corpus.

#![allow(clippy::unwrap_used, reason = "a test: an error is a finding")]

mod churn;
mod inputs;
mod limits;
pub mod mutation;
mod properties;
mod recording;

use std::time::Duration;

pub use limits::Limits;
use mutation::{Bytewise, Random};

/// Something that reads foreign bytes.
pub struct Target {
    /// its name on the command line, and its folder in `corpus`
    pub name: &'static str,
    run: fn(&[u8]),
    mutate: Option<fn(&mut Vec<u8>, &mut Random, Bytewise<'_>)>,
    /// the most memory and time of one input
    pub limits: Limits,
    /// how many changed inputs the test of the corpus runs
    pub changed: u64,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target {
        name: "recording",
        run: recording::run,
        mutate: Some(recording::mutate),
        // A line of 170 bytes may hold a histogram of 56 320 buckets, 900 kB, which its reader, the sum and a view have.
        limits: Limits { memory: 64 << 20, memory_per_byte: 24 << 10, cpu: Duration::from_secs(20) },
        changed: 20,
    },
    Target {
        name: "churn",
        run: churn::run,
        mutate: None,
        // Few bytes may stand for ten thousand VMs.
        limits: Limits { memory: 192 << 20, memory_per_byte: 0, cpu: Duration::from_secs(20) },
        changed: 0,
    },
    Target::small("btf", inputs::btf),
    Target::small("event", inputs::event),
    Target::small("filter", inputs::filter),
    Target::small("http", inputs::http),
    Target::small("negotiation", inputs::negotiation),
    Target::small("policy", inputs::policy),
    Target::small("setting", inputs::setting),
    Target::small("process", inputs::process),
    Target::small("trigger", inputs::trigger),
];

impl Target {
    /// A target whose inputs are bytes without structure, and need no more than some copies of themselves.
    const fn small(name: &'static str, run: fn(&[u8])) -> Self {
        Self {
            name,
            run,
            mutate: None,
            limits: Limits { memory: 4 << 20, memory_per_byte: 256, cpu: Duration::from_secs(5) },
            changed: 1000,
        }
    }

    /// The target of a name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Runs an input. Returns its CPU time; panics where a property fails, or it takes too much memory or time.
    pub fn run(&self, input: &[u8]) -> Duration {
        self.limits.hold(input.len(), || (self.run)(input))
    }

    /// Changes an input. `bytewise` changes bytes that have no structure.
    pub fn mutate(&self, input: &mut Vec<u8>, random: &mut Random, bytewise: Bytewise<'_>) {
        match self.mutate {
            Some(mutate) => mutate(input, random, bytewise),
            None => bytewise(input),
        }
    }
}
