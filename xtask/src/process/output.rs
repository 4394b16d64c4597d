//! Runs a tool quietly; when it fails, what it said becomes the error.

use anyhow::{Context, Result, bail};
use std::process::{Command, Stdio};

/// How much of what a failed tool said is worth showing.
const LINES: usize = 20;

/// A tool's stdout.
pub fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    // Messages are read below and by callers.
    let output = command.env("LC_ALL", "C").stdin(Stdio::null()).output().with_context(|| format!("run {program}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let said = stdout + &String::from_utf8_lossy(&output.stderr);
        let lines: Vec<_> = said.trim().lines().collect();
        bail!("run {program}: {}\n{}", output.status, lines[lines.len().saturating_sub(LINES)..].join("\n"));
    }
    Ok(stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_tool_is_quoted_by_its_last_lines() {
        assert_eq!(output(Command::new("sh").args(["-c", "echo a; echo b >&2"])).unwrap(), "a\n");
        let error = output(Command::new("sh").args(["-c", "seq 50; echo last >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.ends_with("50\nlast"), "{error}");
        assert!(!error.contains("\n31\n"), "{error}");
        assert!(output(&mut Command::new("/no/such/tool")).is_err());
    }
}
