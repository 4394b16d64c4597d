//! The table of costs.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Result, ensure};

use crate::{
    bench::peers::{
        counted::counted,
        runs::{self, Cost},
        tools::{TOOLS, Tool},
    },
    lab::results::text,
};

/// The results of a measurement.
pub(super) struct Measured<'a> {
    /// Folder of the script's files.
    pub(super) out: &'a Path,
    /// VM exits of each run.
    pub(super) count: u64,
    /// Unit of the costs: instructions or ns.
    pub(super) unit: &'static str,
    /// Exit reason of CPUID.
    pub(super) cpuid: u64,
}

/// Prints the table of all tools. Fails if a run has failed.
pub(super) fn print(measured: &Measured) -> Result<()> {
    let &Measured { out, count, unit, cpuid } = measured;
    let rounds = runs::rounds(out, count)?;
    let mut by_tool: BTreeMap<&str, Vec<Cost>> = BTreeMap::new();
    for round in &rounds {
        for (tool, cost) in runs::costs(round) {
            by_tool.entry(tool).or_default().push(cost);
        }
    }
    let untraced: Vec<f64> =
        rounds.iter().flatten().filter(|run| run.tool == "untraced").map(|run| run.whole).collect();
    println!("untraced: {} {unit} per exit, {} runs", range(&untraced), untraced.len());
    let failed = text(&out.join("failed")).unwrap_or_default();
    println!("versions: {}\n", text(&out.join("versions"))?.trim().replace('\n', "; "));
    println!(
        "{:<40} {:>22} {:>22} {:>15}  counted, lost, stored",
        "tool", "+ per exit", "of it the vCPU's", "traced/untraced"
    );
    for Tool { name, title, .. } in TOOLS {
        let Some(costs) = by_tool.get(name) else {
            if failed.lines().any(|line| line == format!("{name} failed")) {
                println!("{title:<40} {:>22} {:>22} {:>15}  failed", "n/a", "n/a", "n/a");
            }
            continue;
        };
        let of = |f: fn(&Cost) -> f64| costs.iter().map(f).collect::<Vec<_>>();
        let last = rounds.iter().flatten().rev().find(|run| run.tool == name);
        let counted = last.map_or(Ok(String::new()), |run| counted(run, count, cpuid))?;
        println!(
            "{title:<40} {:>22} {:>22} {:>15.3}  {counted}",
            range(&of(|c| c.whole)),
            range(&of(|c| c.thread)),
            median(&of(|c| c.speed))
        );
    }
    print_programs(out);
    ensure!(failed.is_empty(), "{failed}(files in {})", out.display());
    Ok(())
}

/// Prints the kernel's statistics of each tool's eBPF programs.
fn print_programs(out: &Path) {
    for Tool { name, title, .. } in TOOLS {
        let Ok(text) = text(&out.join(format!("{name}.programs"))) else { continue };
        let programs: Vec<_> =
            programs(&text).iter().map(|(each, runs)| format!("{each:.0} per run, {runs} runs")).collect();
        println!(
            "{title}: its programs, by the kernel's statistics, whose own cost is included: {}",
            programs.join("; ")
        );
    }
}

/// Reads instructions (or ns) per run, and runs, of each program that has run, from files in fdinfo.
fn programs(fdinfo: &str) -> Vec<(f64, u64)> {
    let values: Vec<u64> = fdinfo.lines().filter_map(|line| line.split_whitespace().nth(1)?.parse().ok()).collect();
    let (pairs, _) = values.as_chunks::<2>();
    pairs.iter().filter(|pair| pair[1] > 0).map(|[time, runs]| (*time as f64 / *runs as f64, *runs)).collect()
}

/// Formats "min / median / max".
fn range(values: &[f64]) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.first(), sorted.last()) {
        (Some(min), Some(max)) => format!("{min:.0} / {:.0} / {max:.0}", median(values)),
        _ => "n/a".into(),
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_never_ran_are_left_out() {
        let text = "run_time_ns:\t900\nrun_cnt:\t3\nrun_time_ns:\t0\nrun_cnt:\t0\n";
        assert_eq!(programs(text), [(300.0, 3)]);
    }

    #[test]
    fn a_range_is_minimum_median_and_maximum() {
        assert_eq!(range(&[3.0, 1.0, 2.0]), "1 / 2 / 3");
        assert_eq!(range(&[]), "n/a");
    }
}
