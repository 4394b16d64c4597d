//! Fuzzes one target for some time.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::fuzz::{
    committed,
    finds::{self, Find},
    folder,
    libfuzzer::{Coverage, Fuzzer, Progress, failed, log, scratch},
};

/// Causes of failure after which a target is given up: they hide others.
const MOST_FINDS: usize = 10;
/// The time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(15);

/// What fuzzing a target did.
pub(super) struct Outcome {
    pub(super) executions: u64,
    pub(super) elapsed: Duration,
    /// what the committed inputs reach; none where one of them fails
    pub(super) committed: Option<Coverage>,
    /// what all inputs reach afterwards
    pub(super) now: Option<Coverage>,
    pub(super) finds: Vec<Find>,
    pub(super) is_interrupted: bool,
}

/// Fuzzes a target, beginning with the committed inputs and those of earlier runs, until the time has passed. An input that fails is not
/// the end.
pub(super) fn fuzz(fuzzer: &Fuzzer, target: &str, time: Duration) -> Result<Outcome> {
    let (found, committed) = (folder().join("corpus").join(target), committed(target));
    prepare(target, &found)?;
    let mut finds = finds::sort(fuzzer, target)?;
    let before = fuzzer.coverage(target, &[&committed])?;
    let mut outcome = Outcome {
        executions: 0,
        elapsed: Duration::ZERO,
        committed: before,
        now: None,
        finds: vec![],
        is_interrupted: false,
    };
    let start = Instant::now();
    let mut said = start;
    while !outcome.is_interrupted && start.elapsed() < time && finds.len() < MOST_FINDS {
        let earlier = outcome.executions;
        let round = fuzzer.run(target, &[&found, &committed], time.saturating_sub(start.elapsed()), |progress| {
            if said.elapsed() >= PROGRESS {
                said = Instant::now();
                say(start.elapsed(), earlier, progress, finds.len());
            }
        })?;
        outcome.executions += round.executions;
        outcome.is_interrupted = round.is_interrupted;
        let known: Vec<_> = finds.into_iter().map(|find: Find| find.input).collect();
        for find in finds::sort(fuzzer, target)? {
            if !known.contains(&find.input) && !round.is_interrupted {
                eprintln!("  found: {find}");
                fuzzer.shrink(target, &find.input)?;
            }
        }
        finds = finds::sort(fuzzer, target)?;
        ensure!(
            round.executions > 0 || !finds.is_empty() || round.is_interrupted,
            "fuzz {target}: libFuzzer ran nothing; see {}",
            log(target).display()
        );
    }
    outcome.elapsed = start.elapsed();
    outcome.now = fuzzer.coverage(target, &[&found, &committed])?;
    outcome.finds = finds;
    Ok(outcome)
}

/// Makes the folders of a target, and removes what a run left that was killed.
fn prepare(target: &str, found: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(scratch());
    let _ = fs::remove_file(log(target));
    let logs = log(target).parent().map(Path::to_owned).unwrap_or_default();
    for folder in [found, &failed(target), &scratch(), &logs] {
        fs::create_dir_all(folder).with_context(|| format!("create folder {}", folder.display()))?;
    }
    Ok(())
}

fn say(elapsed: Duration, earlier: u64, now: Progress, finds: usize) {
    let executions = earlier + now.executions;
    eprintln!(
        "  {:>5} s  {executions} executions  {} edges  {} inputs  {finds} finds",
        elapsed.as_secs(),
        now.coverage.edges,
        now.coverage.inputs
    );
}
