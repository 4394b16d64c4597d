//! Runs steps side by side, each in a process of its own, whose output is shown in one piece when it ends.

use std::{
    collections::VecDeque,
    process::Command,
    sync::{Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// Steps at once at most: an emulated machine takes one processor, and up to 2 GB of memory.
const MOST_AT_ONCE: usize = 4;

/// How a step in its own process ended; the text names the step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    Passed,
    Skipped(String),
    Failed(String),
}

/// Runs steps by their names, as many at once as there are processors, and gives each result to `take`.
pub(super) fn run(names: &[&'static str], mut take: impl FnMut(&str, Duration, End)) -> Result<()> {
    let at_once = thread::available_parallelism().map_or(1, usize::from).min(MOST_AT_ONCE);
    let waiting = Mutex::new(names.iter().copied().collect::<VecDeque<_>>());
    let (sender, results) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..at_once.min(names.len()) {
            let (sender, waiting) = (sender.clone(), &waiting);
            scope.spawn(move || {
                // A function, so that the lock is free while the step runs.
                let next = || waiting.lock().expect("no thread panics with this lock").pop_front();
                while let Some(name) = next() {
                    eprintln!("== {name}: started");
                    // The receiver outlives all senders.
                    let started = Instant::now();
                    let _ = sender.send((name, in_own_process(name), started.elapsed()));
                }
            });
        }
        drop(sender);
        for (name, result, took) in results {
            let (talk, result) = result?;
            eprintln!("{}", talk.trim_end());
            take(name, took, result);
        }
        Ok(())
    })
}

/// Runs a step and returns what it said on stderr, and its result.
fn in_own_process(name: &'static str) -> Result<(String, End)> {
    // By the link of the kernel, because a step may build this program again.
    let mut step = Command::new("/proc/self/exe");
    let output = step.args(["test", "--step", name]).output().with_context(|| format!("start step {name}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let result = result(name, &text(&output.stdout), output.status.success());
    Ok((text(&output.stderr), result))
}

/// Reads the result from what a step prints: the output of its programs, skipped or failed steps, and a line of totals.
fn result(name: &str, printed: &str, succeeded: bool) -> End {
    let before_totals = printed.trim().rsplit_once('\n').map_or("", |(before, _)| before);
    let reason = |of: &str| {
        let start = format!("\n{of} {name}: ");
        let at = format!("\n{before_totals}").find(&start)?;
        Some(before_totals[at..].to_owned())
    };
    match (succeeded, reason("SKIPPED"), reason("FAILED ")) {
        (true, None, _) => End::Passed,
        (true, Some(skipped), _) => End::Skipped(skipped),
        (false, _, Some(failed)) => End::Failed(failed),
        (false, _, None) => End::Failed(format!("FAILED  {name}: ended without a result")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_is_read_from_the_summary_of_the_step() {
        assert_eq!(result("lab", "\n1 passed, 0 failed, 0 skipped\n", true), End::Passed);
        let skipped = result("lab", "\nSKIPPED lab: no emulator\n0 passed, 0 failed, 1 skipped\n", true);
        assert_eq!(skipped, End::Skipped("SKIPPED lab: no emulator".into()));
        let failed = result("lab", "\nFAILED  lab: 3 exits\nnot 4\n0 passed, 1 failed, 0 skipped\n", false);
        assert_eq!(failed, End::Failed("FAILED  lab: 3 exits\nnot 4".into()));
        assert!(matches!(result("lab", "", false), End::Failed(_)), "killed");
        // What the step's programs print is no result.
        assert_eq!(result("lab", "recorded 7\n\n1 passed, 0 failed, 0 skipped\n", true), End::Passed);
        let failed = result("lab", "recorded 7\n\nFAILED  lab: no\n0 passed, 1 failed, 0 skipped\n", false);
        assert_eq!(failed, End::Failed("FAILED  lab: no".into()));
    }
}
