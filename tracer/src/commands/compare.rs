//! `vmentry compare`: compares recordings, prints, and judges `--fail-if`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Result, anyhow, bail};

use crate::{
    commands::{
        args::CompareArgs,
        comparison::{Request, load, render},
        damaged::done,
        document,
        usage::{refuse, refuse_overlap},
    },
    compare::{
        Comparison,
        condition::{Condition, ConditionResult},
        wording,
    },
    output,
    recording::{self, OnDamage},
    say,
};

/// Exit code if a condition of `--fail-if` holds.
const HOLDS: u8 = 3;
/// Exit code if none holds and one is inconclusive.
const INCONCLUSIVE: u8 = 4;

/// Compares as the arguments say.
pub(super) fn run(args: &CompareArgs) -> Result<ExitCode> {
    let format = args.format().or_else(refuse)?;
    if let Some(out) = &args.document.output {
        refuse_overlap(args.files.iter().chain(&args.with).map(PathBuf::as_path), out)?;
    }
    let out = document::create(&args.document)?;
    let request = Request {
        files: &args.files,
        with: &args.with,
        filters: &args.filter,
        seed: args.seed,
        ignore_below: args.ignore_below,
        on_damage: OnDamage::skip_if(args.skip_damaged),
        limit: args.max_buckets,
    };
    let (comparison, setting) = load(&request)?;
    if let Some(why) = no_entries(&comparison) {
        bail!(why);
    }
    let text = render(&comparison, &setting, format, args.method, out.is_none())?;
    match out {
        Some(file) => document::write(file, &text, &args.document)?,
        None => output::print(&text)?,
    }
    let code = judge(&args.fail_if, &comparison)?;
    let damage = recording::damage(wording::damaged(&setting));
    Ok(if code == 0 { done(damage.as_deref()) } else { ExitCode::from(code) })
}

/// Reason why there is nothing to compare: a side without any VM entry.
fn no_entries(c: &Comparison) -> Option<String> {
    let [a, b] = [0, 1].map(|side| wording::entries(c, side) == 0);
    let side = match (a, b) {
        (true, true) => "A and B have",
        (true, false) => "A has",
        (false, true) => "B has",
        (false, false) => return None,
    };
    Some(format!("{side} no VM entries, so there is nothing to compare: let a VM run while you record"))
}

fn judge(conditions: &[Condition], comparison: &Comparison) -> Result<u8> {
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
    Ok(code)
}
