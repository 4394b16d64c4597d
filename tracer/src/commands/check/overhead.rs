//! `vmentry check --overhead`: measures the tracing overhead on this host. The built-in guest, which does nothing but exit, runs
//! alternately untraced and traced; each traced run is compared with the untraced runs before and after it.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use crate::{
    collect::collector::{Attached, Collection},
    commands::{progress::ProgressLine, session::ensure_exact},
    guest::{self, ExercisePlan, Scenario},
    host::{clock::process_cpu_ns, facts::Facts, problems},
    kernel::{
        options::Options,
        tracer::{Tracer, ring_bytes_of_host},
    },
    model::measurement::Aggregation,
    say,
};

/// CPUID exits of one run of the guest.
const EXITS: u64 = 20_000;
const ROUNDS: usize = 7;
/// Rates for which the overhead is printed, exits/s of a vCPU.
const RATES: [u64; 3] = [1_000, 10_000, 100_000];

/// The overhead as measured.
#[derive(Debug, Serialize)]
pub struct Overhead {
    /// CPUID exits of a run
    exits: u64,
    /// runs of each mode
    rounds: usize,
    /// ns of an untraced exit with its entry and handling: least, median, most of the runs
    untraced_ns: [f64; 3],
    /// whether the programs read kernel memory by loads instead of a helper
    direct_loads: bool,
    /// in-kernel and by records
    modes: Vec<Mode>,
}

/// A mode of tracing. Three values are the least, median and most of the rounds.
#[derive(Debug, Serialize)]
struct Mode {
    /// place that counts entries
    aggregation: Aggregation,
    /// ns that an entry adds to the vCPU's thread
    vcpu_ns: [f64; 3],
    /// ns that an entry adds to this process's other threads: the collector's, on any CPU
    collector_ns: [f64; 3],
    /// exits/s traced as a share of exits/s untraced
    speed: [f64; 3],
    /// entries that were lost
    dropped: u64,
    /// entries of the guest that were counted: at least as many as its exits
    counted: u64,
}

/// One run of the guest, ns per exit.
#[derive(Clone, Copy)]
struct Run {
    wall: f64,
    thread: f64,
    others: f64,
    counted: u64,
    dropped: u64,
    /// as [`Overhead::direct_loads`]; false untraced
    direct_loads: bool,
}

/// Measures, which takes some seconds.
pub(crate) fn measure(facts: &Facts) -> Result<Overhead> {
    let line = ProgressLine::new(true);
    let measured = rounds(facts, &line);
    line.clear();
    measured
}

fn rounds(facts: &Facts, line: &ProgressLine) -> Result<Overhead> {
    if let Some(errors) = problems::errors(&facts.problems()) {
        bail!("--overhead: cannot trace here:\n{errors}");
    }
    ensure!(
        facts.dev_kvm,
        "--overhead runs a guest, and /dev/kvm cannot be used: load kvm_intel or kvm_amd, and run as root"
    );
    let modes = [Aggregation::Records, Aggregation::InKernel];
    let mut runs: Vec<(Option<Aggregation>, Run)> = Vec::new();
    // The first run has cold caches and is left out.
    run(facts, None)?;
    if !line.is_shown() {
        say!("a guest runs alternately untraced and traced, {ROUNDS} rounds");
    }
    for round in 0..ROUNDS {
        line.show(&format!("round {} of {ROUNDS} ...", round + 1));
        for mode in modes {
            for mode in [None, Some(mode)] {
                runs.push((mode, run(facts, mode)?));
            }
        }
    }
    runs.push((None, run(facts, None)?));
    let untraced = runs.iter().filter(|(mode, _)| mode.is_none()).map(|(_, run)| run.wall);
    Ok(Overhead {
        exits: EXITS,
        rounds: ROUNDS,
        untraced_ns: range(untraced.collect()),
        direct_loads: runs.iter().any(|(_, run)| run.direct_loads),
        modes: modes.into_iter().map(|mode| of_mode(mode, &runs)).collect(),
    })
}

fn of_mode(aggregation: Aggregation, runs: &[(Option<Aggregation>, Run)]) -> Mode {
    let traced: Vec<_> = runs.windows(3).filter(|three| three[1].0 == Some(aggregation)).collect();
    let costs = |f: fn(&Run, &Run, &Run) -> f64| range(traced.iter().map(|r| f(&r[0].1, &r[1].1, &r[2].1)).collect());
    let sum = |f: fn(&Run) -> u64| traced.iter().map(|r| f(&r[1].1)).sum();
    Mode {
        aggregation,
        vcpu_ns: costs(|before, run, after| run.thread - (before.thread + after.thread) / 2.0),
        collector_ns: costs(|before, run, after| run.others - (before.others + after.others) / 2.0),
        speed: costs(|before, run, after| (before.wall + after.wall) / 2.0 / run.wall),
        dropped: sum(|run| run.dropped),
        counted: sum(|run| run.counted),
    }
}

