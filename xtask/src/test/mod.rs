//! `cargo xtask test`: everything a contributor runs. A step that cannot run here is skipped with the reason, never
//! passed.

mod apart;
mod labs;
mod steps;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;

use crate::test::{
    apart::End,
    labs::{BUILDS, LABS, LONG},
    steps::STEPS,
};

/// Arguments of `test`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Skip the Debian package, the companion patches and the emulated machines
    #[arg(long)]
    fast: bool,
    /// Also run the steps that take long: they are in no run of CI
    #[arg(long, conflicts_with = "fast")]
    all: bool,
    /// Run only the steps whose name contains this, e.g. "lab amd"
    #[arg(long, value_name = "NAME", conflicts_with = "fast")]
    only: Option<String>,
    /// Run one step, by its whole name: how the steps that run side by side are started
    #[arg(long, value_name = "NAME", hide = true, conflicts_with_all = ["fast", "only"])]
    step: Option<String>,
}

impl Arguments {
    fn is_wanted(&self, name: &str) -> bool {
        self.step.as_deref().is_none_or(|step| name == step)
            && self.only.as_deref().is_none_or(|only| name.contains(only))
    }
}

/// The result of a step that did not fail.
enum Outcome {
    Passed,
    /// The reason why it cannot run here.
    Skipped(String),
}

/// A step: its name, and the function that runs it.
type Step = (&'static str, fn() -> Result<Outcome>);

/// Runs every step, also those after a failed one. The emulated machines, which use one processor each, run side by side.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let (builds, labs) = if arguments.fast { (&[][..], &[][..]) } else { (BUILDS, LABS) };
    let wanted = |steps: &'static [Step]| steps.iter().filter(|(name, _)| arguments.is_wanted(name));
    let mut summary = Summary::default();
    wanted(STEPS).chain(wanted(builds)).for_each(|(name, step)| summary.run(name, step));
    let is_all = arguments.all || arguments.step.is_some();
    let long = if is_all { LONG } else { &[] };
    let steps = wanted(labs).chain(wanted(long));
    if arguments.step.is_some() {
        steps.for_each(|(name, step)| summary.run(name, step));
    } else {
        let names: Vec<_> = steps.map(|(name, _)| *name).collect();
        apart::run(&names, |name, took, end| summary.add(name, took, end))?;
    }
    if !is_all {
        summary.left_out.extend(wanted(LONG).map(|(name, _)| *name));
    }
    if arguments.fast {
        summary.skipped.extend(BUILDS.iter().chain(LABS).map(|(name, _)| format!("SKIPPED {name}: --fast")));
    }
    summary.print()
}

/// The results so far.
#[derive(Default)]
struct Summary {
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<String>,
    /// Steps that only `--all` runs.
    left_out: Vec<&'static str>,
    /// How long each step took. Those that ran side by side slowed each other down.
    took: Vec<(String, Duration)>,
}

impl Summary {
    fn run(&mut self, name: &str, step: &fn() -> Result<Outcome>) {
        eprintln!("\n== {name}");
        let start = Instant::now();
        match step() {
            Ok(Outcome::Passed) => {
                eprintln!("== {name}: passed in {} s", start.elapsed().as_secs());
                self.passed += 1;
            }
            Ok(Outcome::Skipped(reason)) => {
                eprintln!("== {name}: SKIPPED: {reason}");
                self.skipped.push(format!("SKIPPED {name}: {reason}"));
            }
            Err(error) => {
                eprintln!("== {name}: FAILED: {error:#}");
                self.failed.push(format!("FAILED  {name}: {error:#}"));
            }
        }
        self.took.push((name.to_owned(), start.elapsed()));
    }

    /// Adds the result of a step that ran in a process of its own.
    fn add(&mut self, name: &str, took: Duration, end: End) {
        self.took.push((name.to_owned(), took));
        match end {
            End::Passed => self.passed += 1,
            End::Skipped(reason) => self.skipped.push(reason),
            End::Failed(reason) => self.failed.push(reason),
        }
    }

    /// Prints skipped and failed steps and the totals. Fails if a step failed, or if there was none.
    fn print(&self) -> Result<()> {
        let Summary { passed, failed, skipped, left_out, took } = self;
        ensure!(
            passed + failed.len() + skipped.len() + left_out.len() > 0,
            "select steps by --only: no step has such a name"
        );
        println!();
        for line in skipped.iter().chain(failed) {
            println!("{line}");
        }
        for name in left_out {
            println!("LEFT OUT {name}: takes long, run with --all");
        }
        if took.len() > 1 {
            println!("{}", longest(took));
        }
        println!("{passed} passed, {} failed, {} skipped", failed.len(), skipped.len());
        ensure!(failed.is_empty(), "{} steps failed", failed.len());
        Ok(())
    }
}

/// The steps that took the longest, in one line.
fn longest(took: &[(String, Duration)]) -> String {
    const MOST: usize = 16;
    let mut took: Vec<_> = took.iter().map(|(name, time)| (time.as_secs(), name)).collect();
    took.sort_unstable_by(|a, b| b.cmp(a));
    let shown: Vec<_> = took.iter().take(MOST).map(|(seconds, name)| format!("{name} {seconds} s")).collect();
    format!("longest: {}", shown.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_steps_are_said_first() {
        let took: Vec<_> = (0..20).map(|n| (format!("step {n}"), Duration::from_secs(n))).collect();
        let said = longest(&took);
        assert!(said.starts_with("longest: step 19 19 s; step 18 18 s; ") && said.ends_with("; step 4 4 s"), "{said}");
    }
}
