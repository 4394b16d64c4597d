//! Damage in a recording: lines that are not as they were written, and the intervals that they cost.

use serde::{Deserialize, Serialize};

/// Damaged lines whose numbers are kept.
const MOST_LINES: usize = 16;

/// What a reader does about a damaged line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDamage {
    /// ends with an error
    #[default]
    Refuse,
    /// leaves the line's interval out and goes on with the next whole one (`--skip-damaged`)
    Skip,
}

impl OnDamage {
    /// From `--skip-damaged`.
    pub fn skip_if(skip: bool) -> Self {
        if skip { Self::Skip } else { Self::Refuse }
    }
}

/// What was left out of a recording because it is damaged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// intervals left out: exact where interval lines have numbers and the last line is whole, else by the damaged lines
    pub intervals: u64,
    /// damaged lines, from 1, at most 16 of them; of neighbours the first
    pub lines: Vec<u64>,
    /// what is wrong with the first of these lines
    pub why: String,
}

impl Damage {
    pub(super) fn at(line: u64, why: String) -> Self {
        Self { intervals: 0, lines: vec![line], why }
    }

    pub(super) fn add_line(&mut self, line: u64) {
        if self.lines.len() < MOST_LINES {
            self.lines.push(line);
        }
    }
}