fn run(facts: &Facts, mode: Option<Aggregation>) -> Result<Run> {
    let plan = ExercisePlan { scenario: Scenario::Cpuid, count: EXITS, vcpus: 1, delta: None };
    let layout = facts.layout.as_ref().context("no layout, and no error about it")?;
    let ring_bytes = ring_bytes_of_host()?;
    let load = |aggregation| Tracer::load(layout, &Options { aggregation, ring_bytes, ..Options::default() });
    let tracer = mode.map(load).transpose()?;
    let direct_loads = tracer.as_ref().is_some_and(Tracer::reads_directly);
    let attached = tracer.map(Attached::new).transpose()?;
    let collection = attached.map(|attached| Collection::start(attached, None)).transpose()?;
    let before = process_cpu_ns();
    let outcome = guest::run(&plan)?;
    let spent = process_cpu_ns().saturating_sub(before);
    let vcpu = outcome.vcpus.first().context("the guest had no vCPU")?;
    let per_exit = |ns: u64| ns as f64 / EXITS as f64;
    let (mut counted, mut dropped) = (0, 0);
    if let Some(mut collection) = collection {
        collection.stop();
        while let Some(interval) = collection.intervals.blocking_recv() {
            let mine = interval
                .series
                .iter()
                .filter(|(key, _)| interval.vms.get(&key.vm).is_some_and(|vm| vm.tgid == outcome.tgid));
            counted += mine.map(|(_, series)| series.entries()).sum::<u64>();
            dropped += interval.totals.dropped;
        }
        ensure_exact(&collection.join()?, "the overhead measured here")?;
    }
    if mode.is_some() && counted + dropped < EXITS {
        bail!(
            "--overhead: {counted} VM entries of the guest were traced, and it made {EXITS} exits: this KVM does not fire kvm_entry and \
             kvm_exit for each, so that the guest cannot show the overhead"
        );
    }
    let others = spent.saturating_sub(vcpu.cpu_ns);
    let [wall, thread, others] = [vcpu.run_ns, vcpu.cpu_ns, others].map(per_exit);
    Ok(Run { wall, thread, others, counted, dropped, direct_loads })
}

/// Least, median and most; NaN without values.
pub fn range(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    match values.as_slice() {
        [] => [f64::NAN; 3],
        all => [all[0], all[all.len() / 2], all[all.len() - 1]],
    }
}

/// For people.
pub fn text(overhead: &Overhead, caveat: Option<&str>) -> String {
    let three = |v: [f64; 3], digits: usize| v.map(|v| format!("{v:.digits$}")).join(" / ");
    let mut out = format!(
        "\noverhead: ns per VM entry of a guest that does nothing but exit ({} CPUID exits a run, {} rounds; least / median / most)\n",
        overhead.exits, overhead.rounds
    );
    if let Some(caveat) = caveat {
        let _ = writeln!(out, "{}: these times say nothing about bare metal", caveat.to_uppercase());
    }
    let _ = writeln!(out, "untraced exit  {}", three(overhead.untraced_ns, 0));
    let _ = writeln!(
        out,
        "programs read kernel memory {}\n",
        if overhead.direct_loads { "by loads" } else { "through a helper (loads need Linux 6.2 and the JIT)" }
    );
    let _ = writeln!(
        out,
        "{:<12} {:>22} {:>22} {:>20}  entries for exits, lost",
        "mode", "added to vCPU", "added to collector", "exits/s of untraced"
    );
    for mode in &overhead.modes {
        let _ = writeln!(
            out,
            "{:<12} {:>22} {:>22} {:>20}  {} for {}, {}",
            mode.aggregation.name(),
            three(mode.vcpu_ns, 0),
            three(mode.collector_ns, 0),
            three(mode.speed, 3),
            mode.counted,
            overhead.exits * overhead.rounds as u64,
            mode.dropped,
        );
    }
    let _ = writeln!(out, "\n{:<12} {}", "exits/s", RATES.map(|rate| format!("{rate:>10}")).join(" "));
    for mode in &overhead.modes {
        let noise = mode.vcpu_ns[0] <= 0.0;
        let share = |rate: u64| match noise {
            true => format!("{:>10}", "n/a"),
            false => format!("{:>9.3}%", mode.vcpu_ns[1] * rate as f64 / 1e7),
        };
        let why = if noise {
            "the runs differ by more than the overhead: try again on a quiet host"
        } else {
            "of a vCPU's time"
        };
        let _ = writeln!(out, "{:<12} {}  {why}", mode.aggregation.name(), RATES.map(share).join(" "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(wall: f64, thread: f64) -> Run {
        Run { wall, thread, others: 0.0, counted: 5, dropped: 1, direct_loads: true }
    }

    #[test]
    fn a_traced_run_is_compared_with_the_untraced_runs_beside_it() {
        let (records, in_kernel) = (Some(Aggregation::Records), Some(Aggregation::InKernel));
        let runs = [
            (None, run(1000.0, 900.0)),
            (records, run(1500.0, 1300.0)),
            (None, run(2000.0, 1100.0)),
            (in_kernel, run(2500.0, 1250.0)),
            (None, run(3000.0, 1300.0)),
        ];
        let mode = of_mode(Aggregation::Records, &runs);
        assert_eq!((mode.vcpu_ns, mode.speed, mode.counted, mode.dropped), ([300.0; 3], [1.0; 3], 5, 1));
        assert_eq!(of_mode(Aggregation::InKernel, &runs).vcpu_ns, [50.0; 3]);
        let overhead = Overhead {
            exits: 5,
            rounds: 1,
            untraced_ns: range(vec![3000.0, 1000.0, 2000.0]),
            direct_loads: true,
            modes: vec![mode],
        };
        let text = text(&overhead, Some("EMULATED"));
        assert!(text.contains("1000 / 2000 / 3000") && text.contains("EMULATED"), "{text}");
        // 300 ns of each of 10 000 exits are 3 ms of a second.
        assert!(text.contains("0.300%"), "{text}");
        let noisy = Mode { vcpu_ns: [-5.0, 40.0, 90.0], ..of_mode(Aggregation::Records, &runs) };
        let text = super::text(&Overhead { modes: vec![noisy], ..overhead }, None);
        assert!(text.contains("n/a") && !text.contains("%"), "{text}");
    }
}
