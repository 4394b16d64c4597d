//! Programs that turn their input into their output: decompressors.

use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread;

/// Runs `command` on `input`.
pub fn filter(command: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    let (program, arguments) = command.split_first().context("run filter: no command")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {program}"))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (mut stdin, mut stdout) = stdin.zip(stdout).with_context(|| format!("run {program}: no pipes"))?;
    let output = thread::scope(|scope| {
        // Fails when the program ends early, which its exit status tells better.
        scope.spawn(move || stdin.write_all(input));
        let mut output = Vec::new();
        stdout.read_to_end(&mut output).map(|_| output)
    });
    let status = child.wait().with_context(|| format!("wait for {program}"))?;
    ensure!(status.success(), "run {program}: {status}");
    output.with_context(|| format!("read from {program}"))
}
