//! Damage in a recording: lines that are not as they were written, and the intervals that they cost.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::provenance::Provenance;

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
    /// the file, as the user named it
    pub file: String,
    /// intervals left out: exact where interval lines have numbers and the last line is whole, else by the damaged lines
    pub intervals: u64,
    /// damaged lines, from 1, at most 16 of them; of neighbours the first
    pub lines: Vec<u64>,
    /// what is wrong with the first of these lines
    pub why: String,
}

impl Damage {
    pub(super) fn at(line: u64, why: String) -> Self {
        Self { file: String::new(), intervals: 0, lines: vec![line], why }
    }

    pub(super) fn add_line(&mut self, line: u64) {
        if self.lines.len() < MOST_LINES {
            self.lines.push(line);
        }
    }
}

impl fmt::Display for Damage {
    /// "a.hlog: 1 interval left out (line 12: why; also lines 30, 41)".
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { file, intervals, lines, why } = self;
        let left_out = match intervals {
            0 => "no interval is left out, but the file is not whole".to_owned(),
            1 => "1 interval left out".to_owned(),
            n => format!("{n} intervals left out"),
        };
        let (first, others) = lines.split_first().unwrap_or((&0, &[]));
        write!(f, "{file}: {left_out} (line {first}: {why}")?;
        if !others.is_empty() {
            let others: Vec<_> = others.iter().map(u64::to_string).collect();
            let lines = if others.len() == 1 { "line" } else { "lines" };
            write!(f, "; also {lines} {}", others.join(", "))?;
        }
        write!(f, ")")
    }
}

/// The damage of all recordings, which goes before every figure; none where nothing was left out.
pub(crate) fn damage<'a>(sources: impl IntoIterator<Item = &'a Provenance>) -> Option<String> {
    let all: Vec<_> = sources.into_iter().flat_map(|source| &source.damage).map(Damage::to_string).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_that_cost_no_interval_is_not_a_count_of_0() {
        let of = |intervals| {
            let damage = Damage { file: "a.hlog".into(), intervals, ..Damage::at(12, "why".into()) };
            damage.to_string()
        };
        assert_eq!(of(0), "a.hlog: no interval is left out, but the file is not whole (line 12: why)");
        assert_eq!(of(1), "a.hlog: 1 interval left out (line 12: why)");
        assert_eq!(of(2), "a.hlog: 2 intervals left out (line 12: why)");
    }
}
