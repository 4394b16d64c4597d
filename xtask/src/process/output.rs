//! Runs a program quietly; the output of a program that fails becomes the error.

use anyhow::{Context, Result, bail};
use std::process::{Command, Stdio};

/// Lines of a failed program's output that the error quotes.
const LINES: usize = 20;

/// Runs a program without input and returns its stdout. The error of a failure quotes the end of stdout and stderr.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    // Callers read messages, which LC_ALL=C keeps in English.
    let output = command.env("LC_ALL", "C").stdin(Stdio::null()).output().with_context(|| format!("run {program}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let messages = stdout + &String::from_utf8_lossy(&output.stderr);
        let lines: Vec<_> = messages.trim().lines().collect();
        bail!("run {program}: {}\n{}", output.status, lines[lines.len().saturating_sub(LINES)..].join("\n"));
    }
    Ok(stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_failing_program_quotes_its_last_lines() {
        assert_eq!(output(Command::new("sh").args(["-c", "echo a; echo b >&2"])).unwrap(), "a\n");
        let error = output(Command::new("sh").args(["-c", "seq 50; echo last >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.ends_with("50\nlast"), "{error}");
        assert!(!error.contains("\n31\n"), "{error}");
        assert!(output(&mut Command::new("/no/such/tool")).is_err());
    }
}
