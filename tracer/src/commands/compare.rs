//! `vmentry compare`: compares recordings, prints, and judges `--fail-if`.

use std::process::ExitCode;

use anyhow::{Result, anyhow};

use crate::{
    commands::{
        args::CompareArgs,
        comparison::{Request, load, print},
    },
    compare::{
        Comparison,
        condition::{Condition, ConditionResult},
        wording,
    },
    say,
};

/// Exit code if a condition of `--fail-if` holds.
const HOLDS: u8 = 3;
/// Exit code if none holds and one is inconclusive.
const INCONCLUSIVE: u8 = 4;

/// Compares as the arguments say.
pub(super) fn run(args: &CompareArgs) -> Result<ExitCode> {
    let request = Request { files: &args.files, with: &args.with, filters: &args.filter, seed: args.seed };
    let (comparison, setting) = load(&request)?;
    print(&comparison, &setting, args.format)?;
    judge(&args.fail_if, &comparison)
}

fn judge(conditions: &[Condition], comparison: &Comparison) -> Result<ExitCode> {
    let mut code = 0;
    let observed_ns = comparison.a.length_ns.saturating_add(comparison.b.length_ns);
    for condition in conditions {
        let (result, row) = condition.judge(&comparison.rows).map_err(|e| anyhow!(e))?;
        if let Some(message) = wording::condition(condition, row, result, observed_ns) {
            say!("{message}");
        }
        code = match result {
            ConditionResult::Holds => HOLDS,
            ConditionResult::Inconclusive if code != HOLDS => INCONCLUSIVE,
            _ => code,
        };
    }
    Ok(ExitCode::from(code))
}
