//! The end of the commands that read recordings with `--skip-damaged`.

use std::process::ExitCode;

use crate::say;

/// Says what was left out of damaged recordings, if anything was, and returns the exit code: 1 if so, although the rest was read.
pub(super) fn done(damage: Option<&str>) -> ExitCode {
    let Some(damage) = damage else { return ExitCode::SUCCESS };
    say!("DAMAGED: {damage}");
    ExitCode::FAILURE
}
