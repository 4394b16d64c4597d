//! The runs of the guest, and the cost of each tool.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::lab::results::{json, number};

/// One run of the guest.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Run {
    /// Name of the tool, or `untraced`.
    pub(super) tool: String,
    /// Instructions (or ns) per exit of everything on the CPU.
    pub(super) whole: f64,
    /// Instructions (or ns) per exit of the vCPU's thread.
    pub(super) thread: f64,
    /// File with the guest's figures; the tool's files have other suffixes.
    pub(super) path: PathBuf,
}

/// A tool's cost in one round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cost {
    /// Difference to the untraced runs before and after, per exit, of everything on the CPU.
    pub(super) whole: f64,
    /// The same of the vCPU's thread.
    pub(super) thread: f64,
    /// Exits per second, traced divided by untraced.
    pub(super) speed: f64,
}

/// Reads the runs of each round, in their order.
pub(super) fn rounds(out: &Path, count: u64) -> Result<Vec<Vec<Run>>> {
    let mut rounds: BTreeMap<u64, BTreeMap<u64, Run>> = BTreeMap::new();
    for entry in fs::read_dir(out).with_context(|| format!("read folder {}", out.display()))?.flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(stem) = name.strip_suffix(".guest") else { continue };
        let mut parts = stem.splitn(3, '-');
        let (Some(round), Some(place), Some(tool)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let guest = json(&path)?;
        let vcpu = &guest["vcpus"][0];
        let per_exit = |field: &str| number(&vcpu[field]) as f64 / count as f64;
        let run = Run { tool: tool.into(), whole: per_exit("run_ns"), thread: per_exit("cpu_ns"), path };
        rounds.entry(round.parse()?).or_default().insert(place.parse()?, run);
    }
    Ok(rounds.into_values().map(|round| round.into_values().collect()).collect())
}

/// Compares each traced run of a round with the untraced runs before and after it.
pub(super) fn costs(round: &[Run]) -> Vec<(&str, Cost)> {
    round
        .windows(3)
        .filter(|three| three[1].tool != "untraced" && three[0].tool == "untraced" && three[2].tool == "untraced")
        .map(|three| {
            let base = |f: fn(&Run) -> f64| (f(&three[0]) + f(&three[2])) / 2.0;
            let (whole, thread) = (base(|r| r.whole), base(|r| r.thread));
            let run = &three[1];
            let cost = Cost { whole: run.whole - whole, thread: run.thread - thread, speed: whole / run.whole };
            (run.tool.as_str(), cost)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(tool: &str, whole: f64) -> Run {
        Run { tool: tool.into(), whole, thread: whole / 2.0, path: PathBuf::new() }
    }

    #[test]
    fn a_tool_is_compared_with_the_untraced_runs_before_and_after_it() {
        let round = [run("untraced", 1000.0), run("record", 1600.0), run("untraced", 1200.0), run("perf_stat", 2200.0)];
        let found = costs(&round);
        assert_eq!(found.len(), 1, "the last one has no untraced run after it");
        assert_eq!(found[0].0, "record");
        assert_eq!((found[0].1.whole, found[0].1.thread), (500.0, 250.0));
        assert!((found[0].1.speed - 1100.0 / 1600.0).abs() < 1e-9);
    }
}
